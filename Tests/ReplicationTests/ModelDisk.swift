// The smallest disk that a replica can have: a list, of which a prefix is durable.

import Base
import Replication

/// See the head of this file.
struct ModelDisk {
    enum Entry: Equatable {
        case start(EpochStart)
        case record(Record)
    }
    var log: [Entry] = []
    /// How many entries would survive the loss of power.
    var synced = 0
    /// What a checkpoint says is committed.
    var checkpointed = RecordNumber.none
    var committed = RecordNumber.none
    /// Records whose bytes are damaged.
    var damaged: Set<RecordNumber> = []
    /// Damaged records that later ones replaced.
    var superseded: Set<RecordNumber> = []

    mutating func append(_ entry: Entry) -> LogNumber {
        log.append(entry)
        if case .start(let start) = entry {
            damaged = damaged.filter { $0 <= start.keepThrough }
        }
        return LogNumber(rawValue: UInt64(log.count))
    }

    /// Loses what was not synced, but for `kept` entries of it; then `extra` synced records more,
    /// as if their damage had been taken for a torn end.
    mutating func crash(kept: Int, extra: Int) {
        log.removeLast(log.count - min(log.count, synced + kept))
        for _ in 0..<extra {
            guard case .record(let record)? = log.last else { break }
            damaged.remove(record.number)
            log.removeLast()
        }
        synced = log.count
        let alive = alive()
        committed = min(checkpointed, RecordNumber(rawValue: UInt64(alive.count)))
        checkpointed = committed
    }

    /// The records that are alive among the first `count` entries, by number: (e, n) is dead iff
    /// a later epoch has keepThrough < n (DESIGN 3.1).
    func alive(among count: Int? = nil) -> [Record] {
        var records: [Record] = []
        var starts: [EpochStart] = []
        for entry in log.prefix(count ?? log.count) {
            switch entry {
            case .start(let start): starts.append(start)
            case .record(let record): records.append(record)
            }
        }
        let live = records.filter { record in
            starts.allSatisfy { !$0.kills(record.epoch, record.number) }
        }
        return live.sorted { $0.number < $1.number }
    }

    var restored: RestoredReplica {
        let alive = alive()
        let starts = log.compactMap { entry -> EpochStart? in
            if case .start(let start) = entry { start } else { nil }
        }
        return RestoredReplica(
            starts: starts, prepared: alive.last?.number ?? .none, committed: committed,
            damaged: damaged.sorted())
    }

    func load(_ number: RecordNumber) -> LoadResult {
        if superseded.contains(number) { return .superseded }
        guard !damaged.contains(number),
            let record = alive().first(where: { $0.number == number })
        else { return .unavailable }
        return .record(record)
    }
}
