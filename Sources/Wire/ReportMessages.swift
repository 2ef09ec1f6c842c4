// What a chunk server tells the leading master, four times a second or when something happened,
// and the orders it gets back. Reports are idempotent: each says all that still matters.

package import Base

/// One replica of a set, as its disk reports it.
package struct SetReport: Hashable, Sendable {
    package var set: SetID
    package var disk: DiskID
    /// The highest epoch whose start is durable there.
    package var epoch: Epoch
    /// Its members, as that start says.
    package var members: [DiskID]
    /// The last record that is durable there.
    package var prepared: RecordNumber
    /// Records that are damaged there: it must not become primary.
    package var hasRot: Bool
    /// It is primary of `epoch`, has reconciled, and serves.
    package var isServing: Bool
    /// Stored bytes of live extents.
    package var stored: UInt64
    package var chunks: UInt32
    /// Of a serving primary: the disk that it fills (C9).
    package var learner: LearnerReport?
    /// Of a primary: members that owe it an answer for too long (C7).
    package var silent: [DiskID]
    /// Of a primary: members, maybe itself, that delay its writes (C21).
    package var slow: [SlowMember]

    /// All fields at once.
    package init(
        set: SetID, disk: DiskID, epoch: Epoch, members: [DiskID] = [],
        prepared: RecordNumber, hasRot: Bool, isServing: Bool, stored: UInt64, chunks: UInt32,
        learner: LearnerReport? = nil, silent: [DiskID] = [], slow: [SlowMember] = []
    ) {
        self.members = members
        self.set = set
        self.disk = disk
        self.epoch = epoch
        self.prepared = prepared
        self.hasRot = hasRot
        self.isServing = isServing
        self.stored = stored
        self.chunks = chunks
        self.learner = learner
        self.silent = silent
        self.slow = slow
    }
    func encode(into writer: inout ByteWriter) {
        writer.write(set)
        writer.write(disk)
        writer.write(epoch)
        writer.writeList(members) { $0.write($1) }
        writer.write(prepared)
        writer.write(hasRot)
        writer.write(isServing)
        writer.write(stored)
        writer.write(chunks)
        writer.writeOptional(learner) { writer, learner in
            writer.write(learner.disk)
            writer.write(learner.durable)
            writer.write(learner.isCounted)
            writer.write(learner.isReady)
        }
        writer.writeList(silent) { $0.write($1) }
        writer.writeList(slow) { writer, member in
            writer.write(member.disk)
            writer.write(member.windows)
        }
    }
    init(from reader: inout ByteReader) throws(DecodeError) {
        set = try reader.read()
        disk = try reader.read()
        epoch = try reader.read()
        members = try reader.readList(bound: Limits.members) { (reader) throws(DecodeError) in
            try reader.read()
        }
        prepared = try reader.read()
        hasRot = try reader.readBool()
        isServing = try reader.readBool()
        stored = try reader.read()
        chunks = try reader.read()
        learner = try reader.readOptional { (reader) throws(DecodeError) in
            LearnerReport(
                disk: try reader.read(), durable: try reader.read(),
                isCounted: try reader.readBool(), isReady: try reader.readBool())
        }
        silent = try reader.readList(bound: Limits.members) { (reader) throws(DecodeError) in
            try reader.read()
        }
        slow = try reader.readList(bound: Limits.members + 1) { (reader) throws(DecodeError) in
            SlowMember(disk: try reader.read(), windows: try reader.read())
        }
    }
}

/// Expired sessions whose writes are refused (C16). `version` counts the sessions that ever
/// expired; `sessions` are the last of them, or nil where the receiver is said to know them.
package struct FenceList: Hashable, Sendable {
    package var version: UInt64
    package var sessions: [SessionID]?

    /// Both fields at once.
    package init(version: UInt64 = 0, sessions: [SessionID]? = nil) {
        self.version = version
        self.sessions = sessions
    }
    func encode(into writer: inout ByteWriter) {
        writer.write(version)
        writer.writeOptional(sessions) { $0.writeList($1) { $0.write($1) } }
    }
    init(from reader: inout ByteReader) throws(DecodeError) {
        version = try reader.read()
        sessions = try reader.readOptional { (reader) throws(DecodeError) in
            try reader.readList(bound: Limits.fences) { (reader) throws(DecodeError) in
                try reader.read()
            }
        }
    }
}

