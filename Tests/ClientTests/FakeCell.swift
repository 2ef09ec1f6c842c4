// A cell in the test's own process: one master and three chunk servers behind real sockets, with
// the rules of the real ones that a client depends on, and faults on demand.

import Base
import Client
import Glibc
import NIOCore
import NIOPosix
import Synchronization
import Transport
import Wire

/// One listener; `handle` gives the replies to a frame.
private final class FakeServer: LinkOwner {
    private let handle: @Sendable (Frame) -> [Frame]
    init(_ handle: @escaping @Sendable (Frame) -> [Frame]) { self.handle = handle }
    func admit(_ peer: ProvenPeer) -> Refused? { nil }
    func linkOpened(_ link: Link) {}
    func linkReceived(_ frame: Frame, on link: Link) {
        for var reply in handle(frame) {
            reply.request = frame.request
            link.send(reply)
        }
        link.flush()
    }
    func linkClosed(_ link: Link, because error: TransportError) {}
}

/// What goes wrong.
struct Faults {
    /// Answers a write in place of doing it; nil does it.
    var write: (@Sendable (WriteRequest) -> ChunkStatus?)?
    /// Does the write but loses the answer.
    var losesWriteReply: (@Sendable (WriteRequest) -> Bool)?
    /// Answers a read in place of doing it, by the server's index; nil does it.
    var read: (@Sendable (Int, ReadRequest) -> ChunkStatus?)?
    /// Never answers a read.
    var ignoresRead: (@Sendable (Int) -> Bool)?
    /// Whether the masters believe a server to be down.
    var isDown: (@Sendable (Int) -> Bool)?
    /// The epoch of every set, in place of the state's.
    var epoch: (@Sendable () -> Epoch)?
    /// Servers whose stored bytes are all damaged.
    var damaged: Set<Int> = []
    /// Blocks in one reply.
    var blocksPerReply = 64
    /// Does the change but loses the answer.
    var losesChangeReply: (@Sendable (MetadataChange) -> Bool)?
    /// Answers in place of the leader.
    var metadata: (@Sendable (MetadataRequest) -> MetadataReply?)?
}

/// The state of the cell.
struct FakeState {
    struct File {
        var attributes: Attributes
        var truncation: UInt32 = 0
        var cuts: [Cut] = []
        var chunks: [UInt32: LayoutChunk] = [:]
    }
    struct Stored {
        var extent: Extent
        var visible: UInt32
    }
    struct Block: Hashable {
        let chunk: ChunkID
        let block: UInt16
    }
    struct Number: Hashable {
        let session: SessionID
        let number: RequestNumber
        var set = SetID(rawValue: 0)
    }
    var faults = Faults()
    var files: [InodeID: File] = [:]
    var names: [[UInt8]: InodeID] = [:]
    var blocks: [Block: [Stored]] = [:]
    var truncations: [ChunkID: UInt32] = [:]
    var sessions: Set<SessionID> = []
    var lastSession: UInt64 = 0
    var replies: [Number: MetadataReply] = [:]
    var written: Set<Number> = []
    var epochs: [SetID: Epoch] = [:]
    var clock: Int64 = 1_000
    var opened: [InodeID: Int] = [:]
    /// What was done, for tests.
    var changes: [MetadataChange] = []
    var reads = 0
    var writes = 0
}

final class FakeCell: Sendable {
    static let servers = 3
    let state = Mutex(FakeState())
    let target: CellTarget
    private let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    private let listeners: [Listener]
    private let views: @Sendable (Epoch, SetID) -> SetView

