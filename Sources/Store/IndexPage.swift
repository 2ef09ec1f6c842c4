// The extents of up to 32 blocks of a chunk: as they are while the chunk changes, or packed. A
// disk has hundreds of millions of them, and most say what was to be expected after the one before:
// such a one takes 2 to 4 bytes instead of 40 (decision 0021; docs/FORMATS.md, *index page*).
//
//   open -> packed  when many others were changed since
//   packed -> open  to be changed
//
// Invariants:
//  1. Entries are ascending by block, then number; all are of the page's blocks.
//  2. A packed page can be unpacked: it was packed here, or checked when it was read.

import Base

/// One page of a chunk's index.
enum IndexPage: Sendable {
    case open([ExtentEntry])
    case packed(PackedPage)

    /// Blocks of one.
    static let blocks = 32
    /// None of a chunk is higher.
    static let last = Limits.blocksPerChunk / blocks - 1
    static let empty = IndexPage.open([])

    var isEmpty: Bool { if case .open(let entries) = self { entries.isEmpty } else { false } }

    var entries: [ExtentEntry] {
        switch self {
        case .open(let entries): return entries
        case .packed:
            var entries: [ExtentEntry] = []
            visit { entries.append($0) }
            return entries
        }
    }

    /// The entries of one block.
    func entries(_ block: Int) -> ArraySlice<ExtentEntry> {
        switch self {
        case .open(let entries): return entries[entries.range(of: block)]
        case .packed(let page):
            var found: ArraySlice<ExtentEntry> = []
            page.visit { entry in
                if Int(entry.block) == block { found.append(entry) }
                return Int(entry.block) <= block
            }
            return found
        }
    }

    /// Calls `body` with each entry, ascending.
    func visit(_ body: (ExtentEntry) -> Void) {
        switch self {
        case .open(let entries): entries.forEach(body)
        case .packed(let page):
            page.visit {
                body($0)
                return true
            }
        }
    }

    /// Bytes of memory, about: an array's own, and what the allocator adds.
    var memory: Int {
        let own = MemoryLayout<IndexPage>.size
        switch self {
        case .open(let entries) where entries.isEmpty: return own
        case .open(let entries):
            return own + 48 + entries.count * MemoryLayout<ExtentEntry>.stride
        case .packed(let page): return own + 48 + page.bytes.count
        }
    }

    /// Packed, unless it is empty or too large.
    func packed() -> IndexPage {
        guard case .open(let entries) = self, !entries.isEmpty,
            entries.count <= PackedPage.entries
        else { return self }
        return .packed(PackedPage(entries[...]))
    }
}

extension [ExtentEntry] {
    /// Where the entries of one block are, or would be.
    func range(of block: Int) -> Range<Int> {
        let first = firstIndex(notBelow: { Int($0.block) < block })
        return first..<firstIndex(notBelow: { Int($0.block) <= block })
    }
}

/// Entries of one page, each coded by what differs from what the one before lets expect.
struct PackedPage: Sendable {
    /// At most so many.
    static let entries = 1_024
    /// More bytes than any has.
    static let bound = 64 << 10

    /// The page, whether it has blocks of several extents, and the segments; then the entries.
    let bytes: [UInt8]

    /// The number of the page, and what is known of it without a look at the entries.
    struct Head {
        private static let hasPiles: UInt8 = 0x80
        var page: Int
        /// Whether a block has several extents.
        var hasPiles: Bool
        /// Where its records are, and maybe not all between.
        var segments: ClosedRange<UInt32>

        func encode(into writer: inout ByteWriter) {
            writer.write(UInt8(page) | (hasPiles ? Self.hasPiles : 0))
            writer.writeVarint(UInt64(segments.lowerBound))
            writer.writeVarint(UInt64(segments.upperBound - segments.lowerBound))
        }
        init(from reader: inout ByteReader) throws(DecodeError) {
            let first = try reader.read(UInt8.self)
            page = Int(first & ~Self.hasPiles)
            hasPiles = first & Self.hasPiles != 0
            let lowest = try reader.readVarint()
            let (highest, isTooHigh) = lowest.addingReportingOverflow(try reader.readVarint())
            guard page <= IndexPage.last, !isTooHigh, highest < 1 << 24 else {
                throw .invalid(field: "index page", value: UInt64(first))
            }
            segments = UInt32(lowest)...UInt32(highest)
        }
        init(_ entries: ArraySlice<ExtentEntry>) {
            let first = entries[entries.startIndex]
            page = Int(first.block) / IndexPage.blocks
            segments = entries.reduce(first.segment...first.segment) {
                min($0.lowerBound, $1.segment)...max($0.upperBound, $1.segment)
            }
            hasPiles = zip(entries, entries.dropFirst()).contains { $0.block == $1.block }
        }
    }

