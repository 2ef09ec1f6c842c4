// Copies that are made: one path for all who ask (C9, C19). The primary fills a disk as a learner
// and says when it may become a member; then it takes the place of the copy that goes, if one
// does, in one new epoch.
//
//   task     a set                                        the disk that is filled
//   repair   has fewer members than the goal              at once one that left and is back with
//                                                         its copy; after `repairDelay`, or if
//                                                         nothing can be written, another
//   drain    has a member on a server that is drained     the best place there is
//   move     an open plan says so                         the plan's
//   (none)   is filled all the same                       is let go, with a new epoch
//
// Invariants:
//  1. Repairs come before drains, drains before moves, sets with the fewest members first; a disk
//     feeds, or is, at most `Limits.fillsPerDisk` learners.
//  2. No task ever leaves a set with fewer members than it found.
//  3. What is filled is soft: a new leader goes on with the learners that primaries report, and
//     chooses the others again.

import Base
import Consensus
import Namespace
import Node
import Placement
import Wire

/// What a set needs; see the table.
struct SetTask: Hashable, Sendable {
    var kind: TaskStatus.Kind
    /// The member that goes.
    var from: DiskID?
    /// Where the plan wants it.
    var to: DiskID?
}

/// How fast copies are made.
struct CopyPace: Hashable, Sendable {
    /// Of the plan that was last carried out.
    var plan: UInt64 = 0
    var since = Instant.zero
    /// Bytes of its moves that were begun since then.
    var begun: UInt64 = 0
    /// When the rate was last taken, and bytes a second over all learners, averaged.
    var measured = Instant.zero
    var rate: UInt64 = 0
}

extension MasterCore {
    /// Looks after the sets that need another copy.
    mutating func repairSets() {
        guard lead != nil else { return }
        let moves = openMoves
        var load: [DiskID: Int] = [:]
        var due: [Int] = []
        for index in lead?.sets.states.indices ?? 0..<0 {
            guard let state = lead?.sets.states[index] else { continue }
            let task = task(of: state, moves)
            note(task, at: index)
            if task != nil || state.fill != nil || learner(of: state) != nil { due.append(index) }
            guard let fill = state.fill else { continue }
            load[fill, default: 0] += 1
            load[state.record.configuration.primary, default: 0] += 1
        }
        measureCopies()
        guard let states = lead?.sets.states else { return }
        let ranked = due.sorted { rank(states[$0], $0) < rank(states[$1], $1) }
        for index in ranked { perform(at: index, &load) }
    }

    private func rank(_ state: SetState, _ index: Int) -> (UInt8, Int, Int) {
        (state.task?.kind.rawValue ?? 0, state.record.configuration.members.count, index)
    }

    /// Moves of the open plan that are still to come, by set.
    private var openMoves: [SetID: ReplicaMove] {
        guard let plan = namespace.lastRebalance, plan.state == .running else { return [:] }
        var moves: [SetID: ReplicaMove] = [:]
        for move in plan.moves where move.state == .waiting { moves[move.set] = move }
        return moves
    }

    private func task(of state: SetState, _ moves: [SetID: ReplicaMove]) -> SetTask? {
        let members = state.record.configuration.members
        if members.count < configuration.goal { return SetTask(kind: .repair) }
        if let from = members.first(where: namespace.isDraining) {
            return SetTask(kind: .drain, from: from)
        }
        guard let move = moves[state.id], members.contains(move.from) else { return nil }
        return SetTask(kind: .move, from: move.from, to: move.to)
    }

    private mutating func note(_ task: SetTask?, at index: Int) {
        let now = time.now
        lead?.sets.update(at: index) { set in
            set.task = task
            if task?.kind != .repair {
                set.lacksSince = nil
            } else if set.lacksSince == nil {
                set.lacksSince = now
            }
            if task == nil {
                set.fill = nil
                set.waits = ""
            }
        }
    }

    /// The learner that the primary of the present epoch reports.
    func learner(of state: SetState) -> LearnerReport? {
        let current = state.record.configuration
        guard let primary = replica(state.id, current.primary), primary.epoch == current.epoch
        else { return nil }
        return primary.learner
    }

    private mutating func perform(at index: Int, _ load: inout [DiskID: Int]) {
        guard let state = lead?.sets.states[index], !state.isChanging else { return }
        let current = state.record.configuration
        if state.isFrozen {
            if !state.held.isEmpty { return wait(index, state.held) }
            return wait(index, "a disk knows a later epoch than the masters: see the log")
        }
        guard let primary = replica(state.id, current.primary), primary.epoch == current.epoch,
            primary.isServing
        else { return wait(index, "its primary, disk \(current.primary), does not serve yet") }
        // One that died before writes waited for it gives way to another.
        if let learner = primary.learner, learner.isCounted || !isGone(learner.disk) {
            return follow(learner, state)
        }
        guard let task = state.task else { return }
        if let fill = state.fill {
            if isUsable(fill), !current.members.contains(fill) { return }
            lead?.sets.update(at: index) { $0.fill = nil }
        }
        switch choose(task, state, load) {
        case .failure(let reason): wait(index, reason.text)
        case .success(let choice):
            load[choice, default: 0] += 1
            load[current.primary, default: 0] += 1
            if task.kind == .move { lead?.pace.begun += primary.stored }
            lead?.sets.update(at: index) { set in
                set.fill = choice
                set.waits = ""
            }
            report("set \(state.id): disk \(choice) is to become a member")
            if let server = namespace.disk(current.primary)?.server { lead?.owe(server) }
        }
    }

