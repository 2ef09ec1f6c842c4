// Who may lead: ballot leader election after OmniPaxos (M8). Pre-vote and check-quorum in one.
//
//   happy      I lead, or try to, and hear a quorum in both directions; or I hear a happy leader
//              of a ballot that I may obey.
//   take over  unhappy for the jitter, a quorum heard in both directions, and every neighbour
//              that is heard is unhappy too.
//
// Invariants:
//  1. Time decides only when a master tries; safety is the ballots' (S1).
//  2. One that can't hear, or is not heard, raises no ballot.
//  3. Only voters of the configuration count, by their disk (M17, M18); others are just heard.

import Base

/// What a master knows of the others' health.
struct Election: Hashable {
    /// Another master.
    struct Neighbour: Hashable {
        let id: MasterID
        /// When a heartbeat last came.
        var heard: Instant?
        /// When a heartbeat left here of which it is known that it arrived there and the answer
        /// arrived here.
        var twoWay: Instant?
        var last: Heartbeat?
        /// It has a vote if its disk is this one; `.none`: any.
        var isVoter: Bool
        var disk: DiskID
        /// The highest ballot that it said it had promised, and on which disk.
        var told = Ballot.none
        var toldDisk = DiskID.none

        /// Its vote counts, as far as is known.
        var counts: Bool {
            guard isVoter, let last, last.isTrusted else { return false }
            return disk == .none || last.disk == disk
        }
    }

    let id: MasterID
    private(set) var neighbours: [Neighbour]
    /// The highest round in any ballot that was seen.
    private(set) var highestRound: UInt64
    private(set) var isHappy = false
    private var unhappySince: Instant
    private var jitter: Interval
    private var random: SeededRandom
    private var nextBeat: Instant
    private var lastTick: Instant
    /// Until then a stall of this very process is forgiven: what was sent to it still comes.
    private var forgiveUntil: Instant

    init(id: MasterID, round: UInt64, seed: UInt64, now: Instant) {
        self.id = id
        neighbours = []
        highestRound = round
        random = SeededRandom(seed: seed &+ UInt64(id.rawValue))
        jitter = .zero
        unhappySince = now
        nextBeat = now
        lastTick = now
        forgiveUntil = now
    }

    /// These masters are in force; what is known of those who stay is kept.
    mutating func follow(_ membership: Membership) {
        neighbours = membership.members.filter { $0.id != id }.map { member in
            var neighbour =
                neighbours.first { $0.id == member.id }
                ?? Neighbour(id: member.id, isVoter: false, disk: .none)
            neighbour.isVoter = member.isVoter
            neighbour.disk = member.disk
            return neighbour
        }
        othersForQuorum = membership.quorum - 1
        drawJitter()
    }
    /// A master of a configuration that this one does not know: it is heard, without a vote.
    mutating func admit(_ guide: MasterID) {
        guard neighbours.count < Limits.masters * 2 else { return }
        neighbours.append(Neighbour(id: guide, isVoter: false, disk: .none))
    }

    private mutating func drawJitter() {
        jitter = neighbours.isEmpty ? .zero : .milliseconds(Int64(20 + random.below(180)))
    }
    /// How many neighbours make a quorum with this master, if it has a vote.
    private(set) var othersForQuorum = 0

    /// Notes a ballot that was seen anywhere.
    mutating func note(_ ballot: Ballot) { highestRound = max(highestRound, ballot.round) }

    mutating func heard(_ heartbeat: Heartbeat, from: MasterID, now: Instant) {
        guard let index = neighbours.firstIndex(where: { $0.id == from }) else { return }
        note(heartbeat.promised)
        neighbours[index].heard = now
        neighbours[index].last = heartbeat
        if let echo = heartbeat.echo, echo <= now {
            neighbours[index].twoWay = max(neighbours[index].twoWay ?? echo, echo)
        }
    }

    /// Whether a quorum of voters was heard in both directions within `silence`.
    func hasQuorum(within silence: Interval, now: Instant) -> Bool {
        let others = neighbours.filter { neighbour in
            neighbour.counts && neighbour.twoWay.map { now - $0 < silence } ?? false
        }
        return others.count >= othersForQuorum
    }

