// What the leader tells about the cell: `martlet status` and statfs.

import Base
import Consensus
import Namespace
import Node
import Wire

extension MasterCore {
    /// Capacity and free space as one copy sees them.
    var statistics: CellStatistics {
        var capacity: UInt64 = 0
        var free: UInt64 = 0
        for disk in lead?.servers.filter(\.isUp).flatMap(counted) ?? [] where !disk.hasFailed {
            let usable = disk.capacity / 100 * UInt64(100 - Limits.reservePercent)
            capacity += usable
            free += usable > disk.used ? usable - disk.used : 0
        }
        let copies = UInt64(configuration.goal)
        let counts = namespace.counts
        return CellStatistics(
            capacity: capacity / copies, free: free / copies,
            files: counts.files + counts.directories)
    }

    /// Everything that the leader knows of the cell.
    var status: CellStatus {
        let counts = namespace.counts
        return CellStatus(
            cell: configuration.cell, goal: UInt8(configuration.goal),
            configuration: masters.membership.number, round: paxos?.promised.round ?? 0,
            chosen: paxos?.chosen ?? .none,
            applied: paxos?.delivered ?? .none, masters: masterStatus, servers: serverStatus,
            sets: setCounts, files: counts.files, directories: counts.directories,
            sessions: counts.sessions, fileBytes: counts.fileBytes)
    }

    private var masterStatus: [MasterStatus] {
        let peers = paxos?.peers(now: time.now) ?? []
        return masters.membership.members.map { master in
            let peer = peers.first { $0.id == master.id }
            let isSelf = master.id == configuration.id
            return MasterStatus(
                id: master.id, address: master.address, isLeader: isSelf && lead != nil,
                isUp: isSelf || peer?.isUp ?? false,
                hasRot: isSelf ? isDamaged : peer?.hasRot ?? false, isVoter: master.isVoter,
                isStranger: isSelf ? false : peer?.isStranger ?? false,
                durable: isSelf ? paxos?.durable ?? .none : peer?.durable ?? .none,
                chosen: (isSelf ? paxos?.chosen : peer?.chosen) ?? .none,
                snapshot: (isSelf ? snapshots : peer?.snapshots ?? []).first?.slot ?? .none,
                firstKept: (isSelf ? paxos?.start : peer?.start)?.next ?? .none,
                connections: isSelf ? connections : nil)
        }
    }

    private var serverStatus: [ServerStatus] {
        namespace.serverRecords.map { record in
            let state = lead?.server(record.id)
            return ServerStatus(
                id: record.id, name: record.name, rack: record.rack, address: record.address,
                isUp: state?.isUp ?? false, isRefused: isRefused(state),
                disks: disks(of: record.id, state), lost: lostDisks(of: record.id),
                connections: state?.connections ?? ConnectionCounts())
        }
    }

    /// As last reported; of a server that this leader never heard, what the log knows.
    private func disks(of server: ServerID, _ state: ServerState?) -> [DiskReport] {
        if let state, state.heard != nil { return counted(state) }
        return namespace.diskRecords.filter { $0.server == server }.map { record in
            DiskReport(
                disk: record.id, incarnation: record.incarnation, capacity: record.capacity,
                used: 0, stored: 0, logical: 0, recentBytes: 0, hasFailed: false)
        }
    }

    private var setCounts: SetCounts {
        var counts = SetCounts(total: 0, healthy: 0, waiting: 0, underReplicated: 0)
        for state in lead?.sets.states ?? [] {
            let isShort = state.record.configuration.members.count < configuration.goal
            counts.total += 1
            counts.waiting += state.isWaiting ? 1 : 0
            counts.healthy += state.isWaiting || isShort ? 0 : 1
            counts.underReplicated += isShort ? 1 : 0
        }
        return counts
    }
}
