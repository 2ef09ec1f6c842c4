// The map of the cell: what the leader knows of every set, and what it does about it.

import Base
import Namespace
import Node
import Wire

extension MasterCore {
    /// A page of the map, of the sets after one.
    func map(after set: SetID) -> SetMap {
        let states = (lead?.sets.states ?? []).drop { $0.id <= set }
        let page = states.prefix(Limits.mappedSets)
        let disks = namespace.diskRecords.map(\.id)
        return SetMap(
            sets: page.map { status(of: $0, disks) }, isLast: page.count == states.count)
    }

    private func status(of state: SetState, _ disks: [DiskID]) -> SetStatus {
        let copies = disks.compactMap { disk in
            replica(state.id, disk).map { copy in
                CopyStatus(
                    disk: disk, epoch: copy.epoch, prepared: copy.prepared,
                    stored: copy.stored, chunks: copy.chunks, hasRot: copy.hasRot,
                    wasMember: copy.members.contains(disk))
            }
        }
        let task = state.task.map { task in
            TaskStatus(
                kind: task.kind, from: task.from, to: state.fill ?? task.to,
                percent: filledPercent(state), waits: state.waits)
        }
        return SetStatus(
            configuration: state.record.configuration, isFull: state.record.isFull,
            isServing: state.isServing && !state.isWaiting, isFrozen: state.isFrozen,
            held: state.held, keepsTrash: keepsTrash(state),
            chunks: namespace.set(state.id)?.chunks ?? state.record.chunks, copies: copies,
            task: task)
    }

    /// What operators asked for, and how far copying is.
    var operations: CellOperations {
        let lacking = (lead?.sets.states ?? []).filter { $0.task?.kind == .repair }
        let bytes = lacking.reduce(UInt64(0)) { sum, state in
            let copy = replica(state.id, state.record.configuration.primary)
            let missing = configuration.goal - state.record.configuration.members.count
            let bytes = (copy?.stored ?? 0) * UInt64(max(0, missing))
            return sum + bytes - min(bytes, filledBytes(state))
        }
        return CellOperations(
            draining: namespace.drainingServers, rebalance: namespace.lastRebalance,
            unknownSets: Array((lead?.sets.unknown ?? []).prefix(Limits.reportedSets)),
            repairBytes: bytes, copyRate: lead?.pace.rate ?? 0)
    }
}
