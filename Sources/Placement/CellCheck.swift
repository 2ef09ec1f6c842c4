// What is wrong with the copies of a cell: the masters' word against that of the chunk servers.
// The rules behind `martlet fsck`; it changes nothing.

package import Base

/// A set as the masters and the disks know it.
package struct CheckedSet: Hashable, Sendable {
    /// What a disk has of it.
    package struct Copy: Hashable, Sendable {
        package var disk: DiskID
        package var epoch: Epoch
        /// It has records.
        package var hasContent: Bool
        package var hasRot: Bool

        /// All fields at once.
        package init(disk: DiskID, epoch: Epoch, hasContent: Bool, hasRot: Bool) {
            self.disk = disk
            self.epoch = epoch
            self.hasContent = hasContent
            self.hasRot = hasRot
        }
    }
    package var configuration: SetConfiguration
    /// Chunks of files that are placed in it.
    package var chunks: UInt32
    package var copies: [Copy]
    /// A disk that is being filled.
    package var learner: DiskID?
    /// Copies of a disk that is no member are kept for a while.
    package var keepsTrash: Bool

    /// All fields at once.
    package init(
        configuration: SetConfiguration, chunks: UInt32, copies: [Copy], learner: DiskID? = nil,
        keepsTrash: Bool = false
    ) {
        self.configuration = configuration
        self.chunks = chunks
        self.copies = copies
        self.learner = learner
        self.keepsTrash = keepsTrash
    }

    /// Copies with content of disks that are no members and are not being filled.
    package var strays: [Copy] {
        copies.filter {
            !configuration.members.contains($0.disk) && $0.disk != learner && $0.hasContent
        }
    }
}

/// Something that is not as it should be.
package struct CheckFinding: Hashable, Sendable {
    /// What it is; the worst first.
    package enum Kind: String, Hashable, Sendable, CaseIterable {
        /// No server that is up has a copy: its chunks can't be read.
        case missing
        /// A disk knows a later epoch than the masters: the masters have lost state (C10).
        case newer
        /// Disks have a set that the masters don't know: kept (S6).
        case unknown
        /// A member's server is up and has no copy.
        case absent
        /// A member's records are damaged.
        case damaged
        /// A member is in an older epoch.
        case stale
        /// A member's server is down.
        case unavailable
        /// Fewer members than the goal.
        case under
        /// More members than the goal.
        case over
        /// Members share a server, a host or a rack although another is free.
        case misplaced
        /// A disk that is no member has a copy, and it is not kept as trash.
        case orphan
    }
    package var kind: Kind
    package var set: SetID
    /// The disk that it is about, if it is about one.
    package var disk: DiskID?
    /// Of `misplaced`: where it could go.
    package var better: DiskID?

    /// All fields at once.
    package init(_ kind: Kind, _ set: SetID, _ disk: DiskID? = nil, better: DiskID? = nil) {
        self.kind = kind
        self.set = set
        self.disk = disk
        self.better = better
    }
}

/// The check; see the head of this file.
package enum CellCheck {
    /// Everything that is wrong, by kind, set and disk.
    package static func findings(
        _ sets: [CheckedSet], goal: Int, unknown: [SetID], in view: ClusterView
    ) -> [CheckFinding] {
        var all = unknown.map { CheckFinding(.unknown, $0) }
        for set in sets { all += findings(set, goal, view) }
        let ranks = CheckFinding.Kind.allCases
        return all.sorted {
            (ranks.firstIndex(of: $0.kind) ?? 0, $0.set, $0.disk ?? DiskID(rawValue: 0))
                < (ranks.firstIndex(of: $1.kind) ?? 0, $1.set, $1.disk ?? DiskID(rawValue: 0))
        }
    }

    private static func findings(
        _ set: CheckedSet, _ goal: Int, _ view: ClusterView
    ) -> [CheckFinding] {
        let current = set.configuration
        let members = current.members
        var found: [CheckFinding] = []
        func add(_ kind: CheckFinding.Kind, _ disk: DiskID? = nil) {
            found.append(CheckFinding(kind, current.set, disk))
        }
        func isUp(_ disk: DiskID) -> Bool {
            view.disk(disk).flatMap { view.server($0.server) }?.isUp ?? false
        }
        if !members.contains(where: { member in
            isUp(member) && set.copies.contains { $0.disk == member }
        }) {
            add(.missing)
        }
        for member in members {
            guard isUp(member) else {
                add(.unavailable, member)
                continue
            }
            guard let copy = set.copies.first(where: { $0.disk == member }) else {
                add(.absent, member)
                continue
            }
            if copy.epoch < current.epoch { add(.stale, member) }
            if copy.hasRot { add(.damaged, member) }
        }
        for copy in set.copies {
            if copy.epoch > current.epoch { add(.newer, copy.disk) }
        }
        if !set.keepsTrash {
            // Of a server that is down nothing can be emptied, and nothing waits for it.
            for copy in set.strays where isUp(copy.disk) { add(.orphan, copy.disk) }
        }
        if members.count < goal { add(.under) }
        if members.count > goal { add(.over) }
        if let (disk, better) = misplaced(members, view) {
            found.append(CheckFinding(.misplaced, current.set, disk, better: better))
        }
        return found
    }

    /// A member that shares its server, host or rack with another, and a disk that would not.
    private static func misplaced(
        _ members: [DiskID], _ view: ClusterView
    ) -> (DiskID, DiskID)? {
        func place(_ disk: DiskID) -> ClusterView.Server? {
            view.disk(disk).flatMap { view.server($0.server) }
        }
        let homes = members.compactMap { disk in place(disk).map { (disk, $0) } }
        for domain in [\ClusterView.Server.unit, \.host, \.rack] {
            let names = homes.map { $0.1[keyPath: domain] }
            for (index, home) in homes.enumerated().reversed()
            where !names[index].isEmpty && names[..<index].contains(names[index]) {
                let better = view.disks.first { disk in
                    guard !members.contains(disk.id), view.obstacle(disk.id) == nil,
                        let server = view.server(disk.server)
                    else { return false }
                    let others = homes.filter { $0.0 != home.0 }.map(\.1)
                    return !names.contains(server[keyPath: domain])
                        && !server[keyPath: domain].isEmpty
                        && (domain == \.unit || !others.contains { $0.host == server.host })
                }
                if let better { return (home.0, better.id) }
            }
        }
        return nil
    }
}
