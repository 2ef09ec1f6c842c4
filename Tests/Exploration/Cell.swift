// One member of the model: the production replica, its disk and its process.
//
// The disk is a list of appends of which a prefix is durable; what epoch starts kill is left out
// of it. The host's part is the smallest there can be: it answers loads at once, and looks up
// committed writes that come again (C15). Time stands still at zero, where everything that is to
// be sent again is due with each event; see `SetReplica.forgetTimes`.

import Base
import Replication

/// See the head of this file.
struct Cell: Hashable {
    /// One append.
    enum Entry: Hashable {
        case start(EpochStart)
        case record(Record)
    }
    var replica: SetReplica
    var run = Incarnation(rawValue: 1)
    /// Durable: the epoch starts, and the records that none of them kills, by number.
    var starts: [EpochStart] = []
    var records: [Record] = []
    /// On its way to the disk.
    var pending: [Entry] = []

    init(disk: DiskID, scope: Scope) {
        replica = SetReplica(
            set: scope.set, disk: disk, incarnation: run,
            restored: RestoredReplica(
                starts: [], prepared: .none, committed: .none, damaged: []))
    }

    /// What a step brought about besides the new state.
    struct Result {
        var sent: [ReplicationMessage] = []
        var answers: [(tag: UInt64, number: RecordNumber)] = []
        var alarm: String?
    }

    /// Steps the replica, and serves it until it wants nothing more.
    mutating func step(_ first: ReplicaEvent, _ scope: Scope, now: Instant = .zero) -> Result {
        var result = Result()
        if case .writes(let writes) = first, let tag = writes.first?.tag,
            let number = committedNumber(of: tag)
        {
            result.answers.append((tag, number))
            return result
        }
        var events = [first]
        while !events.isEmpty {
            for effect in replica.step(events.removeFirst(), now: now) {
                switch effect {
                case .appendEpoch(let start): append(.start(start))
                case .append(let record): append(.record(record))
                case .send(let message): result.sent.append(timeless(message))
                case .load(let number): events.append(.loaded(number, load(number)))
                case .answer(let tag, .committed(let number)):
                    result.answers.append((tag, number))
                case .alarm(let text): result.alarm = text
                case .commit, .answer, .repaired, .givenUp: break
                }
            }
            if scope.syncsAtOnce, events.isEmpty, !pending.isEmpty { events.append(sync()) }
        }
        replica.forgetTimes(leases: !scope.hasLeases)
        return result
    }

    /// What an acknowledgement says of commits only decides when the next beacon is due.
    private func timeless(_ message: ReplicationMessage) -> ReplicationMessage {
        guard case .acknowledge(let durable, _, let fill, _) = message.body else { return message }
        var message = message
        message.body = .acknowledge(
            durable: durable, committed: .none, fill: fill, isStrained: false)
        return message
    }

    /// Everything appended becomes durable; the event that tells the replica.
    mutating func sync() -> ReplicaEvent {
        let last = LogNumber(rawValue: UInt64(pending.count))
        for entry in pending { Self.apply(entry, &starts, &records) }
        pending = []
        return .durable(through: last)
    }

    /// The process ends when `kept` of the pending appends were on the disk, and a new one starts.
    mutating func restart(kept: Int, _ scope: Scope) {
        for entry in pending.prefix(kept) { Self.apply(entry, &starts, &records) }
        pending = []
        run = Incarnation(rawValue: run.rawValue + 1)
        // Nothing says what was committed: checkpoints are rare.
        replica = SetReplica(
            set: scope.set, disk: replica.disk, incarnation: run,
            restored: RestoredReplica(
                starts: starts, prepared: records.last?.number ?? .none, committed: .none,
                damaged: []))
        replica.forgetTimes(leases: !scope.hasLeases)
    }

    private mutating func append(_ entry: Entry) {
        pending.append(entry)
        replica.placed(at: LogNumber(rawValue: UInt64(pending.count)))
    }