    private mutating func wait(_ index: Int, _ reason: String) {
        lead?.sets.update(at: index) { $0.waits = String(reason.prefix(300)) }
    }

    /// The primary fills a disk already.
    private mutating func follow(_ learner: LearnerReport, _ state: SetState) {
        let current = state.record.configuration
        let isWanted =
            !isDelayedBy(learner.disk, current)
            && state.task.map { $0.to == nil || $0.to == learner.disk } ?? false
        guard isWanted, isUsable(learner.disk) else {
            lead?.sets.update(state.id) { $0.fill = nil }
            // Writes wait for it, and only a new epoch ends that (C9).
            if !isWanted || learner.isCounted && isGone(learner.disk) {
                propose(current.members, for: state.record)
            }
            return
        }
        lead?.sets.update(state.id) { set in
            set.fill = learner.disk
            set.waits = ""
        }
        guard learner.isReady, let copy = replica(state.id, learner.disk), !copy.hasRot else {
            return
        }
        let stay = current.members.filter { $0 != state.task?.from }
        propose((stay + [learner.disk]).sorted(), for: state.record)
    }

    /// A learner that counts makes every write wait for it (C21).
    private func isDelayedBy(_ learner: DiskID, _ configuration: SetConfiguration) -> Bool {
        isGray(learner) && slowMembers(of: configuration).contains { $0.disk == learner }
    }

    func isUsable(_ disk: DiskID) -> Bool {
        namespace.disk(disk).map { isUp($0) } ?? false
    }

    /// Why no disk is filled now.
    private struct NoChoice: Error { var text: String }

    private mutating func choose(
        _ task: SetTask, _ state: SetState, _ load: [DiskID: Int]
    ) -> Result<DiskID, NoChoice> {
        guard let view = lead?.view else { return .failure(NoChoice(text: "")) }
        let current = state.record.configuration
        let isFree = { (disk: DiskID) in load[disk, default: 0] < Limits.fillsPerDisk }
        guard isFree(current.primary) else {
            return .failure(NoChoice(text: "its turn: disk \(current.primary) is busy copying"))
        }
        if let to = task.to {
            if let copy = replica(state.id, to), isUnseen(copy) {
                return .failure(NoChoice(text: "disk \(to) has a copy that the masters never knew"))
            }
            return place(to, view, isFree)
        }
        if task.kind == .repair {
            let isEmpty = replica(state.id, current.primary)?.prepared == RecordNumber.none
            let back = namespace.diskRecords.first { disk in
                guard !current.members.contains(disk.id), isUp(disk), isFree(disk.id),
                    view.obstacle(disk.id) == nil, let copy = replica(state.id, disk.id),
                    !isUnseen(copy)
                else { return false }
                return isEmpty || copy.prepared > .none
            }
            if let back { return .success(back.id) }
            let left = (state.lacksSince ?? time.now) + configuration.repairDelay - time.now
            if left > .zero, current.members.count >= Int(current.minMembers) {
                let seconds = left.nanoseconds / 1_000_000_000
                return .failure(NoChoice(text: "\(seconds) s more for the disk that left"))
            }
        }
        let stay = current.members.filter { $0 != task.from }
        let unseen = namespace.diskRecords.map(\.id).filter { disk in
            replica(state.id, disk).map { isUnseen($0) } ?? false
        }
        let pick = PlacementPolicy.chooseLearner(
            beside: stay, goal: configuration.goal, in: view, random: &random,
            isAllowed: { isFree($0) && !current.members.contains($0) && !unseen.contains($0) })
        if let pick { return .success(pick.disk) }
        return .failure(
            NoChoice(text: PlacementPolicy.obstacles(beside: current.members, in: view)))
    }

    /// The place of a plan's move, if it may be used now.
    private mutating func place(
        _ disk: DiskID, _ view: ClusterView, _ isFree: (DiskID) -> Bool
    ) -> Result<DiskID, NoChoice> {
        if let obstacle = view.obstacle(disk) {
            return .failure(NoChoice(text: "disk \(disk) \(obstacle.rawValue)"))
        }
        guard isFree(disk) else {
            return .failure(NoChoice(text: "its turn: disk \(disk) is busy copying"))
        }
        guard let plan = namespace.lastRebalance, mayBegin(plan) else {
            return .failure(NoChoice(text: "its turn: the plan's limit of bytes a second"))
        }
        return .success(disk)
    }

