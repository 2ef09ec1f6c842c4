// Who the masters are, for one of them (M17, M18).
//
//   event                                  what follows
//   an order, and it leads                 proposes other masters, or a hand-over; or refuses
//   a learner is in step (leader)          proposes the stop entry that gives it a vote
//   disks of voters were unknown (leader)  proposes the stop entry that names them
//   a voter follows on another disk, for   proposes the stop entry that names that one
//   some time (leader)
//   entry of masters, same number          learners come or go
//   stop entry, and it is a voter          acts in the new configuration; who led before tries
//                                          to lead there at once
//   stop entry without it                  leads no more; tells the others what it knows
//   `removed`, by one who knows more       as well; does not vote any more
//
// Invariant: only a stop entry changes who votes; it is chosen when majorities of both
// configurations have it.

package import Base

extension PaxosNode {
    /// It has a vote where it acts, and no later configuration is known to have begun.
    var mayLead: Bool {
        acceptor.isTrusted && !isDismissed && acting.hasVote(id, on: acceptor.disk)
            && acceptor.promised.configuration <= acting.number
            && acting.number == membership.number
    }
    /// It was a master, and is none any more.
    package var isRemoved: Bool {
        isDismissed || (acting[id] != nil && membership[id] == nil)
    }
    /// The masters know it on another disk: it has no vote (M18).
    package var isStranger: Bool {
        guard let own = membership[id], own.isVoter else { return false }
        return own.disk != .none && own.disk != acceptor.disk
    }
    /// The disk that it has.
    package var disk: DiskID { acceptor.disk }

    mutating func act(in next: Membership) {
        acting = next
        election.follow(next)
    }

    /// Takes note of an entry that was delivered.
    mutating func adopt(
        _ next: Membership, at entry: PaxosEntry, now: Instant, _ effects: inout [PaxosEffect]
    ) {
        let isStop = next.number > membership.number
        membership = next
        if isStop {
            let start = ConfigurationStart(
                number: next.number, slot: entry.slot, hash: entry.hash.short)
            acceptor.note(start, &effects)
            acceptor.learnStart(&effects)
        }
        if next[id] != nil { act(in: next) }
        guard isStop else {
            leader?.follow(next, now: now)
            return
        }
        guard let old = leader else { return }
        stop(now: now, &effects)
        if mayLead { takeOver(now: now, &effects) }
        // With it the others hear what has begun.
        beat(now: now, &effects)
        guard leader == nil else { return }
        let heirs = old.followers.filter { next.hasVote($0.id, on: $0.disk) }
        guard let heir = heirs.max(by: { $0.durable < $1.durable }) else { return }
        effects.append(.send(heir.id, .lead(acceptor.promised)))
    }

    /// A snapshot of others brought these masters.
    mutating func adopt(
        _ next: Membership, _ started: ConfigurationStart, _ effects: inout [PaxosEffect]
    ) {
        guard next.number >= membership.number else { return }
        acceptor.note(started, &effects)
        membership = next
        if next[id] != nil { act(in: next) }
    }

    // MARK: Orders

    /// Why an order is refused; nil: it is under way.
    mutating func carryOut(
        _ order: MasterOrder, now: Instant, _ effects: inout [PaxosEffect]
    ) -> Refusal? {
        guard isServing, let leader else { return Refusal(.noMajority, 0) }
        do throws(Refusal) {
            if case .transfer(let wanted) = order {
                try handOver(to: wanted, now: now)
                self.leader?.handOver(acceptor, &effects)
                return nil
            }
            guard leader.isOpen, leader.membersSlot <= acceptor.delivered else {
                throw Refusal(.changeOpen, UInt64(membership.learner?.id.rawValue ?? 0))
            }
            switch order {
            case .add(let id, let address, let old):
                propose(try membership.adding(id, at: address, replacing: old), &effects)
            case .remove(let id):
                let next = withDisks(try membership.removing(id))
                if next.number > membership.number { try checkMajority(next, now: now) }
                propose(next, &effects)
            case .transfer: break
            }
            return nil
        } catch {
            return error
        }
    }

    private mutating func propose(_ next: Membership, _ effects: inout [PaxosEffect]) {
        leader?.propose(next, &acceptor, &effects)
    }

    private mutating func handOver(to wanted: MasterID?, now: Instant) throws(Refusal) {
        guard let leader else { return }
        if wanted == id { throw Refusal(.leadsAlready, UInt64(id.rawValue)) }
        if let wanted, membership[wanted] == nil {
            throw Refusal(.unknownMaster, UInt64(wanted.rawValue))
        }
        let able = leader.followers.filter { follower in
            membership.hasVote(follower.id, on: follower.disk)
                && leader.isInStep(follower.id, acceptor)
                && election.isReached(follower.id, now: now)
        }
        let best = able.max { $0.durable < $1.durable }
        guard let heir = able.first(where: { $0.id == wanted }) ?? (wanted == nil ? best : nil)
        else { throw Refusal(.masterBehind, UInt64(wanted?.rawValue ?? 0)) }
        guard leader.isOpen else { throw Refusal(.changeOpen, UInt64(heir.id.rawValue)) }
        self.leader?.handover = Handover(to: heir.id, since: now)
    }

