// Primary-backup replication of one set on one disk (PacificA; C3-C6, C8, C10, C15).
//
//  phase         who      meaning                                   left by
//  waiting       any      no epoch it may act in                    configure, query
//  asking        primary  collects the state of every member        all states
//  catchingUp    primary  fetches what a member has beyond it       last fetched
//  starting      primary  its EpochStart is on its way to the disk  durable
//  reconciling   primary  members get what they lack                all have keepThrough, and
//                                                                   older leases are over
//  serving       primary  numbers and commits writes                a higher epoch
//  joining       backup   promised the epoch                        begin, and its starts durable
//  following     backup   appends and acknowledges                  a higher epoch
//
// A learner (C9) is joining or following as a backup is, without being a member.
//
// Invariants:
//  1. It acts only in an epoch whose start is durable here, which is the highest it ever promised,
//     and which is higher than any that was durable when it was started (C3, C10).
//  2. Within an epoch its log never shrinks, and grows by consecutive numbers (C4, C6).
//  3. It acknowledges, and counts for itself, only what is durable (S2).
//  4. A record is committed when every member has it, in order; then its writer is answered (C5),
//     unless the members are too few: then it sends the write again, and waits for more of them.
//  5. Nothing is numbered or answered before everything through keepThrough is committed (C8).
//
// Every member is asked before an epoch starts, and a member that has more than the primary gives
// it. The members of an epoch were members of the one before, or a learner that had everything,
// so nothing acknowledged is lost (C2, C5), and the starts that they have form one sequence (an
// epoch that was begun and then overtaken can't kill records that its successors keep). A disk
// that left may have begun an epoch that nobody else knows; it comes back as a learner, and
// starts over unless its last start is in the primary's history.

package import Base

