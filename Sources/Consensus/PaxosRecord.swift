// What a master keeps in the log of its disk. Records are replayed in log order.
//
// Invariants:
//  1. syncBegin, its entries and syncEnd take effect together, when syncEnd is read (M3); a
//     syncBegin alone counts as a promise.
//  2. An entry outside a sync was accepted in the ballot of the last sync.
//  3. `chosen` is a hint: true, but maybe old.
//  4. An entry that is there already changes nothing: those above a snapshot's slot are written
//     again behind the place where a start from it begins to read.

package import Base

/// One record of the Paxos log on disk.
package enum PaxosRecord: Hashable, Sendable {
    /// No ballot below is obeyed any more (M1).
    case promise(Ballot)
    case entry(PaxosEntry)
    /// The log from `keepThrough` on is about to be replaced, in this ballot.
    case syncBegin(Ballot, keepThrough: Slot)
    /// The entries since syncBegin are the log up to `end`, accepted in this ballot.
    case syncEnd(Ballot, end: Slot)
    /// Every slot up to here is chosen.
    case chosen(Slot)
    /// The log up to the slot came as a snapshot of another master; its hash.
    case installed(Slot, EntryHash)
    /// A configuration begins there: the entry of the slot with this hash is chosen (M17).
    case started(ConfigurationStart)

    /// All but the payload; at most 100 bytes.
    package func encodeHeader(into writer: inout ByteWriter) {
        switch self {
        case .promise(let ballot):
            writer.write(1 as UInt8)
            ballot.encode(into: &writer)
        case .entry(let entry):
            writer.write(2 as UInt8)
            entry.encodeHeader(into: &writer)
        case .syncBegin(let ballot, let slot):
            writer.write(3 as UInt8)
            ballot.encode(into: &writer)
            writer.write(slot)
        case .syncEnd(let ballot, let slot):
            writer.write(4 as UInt8)
            ballot.encode(into: &writer)
            writer.write(slot)
        case .chosen(let slot):
            writer.write(5 as UInt8)
            writer.write(slot)
        case .installed(let slot, let hash):
            writer.write(6 as UInt8)
            writer.write(slot)
            hash.encode(into: &writer)
        case .started(let start):
            writer.write(7 as UInt8)
            start.encode(into: &writer)
        }
    }

    /// The body of an entry; empty for the others.
    package var payload: ArraySlice<UInt8> {
        if case .entry(let entry) = self { entry.body } else { [] }
    }

    /// Reads what `encodeHeader` wrote, and takes the payload, both in full.
    package init(header: ArraySlice<UInt8>, payload: ArraySlice<UInt8>) throws(DecodeError) {
        var reader = ByteReader(header)
        switch try reader.read(UInt8.self) {
        case 1: self = .promise(try Ballot(from: &reader))
        case 2: self = .entry(try PaxosEntry(header: &reader, body: payload))
        case 3: self = .syncBegin(try Ballot(from: &reader), keepThrough: try reader.read())
        case 4: self = .syncEnd(try Ballot(from: &reader), end: try reader.read())
        case 5: self = .chosen(try reader.read())
        case 6: self = .installed(try reader.read(), try EntryHash(from: &reader))
        case 7: self = .started(try ConfigurationStart(from: &reader))
        case let other: throw .invalid(field: "paxos record", value: UInt64(other))
        }
        try reader.finish()
        if case .entry = self { return }
        guard payload.isEmpty else { throw .trailing(count: payload.count) }
    }
}
