// Questions that change nothing. The leader answers clients with them after a read index (M10).

package import Base

/// Chunks of one layout; the wire's bound.
private let layoutBound: UInt32 = 4_096

/// How much there is of everything.
package struct NamespaceCounts: Hashable, Sendable {
    /// Everything but directories.
    package var files: UInt64
    /// The root is one.
    package var directories: UInt64
    package var sessions: UInt64
    /// Sum of the sizes of all files, at most 2^64 - 1.
    package var fileBytes: UInt64
}

/// A session as an operator sees it.
package struct SessionView: Hashable, Sendable {
    package var id: SessionID
    package var label: String
    /// It expires at the first tick at or after this time of the log.
    package var deadline: Timestamp
}

extension Namespace {
    /// The inode of a name. Throws notFound, stale, notDirectory or what is wrong with the name.
    package func lookup(_ parent: InodeID, _ name: [UInt8]) throws(FileError) -> Attributes {
        if let fault = nameFault(name) { throw fault }
        guard let entry = find(name, in: try directorySlot(parent)) else {
            throw .notFound
        }
        return attributes(known(entry))
    }

    /// Throws stale.
    package func attributes(of inode: InodeID) throws(FileError) -> Attributes {
        attributes(try slot(inode))
    }

    /// A directory's parent; the root's is the root. Throws stale or notDirectory.
    package func parent(of inode: InodeID) throws(FileError) -> InodeID {
        InodeID(rawValue: inodes[try directorySlot(inode)].place)
    }

    /// A symlink's target. Throws stale, or invalid for anything else.
    package func readLink(_ inode: InodeID) throws(FileError) -> [UInt8] {
        _ = try slot(inode)
        guard let target = targets[inode] else { throw .invalid }
        return target.target
    }

    /// Names after a cookie (0: from the start), at least one if there is any, at most `limit`
    /// and `Limits.directoryPage`. Throws stale or notDirectory.
    package func readDirectory(
        _ inode: InodeID, after cookie: UInt64, limit: UInt32, withAttributes: Bool
    ) throws(FileError) -> (entries: [DirectoryEntry], atEnd: Bool) {
        let directory = directory(try directorySlot(inode))
        guard cookie < .max else { return ([], true) }
        let limit = max(1, min(Int(limit), Limits.directoryPage))
        var entries: [DirectoryEntry] = []
        for entry in directory.entries.elements(from: cookie + 1) {
            if entries.count == limit { return (entries, false) }
            let attributes = attributes(known(entry))
            entries.append(
                DirectoryEntry(
                    cookie: entry.cookie, name: entry.name, inode: entry.inode,
                    kind: attributes.kind, attributes: withAttributes ? attributes : nil))
        }
        return (entries, true)
    }

    /// Throws stale or noAttribute.
    package func extendedAttribute(
        _ inode: InodeID, _ name: [UInt8]
    ) throws(FileError) -> [UInt8] {
        _ = try slot(inode)
        guard let list = attributeLists[inode] else { throw .noAttribute }
        let (index, isThere) = list.position(name)
        guard isThere else { throw .noAttribute }
        return list.items[index].value
    }

    /// The names, bytewise ascending. Throws stale.
    package func extendedAttributes(_ inode: InodeID) throws(FileError) -> [[UInt8]] {
        _ = try slot(inode)
        return attributeLists[inode]?.items.map(\.name) ?? []
    }

    /// Where chunks `first ..< first + count` of a file are (count at most 4,096), without
    /// `sets`: see `resolve`. Of anything but a file an empty layout. Throws stale.
    package func layout(
        _ inode: InodeID, first: UInt32, count: UInt32
    ) throws(FileError) -> Layout {
        layout(try slot(inode), first: first, count: min(count, layoutBound))
    }

    /// A layout with the views of all sets it names, in ascending order.
    package func resolve(_ layout: Layout, isUp: (DiskRecord) -> Bool) -> Layout {
        var resolved = layout
        resolved.sets = Set(layout.chunks.map(\.set)).sorted().compactMap {
            setView($0, isUp: isUp)
        }
        return resolved
    }

