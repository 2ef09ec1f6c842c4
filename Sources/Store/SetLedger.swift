// What a disk knows of one replica set beside the index: its epochs, the records that are
// prepared and not committed, the duplicates of its sessions, and what is damaged.
// Invariants:
//  1. `prepared` holds numbers above `committed`, ascending; none of them is dead.
//  2. `committed` never goes back.

import Base

/// A record that is logged and not committed.
struct PreparedRecord: Sendable {
    /// With its payload until it is durable.
    var record: Record
    var log: LogNumber
    /// nil until it is durable.
    var place: LogPlace?
}

/// Where a committed record was written; it may be overwritten since.
struct RecentRecord: Sendable {
    var number: RecordNumber
    var epoch: Epoch
    var place: LogPlace
}

/// The requests of one session that the set remembers (C15).
struct SessionWindow: Sendable {
    struct Entry: Hashable, Sendable {
        var sequence: RequestNumber
        var number: RecordNumber
    }
    var session: SessionID
    var firstUnacked = RequestNumber(rawValue: 0)
    /// Ascending by sequence.
    var entries: [Entry] = []

    func find(_ sequence: RequestNumber) -> Duplicate {
        if sequence < firstUnacked { return .forgotten }
        let index = place(sequence)
        guard index < entries.count, entries[index].sequence == sequence else { return .new }
        return .known(entries[index].number)
    }

    mutating func note(_ record: Record) {
        firstUnacked = max(firstUnacked, record.firstUnacked)
        let index = place(record.sequence)
        let entry = Entry(sequence: record.sequence, number: record.number)
        if index < entries.count, entries[index].sequence == record.sequence {
            entries[index] = entry
        } else {
            entries.insert(entry, at: index)
        }
        let old = place(firstUnacked)
        entries.removeFirst(max(old, entries.count - Limits.duplicatesPerSession))
    }

    private func place(_ sequence: RequestNumber) -> Int {
        if let last = entries.last, last.sequence < sequence { return entries.count }
        return entries.firstIndex { $0.sequence >= sequence } ?? entries.count
    }
}

/// A dropped chunk, remembered so that a late write does not bring it back.
struct DroppedChunk: Hashable, Sendable {
    var chunk: ChunkID
    var number: RecordNumber
}

/// The ledger of one set.
struct SetLedger: Sendable {
    /// Records after a drop during which writes to the chunk do nothing.
    static let dropMemory: UInt64 = 4_096
    /// Sessions that one set remembers.
    static let sessions = 4_096

    let set: SetID
    /// Ascending by epoch.
    var history: [EpochStart] = []
    var committed = RecordNumber.none
    /// Told to be committed; ahead of `committed` while records are not durable here.
    var wanted = RecordNumber.none
    /// The last record, damaged or not, that is alive.
    var last = RecordNumber.none
    var prepared: [PreparedRecord] = []
    /// Ascending by number; at most `Limits.preparedRecords`.
    var recent: [RecentRecord] = []
    /// Ascending by session.
    var windows: [SessionWindow] = []
    /// Ascending by number.
    var dropped: [DroppedChunk] = []
    /// Numbers of records of which nothing is known, ascending.
    var holes: [ClosedRange<RecordNumber>] = []
    /// Numbers of records whose bytes are damaged, ascending.
    var rotten: [RecordNumber] = []
    /// The highest epoch of the records that a start found; above `epoch` only where damage took
    /// an epoch's start. Such a start, when it comes again, kills none of them.
    var recordEpoch = Epoch.none
    /// Records after `last` may have been lost here.
    var isTailUnknown = false
    var usage = StoreUsage()

    init(set: SetID) { self.set = set }

    var epoch: Epoch { history.last?.configuration.epoch ?? .none }

    /// Whether a later epoch than the record's has killed it.
    func isDead(_ epoch: Epoch, _ number: RecordNumber) -> Bool {
        history.contains { $0.kills(epoch, number) }
    }

    /// The index in `prepared` of a number, or where it would be.
    func place(_ number: RecordNumber) -> Int {
        guard let first = prepared.first?.record.number, number > first else { return 0 }
        // Without damage the numbers are consecutive.
        let guess = Int(number.rawValue - first.rawValue)
        if guess < prepared.count, prepared[guess].record.number == number { return guess }
        return prepared.firstIndex { $0.record.number >= number } ?? prepared.count
    }

