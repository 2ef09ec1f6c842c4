// What a leader knows beyond the namespace: who waits for an answer, who has which file open, how
// the chunk servers are. All of it is lost with the leadership and comes back by itself.
//
// Invariants:
//  1. Commands, reads and servers are in arrays with bounds (S10); dictionaries are for look-ups.
//  2. A batch's waiters are in the order of its commands.

import Base
import Consensus
import Namespace
import Node
import Placement
import Wire

/// Where a reply goes.
struct ReplyAddress: Hashable, Sendable {
    var peer: Peer
    /// The frame's request id.
    var request: UInt64
}

/// Why a command was proposed.
enum Purpose: Hashable, Sendable {
    /// `opener`: the session that has the created file open.
    case client(ReplyAddress, opener: SessionID?)
    case register(ServerID)
    case createSet
    case changeEpoch(SetID)
    case fillSet(SetID)
    case confirm
    case tick
    case snapshot
    case operate
}

/// A name in a directory.
struct NamePlace: Hashable, Sendable {
    var parent: InodeID
    var name: [UInt8]
}

/// A change that was not proposed yet.
struct QueuedChange: Sendable {
    var address: ReplyAddress
    var request: MetadataRequest
    var change: MetadataChange
}

/// A command that was proposed.
struct Submitted: Hashable, Sendable {
    var purpose: Purpose
    /// Names that it makes: until it is applied nobody knows what they will stand for.
    var names: [NamePlace]
}

/// A question that waits for its read index.
struct QueuedQuery: Sendable {
    var address: ReplyAddress
    var session: SessionID
    var query: MetadataQuery
    /// To be answered after this batch was applied.
    var barrier: PaxosTag
}

/// The log's time as its leader has it (M14): it goes on with CLOCK_BOOTTIME, from where it was
/// when this leader began, and nears a wall clock that is ahead by an eighth of that. So no jump of
/// a wall clock ends a session.
struct LeaderClock: Sendable {
    private(set) var time: Timestamp
    private var at: Instant

    init(time: Timestamp, at: Instant) {
        self.time = time
        self.at = at
    }
    mutating func advance(to node: NodeTime) {
        let passed = node.now - at
        at = node.now
        time = time + passed
        if node.wall > time { time = time + min(node.wall - time, passed / 8) }
    }
}

/// The state of a leadership.
struct Leadership: Sendable {
    struct Batch: Sendable {
        var tag: PaxosTag
        var commands: [Submitted]
    }
    struct Reads: Sendable {
        var tag: PaxosTag
        var queries: [QueuedQuery]
        var isReady = false
    }

    let since: Instant
    var clock: LeaderClock
    /// Sessions up to here may have files open that only the leader before knew of.
    let lastInherited: SessionID
    var nextRound: Instant
    /// Something changed that a round should look at.
    var isDirty = true

    /// A `snapshot` command is on its way (M15).
    var isCallingSnapshot = false
    /// An `operate` command is on its way.
    var isOperating = false

    // Clients
    var changes: [QueuedChange] = []
    /// How many of them the batch in the making has taken.
    var taken = 0
    var commands: [(action: Command.Action, purpose: Purpose)] = []
    var batches: [Batch] = []
    var appliedTag = PaxosTag(rawValue: 0)
    /// The last batch with an unlink or rename.
    var removalTag = PaxosTag(rawValue: 0)
    var queries: [QueuedQuery] = []
    var reads: [Reads] = []
    var files = OpenFiles()
    /// How many commands are on their way that make a name.
    var names: [NamePlace: Int] = [:]
    var lastTick: Instant

    // Chunk servers
    var servers: [ServerState]
    var replicas: [ReplicaKey: ReplicaState] = [:]
    var lastRegistration: Instant
    var sets: SetTable
    /// Disks that are down, and since when.
    var downSince: [DiskID: Instant] = [:]
    var gray: [GrayDisk] = []
    var pace = CopyPace()
    /// As of the last round.
    var shares = FileSystemShares()
    /// As of the last round.
    var view = ClusterView(servers: [], disks: [], sets: [])
    var ordersDue: [ServerID] = []
    /// Orders and cuts whose confirmation is on its way.
    var confirmingDrops: [UInt64: Bool] = [:]
    var confirmingCuts: [CutKey: Bool] = [:]

