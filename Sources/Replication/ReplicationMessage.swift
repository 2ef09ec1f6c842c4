// What the replicas of one set tell each other. The host wraps the coded message in a frame.
//
//   primary                                   backup
//     query (configuration)            ──►      promises the epoch
//     ◄── state (last prepared, epoch starts the primary may lack)
//     begin (epoch start, missed ones) ──►      writes them
//     ◄── acknowledge (durable through)
//     prepare (committed, records)     ──►      appends in order
//     ◄── acknowledge, or missing (after)
//     beacon (committed, sent)         ──►      answers with acknowledge or missing
//     lease (sent)                     ──►      grants it (C11)
//     ◄── granted (sent)
//   either way: stale, fetch / fetched
//   compare (blocks, number)         ──►      compared (digests)         (C18, between the hosts)
//   copy (block)                     ──►      copied (content)
//
// A learner gets the same as a backup (C9); it is none of the configuration's members.
//
// Invariants:
//  1. An acknowledgement names only what is durable at its sender (S2).
//  2. Every message names set, sender, receiver and epoch; the receiver checks them all (C3).

package import Base

/// A message from one replica of a set to another.
package struct ReplicationMessage: Hashable, Sendable {
    package var set: SetID
    package var sender: DiskID
    package var receiver: DiskID
    /// The epoch in which the sender speaks.
    package var epoch: Epoch
    package var body: ReplicationBody

    /// All fields at once.
    package init(
        set: SetID, sender: DiskID, receiver: DiskID, epoch: Epoch, body: ReplicationBody
    ) {
        self.set = set
        self.sender = sender
        self.receiver = receiver
        self.epoch = epoch
        self.body = body
    }
}

/// What a replica says.
package enum ReplicationBody: Hashable, Sendable {
    /// The primary of a new epoch asks what the member has. `incarnation` is the primary's, so
    /// that no answer to an earlier run counts (C10); `after` is its own last epoch start.
    case query(SetConfiguration, incarnation: Incarnation, after: Epoch)
    /// The answer: from now on the sender refuses lower epochs (C3).
    case state(ReplicaState, incarnation: Incarnation)
    /// The epoch begins; `missed` are starts before it that the receiver may lack, in order.
    case begin(EpochStart, missed: [EpochStart])
    /// The sender has everything up to `durable` on its disk, and knows that `committed` is
    /// committed, what its disk can take (C20), and whether copies slow its clients down (C19).
    case acknowledge(
        durable: RecordNumber, committed: RecordNumber, fill: DiskFill, isStrained: Bool)
    /// Records with consecutive numbers, new or sent again with their own epoch (C4, C8): 1 to
    /// `ReplicationMessage.records`, with at most `Limits.frameData` stored bytes if several.
    case prepare(committed: RecordNumber, [Record])
    /// What is committed, and the last record that was sent to the receiver.
    case beacon(committed: RecordNumber, sent: RecordNumber)
    /// A record was lost on the way: send everything after this again.
    case missing(after: RecordNumber)
    /// The receiver's epoch is over; `epoch` of the message is the one in force (C3).
    case stale
    /// Asks for the live record of a number.
    case fetch(RecordNumber)
    /// The answer.
    case fetched(RecordNumber, LoadResult)
    /// Asks for a lease from this moment of the sender's clock on (C11).
    case lease(Instant)
    /// The answer: until `Limits.grant` from now the sender takes no part in replacing the primary.
    case granted(Instant)
    /// The primary wants to know what the member has (C18). The host answers.
    case compare(CompareRequest)
    /// The answer.
    case compared(CompareAnswer)
    /// The primary's copy of one block is wrong: it wants the member's content (C18).
    case copy(CompareRequest)
    /// The whole block, as it is there now.
    case copied(CompareRequest, Extent)
}

/// What a member has promised to a primary: nobody takes its place before this is over (C11).
package struct Grant: Hashable, Sendable {
    package var primary: DiskID
    /// How long it still holds.
    package var remaining: Interval

    /// Both fields at once.
    package init(primary: DiskID, remaining: Interval) {
        self.primary = primary
        self.remaining = remaining
    }
}

