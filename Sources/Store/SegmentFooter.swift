// The footer of a closed segment: copies of the headers of all its records, right behind its last
// group. A start reads it instead of the segment; whatever is wrong with it, it scans instead.
// Payloads are then checked when they are read (S5).

import Base

/// The header of a footer: 64 bytes, followed by the record headers.
struct FooterHeader: Hashable, Sendable {
    var identity: SegmentIdentity
    /// Where it is in the segment.
    var offset: UInt32
    /// Bytes of the record headers.
    var length: UInt32
    /// Records in the segment.
    var count: UInt32
    /// Checksum of the record headers.
    var checksum: UInt32

    static let magic: UInt32 = 0x4653_4C4D  // MLSF
    static let version: UInt16 = 1
    static let size = 64
    /// Bytes of record headers: those of a segment that is full of blocks of 4 KiB. A segment with
    /// more gets no footer.
    static let bound = 16 << 20

    func encode() -> [UInt8] {
        var writer = ByteWriter(capacity: Self.size)
        writer.write(Self.magic)
        writer.write(Self.version)
        writer.write(0 as UInt16)
        writer.write(identity.cell)
        writer.write(identity.disk)
        writer.write(identity.generation)
        writer.write(offset)
        writer.write(length)
        writer.write(count)
        writer.write(checksum)
        writer.appendZeros(Self.size - 4 - writer.count)
        writer.write(Checksum(of: writer.bytes).value)
        return writer.bytes
    }

    init(decoding header: ArraySlice<UInt8>) throws(DecodeError) {
        guard header.count == Self.size else { throw .truncated }
        var tail = ByteReader(header.suffix(4))
        var reader = ByteReader(header)
        guard try reader.read() == Self.magic,
            Checksum(of: header.dropLast(4)).value == (try tail.read())
        else { throw .checksum("footer") }
        let version = try reader.read(UInt16.self)
        guard version == Self.version else { throw .version("footer", found: UInt64(version)) }
        _ = try reader.read(UInt16.self)
        let cell = try reader.read(UInt64.self)
        let disk = try reader.read(DiskID.self)
        identity = SegmentIdentity(
            cell: CellID(high: 0, low: cell), disk: disk, generation: try reader.read())
        offset = try reader.read()
        length = try reader.read()
        count = try reader.read()
        checksum = try reader.read()
        guard length <= Self.bound else { throw .oversize(count: Int(length), bound: Self.bound) }
    }

    init(identity: SegmentIdentity, offset: Int, headers: [UInt8], count: UInt32) {
        self.identity = identity
        self.offset = UInt32(offset)
        length = UInt32(headers.count)
        self.count = count
        checksum = Checksum(of: headers).value
    }
}

/// The headers of the records in the open segment.
struct FooterBuilder: Hashable, Sendable {
    private(set) var headers: [UInt8] = []
    private(set) var count: UInt32 = 0

    /// Bytes of the footer with so many more bytes of headers; 0 if that would be too many.
    func length(with more: Int) -> Int {
        headers.count + more > FooterHeader.bound
            ? 0 : align(FooterHeader.size + headers.count + more, Limits.groupAlignment)
    }
    mutating func add(_ copies: [ArraySlice<UInt8>]) {
        for copy in copies { headers.append(contentsOf: copy) }
        count += UInt32(copies.count)
    }
}

extension SegmentLog {
    /// Writes the footer of the open segment, which is full; a lost one costs only time.
    mutating func closeSegment() -> [LogOutput] {
        guard let open, !open.isFresh, let footer, footer.length(with: 0) > 0,
            open.offset + footer.length(with: 0) <= superblock?.segmentSize ?? 0
        else { return [] }
        let header = FooterHeader(
            identity: open.identity, offset: open.offset, headers: footer.headers,
            count: footer.count)
        let rest = footer.length(with: 0) - FooterHeader.size - footer.headers.count
        return [
            .disk(
                .write(
                    issue(.footer(file: open.file)), .segment(open.file), offset: open.offset,
                    pieces: [
                        header.encode()[...], footer.headers[...],
                        Array(repeating: 0, count: rest)[...],
                    ], durable: false))
        ]
    }

    /// Takes the next bytes of a footer. Goes on with the next segment once it is whole, or scans
    /// this one if it is no good.
    mutating func footerRead(_ bytes: [UInt8], now: Instant) -> [LogOutput] {
        let isShort = bytes.isEmpty
        recovery?.footer += bytes
        guard let read = recovery?.footer.count, let scanner = recovery?.scanner,
            let header = (recovery?.footer.prefix(FooterHeader.size)).flatMap({
                try? FooterHeader(decoding: $0)
            }), header.identity == scanner.identity, Int(header.offset) == recovery?.scanEnd
        else { return scan(now: now) }
        let length = FooterHeader.size + Int(header.length)
        if read < length, !isShort {
            recovery?.footer.reserveCapacity(length + Limits.diskWrite)
            return [readFooter()]
        }
        guard var recovery else { return [] }
        let headers = recovery.footer.dropFirst(FooterHeader.size).prefix(Int(header.length))
        let records = scanner.copies(in: headers)
        let last = recovery.chain.dropFirst(recovery.index + 1).first?.link?.previous.number
        guard read >= length, Checksum(of: headers).value == header.checksum,
            records.count == Int(header.count), last == records.last?.number
        else { return scan(now: now) }
        // There are a hundred thousand: nothing is kept twice.
        self.recovery = nil
        recovery.footer = []
        for record in records { recovery.sequencer.record(record, isIntact: true) }
        var outputs = Self.take(&recovery.sequencer)
        recovery.index += 1
        self.recovery = recovery
        outputs += beginScan(now: now)
        return outputs
    }

    mutating func readFooter() -> LogOutput {
        guard let recovery else { preconditionFailure("no replay") }
        let file = recovery.chain[recovery.index].file
        return .disk(
            .read(
                issue(.readFooter), .segment(file),
                offset: recovery.scanEnd + recovery.footer.count, length: Limits.diskWrite))
    }
}
