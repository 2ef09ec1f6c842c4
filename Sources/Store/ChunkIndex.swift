// The index of a disk's committed data: for each chunk the extents that are visible, and where
// their records are.
// Invariants:
//  1. The extents of one block are in the order of their record numbers: later ones lie above.
//  2. An extent that a single later one covers is not listed.
//  3. `SegmentBook` counts each listed extent once.
//  4. A copy that has the listed extents and trims, and no others, has the same content (C9).

import Base

/// A visible extent: 40 bytes.
struct ExtentEntry: Hashable, Sendable {
    var number = RecordNumber.none
    var epoch = Epoch.none
    var segment: UInt32 = 0
    var offset: UInt32 = 0
    /// Content bytes that were not truncated away, from the start; 0: it is none.
    var visible: UInt32 = 0
    /// Bytes of the payload.
    var stored: UInt32 = 0
    var headerLength: UInt16 = 0
    var block: UInt16 = 0
    /// First byte in the block.
    var start: UInt16 = 0
    /// Content bytes - 1.
    var last: UInt16 = 0

    /// None.
    init() {}

    init(_ extent: Extent, number: RecordNumber, epoch: Epoch, place: LogPlace) {
        self.number = number
        self.epoch = epoch
        segment = place.segment
        offset = place.offset
        visible = extent.length
        stored = place.payloadLength
        headerLength = UInt16(place.headerLength)
        block = extent.block
        start = UInt16(extent.start)
        last = UInt16(extent.length - 1)
    }

    /// Its bytes were given up (decision 0020).
    var isLost: Bool { stored == 0 }
    var layer: BlockLayer {
        BlockLayer(range: Int(start)..<Int(start) + Int(visible), isLost: isLost)
    }
    var place: LogPlace {
        LogPlace(
            segment: segment, offset: offset, headerLength: UInt32(headerLength),
            payloadLength: stored)
    }
    /// The first byte in the chunk.
    var position: Int { Int(block) * Limits.block + Int(start) }
    /// Whether all visible bytes of `other`, of the same block, lie below this one's.
    func covers(_ other: ExtentEntry) -> Bool {
        start <= other.start
            && Int(start) + Int(visible) >= Int(other.start) + Int(other.visible)
    }
    /// Takes away the bytes of the chunk from `end` on; false if nothing is left.
    mutating func clip(to end: Int) -> Bool {
        let left = end - position
        if left <= 0 { return false }
        visible = UInt32(min(Int(visible), left))
        return true
    }
}

/// A range of a block, as it lies over others.
struct BlockLayer {
    var range: Range<Int>
    /// Its bytes were given up (decision 0020).
    var isLost: Bool
}

extension StoredPiece {
    var layer: BlockLayer {
        let start = Int(extent.start)
        return BlockLayer(range: start..<start + Int(visible), isLost: extent.codec == .lost)
    }
}

extension [BlockLayer] {
    /// Whether something of a lost layer is not covered by those that lie over it, together.
    var showLoss: Bool {
        indices.contains { index in
            guard self[index].isLost else { return false }
            var shown = self[index].range.lowerBound
            let above = self[(index + 1)...].filter { !$0.isLost }
            for layer in above.sorted(by: { $0.range.lowerBound < $1.range.lowerBound })
            where layer.range.lowerBound <= shown {
                shown = Swift.max(shown, layer.range.upperBound)
            }
            return shown < self[index].range.upperBound
        }
    }
}

/// What lives in each segment: how many things, and how many bytes of log they are worth.
struct SegmentBook: Sendable {
    /// By the number of the segment's file.
    private var things: [Int] = []
    private var bytes: [Int] = []
    /// Bytes of all segments.
    private(set) var total = 0
    /// How often a segment got its first thing, or lost its last.
    private(set) var turns: UInt64 = 0

    mutating func add(_ place: LogPlace) {
        let segment = Int(place.segment)
        while things.count <= segment {
            things.append(0)
            bytes.append(0)
        }
        if things[segment] == 0 { turns += 1 }
        things[segment] += 1
        bytes[segment] += place.footprint
        total += place.footprint
    }
    mutating func remove(_ place: LogPlace) {
        let segment = Int(place.segment)
        things[segment] -= 1
        if things[segment] == 0 { turns += 1 }
        bytes[segment] -= place.footprint
        total -= place.footprint
        precondition(
            things[segment] >= 0 && bytes[segment] >= 0, "a segment lost more than it had")
    }
    func isIdle(_ segment: UInt32) -> Bool {
        Int(segment) >= things.count || things[Int(segment)] == 0
    }
    /// Bytes of log that a segment's living things take.
    func liveBytes(_ segment: UInt32) -> Int {
        Int(segment) < bytes.count ? bytes[Int(segment)] : 0
    }
}

extension LogPlace {
    /// Bytes of log that the record costs: its own, and two copies of its headers, in the group
    /// after it and in the footer.
    var footprint: Int {
        let gap = payloadLength < Limits.largePayload ? 0 : Limits.sectorGap
        return align(length, Limits.recordAlignment) + gap
            + 2 * (RecordFrame.size + Int(headerLength))
    }
}

extension StoreUsage {
    mutating func count(_ entry: ExtentEntry, _ book: inout SegmentBook) {
        book.add(entry.place)
        stored += UInt64(entry.stored)
        logical += UInt64(entry.visible)
    }
    mutating func forget(_ entry: ExtentEntry, _ book: inout SegmentBook) {
        book.remove(entry.place)
        stored -= UInt64(entry.stored)
        logical -= UInt64(entry.visible)
    }
}

extension RandomAccessCollection {
    /// The first place whose element is no longer below what is looked for; `isBelow` is true up
    /// to there, and then false.
    func firstIndex(notBelow isBelow: (Element) -> Bool) -> Index {
        var low = startIndex
        var count = self.count
        while count > 0 {
            let middle = index(low, offsetBy: count / 2)
            if isBelow(self[middle]) {
                low = index(after: middle)
                count -= count / 2 + 1
            } else {
                count /= 2
            }
        }
        return low
    }
}
