// One leadership, from the first promise to its end.
//
//   phase      entered when                           does
//   promising  a take-over begins                     persists its own promise
//   preparing  the own promise is durable             asks the others for theirs (M2)
//   fetching   a majority promised; another has more  fetches what the best log has more
//   leading    the log is adopted in this ballot      syncs followers, proposes (M2-M7)
//
// A follower is unknown until it promised, then syncing until its log is this leader's in this
// ballot, then streaming. Learners are followers without a vote. LeaderMembership.swift has what
// concerns configurations.
//
// Invariants:
//  1. Only durable acceptances in this very ballot are votes (M5).
//  2. One sync is on its way to a follower, with a sequence of its own (M20).
//  3. What is on its way is bounded: undecided entries, bytes per follower (M19, S10).
//  4. Nothing is appended behind a stop entry (M17). It counts as chosen when majorities of both
//     configurations have it: then whoever leads in the next one finds it among them.

import Base

/// What the leader knows of another master.
struct Follower: Hashable {
    enum State: Hashable {
        case unknown
        case syncing(sequence: UInt64, keep: Slot)
        case streaming
    }
    let id: MasterID
    /// Of its last acceptance, and since when it was the same.
    var disk = DiskID.none
    var diskSince = Instant.zero
    var promise: PromiseState?
    var state = State.unknown
    /// The next slot to send.
    var next = Slot.none.next
    /// Durable there in this ballot.
    var durable = Slot.none
    /// Bytes sent above `durable`.
    var inFlight = 0
    /// When it was last heard of, or asked again.
    var lastProgress: Instant
    /// Where sending began again last.
    var rewound = Slot.none
}

/// The state of a leadership.
struct Leader: Hashable {
    enum Phase: Hashable {
        case promising
        case preparing
        /// From whom, its log's ballot and end, what stays of the own log, what came so far.
        case fetching(from: MasterID, keep: Slot, end: Slot, entries: [PaxosEntry])
        case leading
    }
    /// A proposal of the host that is not decided.
    struct Proposal: Hashable {
        var slot: Slot
        var tag: PaxosTag
        var size: Int
    }
    /// Progress of the phases before leading, and of followers, must come within this time.
    static let patience = Limits.quorumLoss * 2
    private static let followerPatience = Limits.masterHeartbeat * 2

    let ballot: Ballot
    /// Whose votes count.
    var membership: Membership
    var phase = Phase.promising
    /// When the phase last came forward.
    var since: Instant
    var followers: [Follower]
    /// The ballot in which the adopted log was accepted before, and its end then.
    private var source = PromiseState(
        accepted: .none, start: .none, end: .none, chosen: .none, isTrusted: true, disk: .none)
    /// It lacks what the best log has no more (M16): another must lead.
    private(set) var isTooFarBehind = false
    /// Where the Begin is.
    private(set) var begin: Slot?
    /// The Begin is chosen and was delivered (M6).
    var isServing = false
    var proposals: [Proposal] = []
    private(set) var undecidedBytes = 0
    private var syncSequence: UInt64 = 0
    /// At the end of the log.
    private var stopEntry: StopEntry?
    /// Where masters were proposed last.
    private(set) var membersSlot = Slot.none
    /// Who is asked to take over, and since when.
    var handover: Handover?

    init(ballot: Ballot, membership: Membership, now: Instant) {
        self.ballot = ballot
        self.membership = membership
        since = now
        followers = membership.members.filter { $0.id != ballot.node }.map {
            Follower(id: $0.id, lastProgress: now)
        }
    }

    // MARK: Before leading

    /// Goes on as far as possible; called after every event.
    mutating func advance(
        _ acceptor: inout Acceptor, wall: Timestamp, now: Instant, _ effects: inout [PaxosEffect]
    ) {
        if phase == .promising, acceptor.promiseDurable == ballot {
            phase = .preparing
            since = now
            for follower in followers { ask(follower.id, acceptor, &effects) }
        }
        if phase == .preparing { choose(&acceptor, wall: wall, now: now, &effects) }
        if phase == .leading { decide(&acceptor) }
    }

