// The primary's part of `SetReplica`: asking, catching up, reconciling, numbering, committing.

package import Base

/// What the primary knows of another member, or of its learner, in the epoch it promised.
struct Peer: Hashable, Sendable {
    let disk: DiskID
    /// It is being filled and is no member (C9).
    var isLearner = false
    /// A learner that every write waits for: it may become a member at any moment (C9).
    var isCounted = false
    /// Where the log ended when it began to count.
    var countedFrom = RecordNumber.none
    /// The answer to the query of this epoch.
    var state: ReplicaState?
    /// It acknowledged something in this epoch: its epoch start is durable.
    var hasBegun = false
    /// Durable there.
    var acknowledged = RecordNumber.none
    /// Sent since the last loss.
    var sent = RecordNumber.none
    /// What it knows to be committed.
    var told = RecordNumber.none
    /// What its disk can take, and, where that is little, when it said so.
    var fill = DiskFill.roomy
    /// What is copied to it slows its clients down, it said last.
    var isStrained = false
    var fillAt = Instant.zero
    /// Stored bytes that were sent and not acknowledged, as far as they are in the window.
    var inFlight = 0
    /// When it hears from us although nothing happens; nil while there is nothing to say.
    var beaconAt: Instant?
    /// Grows while it does not answer.
    var pause = Limits.commitBeacon
    /// When it was last sent something again.
    var rewound: SetReplica.Complaint?
    /// The primary's lease on it ends then (C11).
    var leaseUntil = Instant.zero
    /// How long it takes for what it is sent.
    var delay = AnswerDelay()
    /// When it last said something; when it became a peer, until then.
    var heard: Instant
    /// Every write waits for it.
    var isVoter: Bool { !isLearner || isCounted }
}

extension SetReplica {
    /// A new epoch with this replica as primary: hears every member first.
    mutating func ask(_ next: SetConfiguration) {
        peers = next.backups.map { Peer(disk: $0, heard: now) }
        phase = .asking
        servesFrom = now
        ownDelay = AnswerDelay()
        waitOut(grants.map { Grant(primary: $0.primary, remaining: $0.until - now) })
        askAgain()
        mergeStates()
    }

    private mutating func askAgain() {
        guard let configuration else { return }
        retryAt = now + Limits.replicaRetry
        let after = starts.last?.configuration.epoch ?? .none
        for peer in peers where peer.state == nil {
            send(.query(configuration, incarnation: incarnation, after: after), to: peer.disk)
        }
    }

    mutating func takeState(_ state: ReplicaState, _ run: Incarnation, from sender: DiskID) {
        guard run == incarnation, let index = position(of: sender) else { return }
        if peers[index].isLearner { return takeLearnerState(state, index) }
        guard phase == .asking else { return }
        peers[index].state = state
        waitOut(state.grants)
        mergeStates()
    }

    /// With every member's state: writes the starts it missed, then gets the records it lacks.
    private mutating func mergeStates() {
        let states = peers.compactMap(\.state)
        guard states.count == peers.count else { return }
        let foreign = states.flatMap(\.starts).sorted {
            $0.configuration.epoch < $1.configuration.epoch
        }
        for start in foreign
        where start.configuration.epoch > starts.last?.configuration.epoch ?? .none {
            appendStart(start)
        }
        phase = .catchingUp(target: peers.map { live($0) }.max() ?? .none)
        requested = prepared
        catchUp()
    }

    /// The last record of a member that no start kills which it has not seen.
    private func live(_ peer: Peer) -> RecordNumber {
        guard let state = peer.state else { return .none }
        return starts.reduce(state.durable) { last, start in
            start.configuration.epoch > state.adopted ? min(last, start.keepThrough) : last
        }
    }

    /// Asks for the next records that another member has and this one lacks.
    private mutating func catchUp() {
        guard case .catchingUp(let target) = phase else { return }
        guard prepared < target else {
            loaded = [:]
            guard let configuration else { return }
            phase = .starting
            appendStart(EpochStart(configuration: configuration, keepThrough: prepared))
            return
        }
        retryAt = now + Limits.replicaRetry
        while requested < target, requested.rawValue - prepared.rawValue < Limits.recordLoads {
            requested = requested.next
            fetchForward(requested, after: nil)
        }
    }

