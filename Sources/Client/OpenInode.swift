// One file that is open here: everything the client knows of it and has not given back yet.
//
// Invariants:
//  1. All handles of a file share one, so that each sees the others' writes at once.
//  2. Calls that write bytes or truncate take turns, in which an appending write sees the end of
//     the file; reads, flushes and attributes never wait for a turn.
//  3. Attributes only go forward: an answer older than the newest one known changes nothing.

package import Base
import Blocks
import Caching
import Synchronization
import Wire

/// A read on its way, for blocks of one file.
struct Fetch {
    enum Outcome {
        case pending
        /// The pieces of all its blocks.
        case answered([Piece])
        case failed
    }
    let id: UInt64
    let place: LayoutChunk
    let first: FileBlock
    /// 1 to 64.
    var count: Int
    let started: Instant
    /// Who was asked.
    var disk: DiskID?
    var outcome = Outcome.pending
    /// A bit for each block whose content here may be older than what was acknowledged since, so
    /// that no reader who comes later may use it.
    var poisoned: UInt64 = 0
    /// A bit for each block that a reader took.
    var taken: UInt64 = 0

    /// Whether readers took every block of it.
    var isTaken: Bool { taken.nonzeroBitCount == count }
    /// Whether a reader may use it for a block.
    func isUsable(for block: FileBlock) -> Bool {
        bit(of: block).map { poisoned & $0 == 0 } ?? false
    }
    func bit(of block: FileBlock) -> UInt64? {
        guard block >= first, block.rawValue - first.rawValue < UInt32(count) else { return nil }
        return 1 << UInt64(block.rawValue - first.rawValue)
    }
}

/// A file that is open; shared by its handles, the flusher and answers from the network.
final class OpenInode: Sendable {
    struct State {
        var attributes: Attributes
        var map: FileMap
        var tag: CacheTag
        var buffer = WriteBuffer()
        var probe = CompressionProbe()
        var fetches: [Fetch] = []
        var lastFetch: UInt64 = 0
        /// Blocks worth asking for at once, by how much came back the last times.
        var blocksPerRead = 2
        /// Handles, and calls that use it without one.
        var users = 0
        /// Opens that the leader counts.
        var opens = 0
        var isWriting = false
        var isExtending = false
        var isListed = false

        /// The size with what was written here.
        var size: UInt64 { max(attributes.size, buffer.end ?? 0) }

        /// Whether the masters' size covers everything that is acknowledged.
        var isSizeKnown: Bool {
            !buffer.isStranded && buffer.settlement.map { $0.end <= attributes.size } ?? true
        }

        /// The attributes with what was written here.
        var shown: Attributes {
            var shown = attributes
            shown.size = size
            if let modified = buffer.modified {
                shown.modified = modified
                shown.changed = max(shown.changed, modified)
            }
            return shown
        }

        /// Takes an answer of the masters. `isOwn`: a change made here explains it.
        mutating func adopt(_ new: Attributes, isOwn: Bool) {
            guard new.changed >= attributes.changed else { return }
            let isSame =
                new.size == attributes.size && new.modified == attributes.modified
                && new.changed == attributes.changed
            attributes = new
            if !isOwn, !isSame { invalidate() }
        }
        /// Takes a layout and the attributes that came with it.
        mutating func adopt(_ new: Attributes, _ layout: Layout, first: UInt32, count: UInt32) {
            if layout.truncation > map.truncation { attributes = new }
            adopt(new, isOwn: false)
            learn(layout, first: first, count: count)
        }
        mutating func learn(_ layout: Layout, first: UInt32, count: UInt32) {
            let before = map.truncation
            map.learn(layout, first: first, count: count)
            guard map.truncation != before else { return }
            buffer.overtake()
            invalidate()
        }
        /// Somebody else changed the file: nothing read so far is used any more.
        mutating func invalidate() {
            tag = CacheTag(truncation: map.truncation, attributes: attributes)
            map.forgetAbsent()
            for index in fetches.indices { fetches[index].poisoned = .max }
        }
        /// A block is about to change: what was fetched of it is old.
        mutating func poison(_ block: FileBlock) {
            for index in fetches.indices {
                if let bit = fetches[index].bit(of: block) { fetches[index].poisoned |= bit }
            }
        }
    }

    let inode: InodeID
    let session: ClientSession
    let state: Monitor<State>
    private let budget: WriteBudget
    private let flusher: FlushList

    init(
        _ attributes: Attributes, _ layout: Layout, session: ClientSession, budget: WriteBudget,
        flusher: FlushList
    ) {
        inode = attributes.inode
        self.session = session
        self.budget = budget
        self.flusher = flusher
        // Create and open answer with the first chunk.
        let map = FileMap(layout, first: 0, count: 1)
        let tag = CacheTag(truncation: layout.truncation, attributes: attributes)
        state = Monitor(State(attributes: attributes, map: map, tag: tag))
    }

