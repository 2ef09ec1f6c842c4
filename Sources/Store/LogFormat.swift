// The bytes of a log: segment header, group header, record (docs/FORMATS.md).
// Invariants:
//  1. Every header carries cell, disk, segment generation, offset and number inside its CRC: an
//     old record in a recycled segment, or one in a wrong place, is no record (S5).
//  2. A group header is a record of kind 255: its number is that of the group's first record,
//     its payload the copies of the previous group's record headers.

import Base

/// What all headers of one segment have in common.
struct SegmentIdentity: Hashable, Sendable {
    /// Both halves of the cell's name, folded.
    var cell: UInt64
    var disk: DiskID
    var generation: UInt64

    init(cell: CellID, disk: DiskID, generation: UInt64) {
        self.cell = cell.high ^ cell.low
        self.disk = disk
        self.generation = generation
    }
}

/// The fixed header of a record: 64 bytes, followed by the body header and the payload.
struct RecordFrame: Hashable, Sendable {
    var kind: LogRecordKind
    var headerLength: UInt32
    var payloadLength: UInt32
    var number: LogNumber
    var identity: SegmentIdentity
    var offset: UInt32
    var payloadChecksum: Checksum

    static let magic: UInt32 = 0x5252_4C4D  // MLRR
    static let version: UInt8 = 1
    static let size = 64

    /// Bytes from this header to the next record.
    var stride: Int {
        align(Self.size + Int(headerLength) + Int(payloadLength), Limits.recordAlignment)
    }

    /// Writes the fixed header and the body header.
    func encode(_ header: [UInt8], into writer: inout ByteWriter) {
        let start = writer.count
        writer.write(Self.magic)
        writer.write(Self.version)
        writer.write(kind)
        writer.write(0 as UInt16)
        writer.write(headerLength)
        writer.write(payloadLength)
        writer.write(number)
        writer.write(identity.generation)
        writer.write(offset)
        writer.write(0 as UInt32)
        writer.write(identity.cell)
        writer.write(identity.disk)
        writer.write(payloadChecksum.value)
        let checksum = writer.bytes.withUnsafeBytes { raw in
            Checksum(of: UnsafeRawBufferPointer(rebasing: raw[start...]))
        }
        writer.write(header.withUnsafeBytes { Checksum(of: $0, after: checksum) }.value)
        writer.append(header)
    }

    /// Reads the fixed part, not its checksum; nil if it is no record of this version.
    init?(decoding fixed: ArraySlice<UInt8>) {
        guard fixed.count >= Self.size else { return nil }
        var reader = ByteReader(fixed)
        do throws(DecodeError) {
            guard try reader.read() == Self.magic,
                try reader.read() == Self.version
            else { return nil }
            kind = try reader.read()
            let flags = try reader.read(UInt16.self)
            headerLength = try reader.read()
            payloadLength = try reader.read()
            number = try reader.read()
            let generation = try reader.read(UInt64.self)
            offset = try reader.read()
            let reserved = try reader.read(UInt32.self)
            let cell = try reader.read(UInt64.self)
            identity = SegmentIdentity(
                cell: CellID(high: 0, low: cell), disk: try reader.read(), generation: generation)
            payloadChecksum = Checksum(value: try reader.read())
            guard flags == 0, reserved == 0 else { return nil }
        } catch { return nil }
    }

    init(
        kind: LogRecordKind, headerLength: Int, payloadLength: Int, number: LogNumber,
        identity: SegmentIdentity, offset: Int, payloadChecksum: Checksum
    ) {
        self.kind = kind
        self.headerLength = UInt32(headerLength)
        self.payloadLength = UInt32(payloadLength)
        self.number = number
        self.identity = identity
        self.offset = UInt32(offset)
        self.payloadChecksum = payloadChecksum
    }

    /// Whether the lengths are within bounds and the record lies within a segment of this size.
    func fits(segmentSize: Int) -> Bool {
        let header = kind == .group ? GroupHeader.size : Limits.recordHeader
        let payload = kind == .group ? segmentSize : Limits.recordPayload
        return number.rawValue < Limits.logNumbers
            && Int(headerLength) <= header && Int(payloadLength) <= payload
            && Int(offset) + Self.size + Int(headerLength) + Int(payloadLength) <= segmentSize
            && (kind != .group || Int(offset) % Limits.groupAlignment == 0)
    }

    /// Whether the stored header checksum fits; `bytes` starts at the fixed header and holds at
    /// least the body header too.
    func isIntact(_ bytes: ArraySlice<UInt8>) -> Bool {
        let end = Self.size + Int(headerLength)
        guard bytes.count >= end else { return false }
        return bytes.withUnsafeBytes { raw in
            let first = Checksum(of: UnsafeRawBufferPointer(rebasing: raw[..<(Self.size - 4)]))
            let sum = Checksum(
                of: UnsafeRawBufferPointer(rebasing: raw[Self.size..<end]), after: first)
            let stored = raw.loadUnaligned(fromByteOffset: Self.size - 4, as: UInt32.self)
            return sum.value == UInt32(littleEndian: stored)
        }
    }
}

