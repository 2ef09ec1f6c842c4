// A master: Paxos over the log of its disk, the namespace that it decides about, and, while it
// leads, the clients and chunk servers (D1, D2). Pure; MasterServer runs it.
//
//   state       event                     next
//   starting    the log was replayed      running: Paxos goes on where the log ends
//   starting    the log is damaged        running: takes no part; alarm
//   running     entries are damaged, and  running: takes part as before (docs/decisions/0015)
//               others have them
//   running     damaged, and others lead  its log gets a new name, under which it begins with its
//                                         snapshot, as one that lost its disk (M18)
//   running     becameLeader              leads: answers clients, orders chunk servers
//   leads       stoppedLeading            running: whoever waits is told to try again (S7)
//   leads       its disk is nearly full   hands over, once; where it goes on leading, changes of
//                                         clients get `noSpace` until there is space (C20)
//   any         the disk failed, or logs  halted (S4, S9)
//               of masters diverge
//
// Invariants:
//  1. A reply to a change leaves after its command was chosen and applied (M7); a reply to a
//     question after a read index (M10).
//  2. `lead` is soft: what must survive a leader is in the namespace.
//  3. Chunk servers hear of an epoch only after its command was chosen (C1).

package import Base
package import Consensus
import Namespace
package import Node
import Store
import Wire

/// What a master is told when it starts.
package struct MasterConfiguration: Sendable {
    package var cell: CellID
    package var id: MasterID
    /// The masters of a new cell, this one too, until the log names others.
    package var masters: [MasterAddress]
    /// It is none of these: its place is in the log, or will be (M17).
    package var isJoining: Bool
    /// Wanted copies, 1 to `Limits.members`.
    package var goal: Int
    /// The name of its disk if that is new (S8).
    package var disk: DiskID
    /// Bytes of a segment of its log if the disk is new.
    package var segmentSize: Int
    /// Of the root directory; the same on all masters of a cell.
    package var rootMode: UInt16
    package var rootUser: UInt32
    package var rootGroup: UInt32
    /// Of everything random.
    package var seed: UInt64
    /// A set gets another member when it lacked one for so long (C19).
    package var repairDelay: Interval
    /// What a disk has of a set that it left by a failure is emptied after this (C14).
    package var trashTime: Interval
    /// A disk that delays writes gets nothing new for so long (C21).
    package var grayPause: Interval
    /// As a leader it calls for a snapshot after so many entries, or bytes of them (M15).
    package var snapshotEntries: UInt64
    package var snapshotBytes: UInt64

    /// Segments of production size and a root directory of root, unless given.
    package init(
        cell: CellID, id: MasterID, masters: [MasterAddress], isJoining: Bool = false, goal: Int,
        disk: DiskID, seed: UInt64, segmentSize: Int = Limits.segment, rootMode: UInt16 = 0o755,
        rootUser: UInt32 = 0, rootGroup: UInt32 = 0,
        repairDelay: Interval = Limits.repairDelay, trashTime: Interval = Limits.trashTime,
        grayPause: Interval = Limits.grayPause,
        snapshotEntries: UInt64 = Limits.snapshotEntries,
        snapshotBytes: UInt64 = Limits.snapshotBytes
    ) {
        precondition((1...Limits.members).contains(goal), "goal out of range")
        self.cell = cell
        self.id = id
        self.masters = masters
        self.isJoining = isJoining
        self.goal = goal
        self.disk = disk
        self.segmentSize = segmentSize
        self.rootMode = rootMode
        self.rootUser = rootUser
        self.rootGroup = rootGroup
        self.seed = seed
        self.repairDelay = repairDelay
        self.trashTime = trashTime
        self.grayPause = grayPause
        self.snapshotEntries = snapshotEntries
        self.snapshotBytes = snapshotBytes
    }
}