    /// A master promised, or accepted in, a ballot.
    mutating func told(_ ballot: Ballot, on disk: DiskID, by id: MasterID) {
        guard let index = neighbours.firstIndex(where: { $0.id == id }) else { return }
        let isSame = neighbours[index].toldDisk == disk
        neighbours[index].told = isSame ? max(neighbours[index].told, ballot) : ballot
        neighbours[index].toldDisk = disk
    }

    /// Whether a master was heard in both directions of late.
    func isReached(_ id: MasterID, now: Instant) -> Bool {
        let neighbour = neighbours.first { $0.id == id }
        return neighbour?.twoWay.map { now - $0 < Limits.quorumLoss } ?? false
    }

    /// The neighbour that leads in the highest ballot, not below `promised`, if one is happy.
    func leader(above promised: Ballot, now: Instant) -> MasterID? {
        let candidates = neighbours.filter { neighbour in
            guard let heard = neighbour.heard, let last = neighbour.last else { return false }
            return now - heard < Limits.takeOver && last.isLeading && last.isHappy
                && last.promised >= promised && last.promised.node == neighbour.id
        }
        return candidates.max { $0.last!.promised < $1.last!.promised }?.id
    }

    /// What a tick found.
    struct Verdict {
        var beats = false
        var takesOver = false
    }

    /// Judges health; `isLeading` while this master leads or tries to, `mayLead` if it has a vote
    /// and is well.
    mutating func tick(
        _ state: PromiseState, promised: Ballot, isLeading: Bool, mayLead: Bool, now: Instant
    ) -> Verdict {
        if now - lastTick > Limits.masterHeartbeat * 2 { forgiveUntil = now + Limits.takeOver }
        lastTick = now
        let was = isHappy
        let isHealthy =
            isLeading
            ? hasQuorum(within: Limits.takeOver, now: now)
            : leader(above: promised, now: now) != nil
        isHappy = isHealthy || (was && now < forgiveUntil)
        if was && !isHappy {
            unhappySince = now
            drawJitter()
        }
        var verdict = Verdict()
        verdict.takesOver = !isLeading && mayLead && mayTakeOver(state, now: now)
        verdict.beats = now >= nextBeat || was != isHappy || verdict.takesOver
        if verdict.beats { nextBeat = now + Limits.masterHeartbeat }
        return verdict
    }

    private func mayTakeOver(_ state: PromiseState, now: Instant) -> Bool {
        guard state.isTrusted, !isHappy, hasQuorum(within: Limits.takeOver, now: now) else {
            return false
        }
        var wait = jitter
        for neighbour in neighbours where neighbour.isVoter {
            guard let heard = neighbour.heard, now - heard < Limits.takeOver,
                let last = neighbour.last
            else { continue }
            if last.isHappy { return false }
            // One with more log goes first: it need not fetch what it lacks; all the more if
            // this master can't, because it is in a snapshot only (M16).
            if last.isTrusted, (state.accepted, state.end) < (last.accepted, last.end) {
                wait = max(wait, jitter + Limits.masterHeartbeat)
            }
            let known = state.accepted == last.accepted ? state.end : state.chosen
            if last.isTrusted, last.start > max(known, state.chosen) {
                wait = max(wait, jitter + Limits.masterHeartbeat * 3)
            }
        }
        return now - unhappySince >= wait
    }

    /// A try begins or failed, or the leadership ended: the next one waits a new jitter.
    mutating func restart(now: Instant) {
        isHappy = false
        unhappySince = now
        drawJitter()
        nextBeat = now
    }

    /// Counts a try as happy from its start, so that nobody else tries.
    mutating func startedLeading(now: Instant) {
        isHappy = true
        nextBeat = now
    }

    /// See `PaxosNode.forgetTimes`.
    mutating func forgetTimes() {
        random = SeededRandom(seed: 0)
        (jitter, isHappy) = (.zero, false)
        (unhappySince, nextBeat, lastTick, forgiveUntil) = (.zero, .zero, .zero, .zero)
        for index in neighbours.indices {
            (neighbours[index].told, neighbours[index].toldDisk) = (.none, .none)
        }
    }

    /// When the next tick has something to do. A master without neighbours has nothing.
    var wakeTime: Instant {
        if neighbours.isEmpty { return Instant(nanoseconds: .max) }
        let attempt = unhappySince + jitter
        return isHappy || attempt <= lastTick ? nextBeat : min(nextBeat, attempt)
    }
}
