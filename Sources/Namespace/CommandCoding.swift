// The coding of commands in the masters' log: version, time, a tag, the fields in order. What a
// client may send is always decodable: bounds of the format are above those that apply checks.

package import Base

/// The version of the coding; another one is refused (D17).
private let version: UInt8 = 1

/// Bounds of the format; the rules' own bounds are in `Change.fault` and apply.
private enum Bound {
    static let bytes = 128 << 10
    static let text = 4_096
    static let list = 1 << 16
}

extension Command {
    /// At most a little more than what the client sent; all integers little endian.
    package func encode(into writer: inout ByteWriter) {
        writer.write(version)
        writer.write(time)
        switch action {
        case .client(let session, let number, let firstIncomplete, let change):
            writer.write(1 as UInt8)
            writer.write(session)
            writer.write(number)
            writer.write(firstIncomplete)
            change.encode(into: &writer)
        case .openSession(let nonce, let label):
            writer.write(2 as UInt8)
            writer.write(nonce)
            writer.write(label)
        case .tick: writer.write(3 as UInt8)
        case .begin(let round, let leader):
            writer.write(4 as UInt8)
            writer.write(round)
            writer.write(leader)
        default: encodeServerAction(into: &writer)
        }
    }

    private func encodeServerAction(into writer: inout ByteWriter) {
        switch action {
        case .registerServer(let server, let disks):
            writer.write(5 as UInt8)
            server.encode(into: &writer)
            writer.writeList(disks) { $1.encode(into: &$0) }
        case .createSet(let members, let primary, let minMembers):
            writer.write(6 as UInt8)
            writer.writeList(members) { $0.write($1) }
            writer.write(primary)
            writer.write(minMembers)
        case .changeEpoch(let configuration, let incarnations):
            writer.write(7 as UInt8)
            configuration.encode(into: &writer)
            writer.writeList(incarnations) { $0.write($1) }
        case .setFull(let set):
            writer.write(8 as UInt8)
            writer.write(set)
        case .confirmDrops(let orders):
            writer.write(9 as UInt8)
            writer.writeList(orders) { $0.write($1) }
        case .confirmCuts(let cuts):
            writer.write(10 as UInt8)
            writer.writeList(cuts) { $1.encode(into: &$0) }
        case .snapshot: writer.write(11 as UInt8)
        case .adoptSet(let configuration, let base, let incarnations):
            writer.write(12 as UInt8)
            configuration.encode(into: &writer)
            writer.write(base)
            writer.writeList(incarnations) { $0.write($1) }
        case .operate(let operation):
            writer.write(13 as UInt8)
            operation.encode(into: &writer)
        default: preconditionFailure("not a server's action")
        }
    }

    /// Reads what `encode` wrote and nothing else; throws for any other bytes.
    package init(decoding bytes: ArraySlice<UInt8>) throws(DecodeError) {
        var reader = ByteReader(bytes)
        try self.init(from: &reader)
        try reader.finish()
    }

    /// Reads what `encode` wrote.
    package init(from reader: inout ByteReader) throws(DecodeError) {
        let found = try reader.read(UInt8.self)
        guard found == version else { throw .version("command", found: UInt64(found)) }
        time = try reader.readTimestamp()
        let tag = try reader.read(UInt8.self)
        switch tag {
        case 1:
            action = .client(
                try reader.read(), number: try reader.read(),
                firstIncomplete: try reader.read(), try Change(from: &reader))
        case 2:
            action = .openSession(
                nonce: try reader.read(), label: try reader.readString(bound: Bound.text))
        case 3: action = .tick
        case 4: action = .begin(round: try reader.read(), leader: try reader.read())
        default: action = try Self.serverAction(tag, &reader)
        }
    }

