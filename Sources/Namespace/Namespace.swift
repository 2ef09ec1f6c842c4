// The masters' replicated state machine: names, inodes, places of chunks, sets, servers, sessions.
// A value: copying it is a snapshot. Every master applies the same commands in the same order and
// has the same state, to the last bit of `digest()`.
//
// Invariants:
//  1. A refused command changes nothing but the time (and the reply cache).
//  2. Time never goes back and comes only from commands (M14); it expires sessions and stamps
//     files, and decides nothing else (S1).
//  3. A chunk leaves a layout only into the queue of drops, and the queue only when its order is
//     confirmed (S6). A chunk's version is its file's truncation number when it got its place, and
//     that number rises whenever chunks leave: no ChunkID ever comes back.
//  4. An inode is there as long as it has a link or a holder (K13).
//  5. A cut of a file's list is in the queue of cuts, and the other way round. The sizes of a
//     file's cuts ascend: a shorter truncation makes longer ones before it needless.

package import Base

/// The state of the masters (DESIGN 3.3).
package struct Namespace: Sendable {
    /// The log's time: the highest of all commands' (M14).
    package private(set) var time = Timestamp.zero
    /// The slot of the last command.
    package private(set) var applied = Slot.none
    /// The last leader that began, and its ballot's round; round 0: none did.
    package private(set) var leader = (round: 0 as UInt64, master: MasterID(rawValue: 0))

    // Files
    var inodes = InodeTable()
    var directories = Slab<Directory>()
    var freeDirectories: [UInt32] = []
    var targets = OrderedTable<SymlinkTarget>()
    var attributeLists = OrderedTable<AttributeList>()
    var places = OrderedTable<ChunkPlace>()
    var cuts = OrderedTable<FileCuts>()
    /// Kept wide: sizes are up to 2^44 each.
    var fileBytes: UInt128 = 0

    // Sessions
    var sessions = OrderedTable<Session>()
    var nonces = OrderedTable<SessionNonce>()
    var lastSession: UInt64 = 0
    /// Those that expired, the latest last; at most `Limits.fences` (C16).
    var fences: [SessionID] = []
    /// How many ever did.
    var lastFence: UInt64 = 0
    var orphans = OrderedTable<Orphan>()
    var holdings = OrderedTable<Holding>()

    // Sets
    var servers = OrderedTable<ServerRecord>()
    var disks = OrderedTable<DiskRecord>()
    var setTable = OrderedTable<SetRecord>()
    var lastSet: UInt64 = 0
    var draining: [ServerID] = []
    /// Identities that may not come back, the oldest first.
    var removed: [ServerID] = []
    var rebalance: Rebalance?
    /// Of every server that has none of its own.
    var scrub = ScrubOrder()
    /// Ascending by server.
    var scrubs: [ServerScrub] = []
    var lastScrub: UInt64 = 0
    /// Chunks that left their layouts since the last tick.
    var loose: [LooseChunk] = []
    var dropOrders = OrderedTable<PendingDrop>()
    var dropsBySet = OrderedTable<SetDrop>()
    var lastOrder: UInt64 = 0
    var cutOrders = OrderedTable<PendingCut>()

    /// Of a state that was loaded from a dump.
    var load: Load?
    var loadedSets = OrderedTable<LoadedSet>()
    /// How many of them do not go on yet.
    package internal(set) var heldCount = 0

    /// An empty namespace: a root directory, and nothing else. Every master of a cell must be
    /// given the same values, which are the cell's from its making.
    package init(rootMode: UInt16 = 0o755, rootUser: UInt32 = 0, rootGroup: UInt32 = 0) {
        var root = InodeRecord(generation: 0, kind: .directory)
        root.mode = rootMode & 0o7777
        root.links = 2
        root.user = rootUser
        root.group = rootGroup
        root.place = InodeID.root.rawValue
        root.auxiliary = addDirectory()
        let slot = inodes.add(root)
        precondition(inodes.id(slot) == .root)
    }

    /// What a snapshot says of the whole; the tables are empty.
    init(_ head: SnapshotHead) {
        time = head.time
        applied = head.applied
        leader = (head.round, head.master)
        lastSession = head.lastSession
        lastSet = head.lastSet
        lastOrder = head.lastOrder
        lastScrub = head.lastScrub
    }

    /// Applies a command of the log's slot; a slot may have several, in order. The outcome
    /// depends on the state and the command only.
    package mutating func apply(_ command: Command, slot: Slot) -> Outcome {
        precondition(slot >= applied, "slots are applied in order")
        applied = slot
        // Half of the range, so that adding a term to it can't overflow.
        time = max(time, min(command.time, Timestamp(nanoseconds: .max / 2)))
        switch command.action {
        case .client(let session, let number, let firstIncomplete, let change):
            return applyOnce(session, number, firstIncomplete, change)
        case .openSession(let nonce, let label): return openSession(nonce, label)
        case .tick:
            expireSessions()
            sealDrops()
            return .done
        case .begin(let round, let master):
            leader = (round, master)
            extendSessions()
            return .done
        case .registerServer(let server, let disks): return register(server, disks)
        case .snapshot: return .done
        case .operate(let operation): return operate(operation)
        case .createSet(let members, let primary, let minMembers):
            return createSet(members, primary, minMembers)
        case .changeEpoch(let configuration, let incarnations):
            return changeEpoch(configuration, incarnations)
        case .adoptSet(let configuration, let base, let incarnations):
            return adopt(configuration, base, incarnations)
        case .setFull(let set):
            return setTable.update(set) { $0.isFull = true } == nil ? .conflict : .done
        case .confirmDrops(let orders):
            for order in orders { confirmDrop(order) }
            return .done
        case .confirmCuts(let cuts):
            for cut in cuts { confirmCut(cut) }
            return .done
        }
    }

    /// Executes a change that is new and permitted; throws before anything changed.
    mutating func perform(
        _ change: Change, by session: SessionID
    ) throws(FileError) -> Outcome {
        if let fault = change.fault { throw fault }
        switch change {
        case .create(let creation): return try create(creation)
        case .link(let inode, let parent, let name): return try link(inode, parent, name)
        case .unlink(let parent, let name, let holders):
            return try unlink(parent, name, holders)
        case .removeDirectory(let parent, let name): return try removeDirectory(parent, name)
        case .rename(let parent, let name, let newParent, let newName, let flags, let holders):
            return try rename(parent, name, newParent, newName, flags, holders)
        case .setAttributes(let inode, let changes): return try setAttributes(inode, changes)
        case .truncate(let inode, let size): return try truncate(inode, size)
        case .extend(let files, let numbers): return extend(files, numbers)
        case .allocate(let inode, let first, let sets):
            return try allocate(inode, first, sets)
        case .setExtendedAttribute(let inode, let name, let value, let flags):
            return try setExtendedAttribute(inode, name, value, flags)
        case .removeExtendedAttribute(let inode, let name):
            return try removeExtendedAttribute(inode, name)
        case .renewSession: return renew(session)
        case .releaseOrphans(let inodes):
            for inode in inodes { release(inode, by: session) }
            return .done
        case .closeSession:
            endSession(session)
            return .done
        case .operate(let operation): return operate(operation)
        }
    }
}
