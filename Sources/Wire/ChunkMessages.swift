// What clients ask chunk servers, and what replicas tell each other.

package import Base

/// What every chunk request carries.
package struct ChunkContext: Hashable, Sendable {
    package var set: SetID
    /// The epoch the client knows; an older one is answered with `staleEpoch`.
    package var epoch: Epoch
    package var session: SessionID
    /// For fencing (part of every request from the start, D14).
    package var sessionEpoch: UInt32
    /// A capability token of up to 64 bytes; empty until tokens are issued (D14).
    package var token: [UInt8]
    /// The file's truncation number as the client knows it.
    package var truncation: UInt32
    /// The cuts that go through this chunk: sizes are offsets in the chunk, below 64 MiB.
    package var cuts: [Cut]

    /// A context without a token.
    package init(
        set: SetID, epoch: Epoch, session: SessionID, truncation: UInt32, cuts: [Cut]
    ) {
        self.set = set
        self.epoch = epoch
        self.session = session
        sessionEpoch = 0
        token = []
        self.truncation = truncation
        self.cuts = cuts
    }
    func encode(into writer: inout ByteWriter) {
        writer.write(set)
        writer.write(epoch)
        writer.write(session)
        writer.write(sessionEpoch)
        writer.writeBytes(token)
        writer.write(truncation)
        writer.writeList(cuts) { $1.encode(into: &$0) }
    }
    init(from reader: inout ByteReader) throws(DecodeError) {
        set = try reader.read()
        epoch = try reader.read()
        session = try reader.read()
        sessionEpoch = try reader.read()
        token = Array(try reader.readBytes(bound: 64))
        truncation = try reader.read()
        cuts = try reader.readList(bound: Limits.cuts) { (reader) throws(DecodeError) in
            try Cut(from: &reader)
        }
    }
}

/// How a chunk request ended.
package enum ChunkStatus: UInt8, Hashable, Sendable, CaseIterable {
    case done = 0
    /// This server is not the primary of the set in the epoch it knows.
    case notPrimary = 1
    /// The client's epoch is not the one in force: ask the masters.
    case staleEpoch = 2
    /// The set reconciles, or a member is down: same request again, a little later.
    case notServing = 3
    /// The file was truncated meanwhile: get the layout, decide again.
    case outdated = 4
    /// The disk's share is used up; deletes still work (C20).
    case noSpace = 5
    /// The bytes are damaged here: read from another member.
    case damaged = 6
    /// Queues are full (S10).
    case busy = 7
    /// No such set on this server.
    case unknownSet = 8
    /// The session was fenced (C16).
    case fenced = 9
    /// The request breaks a rule of its format.
    case invalid = 10
}

extension ChunkStatus {
    init(from reader: inout ByteReader) throws(DecodeError) {
        let value = try reader.read(UInt8.self)
        guard let status = ChunkStatus(rawValue: value) else {
            throw .invalid(field: "chunk status", value: UInt64(value))
        }
        self = status
    }
}

/// Extents to be written, all of one set; sent to its primary. Each extent is atomic by itself.
package struct WriteRequest: Message {
    package static let kind = FrameKind.writeRequest
    /// Extents of one request.
    package static let extents = 64
    package var context: ChunkContext
    /// The number of the first extent; the others follow. A retry keeps the numbers (C15).
    package var sequence: RequestNumber
    /// The session's oldest extent without an answer.
    package var firstUnacked: RequestNumber
    package var extents: [Extent]

    /// All fields at once. `extents`: 1 to 64, at most `Limits.framePayload` stored bytes.
    package init(
        context: ChunkContext, sequence: RequestNumber, firstUnacked: RequestNumber,
        extents: [Extent]
    ) {
        self.context = context
        self.sequence = sequence
        self.firstUnacked = firstUnacked
        self.extents = extents
    }
    package var payloads: [ArraySlice<UInt8>] { extents.map(\.payload) }
    package func encode(into writer: inout ByteWriter) {
        context.encode(into: &writer)
        writer.write(sequence)
        writer.write(firstUnacked)
        writer.writeList(extents) { $1.encodeHeader(into: &$0) }
    }
    package init(from reader: inout ByteReader, payload: inout ByteReader) throws(DecodeError) {
        context = try ChunkContext(from: &reader)
        sequence = try reader.read()
        firstUnacked = try reader.read()
        let count = try reader.readCount(bound: Self.extents)
        extents = []
        for _ in 0..<count { extents.append(try Extent(from: &reader, payload: &payload)) }
        guard !extents.isEmpty else { throw .invalid(field: "extents", value: 0) }
    }
}