    init(
        now: Instant, time: Timestamp, lastSession: SessionID, servers: [ServerRecord],
        sets: [SetRecord]
    ) {
        since = now
        clock = LeaderClock(time: time, at: now)
        lastInherited = lastSession
        nextRound = now
        lastTick = now
        lastRegistration = now
        self.servers = servers.map { ServerState(id: $0.id) }
        self.sets = SetTable(records: sets)
    }

    /// Everyone who waits for an answer.
    var allWaiters: [ReplyAddress] {
        let inBatches = batches.flatMap(\.commands).map(\.purpose) + commands.map(\.purpose)
        return changes.map(\.address) + queries.map(\.address)
            + reads.flatMap(\.queries).map(\.address)
            + inBatches.compactMap { purpose in
                if case .client(let address, _) = purpose { address } else { nil }
            }
    }

    /// Drops what was not proposed yet of a connection that is gone: its client asks again.
    mutating func forget(_ connection: ConnectionID) {
        changes.removeAll { $0.address.peer == .client(connection) }
        queries.removeAll { $0.address.peer == .client(connection) }
    }

    /// A server whose connection broke counts as down until it reports again, so that no new file
    /// is placed on a server that was just killed.
    mutating func lose(_ server: ServerID, at now: Instant) {
        guard self.server(server)?.heard != nil else { return }
        let silent = now.nanoseconds - Limits.serverSilence.nanoseconds
        update(server) { $0.heard = Instant(nanoseconds: silent) }
        isDirty = true
    }

    mutating func readsReady(_ tag: PaxosTag) {
        guard let index = reads.firstIndex(where: { $0.tag == tag }) else { return }
        reads[index].isReady = true
    }
}

/// Which sessions have which files open (K13). Counts, for a session may open a file often.
struct OpenFiles: Sendable {
    private struct Holder: Sendable {
        var session: SessionID
        var count: Int
    }
    /// Holders in ascending order.
    private var holders: [InodeID: [Holder]] = [:]
    private var files: [SessionID: Set<InodeID>] = [:]
    /// Sessions with open files, in ascending order.
    private(set) var sessions: [SessionID] = []

    mutating func open(_ inode: InodeID, by session: SessionID) {
        var list = holders[inode] ?? []
        let index = list.firstIndex { $0.session >= session } ?? list.count
        if index < list.count, list[index].session == session {
            list[index].count += 1
        } else {
            list.insert(Holder(session: session, count: 1), at: index)
            files[session, default: []].insert(inode)
            if !sessions.contains(session) {
                sessions.insert(
                    session, at: sessions.firstIndex { $0 > session } ?? sessions.count)
            }
        }
        holders[inode] = list
    }
    mutating func close(_ inode: InodeID, by session: SessionID) {
        guard var list = holders[inode],
            let index = list.firstIndex(where: { $0.session == session })
        else { return }
        list[index].count -= 1
        if list[index].count > 0 {
            holders[inode] = list
            return
        }
        forget(inode, session)
        files[session]?.remove(inode)
        if files[session]?.isEmpty ?? true { drop(session) }
    }
    /// The session ended.
    mutating func end(_ session: SessionID) {
        for inode in (files[session] ?? []).sorted() { forget(inode, session) }
        drop(session)
    }
    /// Sessions that have the file open, in ascending order.
    func holders(of inode: InodeID) -> [SessionID] { holders[inode]?.map(\.session) ?? [] }

    private mutating func forget(_ inode: InodeID, _ session: SessionID) {
        holders[inode]?.removeAll { $0.session == session }
        if holders[inode]?.isEmpty ?? true { holders[inode] = nil }
    }
    private mutating func drop(_ session: SessionID) {
        files[session] = nil
        sessions.removeAll { $0 == session }
    }
}