/// What a member tells the primary of a new epoch.
package struct ReplicaState: Hashable, Sendable {
    /// The last epoch whose start is on its disk.
    package var adopted: Epoch
    /// The last record that is on its disk and alive.
    package var durable: RecordNumber
    /// The last record that it knows to be committed.
    package var committed: RecordNumber
    /// Its epoch starts after the one that the primary named, in order.
    package var starts: [EpochStart]
    /// What the start of `adopted` keeps; tells whether a learner's copy is of the same history.
    package var kept: RecordNumber
    /// At most `Limits.members`.
    package var grants: [Grant]

    /// All fields at once.
    package init(
        adopted: Epoch, durable: RecordNumber, committed: RecordNumber, starts: [EpochStart],
        kept: RecordNumber = .none, grants: [Grant] = []
    ) {
        self.adopted = adopted
        self.durable = durable
        self.committed = committed
        self.starts = starts
        self.kept = kept
        self.grants = grants
    }
}

/// What became of a record that was looked for.
package enum LoadResult: Hashable, Sendable {
    /// Here it is.
    case record(Record)
    /// Later committed records replaced all that it did, and its space is used again.
    case superseded
    /// It is not here, or its bytes are damaged.
    case unavailable
}

extension ReplicationMessage {
    /// Epoch starts in one message: they fit the head of a frame.
    package static let starts = 8_192
    /// Records in one message.
    package static let records = 64

    /// The stored bytes that travel after the head.
    package var payloads: [ArraySlice<UInt8>] {
        switch body {
        case .prepare(_, let records): records.map(\.payload)
        case .fetched(_, .record(let record)): [record.payload]
        case .copied(_, let extent): [extent.payload]
        default: []
        }
    }
    /// How many they are.
    package var payloadLength: Int { payloads.reduce(0) { $0 + $1.count } }

    /// Writes all but the payload.
    package func encode(into writer: inout ByteWriter) {
        writer.write(set)
        writer.write(sender)
        writer.write(receiver)
        writer.write(epoch)
        writer.write(body.code)
        switch body {
        case .query(let configuration, let incarnation, let after):
            configuration.encode(into: &writer)
            writer.write(incarnation)
            writer.write(after)
        case .state(let state, let incarnation):
            writer.write(incarnation)
            writer.write(state.adopted)
            writer.write(state.durable)
            writer.write(state.committed)
            writer.writeList(state.starts) { $1.encode(into: &$0) }
            writer.write(state.kept)
            writer.writeList(state.grants) { writer, grant in
                writer.write(grant.primary)
                writer.write(UInt64(max(0, grant.remaining.nanoseconds)))
            }
        case .begin(let start, let missed):
            start.encode(into: &writer)
            writer.writeList(missed) { $1.encode(into: &$0) }
        case .acknowledge(let durable, let committed, let fill, let isStrained):
            writer.write(durable)
            writer.write(committed)
            writer.write(fill.rawValue)
            writer.write(isStrained)
        case .prepare(let committed, let records):
            writer.write(committed)
            writer.writeList(records) { $1.encodeHeader(into: &$0) }
        case .beacon(let committed, let sent):
            writer.write(committed)
            writer.write(sent)
        case .missing(let number), .fetch(let number): writer.write(number)
        case .stale: break
        case .fetched(let number, let result):
            writer.write(number)
            writer.write(result.code)
            if case .record(let record) = result { record.encodeHeader(into: &writer) }
        case .lease(let sent), .granted(let sent):
            writer.write(UInt64(bitPattern: sent.nanoseconds))
        case .compare(let request), .copy(let request): request.encode(into: &writer)
        case .copied(let request, let extent):
            request.encode(into: &writer)
            extent.encodeHeader(into: &writer)
        case .compared(let answer): answer.encode(into: &writer)
        }
    }

    /// Reads what `encode` wrote, with the stored bytes that came after it; nothing may be left.
    package init(head: [UInt8], payload: ArraySlice<UInt8>) throws(DecodeError) {
        var reader = ByteReader(head)
        var bytes = ByteReader(payload)
        set = try reader.read()
        sender = try reader.read()
        receiver = try reader.read()
        epoch = try reader.read()
        body = try ReplicationBody(from: &reader, payload: &bytes)
        try reader.finish()
        try bytes.finish()
        guard body.names(set) else { throw .invalid(field: "set", value: set.rawValue) }
    }
}

extension ReplicationBody {
    fileprivate var code: UInt8 {
        switch self {
        case .query: 1
        case .state: 2
        case .begin: 3
        case .acknowledge: 4
        case .prepare: 5
        case .beacon: 6
        case .missing: 7
        case .stale: 8
        case .fetch: 9
        case .fetched: 10
        case .lease: 11
        case .granted: 12
        case .compare: 13
        case .compared: 14
        case .copy: 15
        case .copied: 16
        }
    }

