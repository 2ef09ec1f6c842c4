// The coding of metadata requests: a tag per question or change, then its fields in order.

package import Base

extension MetadataRequest {
    package func encode(into writer: inout ByteWriter) {
        writer.write(session)
        writer.write(number)
        writer.write(firstIncomplete)
        switch body {
        case .query(let query):
            query.encode(into: &writer)
        case .change(let change):
            change.encode(into: &writer)
        }
    }
    package init(from reader: inout ByteReader, payload: inout ByteReader) throws(DecodeError) {
        session = try reader.read()
        number = try reader.read()
        firstIncomplete = try reader.read()
        let tag = try reader.read(UInt8.self)
        body =
            if tag < 64 {
                .query(try MetadataQuery(tag: tag, from: &reader))
            } else {
                .change(try MetadataChange(tag: tag, from: &reader))
            }
    }
}

extension ByteReader {
    /// Reads a name in a directory; its rules are checked where it is used.
    mutating func readName() throws(DecodeError) -> [UInt8] {
        Array(try readBytes(bound: Limits.symlinkTarget))
    }
}

extension MetadataQuery {
    fileprivate func encode(into writer: inout ByteWriter) {
        switch self {
        case .lookup(let parent, let name):
            writer.write(1 as UInt8)
            writer.write(parent)
            writer.writeBytes(name)
        case .attributes(let inode):
            writer.write(2 as UInt8)
            writer.write(inode)
        case .readLink(let inode):
            writer.write(3 as UInt8)
            writer.write(inode)
        case .readDirectory(let inode, let cookie, let limit, let withAttributes):
            writer.write(4 as UInt8)
            writer.write(inode)
            writer.write(cookie)
            writer.write(limit)
            writer.write(withAttributes)
        case .extendedAttribute(let inode, let name):
            writer.write(5 as UInt8)
            writer.write(inode)
            writer.writeBytes(name)
        case .extendedAttributes(let inode):
            writer.write(6 as UInt8)
            writer.write(inode)
        case .layout(let inode, let first, let count):
            writer.write(7 as UInt8)
            writer.write(inode)
            writer.write(first)
            writer.write(count)
        case .open(let inode):
            writer.write(8 as UInt8)
            writer.write(inode)
        case .close(let inode):
            writer.write(9 as UInt8)
            writer.write(inode)
        case .sets(let sets):
            writer.write(10 as UInt8)
            writer.writeList(sets) { $0.write($1) }
        case .statistics: writer.write(11 as UInt8)
        case .status: writer.write(12 as UInt8)
        case .map(let after):
            writer.write(13 as UInt8)
            writer.write(after)
        case .operations: writer.write(14 as UInt8)
        case .masters: writer.write(15 as UInt8)
        case .order(let order):
            writer.write(16 as UInt8)
            order.encode(into: &writer)
        case .snapshot(let slot):
            writer.write(17 as UInt8)
            writer.write(slot)
        case .part(let mark, let part, let offset):
            writer.write(18 as UInt8)
            mark.encode(into: &writer)
            writer.write(part.rawValue)
            writer.write(offset)
        }
    }

    fileprivate init(tag: UInt8, from reader: inout ByteReader) throws(DecodeError) {
        switch tag {
        case 1: self = .lookup(parent: try reader.read(), name: try reader.readName())
        case 2: self = .attributes(try reader.read())
        case 3: self = .readLink(try reader.read())
        case 4:
            self = .readDirectory(
                try reader.read(), after: try reader.read(), limit: try reader.read(),
                withAttributes: try reader.readBool())
        case 5: self = .extendedAttribute(try reader.read(), name: try reader.readName())
        case 6: self = .extendedAttributes(try reader.read())
        case 7:
            self = .layout(
                try reader.read(), first: try reader.read(), count: try reader.read())
        case 8: self = .open(try reader.read())
        case 9: self = .close(try reader.read())
        case 10:
            self = .sets(
                try reader.readList(bound: Limits.reportedSets) { (reader) throws(DecodeError) in
                    try reader.read()
                })
        case 11: self = .statistics
        case 12: self = .status
        case 13: self = .map(after: try reader.read())
        case 14: self = .operations
        case 15: self = .masters
        case 16: self = .order(try MasterOrder(from: &reader))
        case 17: self = .snapshot(since: try reader.read())
        case 18:
            self = .part(
                try SnapshotMark(from: &reader), SnapshotPart(rawValue: try reader.read()),
                offset: try reader.read())
        default: throw .invalid(field: "metadata query", value: UInt64(tag))
        }
    }
}