/// A replica of one set; see the head of this file.
package struct SetReplica: Hashable, Sendable {
    /// What it is doing; see the table.
    enum Phase: Hashable, Sendable {
        case waiting, asking, starting, reconciling, serving, joining, following
        case catchingUp(target: RecordNumber)
    }
    /// One append on its way to the disk.
    struct Append: Hashable, Sendable {
        enum What: Hashable, Sendable {
            case record(RecordNumber)
            case start(EpochStart)
        }
        /// Where the host put it, once it told.
        var place: LogNumber?
        var what: What
    }
    /// A damaged record that is being fetched.
    struct Repair: Hashable, Sendable {
        var number: RecordNumber
        var attempts = 0
        var due = Instant.zero
        /// Members of this epoch that can't give it.
        var refusals: [DiskID] = []
    }
    /// A peer that waits for a load.
    struct Fetcher: Hashable, Sendable {
        var number: RecordNumber
        var peer: DiskID
    }
    /// What was granted to a primary, and until when (C11).
    struct OpenGrant: Hashable, Sendable {
        var primary: DiskID
        var until: Instant
    }
    /// A question about its state.
    struct Question: Hashable, Sendable {
        var primary: DiskID
        var run: Incarnation
        var after: Epoch
    }
    /// A gap that the primary was told about.
    struct Complaint: Hashable, Sendable {
        var after: RecordNumber
        var at: Instant
    }

    /// The set and the disk of this replica.
    package let set: SetID
    package let disk: DiskID
    let incarnation: Incarnation
    /// The highest epoch that was durable at the start: it must not act in it (C10).
    let startedIn: Epoch
    /// A start of an epoch up to this one kills nothing: damage had taken it from this disk.
    let recordEpoch: Epoch

    var phase = Phase.waiting
    /// The highest epoch it heard of; it refuses lower ones (C3).
    package internal(set) var promised: Epoch
    /// The configuration of `promised`, once known; the one before it until then.
    package internal(set) var configuration: SetConfiguration?
    /// The latest epoch starts, ascending; on the disk or on their way there.
    var starts: [EpochStart]
    /// The highest epoch whose start is durable here.
    package internal(set) var adopted: Epoch
    /// The last record it appended.
    package internal(set) var prepared: RecordNumber
    /// The last record that is durable here.
    package internal(set) var durable: RecordNumber
    /// The last record it knows to be committed.
    package internal(set) var committed: RecordNumber
    /// What the primary said is committed, maybe beyond what is durable here.
    var announced = RecordNumber.none
    /// What the disk can take: told to the primary (C20). Set by the host.
    package var diskFill = DiskFill.roomy
    /// What is copied to this disk slows its clients down: told to the primary (C19). Set by the
    /// host.
    package var isStrained = false
    /// The primary is not told of it again before.
    var tellFillAt = Instant.zero
    /// Bytes that may go to a learner now; less by what went when a step is over (C19). Set by
    /// the host.
    package var copyBudget = Int.max / 2
    /// A learner waits for more of it.
    package internal(set) var wantsCopyBudget = false
    /// How long this disk takes for the records that it numbers as the primary.
    var ownDelay = AnswerDelay()

    /// Appends in the order of the log: those with a place, then those still without.
    var appended = Fifo<Append>()
    var unplaced = 0

    var peers: [Peer] = []
    var window = RecordWindow()
    /// Records from the disk that members lack.
    var loaded: [RecordNumber: Record] = [:]
    /// Numbers whose load is under way, ascending.
    var loading: [RecordNumber] = []
    /// Peers that wait for a load.
    var fetchers: [Fetcher] = []
    var repairs: [Repair] = []
    /// Repairs up to this one had their turn, and those after it have it now.
    var passed = RecordNumber.none
    /// What it granted to primaries, and until when (C11).
    var grants: [OpenGrant] = []
    /// It does not serve as the primary before: an older one's lease may last so long (C11).
    var servesFrom = Instant.zero
    /// Until then the primary keeps its lease up.
    var leaseWanted = Instant.zero
    var leaseDue = Instant.zero
    /// When a question without an answer is asked again.
    var retryAt = Instant.zero
    /// The last number asked for while catching up.
    var requested = RecordNumber.none
    /// The question about its state that waits for the disk.
    var question: Question?
    /// The last gap it told the primary about, and when.
    var complained: Complaint?

    var now = Instant.zero
    var effects: [ReplicaEffect] = []

    /// A replica at the start of its process; it acts in no epoch until `configure` or a query
    /// brings a new one (C10).
    package init(
        set: SetID, disk: DiskID, incarnation: Incarnation, restored: RestoredReplica,
        now: Instant = .zero
    ) {
        self.set = set
        self.disk = disk
        self.incarnation = incarnation
        starts = restored.starts
        configuration = restored.starts.last?.configuration
        adopted = configuration?.epoch ?? .none
        recordEpoch = restored.recordEpoch
        startedIn = max(adopted, recordEpoch)
        promised = adopted
        prepared = restored.prepared
        durable = restored.prepared
        committed = restored.committed
        repairs = restored.damaged.map { Repair(number: $0) }
        // It counts as having granted at its start what it may have forgotten (DESIGN 3.2).
        for start in starts { grant(start.configuration.primary, from: now) }
    }

    /// The members of `adopted`.
    package var members: [DiskID] {
        starts.last { $0.configuration.epoch == adopted }?.configuration.members ?? []
    }
    /// It is the primary of an epoch in force and has reconciled.
    package var isServing: Bool { phase == .serving }
    /// It is, or is becoming, the primary of the epoch it promised.
    package var isPrimary: Bool {
        configuration?.primary == disk && configuration?.epoch == promised
    }
    /// Another member is, or is becoming, the primary of the epoch it promised.
    package var isBackup: Bool {
        configuration?.primary != disk && configuration?.epoch == promised
    }
    /// Records are damaged here; such a member is never made primary.
    package var hasRot: Bool { !repairs.isEmpty }
    /// Something it appended is not durable yet.
    package var isAppending: Bool { !appended.isEmpty }
    /// What the other members' disks can take, as the primary heard: the worst of it (C20).
    package var othersFill: DiskFill { peers.reduce(.roomy) { max($0, $1.fill) } }
    /// The server of its learner, which lacks something, says that copies slow its clients down
    /// (C19).
    package var isLearnerStrained: Bool {
        peers.contains { $0.isLearner && $0.isStrained && $0.acknowledged < prepared }
    }
    /// It is filled as a learner.
    package var isLearner: Bool { isBackup && configuration?.members.contains(disk) == false }
    /// Whether everyone whose disk was full said so lately.
    package func isFillFresh(now: Instant) -> Bool {
        peers.allSatisfy { $0.fill == .roomy || now - $0.fillAt < Limits.memberSilence }
    }
    /// A write can be numbered now; otherwise it waits at the host.
    package var takesWrites: Bool {
        isServing && hasEnoughMembers && window.count < Limits.preparedRecords
            && window.bytes < Limits.preparedBytes
    }
    /// With fewer members nothing is numbered, and nothing is acknowledged (C5).
    var hasEnoughMembers: Bool {
        configuration.map { $0.members.count >= $0.minMembers } ?? false
    }
    /// The last number that writes in flight have, for a write that was sent again (C15).
    package func number(of session: SessionID, _ sequence: RequestNumber) -> RecordNumber? {
        window.number(of: session, sequence)
    }

    /// Takes one event and says what is to be done.
    package mutating func step(_ event: ReplicaEvent, now: Instant) -> [ReplicaEffect] {
        self.now = now
        switch event {
        case .configure(let configuration): configure(configuration)
        case .fill(let epoch, let learner): fill(epoch, learner)
        case .discard(let configuration): discard(configuration)
        case .wantLease: wantLease()
        case .wantFold: tellFill()
        case .writes(let writes): number(writes)
        case .message(let message): receive(message)
        case .durable(let place): becomeDurable(through: place)
        case .loaded(let number, let result): finishLoad(number, result)
        case .damaged(let number): noteDamage(number)
        case .lost(let peer): losePeer(peer)
        case .tick: break
        }
        tick()
        let result = effects
        effects = []
        return result
    }

    /// The host tells where it put the next append of the effects, one call for each.
    package mutating func placed(at place: LogNumber) {
        precondition(unplaced > 0, "a place without an append")
        appended[appended.count - unplaced].place = place
        unplaced -= 1
    }

    // MARK: configuration

    private mutating func configure(_ next: SetConfiguration) {
        precondition(next.set == set, "configuration of another set")
        let isKnown = configuration?.epoch == promised
        guard next.epoch > promised || (next.epoch == promised && !isKnown),
            next.epoch > startedIn
        else { return }
        promised = next.epoch
        configuration = next
        for index in repairs.indices { repairs[index].refusals = [] }
        loaded = [:]
        complained = nil
        question = nil
        leaseWanted = .zero
        if next.primary == disk {
            ask(next)
        } else {
            resign()
            phase = .joining
        }
    }

    /// Another replica is primary now: whoever waits here sends the write again there.
    mutating func resign() {
        peers = []
        wantsCopyBudget = false
        window.removeThrough(prepared) { entry in
            effects += entry.tags.map { .answer(tag: $0, .notPrimary) }
        }
        fetchers = []
    }

    /// A higher epoch is in force somewhere; its configuration will come from the masters.
    mutating func promise(_ epoch: Epoch) {
        guard epoch > promised else { return }
        promised = epoch
        phase = .waiting
    }

    // MARK: the log

    mutating func appendRecord(_ record: Record) {
        precondition(record.number == prepared.next, "a gap in the log of a set")
        prepared = record.number
        appended.append(Append(what: .record(record.number)))
        unplaced += 1
        effects.append(.append(record))
    }

    /// Writes an epoch start; what it kills is gone from here on (DESIGN 3.1).
    mutating func appendStart(_ start: EpochStart) {
        precondition(start.configuration.epoch > starts.last?.configuration.epoch ?? .none)
        starts.append(start)
        if starts.count > ReplicationMessage.starts { starts.removeFirst() }
        if start.startsOver {
            startOver()
        } else if start.keepThrough < prepared, start.configuration.epoch > recordEpoch {
            truncate(to: start.keepThrough)
        }
        appended.append(Append(what: .start(start)))
        unplaced += 1
        effects.append(.appendEpoch(start))
    }

    private mutating func truncate(to last: RecordNumber) {
        precondition(last >= committed, "a committed record would be cut off")
        prepared = last
        durable = min(durable, last)
        // What is still on its way counts up to the cut only.
        for index in 0..<appended.count {
            if case .record(let number) = appended[index].what, number > last {
                appended[index].what = .record(last)
            }
        }
        repairs.removeAll { $0.number > last }
        window.removeAbove(last) { entry in
            effects += entry.tags.map { .answer(tag: $0, .notPrimary) }
        }
    }

    private mutating func becomeDurable(through place: LogNumber) {
        var last = durable
        let before = appended.count
        while let first = appended.first, let at = first.place, at <= place {
            switch appended.removeFirst().what {
            case .record(let number): last = max(last, number)
            case .start(let start): adopted = start.configuration.epoch
            }
        }
        guard appended.count < before else { return }
        durable = last
        ownDelay.answered(through: durable, now)
        switch phase {
        case .starting where adopted == promised: startReconciling()
        case .joining where adopted == promised && question == nil: follow()
        case .joining: answerQuestion()
        case .following:
            commitAnnounced()
            acknowledge()
        case .reconciling, .serving: advance()
        default: break
        }
    }

    /// The records that are alive, as far as the known epoch starts tell.
    func isAlive(_ record: Record) -> Bool {
        !starts.contains { $0.kills(record.epoch, record.number) }
    }

    // MARK: messages

    mutating func send(_ body: ReplicationBody, to receiver: DiskID) {
        effects.append(
            .send(
                ReplicationMessage(
                    set: set, sender: disk, receiver: receiver, epoch: promised, body: body)))
    }

    private mutating func receive(_ message: ReplicationMessage) {
        precondition(message.set == set && message.receiver == disk, "misdirected message")
        let sender = message.sender
        switch message.body {
        case .query(let next, let incarnation, let after):
            guard next.epoch == message.epoch, next.primary == sender else { return }
            configure(next)
            answerQuery(message, incarnation, after)
            return
        case .stale:
            promise(message.epoch)
            return
        default: break
        }
        guard message.epoch == promised else {
            if message.epoch < promised { send(.stale, to: sender) }
            return
        }
        if let index = position(of: sender) { peers[index].heard = now }
        switch message.body {
        case .state(let state, let run): takeState(state, run, from: sender)
        case .begin(let start, let missed): begin(start, missed, from: sender)
        case .prepare(let committed, let records):
            for record in records { prepare(record, committed, from: sender) }
        case .beacon(let committed, let sent): takeBeacon(committed, sent, from: sender)
        case .acknowledge(let durable, let committed, let fill, let isStrained):
            takeAcknowledgement(from: sender, durable, committed, fill, isStrained)
        case .missing(let after): rewind(sender, after: after)
        case .fetch(let number): serveFetch(number, to: sender)
        case .fetched(let number, let result): takeFetched(number, result, from: sender)
        case .lease(let sent): giveLease(sent, to: sender)
        case .granted(let sent): takeLease(sent, from: sender)
        // The host's.
        case .query, .stale, .compare, .compared, .copy, .copied: break
        }
    }
}