/// How far the learner of a set is (C9).
package struct LearnerReport: Hashable, Sendable {
    package var disk: DiskID
    /// The last record that is on its disk.
    package var durable: RecordNumber
    /// Every write waits for it: another learner needs a new epoch.
    package var isCounted: Bool
    /// It may become a member.
    package var isReady: Bool

    /// All fields at once.
    package init(disk: DiskID, durable: RecordNumber, isCounted: Bool, isReady: Bool) {
        self.disk = disk
        self.durable = durable
        self.isCounted = isCounted
        self.isReady = isReady
    }
}

/// A disk that the primary of a set is to fill, in this epoch (C9).
package struct FillOrder: Hashable, Sendable {
    package var set: SetID
    package var epoch: Epoch
    package var learner: DiskLocation

    /// All fields at once.
    package init(set: SetID, epoch: Epoch, learner: DiskLocation) {
        self.set = set
        self.epoch = epoch
        self.learner = learner
    }
}

/// Chunks to be dropped from a set; `order` numbers the drops of the whole cell.
package struct DropOrder: Hashable, Sendable {
    package var order: UInt64
    package var set: SetID
    /// At most `Record.chunksPerDrop`.
    package var chunks: [ChunkID]

    /// All fields at once.
    package init(order: UInt64, set: SetID, chunks: [ChunkID]) {
        self.order = order
        self.set = set
        self.chunks = chunks
    }
}

/// A cut that the primary of a set is to log (DESIGN 3.3, Size).
package struct CutOrder: Hashable, Sendable {
    package var set: SetID
    package var chunk: ChunkID
    package var truncation: UInt32
    /// Offset in the chunk from which bytes are gone.
    package var from: UInt32

    /// All fields at once.
    package init(set: SetID, chunk: ChunkID, truncation: UInt32, from: UInt32) {
        self.set = set
        self.chunk = chunk
        self.truncation = truncation
        self.from = from
    }
    func encode(into writer: inout ByteWriter) {
        writer.write(set)
        writer.write(chunk)
        writer.write(truncation)
        writer.write(from)
    }
    init(from reader: inout ByteReader) throws(DecodeError) {
        set = try reader.read()
        chunk = try reader.readChunk()
        truncation = try reader.read()
        from = try reader.read()
    }
}

/// What a chunk server is and has.
package struct ServerReport: Message {
    package static let kind = FrameKind.report
    package var server: ServerID
    package var name: String
    package var rack: String
    package var address: PeerAddress
    package var disks: [DiskReport]
    /// Sets that changed since the leader last acknowledged, or all after a change of leader; at
    /// most `Limits.reportedSets` in one report.
    package var sets: [SetReport]
    /// Orders carried out: committed on every member.
    package var dropped: [UInt64]
    /// Cuts carried out.
    package var cut: [CutOrder]
    package var connections: ConnectionCounts
    /// The version of the fence list that it keeps to.
    package var fences: UInt64

    /// All fields at once.
    package init(
        server: ServerID, name: String, rack: String, address: PeerAddress,
        disks: [DiskReport], sets: [SetReport], dropped: [UInt64], cut: [CutOrder],
        connections: ConnectionCounts = ConnectionCounts(), fences: UInt64 = 0
    ) {
        self.server = server
        self.name = name
        self.rack = rack
        self.address = address
        self.disks = disks
        self.sets = sets
        self.dropped = dropped
        self.cut = cut
        self.connections = connections
        self.fences = fences
    }
    package func encode(into writer: inout ByteWriter) {
        writer.write(server)
        writer.write(name)
        writer.write(rack)
        address.encode(into: &writer)
        writer.writeList(disks) { $1.encode(into: &$0) }
        writer.writeList(sets) { $1.encode(into: &$0) }
        writer.writeList(dropped) { $0.write($1) }
        writer.writeList(cut) { $1.encode(into: &$0) }
        connections.encode(into: &writer)
        writer.write(fences)
    }
    package init(from reader: inout ByteReader, payload: inout ByteReader) throws(DecodeError) {
        server = try reader.read()
        name = try reader.readString(bound: 300)
        rack = try reader.readString(bound: 300)
        address = try PeerAddress(from: &reader)
        disks = try reader.readList(bound: 64) { (reader) throws(DecodeError) in
            try DiskReport(from: &reader)
        }
        sets = try reader.readList(bound: Limits.reportedSets) { (reader) throws(DecodeError) in
            try SetReport(from: &reader)
        }
        dropped = try reader.readList(bound: 4_096) { (reader) throws(DecodeError) in
            try reader.read()
        }
        cut = try reader.readList(bound: 4_096) { (reader) throws(DecodeError) in
            try CutOrder(from: &reader)
        }
        connections = try ConnectionCounts(from: &reader)
        fences = try reader.read()
    }
}