/// The core of a master.
package struct MasterCore: NodeCore, Sendable {
    /// The kind of all records in a master's log.
    private static let recordKind = LogRecordKind(rawValue: 1)
    /// The leader looks after sets and servers at least this often.
    private static let rounds = Limits.serverHeartbeat

    let configuration: MasterConfiguration
    var log: SegmentLog
    /// The files of the disk, until they were looked at.
    var inventory: DiskInventory?
    var snapshot = SnapshotState()
    /// As of the last entry that was applied.
    var masters: KnownMasters
    /// The order that the leader looks at, and who gave it.
    var ordering: ReplyAddress?
    /// What was said of this master's place among them.
    var place = MasterPlace.member
    var flush = FlushWatch()
    var space = SpaceWatch()
    private var recovered: [PaxosRecord] = []
    private var hasRot = false
    private var isRenaming = false
    /// Damaged entries that others have not sent, and since when they are so many.
    private var mending: (left: Int, since: Instant)?
    /// The log's number of the record before ticket 1.
    private var ticketBase: UInt64 = 0
    /// Nil while the log is replayed.
    package internal(set) var paxos: PaxosNode?
    var namespace: Namespace
    /// What only a leader has.
    var lead: Leadership?
    var random: SeededRandom
    private(set) var time = NodeTime(now: .zero, wall: .zero)
    private var effects: [NodeEffect] = []
    private var lastTag: UInt64 = 0
    private(set) var isHalted = false
    private var hasAlarmedIdentity = false
    /// Since this process began.
    private(set) var connections = ConnectionCounts()
    /// Copies that nobody knew when their set was adopted, and of which an alarm was raised.
    var alarmedCopies: Set<ReplicaKey> = []

    /// A master that was not started; the first event must be `start`.
    package init(_ configuration: MasterConfiguration) {
        self.configuration = configuration
        masters = KnownMasters(configuration)
        log = SegmentLog(
            LogConfiguration(
                cell: configuration.cell, owner: .master(configuration.id),
                disk: configuration.disk, segmentSize: configuration.segmentSize,
                hasCheckpoints: true))
        namespace = Namespace(
            rootMode: configuration.rootMode, rootUser: configuration.rootUser,
            rootGroup: configuration.rootGroup)
        random = SeededRandom(seed: configuration.seed)
    }

    // MARK: What a host may look at

    /// It leads and answers.
    package var isLeading: Bool { lead != nil }
    /// Its log is damaged: it takes no part.
    package var isDamaged: Bool { paxos?.hasRot ?? false }
    /// The last slot that it applied.
    package var applied: Slot { paxos?.delivered ?? .none }
    /// The state of its namespace; equal on all masters that applied the same slots.
    package var stateDigest: Digest { namespace.digest() }

    // MARK: NodeCore

    package mutating func step(_ events: [NodeEvent], at time: NodeTime) -> [NodeEffect] {
        precondition(!isHalted, "a halted core was stepped")
        self.time = time
        lead?.clock.advance(to: time)
        for event in events where !isHalted { take(event) }
        if paxos != nil, !isHalted { endTurn() }
        if !isHalted { carryOut(log.flush(now: time.now)) }
        defer { effects = [] }
        return effects
    }

    package var wakeTime: Instant {
        if wantsSnapshotTurn { return time.now }
        var wake = log.wakeTime
        if let paxos, !isFrozen { wake = min(wake, paxos.wakeTime) }
        if let lead { wake = min(wake, lead.nextRound) }
        // Timers of hosts may not reach to the end of time.
        return min(wake, time.now + .seconds(60))
    }

    private mutating func take(_ event: NodeEvent) {
        switch event {
        case .start(let inventory):
            self.inventory = inventory
            // Two snapshots have to find room beside the segments.
            let share = DiskInventory(
                files: inventory.files, capacity: inventory.capacity / 100 * SpaceWatch.percent)
            carryOut(log.start(share))
        case .disk(let operation, let result):
            if snapshot.files.owns(operation) {
                take(snapshot.files.completed(operation, result, &log))
            } else {
                carryOut(log.completed(operation, result, now: time.now))
            }
        case .frame(let peer, let frame): receive(frame, from: peer)
        case .disconnected(.client(let connection)): lead?.forget(connection)
        case .disconnected(.server(let server)): lead?.lose(server, at: time.now)
        case .disconnected(.master): break
        case .surroundings(let seen):
            connections = seen.connections
            log.learn(free: seen.space.free, limit: space.limit, percent: SpaceWatch.percent)
        }
    }

    /// Time, and what waited for the end of the turn: one read probe and one batch for all.
    private mutating func endTurn() {
        watchDisk()
        watchSpace()
        leaveDamageBehind()
        carryOut(.tick(time.wall))
        notePlace()
        if let lead, time.now >= lead.nextRound || lead.isDirty {
            self.lead?.nextRound = time.now + Self.rounds
            makeRound()
        }
        startReads()
        callForSnapshot()
        propose()
        sendOrders()
        makeSnapshot()
        fetchSnapshot()
        forgetEntries()
        lookAtOthers()
    }

    // MARK: Doors

    mutating func tell(_ peer: Peer, isAt address: PeerAddress) {
        effects.append(.address(peer, address))
    }
    mutating func carryOut(_ effect: DiskEffect) { effects.append(.disk(effect)) }
    mutating func send(_ peer: Peer, _ frame: Frame) { effects.append(.send(peer, frame)) }
    mutating func report(_ text: String, isAlarm: Bool = false) {
        effects.append(.report(text, isAlarm: isAlarm))
    }
    mutating func halt(_ reason: String) {
        guard !isHalted else { return }
        isHalted = true
        effects.append(.halt(reason))
    }
    mutating func newTag() -> PaxosTag {
        lastTag += 1
        return PaxosTag(rawValue: lastTag)
    }

    private mutating func receive(_ frame: Frame, from peer: Peer) {
        switch (frame.kind, peer) {
        case (.paxos, .master(let master)): receivePaxos(frame, from: master)
        case (.snapshot, .master(let master)): receiveSnapshot(frame, from: master)
        case (.metadataRequest, _): receiveRequest(frame, from: peer)
        case (.report, .server(let server)): receiveReport(frame, from: server)
        default: report("unexpected frame \(frame.kind) from \(peer)")
        }
    }

    private mutating func receivePaxos(_ frame: Frame, from master: MasterID) {
        guard master != configuration.id else {
            if !hasAlarmedIdentity {
                report("another master calls itself \(master) too", isAlarm: true)
            }
            hasAlarmedIdentity = true
            return
        }
        guard paxos != nil else { return }
        var reader = ByteReader(frame.head)
        do throws(DecodeError) {
            let message = try PaxosMessage(from: &reader)
            try reader.finish()
            carryOut(.message(from: master, message))
        } catch {
            report("bad message from master \(master): \(error)")
        }
    }

    // MARK: Log

    mutating func carryOut(_ outputs: [LogOutput]) {
        for output in outputs where !isHalted {
            switch output {
            case .disk(let effect): effects.append(.disk(effect))
            case .replayed(let record): replay(record)
            case .damaged(let damage): note(damage)
            case .ready: startPaxos()
            case .durable(let number):
                guard number.rawValue > ticketBase else { break }
                carryOut(
                    .persisted(through: PaxosTicket(rawValue: number.rawValue - ticketBase)))
            case .failed(let failure): halt("the log failed: \(failure)")
            case .identified: startSnapshots()
            case .renamed: beginAgain()
            case .placed: break
            }
        }
    }

    /// Of an entry whose header is there only what it says is lost; others say it.
    private mutating func note(_ damage: LogDamage) {
        let numbers = "\(damage.numbers.lowerBound) to \(damage.numbers.upperBound)"
        if damage.hasAllHeaders {
            report("the payload of records \(numbers) of the log is damaged", isAlarm: true)
            for record in damage.records { replay(record) }
        } else {
            hasRot = true
            report(
                "the log lost records \(numbers): this master takes no part until others lead",
                isAlarm: true)
        }
    }

    private mutating func replay(_ record: LogRecord) {
        do throws(DecodeError) {
            recovered.append(
                try PaxosRecord(header: record.header[...], payload: record.payload))
        } catch {
            // Its checksum is right, so another release wrote it.
            halt("record \(record.number) of the log can't be read: \(error)")
        }
    }

    private mutating func startPaxos() {
        join(hasRot: hasRot)
        if let paxos, paxos.isMending {
            report("asks the other masters for \(paxos.missing) entries of its log")
        } else if paxos?.hasRot == true, !hasRot {
            report(
                "the log contradicts itself: this master takes no part until others lead",
                isAlarm: true)
        }
        // What is known to be chosen is applied before anything else comes.
        carryOut(.tick(time.wall))
    }

    private mutating func join(hasRot: Bool) {
        ticketBase = log.nextNumber.rawValue - 1
        paxos = PaxosNode(
            id: configuration.id, disk: log.superblock?.vote ?? .none,
            members: masters.membership, base: snapshot.base, records: recovered, hasRot: hasRot,
            seed: random.next(), now: time.now)
        recovered = []
        tellAddresses()
        tellSnapshots()
    }

    /// What it promised may be lost, so nothing that it says under its old name may count. The
    /// others can do without it, since one of them leads.
    private mutating func leaveDamageBehind() {
        if mending != nil, paxos?.hasRot == false {
            mending = nil
            report("its log is whole again")
        }
        guard let paxos, paxos.hasRot, !paxos.isOldCopy, !isRenaming, !isMended(paxos),
            paxos.leaderHint(now: time.now) != nil
        else { return }
        isRenaming = true
        carryOut([log.rename(DiskID(rawValue: random.next()))])
    }

    /// Whether others send what it lacks, or may still do so.
    private mutating func isMended(_ paxos: PaxosNode) -> Bool {
        guard paxos.isMending else { return false }
        if mending?.left != paxos.missing { mending = (paxos.missing, time.now) }
        return mending.map { time.now - $0.since < Limits.strangerDelay } ?? false
    }

    private mutating func beginAgain() {
        isRenaming = false
        mending = nil
        report("begins again with its snapshot of slot \(snapshot.base.slot), and without a vote")
        snapshot.base = snapshot.base.unaccepted
        join(hasRot: false)
    }

    // MARK: Paxos

    mutating func carryOut(_ event: PaxosEvent) {
        if isFrozen {
            // As good as lost: whoever sent it asks again.
            guard case .persisted = event else { return }
        }
        let effects = paxos?.step(event, now: time.now) ?? []
        carryOut(effects)
    }

    mutating func carryOut(_ effects: [PaxosEffect]) {
        for effect in effects where !isHalted {
            switch effect {
            case .persist(let record, let ticket):
                var header = ByteWriter(capacity: 100)
                record.encodeHeader(into: &header)
                let number = log.append(
                    kind: Self.recordKind, header: header.bytes, payload: record.payload)
                precondition(number.rawValue == ticketBase + ticket.rawValue, "tickets skip")
            case .send(let master, let message):
                var writer = ByteWriter(capacity: 128)
                message.encode(into: &writer)
                send(.master(master), Frame(kind: .paxos, head: writer.bytes))
            case .chosen(let entry): apply(entry)
            case .becameLeader(let ballot): startLeading(ballot)
            case .stoppedLeading: stopLeading()
            case .readReady(let tag, _): lead?.readsReady(tag)
            case .readFailed(let tag): failReads(tag)
            case .proposalFailed(let tag): failBatch(tag)
            case .ordered(_, let refusal):
                guard let address = ordering else { break }
                ordering = nil
                reply(refusal.map { .refused($0) } ?? .done, to: address)
            case .diverged(let slot): halt("the log of slot \(slot) differs between masters")
            }
        }
    }

    private mutating func startLeading(_ ballot: Ballot) {
        report("leads in ballot \(ballot)")
        lead = Leadership(
            now: time.now, time: max(namespace.time, time.wall),
            lastSession: namespace.sessionViews.last?.id ?? .none,
            servers: namespace.serverRecords, sets: namespace.setRecords)
        for index in lead?.sets.states.indices ?? 0..<0 { _ = hold(at: index) }
        let held = namespace.heldCount
        if held > 0 {
            report(
                "this state was loaded from a dump: \(held) sets wait until all chunk servers "
                    + "are up and martlet meta adopt is run", isAlarm: true)
        }
    }

    private mutating func stopLeading() {
        report("stopped leading")
        guard let old = lead else { return }
        lead = nil
        for waiter in old.allWaiters { reply(.retry, to: waiter) }
    }
}
