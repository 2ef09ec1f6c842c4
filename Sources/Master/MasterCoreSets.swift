// Replica sets: what state each is in, and its epochs.
//
//   a set                                                    the leader
//   a member restarted, all are up and reported since        proposes the next epoch (C1, C10)
//   its members disagree with the log upwards                leaves it alone (frozen)
//
// Invariants:
//  1. One change of a set is on its way at a time; apply checks it again (C1).
//  2. The new primary is the member without rot with the highest (epoch, prepared).

import Base
import Consensus
import Namespace
import Node
import Wire

/// A set as the leader sees it.
struct SetState: Sendable {
    var record: SetRecord
    /// A member knows a higher epoch than the log: nothing is done with it (C10).
    var isFrozen = false
    /// A change of it is on its way through the log.
    var isChanging = false
    /// All members are up, of the incarnations for which the epoch was made, and it has room.
    var isUsable = false
    /// The primary said that it serves this epoch.
    var isServing = false
    /// A member is down, has restarted, or did not adopt the epoch yet.
    var isWaiting = true

    var id: SetID { record.configuration.set }
}

/// All sets, in ascending order.
struct SetTable: Sendable {
    private(set) var states: [SetState]
    /// How many new sets are on their way through the log.
    var creating = 0
    /// Sets that were reported and that the log does not know.
    var unknown: [SetID] = []

    init(records: [SetRecord]) { states = records.map { SetState(record: $0) } }

    subscript(id: SetID) -> SetState? {
        let index = position(id)
        return index < states.count && states[index].id == id ? states[index] : nil
    }
    mutating func update(_ id: SetID, _ change: (inout SetState) -> Void) {
        let index = position(id)
        if index < states.count, states[index].id == id { change(&states[index]) }
    }
    mutating func update(at index: Int, _ change: (inout SetState) -> Void) {
        change(&states[index])
    }
    /// A set is new, or its record changed.
    mutating func put(_ record: SetRecord) {
        let id = record.configuration.set
        let index = position(id)
        if index < states.count, states[index].id == id {
            states[index].record = record
        } else {
            states.insert(SetState(record: record), at: index)
        }
    }
    private func position(_ id: SetID) -> Int {
        var low = 0
        var high = states.count
        while low < high {
            let middle = (low + high) / 2
            if states[middle].id < id { low = middle + 1 } else { high = middle }
        }
        return low
    }
}

extension MasterCore {
    /// Between two ticks of the log's time.
    private static let tickTime = Interval.seconds(1)

    /// Looks after servers, sets and the log's time.
    mutating func makeRound() {
        lead?.isDirty = false
        watchServers()
        for index in lead?.sets.states.indices ?? 0..<0 { look(at: index) }
        refreshView()
        createSets()
        guard let lead, time.now - lead.lastTick >= Self.tickTime else { return }
        self.lead?.lastTick = time.now
        let counts = namespace.counts
        if counts.sessions > 0 || namespace.pendingCounts.drops > 0 { submit(.tick, for: .tick) }
    }

    private mutating func watchServers() {
        for server in lead?.servers ?? [] {
            let isHeard = server.heard.map { time.now - $0 < Limits.serverSilence } ?? false
            guard isHeard != server.isUp else { continue }
            lead?.update(server.id) { $0.isUp = isHeard }
            report("server \(server.id) is \(isHeard ? "up" : "down")")
        }
    }

    /// Judges one set, and proposes its next epoch where that is due.
    private mutating func look(at index: Int) {
        guard let state = lead?.sets.states[index] else { return }
        let configuration = state.record.configuration
        let disks = configuration.members.compactMap { namespace.disk($0) }
        let isUp = disks.allSatisfy { self.isUp($0) }
        let incarnations = disks.map(\.incarnation)
        let isCurrent = incarnations == state.record.incarnations
        let replicas = configuration.members.compactMap { replica(state.id, $0) }
        let isAdopted =
            replicas.count == disks.count
            && replicas.allSatisfy { $0.epoch == configuration.epoch }
        let isServing = replicas.contains {
            $0.disk == configuration.primary && $0.isServing && $0.epoch == configuration.epoch
        }
        let isFull = namespace.set(state.id)?.isFull ?? true
        lead?.sets.update(at: index) { set in
            set.record.isFull = isFull
            set.isUsable = isUp && isCurrent && !set.isFrozen
            set.isServing = set.isUsable && isServing
            set.isWaiting = !(isUp && isCurrent && isAdopted && isServing)
        }
        guard isUp, !isCurrent, replicas.count == disks.count, !state.isFrozen,
            !state.isChanging
        else { return }
        guard let primary = choosePrimary(replicas, old: configuration.primary) else { return }
        var next = configuration
        next.epoch = configuration.epoch.next
        next.primary = primary
        lead?.sets.update(at: index) { $0.isChanging = true }
        submit(.changeEpoch(next, incarnations: incarnations), for: .changeEpoch(state.id))
    }

    /// The member without rot that has most; the old primary among equals.
    private func choosePrimary(_ replicas: [SetReport], old: DiskID) -> DiskID? {
        let sound = replicas.filter { !$0.hasRot }
        let best = sound.max {
            ($0.epoch, $0.prepared, $0.disk == old ? 1 : 0)
                < ($1.epoch, $1.prepared, $1.disk == old ? 1 : 0)
        }
        return best?.disk
    }

    /// A command about a set was applied.
    mutating func setChanged(_ purpose: Purpose, _ outcome: Outcome) {
        var changed: SetRecord?
        switch (purpose, outcome) {
        case (.createSet, .set(let configuration)), (.changeEpoch, .set(let configuration)):
            changed = namespace.set(configuration.set)
        case (.changeEpoch(let set), _), (.fillSet(let set), _): changed = namespace.set(set)
        default: break
        }
        guard let changed else { return }
        lead?.sets.put(changed)
        for disk in changed.configuration.members {
            if let server = namespace.disk(disk)?.server { lead?.owe(server) }
        }
    }
}