    init() throws {
        let folder = "/tmp/martlet-test-\(getpid())-\(UInt32.random(in: 0 ... .max))"
        mkdir(folder, 0o700)
        let cell = CellID(high: 1, low: 2)
        let key = CellKey(bytes: [UInt8](repeating: 7, count: 32))!
        let loop = group.next()
        let shared = Shared()
        func listen(
            _ name: String, _ role: PeerRole, _ node: UInt64,
            _ handle: @escaping @Sendable (FakeCell, Frame) -> [Frame]
        ) throws -> Listener {
            let identity = PeerIdentity(cell: cell, role: role, node: node)
            let server = FakeServer { frame in shared.cell.map { handle($0, frame) } ?? [] }
            return try Listener.open(
                network: "", socket: "\(folder)/\(name)",
                credentials: Credentials(identity: identity, key: key), owner: server,
                counters: TransportCounters(), on: loop)
        }
        var listeners = [try listen("master", .master, 1) { $0.master($1) }]
        for index in 0..<Self.servers {
            listeners.append(
                try listen("chunk\(index)", .chunkServer, UInt64(index + 1)) { cell, frame in
                    cell.chunkServer(index, frame)
                })
        }
        self.listeners = listeners
        let addresses = listeners.map(\.address)
        target = CellTarget(
            cell: cell, key: key,
            masters: [MasterTarget(id: MasterID(rawValue: 1), address: addresses[0])])
        views = { epoch, set in
            let disks = (1...Self.servers).map { DiskID(rawValue: UInt64($0)) }
            let primary = disks[Int(set.rawValue + epoch.rawValue - 1) % Self.servers]
            return SetView(
                configuration: SetConfiguration(
                    set: set, epoch: epoch, primary: primary, members: disks),
                locations: disks.map { disk in
                    DiskLocation(
                        disk: disk, server: ServerID(rawValue: disk.rawValue),
                        address: addresses[Int(disk.rawValue)], isUp: true)
                })
        }
        shared.set(self)
    }
    private final class Shared: Sendable {
        private let held = Mutex<FakeCell?>(nil)
        var cell: FakeCell? { held.withLock { $0 } }
        func set(_ cell: FakeCell) { held.withLock { $0 = cell } }
    }

    func client(deadline: Interval? = .seconds(20), cacheBytes: Int = 1 << 20) throws -> FileSystem
    {
        let client = FileSystem(
            target: target,
            options: ClientOptions(
                label: "test", cacheBytes: cacheBytes, writeBufferBytes: 8 << 20,
                deadline: deadline))
        try client.connect()
        return client
    }
    func setFaults(_ change: (inout Faults) -> Void) {
        state.withLock { change(&$0.faults) }
    }
    func view(_ set: SetID, _ state: FakeState) -> SetView {
        let epoch = state.faults.epoch?() ?? state.epochs[set] ?? Epoch(rawValue: 1)
        var view = views(epoch, set)
        for index in view.locations.indices {
            view.locations[index].isUp = state.faults.isDown?(index) != true
        }
        return view
    }
}

// The master.
extension FakeCell {
    private func master(_ frame: Frame) -> [Frame] {
        guard let request = try? MetadataRequest(frame) else { return [] }
        return state.withLock { state in
            if let reply = state.faults.metadata?(request) { return [reply.frame()] }
            switch request.body {
            case .query(let query): return [answer(query, request.session, &state).frame()]
            case .change(let change):
                let number = FakeState.Number(session: request.session, number: request.number)
                let isOpening = if case .openSession = change { true } else { false }
                guard isOpening || state.sessions.contains(request.session) else {
                    return [MetadataReply.sessionDead.frame()]
                }
                let reply: MetadataReply
                if !isOpening, let known = state.replies[number] {
                    reply = known
                } else {
                    state.clock += 1
                    reply = apply(change, &state)
                    state.changes.append(change)
                    if !isOpening { state.replies[number] = reply }
                }
                return state.faults.losesChangeReply?(change) == true ? [] : [reply.frame()]
            }
        }
    }

    private func answer(
        _ query: MetadataQuery, _ session: SessionID, _ state: inout FakeState
    ) -> MetadataReply {
        switch query {
        case .lookup(_, let name):
            guard let inode = state.names[name], let file = state.files[inode] else {
                return .failed(.notFound)
            }
            return .entry(file.attributes)
        case .attributes(let inode):
            return state.files[inode].map { .entry($0.attributes) } ?? .failed(.stale)
        case .open(let inode):
            guard state.sessions.contains(session) else { return .sessionDead }
            guard let file = state.files[inode] else { return .failed(.stale) }
            state.opened[inode, default: 0] += 1
            return .opened(file.attributes, layout(inode, 0, 1, state))
        case .close(let inode):
            state.opened[inode, default: 0] -= 1
            return .done
        case .layout(let inode, let first, let count):
            return .layout(layout(inode, first, count, state))
        case .sets(let sets): return .sets(sets.map { view($0, state) })
        case .statistics:
            return .statistics(CellStatistics(capacity: 1, free: 1, files: 1))
        default: return .failed(.notSupported)
        }
    }