    private static func serverAction(
        _ tag: UInt8, _ reader: inout ByteReader
    ) throws(DecodeError) -> Action {
        switch tag {
        case 5:
            .registerServer(
                try ServerRecord(from: &reader),
                disks: try reader.readList(bound: Bound.list) { (reader) throws(DecodeError) in
                    try DiskRecord(from: &reader)
                })
        case 6:
            .createSet(
                members: try reader.readNames(), primary: try reader.read(),
                minMembers: try reader.read())
        case 7:
            .changeEpoch(
                try SetConfiguration(from: &reader), incarnations: try reader.readNames())
        case 8: .setFull(try reader.read())
        case 9:
            .confirmDrops(
                try reader.readList(bound: Bound.list) { (reader) throws(DecodeError) in
                    try reader.read()
                })
        case 10:
            .confirmCuts(
                try reader.readList(bound: Bound.list) { (reader) throws(DecodeError) in
                    try PendingCut(from: &reader)
                })
        case 11: .snapshot
        case 12:
            .adoptSet(
                try SetConfiguration(from: &reader), base: try reader.read(),
                incarnations: try reader.readNames())
        case 13: .operate(try Operation(from: &reader))
        default: throw .invalid(field: "command", value: UInt64(tag))
        }
    }
}

extension Change {
    func encode(into writer: inout ByteWriter) {
        switch self {
        case .create(let creation):
            writer.write(1 as UInt8)
            creation.encode(into: &writer)
        case .link(let inode, let parent, let name):
            writer.write(2 as UInt8)
            writer.write(inode)
            writer.write(parent)
            writer.writeBytes(name)
        case .unlink(let parent, let name, let holders):
            writer.write(3 as UInt8)
            writer.write(parent)
            writer.writeBytes(name)
            writer.writeList(holders) { $0.write($1) }
        case .removeDirectory(let parent, let name):
            writer.write(4 as UInt8)
            writer.write(parent)
            writer.writeBytes(name)
        case .rename(let parent, let name, let newParent, let newName, let flags, let holders):
            writer.write(5 as UInt8)
            writer.write(parent)
            writer.writeBytes(name)
            writer.write(newParent)
            writer.writeBytes(newName)
            writer.write(flags.rawValue)
            writer.writeList(holders) { $0.write($1) }
        default: encodeInodeChange(into: &writer)
        }
    }

    private func encodeInodeChange(into writer: inout ByteWriter) {
        switch self {
        case .setAttributes(let inode, let changes):
            writer.write(6 as UInt8)
            writer.write(inode)
            changes.encode(into: &writer)
        case .truncate(let inode, let size):
            writer.write(7 as UInt8)
            writer.write(inode)
            writer.write(size)
        case .extend(let files, let numbers):
            writer.write(16 as UInt8)
            writer.writeList(files) { $1.encode(into: &$0) }
            writer.writeList(numbers) { $1.encode(into: &$0) }
        case .allocate(let inode, let first, let sets):
            writer.write(9 as UInt8)
            writer.write(inode)
            writer.write(first)
            writer.writeList(sets) { $0.write($1) }
        case .setExtendedAttribute(let inode, let name, let value, let flags):
            writer.write(10 as UInt8)
            writer.write(inode)
            writer.writeBytes(name)
            writer.writeBytes(value)
            writer.write(flags.rawValue)
        case .removeExtendedAttribute(let inode, let name):
            writer.write(11 as UInt8)
            writer.write(inode)
            writer.writeBytes(name)
        case .renewSession: writer.write(12 as UInt8)
        case .releaseOrphans(let inodes):
            writer.write(13 as UInt8)
            writer.writeList(inodes) { $0.write($1) }
        case .closeSession: writer.write(14 as UInt8)
        case .operate(let operation):
            writer.write(15 as UInt8)
            operation.encode(into: &writer)
        default: preconditionFailure("a change of names")
        }
    }