    private static func apply(
        _ entry: Entry, _ starts: inout [EpochStart], _ records: inout [Record]
    ) {
        switch entry {
        case .start(let start):
            if start.startsOver { starts = [] }
            starts.append(start)
            records.removeAll { start.kills($0.epoch, $0.number) }
        case .record(let record):
            guard !starts.contains(where: { $0.kills(record.epoch, record.number) }) else {
                return
            }
            records.removeAll { $0.number == record.number }
            let place = records.firstIndex { $0.number > record.number } ?? records.endIndex
            records.insert(record, at: place)
        }
    }

    /// What a read of the log gives, synced or not.
    private func load(_ number: RecordNumber) -> LoadResult {
        var starts = starts
        var records = records
        for entry in pending { Self.apply(entry, &starts, &records) }
        guard let record = records.first(where: { $0.number == number }) else {
            return .unavailable
        }
        return .record(record)
    }

    private func committedNumber(of tag: UInt64) -> RecordNumber? {
        guard replica.takesWrites else { return nil }
        return records.first {
            $0.sequence.rawValue == tag && $0.number <= replica.committed
        }?.number
    }
}

/// What the invariants need of a cell.
struct CellFacts {
    var promised: Epoch
    var adopted: Epoch
    /// The last epoch start on the disk.
    var epochOnDisk: Epoch
    var prepared: RecordNumber
    var durable: RecordNumber
    var committed: RecordNumber
    /// Which write each durable record is of, four bits for each number from the lowest; zero
    /// where there is none.
    var content: UInt32 = 0
    var isServing: Bool
    var isFollowing: Bool
    var hasLease: Bool
    var takesWrites: Bool
    var pending: Int
    /// An epoch start is on its way to the disk.
    var isBeginning: Bool
    var learner: LearnerProgress?

    init(_ cell: Cell) {
        let replica = cell.replica
        promised = replica.promised
        adopted = replica.adopted
        epochOnDisk = cell.starts.last?.configuration.epoch ?? .none
        prepared = replica.prepared
        durable = replica.durable
        committed = replica.committed
        isServing = replica.isServing
        isFollowing = replica.isBackup && replica.adopted == replica.promised
        hasLease = replica.hasLease(now: .zero)
        takesWrites = replica.takesWrites
        pending = cell.pending.count
        isBeginning = cell.pending.contains {
            if case .start = $0 { true } else { false }
        }
        learner = replica.learner
        for record in cell.records where record.number <= durable {
            content |= UInt32(record.sequence.rawValue) << shift(record.number)
        }
    }

    private func shift(_ number: RecordNumber) -> UInt32 {
        UInt32(min(number.rawValue, 8) - 1) * 4
    }
    /// The write that is durable under a number.
    func write(_ number: RecordNumber) -> UInt64 { UInt64(content >> shift(number) & 15) }
    /// The content up to a number.
    func prefix(_ number: RecordNumber) -> UInt32 {
        content & UInt32(truncatingIfNeeded: UInt64(1) << (min(number.rawValue, 8) * 4) &- 1)
    }
    /// A write is there twice.
    private var isRepeating: Bool {
        let writes = (1...8).map { write(RecordNumber(rawValue: $0)) }.filter { $0 != 0 }
        return Set(writes).count < writes.count
    }
    /// How many records are there without a gap.
    var count: UInt64 {
        var count: UInt64 = 0
        while count < 8, write(RecordNumber(rawValue: count + 1)) != 0 { count += 1 }
        return count
    }

    /// What a step from `before` to this breaks, whatever the others do.
    func fault(after before: CellFacts, isRestart: Bool) -> String? {
        if count < durable.rawValue { return "counts as durable what is not on the disk (S2)" }
        if committed > durable { return "committed beyond what is durable" }
        if isRepeating { return "a write has two records (C15)" }
        guard !isRestart, before.adopted == adopted, !isBeginning else { return nil }
        if durable < before.durable { return "the log shrank within an epoch (C6)" }
        if committed < before.committed { return "a committed record was lost in an epoch" }
        return nil
    }
}