    /// Asks the first member that has the record, or the first after one that could not give it;
    /// false if there is none.
    @discardableResult
    private mutating func fetchForward(_ number: RecordNumber, after last: DiskID?) -> Bool {
        let owners = peers.filter { live($0) >= number && (last == nil || $0.disk > last!) }
        guard let owner = owners.first else { return false }
        send(.fetch(number), to: owner.disk)
        return true
    }

    /// A record that was asked for while catching up; false if it was for something else.
    mutating func takeForward(
        _ number: RecordNumber, _ result: LoadResult, from sender: DiskID
    ) -> Bool {
        guard case .catchingUp(let target) = phase else { return false }
        switch result {
        case .record(let record):
            guard record.number == number, isAlive(record) else { return true }
            loaded[number] = record
        case .superseded: loaded[number] = placeholder(number)
        case .unavailable:
            guard number > prepared, !fetchForward(number, after: sender) else { return true }
            let committed = peers.compactMap { $0.state?.committed }.max() ?? .none
            if number <= committed {
                // Frozen until a member can give it: cutting it off would lose it for good.
                effects.append(.alarm("set \(set): committed record \(number) is damaged"))
                return true
            }
            phase = .catchingUp(target: min(target, RecordNumber(rawValue: number.rawValue - 1)))
        }
        while let next = loaded.removeValue(forKey: prepared.next) {
            appendRecord(next)
            if window.count > 0 { window.append(next) }
        }
        requested = max(requested, prepared)
        catchUp()
        return true
    }

    /// A record that later committed ones replaced: its number must not be missing (C4).
    func placeholder(_ number: RecordNumber) -> Record {
        Record(
            set: set, epoch: starts.last?.configuration.epoch ?? promised, number: number,
            session: .none,
            sequence: RequestNumber(rawValue: 0), firstUnacked: RequestNumber(rawValue: 0),
            truncation: 0, body: .nothing)
    }

    /// The epoch start is durable: the others may hear of it (S2).
    mutating func startReconciling() {
        phase = .reconciling
        for index in peers.indices { sendBegin(index) }
        advance()
    }

    mutating func sendBegin(_ index: Int) {
        guard var start = starts.last?.shared, let state = peers[index].state else { return }
        var missed = starts.dropLast().filter { $0.configuration.epoch > state.adopted }
        if peers[index].isLearner, !isContinuous(state) {
            start.startsOver = true
            missed = []
        }
        send(.begin(start, missed: missed.map(\.shared)), to: peers[index].disk)
        schedule(index, after: Limits.replicaRetry)
    }

    mutating func takeAcknowledgement(
        from sender: DiskID, _ last: RecordNumber, _ told: RecordNumber, _ fill: DiskFill,
        _ isStrained: Bool
    ) {
        guard phase == .reconciling || phase == .serving, let index = position(of: sender),
            last <= prepared
        else { return }
        if !peers[index].hasBegun {
            peers[index].hasBegun = true
            peers[index].acknowledged = last
            peers[index].sent = last
            peers[index].pause = Limits.commitBeacon
        }
        if last > peers[index].acknowledged || told > peers[index].told {
            peers[index].pause = Limits.commitBeacon
        }
        // Acknowledgements may overtake each other; each is true for ever in its epoch (C6).
        let before = peers[index].acknowledged
        peers[index].inFlight -= window.bytes(
            after: before, through: min(last, peers[index].sent))
        peers[index].acknowledged = max(peers[index].acknowledged, last)
        peers[index].delay.answered(through: peers[index].acknowledged, now)
        peers[index].sent = max(peers[index].sent, last)
        peers[index].told = max(peers[index].told, told)
        peers[index].fill = fill
        peers[index].fillAt = fill == .roomy ? .zero : now
        peers[index].isStrained = isStrained
        countLearner(index)
        advance()
        pump(index)
        plan(index)
    }

