// The other parts of `SetReplica`: what a backup does, repairs, and reads at a member that is not
// the serving primary.

package import Base

extension SetReplica {
    // MARK: a backup

    /// The primary of the promised epoch wants to know what is here.
    mutating func answerQuery(
        _ message: ReplicationMessage, _ run: Incarnation, _ after: Epoch
    ) {
        if message.epoch < promised { return send(.stale, to: message.sender) }
        resumeLearning()
        guard message.epoch == promised, phase == .joining else { return }
        question = Question(primary: message.sender, run: run, after: after)
        answerQuestion()
    }

    /// Answers once all that was appended is durable: what the answer leaves out must not become
    /// durable, and be read here, after it.
    mutating func answerQuestion() {
        guard let asked = question, appended.isEmpty, phase == .joining else { return }
        question = nil
        let state = ReplicaState(
            adopted: adopted, durable: durable, committed: committed,
            starts: starts.filter { $0.configuration.epoch > asked.after }.map(\.shared),
            kept: starts.last?.keepThrough ?? .none, grants: openGrants)
        send(.state(state, incarnation: asked.run), to: asked.primary)
    }

    mutating func begin(_ start: EpochStart, _ missed: [EpochStart], from sender: DiskID) {
        let epoch = start.configuration.epoch
        let isMember = start.configuration.members.contains(disk)
        guard epoch == promised, epoch > startedIn || !isMember,
            start.configuration.primary == sender
        else { return }
        switch phase {
        case .following: acknowledge()
        case .joining:
            if adopted == epoch { return follow() }
            // Its start may be on its way to the disk already.
            guard starts.last?.configuration.epoch ?? .none < epoch else { return }
            configuration = start.configuration
            phase = .joining
            for older in missed
            where older.configuration.epoch > starts.last?.configuration.epoch ?? .none {
                appendStart(older)
            }
            appendStart(start)
        default: break
        }
    }

    mutating func acknowledge() {
        guard let primary = configuration?.primary else { return }
        let body = ReplicationBody.acknowledge(
            durable: durable, committed: committed, fill: diskFill, isStrained: isStrained)
        send(body, to: primary)
    }

    /// The host has no space for data, and blocks of this set that want folding: their primary
    /// hears of it, though nothing else is to be said.
    mutating func tellFill() {
        guard phase == .following, tellFillAt <= now else { return }
        tellFillAt = now + Limits.replicaRetry
        acknowledge()
    }

    mutating func prepare(_ record: Record, _ committed: RecordNumber, from sender: DiskID) {
        guard phase == .following, sender == configuration?.primary, record.epoch <= promised
        else { return }
        announced = max(announced, committed)
        if record.number == prepared.next {
            appendRecord(record)
        } else if record.number > prepared {
            complain()
        } else {
            // A late duplicate: the log does not shrink (C6).
            acknowledge()
        }
        commitAnnounced()
    }

    mutating func takeBeacon(
        _ committed: RecordNumber, _ sent: RecordNumber, from sender: DiskID
    ) {
        guard phase == .following, sender == configuration?.primary else { return }
        announced = max(announced, committed)
        commitAnnounced()
        if sent > prepared { complain() }
        acknowledge()
    }

    /// Something was lost on the way; one complaint in a while is enough.
    private mutating func complain() {
        if let last = complained, last.after == prepared, now - last.at < Limits.commitBeacon {
            return
        }
        guard let primary = configuration?.primary else { return }
        complained = Complaint(after: prepared, at: now)
        send(.missing(after: prepared), to: primary)
    }

    mutating func commitAnnounced() {
        let known = min(announced, durable)
        guard known > committed else { return }
        committed = known
        effects.append(.commit(through: known))
    }

    // MARK: loads and repairs

    mutating func load(_ number: RecordNumber) {
        guard !loading.contains(number) else { return }
        loading.append(number)
        effects.append(.load(number))
    }

    mutating func finishLoad(_ number: RecordNumber, _ result: LoadResult) {
        loading.removeAll { $0 == number }
        var result = result
        if case .record(let record) = result, record.number != number || !isAlive(record) {
            // It was loaded before the log was cut; its number may have another record now.
            result = .unavailable
        }
        for fetcher in fetchers where fetcher.number == number {
            send(.fetched(number, result), to: fetcher.peer)
        }
        fetchers.removeAll { $0.number == number }
        switch result {
        case .record(let record): restore(record)
        case .superseded: restore(placeholder(number))
        case .unavailable: if number <= prepared { noteDamage(number) }
        }
    }

    /// A record is there: it ends its repair, and who lacks it gets it.
    private mutating func restore(_ record: Record) {
        if let index = repairs.firstIndex(where: { $0.number == record.number }) {
            repairs.remove(at: index)
            effects.append(.repaired(record))
        }
        supply(record)
    }