    /// With the promises of a majority, takes the best log (M2).
    private mutating func choose(
        _ acceptor: inout Acceptor, wall: Timestamp, now: Instant, _ effects: inout [PaxosEffect]
    ) {
        let promises = followers.filter { follower in
            follower.promise.map { membership.hasVote(follower.id, on: $0.disk) } ?? false
        }
        guard promises.count >= membership.quorum - 1 else { return }
        let own = acceptor.state
        let best = promises.max { rank($0.promise!) < rank($1.promise!) }
        guard let best, let state = best.promise, rank(state) > rank(own) else {
            source = own
            adopt([], keep: own.end, &acceptor, wall: wall, now: now, &effects)
            return
        }
        source = state
        let keep = state.accepted == own.accepted ? own.end : own.chosen
        if keep == state.end {
            adopt([], keep: keep, &acceptor, wall: wall, now: now, &effects)
            return
        }
        guard keep >= state.start else {
            isTooFarBehind = true
            return
        }
        phase = .fetching(from: best.id, keep: keep, end: state.end, entries: [])
        since = now
        effects.append(.send(best.id, .fetch(ballot, from: keep.next)))
    }

    /// Takes entries of the best log.
    mutating func fetched(
        _ page: [PaxosEntry], from: MasterID, _ acceptor: inout Acceptor, wall: Timestamp,
        now: Instant, _ effects: inout [PaxosEffect]
    ) {
        guard case .fetching(from, let keep, let end, var entries) = phase else { return }
        for entry in page where entry.slot <= end {
            let last = entries.last?.slot ?? keep
            let hash = entries.last?.hash ?? acceptor.log.hash(at: keep)
            guard entry.slot == last.next else { continue }
            guard entry.previous == hash else {
                effects.append(.diverged(last))
                return
            }
            entries.append(entry)
            since = now
        }
        if entries.last?.slot == end {
            adopt(entries, keep: keep, &acceptor, wall: wall, now: now, &effects)
        } else {
            let next = (entries.last?.slot ?? keep).next
            phase = .fetching(from: from, keep: keep, end: end, entries: entries)
            effects.append(.send(from, .fetch(ballot, from: next)))
        }
    }

    /// Makes a log its own, in its ballot, with a Begin behind it (M2, M6).
    private mutating func adopt(
        _ entries: [PaxosEntry], keep: Slot, _ acceptor: inout Acceptor, wall: Timestamp,
        now: Instant, _ effects: inout [PaxosEffect]
    ) {
        acceptor.adopt(ballot, keep: keep, entries, &effects)
        phase = .leading
        since = now
        if let last = acceptor.log.last, let next = last.membership,
            next.number > ballot.configuration
        {
            stopEntry = StopEntry(slot: last.slot, membership: next)
        } else {
            begin = acceptor.append(.begin(wall), &effects).slot
        }
        for index in followers.indices where followers[index].promise != nil {
            start(index, acceptor, now: now, &effects)
        }
    }

    // MARK: Followers

    mutating func promised(
        _ state: PromiseState, by id: MasterID, _ acceptor: Acceptor, now: Instant,
        _ effects: inout [PaxosEffect]
    ) {
        guard state.isTrusted, let index = followers.firstIndex(where: { $0.id == id }) else {
            return
        }
        followers[index].promise = state
        if phase == .leading { start(index, acceptor, now: now, &effects) }
    }

    /// Starts the sync of a follower, or the stream if it has been synced.
    private mutating func start(
        _ index: Int, _ acceptor: Acceptor, now: Instant, _ effects: inout [PaxosEffect]
    ) {
        guard let state = followers[index].promise else { return }
        followers[index].lastProgress = now
        followers[index].inFlight = 0
        // One that is too far behind promises again now and then, until it has a snapshot.
        followers[index].state = .unknown
        if state.accepted == ballot {
            guard state.end >= acceptor.log.start, state.end <= acceptor.log.end else { return }
            followers[index].state = .streaming
            followers[index].next = state.end.next
            ask(index, acceptor, &effects)
            return
        }
        // A snapshot may have brought it what was chosen in this ballot.
        let chosen = min(state.chosen, acceptor.log.end)
        let keep =
            state.accepted == source.accepted
            ? max(chosen, min(state.end, source.end)) : chosen
        guard keep >= max(acceptor.log.start, state.start) else { return }
        syncSequence += 1
        followers[index].state = .syncing(sequence: syncSequence, keep: keep)
        followers[index].next = keep.next
        sendSync(index, acceptor, &effects)
    }

