// One master's part in gap-free Multi-Paxos (DESIGN D5, rules S1-S10, M1-M8, M10, M19, M20): an
// acceptor, an election, and, while it leads, a leader with its reads.
//
//   event      acceptor        leader                       election
//   tick                       asks again (lost messages)   heartbeat, take-over, step-down (M9)
//   message    promise,        promises, votes, answers     heartbeats
//              sync, accept
//   persisted  tells, votes    own promise, own vote
//   propose                    appends, sends, or fails
//   readIndex                  probes (M10), or fails
//   order                      proposes other masters, or
//                              refuses (M17)
//
// Invariants:
//  1. Each chosen entry is delivered once, in slot order, on every node.
//  2. A leader whose promise is no longer the highest here stops at once.
//  3. Between becameLeader and stoppedLeading, and only then, proposals and reads are taken.
//  4. It acts in the last configuration of the chosen log in which it is a member; where a later
//     one has begun without it, it leads no more (M17).

package import Base

/// Input of a node.
package enum PaxosEvent: Hashable, Sendable {
    /// Time passed; with the wall clock, for the next Begin.
    case tick(Timestamp)
    case message(from: MasterID, PaxosMessage)
    /// Every record up to this ticket is durable.
    case persisted(through: PaxosTicket)
    /// A batch of the host's commands: 1 to `EntryBody.bound` bytes.
    case propose(PaxosTag, [UInt8])
    /// One read, or all reads of a turn.
    case readIndex(PaxosTag)
    /// An operator wants other masters, or another leader.
    case order(PaxosTag, MasterOrder)
}

/// An entry that can never change any more.
package struct ChosenEntry: Hashable, Sendable {
    package var slot: Slot
    /// In which it was first proposed.
    package var ballot: Ballot
    package var hash: EntryHash
    package var body: EntryBody
    /// Set where the entry is this node's own proposal of the present leadership.
    package var tag: PaxosTag?
}

/// What a node wants done.
package enum PaxosEffect: Hashable, Sendable {
    /// Append the record to the log of the disk; answer `persisted` when it is durable.
    case persist(PaxosRecord, PaxosTicket)
    case send(MasterID, PaxosMessage)
    /// Apply it; in slot order.
    case chosen(ChosenEntry)
    /// The Begin of this ballot is chosen and was delivered (M6).
    case becameLeader(Ballot)
    case stoppedLeading
    /// What is applied up to the slot, which was delivered, answers the read.
    case readReady(PaxosTag, Slot)
    /// This node does not lead, or too many reads wait.
    case readFailed(PaxosTag)
    /// Not proposed, or the leadership ended first: then the outcome is unknown (S7).
    case proposalFailed(PaxosTag)
    /// The order is under way, or was refused and changed nothing.
    case ordered(PaxosTag, Refusal?)
    /// Two logs that must be equal differ at this slot: this node must stop.
    case diverged(Slot)
}

/// Another master as this one sees it.
package struct PaxosPeer: Hashable, Sendable {
    package var id: MasterID
    /// Heard of within `Limits.quorumLoss`.
    package var isUp: Bool
    /// Its log is damaged.
    package var hasRot: Bool
    /// It is on another disk than the one that has its vote (M18).
    package var isStranger: Bool
    /// How much of its log was durable.
    package var durable: Slot
    package var chosen: Slot
    /// The highest ballot it promised.
    package var promised: Ballot
    /// Its log is there above this slot.
    package var start: Slot
    /// Durable there, the newest first.
    package var snapshots: [SnapshotMark]
}

