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

    var isNone: Bool { visible == 0 }
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

/// A trim that was applied to a chunk.
struct ChunkTrim: Hashable, Sendable {
    var number: RecordNumber
    var truncation: UInt32
    /// The first byte of the chunk that it took away.
    var from: UInt32
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

/// One chunk.
struct ChunkState: Sendable {
    /// Blocks of one page of the index.
    static let blocksPerPage = 32
    /// Trims that are remembered, but for those that an extent tells of.
    static let trims = 64
    var id: ChunkID
    var set: SetID
    /// The highest truncation number whose trim was applied.
    var truncation: UInt32 = 0
    /// Ascending by number; without those of which a later one took away at least as much.
    var trims: [ChunkTrim] = []
    var form = Form.none

    /// What is listed. The one extent of a small file needs no arrays.
    enum Form: Sendable {
        case none
        /// It is in the first page.
        case one(ExtentEntry)
        case many([[ExtentEntry]])

        init(_ pages: [[ExtentEntry]]) { self = pages.isEmpty ? .none : .many(pages) }
    }

    init(id: ChunkID, set: SetID) {
        self.id = id
        self.set = set
    }

    /// Each ascending by block, then number; as many as are needed.
    private(set) var pages: [[ExtentEntry]] {
        get {
            switch form {
            case .none: []
            case .one(let entry): [[entry]]
            case .many(let pages): pages
            }
        }
        _modify {
            // Nothing else holds them meanwhile, so they are changed in place.
            var pages = self.pages
            form = .none
            defer {
                let isSmall = pages.count == 1 && pages[0].count == 1
                form = isSmall ? .one(pages[0][0]) : Form(pages)
            }
            yield &pages
        }
    }

    /// The one entry of a small file.
    var only: ExtentEntry? { if case .one(let entry) = form { entry } else { nil } }

    /// Calls `body` with each entry, ascending.
    func visit(_ body: (ExtentEntry) -> Void) {
        switch form {
        case .none: break
        case .one(let entry): body(entry)
        case .many(let pages): for page in pages { page.forEach(body) }
        }
    }

    /// The entries of one block.
    func entries(_ block: Int) -> ArraySlice<ExtentEntry> {
        switch form {
        case .none: return []
        case .one(let entry): return Int(entry.block) == block ? [entry] : []
        case .many(let pages):
            let page = block / Self.blocksPerPage
            guard page < pages.count else { return [] }
            return pages[page][Self.range(of: block, in: pages[page])]
        }
    }

    private static func range(of block: Int, in page: [ExtentEntry]) -> Range<Int> {
        let first = page.firstIndex(notBelow: { Int($0.block) < block })
        return first..<page.firstIndex(notBelow: { Int($0.block) <= block })
    }

    /// Lays an extent over, or under, the others of its block by its number.
    mutating func insert(
        _ entry: ExtentEntry, _ usage: inout StoreUsage, _ book: inout SegmentBook
    ) {
        let page = Int(entry.block) / Self.blocksPerPage
        if case .none = form, page == 0 {
            form = .one(entry)
            return usage.count(entry, &book)
        }
        while pages.count <= page { pages.append([]) }
        var place = pages[page].count
        if let last = pages[page].last, last.block >= entry.block {
            var index = Self.range(of: Int(entry.block), in: pages[page])
            place = index.lowerBound
            while place < index.upperBound {
                let other = pages[page][place]
                if other.number == entry.number {
                    // The same record again, after a repair: it has a new place.
                    var moved = entry
                    moved.visible = other.visible
                    usage.forget(other, &book)
                    usage.count(moved, &book)
                    pages[page][place] = moved
                    return
                }
                if other.number > entry.number { break }
                if entry.covers(other) {
                    usage.forget(other, &book)
                    pages[page].remove(at: place)
                    index = index.lowerBound..<index.upperBound - 1
                } else {
                    place += 1
                }
            }
            if pages[page][place..<index.upperBound].contains(where: { $0.covers(entry) }) {
                return
            }
        }
        pages[page].insert(entry, at: place)
        usage.count(entry, &book)
    }

    /// Adds an entry that comes after all others; false if it does not.
    mutating func append(
        _ entry: ExtentEntry, _ usage: inout StoreUsage, _ book: inout SegmentBook
    ) -> Bool {
        let page = Int(entry.block) / Self.blocksPerPage
        if case .none = form, page == 0 {
            form = .one(entry)
        } else {
            if page + 1 < pages.count { return false }
            while pages.count <= page { pages.append([]) }
            if let last = pages[page].last {
                guard (last.block, last.number) < (entry.block, entry.number) else { return false }
            }
            pages[page].append(entry)
        }
        usage.count(entry, &book)
        return true
    }

    /// Takes away the bytes from `trim.from` on of all extents below its number.
    mutating func apply(
        _ trim: ChunkTrim, _ usage: inout StoreUsage, _ book: inout SegmentBook
    ) {
        note(trim)
        let end = Int(trim.from)
        let first = end / Limits.block / Self.blocksPerPage
        for page in pages.indices.dropFirst(first) {
            var kept: [ExtentEntry] = []
            for entry in pages[page] {
                var clipped = entry
                if entry.number > trim.number || clipped.clip(to: end) {
                    usage.logical -= UInt64(entry.visible - clipped.visible)
                    kept.append(clipped)
                } else {
                    usage.forget(entry, &book)
                }
            }
            pages[page] = kept
        }
        while pages.last?.isEmpty ?? false { pages.removeLast() }
    }

    private mutating func note(_ trim: ChunkTrim) {
        truncation = max(truncation, trim.truncation)
        trims.removeAll { $0.number < trim.number && $0.from >= trim.from }
        let place = trims.firstIndex(notBelow: { $0.number < trim.number })
        if trims[place...].contains(where: { $0.from <= trim.from }) { return }
        trims.insert(trim, at: place)
        guard trims.count > Self.trims else { return }
        if let oldest = trims.dropLast().firstIndex(where: { !isVisible($0) }) {
            trims.remove(at: oldest)
        }
    }

    /// Whether an extent ends where the trim cut it.
    private func isVisible(_ trim: ChunkTrim) -> Bool {
        trim.from > 0
            && entries((Int(trim.from) - 1) / Limits.block).contains {
                $0.number < trim.number && $0.visible < UInt32($0.last) + 1
                    && $0.position + Int($0.visible) == Int(trim.from)
            }
    }

    /// Takes everything away.
    mutating func clear(_ usage: inout StoreUsage, _ book: inout SegmentBook) {
        visit { usage.forget($0, &book) }
        form = .none
        trims = []
    }

    /// Takes away the extents of one record.
    mutating func remove(
        _ number: RecordNumber, _ usage: inout StoreUsage, _ book: inout SegmentBook
    ) {
        for page in pages.indices {
            for entry in pages[page] where entry.number == number {
                usage.forget(entry, &book)
            }
            pages[page].removeAll { $0.number == number }
        }
    }
}
