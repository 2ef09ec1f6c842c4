// Sets that lack members get new ones (C9, C19): the primary fills a disk as a learner, and says
// when it may become a member.
//
//   a disk that left and is back, with its copy     is filled at once: it lacks little
//   any other disk                                  after `repairDelay`
//
// Invariants:
//  1. Sets with the fewest members come first; a disk feeds, or is, at most
//     `Limits.fillsPerDisk` learners.
//  2. What is filled is soft: a new leader goes on with the learners that primaries report, and
//     chooses the others again.

import Base
import Consensus
import Namespace
import Node
import Placement
import Wire

extension MasterCore {
    /// Looks after the sets with fewer members than the goal.
    mutating func repairSets() {
        guard let states = lead?.sets.states else { return }
        var load: [DiskID: Int] = [:]
        for state in states {
            guard let fill = state.fill else { continue }
            load[fill, default: 0] += 1
            load[state.record.configuration.primary, default: 0] += 1
        }
        let indices = states.indices.filter { index in
            let state = states[index]
            return state.fill != nil || state.lacksSince != nil
                || state.record.configuration.members.count < configuration.goal
        }
        let ranked = indices.sorted {
            let (left, right) = (states[$0].record, states[$1].record)
            return (left.configuration.members.count, $0) < (right.configuration.members.count, $1)
        }
        for index in ranked { repair(at: index, &load) }
    }

    private mutating func repair(at index: Int, _ load: inout [DiskID: Int]) {
        guard let state = lead?.sets.states[index], !state.isFrozen else { return }
        let current = state.record.configuration
        let isWhole = current.members.count >= configuration.goal
        let now = time.now
        lead?.sets.update(at: index) { set in
            if isWhole {
                set.lacksSince = nil
                set.fill = nil
            } else if set.lacksSince == nil {
                set.lacksSince = now
            }
        }
        guard !isWhole, !state.isChanging, let primary = replica(state.id, current.primary),
            primary.epoch == current.epoch, primary.isServing
        else { return }
        if let learner = primary.learner { return follow(learner, state) }
        if let fill = state.fill {
            if isUsable(fill) { return }
            lead?.sets.update(at: index) { $0.fill = nil }
        }
        guard let choice = chooseLearner(state, load) else { return }
        load[choice, default: 0] += 1
        load[current.primary, default: 0] += 1
        lead?.sets.update(at: index) { $0.fill = choice }
        report("set \(state.id): disk \(choice) is to become a member")
        if let server = namespace.disk(current.primary)?.server { lead?.owe(server) }
    }

    /// The primary fills a disk already.
    private mutating func follow(_ learner: LearnerReport, _ state: SetState) {
        let current = state.record.configuration
        guard isUsable(learner.disk) else {
            lead?.sets.update(state.id) { $0.fill = nil }
            // Writes wait for it, and only a new epoch ends that (C9).
            if learner.isCounted, isGone(learner.disk) {
                propose(current.members, for: state.record)
            }
            return
        }
        lead?.sets.update(state.id) { $0.fill = learner.disk }
        guard learner.isReady, let copy = replica(state.id, learner.disk), !copy.hasRot else {
            return
        }
        propose((current.members + [learner.disk]).sorted(), for: state.record)
    }

    private func isUsable(_ disk: DiskID) -> Bool {
        namespace.disk(disk).map { isUp($0) } ?? false
    }

    /// A disk that has a copy, or after a while the best place there is.
    private mutating func chooseLearner(
        _ state: SetState, _ load: [DiskID: Int]
    ) -> DiskID? {
        guard let view = lead?.view else { return nil }
        let current = state.record.configuration
        let isFree = { (disk: DiskID) in load[disk, default: 0] < Limits.fillsPerDisk }
        guard isFree(current.primary) else { return nil }
        let back = namespace.diskRecords.first { disk in
            !current.members.contains(disk.id) && isUp(disk) && isFree(disk.id)
                && replica(state.id, disk.id) != nil && view.obstacle(disk.id) == nil
        }
        if let back { return back.id }
        guard let since = state.lacksSince, time.now - since >= configuration.repairDelay else {
            return nil
        }
        let pick = PlacementPolicy.chooseLearner(
            beside: current.members, goal: configuration.goal, in: view, random: &random,
            isAllowed: isFree)
        return pick?.disk
    }

    /// What the primaries on a server are to fill and do not report yet.
    func fillOrders(for server: ServerID) -> [FillOrder] {
        var orders: [FillOrder] = []
        for state in lead?.sets.states ?? [] {
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
        return Array(orders.prefix(4_096))
    }
}
