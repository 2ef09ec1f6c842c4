// Replica sets: what state each is in, and its epochs.
//
//   a set                                                    the leader
//   a member restarted, all are up and reported since        proposes the next epoch (C1, C10)
//   a member is down, or silent for its primary, or gray     proposes one without it (C7, C21)
//   and slow, and enough others are up
//   all members but one are down for `repairDelay`, and      proposes one of that member alone,
//   there is another disk                                    and has it filled at once
//   it lacks members                                         has one filled (MasterCoreRepair)
//   its learner is ready                                     proposes an epoch with it (C9)
//   its members disagree with the log upwards                leaves it alone (frozen)
//   it is of a loaded state                                  see MasterCoreLoad
//
// Invariants:
//  1. One change of a set is on its way at a time; apply checks it again (C1).
//  2. The primary stays while it is up, sound and the same run; else the next is the member
//     without rot with the highest (epoch, prepared).
//  3. A set does not shrink below `minMembers` where waiting helps: nothing would be written to
//     it anyway, and every copy that is away keeps its place (C2). Only a last survivor goes on
//     alone (decision 0010).

import Base
import Consensus
import Namespace
import Node
import Placement
import Wire

/// A set as the leader sees it.
struct SetState: Sendable {
    var record: SetRecord
    /// A member knows a higher epoch than the log: nothing is done with it (C10).
    var isFrozen = false
    /// It is as a dump says, and does not go on yet: why. Empty: it does.
    var held = ""
    /// A change of it is on its way through the log.
    var isChanging = false
    /// All members are up, of the incarnations for which the epoch was made, and it has room.
    var isUsable = false
    /// The primary said that it serves this epoch.
    var isServing = false
    /// A member is down, has restarted, or did not adopt the epoch yet.
    var isWaiting = true
    /// It has fewer members than the goal since then.
    var lacksSince: Instant?
    /// One member is up and too few others are there for writing, since then.
    var aloneSince: Instant?
    /// The last copy is damaged, and that was told: only an operator can go on (decision 0020).
    var needsOperator = false
    /// What it needs, and the disk that its primary is to fill for it.
    var task: SetTask?
    var fill: DiskID?
    /// Why nothing is filled although it should be.
    var waits = ""
    /// Bytes that its learner had when the rate was last taken.
    var filled: UInt64 = 0

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
        watchDisks()
        watchDelays()
        watchLostDisks()
        watchWornDisks()
        for index in lead?.sets.states.indices ?? 0..<0 { look(at: index) }
        refreshView()
        repairSets()
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
        guard !hold(at: index), let state = lead?.sets.states[index] else { return }
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
        guard !state.isFrozen, !state.isChanging else { return }
        let survivor = survivor(of: configuration)
        let aloneSince = survivor.map { _ in state.aloneSince ?? time.now }
        let needsOperator = state.needsOperator && survivor != nil
        lead?.sets.update(at: index) { set in
            set.aloneSince = aloneSince
            set.needsOperator = needsOperator
        }
        if let left = membersLeft(of: configuration) {
            propose(left, for: state.record)
        } else if let survivor, let aloneSince,
            time.now - aloneSince >= self.configuration.repairDelay,
            hasPlace(beside: configuration.members)
        {
            let isDamaged = replica(state.id, survivor)?.hasRot ?? false
            if !isDamaged || !needsOperator {
                report(
                    "set \(state.id): only disk \(survivor) is left of its members"
                        + (isDamaged
                            ? ", and it is damaged: start the others, or, if they are lost, "
                                + "martlet set accept-loss \(state.id)" : ""),
                    isAlarm: true)
            }
            lead?.sets.update(at: index) { $0.needsOperator = isDamaged }
            propose([survivor], for: state.record)
        } else if isUp,
            !isCurrent
                || configuration.acceptsLoss && isServing && isAdopted
                    && isLossOver(of: configuration, replicas)
        {
            propose(configuration.members, for: state.record)
        }
    }

    /// The members without those that must go (C7); nil if none must, or too few would stay.
    private func membersLeft(of configuration: SetConfiguration) -> [DiskID]? {
        let primary = replica(configuration.set, configuration.primary)
        let silent = primary?.epoch == configuration.epoch ? primary?.silent ?? [] : []
        let there = configuration.members.filter { !isGone($0) && !silent.contains($0) }
        let left = withoutGray(there, of: configuration)
        guard left.count < configuration.members.count,
            left.count >= Int(configuration.minMembers)
        else { return nil }
        return left
    }

    /// The member that is up while all others are down, if it is too few for writing. It has
    /// everything acknowledged, as every member has (C5).
    private func survivor(of configuration: SetConfiguration) -> DiskID? {
        let there = configuration.members.filter { !isGone($0) }
        guard there.count == 1, configuration.members.count > 1, configuration.minMembers > 1,
            let disk = namespace.disk(there[0]), isUp(disk)
        else { return nil }
        return disk.id
    }

    /// Whether some other disk could be filled.
    private func hasPlace(beside members: [DiskID]) -> Bool {
        lead?.view.disks.contains { disk in
            !members.contains(disk.id) && lead?.view.obstacle(disk.id) == nil
        } ?? false
    }

    /// It is down for so long that it leaves its sets.
    func isGone(_ disk: DiskID) -> Bool {
        lead?.downSince[disk].map { time.now - $0 >= Limits.eviction } ?? false
    }

    /// Notes which disks are down. A leader that never heard of a server gives it more time.
    private mutating func watchDisks() {
        guard let lead else { return }
        for disk in namespace.diskRecords {
            let isKnown = lead.server(disk.server)?.heard != nil
            let isPatient = !isKnown && time.now - lead.since < Limits.evictionGrace
            if isUp(disk) || isPatient {
                self.lead?.downSince[disk.id] = nil
            } else if lead.downSince[disk.id] == nil {
                self.lead?.downSince[disk.id] = time.now
            }
        }
    }

    /// Proposes the next epoch; every member must have reported since its start.
    mutating func propose(_ members: [DiskID], for record: SetRecord) {
        let old = record.configuration
        let incarnations = members.compactMap { namespace.disk($0)?.incarnation }
        let present = members.compactMap { replica(old.set, $0) }
        guard incarnations.count == members.count, present.count == members.count else { return }
        let run = zip(old.members, record.incarnations).first { $0.0 == old.primary }?.1
        let isSameRun = run == namespace.disk(old.primary)?.incarnation
        // An operator spoke of what is damaged on these members, and of no others.
        let acceptsLoss =
            old.acceptsLoss && members == old.members && !isLossOver(of: old, present)
        let fit = acceptsLoss ? present : present.filter { !$0.hasRot }
        let stays = fit.contains { $0.disk == old.primary } && isSameRun
        let candidates = fit.filter { old.members.contains($0.disk) }
        guard let primary = stays ? old.primary : choosePrimary(candidates, old: old.primary)
        else { return }
        var next = old
        next.acceptsLoss = acceptsLoss
        next.epoch = old.epoch.next
        next.members = members
        next.primary = primary
        lead?.sets.update(old.set) { $0.isChanging = true }
        submit(.changeEpoch(next, incarnations: incarnations), for: .changeEpoch(old.set))
    }

    /// Nothing of a set is damaged any more, and it is not copied anywhere, which might find more.
    private func isLossOver(of set: SetConfiguration, _ present: [SetReport]) -> Bool {
        set.members.count >= configuration.goal && present.allSatisfy { !$0.hasRot }
    }

    /// The one that has most; the old primary among equals.
    func choosePrimary(_ replicas: [SetReport], old: DiskID) -> DiskID? {
        let best = replicas.max {
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
