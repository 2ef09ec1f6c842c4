// The index written down: the coding of a checkpoint (docs/FORMATS.md).
// A checkpoint is a sequence of blocks of up to 1 MiB, each at a multiple of 1 MiB in its file.
// Invariants:
//  1. A block carries cell, disk, the checkpoint's sequence, its own index, and the checksum of
//     the block before it: blocks of two checkpoints never mix (S5).
//  2. An item lies within one block; a block is decoded by itself.
//  3. Nothing in it is younger than its position in the log, but epochs.

import Base

/// The header of one block of a checkpoint: 64 bytes, then the items.
struct CheckpointBlock: Hashable, Sendable {
    var identity: SegmentIdentity
    /// Higher in later checkpoints.
    var sequence: UInt64
    /// From 0.
    var index: UInt32
    var isLast: Bool
    /// Bytes of items.
    var length: UInt32
    /// Checksum of the items of the block before; 0 for the first.
    var previous: UInt32
    /// Checksum of the items.
    var checksum: UInt32

    static let magic: UInt32 = 0x5043_4C4D  // MLCP
    static let version: UInt16 = 3
    static let headerSize = 64
    static let stride = 1 << 20
    static let capacity = stride - headerSize

    func encode() -> [UInt8] {
        var writer = ByteWriter(capacity: Self.headerSize)
        writer.write(Self.magic)
        writer.write(Self.version)
        writer.write(isLast ? 1 as UInt16 : 0)
        writer.write(identity.cell)
        writer.write(identity.disk)
        writer.write(sequence)
        writer.write(index)
        writer.write(length)
        writer.write(previous)
        writer.write(checksum)
        writer.appendZeros(Self.headerSize - 4 - writer.count)
        writer.write(Checksum(of: writer.bytes).value)
        return writer.bytes
    }

    /// Errors: checksum for a damaged header, version for another release's.
    init(decoding header: ArraySlice<UInt8>) throws(DecodeError) {
        guard header.count == Self.headerSize else { throw .truncated }
        var tail = ByteReader(header.suffix(4))
        var reader = ByteReader(header)
        guard try reader.read() == Self.magic,
            Checksum(of: header.dropLast(4)).value == (try tail.read())
        else { throw .checksum("checkpoint") }
        let version = try reader.read(UInt16.self)
        guard version == Self.version else { throw .version("checkpoint", found: UInt64(version)) }
        let flags = try reader.read(UInt16.self)
        guard flags <= 1 else { throw .invalid(field: "checkpoint flags", value: UInt64(flags)) }
        isLast = flags == 1
        let cell = try reader.read(UInt64.self)
        identity = SegmentIdentity(
            cell: CellID(high: 0, low: cell), disk: try reader.read(), generation: 0)
        sequence = try reader.read()
        index = try reader.read()
        length = try reader.read()
        previous = try reader.read()
        checksum = try reader.read()
        guard length <= Self.capacity else {
            throw .oversize(count: Int(length), bound: Self.capacity)
        }
    }

    init(
        identity: SegmentIdentity, sequence: UInt64, index: UInt32, isLast: Bool,
        items: [UInt8], previous: UInt32
    ) {
        self.identity = identity
        self.sequence = sequence
        self.index = index
        self.isLast = isLast
        length = UInt32(items.count)
        self.previous = previous
        checksum = Checksum(of: items).value
    }
}

/// One item of a checkpoint. `set` items belong to the set named last, `page` and `trims` to a
/// chunk of the last group.
enum CheckpointItem {
    case log(LogPosition)
    case segment(LogSegment)
    case set(SetID, committed: RecordNumber, last: RecordNumber, isTailUnknown: Bool)
    case epoch(EpochStart)
    case window(SessionWindow)
    case prepared(LogNumber, LogPlace, Record)
    case dropped(DroppedChunk)
    case hole(ClosedRange<RecordNumber>)
    case rotten(RecordNumber)
    case page(PackedPage, [ExtentEntry], place: Int)
    case recent([RecentRecord])
    case scrub(ScrubProgress)
    case trims([ChunkTrim], place: Int)
    case group(ChunkGroup.Draft)

    /// Trims of one item.
    static let trims = 1_024

    func encode(into writer: inout ByteWriter) {
        switch self {
        case .log(let position):
            writer.write(1 as UInt8)
            writer.write(position.generation)
            writer.write(position.offset)
            writer.write(position.number)
        case .segment(let segment):
            writer.write(2 as UInt8)
            writer.write(segment.number)
            writer.write(segment.generation)
        case .set(let set, let committed, let last, let isTailUnknown):
            writer.write(3 as UInt8)
            writer.write(set)
            writer.write(committed)
            writer.write(last)
            writer.write(isTailUnknown)
        case .epoch(let start):
            writer.write(4 as UInt8)
            start.encode(into: &writer)
        case .window(let window):
            writer.write(5 as UInt8)
            writer.write(window.session)
            writer.write(window.firstUnacked)
            writer.writeList(window.entries) {
                $0.write($1.sequence)
                $0.write($1.number)
            }
        case .prepared(let log, let place, let record):
            writer.write(6 as UInt8)
            writer.write(log)
            place.encode(into: &writer)
            Self.encode(record, place, into: &writer)
        case .dropped(let dropped):
            writer.write(7 as UInt8)
            writer.write(dropped.chunk)
            writer.write(dropped.number)
        case .hole(let range):
            writer.write(8 as UInt8)
            writer.write(range.lowerBound)
            writer.write(range.upperBound)
        case .rotten(let number):
            writer.write(9 as UInt8)
            writer.write(number)
        case .recent(let records):
            writer.write(13 as UInt8)
            writer.writeList(records) { $1.encode(into: &$0) }
        case .scrub(let progress):
            writer.write(14 as UInt8)
            progress.encode(into: &writer)
        case .trims(let trims, let place):
            writer.write(15 as UInt8)
            writer.write(UInt8(place))
            writer.writeList(trims) {
                $0.write($1.number)
                $0.write($1.truncation)
                $0.write($1.from)
            }
        case .page, .group: preconditionFailure("written as they are in the index")
        }
    }

