// One disk of a chunk server, without its sockets, threads and clock: the store of the disk, a
// replica of each of its sets, the requests of clients, the messages of peers, and the reports to
// the leading master. The simulator runs it as it is (D1, T7).
//
//  recovering   the store reads its log; clients are told to come back
//  serving      everything
//  failed       a write or flush failed: one last report, then the process ends (S4)
//
// Invariants:
//  1. A reply or message leaves in the step in which the disk told that what it says is durable
//     (S2); the replicas see to that.
//  2. Every request gets its last reply exactly once, or its connection is gone.
//  3. Waiting requests are bounded in number and bytes (S10).

package import Base
package import Node
import Replication
package import Store
import Wire

/// What a chunk server is told about itself.
package struct ChunkServerConfiguration: Hashable, Sendable {
    package var cell: CellID
    package var server: ServerID
    /// The disk's name if it is new; an older one has its own (S8).
    package var disk: DiskID
    /// What it calls itself in `status`.
    package var name: String
    /// Members of a set are on different racks where possible.
    package var rack: String
    /// Where it listens.
    package var address: PeerAddress
    /// The masters of the cell, at least one.
    package var masters: [MasterID]
    /// Bytes of a segment of the log, if the disk is new.
    package var segmentSize: Int
    /// Bytes of log after which the index is written down.
    package var checkpointInterval: Int
    package var scrub: ScrubConfiguration
    package var cleaner: CleanerConfiguration
    package var index: IndexConfiguration

    /// All fields at once.
    package init(
        cell: CellID, server: ServerID, disk: DiskID, name: String, rack: String,
        address: PeerAddress, masters: [MasterID], segmentSize: Int = Limits.segment,
        checkpointInterval: Int = 1 << 30, scrub: ScrubConfiguration = ScrubConfiguration(),
        cleaner: CleanerConfiguration = CleanerConfiguration(),
        index: IndexConfiguration = IndexConfiguration()
    ) {
        self.cell = cell
        self.server = server
        self.disk = disk
        self.name = name
        self.rack = rack
        self.address = address
        self.masters = masters
        self.segmentSize = segmentSize
        self.checkpointInterval = checkpointInterval
        self.scrub = scrub
        self.cleaner = cleaner
        self.index = index
    }
}