    init(from reader: inout ByteReader) throws(DecodeError) {
        let tag = try reader.read(UInt8.self)
        switch tag {
        case 1: self = .create(try Creation(from: &reader))
        case 2:
            self = .link(
                try reader.read(), parent: try reader.read(), name: try reader.readField())
        case 3:
            self = .unlink(
                parent: try reader.read(), name: try reader.readField(),
                holders: try reader.readNames())
        case 4:
            self = .removeDirectory(parent: try reader.read(), name: try reader.readField())
        case 5:
            self = .rename(
                parent: try reader.read(), name: try reader.readField(),
                newParent: try reader.read(), newName: try reader.readField(),
                flags: RenameFlags(rawValue: try reader.read()),
                holders: try reader.readNames())
        default: try self.init(inodeChange: tag, from: &reader)
        }
    }

    private init(inodeChange tag: UInt8, from reader: inout ByteReader) throws(DecodeError) {
        switch tag {
        case 6: self = .setAttributes(try reader.read(), try AttributeChanges(from: &reader))
        case 7: self = .truncate(try reader.read(), size: try reader.read())
        case 9:
            self = .allocate(
                try reader.read(), first: try reader.read(), sets: try reader.readNames())
        case 10:
            self = .setExtendedAttribute(
                try reader.read(), name: try reader.readField(), value: try reader.readField(),
                flags: ExtendedFlags(rawValue: try reader.read()))
        case 11:
            self = .removeExtendedAttribute(try reader.read(), name: try reader.readField())
        case 12: self = .renewSession
        case 13: self = .releaseOrphans(try reader.readNames())
        case 14: self = .closeSession
        case 15: self = .operate(try Operation(from: &reader))
        case 16:
            self = .extend(
                try reader.readList(bound: Bound.list) { (reader) throws(DecodeError) in
                    try FileEnd(from: &reader)
                },
                numbers: try reader.readList(bound: Limits.setNumbers) {
                    (reader) throws(DecodeError) in try SetNumber(from: &reader)
                })
        default: throw .invalid(field: "change", value: UInt64(tag))
        }
    }
}

extension Creation {
    func encode(into writer: inout ByteWriter) {
        writer.write(parent)
        writer.writeBytes(name)
        writer.write(kind.rawValue)
        writer.write(mode)
        writer.write(user)
        writer.write(group)
        writer.write(device)
        writer.writeBytes(target)
        writer.writeOptional(set) { $0.write($1) }
    }
    init(from reader: inout ByteReader) throws(DecodeError) {
        parent = try reader.read()
        name = try reader.readField()
        kind = try FileKind(from: &reader)
        mode = try reader.read()
        user = try reader.read()
        group = try reader.read()
        device = try reader.read()
        target = try reader.readField()
        set = try reader.readOptional { (reader) throws(DecodeError) in try reader.read() }
    }
}

extension ServerRecord {
    func encode(into writer: inout ByteWriter) {
        writer.write(id)
        writer.write(name)
        writer.write(rack)
        address.encode(into: &writer)
    }
    init(from reader: inout ByteReader) throws(DecodeError) {
        id = try reader.read()
        name = try reader.readString(bound: Bound.text)
        rack = try reader.readString(bound: Bound.text)
        address = try PeerAddress(from: &reader)
    }
}

extension DiskRecord {
    func encode(into writer: inout ByteWriter) {
        writer.write(id)
        writer.write(server)
        writer.write(incarnation)
        writer.write(capacity)
    }
    init(from reader: inout ByteReader) throws(DecodeError) {
        id = try reader.read()
        server = try reader.read()
        incarnation = try reader.read()
        capacity = try reader.read()
    }
}

extension PendingCut {
    func encode(into writer: inout ByteWriter) {
        writer.write(set)
        writer.write(chunk)
        writer.write(truncation)
        writer.write(from)
    }
    init(from reader: inout ByteReader) throws(DecodeError) {
        set = try reader.read()
        chunk = try reader.readChunk()
        truncation = try reader.read()
        from = try reader.read()
    }
}

extension ByteReader {
    fileprivate mutating func readField() throws(DecodeError) -> [UInt8] {
        Array(try readBytes(bound: Bound.bytes))
    }
    fileprivate mutating func readNames<Name: Identifier>() throws(DecodeError) -> [Name] {
        try readList(bound: Bound.list) { (reader) throws(DecodeError) in try reader.read() }
    }
}