    fileprivate init(
        from reader: inout ByteReader, payload: inout ByteReader
    ) throws(DecodeError) {
        switch try reader.read(UInt8.self) {
        case 1:
            self = .query(
                try SetConfiguration(from: &reader), incarnation: try reader.read(),
                after: try reader.read())
        case 2:
            let incarnation = try reader.read(Incarnation.self)
            let state = ReplicaState(
                adopted: try reader.read(), durable: try reader.read(),
                committed: try reader.read(), starts: try Self.readStarts(&reader),
                kept: try reader.read(), grants: try Self.readGrants(&reader))
            self = .state(state, incarnation: incarnation)
        case 3:
            self = .begin(
                try EpochStart(from: &reader), missed: try Self.readStarts(&reader))
        case 4:
            self = .acknowledge(
                durable: try reader.read(), committed: try reader.read(),
                fill: try DiskFill(from: &reader), isStrained: try reader.readBool())
        case 5:
            let committed = try reader.read(RecordNumber.self)
            let records = try reader.readList(bound: ReplicationMessage.records) {
                (reader) throws(DecodeError) in try Record(from: &reader, payload: &payload)
            }
            guard !records.isEmpty else { throw .invalid(field: "records", value: 0) }
            self = .prepare(committed: committed, records)
        case 6: self = .beacon(committed: try reader.read(), sent: try reader.read())
        case 7: self = .missing(after: try reader.read())
        case 8: self = .stale
        case 9: self = .fetch(try reader.read())
        case 10:
            self = .fetched(
                try reader.read(), try LoadResult(from: &reader, payload: &payload))
        case 11: self = .lease(try Self.readInstant(&reader))
        case 12: self = .granted(try Self.readInstant(&reader))
        case 13: self = .compare(try CompareRequest(from: &reader))
        case 14: self = .compared(try CompareAnswer(from: &reader))
        case 15: self = .copy(try CompareRequest(from: &reader))
        case 16:
            self = .copied(
                try CompareRequest(from: &reader), try Extent(from: &reader, payload: &payload))
        case let other: throw .invalid(field: "replication message", value: UInt64(other))
        }
    }

    private static func readInstant(
        _ reader: inout ByteReader
    ) throws(DecodeError) -> Instant {
        Instant(nanoseconds: Int64(bitPattern: try reader.read()))
    }

    /// A grant that is longer than any lasts no longer than the longest.
    private static func readGrants(
        _ reader: inout ByteReader
    ) throws(DecodeError) -> [Grant] {
        try reader.readList(bound: Limits.members) { (reader) throws(DecodeError) in
            let primary = try reader.read(DiskID.self)
            let remaining = Int64(clamping: try reader.read(UInt64.self))
            return Grant(
                primary: primary,
                remaining: min(Limits.grant, Interval(nanoseconds: remaining)))
        }
    }

    private static func readStarts(
        _ reader: inout ByteReader
    ) throws(DecodeError) -> [EpochStart] {
        try reader.readList(bound: ReplicationMessage.starts) {
            (reader) throws(DecodeError) in try EpochStart(from: &reader)
        }
    }

    /// Whether everything inside belongs to the set.
    fileprivate func names(_ set: SetID) -> Bool {
        switch self {
        case .query(let configuration, _, _): configuration.set == set
        case .state(let state, _): state.starts.allSatisfy { $0.configuration.set == set }
        case .begin(let start, let missed):
            start.configuration.set == set && missed.allSatisfy { $0.configuration.set == set }
        case .prepare(_, let records): records.allSatisfy { $0.set == set }
        case .fetched(_, .record(let record)): record.set == set
        default: true
        }
    }
}

extension LoadResult {
    fileprivate var code: UInt8 {
        switch self {
        case .record: 1
        case .superseded: 2
        case .unavailable: 3
        }
    }

    fileprivate init(
        from reader: inout ByteReader, payload: inout ByteReader
    ) throws(DecodeError) {
        switch try reader.read(UInt8.self) {
        case 1: self = .record(try Record(from: &reader, payload: &payload))
        case 2: self = .superseded
        case 3: self = .unavailable
        case let other: throw .invalid(field: "load result", value: UInt64(other))
        }
    }
}
