// The log in memory: slots start + 1 ... end without gaps, each chained to the one before. What is
// at or below `start` is in a snapshot (M16); only the hash at `start` is left of it.
//
// Invariant: all chunks but the last are full, so a slot's place is found by division, and what
// leaves at the front leaves in whole chunks, without moving the rest.

package import Base

struct PaxosLog: Hashable {
    private static let chunk = 32
    private var chunks: [[PaxosEntry]] = []
    /// The last slot that is not there any more.
    private(set) var start: Slot
    private var startHash: EntryHash
    private(set) var end: Slot

    init(start: Slot = .none, hash: EntryHash = .none) {
        self.start = start
        startHash = hash
        end = start
    }

    subscript(slot: Slot) -> PaxosEntry {
        precondition(slot > start && slot <= end, "a slot that is not in the log")
        let index = Int(slot.rawValue - start.rawValue) - 1
        return chunks[index / Self.chunk][index % Self.chunk]
    }

    /// The last entry, if it is still there.
    var last: PaxosEntry? { chunks.last?.last }

    /// The hash at a slot from `start` to `end`.
    func hash(at slot: Slot) -> EntryHash { slot == start ? startHash : self[slot].hash }

    /// The entries without a body.
    var bare: [Slot] { chunks.flatMap { $0.filter(\.body.isEmpty).map(\.slot) } }

    /// Whether the log up to the slot is the one with this hash.
    func has(_ slot: Slot, _ hash: EntryHash) -> Bool {
        slot >= start && slot <= end && self.hash(at: slot) == hash
    }

    mutating func append(_ entry: PaxosEntry) {
        precondition(
            entry.slot == end.next && entry.previous == hash(at: end), "entry out of order")
        if chunks.last?.count ?? Self.chunk == Self.chunk {
            chunks.append([])
            chunks[chunks.count - 1].reserveCapacity(Self.chunk)
        }
        chunks[chunks.count - 1].append(entry)
        end = entry.slot
    }
    /// Gives an entry its body back; the entry.
    mutating func fill(_ slot: Slot, _ body: ArraySlice<UInt8>) -> PaxosEntry {
        let old = self[slot]
        let entry = PaxosEntry(
            slot: slot, ballot: old.ballot, previous: old.previous, hash: old.hash, body: body)
        let index = Int(slot.rawValue - start.rawValue) - 1
        chunks[index / Self.chunk][index % Self.chunk] = entry
        return entry
    }
    mutating func truncate(to slot: Slot) {
        precondition(slot >= start && slot <= end, "truncation beyond the log")
        let left = Int(slot.rawValue - start.rawValue)
        let kept = (left + Self.chunk - 1) / Self.chunk
        chunks.removeLast(chunks.count - kept)
        if kept > 0 {
            let inLast = (left - 1) % Self.chunk + 1
            chunks[kept - 1].removeLast(chunks[kept - 1].count - inLast)
        }
        end = slot
    }
    /// Drops entries up to a slot or some before it: whole chunks, a few at a time.
    mutating func forget(through slot: Slot) {
        guard slot > start else { return }
        precondition(slot <= end, "what is not there can't be forgotten")
        let count = min(8, Int(slot.rawValue - start.rawValue) / Self.chunk)
        guard count > 0, let last = chunks[count - 1].last else { return }
        chunks.removeFirst(count)
        start = last.slot
        startHash = last.hash
    }
    /// Entries from `first` on: at least one if there is any, at most `Limits.paxosPage` bytes.
    /// None where they are not there any more.
    func page(from first: Slot) -> [PaxosEntry] {
        guard first > start else { return [] }
        var size = 0
        var entries: [PaxosEntry] = []
        var slot = first
        while slot <= end, entries.count < 4_096 {
            let entry = self[slot]
            size += entry.body.count + 64
            if size > Limits.paxosPage, !entries.isEmpty { break }
            entries.append(entry)
            slot = slot.next
        }
        return entries
    }
}

/// Where an acceptor goes on by word of a snapshot: what it was when the records behind began.
package struct PaxosBase: Hashable, Sendable {
    /// The last slot in the snapshot, and the hash of the log up to it.
    package var slot: Slot
    package var hash: EntryHash
    var promised: Ballot
    var accepted: Ballot
    /// The last configuration that it knew of.
    var started: ConfigurationStart

    /// Before everything.
    package static let none = PaxosBase(
        slot: .none, hash: .none, promised: .none, accepted: .none,
        started: ConfigurationStart(first: 0))

    /// Of a cell that starts from a dump: nothing was promised or accepted.
    package static func loaded(
        _ slot: Slot, _ hash: EntryHash, _ started: ConfigurationStart
    ) -> PaxosBase {
        PaxosBase(slot: slot, hash: hash, promised: .none, accepted: .none, started: started)
    }

    /// For one that begins with it under another name (M18), which has accepted nothing.
    package var unaccepted: PaxosBase {
        var base = self
        base.accepted = .none
        return base
    }

    /// Slot, hash, both ballots, the start.
    package func encode(into writer: inout ByteWriter) {
        writer.write(slot)
        hash.encode(into: &writer)
        promised.encode(into: &writer)
        accepted.encode(into: &writer)
        started.encode(into: &writer)
    }
}

extension PaxosBase {
    /// Reads what `encode` wrote.
    package init(from reader: inout ByteReader) throws(DecodeError) {
        slot = try reader.read()
        hash = try EntryHash(from: &reader)
        promised = try Ballot(from: &reader)
        accepted = try Ballot(from: &reader)
        started = try ConfigurationStart(from: &reader)
    }
}