    mutating func serveFetch(_ number: RecordNumber, to peer: DiskID) {
        if let record = window[number] {
            send(.fetched(number, .record(record)), to: peer)
        } else if number > durable || isDamaged(number) {
            send(.fetched(number, .unavailable), to: peer)
        } else if fetchers.count < Limits.recordFetches {
            fetchers.append(Fetcher(number: number, peer: peer))
            load(number)
        }
    }

    mutating func takeFetched(
        _ number: RecordNumber, _ result: LoadResult, from sender: DiskID
    ) {
        if takeForward(number, result, from: sender) { return }
        guard let index = repairs.firstIndex(where: { $0.number == number }) else { return }
        switch result {
        case .record(let record):
            guard record.number == number, let record = adapted(record) else { return }
            restore(record)
        case .superseded: restore(placeholder(number))
        case .unavailable:
            // What is not committed may still be on its way there.
            guard number <= committed, !repairs[index].refusals.contains(sender) else { return }
            repairs[index].refusals.append(sender)
        }
    }

    /// Whether a record is known to be damaged here, and not repaired yet.
    package func isDamaged(_ number: RecordNumber) -> Bool {
        let place = repairs.firstIndex { $0.number >= number } ?? repairs.endIndex
        return place < repairs.endIndex && repairs[place].number == number
    }

    mutating func noteDamage(_ number: RecordNumber) {
        guard number <= prepared, !isDamaged(number) else { return }
        let place = repairs.firstIndex { $0.number >= number } ?? repairs.endIndex
        repairs.insert(Repair(number: number), at: place)
    }

    private var isActive: Bool {
        phase == .following || phase == .reconciling || phase == .serving
    }

    /// The other members of the last known configuration.
    private var others: [DiskID] { configuration?.members.filter { $0 != disk } ?? [] }

    /// It gives up what no member has (decision 0020).
    private var acceptsLoss: Bool { phase == .serving && configuration?.acceptsLoss == true }

    /// What is committed, could not be read again a while later, and is refused by all others.
    private mutating func giveUp() {
        let others = others
        let gone = inTurn.filter { repair in
            repair.number <= committed && repair.attempts > 1 && !loading.contains(repair.number)
                && others.allSatisfy { repair.refusals.contains($0) }
        }
        for repair in gone {
            repairs.removeAll { $0.number == repair.number }
            effects.append(.givenUp(repair.number))
            load(repair.number)
        }
    }

    /// The repairs that are tried now.
    private var inTurn: ArraySlice<Repair> {
        let first = repairs.firstIndex { $0.number > passed } ?? 0
        return repairs[first...].prefix(Limits.recordLoads)
    }

    /// What nobody could give waits while others have their turn.
    private mutating func passRepairs(_ patience: Int) {
        let inTurn = inTurn
        guard inTurn.count < repairs.count, let last = inTurn.last,
            inTurn.allSatisfy({ $0.due <= now && $0.attempts >= patience })
        else { return }
        for index in inTurn.indices { repairs[index].attempts = 0 }
        passed = last.number
    }

    private mutating func tickRepairs() {
        if acceptsLoss { giveUp() }
        guard isActive else { return }
        let others = others
        passRepairs(others.count + 2)
        for repair in inTurn where repair.due <= now {
            guard let index = repairs.firstIndex(where: { $0.number == repair.number }) else {
                continue
            }
            repairs[index].attempts += 1
            repairs[index].due = now + Limits.repairRetry
            if let record = window[repair.number] {
                restore(record)
                continue
            }
            // It may have been overwritten here, or be readable again.
            load(repair.number)
            if !others.isEmpty {
                send(.fetch(repair.number), to: others[repair.attempts % others.count])
            }
        }
    }

    // MARK: reads at a member

    /// Whether this copy has all that is committed up to a number, so that a read of who knows no
    /// higher one may be answered from it, whatever its role. What was replaced later may have
    /// come here as a mere placeholder, until everything through the last start is committed.
    package func mayServeReads(from number: RecordNumber) -> Bool {
        guard let start = starts.last, start.configuration.epoch <= adopted else { return false }
        return committed >= max(number, start.keepThrough)
    }

    // MARK: time

    mutating func tick() {
        tickPrimary()
        if !repairs.isEmpty { tickRepairs() }
    }

    /// When it wants to be stepped although nothing happens; nil while it is quiet.
    package var deadline: Instant? {
        var first: Instant?
        func consider(_ instant: Instant) { first = min(first ?? instant, instant) }
        switch phase {
        case .asking, .catchingUp: consider(retryAt)
        case .reconciling, .serving:
            for peer in peers {
                peer.beaconAt.map(consider)
                peer.delay.deadline.map(consider)
            }
            ownDelay.deadline.map(consider)
            if phase == .reconciling, servesFrom > now { consider(servesFrom) }
            if keepsLease { consider(leaseDue) }
        default: break
        }
        if !repairs.isEmpty, isActive {
            for repair in inTurn { consider(repair.due) }
        }
        return first
    }
}