    /// Packs entries of one page: at least one, at most `entries`.
    init(_ entries: ArraySlice<ExtentEntry>) {
        precondition((1...Self.entries).contains(entries.count), "a page of too many extents")
        var writer = ByteWriter(capacity: 16 + entries.count * 8)
        let head = Head(entries)
        head.encode(into: &writer)
        var previous = ExtentEntry.before(page: head.page)
        for entry in entries {
            entry.pack(after: previous, into: &writer)
            previous = entry
        }
        // No more memory than it needs.
        bytes = writer.bytes.withUnsafeBytes { Array($0) }
    }

    /// Takes one from a checkpoint, and adds its entries to none; throws unless they are in order.
    init(_ bytes: ArraySlice<UInt8>, entries: inout [ExtentEntry]) throws(DecodeError) {
        self.bytes = Array(bytes)
        var reader = ByteReader(bytes)
        let head = try Head(from: &reader)
        var previous = ExtentEntry.before(page: head.page)
        while reader.remaining > 0 {
            previous = try ExtentEntry(
                checkedAfter: previous, isFirst: entries.isEmpty, page: head.page, from: &reader)
            guard entries.count < Self.entries else {
                throw .oversize(count: entries.count + 1, bound: Self.entries)
            }
            entries.append(previous)
        }
        // What is told of all of them must be so.
        guard !entries.isEmpty, case let real = Head(entries[...]), real.hasPiles == head.hasPiles,
            real.segments == head.segments
        else { throw .invalid(field: "index page", value: UInt64(head.page)) }
    }

    var head: Head { read { (reader) throws(DecodeError) in try Head(from: &reader) } }

    /// Calls `body` with each entry, ascending, until it says false.
    func visit(_ body: (ExtentEntry) -> Bool) {
        read { (reader) throws(DecodeError) in
            var previous = ExtentEntry.before(page: try Head(from: &reader).page)
            while reader.remaining > 0 {
                previous = try ExtentEntry(packedAfter: previous, from: &reader)
                guard body(previous) else { return }
            }
        }
    }

    private func read<Result>(
        _ body: (inout ByteReader) throws(DecodeError) -> Result
    ) -> Result {
        var reader = ByteReader(bytes)
        do throws(DecodeError) { return try body(&reader) } catch {
            preconditionFailure("a packed page is whole: \(error)")
        }
    }
}

/// How an entry differs from what the one before it lets expect: a byte, and what follows it.
private struct EntryFlags: OptionSet {
    let rawValue: UInt8
    /// It is of the next block.
    static let nextBlock = EntryFlags(rawValue: 1)
    /// Its number is the next.
    static let nextNumber = EntryFlags(rawValue: 2)
    static let sameEpoch = EntryFlags(rawValue: 4)
    static let sameSegment = EntryFlags(rawValue: 8)
    static let sameHeader = EntryFlags(rawValue: 16)
    /// All of the block is its content, and visible.
    static let whole = EntryFlags(rawValue: 32)
    /// As many bytes are stored as it has content.
    static let raw = EntryFlags(rawValue: 64)
    static let all: UInt8 = 127
}

extension ExtentEntry {
    /// What stands before the first entry of a page.
    static func before(page: Int) -> ExtentEntry {
        var entry = ExtentEntry()
        entry.block = UInt16(page * IndexPage.blocks) &- 1
        return entry
    }

    func isBefore(_ other: ExtentEntry) -> Bool {
        (block, number) < (other.block, other.number)
    }

    /// Throws for one that no record has.
    private func check() throws(DecodeError) {
        guard Int(block) < Limits.blocksPerChunk, Int(start) + Int(last) < Limits.block,
            visible >= 1, visible <= UInt32(last) + 1, segment < 1 << 24,
            stored <= UInt32(Limits.recordPayload)
        else { throw .invalid(field: "extent entry", value: number.rawValue) }
    }

    /// Where the next record begins, if nothing lies between; in the units of the alignment.
    private var end: UInt64 {
        let end = align(Int(offset) + place.length, Limits.recordAlignment)
        return UInt64(end / Limits.recordAlignment)
    }

    private var isWhole: Bool { start == 0 && visible == UInt32(Limits.block) }

