// What masters say to each other. Every message but the heartbeat names its ballot.

package import Base

/// How a master is, ten times a second (M8).
package struct Heartbeat: Hashable, Sendable {
    /// The sender's clock.
    var sent: Instant
    /// `sent` of the last heartbeat that the sender had from the receiver: proof that both
    /// directions work.
    var echo: Instant?
    /// The highest ballot it promised; its own if it leads.
    var promised: Ballot
    /// The ballot its log was last synced in.
    var accepted: Ballot
    /// Its log is there above `start`; its end, and how much of it is durable in `accepted`.
    var start: Slot
    var end: Slot
    var durable: Slot
    var chosen: Slot
    /// It leads `promised`, or is trying to.
    var isLeading: Bool
    /// It leads with a quorum, or hears from a happy leader.
    var isHappy: Bool
    /// Its log is sound: it votes.
    var isTrusted: Bool
    /// The last configuration that it knows to have begun (M17).
    var started: ConfigurationStart
    /// Its disk (M18).
    var disk: DiskID
    /// The highest ballot of which the receiver told the sender that it had promised it, and on
    /// which disk: if that is its disk, and knows of none so high, it is an old copy (M18).
    var told: Ballot
    var toldDisk: DiskID
    /// Durable there, the newest first (M15).
    var snapshots: [SnapshotMark]

    func encode(into writer: inout ByteWriter) {
        writer.write(sent.nanoseconds)
        writer.writeOptional(echo) { $0.write($1.nanoseconds) }
        promised.encode(into: &writer)
        accepted.encode(into: &writer)
        for slot in [start, end, durable, chosen] { writer.write(slot) }
        for flag in [isLeading, isHappy, isTrusted] { writer.write(flag) }
        started.encode(into: &writer)
        writer.write(disk)
        told.encode(into: &writer)
        writer.write(toldDisk)
        writer.writeList(snapshots) { $1.encode(into: &$0) }
    }
}

extension Heartbeat {
    init(from reader: inout ByteReader) throws(DecodeError) {
        sent = Instant(nanoseconds: try reader.read())
        echo = try reader.readOptional { (reader) throws(DecodeError) in
            Instant(nanoseconds: try reader.read())
        }
        promised = try Ballot(from: &reader)
        accepted = try Ballot(from: &reader)
        start = try reader.read()
        end = try reader.read()
        durable = try reader.read()
        chosen = try reader.read()
        isLeading = try reader.readBool()
        isHappy = try reader.readBool()
        isTrusted = try reader.readBool()
        started = try ConfigurationStart(from: &reader)
        disk = try reader.read()
        told = try Ballot(from: &reader)
        toldDisk = try reader.read()
        snapshots = try reader.readList(bound: 2) { (reader) throws(DecodeError) in
            try SnapshotMark(from: &reader)
        }
    }
}

/// What an acceptor has when it promises.
package struct PromiseState: Hashable, Sendable {
    /// The ballot its log was last synced in.
    package var accepted: Ballot
    /// Its log is there above it.
    package var start: Slot
    package var end: Slot
    package var chosen: Slot
    /// False: its log is damaged and the promise does not count.
    package var isTrusted: Bool
    /// Where it is durable (M18).
    package var disk: DiskID
}

/// A page of a Sync (M2, M3).
package struct SyncPage: Hashable, Sendable {
    var ballot: Ballot
    /// Numbers the syncs of a ballot (M20).
    var sequence: UInt64
    /// The follower's log up to here stays, and has this hash there.
    var keepThrough: Slot
    var keepHash: EntryHash
    var entries: [PaxosEntry]
    /// No page follows.
    var isLast: Bool
    var chosen: Slot
}

/// New entries of a follower that has been synced in this ballot (M4).
package struct AcceptPage: Hashable, Sendable {
    var ballot: Ballot
    /// Slot of the first entry, and the hash before it. Without entries: a question how far the
    /// follower is.
    var first: Slot
    var previous: EntryHash
    var entries: [PaxosEntry]
    var chosen: Slot
}

