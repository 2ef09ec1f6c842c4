// Where new data goes. Two random choices and the better one of them: almost as even as always
// taking the best, without everybody taking the same one between two reports.
//
// Invariants:
//  1. Nothing is placed on a disk with an obstacle: down, failed, gray, or over 95 % full.
//  2. No disk is twice in a set. Two members share a server (disks of one process) only where the
//     cell has no other server, or where there would be fewer than min(goal, 2) members without
//     it; they share a host or a rack only where no usable disk of another one is left.
//  3. A disk that is much slower than most gets something only where the others can't take it.

package import Base

/// The rules of placement; it has no state.
package enum PlacementPolicy {
    /// Fewer members than this are never enough for a new set.
    package static func minimum(goal: Int) -> Int { min(goal, 2) }

    typealias Candidate = (disk: ClusterView.Disk, server: ClusterView.Server)

    /// Members of a new set, `goal` of them (1 to `Limits.members`) or as many as there are
    /// places for, and its primary; nil if that is fewer than `minimum`.
    package static func chooseMembers(
        goal: Int, in view: ClusterView, random: inout SeededRandom
    ) -> MemberChoice? {
        precondition((1...Limits.members).contains(goal), "goal out of range")
        var left = candidates(in: view) { _ in true }
        var chosen: [Candidate] = []
        var picks: [MemberReason.Pick] = []
        while chosen.count < goal,
            let (index, pick) = next(left, chosen, goal: goal, in: view, &random)
        {
            picks.append(pick)
            chosen.append(left.remove(at: index))
        }
        guard chosen.count >= minimum(goal: goal) else { return nil }
        let primary = choosePrimary(chosen.map(\.disk), view)
        return MemberChoice(
            members: chosen.map(\.disk.id).sorted(), primary: primary.disk,
            reason: MemberReason(goal: goal, picks: picks, primaries: primary.count))
    }

    /// One more member for a set, of the disks that `isAllowed` lets pass; nil if there is no
    /// place. Members that the view does not know separate nothing.
    package static func chooseLearner(
        beside members: [DiskID], goal: Int, in view: ClusterView, random: inout SeededRandom,
        isAllowed: (DiskID) -> Bool
    ) -> MemberReason.Pick? {
        let chosen: [Candidate] = members.compactMap { member in
            view.disk(member).flatMap { disk in view.server(disk.server).map { (disk, $0) } }
        }
        let left = candidates(in: view) { isAllowed($0) && !members.contains($0) }
        return next(left, chosen, goal: goal, in: view, &random)?.pick
    }

    /// Why no disk can be one more member, a word for each that is none yet.
    package static func obstacles(beside members: [DiskID], in view: ClusterView) -> String {
        let others = view.disks.filter { !members.contains($0.id) }
        if others.isEmpty { return "another disk: the cell has no more" }
        let reasons = others.prefix(8).map { disk in
            let obstacle = view.obstacle(disk.id)
            return "disk \(disk.id) \(obstacle?.rawValue ?? "is busy or beside a copy")"
        }
        return "a place: " + reasons.joined(separator: ", ")
    }

    private static func candidates(
        in view: ClusterView, _ isAllowed: (DiskID) -> Bool
    ) -> [Candidate] {
        view.disks.compactMap { disk in
            guard let server = view.server(disk.server), view.obstacle(disk, server) == nil,
                isAllowed(disk.id)
            else { return nil }
            return (disk, server)
        }
    }

    /// The better of two draws among those that are best separated from the chosen ones.
    private static func next(
        _ left: [Candidate], _ chosen: [Candidate], goal: Int, in view: ClusterView,
        _ random: inout SeededRandom
    ) -> (index: Int, pick: MemberReason.Pick)? {
        let separations = left.map { separation($0, chosen) }
        guard let best = separations.max() else { return nil }
        if best == .otherDisk, chosen.count >= minimum(goal: goal),
            hasOtherServer(view, chosen)
        {
            return nil
        }
        let apart = left.indices.filter { separations[$0] == best }
        let quick = apart.filter { left[$0].disk.delayClass <= view.slowestUsual }
        let indices = quick.isEmpty ? apart : quick
        let first = draw(left, indices, &random)
        let second = draw(left, indices, &random)
        let costs = [first, second].map { index in
            cost(left[index].disk.usedPercent, left[index].disk.loadClass)
        }
        let index = costs[1] < costs[0] ? second : first
        let other = index == first ? second : first
        let disk = left[index].disk
        let pick = MemberReason.Pick(
            disk: disk.id, separation: best, candidates: indices.count,
            usedPercent: disk.usedPercent, loadClass: disk.loadClass,
            preferredTo: other == index ? nil : left[other].disk.id)
        return (index, pick)
    }

    static func separation(
        _ candidate: Candidate, _ chosen: [Candidate]
    ) -> Separation {
        let server = candidate.server
        // The first member is as far from all others as the cell can tell.
        var separation = server.rack.isEmpty ? Separation.otherHost : .otherRack
        for other in chosen.map(\.server) {
            if server.id.unit == other.id.unit { return .otherDisk }
            if server.host == other.host {
                separation = .otherServer
            } else if server.rack == other.rack {
                separation = min(separation, .otherHost)
            }
        }
        return separation
    }

    /// Whether the cell has a server without a member, even one that is down or full just now.
    private static func hasOtherServer(_ view: ClusterView, _ chosen: [Candidate]) -> Bool {
        view.servers.contains { server in
            !chosen.contains { $0.server.id.unit == server.id.unit }
        }
    }

    /// One of the candidates, each in proportion to its free space: so that unequal disks
    /// become full at the same time.
    private static func draw(
        _ candidates: [Candidate], _ indices: [Int], _ random: inout SeededRandom
    ) -> Int {
        // In pages: capacities of all disks together stay far below 2^63.
        func weight(_ index: Int) -> UInt64 {
            candidates[index].disk.free / UInt64(Limits.page) + 1
        }
        let total = indices.reduce(0) { $0 + weight($1) }
        var rest = UInt64.random(in: 0..<total, using: &random)
        for index in indices {
            if rest < weight(index) { return index }
            rest -= weight(index)
        }
        preconditionFailure("the draw is below the sum of the weights")
    }

    /// Twice the load counts as much as 5 points of fullness: large disks may be busier than
    /// small ones, and a disk that is much busier than all others is left alone.
    private static func cost(_ usedPercent: Int, _ loadClass: Int) -> Int {
        usedPercent + 5 * loadClass
    }

    /// The member that is primary of the fewest open sets; of several the least loaded one.
    private static func choosePrimary(
        _ members: [ClusterView.Disk], _ view: ClusterView
    ) -> (disk: DiskID, count: Int) {
        let counted = members.map { disk in
            (disk: disk, count: view.sets.count { $0.primary == disk.id })
        }
        let least = counted.min {
            ($0.count, $0.disk.recentBytes) < ($1.count, $1.disk.recentBytes)
        }
        guard let least else { preconditionFailure("a set has members") }
        return (least.disk.id, least.count)
    }

    /// The set of a new chunk: an open one with room, of whose members none has an obstacle,
    /// with `goal` members unless all such sets are smaller; nil if there is none.
    package static func chooseSet(
        for goal: Int, in view: ClusterView, random: inout SeededRandom
    ) -> SetChoice? {
        guard !view.sets.isEmpty else { return nil }
        var found: [SetReason] = []
        // A few draws are enough where most sets are well: no look at thousands of them.
        for _ in 0..<8 where found.count < 2 {
            let set = view.sets[random.below(view.sets.count)]
            if set.members.count >= goal, let reason = assess(set, goal, view), !reason.isSlow {
                found.append(reason)
            }
        }
        if found.isEmpty {
            let usable = view.sets.compactMap { assess($0, goal, view) }
            let most = usable.map { min($0.members, goal) }.max() ?? 0
            let whole = usable.filter { $0.members >= most }
            let quick = whole.filter { !$0.isSlow }
            let largest = quick.isEmpty ? whole : quick
            guard !largest.isEmpty else { return nil }
            found = (0..<2).map { _ in largest[random.below(largest.count)] }
        }
        guard var best = found.first, let other = found.last else { return nil }
        if cost(other.usedPercent, other.loadClass) < cost(best.usedPercent, best.loadClass) {
            best = other
        }
        let rejected = best.set == other.set ? found[0].set : other.set
        best.preferredTo = rejected == best.set ? nil : rejected
        return SetChoice(set: best.set, reason: best)
    }

    /// What the set looks like to a new chunk; nil if it can't take one.
    private static func assess(
        _ set: ClusterView.OpenSet, _ goal: Int, _ view: ClusterView
    ) -> SetReason? {
        guard set.stored < Limits.setStored, !set.members.isEmpty else { return nil }
        var reason = SetReason(
            set: set.set, members: set.members.count, goal: goal, usedPercent: 0,
            loadClass: UInt64.bitWidth - (set.recentBytes >> 20).leadingZeroBitCount)
        for member in set.members {
            guard let disk = view.disk(member), let server = view.server(disk.server),
                view.obstacle(disk, server) == nil
            else { return nil }
            reason.usedPercent = max(reason.usedPercent, disk.usedPercent)
            reason.loadClass = max(reason.loadClass, disk.loadClass)
            if disk.delayClass > view.slowestUsual { reason.isSlow = true }
        }
        return reason
    }
}
