// Names and attributes: one request to the leader each.

package import Base
import Wire

extension FileSystem {
    /// What is written here and the masters do not know yet is laid over what they say.
    func overlaid(_ attributes: Attributes) -> Attributes {
        guard let node = table.node(attributes.inode) else { return attributes }
        return node.state.update { state in
            state.adopt(attributes, isOwn: false)
            return state.shown
        }
    }

    private func entry(_ reply: MetadataReply) throws(FileError) -> Attributes {
        switch reply {
        case .entry(let attributes): return overlaid(attributes)
        case .created(let attributes, let layout), .opened(let attributes, let layout):
            data.routes.learn(layout.sets)
            return overlaid(attributes)
        default: throw .io
        }
    }
    private func done(_ reply: MetadataReply) throws(FileError) {
        guard case .done = reply else { throw .io }
    }
    private func check(_ name: [UInt8]) throws(FileError) {
        if name.count > Limits.nameLength { throw .nameTooLong }
        if name.isEmpty { throw .notFound }
    }

    /// What a name in a directory stands for. Errors: notFound, notDirectory.
    package func lookup(
        _ parent: InodeID, _ name: [UInt8], _ cancellation: Cancellation? = nil
    ) throws(FileError) -> Attributes {
        try check(name)
        return try entry(
            metadata.query(.lookup(parent: parent, name: name), patience(cancellation)))
    }
    /// Attributes, with size and mtime of what was written here. Errors: stale.
    package func attributes(
        _ inode: InodeID, _ cancellation: Cancellation? = nil
    ) throws(FileError) -> Attributes {
        try entry(metadata.query(.attributes(inode), patience(cancellation)))
    }
    /// Where a symbolic link leads. Errors: invalid.
    package func readLink(
        _ inode: InodeID, _ cancellation: Cancellation? = nil
    ) throws(FileError) -> [UInt8] {
        guard case .bytes(let target) = try metadata.query(.readLink(inode), patience(cancellation))
        else { throw .io }
        return target
    }

    /// Makes a directory, an empty file or a special file. Errors: exists, notFound, noSpace.
    package func makeNode(
        _ parent: InodeID, _ name: [UInt8], kind: FileKind, mode: UInt16, user: UInt32,
        group: UInt32, device: UInt32, _ cancellation: Cancellation? = nil
    ) throws(FileError) -> Attributes {
        try check(name)
        let change = MetadataChange.create(
            parent: parent, name: name, kind: kind, mode: mode, user: user, group: group,
            device: device, target: [], open: false)
        return try entry(metadata.change(change, patience(cancellation)))
    }
    /// Makes a symbolic link. Errors: exists, notFound, nameTooLong (target over 4,095 bytes).
    package func makeSymlink(
        _ parent: InodeID, _ name: [UInt8], target: [UInt8], user: UInt32, group: UInt32,
        _ cancellation: Cancellation? = nil
    ) throws(FileError) -> Attributes {
        try check(name)
        if target.count > Limits.symlinkTarget { throw .nameTooLong }
        let change = MetadataChange.create(
            parent: parent, name: name, kind: .symlink, mode: 0o777, user: user, group: group,
            device: 0, target: target, open: false)
        return try entry(metadata.change(change, patience(cancellation)))
    }
    /// Gives a file one more name. Errors: exists, tooManyLinks, notPermitted (a directory).
    package func link(
        _ inode: InodeID, _ parent: InodeID, _ name: [UInt8],
        _ cancellation: Cancellation? = nil
    ) throws(FileError) -> Attributes {
        try check(name)
        let change = MetadataChange.link(inode, parent: parent, name: name)
        return try entry(metadata.change(change, patience(cancellation)))
    }
    /// Takes a name away. Errors: notFound, isDirectory.
    package func unlink(
        _ parent: InodeID, _ name: [UInt8], _ cancellation: Cancellation? = nil
    ) throws(FileError) {
        try check(name)
        let change = MetadataChange.unlink(parent: parent, name: name)
        try done(metadata.change(change, patience(cancellation)))
    }
    /// Removes an empty directory. Errors: notFound, notDirectory, notEmpty.
    package func removeDirectory(
        _ parent: InodeID, _ name: [UInt8], _ cancellation: Cancellation? = nil
    ) throws(FileError) {
        try check(name)
        let change = MetadataChange.removeDirectory(parent: parent, name: name)
        try done(metadata.change(change, patience(cancellation)))
    }
    /// Moves a name, atomically. Errors: as rename(2).
    package func rename(
        _ parent: InodeID, _ name: [UInt8], _ newParent: InodeID, _ newName: [UInt8],
        flags: RenameFlags, _ cancellation: Cancellation? = nil
    ) throws(FileError) {
        try check(name)
        try check(newName)
        let change = MetadataChange.rename(
            parent: parent, name: name, newParent: newParent, newName: newName, flags: flags)
        try done(metadata.change(change, patience(cancellation)))
    }

