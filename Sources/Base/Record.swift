// The replication record: what a client writes, a primary numbers, every member stores, and a
// reader gets back. It is the stored data: written once, synced once (D7).
// Invariants:
//  1. An extent lies within one block.
//  2. (set, epoch, number) names a record; its content never changes once it is prepared.
//  3. `payload.count` and its checksum are in the header, so a reader can check the bytes.

/// How the payload of an extent is stored.
package enum Codec: UInt8, Hashable, Sendable {
    /// As it is.
    case raw = 0
    /// One LZ4 block.
    case lz4 = 1
    /// The bytes were damaged on every copy and are given up: there is no payload, and who reads
    /// any of them is told (decision 0020).
    case lost = 2
}

/// A byte range of one block, with its stored bytes. A whole block, the start of one, or a delta
/// in the middle are all extents (D10).
package struct Extent: Hashable, Sendable {
    package var chunk: ChunkID
    /// Which block of the chunk, below `Limits.blocksPerChunk`.
    package var block: UInt16
    /// First byte within the block.
    package var start: UInt32
    /// Bytes of content, 1 to `Limits.block`; `start + length` ≤ `Limits.block`.
    package var length: UInt32
    package var codec: Codec
    /// CRC32C of `payload` as stored (D9).
    package var stored: Checksum
    /// CRC32C of each piece of the content that lies in one 4 KiB page of the block, in order;
    /// the first and last may be shorter than a page (D9).
    package var pages: [UInt32]
    /// The file's end as the writer saw it, for recovery of the size (DESIGN 3.4).
    package var fileEnd: UInt64
    /// The file's mtime as the writer saw it.
    package var modified: Timestamp
    /// The stored bytes.
    package var payload: ArraySlice<UInt8>

    /// All fields at once.
    package init(
        chunk: ChunkID, block: UInt16, start: UInt32, length: UInt32, codec: Codec,
        stored: Checksum, pages: [UInt32], fileEnd: UInt64, modified: Timestamp,
        payload: ArraySlice<UInt8>
    ) {
        self.chunk = chunk
        self.block = block
        self.start = start
        self.length = length
        self.codec = codec
        self.stored = stored
        self.pages = pages
        self.fileEnd = fileEnd
        self.modified = modified
        self.payload = payload
    }

    /// A range of a block whose bytes are given up.
    package init(
        lost chunk: ChunkID, block: UInt16, start: UInt32, length: UInt32, fileEnd: UInt64 = 0,
        modified: Timestamp = .zero
    ) {
        self.init(
            chunk: chunk, block: block, start: start, length: length, codec: .lost,
            stored: Checksum(of: []),
            pages: Array(repeating: 0, count: Self.pageCount(start: start, length: length)),
            fileEnd: fileEnd, modified: modified, payload: [])
    }

    /// How many pages of a block the bytes `start ..< start + length` touch.
    package static func pageCount(start: UInt32, length: UInt32) -> Int {
        let page = UInt32(Limits.page)
        return Int((start + length + page - 1) / page - start / page)
    }

    /// All but the payload.
    package func encodeHeader(into writer: inout ByteWriter) {
        writer.write(chunk)
        writer.write(block)
        writer.write(codec.rawValue)
        writer.write(UInt8(pages.count))
        writer.write(start)
        writer.write(length)
        writer.write(UInt32(payload.count))
        writer.write(stored.value)
        writer.write(fileEnd)
        writer.write(modified)
        writer.write(pages)
    }
    /// Reads what `encodeHeader` wrote and takes the payload from the front of `payload`. Pass
    /// nil to read a header alone: the payload is then empty and `storedLength` tells its size.
    package init(
        from reader: inout ByteReader, payload bytes: inout ByteReader
    ) throws(DecodeError) {
        var length = 0
        try self.init(headerFrom: &reader, storedLength: &length)
        payload = try bytes.take(length)
    }
    /// Reads a header; the payload stays empty.
    package init(
        headerFrom reader: inout ByteReader, storedLength: inout Int
    ) throws(DecodeError) {
        chunk = try reader.readChunk()
        block = try reader.read()
        let code = try reader.read(UInt8.self)
        let pageCount = Int(try reader.read(UInt8.self))
        start = try reader.read()
        length = try reader.read()
        storedLength = try reader.readCount(bound: Limits.block)
        stored = Checksum(value: try reader.read())
        fileEnd = try reader.read()
        modified = try reader.readTimestamp()
        guard let codec = Codec(rawValue: code) else {
            throw .invalid(field: "codec", value: UInt64(code))
        }
        self.codec = codec
        payload = []
        pages = []
        guard Int(block) < Limits.blocksPerChunk else {
            throw .invalid(field: "block", value: UInt64(block))
        }
        guard length > 0, start < Limits.block, length <= UInt32(Limits.block) - start else {
            throw .invalid(field: "extent length", value: UInt64(length))
        }
        guard pageCount == Self.pageCount(start: start, length: length) else {
            throw .invalid(field: "page count", value: UInt64(pageCount))
        }
        let isPossible =
            switch codec {
            case .raw: storedLength == Int(length)
            case .lz4: storedLength > 0
            case .lost: storedLength == 0
            }
        guard isPossible else {
            throw .invalid(field: "stored length", value: UInt64(storedLength))
        }
        pages = try reader.readIntegers(pageCount)
    }
}

