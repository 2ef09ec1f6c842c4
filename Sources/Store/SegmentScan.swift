// What the index needs in some segments, for the scrub and the cleaner. An index has millions of
// extents: a turn looks at some of them.
//
// Invariant: everything that was needed in the segments at the start, and is needed at the end, is
// found, wherever in the index it was meanwhile. No new record goes into segments but the open one.

import Base

/// See the head of this file.
struct SegmentScan: Sendable {
    /// Chunks and extents that one turn looks at.
    fileprivate static let step = 1 << 14
    /// At the end: what was found in each segment, by offset.
    fileprivate(set) var found: [[ScrubItem]]
    /// The place in `found` of a segment, by its number; -1: it is none of them.
    private var places: [Int8] = []
    /// The slot that is looked at next.
    fileprivate var slot = 0

    fileprivate init(_ segments: [UInt32]) {
        found = segments.map { _ in [] }
        for (place, segment) in segments.enumerated() {
            while places.count <= Int(segment) { places.append(-1) }
            places[Int(segment)] = Int8(place)
        }
    }

    fileprivate func place(_ segment: UInt32) -> Int? {
        guard Int(segment) < places.count, places[Int(segment)] >= 0 else { return nil }
        return Int(places[Int(segment)])
    }

    /// Whether one of the segments is among these; of many it is not worth the look.
    fileprivate func mayHave(_ segments: ClosedRange<UInt32>) -> Bool {
        segments.count > 32 || segments.contains { place($0) != nil }
    }

    fileprivate mutating func end() {
        for place in found.indices {
            found[place].sort { $0.item.place.offset < $1.item.place.offset }
            // A record that was committed on the way was seen twice.
            var last: UInt32?
            found[place].removeAll { item in
                defer { last = item.item.place.offset }
                return item.item.place.offset == last
            }
        }
    }
}

extension DiskStore {
    /// Begins with what is prepared.
    func scan(_ segments: [UInt32]) -> SegmentScan {
        var scan = SegmentScan(segments)
        for ledger in ledgers {
            for entry in ledger.prepared {
                guard let at = entry.place, let place = scan.place(at.segment) else { continue }
                var target: (chunk: ChunkID?, block: Int) = (nil, 0)
                if case .write(let extent) = entry.record.body {
                    target = (extent.chunk, Int(extent.block))
                }
                scan.found[place].append(
                    ScrubItem(
                        set: ledger.set, chunk: target.chunk, block: target.block,
                        item: ReadItem(
                            number: entry.record.number, epoch: entry.record.epoch, place: at,
                            visible: 0, slot: 0, order: 0)))
            }
        }
        return scan
    }

    /// Looks at some more of the index; true at its end.
    func advance(_ scan: inout SegmentScan) -> Bool {
        var (left, slot) = (SegmentScan.step, scan.slot)
        let isDone = chunks.slots.visit(from: &slot, &left) { chunk, left in
            left -= chunk.pageCount
            // Not `scan.mayHave` itself: what holds the scan has what was found copied.
            chunk.visit(where: { scan.mayHave($0) }) { entry in
                left -= 1
                guard let place = scan.place(entry.segment) else { return }
                scan.found[place].append(
                    ScrubItem(
                        set: chunk.set, chunk: chunk.id, block: Int(entry.block),
                        item: ReadItem(
                            number: entry.number, epoch: entry.epoch, place: entry.place,
                            visible: 0, slot: 0, order: 0)))
            }
        }
        scan.slot = slot
        guard isDone else { return false }
        scan.end()
        return true
    }
}
