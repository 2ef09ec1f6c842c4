// A reference for the namespace: a tree of dictionaries, written for clarity only. It knows the
// rules of POSIX, not how they are implemented.

import Base
import Namespace

struct TreeModel {
    /// The errors of the last extend.
    private(set) var extendErrors: [FileError?] = []
    struct Node {
        var kind: FileKind
        var mode: UInt16
        var user: UInt32
        var group: UInt32
        var device: UInt32 = 0
        var size: UInt64 = 0
        var accessed: Timestamp
        var modified: Timestamp
        var changed: Timestamp
        var truncation: UInt32 = 0
        var target: [UInt8] = []
        var children: [[UInt8]: InodeID] = [:]
        var extended: [[UInt8]: [UInt8]] = [:]
        /// Set and version of each chunk that has a place.
        var chunks: [UInt32: (set: SetID, version: UInt32)] = [:]
        var holders: Set<SessionID> = []
    }
    var nodes: [InodeID: Node] = [
        .root: Node(
            kind: .directory, mode: 0o755, user: 0, group: 0, accessed: .zero, modified: .zero,
            changed: .zero)
    ]
    var now = Timestamp.zero
    /// Chunks that no file has any more.
    var dropped: [ChunkID] = []

    func links(_ inode: InodeID) -> UInt32 {
        let names = nodes.values.reduce(0) { sum, node in
            sum + node.children.values.count { $0 == inode }
        }
        guard let node = nodes[inode], node.kind == .directory else { return UInt32(names) }
        let below = node.children.values.count { nodes[$0]?.kind == .directory }
        return UInt32(2 + below)
    }

    func attributes(_ inode: InodeID) -> Attributes? {
        guard let node = nodes[inode] else { return nil }
        let size = node.kind == .directory ? UInt64(node.children.count) : node.size
        return Attributes(
            inode: inode, kind: node.kind, mode: node.mode, links: links(inode),
            user: node.user, group: node.group, device: node.device, size: size,
            accessed: node.accessed, modified: node.modified, changed: node.changed)
    }

    private func parent(_ inode: InodeID) -> InodeID? {
        nodes.first { $0.value.children.values.contains(inode) }?.key
    }
    private func isWithin(_ inode: InodeID, _ ancestor: InodeID) -> Bool {
        inode == ancestor || parent(inode).map { isWithin($0, ancestor) } ?? false
    }

    private func directory(_ inode: InodeID) throws(FileError) -> Node {
        guard let node = nodes[inode] else { throw .stale }
        guard node.kind == .directory else { throw .notDirectory }
        return node
    }

    /// The change and its error; a create takes the id that the namespace chose.
    mutating func apply(
        _ change: Change, created: InodeID?, session: SessionID
    ) -> FileError? {
        do throws(FileError) {
            switch change {
            case .create(let creation): try create(creation, created)
            case .link(let inode, let parent, let name): try link(inode, parent, name)
            case .unlink(let parent, let name, let holders):
                guard let inode = try directory(parent).children[name] else { throw .notFound }
                if nodes[inode]?.kind == .directory { throw .isDirectory }
                setName(parent, name, nil)
                unlinked(inode, holders)
            case .removeDirectory(let parent, let name):
                guard let inode = try directory(parent).children[name] else { throw .notFound }
                guard let node = nodes[inode], node.kind == .directory else {
                    throw .notDirectory
                }
                guard node.children.isEmpty else { throw .notEmpty }
                setName(parent, name, nil)
                nodes[inode] = nil
            case .rename(let parent, let name, let newParent, let newName, let flags, let holders):
                try rename((parent, name), (newParent, newName), flags, holders)
            default: try applyToInode(change, session)
            }
        } catch { return error }
        return nil
    }

    private mutating func setName(_ parent: InodeID, _ name: [UInt8], _ inode: InodeID?) {
        nodes[parent]?.children[name] = inode
        nodes[parent]?.modified = now
        nodes[parent]?.changed = now
    }

    private mutating func unlinked(_ inode: InodeID, _ holders: [SessionID]) {
        nodes[inode]?.changed = now
        guard links(inode) == 0 else { return }
        nodes[inode]?.holders = Set(holders)
        if holders.isEmpty { remove(inode) }
    }

    private mutating func remove(_ inode: InodeID) {
        drop(inode, from: 0)
        nodes[inode] = nil
    }

    private mutating func drop(_ inode: InodeID, from first: UInt32) {
        for (index, place) in nodes[inode]?.chunks ?? [:] where index >= first {
            dropped.append(ChunkID(inode: inode, index: index, version: place.version))
            nodes[inode]?.chunks[index] = nil
        }
    }

    private mutating func create(
        _ creation: Creation, _ created: InodeID?
    ) throws(FileError) {
        let parent = try directory(creation.parent)
        guard parent.children[creation.name] == nil else { throw .exists }
        guard let created else { throw .badHandle }
        var node = Node(
            kind: creation.kind, mode: creation.mode, user: creation.user,
            group: creation.group, accessed: now, modified: now, changed: now)
        if parent.mode & 0o2000 != 0 {
            node.group = parent.group
            if creation.kind == .directory { node.mode |= 0o2000 }
        }
        if creation.kind == .symlink {
            node.mode = 0o777
            node.target = creation.target
            node.size = UInt64(creation.target.count)
        }
        if [.characterDevice, .blockDevice].contains(creation.kind) {
            node.device = creation.device
        }
        if creation.kind == .file, let set = creation.set { node.chunks[0] = (set, 0) }
        nodes[created] = node
        setName(creation.parent, creation.name, created)
    }

