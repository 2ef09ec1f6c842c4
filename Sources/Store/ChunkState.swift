// One chunk in the index: what is visible of it, where that lies, and what was cut off.
//
// Invariant: an open page and a packed one mean the same.

import Base

/// A trim that was applied to a chunk.
struct ChunkTrim: Hashable, Sendable {
    var number: RecordNumber
    var truncation: UInt32
    /// The first byte of the chunk that it took away.
    var from: UInt32
}

/// One chunk.
struct ChunkState: Sendable {
    /// Trims that are remembered, but for those that an extent tells of.
    static let trims = 64
    var id: ChunkID
    var set: SetID
    /// The highest truncation number whose trim was applied.
    var truncation: UInt32 = 0
    /// Ascending by number; without those of which a later one took away at least as much.
    var trims: [ChunkTrim] = []
    var form = Form.none
    /// The pages that were opened, a bit for each, until they are packed again.
    private(set) var opened: UInt32 = 0

    /// What is listed. The one extent of a small file needs no arrays.
    enum Form: Sendable {
        case none
        /// It is in the first page.
        case one(ExtentEntry)
        case many([IndexPage])
    }

    init(id: ChunkID, set: SetID) {
        self.id = id
        self.set = set
    }

    /// As many as are needed.
    var pages: [IndexPage] {
        switch form {
        case .none: []
        case .one(let entry): [.open([entry])]
        case .many(let pages): pages
        }
    }

    /// How many there are.
    var pageCount: Int {
        switch form {
        case .none: 0
        case .one: 1
        case .many(let pages): pages.count
        }
    }

    /// The one entry of a small file.
    var only: ExtentEntry? { if case .one(let entry) = form { entry } else { nil } }

    /// Calls `body` with each entry, ascending; without those of pages in whose segments, as
    /// `isWanted` says, nothing is.
    func visit(
        where isWanted: (ClosedRange<UInt32>) -> Bool = { _ in true },
        _ body: (ExtentEntry) -> Void
    ) {
        switch form {
        case .none: break
        case .one(let entry): body(entry)
        case .many(let pages):
            for page in pages {
                if case .packed(let packed) = page, !isWanted(packed.head.segments) { continue }
                page.visit(body)
            }
        }
    }

    /// The entries of one block.
    func entries(_ block: Int) -> ArraySlice<ExtentEntry> {
        switch form {
        case .none: return []
        case .one(let entry): return Int(entry.block) == block ? [entry] : []
        case .many(let pages):
            let page = block / IndexPage.blocks
            return page < pages.count ? pages[page].entries(block) : []
        }
    }

    /// Takes the pages out, to be changed in place: nothing else holds them meanwhile.
    private mutating func takePages() -> [IndexPage] {
        defer { form = .none }
        return pages
    }
    private mutating func put(_ pages: consuming [IndexPage]) {
        while pages.last?.isEmpty ?? false { pages.removeLast() }
        if pages.count == 1, case .open(let entries) = pages[0], entries.count == 1 {
            form = .one(entries[0])
        } else {
            form = pages.isEmpty ? .none : .many(pages)
        }
    }
    /// Changes the entries of some pages.
    private mutating func change(
        _ numbers: Range<Int>, _ body: (inout [ExtentEntry]) -> Void
    ) {
        var pages = takePages()
        for number in numbers {
            while pages.count <= number { pages.append(.empty) }
            var entries = pages[number].entries
            pages[number] = .empty
            body(&entries)
            pages[number] = .open(entries)
        }
        for number in numbers { opened |= 1 << number }
        put(pages)
    }

    /// Packs a page that was opened.
    mutating func pack(_ number: Int) {
        opened &= ~(1 << number)
        guard case .many(var pages) = form, number < pages.count else { return }
        form = .none
        pages[number] = pages[number].packed()
        form = .many(pages)
    }

    /// Lays an extent over, or under, the others of its block by its number.
    mutating func insert(
        _ entry: ExtentEntry, _ usage: inout StoreUsage, _ book: inout SegmentBook
    ) {
        let page = Int(entry.block) / IndexPage.blocks
        if case .none = form, page == 0 {
            form = .one(entry)
            return usage.count(entry, &book)
        }
        change(page..<page + 1) { $0.lay(entry, &usage, &book) }
    }

    /// Adds a page that comes after all others, or the rest of the last one; false if it does not.
    mutating func append(_ packed: PackedPage, _ entries: [ExtentEntry]) -> Bool {
        let page = packed.head.page
        var pages = takePages()
        defer { put(pages) }
        if page + 1 < pages.count { return false }
        while pages.count <= page { pages.append(.empty) }
        let before = pages[page].entries
        if let last = before.last, let first = entries.first, !last.isBefore(first) {
            return false
        }
        pages[page] = before.isEmpty ? .packed(packed) : .open(before + entries)
        return true
    }

    /// Takes away the bytes from `trim.from` on of all extents below its number.
    mutating func apply(
        _ trim: ChunkTrim, _ usage: inout StoreUsage, _ book: inout SegmentBook
    ) {
        note(trim)
        let end = Int(trim.from)
        let first = end / Limits.block / IndexPage.blocks
        let count = pageCount
        if first >= count { return }
        change(first..<count) { entries in
            entries = entries.compactMap { entry in
                var clipped = entry
                if entry.number > trim.number || clipped.clip(to: end) {
                    usage.logical -= UInt64(entry.visible - clipped.visible)
                    return clipped
                }
                usage.forget(entry, &book)
                return nil
            }
        }
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
        _ number: RecordNumber, of block: UInt16, _ usage: inout StoreUsage,
        _ book: inout SegmentBook
    ) {
        let page = Int(block) / IndexPage.blocks
        change(page..<page + 1) { entries in
            for entry in entries where entry.number == number { usage.forget(entry, &book) }
            entries.removeAll { $0.number == number }
        }
    }
}

extension [ExtentEntry] {
    /// Lays an extent over, or under, the others of its block by its number.
    fileprivate mutating func lay(
        _ entry: ExtentEntry, _ usage: inout StoreUsage, _ book: inout SegmentBook
    ) {
        var place = count
        if let last, last.block >= entry.block {
            var index = range(of: Int(entry.block))
            place = index.lowerBound
            while place < index.upperBound {
                let other = self[place]
                if other.number == entry.number {
                    // The same record again, after a repair: it has a new place.
                    var moved = entry
                    moved.visible = other.visible
                    usage.forget(other, &book)
                    usage.count(moved, &book)
                    self[place] = moved
                    return
                }
                if other.number > entry.number { break }
                if entry.covers(other) {
                    usage.forget(other, &book)
                    remove(at: place)
                    index = index.lowerBound..<index.upperBound - 1
                } else {
                    place += 1
                }
            }
            if self[place..<index.upperBound].contains(where: { $0.covers(entry) }) { return }
        }
        insert(entry, at: place)
        usage.count(entry, &book)
    }
}
