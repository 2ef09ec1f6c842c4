// Files as clients see them.

/// What an inode is. The raw value is the coding on the wire and on disk.
package enum FileKind: UInt8, Hashable, Sendable, CaseIterable {
    case file = 1
    case directory = 2
    case symlink = 3
    case fifo = 4
    case socket = 5
    case characterDevice = 6
    case blockDevice = 7
}

/// The attributes of an inode.
package struct Attributes: Hashable, Sendable {
    /// Its name in the cell; never reissued.
    package var inode: InodeID
    package var kind: FileKind
    /// Permission bits with set-uid, set-gid and sticky: 12 bits.
    package var mode: UInt16
    /// Hard links; for a directory 2 + its subdirectories.
    package var links: UInt32
    package var user: UInt32
    package var group: UInt32
    /// Device number of a device file (Linux coding), else 0.
    package var device: UInt32
    /// Bytes.
    package var size: UInt64
    package var accessed: Timestamp
    package var modified: Timestamp
    package var changed: Timestamp

    /// All attributes at once.
    package init(
        inode: InodeID, kind: FileKind, mode: UInt16, links: UInt32 = 1, user: UInt32 = 0,
        group: UInt32 = 0, device: UInt32 = 0, size: UInt64 = 0, accessed: Timestamp = .zero,
        modified: Timestamp = .zero, changed: Timestamp = .zero
    ) {
        self.inode = inode
        self.kind = kind
        self.mode = mode
        self.links = links
        self.user = user
        self.group = group
        self.device = device
        self.size = size
        self.accessed = accessed
        self.modified = modified
        self.changed = changed
    }

    /// 64 bytes.
    package func encode(into writer: inout ByteWriter) {
        writer.write(inode)
        writer.write(kind.rawValue)
        writer.write(0 as UInt8)
        writer.write(mode)
        writer.write(links)
        writer.write(user)
        writer.write(group)
        writer.write(device)
        writer.write(0 as UInt32)
        writer.write(size)
        writer.write(accessed)
        writer.write(modified)
        writer.write(changed)
    }
    /// Reads what `encode` wrote.
    package init(from reader: inout ByteReader) throws(DecodeError) {
        inode = try reader.read()
        kind = try FileKind(from: &reader)
        _ = try reader.read(UInt8.self)
        mode = try reader.read()
        links = try reader.read()
        user = try reader.read()
        group = try reader.read()
        device = try reader.read()
        _ = try reader.read(UInt32.self)
        size = try reader.read()
        accessed = try reader.readTimestamp()
        modified = try reader.readTimestamp()
        changed = try reader.readTimestamp()
    }
}

extension FileKind {
    /// Reads one byte; an unknown kind is an error.
    package init(from reader: inout ByteReader) throws(DecodeError) {
        let value = try reader.read(UInt8.self)
        guard let kind = FileKind(rawValue: value) else {
            throw .invalid(field: "file kind", value: UInt64(value))
        }
        self = kind
    }
}

/// What `setattr` changes; nil is left as it is. Size is not here: see Truncate and Extend.
package struct AttributeChanges: Hashable, Sendable {
    /// A time to set.
    package enum Time: Hashable, Sendable {
        /// The time of the command (UTIME_NOW).
        case now
        case at(Timestamp)
    }
    package var mode: UInt16?
    package var user: UInt32?
    package var group: UInt32?
    package var accessed: Time?
    package var modified: Time?

    /// Changes nothing until fields are set.
    package init() {}

    /// A byte of presence bits and the values that are there.
    package func encode(into writer: inout ByteWriter) {
        writer.writeOptional(mode) { $0.write($1) }
        writer.writeOptional(user) { $0.write($1) }
        writer.writeOptional(group) { $0.write($1) }
        for time in [accessed, modified] {
            switch time {
            case nil: writer.write(0 as UInt8)
            case .now: writer.write(1 as UInt8)
            case .at(let time):
                writer.write(2 as UInt8)
                writer.write(time)
            }
        }
    }
    /// Reads what `encode` wrote.
    package init(from reader: inout ByteReader) throws(DecodeError) {
        mode = try reader.readOptional { (reader) throws(DecodeError) in try reader.read() }
        user = try reader.readOptional { (reader) throws(DecodeError) in try reader.read() }
        group = try reader.readOptional { (reader) throws(DecodeError) in try reader.read() }
        accessed = try Self.readTime(&reader)
        modified = try Self.readTime(&reader)
    }
    private static func readTime(_ reader: inout ByteReader) throws(DecodeError) -> Time? {
        switch try reader.read(UInt8.self) {
        case 0: return nil
        case 1: return .now
        case 2: return .at(try reader.readTimestamp())
        case let other: throw .invalid(field: "time change", value: UInt64(other))
        }
    }
}

/// One name in a directory.
package struct DirectoryEntry: Hashable, Sendable {
    /// The place in the directory: ordered, never reused; reading goes on after it.
    package var cookie: UInt64
    /// Any bytes but `/` and NUL, 1 to 255 of them.
    package var name: [UInt8]
    package var inode: InodeID
    package var kind: FileKind
    /// Where the caller asked for them.
    package var attributes: Attributes?

    /// All fields at once.
    package init(
        cookie: UInt64, name: [UInt8], inode: InodeID, kind: FileKind,
        attributes: Attributes? = nil
    ) {
        self.cookie = cookie
        self.name = name
        self.inode = inode
        self.kind = kind
        self.attributes = attributes
    }
    /// Cookie, name, inode, kind, attributes if any.
    package func encode(into writer: inout ByteWriter) {
        writer.write(cookie)
        writer.writeBytes(name)
        writer.write(inode)
        writer.write(kind.rawValue)
        writer.writeOptional(attributes) { $1.encode(into: &$0) }
    }
    /// Reads what `encode` wrote.
    package init(from reader: inout ByteReader) throws(DecodeError) {
        cookie = try reader.read()
        name = Array(try reader.readBytes(bound: Limits.nameLength))
        inode = try reader.read()
        kind = try FileKind(from: &reader)
        attributes = try reader.readOptional { (reader) throws(DecodeError) in
            try Attributes(from: &reader)
        }
    }
}

/// Flags of a rename, as renameat2 has them.
package struct RenameFlags: OptionSet, Hashable, Sendable {
    /// The bits.
    package let rawValue: UInt8
    /// Makes flags of any bits; unknown ones are refused where they are used.
    package init(rawValue: UInt8) { self.rawValue = rawValue }
    /// RENAME_NOREPLACE
    package static let noReplace = RenameFlags(rawValue: 1)
    /// RENAME_EXCHANGE
    package static let exchange = RenameFlags(rawValue: 2)
}

/// Flags of setxattr.
package struct ExtendedFlags: OptionSet, Hashable, Sendable {
    /// The bits.
    package let rawValue: UInt8
    /// Makes flags of any bits; unknown ones are refused where they are used.
    package init(rawValue: UInt8) { self.rawValue = rawValue }
    /// XATTR_CREATE: the name must be new.
    package static let create = ExtendedFlags(rawValue: 1)
    /// XATTR_REPLACE: the name must be there.
    package static let replace = ExtendedFlags(rawValue: 2)
}
