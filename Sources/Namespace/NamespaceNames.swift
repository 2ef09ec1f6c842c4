// Names and inodes: create, link, unlink, remove a directory; the POSIX rules of each.
//
// Invariant: `links` of a directory is 2 + its subdirectories, of anything else its names.

import Base

extension Namespace {
    /// The slot of an inode that is there.
    func slot(_ inode: InodeID) throws(FileError) -> Int {
        guard let slot = inodes.find(inode) else { throw .stale }
        return slot
    }

    /// The slot of a directory that is there.
    func directorySlot(_ inode: InodeID) throws(FileError) -> Int {
        let slot = try slot(inode)
        guard inodes[slot].kind == .directory else { throw .notDirectory }
        return slot
    }

    /// The names of the directory in a slot.
    func directory(_ slot: Int) -> Directory { directories[Int(inodes[slot].auxiliary)] }

    /// A name in the directory in a slot.
    func find(_ name: [UInt8], in slot: Int) -> Dentry? {
        directories[Int(inodes[slot].auxiliary)].find(name)
    }

    mutating func addDirectory() -> UInt32 {
        if let free = freeDirectories.popLast() { return free }
        directories.append(Directory())
        return UInt32(directories.count - 1)
    }

    mutating func insertName(_ slot: Int, _ name: [UInt8], _ inode: InodeID) {
        directories[Int(inodes[slot].auxiliary)].insert(name, inode)
        inodes[slot].size += 1
        touch(slot)
    }

    mutating func removeName(_ slot: Int, _ entry: Dentry) {
        directories[Int(inodes[slot].auxiliary)].remove(entry)
        inodes[slot].size -= 1
        touch(slot)
    }

    /// The content of the inode changed now.
    mutating func touch(_ slot: Int) {
        inodes[slot].modified = time
        inodes[slot].changed = time
    }

    mutating func create(_ creation: Creation) throws(FileError) -> Outcome {
        let parent = try directorySlot(creation.parent)
        guard find(creation.name, in: parent) == nil else { throw .exists }
        var record = InodeRecord(generation: 0, kind: creation.kind)
        record.mode = creation.kind == .symlink ? 0o777 : creation.mode
        record.links = 1
        record.user = creation.user
        record.group = creation.group
        record.accessed = time
        record.modified = time
        record.changed = time
        if inodes[parent].mode & 0o2000 != 0 {
            record.group = inodes[parent].group
            if creation.kind == .directory { record.mode |= 0o2000 }
        }
        switch creation.kind {
        case .directory:
            record.links = 2
            record.auxiliary = addDirectory()
            record.place = creation.parent.rawValue
            inodes[parent].links += 1
        case .symlink: record.size = UInt64(creation.target.count)
        case .characterDevice, .blockDevice: record.auxiliary = creation.device
        case .file:
            record.truncation = load?.truncations ?? 0
            if let set = creation.set, hasRoom(set) {
                record.auxiliary = record.truncation
                record.place = set.rawValue
                setTable.update(set) { $0.chunks += 1 }
            }
        case .fifo, .socket: break
        }
        let slot = inodes.add(record)
        let inode = inodes.id(slot)
        if creation.kind == .symlink {
            targets.insert(SymlinkTarget(inode: inode, target: creation.target))
        }
        insertName(parent, creation.name, inode)
        return .created(attributes(slot), layout(slot, first: 0, count: 1))
    }

    mutating func link(
        _ inode: InodeID, _ parent: InodeID, _ name: [UInt8]
    ) throws(FileError) -> Outcome {
        let slot = try slot(inode)
        let parent = try directorySlot(parent)
        guard find(name, in: parent) == nil else { throw .exists }
        guard inodes[slot].kind != .directory else { throw .notPermitted }
        // An orphan has no way back, as on Linux.
        guard inodes[slot].links > 0 else { throw .notFound }
        guard inodes[slot].links < Limits.links else { throw .tooManyLinks }
        inodes[slot].links += 1
        inodes[slot].changed = time
        insertName(parent, name, inode)
        return .entry(attributes(slot))
    }

    mutating func unlink(
        _ parent: InodeID, _ name: [UInt8], _ holders: [SessionID]
    ) throws(FileError) -> Outcome {
        let parent = try directorySlot(parent)
        guard let entry = find(name, in: parent) else { throw .notFound }
        guard inodes[known(entry)].kind != .directory else { throw .isDirectory }
        removeName(parent, entry)
        dropLink(entry.inode, holders)
        return .done
    }

    mutating func removeDirectory(
        _ parent: InodeID, _ name: [UInt8]
    ) throws(FileError) -> Outcome {
        let parent = try directorySlot(parent)
        guard let entry = find(name, in: parent) else { throw .notFound }
        let slot = known(entry)
        guard inodes[slot].kind == .directory else { throw .notDirectory }
        guard inodes[slot].size == 0 else { throw .notEmpty }
        removeName(parent, entry)
        inodes[parent].links -= 1
        removeInode(entry.inode)
        return .done
    }

    /// The slot that a name leads to.
    func known(_ entry: Dentry) -> Int {
        guard let slot = inodes.find(entry.inode) else {
            preconditionFailure("a name leads to an inode")
        }
        return slot
    }

    /// One name less.
    mutating func dropLink(_ inode: InodeID, _ holders: [SessionID]) {
        let slot = Int(inode.slot)
        inodes[slot].links -= 1
        inodes[slot].changed = time
        if inodes[slot].links == 0 { orphan(inode, holders) }
    }

    /// Frees an inode that has no name and no holder, with all it has in other tables.
    mutating func removeInode(_ inode: InodeID) {
        let slot = Int(inode.slot)
        switch inodes[slot].kind {
        case .directory:
            precondition(inodes[slot].size == 0, "a directory is removed empty")
            directories[Int(inodes[slot].auxiliary)] = Directory()
            freeDirectories.append(inodes[slot].auxiliary)
        case .file:
            removeCuts(inode) { _ in true }
            dropChunks(slot, from: 0)
            fileBytes -= UInt128(inodes[slot].size)
        case .symlink: targets.remove(inode)
        default: break
        }
        attributeLists.remove(inode)
        inodes.free(slot)
    }
}
