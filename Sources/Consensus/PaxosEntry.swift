// One entry of the log and its hash chain.
// Invariants:
//  1. The hash covers the previous entry's hash, the slot and the body: equal hashes at a slot
//     mean equal logs up to it.
//  2. The ballot is the one in which the entry was first proposed; it is not in the hash, because
//     later ballots take the entry over as it is.

package import Base

/// 128 bits of the SHA-256 over (previous hash, slot, body).
package struct EntryHash: Hashable, Sendable {
    let high: UInt64
    let low: UInt64
    /// Before the first entry.
    package static let none = EntryHash(high: 0, low: 0)

    private init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }
    /// As a snapshot's plan has it.
    package init(_ hash: ShortHash) { self.init(high: hash.high, low: hash.low) }
    /// For a snapshot's plan.
    package var short: ShortHash { ShortHash(high: high, low: low) }

    init(previous: EntryHash, slot: Slot, body: ArraySlice<UInt8>) {
        var writer = ByteWriter(capacity: body.count + 24)
        previous.encode(into: &writer)
        writer.write(slot)
        writer.append(body)
        var reader = ByteReader(Digest(sha256: writer.bytes).bytes)
        guard let hash = try? EntryHash(from: &reader) else { preconditionFailure("digest") }
        self = hash
    }
    func encode(into writer: inout ByteWriter) {
        writer.write(high)
        writer.write(low)
    }
    init(from reader: inout ByteReader) throws(DecodeError) {
        high = try reader.read()
        low = try reader.read()
    }
}

/// What an entry says.
package enum EntryBody: Hashable, Sendable {
    /// The first entry of a ballot, with the leader's wall time (M6, M14).
    case begin(Timestamp)
    /// The host's batch.
    case commands(ArraySlice<UInt8>)
    /// The masters from here on. With a higher number it is a stop entry (M17): nothing follows it
    /// in the configuration in which it is chosen.
    case members(Membership)

    /// Largest batch in bytes: two of them and their headers fit in one frame.
    package static let bound = Limits.paxosPage - 1

    var bytes: ArraySlice<UInt8> {
        switch self {
        case .begin(let time):
            var writer = ByteWriter(capacity: 9)
            writer.write(1 as UInt8)
            writer.write(time)
            return writer.bytes[...]
        case .commands(let batch):
            var bytes: [UInt8] = []
            bytes.reserveCapacity(batch.count + 1)
            bytes.append(2)
            bytes.append(contentsOf: batch)
            return bytes[...]
        case .members(let membership):
            var writer = ByteWriter(capacity: 512)
            writer.write(3 as UInt8)
            membership.encode(into: &writer)
            return writer.bytes[...]
        }
    }
    init(_ bytes: ArraySlice<UInt8>) throws(DecodeError) {
        var reader = ByteReader(bytes)
        switch try reader.read(UInt8.self) {
        case 1: self = .begin(try reader.readTimestamp())
        case 2: self = .commands(try reader.take(reader.remaining))
        case 3: self = .members(try Membership(from: &reader))
        case let other: throw .invalid(field: "entry body", value: UInt64(other))
        }
        try reader.finish()
    }
}

/// One slot of the log.
package struct PaxosEntry: Hashable, Sendable {
    package let slot: Slot
    /// In which it was first proposed.
    package let ballot: Ballot
    /// Hash of the entry before it.
    package let previous: EntryHash
    package let hash: EntryHash
    /// A coded `EntryBody`; empty where the disk lost it (docs/decisions/0015).
    package let body: ArraySlice<UInt8>

    init(slot: Slot, ballot: Ballot, previous: EntryHash, content: EntryBody) {
        self.slot = slot
        self.ballot = ballot
        self.previous = previous
        body = content.bytes
        hash = EntryHash(previous: previous, slot: slot, body: body)
    }
    init(slot: Slot, ballot: Ballot, previous: EntryHash, hash: EntryHash, body: ArraySlice<UInt8>)
    {
        self.slot = slot
        self.ballot = ballot
        self.previous = previous
        self.hash = hash
        self.body = body
    }
    /// Whether the hash is that of the content, and the body can be read.
    var isSound: Bool {
        hash == EntryHash(previous: previous, slot: slot, body: body)
            && (try? EntryBody(body)) != nil
    }
    /// The masters that it names, if it does.
    var membership: Membership? {
        guard body.first == 3, case .members(let membership) = content else { return nil }
        return membership
    }
    /// What it says; the body was checked when the entry came in.
    package var content: EntryBody {
        guard let content = try? EntryBody(body) else { preconditionFailure("unsound entry") }
        return content
    }

    func encodeHeader(into writer: inout ByteWriter) {
        writer.write(slot)
        ballot.encode(into: &writer)
        previous.encode(into: &writer)
        hash.encode(into: &writer)
    }
    init(header: inout ByteReader, body: ArraySlice<UInt8>) throws(DecodeError) {
        slot = try header.read()
        ballot = try Ballot(from: &header)
        previous = try EntryHash(from: &header)
        hash = try EntryHash(from: &header)
        self.body = body
    }
}