/// The leader's answer. Sent in reply to a report, or by itself when there is something to do.
package struct ServerOrders: Message {
    package static let kind = FrameKind.orders
    /// False: the sender does not lead; try another master.
    package var isLeader: Bool
    /// Who leads, if the sender knows.
    package var leader: MasterID?
    /// The leader has none of this server's sets: report all of them.
    package var wantsAllSets: Bool
    /// Sets whose configuration in force differs from the one reported.
    package var configurations: [SetView]
    package var drops: [DropOrder]
    package var cuts: [CutOrder]
    package var fills: [FillOrder]
    /// Sets whose members are all elsewhere: what this server has of them is in the way (C14).
    package var discards: [SetConfiguration]
    package var scrub: ScrubOrder
    /// Kept to before any configuration here is (C16).
    package var fences: FenceList
    /// Who the masters are, as far as the sender knows (M17).
    package var masters: Membership

    /// All fields at once.
    package init(
        isLeader: Bool, leader: MasterID?, wantsAllSets: Bool, configurations: [SetView],
        drops: [DropOrder], cuts: [CutOrder], fills: [FillOrder] = [],
        discards: [SetConfiguration] = [], scrub: ScrubOrder = ScrubOrder(),
        fences: FenceList = FenceList(), masters: Membership = .none
    ) {
        self.isLeader = isLeader
        self.leader = leader
        self.wantsAllSets = wantsAllSets
        self.configurations = configurations
        self.drops = drops
        self.cuts = cuts
        self.fills = fills
        self.discards = discards
        self.scrub = scrub
        self.fences = fences
        self.masters = masters
    }
    package func encode(into writer: inout ByteWriter) {
        writer.write(isLeader)
        writer.writeOptional(leader) { $0.write($1) }
        writer.write(wantsAllSets)
        writer.writeList(configurations) { $1.encode(into: &$0) }
        writer.writeList(drops) { writer, drop in
            writer.write(drop.order)
            writer.write(drop.set)
            writer.writeList(drop.chunks) { $0.write($1) }
        }
        writer.writeList(cuts) { $1.encode(into: &$0) }
        writer.writeList(fills) { writer, fill in
            writer.write(fill.set)
            writer.write(fill.epoch)
            fill.learner.encode(into: &writer)
        }
        writer.writeList(discards) { $1.encode(into: &$0) }
        scrub.encode(into: &writer)
        fences.encode(into: &writer)
        masters.encode(into: &writer)
    }
    package init(from reader: inout ByteReader, payload: inout ByteReader) throws(DecodeError) {
        isLeader = try reader.readBool()
        leader = try reader.readOptional { (reader) throws(DecodeError) in try reader.read() }
        wantsAllSets = try reader.readBool()
        configurations = try reader.readList(bound: Limits.reportedSets) {
            (reader) throws(DecodeError) in try SetView(from: &reader)
        }
        drops = try reader.readList(bound: 4_096) { (reader) throws(DecodeError) in
            DropOrder(
                order: try reader.read(), set: try reader.read(),
                chunks: try reader.readList(bound: Record.chunksPerDrop) {
                    (reader) throws(DecodeError) in try reader.readChunk()
                })
        }
        cuts = try reader.readList(bound: 4_096) { (reader) throws(DecodeError) in
            try CutOrder(from: &reader)
        }
        fills = try reader.readList(bound: 4_096) { (reader) throws(DecodeError) in
            FillOrder(
                set: try reader.read(), epoch: try reader.read(),
                learner: try DiskLocation(from: &reader))
        }
        discards = try reader.readList(bound: 4_096) { (reader) throws(DecodeError) in
            try SetConfiguration(from: &reader)
        }
        scrub = try ScrubOrder(from: &reader)
        fences = try FenceList(from: &reader)
        masters = try Membership(from: &reader)
    }
}