    /// Names of a directory after a cookie (0: from the start), in the order of their cookies,
    /// which are 3 or more; `.` and `..` are not among them.
    package func readDirectory(
        _ inode: InodeID, after cookie: UInt64, limit: Int, withAttributes: Bool,
        _ cancellation: Cancellation? = nil
    ) throws(FileError) -> (entries: [DirectoryEntry], atEnd: Bool) {
        let limit = UInt32(max(1, min(limit, Limits.directoryPage)))
        let query = MetadataQuery.readDirectory(
            inode, after: cookie, limit: limit, withAttributes: withAttributes)
        guard
            case .directory(var entries, let atEnd) = try metadata.query(
                query, patience(cancellation))
        else { throw .io }
        for index in entries.indices {
            entries[index].attributes = entries[index].attributes.map { overlaid($0) }
        }
        return (entries, atEnd)
    }

    /// The value of an extended attribute. Errors: noAttribute.
    package func extendedAttribute(
        _ inode: InodeID, _ name: [UInt8], _ cancellation: Cancellation? = nil
    ) throws(FileError) -> [UInt8] {
        let query = MetadataQuery.extendedAttribute(inode, name: name)
        guard case .bytes(let value) = try metadata.query(query, patience(cancellation))
        else { throw .io }
        return value
    }
    /// The names of all extended attributes.
    package func extendedAttributes(
        _ inode: InodeID, _ cancellation: Cancellation? = nil
    ) throws(FileError) -> [[UInt8]] {
        let query = MetadataQuery.extendedAttributes(inode)
        guard case .names(let names) = try metadata.query(query, patience(cancellation))
        else { throw .io }
        return names
    }
    /// Sets an extended attribute. Errors: exists, noAttribute (by the flags), range, noSpace.
    package func setExtendedAttribute(
        _ inode: InodeID, _ name: [UInt8], _ value: [UInt8], flags: ExtendedFlags,
        _ cancellation: Cancellation? = nil
    ) throws(FileError) {
        if name.isEmpty || name.count > Limits.attributeName { throw .range }
        if value.count > Limits.attributeValue { throw .listTooLong }
        let change = MetadataChange.setExtendedAttribute(
            inode, name: name, value: value, flags: flags)
        try done(metadata.change(change, patience(cancellation)))
    }
    /// Removes an extended attribute. Errors: noAttribute.
    package func removeExtendedAttribute(
        _ inode: InodeID, _ name: [UInt8], _ cancellation: Cancellation? = nil
    ) throws(FileError) {
        let change = MetadataChange.removeExtendedAttribute(inode, name: name)
        try done(metadata.change(change, patience(cancellation)))
    }
}

// Paths, for callers without a kernel in front of them.
extension FileSystem {
    /// Symbolic links on the way of one path, as Linux has it.
    private static let linksPerPath = 40

    /// What an absolute path leads to. Errors: notFound, notDirectory, loop, nameTooLong.
    package func resolve(
        _ path: [UInt8], followLast: Bool, _ cancellation: Cancellation? = nil
    ) throws(FileError) -> Attributes {
        var rest = Self.components(path)
        /// Directories from the root to where the walk is.
        var trail = [try attributes(.root, cancellation)]
        var links = 0
        while let name = rest.popLast() {
            guard trail[trail.count - 1].kind == .directory else { throw .notDirectory }
            if name == [UInt8(ascii: ".")] { continue }
            if name == Array("..".utf8) {
                if trail.count > 1 { trail.removeLast() }
                continue
            }
            let found = try lookup(trail[trail.count - 1].inode, name, cancellation)
            guard found.kind == .symlink, !rest.isEmpty || followLast else {
                trail.append(found)
                continue
            }
            links += 1
            if links > Self.linksPerPath { throw .loop }
            let target = try readLink(found.inode, cancellation)
            if target.first == UInt8(ascii: "/") { trail.removeLast(trail.count - 1) }
            rest += Self.components(target)
        }
        return trail[trail.count - 1]
    }
    /// The same for a text.
    package func resolve(
        _ path: String, followLast: Bool, _ cancellation: Cancellation? = nil
    ) throws(FileError) -> Attributes {
        try resolve(Array(path.utf8), followLast: followLast, cancellation)
    }

    /// The names of a path, last first. A slash at the end asks for a directory.
    private static func components(_ path: [UInt8]) -> [[UInt8]] {
        let slash = UInt8(ascii: "/")
        let names = path.split(separator: slash).map(Array.init)
        let mustBeDirectory = path.last == slash && !names.isEmpty
        return (mustBeDirectory ? names + [[UInt8(ascii: ".")]] : names).reversed()
    }
}