/// What a record does to its set.
package enum RecordBody: Hashable, Sendable {
    /// Bytes are written.
    case write(Extent)
    /// Bytes of the chunk from `from` on (0 ..< 64 MiB) are gone, because of the file's truncation
    /// number `truncation` (DESIGN 3.3, Size).
    case trim(ChunkID, truncation: UInt32, from: UInt32)
    /// These chunks are gone, by order of the masters' log (S6).
    case drop([ChunkID])
    /// Nothing: keeps a number in use where a record must not take effect.
    case nothing
}

/// One numbered change of a replica set.
package struct Record: Hashable, Sendable {
    package var set: SetID
    /// The epoch in which the primary numbered it; kept when it is sent again (DESIGN 3.1).
    package var epoch: Epoch
    package var number: RecordNumber
    /// Who wrote it; `.none` for the masters' own.
    package var session: SessionID
    /// The writer's number of it, for duplicate suppression (C15).
    package var sequence: RequestNumber
    /// The writer's oldest number without an answer: older ones can be forgotten.
    package var firstUnacked: RequestNumber
    /// The file's truncation number that the writer knew.
    package var truncation: UInt32
    package var body: RecordBody

    /// All fields at once.
    package init(
        set: SetID, epoch: Epoch, number: RecordNumber, session: SessionID,
        sequence: RequestNumber, firstUnacked: RequestNumber, truncation: UInt32,
        body: RecordBody
    ) {
        self.set = set
        self.epoch = epoch
        self.number = number
        self.session = session
        self.sequence = sequence
        self.firstUnacked = firstUnacked
        self.truncation = truncation
        self.body = body
    }

    /// The stored bytes; empty unless it is a write.
    package var payload: ArraySlice<UInt8> {
        if case .write(let extent) = body { extent.payload } else { [] }
    }

    /// All but the payload.
    package func encodeHeader(into writer: inout ByteWriter) {
        writer.write(set)
        writer.write(epoch)
        writer.write(number)
        writer.write(session)
        writer.write(sequence)
        writer.write(firstUnacked)
        writer.write(truncation)
        switch body {
        case .write(let extent):
            writer.write(1 as UInt32)
            extent.encodeHeader(into: &writer)
        case .trim(let chunk, let truncation, let from):
            writer.write(2 as UInt32)
            writer.write(chunk)
            writer.write(truncation)
            writer.write(from)
        case .drop(let chunks):
            writer.write(3 as UInt32)
            writer.writeList(chunks) { $0.write($1) }
        case .nothing:
            writer.write(4 as UInt32)
        }
    }

    /// How many chunks one drop record may name, so that its header stays within bounds.
    package static let chunksPerDrop = 128

    /// Reads a header and takes the payload from the front of `payload`.
    package init(
        from reader: inout ByteReader, payload: inout ByteReader
    ) throws(DecodeError) {
        var length = 0
        try self.init(headerFrom: &reader, storedLength: &length)
        if case .write(var extent) = body {
            extent.payload = try payload.take(length)
            body = .write(extent)
        }
    }
    /// Reads a header; the payload stays empty and `storedLength` tells its size.
    package init(
        headerFrom reader: inout ByteReader, storedLength: inout Int
    ) throws(DecodeError) {
        set = try reader.read()
        epoch = try reader.read()
        number = try reader.read()
        session = try reader.read()
        sequence = try reader.read()
        firstUnacked = try reader.read()
        truncation = try reader.read()
        storedLength = 0
        switch try reader.read(UInt32.self) {
        case 1: body = .write(try Extent(headerFrom: &reader, storedLength: &storedLength))
        case 2:
            body = .trim(
                try reader.readChunk(), truncation: try reader.read(), from: try reader.read())
        case 3:
            body = .drop(
                try reader.readList(bound: Self.chunksPerDrop) { (reader) throws(DecodeError) in
                    try reader.readChunk()
                })
        case 4: body = .nothing
        case let other: throw .invalid(field: "record body", value: UInt64(other))
        }
    }
}

/// The start of an epoch in a set, durable on a member before it acknowledges anything in that
/// epoch (DESIGN 3.1).
package struct EpochStart: Hashable, Sendable {
    package var configuration: SetConfiguration
    /// Records of earlier epochs with a higher number are dead.
    package var keepThrough: RecordNumber
    /// This copy started from nothing (C9): every record of an earlier epoch is dead here, and
    /// what it was given since carries this epoch.
    package var startsOver: Bool

    /// All fields at once.
    package init(
        configuration: SetConfiguration, keepThrough: RecordNumber, startsOver: Bool = false
    ) {
        self.configuration = configuration
        self.keepThrough = keepThrough
        self.startsOver = startsOver
    }
    /// Whether a record is dead because of it.
    package func kills(_ epoch: Epoch, _ number: RecordNumber) -> Bool {
        configuration.epoch > epoch && (startsOver || keepThrough < number)
    }
    /// As other copies know it.
    package var shared: EpochStart {
        EpochStart(configuration: configuration, keepThrough: keepThrough)
    }
    /// Configuration, keepThrough, startsOver.
    package func encode(into writer: inout ByteWriter) {
        configuration.encode(into: &writer)
        writer.write(keepThrough)
        writer.write(startsOver)
    }
    /// Reads what `encode` wrote.
    package init(from reader: inout ByteReader) throws(DecodeError) {
        configuration = try SetConfiguration(from: &reader)
        keepThrough = try reader.read()
        startsOver = try reader.readBool()
    }
}
