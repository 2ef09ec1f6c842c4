// The frame: all that crosses a socket. docs/FORMATS.md has its table and test vectors.
//
//  offset  size  field
//       0     4  magic "MRTF"
//       4     1  version of the frame format
//       5     1  flags, 0
//       6     2  kind of message
//       8     8  request id; 0 where no reply belongs to the message
//      16     4  bytes of the head, at most Limits.frameHead
//      20     4  bytes of the payload, at most Limits.framePayload
//      24     4  CRC32C of the head
//      28     4  CRC32C of bytes 0 ..< 28
//      32        head: the coded message; then payload: stored bytes with checksums of their own
//
// Invariant: no frame is accepted, nor memory set aside for it, before its header proved right.

package import Base

/// What a frame carries. The raw value is the coding on the wire.
package enum FrameKind: UInt16, Hashable, Sendable, CaseIterable {
    case hello = 1
    case challenge = 2
    case proof = 3
    case welcome = 4
    case refused = 5
    case metadataRequest = 16
    case metadataReply = 17
    case writeRequest = 32
    case writeReply = 33
    case readRequest = 34
    case readReply = 35
    case replication = 48
    case paxos = 64
    case snapshot = 65
    case report = 80
    case orders = 81
}

/// One message on its way: its kind, the request it belongs to, and its bytes.
package struct Frame: Hashable, Sendable {
    /// Bytes of a frame's header.
    package static let headerSize = 32
    /// The only version so far.
    package static let version: UInt8 = 1
    private static let magic: UInt32 = 0x4654_524D  // "MRTF"

    package var kind: FrameKind
    /// Chosen by who asks, repeated in the reply; 0 where no reply belongs to the message.
    package var request: UInt64
    /// The coded message.
    package var head: [UInt8]
    /// Stored bytes of extents, in the order in which the head names them. They are sent from
    /// where they are; a frame that was received has one piece.
    package var pieces: [ArraySlice<UInt8>]

    /// A frame of one piece, or none.
    package init(
        kind: FrameKind, request: UInt64 = 0, head: [UInt8], payload: ArraySlice<UInt8> = []
    ) {
        self.init(
            kind: kind, request: request, head: head, pieces: payload.isEmpty ? [] : [payload])
    }
    /// All fields at once.
    package init(kind: FrameKind, request: UInt64, head: [UInt8], pieces: [ArraySlice<UInt8>]) {
        self.kind = kind
        self.request = request
        self.head = head
        self.pieces = pieces
    }

    /// All pieces in one; copied if there are several.
    package var payload: ArraySlice<UInt8> {
        get { pieces.count == 1 ? pieces[0] : Array(pieces.joined())[...] }
        set { pieces = newValue.isEmpty ? [] : [newValue] }
    }
    /// Bytes of all pieces.
    package var payloadLength: Int { pieces.reduce(0) { $0 + $1.count } }
    /// Bytes of head and payload.
    package var bodyLength: Int { head.count + payloadLength }

    /// The 32 bytes that go before head and payload.
    package var header: [UInt8] {
        precondition(head.count <= Limits.frameHead, "frame head over its bound")
        let payload = payloadLength
        precondition(payload <= Limits.framePayload, "frame payload over its bound")
        var writer = ByteWriter(capacity: Self.headerSize)
        writer.write(Self.magic)
        writer.write(Self.version)
        writer.write(0 as UInt8)
        writer.write(kind.rawValue)
        writer.write(request)
        writer.write(UInt32(head.count))
        writer.write(UInt32(payload))
        writer.write(Checksum(of: head).value)
        writer.write(Checksum(of: writer.bytes).value)
        return writer.bytes
    }
}

/// A frame's header, checked, before its body has come.
package struct FrameHeader: Hashable, Sendable {
    package let kind: FrameKind
    package let request: UInt64
    /// Bytes of the head that follow.
    package let headLength: Int
    /// Bytes of the payload that follow the head.
    package let payloadLength: Int
    private let headChecksum: Checksum

    /// Checks 32 bytes. Errors: another magic or version, a bad checksum, an unknown kind, a
    /// length over its bound.
    package init(_ bytes: ArraySlice<UInt8>) throws(DecodeError) {
        var reader = ByteReader(bytes)
        let magic = try reader.read(UInt32.self)
        guard magic == 0x4654_524D else { throw .version("frame magic", found: UInt64(magic)) }
        let version = try reader.read(UInt8.self)
        let flags = try reader.read(UInt8.self)
        let kind = try reader.read(UInt16.self)
        request = try reader.read()
        let head = try reader.read(UInt32.self)
        let payload = try reader.read(UInt32.self)
        headChecksum = Checksum(value: try reader.read())
        guard Checksum(of: bytes.prefix(28)).value == (try reader.read(UInt32.self)) else {
            throw .checksum("frame header")
        }
        try reader.finish()
        guard version == Frame.version else {
            throw .version("frame", found: UInt64(version))
        }
        guard flags == 0 else { throw .invalid(field: "frame flags", value: UInt64(flags)) }
        guard let kind = FrameKind(rawValue: kind) else {
            throw .invalid(field: "frame kind", value: UInt64(kind))
        }
        guard head <= Limits.frameHead else {
            throw .oversize(count: Int(head), bound: Limits.frameHead)
        }
        guard payload <= Limits.framePayload else {
            throw .oversize(count: Int(payload), bound: Limits.framePayload)
        }
        self.kind = kind
        headLength = Int(head)
        payloadLength = Int(payload)
    }

    /// Joins the header with its body, whose lengths must be as announced.
    package func frame(
        head: [UInt8], payload: ArraySlice<UInt8>
    ) throws(DecodeError) -> Frame {
        precondition(head.count == headLength && payload.count == payloadLength)
        guard Checksum(of: head) == headChecksum else { throw .checksum("frame head") }
        return Frame(kind: kind, request: request, head: head, payload: payload)
    }
}

/// What a frame can carry: a value that codes itself into a head and a payload.
package protocol Message: Hashable, Sendable {
    /// The frame kind it travels in.
    static var kind: FrameKind { get }
    /// Writes all but the payload.
    func encode(into writer: inout ByteWriter)
    /// The stored bytes that travel after the head; none for most messages.
    var payloads: [ArraySlice<UInt8>] { get }
    /// Reads what `encode` wrote, and takes stored bytes from `payload`.
    init(from reader: inout ByteReader, payload: inout ByteReader) throws(DecodeError)
}

extension Message {
    package var payloads: [ArraySlice<UInt8>] { [] }

    /// The message as a frame.
    package func frame(request: UInt64 = 0) -> Frame {
        var writer = ByteWriter(capacity: 128)
        encode(into: &writer)
        return Frame(kind: Self.kind, request: request, head: writer.bytes, pieces: payloads)
    }
    /// The message of a frame, which must be of its kind and have no byte too many.
    package init(_ frame: Frame) throws(DecodeError) {
        guard frame.kind == Self.kind else {
            throw .invalid(field: "frame kind", value: UInt64(frame.kind.rawValue))
        }
        var reader = ByteReader(frame.head)
        var payload = ByteReader(frame.payload)
        try self.init(from: &reader, payload: &payload)
        try reader.finish()
        try payload.finish()
    }
}