/// See the head of this file.
package struct ChunkServerCore: NodeCore {
    enum Phase: Hashable, Sendable { case recovering, serving, failed }

    let configuration: ChunkServerConfiguration
    var phase = Phase.recovering
    package internal(set) var store: DiskStore
    /// The disk's own name and run, known once the store is ready.
    var disk: DiskID
    var incarnation = Incarnation(rawValue: 0)
    var capacity: UInt64 = 0
    var surroundings = NodeSurroundings(space: DiskSpace(), connections: ConnectionCounts())

    /// In the order in which they came here; a set is never removed.
    var sets: [HostedSet] = []
    var places: [SetID: Int] = [:]
    /// Sets with appends on their way to the disk, ascending.
    var unsynced: [Int] = []
    /// Sets whose queue may go on.
    var drainable: [Int] = []
    /// Bytes of prepares on their way to each server.
    var credit: [ServerID: Int] = [:]
    /// Sets whose queue waits for credit.
    var thirsty: [Int] = []
    /// Sets whose queue waits for the cleaner.
    var cramped: [Int] = []
    /// Who waits for a replica or for the disk.
    var waiters: [UInt64: Waiter] = [:]
    var lastTag: UInt64 = 0
    /// Waiters for records that the store was not asked for yet.
    var loads = Fifo<UInt64>()
    var isLoading = false
    /// Requests without an answer.
    var openRequests: [ConnectionID: Int] = [:]
    /// Bytes of the writes that wait for a replica.
    var queuedBytes = 0
    var leader: LeaderContact
    /// Bytes written and read in this second and in the one before.
    var recent = RecentBytes()
    var load = DiskLoad()
    var throttle = CopyThrottle()
    /// Sets with a learner that waits for the throttle.
    var starving: [Int] = []
    var fences = Fences()
    var copies = CopyScrub()
    /// A block is being read, or written, as one extent.
    var isFolding = false
    /// The operator was told that the index takes all the memory it may.
    var saidIndexFull = false
    /// Blocks that are written anew when their right content has come, the oldest first.
    var rewrites: [Rewrite] = []

    var now = Instant.zero
    var effects: [NodeEffect] = []

    /// A core that was not started.
    package init(_ configuration: ChunkServerConfiguration) {
        precondition(!configuration.masters.isEmpty, "a cell without masters")
        self.configuration = configuration
        disk = configuration.disk
        leader = LeaderContact(masters: configuration.masters)
        let log = LogConfiguration(
            cell: configuration.cell, owner: .server(configuration.server),
            disk: configuration.disk, segmentSize: configuration.segmentSize)
        store = DiskStore(
            StoreConfiguration(
                log: log, checkpointInterval: configuration.checkpointInterval,
                scrub: configuration.scrub, cleaner: configuration.cleaner,
                index: configuration.index))
    }

    /// See `NodeCore`.
    package mutating func step(_ events: [NodeEvent], at time: NodeTime) -> [NodeEffect] {
        precondition(phase != .failed, "stepped after it halted")
        now = time.now
        for event in events where phase != .failed { take(event) }
        if phase == .serving {
            wakeSets()
            goOnCopying()
            logFences()
            drainQueues()
            apply(store.scrub(now: now, wall: time.wall))
            compareCopies(time.wall)
            foldBlocks()
        }
        if phase != .failed { apply(store.flush(now: now)) }
        if phase == .serving { reportIfDue() }
        let result = effects
        effects = []
        return result
    }

    /// See `NodeCore`.
    package var wakeTime: Instant {
        var first = store.wakeTime
        guard phase == .serving else { return first }
        first = min(first, leader.nextReport, store.scrubTime(now))
        if !isFolding { first = min(first, store.foldTime(now)) }
        if !starving.isEmpty { first = min(first, throttle.refillTime) }
        for index in sets.indices {
            if let deadline = sets[index].deadline { first = min(first, deadline) }
        }
        return first
    }

    private mutating func take(_ event: NodeEvent) {
        switch event {
        case .start(let inventory):
            capacity = inventory.capacity
            apply(store.start(inventory))
        case .disk(let operation, let result):
            apply(store.completed(operation, result, now: now))
        case .frame(let peer, let frame): take(frame, from: peer)
        case .disconnected(let peer): lose(peer)
        case .surroundings(let seen):
            surroundings = seen
            store.learn(free: seen.space.free)
        }
    }

    private mutating func take(_ frame: Frame, from peer: Peer) {
        switch (frame.kind, peer) {
        case (.writeRequest, .client(let connection)):
            takeWrite(frame, Asker(connection: connection, request: frame.request))
        case (.readRequest, .client(let connection)):
            takeRead(frame, Asker(connection: connection, request: frame.request))
        case (.replication, .server(let server)) where phase == .serving:
            takeReplication(frame, from: server)
        case (.orders, .master(let master)) where phase == .serving:
            takeOrders(frame, from: master)
        default: break
        }
    }

    private mutating func lose(_ peer: Peer) {
        switch peer {
        case .client(let connection): openRequests[connection] = nil
        case .server(let server): loseServer(server)
        case .master(let master): leader.lose(master, now: now)
        }
    }

    // MARK: replies

    /// Counts a request in; false if it was answered with `busy` (S10).
    mutating func admit(_ asker: Asker) -> Bool {
        let open = openRequests[asker.connection, default: 0]
        guard open < Limits.requestsPerConnection else { return false }
        openRequests[asker.connection] = open + 1
        return true
    }

    /// The last reply to a request that was counted in.
    mutating func finish(_ asker: Asker, _ reply: some Message) {
        if let open = openRequests[asker.connection], open > 0 {
            openRequests[asker.connection] = open - 1
        }
        send(asker, reply)
    }

    /// A reply that another follows, or one to a request that was not counted in.
    mutating func send(_ asker: Asker, _ reply: some Message) {
        effects.append(.send(.client(asker.connection), reply.frame(request: asker.request)))
    }

    mutating func newTag(_ waiter: Waiter) -> UInt64 {
        lastTag += 1
        waiters[lastTag] = waiter
        return lastTag
    }

    mutating func alarm(_ text: String) { effects.append(.report(text, isAlarm: true)) }
}

/// Whom a reply goes to.
struct Asker: Hashable, Sendable {
    var connection: ConnectionID
    var request: UInt64
}

/// What goes on when a replica or the disk has answered.
enum Waiter: Sendable {
    /// A client's write waits for its commit.
    case write(Asker, set: Int, since: Instant)
    /// The end of a session's writes was logged.
    case fence
    /// A trim was logged; reads and the leader may wait for it.
    case trim(CutOrder, set: Int)
    /// A drop by the masters' order.
    case drop(order: UInt64)
    /// A read waits for the disk.
    case read(ReadUnderWay)
    /// A record for a peer waits for the disk.
    case load(RecordNumber, set: Int)
    /// Content for a comparison of copies.
    case digest(DigestWork)
    /// Content that is written anew here, or by the primary that asked for it.
    case rewrite(Rewrite)
    case copy(CompareRequest, set: Int, primary: DiskID, epoch: Epoch)
    /// The commit of what was written anew.
    case rewritten
    /// The content of a block that is to be folded, and the commit of the record.
    case fold(FoldBasis, set: Int, epoch: Epoch)
    case folded
}

/// Bytes of the last second, for the leader's placement; approximate.
struct RecentBytes: Sendable {
    private var second = Instant.zero
    private var current: UInt64 = 0
    private var last: UInt64 = 0

    mutating func add(_ count: Int, now: Instant) {
        turn(now)
        current += UInt64(count)
    }
    mutating func rate(now: Instant) -> UInt64 {
        turn(now)
        return max(last, current)
    }
    private mutating func turn(_ now: Instant) {
        guard now - second >= .seconds(1) else { return }
        last = now - second < .seconds(2) ? current : 0
        current = 0
        second = now
    }
}
