// Servers, disks and replica sets: the configuration that chunk servers follow (C1, C10).

package import Base

/// Servers of a cell, and disks of a server, as status messages bound them.
private let serverBound = 4_096
private let diskBound = 64

extension Namespace {
    mutating func register(_ server: ServerRecord, _ reported: [DiskRecord]) -> Outcome {
        guard servers.contains(server.id) || servers.count < serverBound,
            !removed.contains(server.id)
        else { return .conflict }
        guard reported.count <= diskBound, Set(reported.map(\.id)).count == reported.count,
            reported.allSatisfy({ $0.server == server.id && isNews($0) })
        else { return .conflict }
        servers.insert(server)
        for disk in reported { disks.insert(disk) }
        return .done
    }

    /// Whether a report of a disk may follow what is known of it: a run that does not follow the
    /// known one is one of a disk that was rolled back, the same one on another server is a copy of
    /// a disk (S8).
    private func isNews(_ disk: DiskRecord) -> Bool {
        guard let known = disks[disk.id] else { return true }
        return disk.incarnation.follows(known.incarnation)
            || disk.incarnation == known.incarnation && disk.server == known.server
    }

    mutating func createSet(
        _ members: [DiskID], _ primary: DiskID, _ minMembers: UInt8
    ) -> Outcome {
        guard isMemberList(members), members.contains(primary) else { return .conflict }
        lastSet += 1
        let configuration = SetConfiguration(
            set: SetID(rawValue: lastSet), epoch: Epoch.none.next, primary: primary,
            members: members, minMembers: minMembers)
        setTable.insert(
            SetRecord(
                configuration: configuration,
                incarnations: members.compactMap { disks[$0]?.incarnation }, isFull: false,
                chunks: 0))
        return .set(configuration)
    }

    func isMemberList(_ members: [DiskID]) -> Bool {
        !members.isEmpty && members.count <= Limits.members
            && zip(members, members.dropFirst()).allSatisfy { $0 < $1 }
            && members.allSatisfy { disks.contains($0) }
    }

    mutating func changeEpoch(
        _ configuration: SetConfiguration, _ incarnations: [Incarnation]
    ) -> Outcome {
        guard var record = setTable[configuration.set] else { return .conflict }
        let old = record.configuration
        let members = configuration.members
        guard configuration.mayFollow(old), isMemberList(members),
            incarnations.count == members.count,
            // Nobody began it for a run that is over, or that the log does not know yet.
            zip(members, incarnations).allSatisfy({ disks[$0]?.incarnation == $1 })
        else { return .conflict }
        // A copy that was moved has nothing that the one in its place lacks.
        if members.count < old.members.count { record.memberLeft = time }
        record.configuration = configuration
        record.incarnations = incarnations
        setTable.insert(record)
        endMoves(of: configuration)
        return .set(configuration)
    }
}

extension SetConfiguration {
    /// Whether it may come after `old`, whatever the disks are (C1, C2). Too few members for
    /// writing may stay only where one is left, which is filled up again at once; where none is,
    /// and an operator accepts the loss, a disk that was a member before goes on (decision 0020).
    package func mayFollow(_ old: SetConfiguration) -> Bool {
        epoch.rawValue > 0 && epoch.rawValue - 1 == old.epoch.rawValue && set == old.set
            && minMembers == old.minMembers
            && members.contains(primary)
            && (old.members.contains(primary) || acceptsLoss && members == [primary])
            && (members.count >= min(Int(old.minMembers), old.members.count)
                || members == [primary])
            && members.count(where: { !old.members.contains($0) }) <= 1
    }
}