    /// Most of a checkpoint, and written while clients wait: straight from the index.
    static func encode(_ group: ChunkGroup, into writer: inout ByteWriter) {
        writer.write(16 as UInt8)
        writer.writeBytes(group.bytes[...])
    }
    /// Of a chunk of the last group.
    static func encode(_ page: PackedPage, _ place: Int, into writer: inout ByteWriter) {
        writer.write(12 as UInt8)
        writer.write(UInt8(place))
        writer.writeBytes(page.bytes[...])
    }

    /// The header of a record whose payload is on the disk: its length is put back.
    private static func encode(
        _ record: Record, _ place: LogPlace, into writer: inout ByteWriter
    ) {
        var whole = record
        if case .write(var extent) = record.body {
            extent.payload = Array(repeating: 0, count: Int(place.payloadLength))[...]
            whole.body = .write(extent)
        }
        whole.encodeHeader(into: &writer)
    }

    /// Reads one item of a kind.
    init(_ kind: UInt8, from reader: inout ByteReader) throws(DecodeError) {
        switch kind {
        case 1:
            self = .log(
                LogPosition(
                    generation: try reader.read(), offset: try reader.read(),
                    number: try reader.read()))
        case 2:
            self = .segment(
                LogSegment(number: try reader.read(), generation: try reader.read()))
        case 3:
            self = .set(
                try reader.read(), committed: try reader.read(), last: try reader.read(),
                isTailUnknown: try reader.readBool())
        case 4: self = .epoch(try EpochStart(from: &reader))
        case 5: self = .window(try SessionWindow(from: &reader))
        case 6:
            let log = try reader.read(LogNumber.self)
            let place = try LogPlace(from: &reader)
            var length = 0
            let record = try Record(headerFrom: &reader, storedLength: &length)
            self = .prepared(log, place, record)
        case 7:
            self = .dropped(
                DroppedChunk(chunk: try reader.readChunk(), number: try reader.read()))
        case 8:
            let first = try reader.read(RecordNumber.self)
            let last = try reader.read(RecordNumber.self)
            guard first <= last else { throw .invalid(field: "hole", value: first.rawValue) }
            self = .hole(first...last)
        case 9: self = .rotten(try reader.read())
        case 12:
            let place = Int(try reader.read(UInt8.self))
            var entries: [ExtentEntry] = []
            let bytes = try reader.readBytes(bound: PackedPage.bound)
            self = .page(try PackedPage(bytes, entries: &entries), entries, place: place)
        case 13:
            self = .recent(
                try reader.readList(bound: 2 * Limits.preparedRecords) {
                    (reader) throws(DecodeError) in
                    RecentRecord(
                        number: try reader.read(), epoch: try reader.read(),
                        place: try LogPlace(from: &reader))
                })
        case 14: self = .scrub(try ScrubProgress(from: &reader))
        case 15:
            let place = Int(try reader.read(UInt8.self))
            let trims = try reader.readList(bound: Self.trims) { (reader) throws(DecodeError) in
                ChunkTrim(
                    number: try reader.read(), truncation: try reader.read(),
                    from: try reader.read())
            }
            self = .trims(trims, place: place)
        case 16:
            self = .group(try ChunkGroup.Draft(reader.readBytes(bound: ChunkGroup.bound)))
        case let other: throw .invalid(field: "checkpoint item", value: UInt64(other))
        }
    }
}

extension LogPlace {
    func encode(into writer: inout ByteWriter) {
        writer.write(segment)
        writer.write(offset)
        writer.write(headerLength)
        writer.write(payloadLength)
    }
    init(from reader: inout ByteReader) throws(DecodeError) {
        segment = try reader.read()
        offset = try reader.read()
        headerLength = try reader.read()
        payloadLength = try reader.read()
        guard segment < 1 << 24, headerLength <= Limits.recordHeader,
            payloadLength <= Limits.recordPayload, Int(offset) % Limits.recordAlignment == 0
        else { throw .invalid(field: "place", value: UInt64(segment)) }
    }
}

extension RecentRecord {
    func encode(into writer: inout ByteWriter) {
        writer.write(number)
        writer.write(epoch)
        place.encode(into: &writer)
    }
}

extension SessionWindow {
    init(from reader: inout ByteReader) throws(DecodeError) {
        session = try reader.read()
        firstUnacked = try reader.read()
        entries = try reader.readList(bound: Limits.duplicatesPerSession) {
            (reader) throws(DecodeError) in
            Entry(sequence: try reader.read(), number: try reader.read())
        }
    }
}