/// How far a follower is in a ballot (M5).
package struct Acceptance: Hashable, Sendable {
    package var ballot: Ballot
    /// What counts as its vote.
    package var durable: Slot
    /// With what is on its way to the disk.
    package var end: Slot
    /// It was sent entries that do not follow `end`.
    package var hasGap: Bool
    /// Where it is durable (M18).
    package var disk: DiskID
}

/// A message between two masters.
package enum PaxosMessage: Hashable, Sendable {
    case heartbeat(Heartbeat)
    /// With what the candidate knows of configurations (M17).
    case prepare(Ballot, ConfigurationStart)
    case promise(Ballot, PromiseState)
    /// A message in a lower ballot was refused; this is what the sender promised.
    case refuse(Ballot)
    /// A candidate asks for entries from a slot on.
    case fetch(Ballot, from: Slot)
    case fetched(Ballot, [PaxosEntry])
    case sync(SyncPage)
    /// The sync has come up to this slot; go on.
    case syncProgress(Ballot, sequence: UInt64, received: Slot)
    case accept(AcceptPage)
    case accepted(Acceptance)
    /// Do you still obey this ballot? (M10)
    case probe(Ballot, nonce: UInt64)
    case probeAnswer(Ballot, nonce: UInt64, disk: DiskID)
    /// The leader of the ballot wants the receiver to take over.
    case lead(Ballot)
    /// The receiver is no master any more since the configuration that begins there.
    case removed(ConfigurationStart)
    /// The sender's disk lost what the entry of this slot, with this hash, says.
    case mend(Slot, EntryHash)
    case mended([PaxosEntry])

    /// One byte for the case, then its fields; 1, 2, 3, 10, 12, 13 and 14 were other forms of 15
    /// to 19. At most `Limits.frameHead` bytes.
    package func encode(into writer: inout ByteWriter) {
        func tag(_ value: UInt8, _ ballot: Ballot? = nil) {
            writer.write(value)
            if let ballot { ballot.encode(into: &writer) }
        }
        switch self {
        case .heartbeat(let heartbeat):
            tag(15)
            heartbeat.encode(into: &writer)
        case .prepare(let ballot, let started):
            tag(16, ballot)
            started.encode(into: &writer)
        case .promise(let ballot, let state):
            tag(17, ballot)
            state.accepted.encode(into: &writer)
            writer.write(state.start)
            writer.write(state.end)
            writer.write(state.chosen)
            writer.write(state.isTrusted)
            writer.write(state.disk)
        case .refuse(let ballot): tag(4, ballot)
        case .fetch(let ballot, let slot):
            tag(5, ballot)
            writer.write(slot)
        case .fetched(let ballot, let entries):
            tag(6, ballot)
            writer.writeEntries(entries)
        case .sync(let page):
            tag(7, page.ballot)
            page.encode(into: &writer)
        case .syncProgress(let ballot, let sequence, let slot):
            tag(8, ballot)
            writer.write(sequence)
            writer.write(slot)
        case .accept(let page):
            tag(9, page.ballot)
            page.encode(into: &writer)
        case .accepted(let state):
            tag(18, state.ballot)
            writer.write(state.durable)
            writer.write(state.end)
            writer.write(state.hasGap)
            writer.write(state.disk)
        case .probe(let ballot, let nonce):
            tag(11, ballot)
            writer.write(nonce)
        case .probeAnswer(let ballot, let nonce, let disk):
            tag(19, ballot)
            writer.write(nonce)
            writer.write(disk)
        case .lead(let ballot): tag(20, ballot)
        case .removed(let started):
            tag(21)
            started.encode(into: &writer)
        case .mend(let slot, let hash):
            tag(22)
            writer.write(slot)
            hash.encode(into: &writer)
        case .mended(let entries):
            tag(23)
            writer.writeEntries(entries)
        }
    }

    /// Reads what `encode` wrote; entries whose hash is wrong are an error.
    package init(from reader: inout ByteReader) throws(DecodeError) {
        let kind = try reader.read(UInt8.self)
        switch kind {
        case 15: self = .heartbeat(try Heartbeat(from: &reader))
        case 21: self = .removed(try ConfigurationStart(from: &reader))
        case 22: self = .mend(try reader.read(), try EntryHash(from: &reader))
        case 23: self = .mended(try reader.readEntries())
        default: try self.init(kind, try Ballot(from: &reader), &reader)
        }
    }
    private init(
        _ kind: UInt8, _ ballot: Ballot, _ reader: inout ByteReader
    ) throws(DecodeError) {
        switch kind {
        case 16: self = .prepare(ballot, try ConfigurationStart(from: &reader))
        case 17:
            self = .promise(
                ballot,
                PromiseState(
                    accepted: try Ballot(from: &reader), start: try reader.read(),
                    end: try reader.read(), chosen: try reader.read(),
                    isTrusted: try reader.readBool(), disk: try reader.read()))
        case 4: self = .refuse(ballot)
        case 5: self = .fetch(ballot, from: try reader.read())
        case 6: self = .fetched(ballot, try reader.readEntries())
        case 7: self = .sync(try SyncPage(ballot, &reader))
        case 8:
            self = .syncProgress(
                ballot, sequence: try reader.read(), received: try reader.read())
        case 9: self = .accept(try AcceptPage(ballot, &reader))
        case 18:
            self = .accepted(
                Acceptance(
                    ballot: ballot, durable: try reader.read(), end: try reader.read(),
                    hasGap: try reader.readBool(), disk: try reader.read()))
        case 11: self = .probe(ballot, nonce: try reader.read())
        case 19:
            self = .probeAnswer(ballot, nonce: try reader.read(), disk: try reader.read())
        case 20: self = .lead(ballot)
        case let other: throw .invalid(field: "paxos message", value: UInt64(other))
        }
    }
}