    /// Commits what every member has.
    mutating func advance() {
        guard phase == .reconciling || phase == .serving else { return }
        let voters = peers.filter(\.isVoter)
        guard voters.allSatisfy(\.hasBegun) else { return }
        let everywhere = voters.reduce(durable) { min($0, $1.acknowledged) }
        if phase == .reconciling {
            guard let start = starts.last, everywhere >= start.keepThrough, servesFrom <= now
            else { return }
            phase = .serving
        }
        guard everywhere > committed else { return }
        committed = everywhere
        effects.append(.commit(through: committed))
        let isAcknowledged = hasEnoughMembers
        window.removeThrough(committed) { entry in
            let outcome = isAcknowledged ? .committed(entry.record.number) : WriteOutcome.notPrimary
            effects += entry.tags.map { .answer(tag: $0, outcome) }
        }
        loaded = [:]
        for index in peers.indices { plan(index) }
    }

    // MARK: writes

    mutating func number(_ writes: [WriteDraft]) {
        guard isServing else {
            effects += writes.map { .answer(tag: $0.tag, .notPrimary) }
            return
        }
        for write in writes { number(write) }
        for index in peers.indices { pump(index) }
    }

    private mutating func number(_ write: WriteDraft) {
        var last = RecordNumber.none
        for draft in write.records {
            if draft.session != .none, let old = window.number(of: draft.session, draft.sequence) {
                last = max(last, old)
                continue
            }
            let record = Record(
                set: set, epoch: promised, number: prepared.next, session: draft.session,
                sequence: draft.sequence, firstUnacked: draft.firstUnacked,
                truncation: draft.truncation, body: draft.body)
            appendRecord(record)
            window.append(record)
            ownDelay.began(record.number, now)
            last = max(last, record.number)
        }
        // What is written meanwhile comes on top: a learner catches up whatever the writers do.
        if peers.contains(where: isThrottled) {
            let written = write.records.reduce(0) { $0 + $1.bytes + Self.copyOverhead }
            copyBudget += written + written / 4
        }
        window.wait(write.tag, for: last)
    }

    /// Sends what a member lacks, in order, as far as its credit goes.
    mutating func pump(_ index: Int) {
        guard peers[index].hasBegun else { return }
        let isCopy = isThrottled(peers[index])
        var batch: [Record] = []
        var bytes = 0
        func sendBatch() {
            if batch.isEmpty { return }
            send(.prepare(committed: committed, batch), to: peers[index].disk)
            schedule(index, after: Limits.commitBeacon)
            batch = []
            bytes = 0
        }
        while peers[index].sent < prepared {
            if isCopy, copyBudget <= 0 {
                wantsCopyBudget = true
                break
            }
            let next = peers[index].sent.next
            let ahead = next.rawValue - peers[index].acknowledged.rawValue
            guard var record = window[next] ?? loaded[next] else {
                if ahead <= Limits.recordLoads { loadAhead(next) }
                break
            }
            // A full member gets what is under way one by one, until it has room again.
            guard ahead <= (peers[index].fill == .roomy ? Limits.preparedRecords : 1) else { break }
            peers[index].sent = next
            if window[next] != nil { peers[index].inFlight += record.payload.count }
            // A copy that started over knows no earlier epoch.
            if peers[index].isLearner { record.epoch = promised }
            if isCopy { copyBudget -= record.payload.count + Self.copyOverhead }
            // What a learner gets first are old records: that says nothing of its disk.
            if !peers[index].isLearner { peers[index].delay.began(next, now) }
            if bytes + record.payload.count > Limits.frameData
                || batch.count == ReplicationMessage.records
            {
                sendBatch()
            }
            batch.append(record)
            bytes += record.payload.count
            // What is lost on the way is loaded again.
            if !peers.contains(where: { $0.hasBegun && $0.sent < next }) { loaded[next] = nil }
        }
        sendBatch()
        plan(index)
    }

    /// A copy that no write waits for goes on as the host lets it, unless the set has so few
    /// members that nothing can be written to it (C19).
    private func isThrottled(_ peer: Peer) -> Bool {
        peer.isLearner && !peer.isCounted && hasEnoughMembers
    }
    private static var copyOverhead: Int { 256 }

    private mutating func loadAhead(_ first: RecordNumber) {
        var number = first
        while number <= prepared, window[number] == nil,
            number.rawValue - first.rawValue < Limits.recordLoads
        {
            // A damaged one is tried again now and then, with its repair.
            if loaded[number] == nil, !isDamaged(number) { load(number) }
            number = number.next
        }
    }