extension MetadataChange {
    fileprivate func encode(into writer: inout ByteWriter) {
        switch self {
        case .create, .link, .unlink, .removeDirectory, .rename:
            encodeNaming(into: &writer)
        case .setAttributes(let inode, let changes):
            writer.write(69 as UInt8)
            writer.write(inode)
            changes.encode(into: &writer)
        case .truncate(let inode, let size):
            writer.write(70 as UInt8)
            writer.write(inode)
            writer.write(size)
        case .extend(let files, let numbers):
            writer.write(80 as UInt8)
            writer.writeList(files) { $1.encode(into: &$0) }
            writer.writeList(numbers) { $1.encode(into: &$0) }
        case .allocate(let inode, let first, let count):
            writer.write(72 as UInt8)
            writer.write(inode)
            writer.write(first)
            writer.write(count)
        case .setExtendedAttribute(let inode, let name, let value, let flags):
            writer.write(73 as UInt8)
            writer.write(inode)
            writer.writeBytes(name)
            writer.writeBytes(value)
            writer.write(flags.rawValue)
        case .removeExtendedAttribute(let inode, let name):
            writer.write(74 as UInt8)
            writer.write(inode)
            writer.writeBytes(name)
        case .openSession(let nonce, let label):
            writer.write(75 as UInt8)
            writer.write(nonce)
            writer.write(label)
        case .renewSession: writer.write(76 as UInt8)
        case .releaseOrphans(let inodes):
            writer.write(77 as UInt8)
            writer.writeList(inodes) { $0.write($1) }
        case .closeSession: writer.write(78 as UInt8)
        case .operate(let operation):
            writer.write(79 as UInt8)
            operation.encode(into: &writer)
        }
    }

    private func encodeNaming(into writer: inout ByteWriter) {
        switch self {
        case .create(
            let parent, let name, let kind, let mode, let user, let group, let device,
            let target, let open):
            writer.write(64 as UInt8)
            writer.write(parent)
            writer.writeBytes(name)
            writer.write(kind.rawValue)
            writer.write(mode)
            writer.write(user)
            writer.write(group)
            writer.write(device)
            writer.writeBytes(target)
            writer.write(open)
        case .link(let inode, let parent, let name):
            writer.write(65 as UInt8)
            writer.write(inode)
            writer.write(parent)
            writer.writeBytes(name)
        case .unlink(let parent, let name):
            writer.write(66 as UInt8)
            writer.write(parent)
            writer.writeBytes(name)
        case .removeDirectory(let parent, let name):
            writer.write(67 as UInt8)
            writer.write(parent)
            writer.writeBytes(name)
        case .rename(let parent, let name, let newParent, let newName, let flags):
            writer.write(68 as UInt8)
            writer.write(parent)
            writer.writeBytes(name)
            writer.write(newParent)
            writer.writeBytes(newName)
            writer.write(flags.rawValue)
        default: preconditionFailure("not a change of names")
        }
    }

    fileprivate init(tag: UInt8, from reader: inout ByteReader) throws(DecodeError) {
        switch tag {
        case 64...68: try self.init(namingTag: tag, from: &reader)
        case 69:
            self = .setAttributes(try reader.read(), try AttributeChanges(from: &reader))
        case 70: self = .truncate(try reader.read(), size: try reader.read())
        case 72:
            self = .allocate(
                try reader.read(), first: try reader.read(), count: try reader.read())
        case 73:
            self = .setExtendedAttribute(
                try reader.read(), name: try reader.readName(),
                value: Array(try reader.readBytes(bound: Limits.attributeValue)),
                flags: ExtendedFlags(rawValue: try reader.read()))
        case 74:
            self = .removeExtendedAttribute(try reader.read(), name: try reader.readName())
        case 75:
            self = .openSession(
                nonce: try reader.read(), label: try reader.readString(bound: 300))
        case 76: self = .renewSession
        case 77:
            self = .releaseOrphans(
                try reader.readList(bound: 65_536) { (reader) throws(DecodeError) in
                    try reader.read()
                })
        case 78: self = .closeSession
        case 79: self = .operate(try Operation(from: &reader))
        case 80:
            self = .extend(
                try reader.readList(bound: Limits.extendedFiles) { (reader) throws(DecodeError) in
                    try FileEnd(from: &reader)
                },
                numbers: try reader.readList(bound: Limits.setNumbers) {
                    (reader) throws(DecodeError) in try SetNumber(from: &reader)
                })
        default: throw .invalid(field: "metadata change", value: UInt64(tag))
        }
    }

    private init(namingTag tag: UInt8, from reader: inout ByteReader) throws(DecodeError) {
        switch tag {
        case 64:
            self = .create(
                parent: try reader.read(), name: try reader.readName(),
                kind: try FileKind(from: &reader), mode: try reader.read(),
                user: try reader.read(), group: try reader.read(), device: try reader.read(),
                target: try reader.readName(), open: try reader.readBool())
        case 65:
            self = .link(
                try reader.read(), parent: try reader.read(), name: try reader.readName())
        case 66: self = .unlink(parent: try reader.read(), name: try reader.readName())
        case 67:
            self = .removeDirectory(parent: try reader.read(), name: try reader.readName())
        default:
            self = .rename(
                parent: try reader.read(), name: try reader.readName(),
                newParent: try reader.read(), newName: try reader.readName(),
                flags: RenameFlags(rawValue: try reader.read()))
        }
    }
}