extension SyncPage {
    fileprivate func encode(into writer: inout ByteWriter) {
        writer.write(sequence)
        writer.write(keepThrough)
        keepHash.encode(into: &writer)
        writer.writeEntries(entries)
        writer.write(isLast)
        writer.write(chosen)
    }
    fileprivate init(_ ballot: Ballot, _ reader: inout ByteReader) throws(DecodeError) {
        self.ballot = ballot
        sequence = try reader.read()
        keepThrough = try reader.read()
        keepHash = try EntryHash(from: &reader)
        entries = try reader.readEntries()
        isLast = try reader.readBool()
        chosen = try reader.read()
    }
}

extension AcceptPage {
    fileprivate func encode(into writer: inout ByteWriter) {
        writer.write(first)
        previous.encode(into: &writer)
        writer.writeEntries(entries)
        writer.write(chosen)
    }
    fileprivate init(_ ballot: Ballot, _ reader: inout ByteReader) throws(DecodeError) {
        self.ballot = ballot
        first = try reader.read()
        previous = try EntryHash(from: &reader)
        entries = try reader.readEntries()
        chosen = try reader.read()
        guard first > .none, entries.first?.slot ?? first == first else {
            throw .invalid(field: "first slot", value: first.rawValue)
        }
    }
}

extension ByteWriter {
    fileprivate mutating func writeEntries(_ entries: [PaxosEntry]) {
        writeList(entries) { writer, entry in
            entry.encodeHeader(into: &writer)
            writer.writeBytes(entry.body)
        }
    }
}

extension ByteReader {
    /// Entries that follow each other, each with its right hash.
    fileprivate mutating func readEntries() throws(DecodeError) -> [PaxosEntry] {
        var last: PaxosEntry?
        return try readList(bound: 4_096) { (reader) throws(DecodeError) in
            var header = ByteReader(try reader.take(PaxosEntry.headerSize))
            let body = try reader.readBytes(bound: EntryBody.bound + 1)
            let entry = try PaxosEntry(header: &header, body: body)
            guard entry.isSound else { throw .checksum("paxos entry") }
            if let last, entry.slot != last.slot.next || entry.previous != last.hash {
                throw .checksum("paxos chain")
            }
            last = entry
            return entry
        }
    }
}

extension PaxosEntry {
    /// Slot, ballot, two hashes.
    fileprivate static let headerSize = 8 + 14 + 16 + 16
}
