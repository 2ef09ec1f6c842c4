// What clients tell of several files at once after they wrote to them, and what becomes of each
// (DESIGN 3.3, Size).

/// What the acknowledged writes to one file make of it: it is at least `end` long, if
/// `truncation` is still its truncation number.
package struct FileEnd: Hashable, Sendable {
    package var inode: InodeID
    package var end: UInt64
    package var truncation: UInt32
    /// Time of the last of these writes.
    package var modified: Timestamp

    /// All fields at once.
    package init(inode: InodeID, end: UInt64, truncation: UInt32, modified: Timestamp) {
        self.inode = inode
        self.end = end
        self.truncation = truncation
        self.modified = modified
    }
    /// 28 bytes.
    package func encode(into writer: inout ByteWriter) {
        writer.write(inode)
        writer.write(end)
        writer.write(truncation)
        writer.write(modified)
    }
    /// Reads what `encode` wrote.
    package init(from reader: inout ByteReader) throws(DecodeError) {
        inode = try reader.read()
        end = try reader.read()
        truncation = try reader.read()
        modified = try reader.readTimestamp()
    }
}

/// What became of one of them.
package enum FileEndOutcome: Hashable, Sendable {
    case done(Attributes)
    /// The file was truncated since: it is like this now. The layout has no chunks.
    case outdated(Attributes, Layout)
    case failed(FileError)

    /// A tag and the fields.
    package func encode(into writer: inout ByteWriter) {
        switch self {
        case .done(let attributes):
            writer.write(1 as UInt8)
            attributes.encode(into: &writer)
        case .outdated(let attributes, let layout):
            writer.write(2 as UInt8)
            attributes.encode(into: &writer)
            layout.encode(into: &writer)
        case .failed(let error):
            writer.write(3 as UInt8)
            writer.write(error.rawValue)
        }
    }
    /// Reads what `encode` wrote.
    package init(from reader: inout ByteReader) throws(DecodeError) {
        switch try reader.read(UInt8.self) {
        case 1: self = .done(try Attributes(from: &reader))
        case 2: self = .outdated(try Attributes(from: &reader), try Layout(from: &reader))
        case 3: self = .failed(try FileError(from: &reader))
        case let tag: throw .invalid(field: "outcome of an extend", value: UInt64(tag))
        }
    }
}