    private mutating func link(
        _ inode: InodeID, _ parent: InodeID, _ name: [UInt8]
    ) throws(FileError) {
        guard let node = nodes[inode] else { throw .stale }
        guard try directory(parent).children[name] == nil else { throw .exists }
        guard node.kind != .directory else { throw .notPermitted }
        guard links(inode) > 0 else { throw .notFound }
        setName(parent, name, inode)
        nodes[inode]?.changed = now
    }

    private mutating func rename(
        _ from: (InodeID, [UInt8]), _ to: (InodeID, [UInt8]), _ flags: RenameFlags,
        _ holders: [SessionID]
    ) throws(FileError) {
        let source = try directory(from.0)
        let target = try directory(to.0)
        guard let inode = source.children[from.1], let node = nodes[inode] else {
            throw .notFound
        }
        let other = target.children[to.1]
        if flags == .noReplace, other != nil { throw .exists }
        if flags == .exchange, other == nil { throw .notFound }
        if isWithin(to.0, inode) { throw .invalid }
        if let other, isWithin(from.0, other) {
            throw flags == .exchange ? .invalid : .notEmpty
        }
        if other == inode { return }
        if let other, let replaced = nodes[other], flags != .exchange {
            if node.kind == .directory, replaced.kind != .directory { throw .notDirectory }
            if node.kind != .directory, replaced.kind == .directory { throw .isDirectory }
            guard replaced.children.isEmpty else { throw .notEmpty }
        }
        setName(from.0, from.1, flags == .exchange ? other : nil)
        setName(to.0, to.1, inode)
        nodes[inode]?.changed = now
        guard let other else { return }
        if flags == .exchange {
            nodes[other]?.changed = now
        } else if nodes[other]?.kind == .directory {
            nodes[other] = nil
        } else {
            unlinked(other, holders)
        }
    }

    private mutating func applyToInode(
        _ change: Change, _ session: SessionID
    ) throws(FileError) {
        switch change {
        case .setAttributes(let inode, let changes): try setAttributes(inode, changes)
        case .truncate(let inode, let size):
            let old = try file(inode)
            if size < old.size {
                nodes[inode]?.truncation += 1
                let chunk = UInt64(Limits.chunk)
                drop(inode, from: UInt32(size / chunk) + (size % chunk == 0 ? 0 : 1))
            }
            nodes[inode]?.size = size
            nodes[inode]?.modified = now
            nodes[inode]?.changed = now
        case .extend(let files, _): extendErrors = files.map { extend($0) }
        case .allocate(let inode, let first, let sets):
            let node = try file(inode)
            for (offset, set) in sets.enumerated()
            where node.chunks[first + UInt32(offset)] == nil {
                nodes[inode]?.chunks[first + UInt32(offset)] = (set, node.truncation)
            }
        case .setExtendedAttribute(let inode, let name, let value, _):
            guard nodes[inode] != nil else { throw .stale }
            nodes[inode]?.extended[name] = value
            nodes[inode]?.changed = now
        case .removeExtendedAttribute(let inode, let name):
            guard nodes[inode] != nil else { throw .stale }
            guard nodes[inode]?.extended.removeValue(forKey: name) != nil else {
                throw .noAttribute
            }
            nodes[inode]?.changed = now
        case .releaseOrphans(let inodes):
            for inode in inodes where nodes[inode]?.holders.remove(session) != nil {
                if nodes[inode]?.holders.isEmpty == true { remove(inode) }
            }
        default: break
        }
    }

    private mutating func extend(_ end: FileEnd) -> FileError? {
        do throws(FileError) {
            let node = try file(end.inode)
            guard node.truncation == end.truncation else { return nil }
            nodes[end.inode]?.size = max(node.size, end.end)
            nodes[end.inode]?.modified = now
            nodes[end.inode]?.changed = now
            return nil
        } catch { return error }
    }

    private func file(_ inode: InodeID) throws(FileError) -> Node {
        guard let node = nodes[inode] else { throw .stale }
        guard node.kind != .directory else { throw .isDirectory }
        guard node.kind == .file else { throw .invalid }
        return node
    }

    private mutating func setAttributes(
        _ inode: InodeID, _ changes: AttributeChanges
    ) throws(FileError) {
        guard var node = nodes[inode] else { throw .stale }
        if changes.mode != nil, node.kind == .symlink { throw .notSupported }
        if changes.user != nil, node.kind == .file {
            node.mode &= node.mode & 0o010 != 0 ? ~0o6000 : ~0o4000
        }
        node.user = changes.user ?? node.user
        node.mode = changes.mode ?? node.mode
        node.changed = now
        nodes[inode] = node
    }
}