    /// Sends the page of a sync that starts at `next`.
    private mutating func sendSync(
        _ index: Int, _ acceptor: Acceptor, _ effects: inout [PaxosEffect]
    ) {
        let follower = followers[index]
        guard case .syncing(let sequence, let keep) = follower.state else { return }
        guard keep >= acceptor.log.start else {
            followers[index].state = .unknown
            return
        }
        let entries = acceptor.log.page(from: follower.next)
        let last = entries.last?.slot ?? keep
        let page = SyncPage(
            ballot: ballot, sequence: sequence, keepThrough: keep,
            keepHash: acceptor.log.hash(at: keep), entries: entries,
            isLast: last == acceptor.log.end, chosen: acceptor.chosen)
        effects.append(.send(follower.id, .sync(page)))
    }

    mutating func syncProgressed(
        sequence: UInt64, received: Slot, by id: MasterID, _ acceptor: Acceptor, now: Instant,
        _ effects: inout [PaxosEffect]
    ) {
        guard let index = followers.firstIndex(where: { $0.id == id }),
            case .syncing(sequence, _) = followers[index].state,
            received.next > followers[index].next, received <= acceptor.log.end
        else { return }
        followers[index].next = received.next
        followers[index].lastProgress = now
        sendSync(index, acceptor, &effects)
    }

    /// Counts a follower's vote, and sends what it lacks.
    mutating func accepted(
        _ state: Acceptance, by id: MasterID, _ acceptor: Acceptor, now: Instant,
        _ effects: inout [PaxosEffect]
    ) {
        guard phase == .leading, state.durable <= state.end, state.end <= acceptor.log.end,
            let index = followers.firstIndex(where: { $0.id == id })
        else { return }
        if followers[index].state != .streaming {
            followers[index].state = .streaming
            followers[index].next = state.end.next
            followers[index].inFlight = 0
        }
        followers[index].lastProgress = now
        if state.disk != followers[index].disk {
            followers[index].disk = state.disk
            followers[index].diskSince = now
            followers[index].durable = .none
            followers[index].inFlight = 0
        }
        if state.durable > followers[index].durable { note(state.durable, index, acceptor) }
        if handover?.to == id { handOver(acceptor, &effects) }
        if state.durable >= followers[index].next {
            followers[index].next = state.durable.next
        } else if state.hasGap, state.end.next < followers[index].next,
            followers[index].rewound != state.end
        {
            followers[index].rewound = state.end
            followers[index].next = state.end.next
            followers[index].inFlight = 0
        }
        stream(index, acceptor, &effects)
    }

    /// A follower has more on its disk.
    private mutating func note(_ durable: Slot, _ index: Int, _ acceptor: Acceptor) {
        let known = followers[index].durable
        followers[index].durable = durable
        guard known >= acceptor.log.start else {
            // What was on its way is not in memory any more; nearly all of it has arrived.
            followers[index].inFlight = 0
            return
        }
        var slot = known.next
        while slot <= durable, followers[index].inFlight > 0 {
            followers[index].inFlight -= acceptor.log[slot].body.count
            slot = slot.next
        }
        followers[index].inFlight = max(0, followers[index].inFlight)
    }

    /// Sends new entries to every follower that is in step.
    func needsStream(_ index: Int, _ acceptor: Acceptor) -> Bool {
        followers[index].state == .streaming && followers[index].next <= acceptor.log.end
            && followers[index].inFlight < Limits.paxosInFlight
    }
    mutating func streamAll(_ acceptor: Acceptor, _ effects: inout [PaxosEffect]) {
        for index in followers.indices { stream(index, acceptor, &effects) }
    }
    private mutating func stream(
        _ index: Int, _ acceptor: Acceptor, _ effects: inout [PaxosEffect]
    ) {
        guard isWithinLog(index, acceptor) else { return }
        while needsStream(index, acceptor) {
            let entries = acceptor.log.page(from: followers[index].next)
            send(index, entries, acceptor, &effects)
            for entry in entries { followers[index].inFlight += entry.body.count }
            followers[index].next = entries[entries.count - 1].slot.next
        }
    }
    /// Asks how far a follower is: an Accept without entries.
    private mutating func ask(_ index: Int, _ acceptor: Acceptor, _ effects: inout [PaxosEffect]) {
        guard isWithinLog(index, acceptor) else { return }
        send(index, [], acceptor, &effects)
    }
    /// Whether the log still has what a follower needs next; else it needs a snapshot first.
    private mutating func isWithinLog(_ index: Int, _ acceptor: Acceptor) -> Bool {
        if followers[index].next > acceptor.log.start { return true }
        followers[index].state = .unknown
        return false
    }
    private func send(
        _ index: Int, _ entries: [PaxosEntry], _ acceptor: Acceptor,
        _ effects: inout [PaxosEffect]
    ) {
        let first = followers[index].next
        let page = AcceptPage(
            ballot: ballot, first: first,
            previous: acceptor.log.hash(at: Slot(rawValue: first.rawValue - 1)),
            entries: entries, chosen: acceptor.chosen)
        effects.append(.send(followers[index].id, .accept(page)))
    }