/// A master's Paxos.
package struct PaxosNode: Hashable, Sendable {
    package let id: MasterID
    var acceptor: Acceptor
    var election: Election
    var leader: Leader?
    var reads = ReadIndex(peers: [], others: 0)
    private var wall = Timestamp.zero
    /// The masters by the last entry that was delivered.
    package internal(set) var membership: Membership
    /// The same, or the last ones of which this is one.
    var acting: Membership
    /// Others say that it is no master any more.
    var isDismissed = false
    /// Others were told of promises that its disk does not know: an old copy (M18).
    package internal(set) var isOldCopy = false
    /// Its disk is slow: it does not lead (S11).
    package var isSick = false
    /// The host's durable snapshots, the newest first, at most two: the others are told.
    package var snapshots: [SnapshotMark] = []

    /// Replays the records of the disk behind `base` in log order. With `hasRot`, or if they do
    /// not fit together, the node takes part but neither votes nor leads. `members`: as of `base`.
    package init(
        id: MasterID, disk: DiskID, members: Membership, base: PaxosBase = .none,
        records: [PaxosRecord], hasRot: Bool, seed: UInt64, now: Instant
    ) {
        self.id = id
        acceptor = Acceptor(
            id: id, disk: disk, configuration: members.number, base: base, records: records,
            hasRot: hasRot)
        election = Election(id: id, round: acceptor.promised.round, seed: seed, now: now)
        membership = members
        acting = .none
        if members[id] != nil { act(in: members) }
        for member in acceptor.named
        where !election.neighbours.contains(where: { $0.id == member.id }) {
            election.admit(member.id)
        }
    }

    // MARK: What the host may ask

    /// Proposals and reads are taken.
    package var isServing: Bool { leader?.isServing ?? false }
    /// Proposals are taken now: the configuration does not end, nor the leadership.
    package var isOpen: Bool { isServing && leader?.isOpen ?? false }
    /// Who leads, as far as this node knows.
    package func leaderHint(now: Instant) -> MasterID? {
        isServing ? id : election.leader(above: acceptor.promised, now: now)
    }
    /// Its log is damaged: it does not vote.
    package var hasRot: Bool { !acceptor.isTrusted }
    /// Its log is damaged, and it gets what it lacks from others.
    package var isMending: Bool { acceptor.isMending }
    /// Whom it asks for them beside the masters that it knows already.
    package var namedMasters: [MasterMember] { acceptor.named }
    /// How many entries it lacks.
    package var missing: Int { acceptor.missing.count }
    /// The highest ballot it promised.
    package var promised: Ballot { acceptor.promised }
    /// The ballot its log was last synced in.
    package var accepted: Ballot { acceptor.accepted }
    /// Its log is in memory above this slot.
    package var start: Slot { acceptor.log.start }
    /// It leads, or tries to.
    package var isLeadingOrTrying: Bool { leader != nil }
    /// The end of its log.
    package var end: Slot { acceptor.log.end }
    /// What is durable in `accepted`: its vote.
    package var durable: Slot { acceptor.durable }
    /// Every slot up to here is chosen.
    package var chosen: Slot { acceptor.chosen }
    /// Every slot up to here was delivered.
    package var delivered: Slot { acceptor.delivered }
    /// Proposals without a decision.
    package var undecided: Int { leader?.proposals.count ?? 0 }
    /// When it wants a tick although nothing happened.
    package var wakeTime: Instant { election.wakeTime }

    /// The other masters, in ascending order.
    package func peers(now: Instant) -> [PaxosPeer] {
        election.neighbours.map { neighbour in
            PaxosPeer(
                id: neighbour.id,
                isUp: neighbour.heard.map { now - $0 < Limits.quorumLoss } ?? false,
                hasRot: neighbour.last.map { !$0.isTrusted } ?? false,
                isStranger: neighbour.last.map { last in
                    neighbour.disk != .none && last.disk != neighbour.disk
                } ?? false,
                durable: neighbour.last?.durable ?? .none,
                chosen: neighbour.last?.chosen ?? .none,
                promised: neighbour.last?.promised ?? .none, start: neighbour.last?.start ?? .none,
                snapshots: neighbour.last?.snapshots ?? [])
        }
    }
    /// The hash of a slot from `start` to `end`: equal on all nodes where it is chosen.
    package func hash(at slot: Slot) -> EntryHash { acceptor.log.hash(at: slot) }
    /// The entry of a slot above `start`, up to `end`.
    package func entry(at slot: Slot) -> PaxosEntry { acceptor.log[slot] }

    // MARK: Snapshots

    /// What a start from a snapshot of this slot goes on with: delivered, and above `start`.
    package func base(at slot: Slot) -> PaxosBase { acceptor.base(at: slot) }
    /// What a start from a snapshot of others goes on with. `ballot`: see `install`.
    package func base(
        after slot: Slot, _ hash: EntryHash, _ ballot: Ballot, _ started: ConfigurationStart
    ) -> PaxosBase {
        PaxosBase(
            slot: slot, hash: hash, promised: max(ballot, acceptor.promised),
            accepted: acceptor.accepted,
            started: started.number > acceptor.started.number ? started : acceptor.started)
    }
    /// Gives the records that a start from `base(at: slot)` needs, besides all later ones.
    package mutating func carry(above slot: Slot) -> [PaxosEffect] {
        var effects: [PaxosEffect] = []
        acceptor.carry(above: slot, &effects)
        return effects
    }
    /// The same for a start from `base(after: slot, hash …)`: where the log follows the snapshot.
    package mutating func carry(above slot: Slot, following hash: EntryHash) -> [PaxosEffect] {
        acceptor.log.has(slot, hash) ? carry(above: slot) : []
    }
    /// A snapshot of others, above all that was delivered, is durable here and takes the place
    /// of the log up to its slot. `ballot`: the promise of a master that had it. Every record
    /// must be durable; not while it leads.
    package mutating func install(
        _ slot: Slot, _ hash: EntryHash, _ ballot: Ballot, _ members: Membership,
        _ started: ConfigurationStart
    ) -> [PaxosEffect] {
        precondition(leader == nil, "a leader has everything")
        var effects: [PaxosEffect] = []
        acceptor.install(slot, hash, ballot, &effects)
        adopt(members, started, &effects)
        election.note(ballot)
        return effects
    }
    /// Entries up to the slot are in durable snapshots: they leave the memory, some at a time.
    package mutating func forget(through slot: Slot) { acceptor.forget(through: slot) }

    // MARK: Steps

    /// Takes one event; the effects are to be carried out in order.
    package mutating func step(_ event: PaxosEvent, now: Instant) -> [PaxosEffect] {
        var effects: [PaxosEffect] = []
        switch event {
        case .tick(let wall):
            self.wall = wall
            tick(now: now, &effects)
        case .message(let from, let message):
            receive(message, from: from, now: now, &effects)
        case .persisted(let ticket): acceptor.persisted(through: ticket, &effects)
        case .propose(let tag, let body): propose(tag, body, &effects)
        case .readIndex(let tag): read(tag, now: now, &effects)
        case .order(let tag, let order):
            effects.append(.ordered(tag, carryOut(order, now: now, &effects)))
        }
        acceptor.learnStart(&effects)
        if let ballot = leader?.ballot, ballot != acceptor.promised { stop(now: now, &effects) }
        leader?.advance(&acceptor, wall: wall, now: now, &effects)
        if leader?.isTooFarBehind == true { stop(now: now, &effects) }
        deliver(now: now, &effects)
        return effects
    }

    private mutating func deliver(now: Instant, _ effects: inout [PaxosEffect]) {
        while let entry = acceptor.deliver() {
            let content = entry.content
            effects.append(
                .chosen(
                    ChosenEntry(
                        slot: entry.slot, ballot: entry.ballot, hash: entry.hash, body: content,
                        tag: leader?.takeTag(of: entry.slot))))
            if case .members(let next) = content {
                adopt(next, at: entry, now: now, &effects)
            }
        }
        if let begin = leader?.begin, let ballot = leader?.ballot, !isServing,
            acceptor.delivered >= begin
        {
            leader?.isServing = true
            effects.append(.becameLeader(ballot))
        }
    }

    private mutating func propose(
        _ tag: PaxosTag, _ body: [UInt8], _ effects: inout [PaxosEffect]
    ) {
        precondition(!body.isEmpty && body.count <= EntryBody.bound, "batch out of bounds")
        if isServing, leader?.hasRoom(for: body.count) == true {
            leader?.propose(tag, body[...], &acceptor, &effects)
        } else {
            effects.append(.proposalFailed(tag))
        }
    }

    // MARK: Reads

    private mutating func read(
        _ tag: PaxosTag, now: Instant, _ effects: inout [PaxosEffect]
    ) {
        guard isServing,
            let probe = reads.attach(tag, index: acceptor.chosen, now: now)
        else {
            effects.append(.readFailed(tag))
            return
        }
        send(probe, &effects)
        effects += reads.takeReady()
    }
    private func send(_ probe: Probe, _ effects: inout [PaxosEffect]) {
        guard let leader else { return }
        for peer in probe.peers {
            effects.append(.send(peer, .probe(leader.ballot, nonce: probe.nonce)))
        }
    }

    // MARK: Time

    private mutating func tick(now: Instant, _ effects: inout [PaxosEffect]) {
        if let leader {
            let isStuck = leader.phase != .leading && now - leader.since >= Leader.patience
            let isAlone =
                leader.phase == .leading && now - leader.since >= Limits.quorumLoss
                && !election.hasQuorum(within: Limits.quorumLoss, now: now)
            if isStuck || isAlone { stop(now: now, &effects) }
        }
        if let handover = leader?.handover, now - handover.since >= Limits.quorumLoss {
            leader?.handover = nil
        }
        let verdict = election.tick(
            acceptor.state, promised: acceptor.promised, isLeading: leader != nil,
            mayLead: mayLead && !isSick, now: now)
        if verdict.takesOver { takeOver(now: now, &effects) }
        guard verdict.beats else { return }
        beat(now: now, &effects)
        leader?.tick(acceptor, now: now, &effects)
        changeInTime(now: now, &effects)
        if isServing, let probe = reads.retry(now: now) { send(probe, &effects) }
    }

    func beat(now: Instant, _ effects: inout [PaxosEffect]) {
        for neighbour in election.neighbours {
            let heartbeat = Heartbeat(
                sent: now, echo: neighbour.last?.sent, promised: acceptor.promised,
                accepted: acceptor.accepted, start: acceptor.log.start, end: acceptor.log.end,
                durable: acceptor.durable, chosen: acceptor.chosen, isLeading: leader != nil,
                isHappy: election.isHappy, isTrusted: acceptor.isTrusted && !isDismissed,
                started: acceptor.started, disk: acceptor.disk,
                told: neighbour.told, toldDisk: neighbour.toldDisk, snapshots: snapshots)
            effects.append(.send(neighbour.id, .heartbeat(heartbeat)))
            ask(neighbour.id, &effects)
        }
    }

    /// Asks for an entry that it lacks.
    func ask(_ master: MasterID, _ effects: inout [PaxosEffect]) {
        guard let (slot, hash) = acceptor.wanted else { return }
        effects.append(.send(master, .mend(slot, hash)))
    }

    mutating func takeOver(now: Instant, _ effects: inout [PaxosEffect]) {
        let round = max(election.highestRound, acceptor.promised.round) + 1
        let ballot = Ballot(configuration: acting.number, round: round, node: id)
        acceptor.promise(ballot, to: nil, &effects)
        election.note(ballot)
        election.startedLeading(now: now)
        leader = Leader(ballot: ballot, membership: acting, now: now)
        reads = newReads
    }
    private var newReads: ReadIndex {
        ReadIndex(
            peers: acting.voters.map(\.id).filter { $0 != id }, others: acting.quorum - 1)
    }

    mutating func stop(now: Instant, _ effects: inout [PaxosEffect]) {
        guard let old = leader else { return }
        leader = nil
        election.restart(now: now)
        effects += old.proposals.map { .proposalFailed($0.tag) }
        effects += reads.failAll()
        reads = newReads
        if old.isServing { effects.append(.stoppedLeading) }
    }

    // MARK: Messages

    private mutating func receive(
        _ message: PaxosMessage, from: MasterID, now: Instant, _ effects: inout [PaxosEffect]
    ) {
        guard isHeard(message, from: from, &effects) else { return }
        switch message {
        case .heartbeat(let heartbeat): heard(heartbeat, from: from, now: now, &effects)
        case .prepare(let ballot, let started):
            election.note(ballot)
            acceptor.note(started, &effects)
            acceptor.learnStart(&effects)
            acceptor.prepare(ballot, from: from, &effects)
        case .lead(let ballot):
            guard mayLead, leader == nil, ballot.configuration == acting.number,
                acceptor.promised <= ballot
            else { return }
            takeOver(now: now, &effects)
            beat(now: now, &effects)
        case .removed(let started): dismissed(started, now: now, &effects)
        case .refuse(let ballot):
            election.note(ballot)
            if let own = leader?.ballot, ballot > own { stop(now: now, &effects) }
            leader?.refused(by: from, acceptor, &effects)
        case .sync(let page): acceptor.sync(page, from: from, &effects)
        case .accept(let page): acceptor.accept(page, from: from, &effects)
        case .fetch(let ballot, let slot):
            guard acceptor.obeys(ballot, from: from, &effects), slot > .none else { return }
            effects.append(.send(from, .fetched(ballot, acceptor.log.page(from: slot))))
        case .probe(let ballot, let nonce):
            if acceptor.obeys(ballot, from: from, &effects) {
                effects.append(
                    .send(from, .probeAnswer(ballot, nonce: nonce, disk: acceptor.disk)))
            }
        case .mend(let slot, let hash):
            let page = acceptor.page(from: slot, hash)
            if !page.isEmpty { effects.append(.send(from, .mended(page))) }
        case .mended(let page):
            let before = acceptor.missing.count
            acceptor.mend(with: page, &effects)
            if acceptor.missing.count < before { ask(from, &effects) }
        case .promise, .fetched, .syncProgress, .accepted, .probeAnswer:
            receiveAnswer(message, from: from, now: now, &effects)
        }
    }

    /// Answers to this node's own ballot; late ones of an older ballot are dropped.
    private mutating func receiveAnswer(
        _ message: PaxosMessage, from: MasterID, now: Instant, _ effects: inout [PaxosEffect]
    ) {
        switch message {
        case .promise(leader?.ballot, let state):
            if state.isTrusted, let ballot = leader?.ballot {
                election.told(ballot, on: state.disk, by: from)
            }
            leader?.promised(state, by: from, acceptor, now: now, &effects)
        case .fetched(leader?.ballot, let entries):
            leader?.fetched(
                entries, from: from, &acceptor, wall: wall, now: now, &effects)
        case .syncProgress(leader?.ballot, let sequence, let slot):
            leader?.syncProgressed(
                sequence: sequence, received: slot, by: from, acceptor, now: now, &effects)
        case .accepted(let state) where state.ballot == leader?.ballot:
            if state.durable > .none { election.told(state.ballot, on: state.disk, by: from) }
            leader?.accepted(state, by: from, acceptor, now: now, &effects)
        case .probeAnswer(leader?.ballot, let nonce, let disk):
            guard leader?.membership.hasVote(from, on: disk) == true else { return }
            reads.answered(by: from, nonce: nonce)
            effects += reads.takeReady()
        default: break
        }
    }

    private mutating func heard(
        _ heartbeat: Heartbeat, from: MasterID, now: Instant, _ effects: inout [PaxosEffect]
    ) {
        election.heard(heartbeat, from: from, now: now)
        let isMine = heartbeat.toldDisk == acceptor.disk
        if isMine, acceptor.isTrusted, heartbeat.told > acceptor.promised {
            // What this master promised then, it may break now.
            isOldCopy = true
            acceptor.distrust()
            stop(now: now, &effects)
        }
        acceptor.note(heartbeat.started, &effects)
        if let own = leader?.ballot, heartbeat.promised > own {
            stop(now: now, &effects)
        } else if heartbeat.isLeading, heartbeat.promised.node == from,
            heartbeat.promised == acceptor.promised, heartbeat.promised == acceptor.accepted
        {
            acceptor.learn(heartbeat.chosen)
        }
    }
}
