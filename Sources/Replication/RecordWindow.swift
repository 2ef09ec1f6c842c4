// The records that a primary has numbered and not yet committed, kept in memory so that they can
// be sent again and answered.
// Invariants:
//  1. The numbers are consecutive.
//  2. `bytes` is the sum of the records' bytes.

import Base

/// See the head of this file.
struct RecordWindow: Hashable, Sendable {
    /// Who asked for a write, and which write it was.
    struct Entry: Hashable, Sendable {
        var record: Record
        /// Who waits for the commit.
        var tags: [UInt64] = []
    }
    private var entries = Fifo<Entry>()
    private(set) var bytes = 0
    /// The numbers of the writes in the window (C15).
    private var duplicates: [DuplicateKey: RecordNumber] = [:]

    /// The name of a client's write.
    private struct DuplicateKey: Hashable, Sendable {
        var session: SessionID
        var sequence: RequestNumber
    }

    var count: Int { entries.count }

    subscript(number: RecordNumber) -> Record? {
        guard let first = entries.first?.record.number, number >= first else { return nil }
        let position = Int(number.rawValue - first.rawValue)
        return position < entries.count ? entries[position].record : nil
    }

    /// The number of the same write, if it is in the window.
    func number(of session: SessionID, _ sequence: RequestNumber) -> RecordNumber? {
        duplicates[DuplicateKey(session: session, sequence: sequence)]
    }

    /// Stored bytes of the records in the window above `after`, up to `through`.
    func bytes(after: RecordNumber, through: RecordNumber) -> Int {
        guard let first = entries.first?.record.number, through > after, through >= first else {
            return 0
        }
        let start = after < first ? 0 : Int(after.rawValue - first.rawValue) + 1
        let end = min(entries.count, Int(through.rawValue - first.rawValue) + 1)
        guard start < end else { return 0 }
        return (start..<end).reduce(0) { $0 + entries[$1].record.payload.count }
    }

    mutating func append(_ record: Record) {
        if let first = entries.first?.record.number {
            precondition(record.number.rawValue == first.rawValue + UInt64(entries.count))
        }
        if record.session != .none {
            duplicates[DuplicateKey(session: record.session, sequence: record.sequence)] =
                record.number
        }
        bytes += record.payload.count
        entries.append(Entry(record: record))
    }

    /// Lets `tag` wait for a number in the window.
    mutating func wait(_ tag: UInt64, for number: RecordNumber) {
        guard let first = entries.first?.record.number else { return }
        entries[Int(number.rawValue - first.rawValue)].tags.append(tag)
    }

    /// Removes the records up to `number`, oldest first.
    mutating func removeThrough(_ number: RecordNumber, _ each: (Entry) -> Void) {
        while let first = entries.first, first.record.number <= number {
            let entry = entries.removeFirst()
            forget(entry.record)
            each(entry)
        }
    }

    /// Removes the records above `number`.
    mutating func removeAbove(_ number: RecordNumber, _ each: (Entry) -> Void) {
        while !entries.isEmpty, entries[entries.count - 1].record.number > number {
            let entry = entries[entries.count - 1]
            entries.removeLast()
            forget(entry.record)
            each(entry)
        }
    }

    private mutating func forget(_ record: Record) {
        bytes -= record.payload.count
        if record.session != .none {
            duplicates[DuplicateKey(session: record.session, sequence: record.sequence)] = nil
        }
    }
}