    /// Whether enough voters of a configuration are up and follow closely: without them it could
    /// not begin, and nothing would be chosen any more.
    private func checkMajority(_ next: Membership, now: Instant) throws(Refusal) {
        let able = next.voters.filter { voter in
            voter.id == id
                || leader?.isInStep(voter.id, acceptor) == true
                    && election.isReached(voter.id, now: now)
                    && next.hasVote(voter.id, on: disk(of: voter.id))
        }
        guard able.count >= next.quorum, next.voters.allSatisfy({ $0.disk != .none }) else {
            throw Refusal(.noMajority, UInt64(able.count))
        }
    }

    /// Where votes of a master came from.
    private func disk(of id: MasterID) -> DiskID {
        if id == self.id { return acceptor.disk }
        return leader?.followers.first { $0.id == id }?.disk ?? .none
    }
    private func withDisks(_ next: Membership) -> Membership {
        var next = next
        for member in next.members { next.learn(disk(of: member.id), of: member.id) }
        return next
    }

    // MARK: Changes in time

    /// A leader gives a learner its vote, and closes a configuration in which the disk of a voter
    /// is not known or is gone (M18), when the next one can begin.
    mutating func changeInTime(now: Instant, _ effects: inout [PaxosEffect]) {
        guard isServing, let leader, leader.isOpen, leader.membersSlot <= acceptor.delivered
        else { return }
        if isSick {
            // Where nobody can lead it goes on as well as it can.
            try? handOver(to: nil, now: now)
            self.leader?.handOver(acceptor, &effects)
            return
        }
        var next: Membership
        if let learner = membership.learner {
            next = withDisks(membership.promoting(learner.id))
            guard next[learner.id]?.disk != DiskID.none else { return }
            guard leader.isInStep(learner.id, acceptor) else { return }
        } else if membership.voters.contains(where: { $0.disk == .none }) {
            next = withDisks(membership.renewed())
        } else if let (id, disk) = stranger(leader, now: now) {
            next = membership.moving(id, to: disk)
        } else {
            return
        }
        guard (try? checkMajority(next, now: now)) != nil
        else { return }
        propose(next, &effects)
    }

    /// A voter that lost its disk, or has it under a new name: as such it follows closely, and
    /// nothing was heard of the one before for some time (M18).
    private func stranger(_ leader: Leader, now: Instant) -> (MasterID, DiskID)? {
        let found = leader.followers.first { follower in
            guard let member = membership[follower.id], member.isVoter,
                follower.disk != .none, follower.disk != member.disk,
                now - follower.diskSince >= Limits.strangerDelay
            else { return false }
            return leader.isInStep(follower.id, acceptor)
                && election.isReached(follower.id, now: now)
                && election.neighbours.contains {
                    $0.id == follower.id && $0.last?.disk == follower.disk
                        && $0.last?.isTrusted == true
                }
        }
        return found.map { ($0.id, $0.disk) }
    }

    // MARK: Others

    /// Whether what another says is for this node: it is a master, or of a later configuration.
    mutating func isHeard(
        _ message: PaxosMessage, from: MasterID, _ effects: inout [PaxosEffect]
    ) -> Bool {
        if isDismissed {
            guard case .heartbeat = message else { return false }
        }
        if election.neighbours.contains(where: { $0.id == from }) { return true }
        switch message {
        case .heartbeat(let heartbeat):
            if heartbeat.started.number > acting.number {
                election.admit(from)
                return true
            }
            if membership[from] == nil, heartbeat.started.number < membership.number {
                effects.append(.send(from, .removed(acceptor.started)))
            }
            return false
        case .prepare(let ballot, _), .promise(let ballot, _), .refuse(let ballot),
            .fetch(let ballot, _), .fetched(let ballot, _), .syncProgress(let ballot, _, _),
            .probe(let ballot, _), .probeAnswer(let ballot, _, _), .lead(let ballot):
            return ballot.configuration > acting.number
        case .sync(let page): return page.ballot.configuration > acting.number
        case .accept(let page): return page.ballot.configuration > acting.number
        case .accepted(let state): return state.ballot.configuration > acting.number
        case .removed(let started): return started.number > acting.number
        // The hash says whether an entry is the right one.
        case .mend, .mended: return true
        }
    }

    /// Another master knows a later configuration without this one.
    mutating func dismissed(
        _ started: ConfigurationStart, now: Instant, _ effects: inout [PaxosEffect]
    ) {
        guard acting[id] != nil, started.number > acting.number else { return }
        isDismissed = true
        acceptor.note(started, &effects)
        stop(now: now, &effects)
    }
}
