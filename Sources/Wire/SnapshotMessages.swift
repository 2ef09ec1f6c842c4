// How a master that fell behind gets a snapshot from another, page by page (M16).

package import Base

/// A message about a snapshot, between two masters.
package enum SnapshotMessage: Hashable, Sendable {
    /// Asks for bytes from `offset` on of a block of the snapshot, or of its plan.
    case need(SnapshotMark, SnapshotPart, offset: UInt32)
    /// Bytes of a part that has `length` of them in all.
    case page(SnapshotMark, SnapshotPart, offset: UInt32, length: UInt32, ArraySlice<UInt8>)
    /// The sender does not have it, or can't read it.
    case gone(SnapshotMark)

    /// As a frame; the bytes of a page are its payload, at most `Limits.frameData`.
    package var frame: Frame {
        var writer = ByteWriter(capacity: 40)
        var payload: ArraySlice<UInt8> = []
        switch self {
        case .need(let mark, let part, let offset):
            writer.write(1 as UInt8)
            mark.encode(into: &writer)
            writer.write(part.rawValue)
            writer.write(offset)
        case .page(let mark, let part, let offset, let length, let bytes):
            writer.write(2 as UInt8)
            mark.encode(into: &writer)
            writer.write(part.rawValue)
            writer.write(offset)
            writer.write(length)
            payload = bytes
        case .gone(let mark):
            writer.write(3 as UInt8)
            mark.encode(into: &writer)
        }
        return Frame(kind: .snapshot, head: writer.bytes, payload: payload)
    }

    /// Reads what `frame` made.
    package init(_ frame: Frame) throws(DecodeError) {
        var reader = ByteReader(frame.head)
        let tag = try reader.read(UInt8.self)
        let mark = try SnapshotMark(from: &reader)
        switch tag {
        case 1:
            self = .need(
                mark, SnapshotPart(rawValue: try reader.read()), offset: try reader.read())
        case 2:
            let part = SnapshotPart(rawValue: try reader.read())
            let offset = try reader.read(UInt32.self)
            let length = try reader.read(UInt32.self)
            guard Int(length) <= Limits.diskWrite, Int(offset) + frame.payload.count <= Int(length)
            else { throw .oversize(count: Int(length), bound: Limits.diskWrite) }
            self = .page(mark, part, offset: offset, length: length, frame.payload)
        case 3: self = .gone(mark)
        default: throw .invalid(field: "snapshot message", value: UInt64(tag))
        }
        try reader.finish()
        if case .page = self { return }
        guard frame.payload.isEmpty else { throw .trailing(count: frame.payload.count) }
    }
}

/// A block of a snapshot by its number from 0, or its plan.
package struct SnapshotPart: Identifier {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }
    /// What the blocks are.
    package static let plan = SnapshotPart(rawValue: .max)
}