    func pack(after previous: ExtentEntry, into writer: inout ByteWriter) {
        precondition(Int(offset) % Limits.recordAlignment == 0, "records are aligned")
        var flags: EntryFlags = []
        if block == previous.block &+ 1 { flags.insert(.nextBlock) }
        if number.rawValue == previous.number.rawValue &+ 1 { flags.insert(.nextNumber) }
        if epoch == previous.epoch { flags.insert(.sameEpoch) }
        if segment == previous.segment { flags.insert(.sameSegment) }
        if headerLength == previous.headerLength { flags.insert(.sameHeader) }
        if isWhole { flags.insert(.whole) }
        if stored == UInt32(last) + 1 { flags.insert(.raw) }
        writer.write(flags.rawValue)
        if !flags.contains(.nextBlock) { writer.writeVarint(UInt64(block &- previous.block)) }
        if !flags.contains(.nextNumber) {
            writer.writeDifference(from: previous.number.rawValue, to: number.rawValue)
        }
        if !flags.contains(.sameEpoch) {
            writer.writeDifference(from: previous.epoch.rawValue, to: epoch.rawValue)
        }
        if !flags.contains(.sameSegment) {
            writer.writeDifference(from: UInt64(previous.segment), to: UInt64(segment))
        }
        writer.writeDifference(
            from: previous.end, to: UInt64(Int(offset) / Limits.recordAlignment))
        if !flags.contains(.sameHeader) { writer.writeVarint(UInt64(headerLength)) }
        if !flags.contains(.whole) {
            writer.writeVarint(UInt64(start))
            writer.writeVarint(UInt64(last))
            writer.writeVarint(UInt64(UInt32(last) + 1 - visible))
        }
        if !flags.contains(.raw) { writer.writeVarint(UInt64(stored)) }
    }

    init(packedAfter previous: ExtentEntry, from reader: inout ByteReader) throws(DecodeError) {
        let raw = try reader.read(UInt8.self)
        let flags = EntryFlags(rawValue: raw)
        guard raw <= EntryFlags.all else {
            throw .invalid(field: "extent entry", value: UInt64(raw))
        }
        self = previous
        block &+= flags.contains(.nextBlock) ? 1 : try reader.readVarint(UInt16.self)
        if flags.contains(.nextNumber) {
            number = RecordNumber(rawValue: number.rawValue &+ 1)
        } else {
            number = RecordNumber(rawValue: try reader.readDifference(from: number.rawValue))
        }
        if !flags.contains(.sameEpoch) {
            epoch = Epoch(rawValue: try reader.readDifference(from: epoch.rawValue))
        }
        if !flags.contains(.sameSegment) {
            segment = UInt32(clamping: try reader.readDifference(from: UInt64(segment)))
        }
        let begin = try reader.readDifference(from: previous.end)
        guard begin < UInt64(UInt32.max) / UInt64(Limits.recordAlignment) else {
            throw .invalid(field: "offset of an extent", value: begin)
        }
        offset = UInt32(begin) * UInt32(Limits.recordAlignment)
        if !flags.contains(.sameHeader) { headerLength = try reader.readVarint(UInt16.self) }
        if flags.contains(.whole) {
            (start, last, visible) = (0, UInt16(Limits.block - 1), UInt32(Limits.block))
        } else {
            start = try reader.readVarint(UInt16.self)
            last = try reader.readVarint(UInt16.self)
            visible = UInt32(last) + 1 &- (try reader.readVarint(UInt32.self))
        }
        stored = flags.contains(.raw) ? UInt32(last) + 1 : try reader.readVarint(UInt32.self)
        try check()
    }

    /// Reads one that must be of this page, and, unless it is the first, come after the one before.
    init(
        checkedAfter previous: ExtentEntry, isFirst: Bool, page: Int,
        from reader: inout ByteReader
    ) throws(DecodeError) {
        try self.init(packedAfter: previous, from: &reader)
        guard Int(block) / IndexPage.blocks == page, isFirst || previous.isBefore(self) else {
            throw .invalid(field: "extent order", value: UInt64(block))
        }
    }
}

extension ByteWriter {
    /// Writes how one number differs from another: little takes few bytes, up or down.
    mutating func writeDifference(from before: UInt64, to value: UInt64) {
        let difference = Int64(bitPattern: value &- before)
        writeVarint(UInt64(bitPattern: difference << 1 ^ difference >> 63))
    }
}

extension ByteReader {
    mutating func readDifference(from before: UInt64) throws(DecodeError) -> UInt64 {
        let value = try readVarint()
        return before &+ (value >> 1 ^ (0 &- (value & 1)))
    }
    mutating func readVarint<Value: FixedWidthInteger>(
        _ type: Value.Type
    ) throws(DecodeError) -> Value {
        let value = try readVarint()
        guard let narrow = Value(exactly: value) else {
            throw .invalid(field: "varint", value: value)
        }
        return narrow
    }
}
