// Attributes and extended attributes.

import Base

extension Namespace {
    func attributes(_ slot: Int) -> Attributes {
        let record = inodes[slot]
        guard let kind = record.kind else { preconditionFailure("a free slot") }
        let isDevice = kind == .characterDevice || kind == .blockDevice
        return Attributes(
            inode: inodes.id(slot), kind: kind, mode: record.mode, links: record.links,
            user: record.user, group: record.group, device: isDevice ? record.auxiliary : 0,
            size: record.size, accessed: record.accessed, modified: record.modified,
            changed: record.changed)
    }

    mutating func setAttributes(
        _ inode: InodeID, _ changes: AttributeChanges
    ) throws(FileError) -> Outcome {
        let slot = try slot(inode)
        if changes.mode != nil, inodes[slot].kind == .symlink { throw .notSupported }
        guard changes != AttributeChanges() else { return .entry(attributes(slot)) }
        if changes.user != nil || changes.group != nil {
            inodes[slot].user = changes.user ?? inodes[slot].user
            inodes[slot].group = changes.group ?? inodes[slot].group
            if inodes[slot].kind == .file { clearPrivileges(slot) }
        }
        if let mode = changes.mode { inodes[slot].mode = mode }
        if let accessed = changes.accessed { inodes[slot].accessed = resolve(accessed) }
        if let modified = changes.modified { inodes[slot].modified = resolve(modified) }
        inodes[slot].changed = time
        return .entry(attributes(slot))
    }

    /// A new owner must not inherit the old one's set-uid; set-gid without group execution is
    /// no privilege (Linux keeps it).
    private mutating func clearPrivileges(_ slot: Int) {
        inodes[slot].mode &= ~0o4000
        if inodes[slot].mode & 0o010 != 0 { inodes[slot].mode &= ~0o2000 }
    }

    private func resolve(_ change: AttributeChanges.Time) -> Timestamp {
        switch change {
        case .now: time
        case .at(let time): time
        }
    }

    mutating func setExtendedAttribute(
        _ inode: InodeID, _ name: [UInt8], _ value: [UInt8], _ flags: ExtendedFlags
    ) throws(FileError) -> Outcome {
        let slot = try slot(inode)
        var list = attributeLists[inode] ?? AttributeList(inode: inode, items: [])
        let (index, isThere) = list.position(name)
        if flags.contains(.create), isThere { throw .exists }
        if flags.contains(.replace), !isThere { throw .noAttribute }
        if isThere {
            list.items[index].value = value
        } else {
            list.items.insert(AttributeList.Item(name: name, value: value), at: index)
        }
        guard list.bytes <= Limits.attributesPerInode else { throw .noSpace }
        attributeLists.insert(list)
        inodes[slot].changed = time
        return .done
    }

    mutating func removeExtendedAttribute(
        _ inode: InodeID, _ name: [UInt8]
    ) throws(FileError) -> Outcome {
        let slot = try slot(inode)
        guard var list = attributeLists[inode] else { throw .noAttribute }
        let (index, isThere) = list.position(name)
        guard isThere else { throw .noAttribute }
        list.items.remove(at: index)
        if list.items.isEmpty { attributeLists.remove(inode) } else { attributeLists.insert(list) }
        inodes[slot].changed = time
        return .done
    }
}