    /// A set with the places of its members; `isUp` is the leader's soft state. Nil if there is
    /// no such set.
    package func setView(_ id: SetID, isUp: (DiskRecord) -> Bool) -> SetView? {
        guard let record = setTable[id] else { return nil }
        let locations = record.configuration.members.map { member in
            guard let disk = disks[member], let server = servers[disk.server] else {
                preconditionFailure("members are registered")
            }
            return DiskLocation(
                disk: member, server: disk.server, address: server.address, isUp: isUp(disk))
        }
        return SetView(
            configuration: record.configuration, locations: locations, number: record.number)
    }

    /// Copies of the tables, each in ascending order of ids.
    package var serverRecords: [ServerRecord] { Array(servers) }
    package var diskRecords: [DiskRecord] { Array(disks) }
    package var setRecords: [SetRecord] { Array(setTable) }
    package var openSets: [SetRecord] { setTable.filter { !$0.isFull } }
    package var sessionViews: [SessionView] {
        sessions.map { SessionView(id: $0.id, label: $0.label, deadline: $0.deadline) }
    }

    /// One record, or nil.
    package func server(_ id: ServerID) -> ServerRecord? { servers[id] }
    package func disk(_ id: DiskID) -> DiskRecord? { disks[id] }
    package func set(_ id: SetID) -> SetRecord? { setTable[id] }
    /// Whether the session is live.
    package func hasSession(_ id: SessionID) -> Bool { sessions.contains(id) }

    /// All sets with a member there, in ascending order; looks at every set.
    package func sets(on disk: DiskID) -> [SetRecord] {
        setTable.filter { $0.configuration.members.contains(disk) }
    }

    /// Unconfirmed drops of the sets that are wanted, by set and order, at most `limit`.
    /// `isWanted` is asked once for each set that has any.
    package func pendingDrops(
        limit: Int, where isWanted: (SetRecord) -> Bool
    ) -> [PendingDrop] {
        var found: [PendingDrop] = []
        var next = dropsBySet.makeIterator()
        while found.count < limit, let first = next.next() {
            guard let set = setTable[first.set], isWanted(set) else {
                next = dropsBySet.elements(
                    from: SetDrop(set: SetID(rawValue: first.set.rawValue + 1), order: 0))
                continue
            }
            let orders = dropsBySet.elements(from: first).lazy.prefix { $0.set == first.set }
            for drop in orders.prefix(limit - found.count) {
                if let drop = dropOrders[drop.order] { found.append(drop) }
            }
            next = dropsBySet.elements(
                from: SetDrop(set: SetID(rawValue: first.set.rawValue + 1), order: 0))
        }
        return found
    }

    /// Unconfirmed cuts of the sets that are wanted, by set, chunk and truncation, at most
    /// `limit`. `isWanted` is asked once for each set that has any.
    package func pendingCuts(
        limit: Int, where isWanted: (SetRecord) -> Bool
    ) -> [PendingCut] {
        var found: [PendingCut] = []
        var next = cutOrders.makeIterator()
        while found.count < limit, let first = next.next() {
            if let set = setTable[first.set], isWanted(set) {
                let cuts = cutOrders.elements(from: first.key).lazy
                found += cuts.prefix { $0.set == first.set }.prefix(limit - found.count)
            }
            let none = ChunkID(inode: InodeID(rawValue: 0), index: 0, version: 0)
            let following = SetID(rawValue: first.set.rawValue + 1)
            next = cutOrders.elements(
                from: PendingCut.Key(set: following, chunk: none, truncation: 0))
        }
        return found
    }

    /// How many chunks wait to be dropped, and how many cuts to be confirmed.
    package var pendingCounts: (drops: Int, cuts: Int) {
        (loose.count + dropOrders.reduce(0) { $0 + $1.chunks.count }, cutOrders.count)
    }

    /// For status and statfs.
    package var counts: NamespaceCounts {
        let directories = UInt64(directories.count - freeDirectories.count)
        return NamespaceCounts(
            files: inodes.count - directories, directories: directories,
            sessions: UInt64(sessions.count),
            fileBytes: UInt64(min(fileBytes, UInt128(UInt64.max))))
    }
}
