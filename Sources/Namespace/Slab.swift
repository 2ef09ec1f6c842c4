// An array in segments: it grows without moving anything, and a copy of it shares every segment
// until one side changes it (DESIGN 3.3: a snapshot is a value copy).

private let segmentBits = 10
private let segmentSize = 1 << segmentBits

struct Slab<Element: Sendable>: Sendable {
    private var segments: [[Element]] = []
    private(set) var count = 0

    subscript(index: Int) -> Element {
        _read { yield segments[index >> segmentBits][index & (segmentSize - 1)] }
        _modify { yield &segments[index >> segmentBits][index & (segmentSize - 1)] }
    }

    mutating func append(_ element: Element) {
        if count & (segmentSize - 1) == 0 {
            segments.append([])
            // A small cell's only segment grows as it fills.
            if segments.count > 1 { segments[segments.count - 1].reserveCapacity(segmentSize) }
        }
        segments[segments.count - 1].append(element)
        count += 1
    }
}