/// The answer to a write: with `done` every extent is on disk at every member (C5).
package struct WriteReply: Message {
    package static let kind = FrameKind.writeReply
    package var status: ChunkStatus
    /// The epoch in force here.
    package var epoch: Epoch
    /// The number of the last extent in its set, if done.
    package var number: RecordNumber

    /// All fields at once.
    package init(status: ChunkStatus, epoch: Epoch, number: RecordNumber) {
        self.status = status
        self.epoch = epoch
        self.number = number
    }
    package func encode(into writer: inout ByteWriter) {
        writer.write(status.rawValue)
        writer.write(epoch)
        writer.write(number)
    }
    package init(from reader: inout ByteReader, payload: inout ByteReader) throws(DecodeError) {
        status = try ChunkStatus(from: &reader)
        epoch = try reader.read()
        number = try reader.read()
    }
}

/// Blocks to be read. Stored bytes travel as they are; the reader checks and decodes them (D9).
package struct ReadRequest: Message {
    package static let kind = FrameKind.readRequest
    package var context: ChunkContext
    package var chunk: ChunkID
    /// The first block.
    package var block: UInt16
    /// How many blocks, 1 to 64. The reply may end sooner: see `ReadReply.blocks`.
    package var count: UInt16
    /// Any member that has this record committed may answer (DESIGN 3.2, Reads): the client
    /// knows of nothing later. nil: only the primary, under its lease.
    package var backupFrom: RecordNumber?

    /// All fields at once.
    package init(
        context: ChunkContext, chunk: ChunkID, block: UInt16, count: UInt16,
        backupFrom: RecordNumber?
    ) {
        self.context = context
        self.chunk = chunk
        self.block = block
        self.count = count
        self.backupFrom = backupFrom
    }
    package func encode(into writer: inout ByteWriter) {
        context.encode(into: &writer)
        writer.write(chunk)
        writer.write(block)
        writer.write(count)
        writer.writeOptional(backupFrom) { $0.write($1) }
    }
    package init(from reader: inout ByteReader, payload: inout ByteReader) throws(DecodeError) {
        context = try ChunkContext(from: &reader)
        chunk = try reader.readChunk()
        block = try reader.read()
        count = try reader.read()
        backupFrom = try reader.readOptional { (reader) throws(DecodeError) in
            try reader.read()
        }
        guard (1...64).contains(count), Int(block) + Int(count) <= Limits.blocksPerChunk else {
            throw .invalid(field: "block count", value: UInt64(count))
        }
    }
}

/// An extent as it is to be laid over what came before it.
package struct Piece: Hashable, Sendable {
    package var extent: Extent
    /// Content bytes of the extent, from its start, that were not truncated away since.
    package var visible: UInt32

    /// Both fields at once.
    package init(extent: Extent, visible: UInt32) {
        self.extent = extent
        self.visible = visible
    }
}

/// The answer to a read: the pieces of each block in the order in which they are laid over each
/// other. Bytes that no piece covers are zeros. A block whose pieces exceed one frame is sent in
/// several replies to one request, `isLast` false on all but the last.
package struct ReadReply: Message {
    package static let kind = FrameKind.readReply
    package var status: ChunkStatus
    package var epoch: Epoch
    /// Every record up to this number took part.
    package var number: RecordNumber
    /// Blocks answered, from the first one asked for; ask again for the rest. Counts in the last
    /// reply only.
    package var blocks: UInt16
    package var isLast: Bool
    package var pieces: [Piece]

    /// All fields at once.
    package init(
        status: ChunkStatus, epoch: Epoch, number: RecordNumber, blocks: UInt16, isLast: Bool,
        pieces: [Piece]
    ) {
        self.status = status
        self.epoch = epoch
        self.number = number
        self.blocks = blocks
        self.isLast = isLast
        self.pieces = pieces
    }
    /// Whether a frame is the last one of its answer, without decoding it. True of other kinds
    /// and of what does not decode.
    package static func isLast(_ frame: Frame) -> Bool {
        // After status, epoch, number and blocks.
        let offset = 19
        return frame.kind != kind || frame.head.count <= offset || frame.head[offset] != 0
    }
    package var payloads: [ArraySlice<UInt8>] { pieces.map(\.extent.payload) }
    package func encode(into writer: inout ByteWriter) {
        writer.write(status.rawValue)
        writer.write(epoch)
        writer.write(number)
        writer.write(blocks)
        writer.write(isLast)
        writer.writeList(pieces) { writer, piece in
            piece.extent.encodeHeader(into: &writer)
            writer.write(piece.visible)
        }
    }
    package init(from reader: inout ByteReader, payload: inout ByteReader) throws(DecodeError) {
        status = try ChunkStatus(from: &reader)
        epoch = try reader.read()
        number = try reader.read()
        blocks = try reader.read()
        isLast = try reader.readBool()
        let count = try reader.readCount(bound: 4_096)
        pieces = []
        for _ in 0..<count {
            let extent = try Extent(from: &reader, payload: &payload)
            let visible = try reader.read(UInt32.self)
            guard visible <= extent.length else {
                throw .invalid(field: "visible length", value: UInt64(visible))
            }
            pieces.append(Piece(extent: extent, visible: visible))
        }
    }
}