extension Limits {
    /// Numbers of records are below this, so that arithmetic on decoded ones never overflows.
    static let logNumbers: UInt64 = 1 << 62
    /// The most that goes before a record so that its payload starts at a sector.
    static let sectorGap = sector - recordAlignment
}

/// Rounds up to a multiple.
func align(_ value: Int, _ alignment: Int) -> Int {
    (value + alignment - 1) / alignment * alignment
}

/// Where a segment is in the chain of segments; in its header and again in each of its groups.
struct SegmentLink: Hashable, Sendable {
    /// The number of its first record.
    var first: LogNumber
    /// Where the segment before it ends; what lies beyond was cut.
    var previous: LogPosition

    func encode(into writer: inout ByteWriter) {
        writer.write(first)
        writer.write(previous.generation)
        writer.write(previous.offset)
        writer.write(previous.number)
    }
    init(from reader: inout ByteReader) throws(DecodeError) {
        first = try reader.read()
        previous = LogPosition(
            generation: try reader.read(), offset: try reader.read(), number: try reader.read())
        let highest = max(first, previous.number).rawValue
        guard highest < Limits.logNumbers else { throw .invalid(field: "link", value: highest) }
    }
    init(first: LogNumber, previous: LogPosition) {
        self.first = first
        self.previous = previous
    }
}

/// The body header of a group header.
struct GroupHeader: Hashable, Sendable {
    /// Bytes of the group: a multiple of 4 KiB.
    var length: UInt32
    /// Records in it; none in a mark.
    var count: UInt32
    /// Every record up to this one was durable when the group was written.
    var syncedThrough: LogNumber
    /// Record headers in the payload.
    var copies: UInt32
    var link: SegmentLink

    static let size = 48

    func encode() -> [UInt8] {
        var writer = ByteWriter(capacity: Self.size)
        writer.write(length)
        writer.write(count)
        writer.write(syncedThrough)
        writer.write(copies)
        link.encode(into: &writer)
        return writer.bytes
    }
    init(decoding bytes: ArraySlice<UInt8>) throws(DecodeError) {
        var reader = ByteReader(bytes)
        length = try reader.read()
        count = try reader.read()
        syncedThrough = try reader.read()
        copies = try reader.read()
        link = try SegmentLink(from: &reader)
        guard syncedThrough.rawValue < Limits.logNumbers else {
            throw .invalid(field: "syncedThrough", value: syncedThrough.rawValue)
        }
        try reader.finish()
    }
    init(
        length: Int, count: Int, syncedThrough: LogNumber, copies: Int, link: SegmentLink
    ) {
        self.length = UInt32(length)
        self.count = UInt32(count)
        self.syncedThrough = syncedThrough
        self.copies = UInt32(copies)
        self.link = link
    }
}

/// The first page of a segment: written with its first group.
struct SegmentHeader: Hashable, Sendable {
    var number: UInt32
    var identity: SegmentIdentity
    var size: Int
    var link: SegmentLink

    static let magic: UInt32 = 0x4753_4C4D  // MLSG
    static let version: UInt16 = 1
    static let pageSize = 4 << 10

    func encode() -> [UInt8] {
        var writer = ByteWriter(capacity: Self.pageSize)
        writer.write(Self.magic)
        writer.write(Self.version)
        writer.write(0 as UInt16)
        writer.write(identity.cell)
        writer.write(identity.disk)
        writer.write(number)
        writer.write(0 as UInt32)
        writer.write(identity.generation)
        writer.write(UInt64(size))
        link.encode(into: &writer)
        writer.appendZeros(Self.pageSize - 4 - writer.count)
        writer.write(Checksum(of: writer.bytes).value)
        return writer.bytes
    }

    /// Errors: checksum for a page that is no segment header, version for another release's.
    init(decoding page: ArraySlice<UInt8>) throws(DecodeError) {
        guard page.count == Self.pageSize else { throw .truncated }
        var tail = ByteReader(page.suffix(4))
        var reader = ByteReader(page)
        guard try reader.read() == Self.magic,
            Checksum(of: page.dropLast(4)).value == (try tail.read())
        else { throw .checksum("segment header") }
        let version = try reader.read(UInt16.self)
        guard version == Self.version else {
            throw .version("segment header", found: UInt64(version))
        }
        _ = try reader.read(UInt16.self)
        let cell = try reader.read(UInt64.self)
        let disk = try reader.read(DiskID.self)
        number = try reader.read()
        _ = try reader.read(UInt32.self)
        identity = SegmentIdentity(
            cell: CellID(high: 0, low: cell), disk: disk, generation: try reader.read())
        let bytes = try reader.read(UInt64.self)
        guard bytes <= 2 << 30 else { throw .invalid(field: "segment size", value: bytes) }
        size = Int(bytes)
        link = try SegmentLink(from: &reader)
    }

    init(number: UInt32, identity: SegmentIdentity, size: Int, link: SegmentLink) {
        self.number = number
        self.identity = identity
        self.size = size
        self.link = link
    }
}