    /// Changes the write buffer, wakes who waits for it, and keeps the accounts.
    func change<Result>(_ body: (inout State) -> Result) -> Result {
        let (result, delta, mustList) = state.update { state -> (Result, Int, Bool) in
            let before = state.buffer.bytes
            let result = body(&state)
            let mustList = !state.isListed && !state.buffer.isClean
            if mustList { state.isListed = true }
            return (result, state.buffer.bytes - before, mustList)
        }
        if delta != 0 { budget.adjust(inode, by: delta) }
        if mustList { flusher.add(self) }
        return result
    }

    /// The cell answered one extent.
    func answer(_ block: FileBlock, _ outcome: ExtentOutcome) {
        let wantsFlusher = change { state -> Bool in
            state.buffer.answer(block, outcome, now: BootClock.now())
            return state.buffer.hasReady || state.buffer.isStranded
                || state.buffer.unsettledBytes >= budget.settleBytes
        }
        if wantsFlusher { flusher.poke() }
    }

    /// Takes the turn to write or truncate. Errors: interrupted, timedOut.
    func takeTurn(_ patience: Patience) throws(FileError) {
        try state.wait(patience) { state -> Void? in
            guard !state.isWriting else { return nil }
            state.isWriting = true
            return ()
        }
    }
    func endTurn() { state.update { $0.isWriting = false } }
}

/// A handle of an open file.
package final class OpenFile: Sendable {
    /// The file.
    package let inode: InodeID
    let node: OpenInode
    let options: OpenOptions
    /// How many errors of the file this handle was told at flush or sync (K6), and by write.
    let told: Mutex<(flush: UInt64, write: UInt64)>
    let habit = Mutex(ReadAhead())

    init(node: OpenInode, options: OpenOptions) {
        inode = node.inode
        self.node = node
        self.options = options
        let failures = node.state.withLock { $0.buffer.failures }
        told = Mutex((failures, failures))
    }
}

/// Bounds what was written and is not safe yet (S10).
final class WriteBudget: Sendable {
    /// A file below this may always go on, however full the rest is.
    private static let fileMinimum = 1 << 20

    private struct State {
        var used = 0
        var files: [InodeID: Int] = [:]
    }
    private let bound: Int
    /// A file whose unsettled bytes reach this is settled in the background.
    let settleBytes: Int
    private let state = Monitor(State())

    init(bound: Int) {
        self.bound = max(bound, 4 * Self.fileMinimum)
        settleBytes = self.bound / 8 * 3
    }

    /// Whether old bytes should be sent to make room.
    var isTight: Bool { state.withLock { $0.used > bound / 2 } }

    func adjust(_ inode: InodeID, by delta: Int) {
        let body = { (state: inout State) in
            state.used += delta
            let held = (state.files[inode] ?? 0) + delta
            state.files[inode] = held == 0 ? nil : held
        }
        if delta > 0 { state.withLock(body) } else { state.update(body) }
    }

    /// Whether a file may hold more now.
    func hasRoom(_ inode: InodeID) -> Bool { state.withLock { Self.allows($0, inode, bound) } }
    /// Waits until a file may hold more: a share of the bound for each file, so that one file
    /// whose set is stalled leaves room for others. Errors: interrupted, timedOut.
    func waitForRoom(_ inode: InodeID, _ patience: Patience) throws(FileError) {
        try state.wait(patience) { Self.allows($0, inode, bound) ? () : nil }
    }
    private static func allows(_ state: State, _ inode: InodeID, _ bound: Int) -> Bool {
        let held = state.files[inode] ?? 0
        return held < fileMinimum || (state.used < bound && held < bound / 4 * 3)
    }
}

/// The open files that have unsafe bytes, for the flusher.
final class FlushList: Sendable {
    private struct State {
        var nodes: [ObjectIdentifier: OpenInode] = [:]
        var isPoked = false
        var isClosed = false
    }
    private let state = Monitor(State())

    func add(_ node: OpenInode) {
        state.withLock { $0.nodes[ObjectIdentifier(node)] = node }
    }
    /// Something can go on now.
    func poke() { state.update { $0.isPoked = true } }
    func close() { state.update { $0.isClosed = true } }
    /// Waits for a poke or so long; nil when closed.
    func next(atMost interval: Interval) -> [OpenInode]? {
        state.wait(atMost: interval) { state -> Void? in
            state.isPoked || state.isClosed ? () : nil
        }
        return state.withLock { state in
            state.isPoked = false
            return state.isClosed ? nil : Self.sorted(state)
        }
    }
    /// The files now.
    var nodes: [OpenInode] { state.withLock { Self.sorted($0) } }
    private static func sorted(_ state: State) -> [OpenInode] {
        state.nodes.values.sorted { $0.inode < $1.inode }
    }
    /// Takes a file off if it is clean; true then.
    func removeClean(_ node: OpenInode) -> Bool {
        // The order of the locks is list, then file; everybody else holds one at a time.
        state.withLock { list -> Bool in
            let isClean = node.state.withLock { state -> Bool in
                if state.buffer.isClean { state.isListed = false }
                return state.buffer.isClean
            }
            if isClean { list.nodes[ObjectIdentifier(node)] = nil }
            return isClean
        }
    }
}