    /// A loaded record for members that lack it.
    mutating func supply(_ record: Record) {
        guard phase == .reconciling || phase == .serving else { return }
        guard peers.contains(where: { $0.acknowledged < record.number }) else { return }
        // More are there only if members left meanwhile; what is wanted is loaded again.
        if loaded.count >= Limits.members * Limits.recordLoads { loaded = [:] }
        loaded[record.number] = record
        for index in peers.indices { pump(index) }
        // Kept is what `loadAhead` asks for, nothing less: else it would ask without end.
        let isWanted = peers.contains { peer in
            peer.hasBegun && peer.sent < record.number
                && record.number.rawValue - peer.sent.rawValue <= Limits.recordLoads
        }
        if !isWanted { loaded[record.number] = nil }
    }

    /// A member tells that something was lost on the way.
    mutating func rewind(_ sender: DiskID, after: RecordNumber) {
        guard let index = position(of: sender), peers[index].hasBegun,
            after >= peers[index].acknowledged, after < peers[index].sent
        else { return }
        // What was sent again is still under way when the next complaint comes, unless a part of
        // it came: then what is missing was overtaken or lost.
        if let last = peers[index].rewound,
            now - last.at < (after > last.after ? Limits.commitBeacon : Limits.replicaRetry)
        {
            return
        }
        peers[index].rewound = Complaint(after: after, at: now)
        peers[index].inFlight -= window.bytes(after: after, through: peers[index].sent)
        peers[index].sent = after
        pump(index)
    }

    mutating func losePeer(_ disk: DiskID) {
        guard let index = position(of: disk) else { return }
        peers[index].rewound = nil
        if peers[index].hasBegun, peers[index].beaconAt != nil {
            schedule(index, after: Limits.commitBeacon)
        }
    }

    func position(of disk: DiskID) -> Int? { peers.firstIndex { $0.disk == disk } }

    // MARK: time

    mutating func schedule(_ index: Int, after pause: Interval) {
        peers[index].beaconAt = now + pause
    }

    /// Makes sure that a member with something open hears of it, and else keeps quiet.
    private mutating func plan(_ index: Int) {
        let peer = peers[index]
        guard peer.hasBegun else { return }
        let isOpen = peer.acknowledged < prepared || peer.told < committed
        if !isOpen {
            peers[index].beaconAt = nil
        } else if peer.beaconAt == nil {
            schedule(index, after: peer.pause)
        }
    }

    mutating func tickPrimary() {
        switch phase {
        case .asking where retryAt <= now: askAgain()
        case .catchingUp where retryAt <= now:
            requested = prepared
            catchUp()
        case .reconciling, .serving:
            turnDelays()
            goOnCopying()
            for index in peers.indices {
                guard let due = peers[index].beaconAt, due <= now else { continue }
                if peers[index].isLearner, isLost(peers[index]) {
                    askLearner(index)
                    continue
                }
                if !peers[index].hasBegun {
                    sendBegin(index)
                    continue
                }
                send(
                    .beacon(committed: committed, sent: peers[index].sent),
                    to: peers[index].disk)
                schedule(index, after: peers[index].pause)
                peers[index].pause = min(peers[index].pause * 2, Limits.silentBeacon)
            }
            if phase == .reconciling, servesFrom <= now { advance() }
            keepLease()
        default: break
        }
    }

    private mutating func goOnCopying() {
        guard wantsCopyBudget, copyBudget > 0 else { return }
        wantsCopyBudget = false
        for index in peers.indices where peers[index].isLearner { pump(index) }
    }

    /// Stored bytes on their way to another member, by disk.
    package var inFlight: [(disk: DiskID, bytes: Int)] {
        peers.map { ($0.disk, $0.inFlight) }
    }

    /// A draft waits, or was refused, because a member is full: asks the members how they are now.
    package mutating func askWhoIsFull(now: Instant) {
        for index in peers.indices
        where peers[index].fill != .roomy && peers[index].beaconAt == nil {
            peers[index].beaconAt = now + Limits.commitBeacon
        }
    }
}