    /// Moves begin as the limit lets them, counted from the plan's start here.
    private mutating func mayBegin(_ plan: Rebalance) -> Bool {
        if lead?.pace.plan != plan.id {
            lead?.pace.plan = plan.id
            lead?.pace.since = time.now
            lead?.pace.begun = 0
        }
        guard plan.bytesPerSecond > 0, let pace = lead?.pace else { return true }
        let elapsed = UInt128((time.now - pace.since).nanoseconds)
        return UInt128(pace.begun) * 1_000_000_000 <= UInt128(plan.bytesPerSecond) * elapsed
    }

    /// Takes the rate of all learners about once a second.
    private mutating func measureCopies() {
        guard let pace = lead?.pace, time.now - pace.measured >= .seconds(1) else { return }
        let elapsed = UInt64((time.now - pace.measured).nanoseconds)
        var copied: UInt64 = 0
        for index in lead?.sets.states.indices ?? 0..<0 {
            guard let state = lead?.sets.states[index] else { continue }
            let filled = filledBytes(state)
            if filled > state.filled { copied += filled - state.filled }
            if filled != state.filled { lead?.sets.update(at: index) { $0.filled = filled } }
        }
        let rate = UInt64(UInt128(copied) * 1_000_000_000 / UInt128(max(1, elapsed)))
        lead?.pace.measured = time.now
        lead?.pace.rate = pace.rate == 0 ? rate : (pace.rate * 3 + rate) / 4
    }

    /// Of the records, how many the learner of a set has; 0 to 100.
    func filledPercent(_ state: SetState) -> UInt8 {
        guard let learner = learner(of: state),
            let primary = replica(state.id, state.record.configuration.primary)
        else { return 0 }
        let all = UInt128(max(1, primary.prepared.rawValue))
        return UInt8(min(100, UInt128(learner.durable.rawValue) * 100 / all))
    }
    /// Of the bytes of a set, how many its learner has.
    func filledBytes(_ state: SetState) -> UInt64 {
        guard let learner = learner(of: state),
            let primary = replica(state.id, state.record.configuration.primary)
        else { return 0 }
        let all = UInt128(max(1, primary.prepared.rawValue))
        let done = min(all, UInt128(learner.durable.rawValue))
        return UInt64(UInt128(primary.stored) * done / all)
    }

    // MARK: Orders

    /// What the primaries on a server are to fill and do not report yet.
    func fillOrders(for server: ServerID) -> [FillOrder] {
        var orders: [FillOrder] = []
        for state in lead?.sets.states ?? [] where orders.count < Limits.reportedSets {
            let current = state.record.configuration
            guard let fill = state.fill, !state.isFrozen, !state.isChanging,
                namespace.disk(current.primary)?.server == server,
                replica(state.id, current.primary)?.learner?.disk != fill,
                let disk = namespace.disk(fill), let home = namespace.server(disk.server)
            else { continue }
            let location = DiskLocation(
                disk: fill, server: disk.server, address: home.address, isUp: isUp(disk))
            orders.append(FillOrder(set: state.id, epoch: current.epoch, learner: location))
        }
        return orders
    }

    /// Copies on a server that no set needs: the log has the set's epoch without the disk, and
    /// every member serves it (C14, S6). One that left by a failure stays in the trash for a while.
    func discardOrders(for server: ServerID) -> [SetConfiguration] {
        let disks = lead?.server(server)?.disks ?? []
        var orders: [SetConfiguration] = []
        for state in lead?.sets.states ?? [] where orders.count < Limits.reportedSets {
            let current = state.record.configuration
            guard current.members.count >= configuration.goal, state.isServing,
                !state.isWaiting, !state.isFrozen, !state.isChanging,
                !current.members.contains(where: { replica(state.id, $0)?.hasRot == true })
            else { continue }
            let isInTrash = keepsTrash(state)
            let isInTheWay = disks.contains { disk in
                let id = disk.disk
                guard !current.members.contains(id), state.fill != id,
                    learner(of: state)?.disk != id, let copy = replica(state.id, id)
                else { return false }
                return copy.epoch < current.epoch && !isUnseen(copy)
                    && (copy.stored > 0 || copy.prepared > .none)
                    && (!isInTrash || isCrowded(disk))
            }
            if isInTheWay { orders.append(current) }
        }
        return orders
    }

    /// A member left it by a failure, a short time ago.
    func keepsTrash(_ state: SetState) -> Bool {
        let left = state.record.memberLeft
        return left > .zero && logTime - left < configuration.trashTime
    }

    /// Its trash is better emptied.
    private func isCrowded(_ disk: DiskReport) -> Bool {
        UInt128(disk.used) * 100 > UInt128(disk.capacity) * UInt128(Limits.trashPressure)
    }
}