    /// Asks again where no answer came.
    mutating func tick(_ acceptor: Acceptor, now: Instant, _ effects: inout [PaxosEffect]) {
        handOver(acceptor, &effects)
        if case .fetching(let source, let keep, _, let entries) = phase {
            let next = (entries.last?.slot ?? keep).next
            effects.append(.send(source, .fetch(ballot, from: next)))
        }
        for index in followers.indices {
            let isLate = now - followers[index].lastProgress >= Self.followerPatience
            switch followers[index].state {
            case .unknown where phase != .promising && isLate:
                followers[index].lastProgress = now
                ask(followers[index].id, acceptor, &effects)
            case .syncing where isLate:
                followers[index].lastProgress = now
                sendSync(index, acceptor, &effects)
            case .streaming where isLate && followers[index].durable < acceptor.log.end:
                followers[index].lastProgress = now
                followers[index].rewound = .none
                ask(index, acceptor, &effects)
            default: break
            }
        }
    }

    /// A follower does not know the ballot, or no longer: it lost its disk, or has it under a new
    /// name (masters seeds 177 and 2004545).
    func refused(
        by id: MasterID, _ acceptor: Acceptor, _ effects: inout [PaxosEffect]
    ) {
        guard phase != .promising, followers.contains(where: { $0.id == id }) else { return }
        ask(id, acceptor, &effects)
    }

    // MARK: Deciding

    /// What a majority has durable in this ballot is chosen (M5).
    private func decide(_ acceptor: inout Acceptor) {
        var slot = durable(in: membership, acceptor)
        if let stop = stopEntry, slot >= stop.slot,
            durable(in: stop.membership, acceptor) < stop.slot
        {
            slot = Slot(rawValue: stop.slot.rawValue - 1)
        }
        acceptor.learn(slot)
    }

    /// Whether proposals are taken: not behind a stop entry, nor while another is to lead.
    var isOpen: Bool { stopEntry == nil && handover == nil }

    /// Whether one more entry is within the window (M19).
    func hasRoom(for size: Int) -> Bool {
        isOpen && proposals.count < Limits.undecidedEntries
            && undecidedBytes + size <= Limits.undecidedBytes
    }
    /// Other masters, by an entry of the log.
    mutating func propose(
        _ next: Membership, _ acceptor: inout Acceptor, _ effects: inout [PaxosEffect]
    ) {
        let entry = acceptor.append(.members(next), &effects)
        membersSlot = entry.slot
        if next.number > ballot.configuration {
            stopEntry = StopEntry(slot: entry.slot, membership: next)
        }
        streamAll(acceptor, &effects)
    }
    mutating func propose(
        _ tag: PaxosTag, _ body: ArraySlice<UInt8>, _ acceptor: inout Acceptor,
        _ effects: inout [PaxosEffect]
    ) {
        let entry = acceptor.append(.commands(body), &effects)
        proposals.append(Proposal(slot: entry.slot, tag: tag, size: body.count))
        undecidedBytes += body.count
        streamAll(acceptor, &effects)
    }
    /// The tag of a slot that was just chosen, if it was proposed here in this ballot.
    mutating func takeTag(of slot: Slot) -> PaxosTag? {
        guard let first = proposals.first, first.slot == slot else { return nil }
        undecidedBytes -= first.size
        proposals.removeFirst()
        return first.tag
    }
}
