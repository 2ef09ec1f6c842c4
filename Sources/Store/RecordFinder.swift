// What the index has of a record, by its number: for who loads the records of a set one by one,
// as a learner's primary does (C9). The index is by chunk; this is made of it when it is wanted.
//
// Invariants:
//  1. It names where to look, and the index is asked whether it is still there: what a record is
//     about never changes. What is emptied, or comes late, ends it.
//  2. A record of which nothing is left has no more effect on a copy; but whose request it was is
//     told as long as that is remembered (C15, C16).

package import Base

/// See the head of this file.
struct RecordFinder: Sendable {
    enum Trace: Hashable, Sendable {
        case extent(ChunkID, block: UInt16)
        case trim(ChunkID)
        case request(SessionID, RequestNumber)
    }
    private struct Entry {
        var number: RecordNumber
        var trace: Trace
    }
    let set: SetID
    /// It has all up to this record.
    let through: RecordNumber
    /// Ascending by number.
    private var entries: [Entry] = []

    init(_ ledger: SetLedger, _ chunks: ChunkTable) {
        set = ledger.set
        through = ledger.committed
        var found: [Entry] = []
        chunks.slots.visit(ledger.set) { chunk in
            for trim in chunk.trims {
                found.append(Entry(number: trim.number, trace: .trim(chunk.id)))
            }
            chunk.visit { extent in
                found.append(
                    Entry(number: extent.number, trace: .extent(chunk.id, block: extent.block)))
            }
        }
        entries = found
        for window in ledger.windows {
            for entry in window.entries where entry.number <= through {
                entries.append(
                    Entry(number: entry.number, trace: .request(window.session, entry.sequence)))
            }
        }
        entries.sort { $0.number < $1.number }
    }

    func traces(_ number: RecordNumber) -> [Trace] {
        let first = entries.firstIndex(notBelow: { $0.number < number })
        return entries[first...].prefix { $0.number == number }.map(\.trace)
    }
}

extension DiskStore {
    /// Sets that have one.
    private static var finders: Int { 4 }

    /// What there was of a committed record when it was last looked.
    private mutating func traces(
        _ number: RecordNumber, _ ledger: SetLedger
    ) -> [RecordFinder.Trace] {
        let known = finders.firstIndex { $0.set == ledger.set }.map { finders.remove(at: $0) }
        let valid = known.flatMap { $0.through < number ? nil : $0 }
        let finder = valid ?? RecordFinder(ledger, chunks)
        if finders.count == Self.finders { finders.removeFirst() }
        finders.append(finder)
        return finder.traces(number)
    }

    /// The extent of a committed record, if it is listed.
    mutating func findExtent(
        _ number: RecordNumber, _ set: SetID
    ) -> (chunk: ChunkID, entry: ExtentEntry)? {
        guard let ledger = ledger(set), number <= ledger.committed else { return nil }
        for case .extent(let chunk, let block) in traces(number, ledger) {
            let pile = chunks[chunk]?.entries(Int(block)) ?? []
            if let entry = pile.first(where: { $0.number == number }) { return (chunk, entry) }
        }
        return nil
    }

    /// What is to be told of a committed record whose bytes are gone: the trim or the drop that it
    /// was, and whose request; nil if nothing is left of it.
    mutating func remnant(_ number: RecordNumber, _ set: SetID) -> Record? {
        guard let ledger = ledger(set), number <= ledger.committed, !isDamaged(number, ledger)
        else { return nil }
        let record = rest(of: number, ledger)
        return record.body == .nothing && record.session == .none ? nil : record
    }

    /// Whether something of a record that still counts is damaged: what later records replaced does
    /// not.
    package mutating func isDamaged(_ set: SetID, _ number: RecordNumber) -> Bool {
        ledger(set).map { isDamaged(number, $0) } ?? true
    }
    private mutating func isDamaged(_ number: RecordNumber, _ ledger: SetLedger) -> Bool {
        guard ledger.isDamaged(number) else { return false }
        return ledger.isHole(number) || number > ledger.committed
            || findExtent(number, ledger.set) != nil
    }

    /// What is to take the place of a damaged record whose bytes no copy has (decision 0020): its
    /// range of its block as lost, where that is known and nothing replaced it, or nothing; and
    /// whose request it was.
    package mutating func lostRecord(_ number: RecordNumber, _ set: SetID) -> Record? {
        guard let ledger = ledger(set) else { return nil }
        if var record = ledger.prepared(number)?.record {
            if case .write(let extent) = record.body {
                record.body = .write(
                    Extent(
                        lost: extent.chunk, block: extent.block, start: extent.start,
                        length: extent.length, fileEnd: extent.fileEnd,
                        modified: extent.modified))
            }
            return record
        }
        var record = rest(of: number, ledger)
        if let (chunk, entry) = findExtent(number, set) {
            record.epoch = entry.epoch
            record.body = .write(
                Extent(
                    lost: chunk, block: entry.block, start: UInt32(entry.start),
                    length: UInt32(entry.last) + 1))
        }
        return record
    }

    /// All that is known of a record without its bytes: the trim or the drop that it was, or
    /// nothing, and whose request.
    private mutating func rest(of number: RecordNumber, _ ledger: SetLedger) -> Record {
        let set = ledger.set
        var record = Record(
            set: set, epoch: ledger.epoch, number: number, session: .none,
            sequence: RequestNumber(rawValue: 0), firstUnacked: RequestNumber(rawValue: 0),
            truncation: 0, body: .nothing)
        for trace in traces(number, ledger) {
            switch trace {
            case .trim(let chunk):
                guard let trim = chunks[chunk]?.trims.first(where: { $0.number == number }) else {
                    continue
                }
                record.truncation = trim.truncation
                record.body = .trim(chunk, truncation: trim.truncation, from: trim.from)
            case .request(let session, let sequence):
                guard let window = ledger.window(session), window.find(sequence) == .known(number)
                else { continue }
                record.session = session
                record.sequence = sequence
                record.firstUnacked = window.firstUnacked
            case .extent: continue
            }
        }
        let gone = ledger.dropped(by: number)
        if !gone.isEmpty { record.body = .drop(gone) }
        return record
    }
}