    private func layout(
        _ inode: InodeID, _ first: UInt32, _ count: UInt32, _ state: FakeState
    ) -> Layout {
        guard let file = state.files[inode] else {
            return Layout(inode: inode, truncation: 0, cuts: [], chunks: [], sets: [])
        }
        let chunks = (first..<first + count).compactMap { file.chunks[$0] }
        return Layout(
            inode: inode, truncation: file.truncation, cuts: file.cuts, chunks: chunks,
            sets: Set(chunks.map(\.set)).sorted().map { view($0, state) })
    }

    private func place(_ inode: InodeID, _ index: UInt32, _ version: UInt32) -> LayoutChunk {
        LayoutChunk(
            chunk: ChunkID(inode: inode, index: index, version: version),
            set: SetID(rawValue: (inode.rawValue + UInt64(index)) % 4 + 1))
    }

    private func apply(_ change: MetadataChange, _ state: inout FakeState) -> MetadataReply {
        let now = Timestamp(nanoseconds: state.clock)
        switch change {
        case .openSession:
            state.lastSession += 1
            state.sessions.insert(SessionID(rawValue: state.lastSession))
            return .session(SessionID(rawValue: state.lastSession), time: now)
        case .renewSession: return .orphans([], time: now)
        case .create(_, let name, let kind, let mode, _, _, _, _, let open):
            if state.names[name] != nil { return .failed(.exists) }
            let inode = InodeID(rawValue: UInt64(state.files.count + 2))
            var file = FakeState.File(
                attributes: Attributes(
                    inode: inode, kind: kind, mode: mode, modified: now, changed: now))
            file.chunks[0] = place(inode, 0, 0)
            state.files[inode] = file
            state.names[name] = inode
            if open { state.opened[inode, default: 0] += 1 }
            return .created(file.attributes, layout(inode, 0, 1, state))
        case .extend(let files, _): return .extended(files.map { extend($0, now, &state) })
        case .truncate(let inode, let size): return truncate(inode, size, now, &state)
        case .allocate(let inode, let first, let count):
            for index in first..<first + count where state.files[inode]?.chunks[index] == nil {
                let version = state.files[inode]?.truncation ?? 0
                state.files[inode]?.chunks[index] = place(inode, index, version)
            }
            return .layout(layout(inode, first, count, state))
        case .setAttributes(let inode, let changes):
            guard var file = state.files[inode] else { return .failed(.stale) }
            if let mode = changes.mode { file.attributes.mode = mode }
            if case .at(let time)? = changes.modified { file.attributes.modified = time }
            file.attributes.changed = now
            state.files[inode] = file
            return .entry(file.attributes)
        case .closeSession: return .done
        default: return .failed(.notSupported)
        }
    }

    private func extend(
        _ end: FileEnd, _ now: Timestamp, _ state: inout FakeState
    ) -> FileEndOutcome {
        guard var file = state.files[end.inode] else { return .failed(.stale) }
        guard file.truncation == end.truncation else {
            return .outdated(file.attributes, layout(end.inode, 0, 0, state))
        }
        file.attributes.size = max(file.attributes.size, end.end)
        file.attributes.modified = end.modified
        file.attributes.changed = now
        state.files[end.inode] = file
        return .done(file.attributes)
    }

    private func truncate(
        _ inode: InodeID, _ size: UInt64, _ now: Timestamp, _ state: inout FakeState
    ) -> MetadataReply {
        guard var file = state.files[inode] else { return .failed(.stale) }
        if size < file.attributes.size {
            file.truncation += 1
            let cut = UInt32(size / UInt64(Limits.chunk))
            let from = UInt32(size % UInt64(Limits.chunk))
            for (index, place) in file.chunks {
                if index > cut || (index == cut && from == 0) {
                    file.chunks[index] = nil
                    state.truncations[place.chunk] = .max
                } else if index == cut {
                    // The order to the primary is carried out at once.
                    trim(place.chunk, from, &state)
                    state.truncations[place.chunk] = file.truncation
                }
            }
        }
        file.attributes.size = size
        file.attributes.modified = now
        file.attributes.changed = now
        state.files[inode] = file
        return .opened(file.attributes, layout(inode, 0, 1, state))
    }

    private func trim(_ chunk: ChunkID, _ from: UInt32, _ state: inout FakeState) {
        let block = Int(from) / Limits.block
        for key in state.blocks.keys where key.chunk == chunk {
            if Int(key.block) > block { state.blocks[key] = nil }
            guard Int(key.block) == block else { continue }
            let end = from % UInt32(Limits.block)
            for index in state.blocks[key]!.indices {
                let start = state.blocks[key]![index].extent.start
                let kept = end > start ? end - start : 0
                state.blocks[key]![index].visible = min(
                    state.blocks[key]![index].visible, kept)
            }
        }
    }
}