    func prepared(_ number: RecordNumber) -> PreparedRecord? {
        let index = place(number)
        guard index < prepared.count, prepared[index].record.number == number else { return nil }
        return prepared[index]
    }

    // Duplicates

    private func windowIndex(_ session: SessionID) -> Int {
        windows.firstIndex(notBelow: { $0.session < session })
    }

    /// What is remembered of a session.
    func window(_ session: SessionID) -> SessionWindow? {
        let index = windowIndex(session)
        return index < windows.count && windows[index].session == session ? windows[index] : nil
    }

    func duplicate(_ session: SessionID, _ sequence: RequestNumber) -> Duplicate {
        window(session)?.find(sequence) ?? .new
    }

    mutating func note(_ record: Record) {
        guard record.session != .none else { return }
        var index = windowIndex(record.session)
        if index == windows.count || windows[index].session != record.session {
            if windows.count == Self.sessions {
                // The session whose last record is the oldest goes.
                let oldest = windows.indices.min { left, right in
                    windows[left].entries.last?.number ?? .none
                        < windows[right].entries.last?.number ?? .none
                }
                windows.remove(at: oldest ?? 0)
                index = windowIndex(record.session)
            }
            windows.insert(SessionWindow(session: record.session), at: index)
        }
        windows[index].note(record)
    }

    /// Forgets the duplicates of records above `number`, which never happened.
    mutating func forgetDuplicates(above number: RecordNumber) {
        for index in windows.indices {
            windows[index].entries.removeAll { $0.number > number }
        }
        // An empty window still tells which late duplicates are forgotten.
        windows.removeAll { $0.entries.isEmpty && $0.firstUnacked.rawValue == 0 }
    }

    // Damage

    func isHole(_ number: RecordNumber) -> Bool { holes.contains { $0.contains(number) } }

    /// Whether a record's bytes, or all of it, are not known.
    func isDamaged(_ number: RecordNumber) -> Bool { rotten.contains(number) || isHole(number) }

    mutating func addHole(_ range: ClosedRange<RecordNumber>) { holes.append(range) }

    /// The number is known again.
    mutating func heal(_ number: RecordNumber) {
        rotten.removeAll { $0 == number }
        guard let index = holes.firstIndex(where: { $0.contains(number) }) else { return }
        let hole = holes.remove(at: index)
        if hole.upperBound > number { holes.insert(number.next...hole.upperBound, at: index) }
        if hole.lowerBound < number {
            let before = RecordNumber(rawValue: number.rawValue - 1)
            holes.insert(hole.lowerBound...before, at: index)
        }
    }

    mutating func addRotten(_ number: RecordNumber) {
        let index = rotten.firstIndex { $0 >= number } ?? rotten.count
        if index < rotten.count, rotten[index] == number { return }
        rotten.insert(number, at: index)
    }

    /// Forgets damage above `number`, which is dead.
    mutating func forgetDamage(above number: RecordNumber) {
        rotten.removeAll { $0 > number }
        holes = holes.compactMap { hole in
            hole.lowerBound > number ? nil : hole.lowerBound...min(hole.upperBound, number)
        }
    }

    // Drops

    mutating func add(_ gone: DroppedChunk) {
        let place = dropped.firstIndex(notBelow: { $0.number <= gone.number })
        dropped.insert(gone, at: place)
    }

    /// What a record dropped, if that is not long past.
    func dropped(by number: RecordNumber) -> [ChunkID] {
        let first = dropped.firstIndex(notBelow: { $0.number < number })
        return dropped[first...].prefix { $0.number == number }.map(\.chunk)
    }

    /// Forgets the drops that are long past, and tells which.
    mutating func expireDrops() -> [DroppedChunk] {
        let old = dropped.prefix { $0.number.rawValue + Self.dropMemory < committed.rawValue }
        dropped.removeFirst(old.count)
        return Array(old)
    }
}

extension [SetLedger] {
    /// Where the ledger of a set is, or would be. No ledger is copied on the way.
    func place(of set: SetID) -> Int {
        indices.firstIndex(notBelow: { self[$0].set < set })
    }
}
