// Rename, as renameat2: the checks in Linux's order, then the change, which can't fail.

import Base

extension Namespace {
    mutating func rename(
        _ parent: InodeID, _ name: [UInt8], _ newParent: InodeID, _ newName: [UInt8],
        _ flags: RenameFlags, _ holders: [SessionID]
    ) throws(FileError) -> Outcome {
        let source = try directorySlot(parent)
        let target = try directorySlot(newParent)
        guard let entry = find(name, in: source) else { throw .notFound }
        let replaced = find(newName, in: target)
        if flags.contains(.noReplace), replaced != nil { throw .exists }
        if flags.contains(.exchange), replaced == nil { throw .notFound }
        let isDirectory = inodes[known(entry)].kind == .directory
        if isDirectory, contains(entry.inode, newParent) { throw .invalid }
        if let replaced {
            let replacesDirectory = inodes[known(replaced)].kind == .directory
            if replacesDirectory, contains(replaced.inode, parent) {
                throw flags.contains(.exchange) ? .invalid : .notEmpty
            }
            // Two names of one file: POSIX leaves both.
            if replaced.inode == entry.inode { return .done }
            if flags.contains(.exchange) {
                exchange(source, entry, target, replaced)
                return .done
            }
            if isDirectory, !replacesDirectory { throw .notDirectory }
            if !isDirectory, replacesDirectory { throw .isDirectory }
            if replacesDirectory, inodes[known(replaced)].size > 0 { throw .notEmpty }
        }
        move(source, entry, target, newName, replaced, holders)
        return .done
    }

    /// Whether `inode` is `ancestor` or below it.
    private func contains(_ ancestor: InodeID, _ inode: InodeID) -> Bool {
        var inode = inode
        while inode != ancestor {
            if inode == .root { return false }
            inode = InodeID(rawValue: inodes[Int(inode.slot)].place)
        }
        return true
    }

    private mutating func move(
        _ source: Int, _ entry: Dentry, _ target: Int, _ newName: [UInt8],
        _ replaced: Dentry?, _ holders: [SessionID]
    ) {
        removeName(source, entry)
        if let replaced {
            directories[Int(inodes[target].auxiliary)].replace(
                replaced.cookie, with: entry.inode)
            touch(target)
        } else {
            insertName(target, newName, entry.inode)
        }
        setParent(entry.inode, from: source, to: target)
        guard let replaced else { return }
        if inodes[known(replaced)].kind == .directory {
            inodes[target].links -= 1
            removeInode(replaced.inode)
        } else {
            dropLink(replaced.inode, holders)
        }
    }

    private mutating func exchange(
        _ source: Int, _ entry: Dentry, _ target: Int, _ other: Dentry
    ) {
        directories[Int(inodes[source].auxiliary)].replace(entry.cookie, with: other.inode)
        directories[Int(inodes[target].auxiliary)].replace(other.cookie, with: entry.inode)
        touch(source)
        touch(target)
        setParent(entry.inode, from: source, to: target)
        setParent(other.inode, from: target, to: source)
    }

    /// The inode's name moved from one directory to another, or within one.
    private mutating func setParent(_ inode: InodeID, from source: Int, to target: Int) {
        let slot = Int(inode.slot)
        inodes[slot].changed = time
        guard inodes[slot].kind == .directory else { return }
        inodes[slot].place = inodes.id(target).rawValue
        inodes[source].links -= 1
        inodes[target].links += 1
    }
}