// The chunk servers. All of them share what is stored.
extension FakeCell {
    private func chunkServer(_ index: Int, _ frame: Frame) -> [Frame] {
        switch frame.kind {
        case .writeRequest:
            guard let request = try? WriteRequest(frame) else { return [] }
            return state.withLock { state in
                let status = write(index, request, &state)
                if state.faults.losesWriteReply?(request) == true { return [] }
                let epoch = state.epochs[request.context.set] ?? Epoch(rawValue: 1)
                return [WriteReply(status: status, epoch: epoch, number: .none).frame()]
            }
        case .readRequest:
            guard let request = try? ReadRequest(frame) else { return [] }
            return state.withLock { state in
                state.reads += 1
                if state.faults.ignoresRead?(index) == true { return [] }
                return read(index, request, &state)
            }
        default: return []
        }
    }

    private func write(
        _ index: Int, _ request: WriteRequest, _ state: inout FakeState
    ) -> ChunkStatus {
        if let status = state.faults.write?(request) { return status }
        let configuration = view(request.context.set, state).configuration
        guard request.context.epoch == configuration.epoch else { return .staleEpoch }
        guard configuration.primary.rawValue == UInt64(index + 1) else { return .notPrimary }
        guard state.sessions.contains(request.context.session) else { return .fenced }
        let chunk = request.extents[0].chunk
        precondition(request.extents.allSatisfy { $0.chunk == chunk })
        if request.context.truncation < state.truncations[chunk] ?? 0 { return .outdated }
        var number = request.sequence
        for extent in request.extents {
            let key = FakeState.Number(
                session: request.context.session, number: number, set: request.context.set)
            number = number.next
            guard state.written.insert(key).inserted else { continue }
            state.writes += 1
            let block = FakeState.Block(chunk: chunk, block: extent.block)
            if extent.length == UInt32(Limits.block) { state.blocks[block] = [] }
            state.blocks[block, default: []].append(
                FakeState.Stored(extent: extent, visible: extent.length))
        }
        return .done
    }

    private func read(
        _ index: Int, _ request: ReadRequest, _ state: inout FakeState
    ) -> [Frame] {
        let configuration = view(request.context.set, state).configuration
        func refuse(_ status: ChunkStatus) -> [Frame] {
            [
                ReadReply(
                    status: status, epoch: configuration.epoch, number: .none, blocks: 0,
                    isLast: true, pieces: []
                ).frame()
            ]
        }
        if let status = state.faults.read?(index, request) { return refuse(status) }
        guard request.context.epoch == configuration.epoch else { return refuse(.staleEpoch) }
        let isPrimary = configuration.primary.rawValue == UInt64(index + 1)
        guard isPrimary || request.backupFrom != nil else { return refuse(.notPrimary) }
        if request.context.truncation < state.truncations[request.chunk] ?? 0 {
            return refuse(.outdated)
        }
        var frames: [Frame] = []
        var pieces: [Piece] = []
        var bytes = 0
        var answered: UInt16 = 0
        for block in request.block..<request.block + request.count {
            let key = FakeState.Block(chunk: request.chunk, block: block)
            let stored = state.blocks[key] ?? []
            let size = stored.reduce(0) { $0 + $1.extent.payload.count }
            let isFull = bytes + size > Limits.framePayload
            if answered > 0, isFull || answered >= state.faults.blocksPerReply { break }
            for item in stored {
                var extent = item.extent
                if state.faults.damaged.contains(index) {
                    var payload = Array(extent.payload)
                    payload[payload.count / 2] ^= 4
                    extent.payload = payload[...]
                }
                // A block with many extents takes several frames.
                if bytes + extent.payload.count > Limits.framePayload {
                    frames.append(
                        ReadReply(
                            status: .done, epoch: configuration.epoch, number: .none, blocks: 0,
                            isLast: false, pieces: pieces
                        ).frame())
                    pieces = []
                    bytes = 0
                }
                pieces.append(Piece(extent: extent, visible: item.visible))
                bytes += extent.payload.count
            }
            answered += 1
        }
        frames.append(
            ReadReply(
                status: .done, epoch: configuration.epoch, number: .none, blocks: answered,
                isLast: true, pieces: pieces
            ).frame())
        return frames
    }
}
