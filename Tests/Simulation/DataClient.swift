// A client of the chunk servers: makes a file at the masters, writes stamped cells into it and
// into the files of others, and reads them back, from primaries and other members. Where disks are
// to get full, it makes, cuts and deletes files too; see DataClientFiles.
//
// Invariants:
//  1. A write keeps its sequence numbers until it is answered (C15).
//  2. It has no two unanswered writes over the same cell (C15).

import Base
import Node
import Wire

/// The client; see the head of the file.
final class DataClient: SimClient {
    enum Work {
        case write(stamp: UInt64, cells: [CellPlace], WriteRequest)
        case read(chunk: SharedChunk, block: UInt16, invoked: Int, pieces: [Piece])
        /// A question to the masters.
        case metadata(MetadataRequest)
    }
    struct Item {
        var request: UInt64
        var work: Work
        var set: SetID?
        var attempt = 0
        /// Where a read goes next; nil: to the primary.
        var member: Int?
        /// A read that must be answered by this member.
        var isPinned = false

        /// What it reads or writes.
        var chunk: ChunkID? {
            switch work {
            case .write(_, let cells, _): cells.first?.chunk
            case .read(let chunk, _, _, _): chunk.chunk
            case .metadata: nil
            }
        }
        var isChange: Bool {
            if case .metadata(let request) = work, case .change = request.body { return true }
            return false
        }
    }
    let number: Int
    let world: World
    let masters: Int
    let history: DataHistory
    var items: [Item] = []
    var isStopping = false
    /// What this client was told of sets; it may be long out of date, and an old primary
    /// may still be asked (C11).
    var views: [SetID: SetView] = [:]
    var appetite = Appetite.few
    /// The name of the file it makes.
    var newName: [UInt8] = []
    /// The file that it cuts, and what that takes away.
    var cutting: (file: SharedChunk, stamp: UInt64, cells: [CellPlace])?
    private var place = 0
    var random: SeededRandom
    var session = SessionID.none
    private var openedAt = Instant.zero
    private var nextChange: UInt64 = 1
    private var nextSequence: UInt64 = 1
    private var requests: UInt64 = 0
    private var leader: Int
    private var files = 0
    private var budget: Int
    private let window: Int
    private let pace: Int
    private let fileGoal: Int
    /// How long a set's view may be refused before it is asked for again.
    private var isAsking: [SetID: Bool] = [:]
    /// When it tells next which deleted files it does not have open.
    var nextRenewal = Instant.zero

    init(
        number: Int, world: World, masters: Int, history: DataHistory, appetite: Appetite,
        random: inout SeededRandom
    ) {
        self.appetite = appetite
        self.number = number
        self.world = world
        self.masters = masters
        self.history = history
        self.random = random.fork()
        leader = self.random.below(masters)
        window = 1 + self.random.below(6)
        pace = [1_000, 4_000, 15_000][self.random.below(3)]
        budget = appetite == .few ? 60 + self.random.below(240) : .max
        fileGoal = 1 + self.random.below(2)
        place = world.attach(self, at: number)
    }

    var isIdle: Bool { items.isEmpty }

    func start() { world.plan(timer: 0, client: place, after: .milliseconds(5)) }
    /// Goes on after it was stopped, in a session that has not expired meanwhile.
    func goOn(_ operations: Int, _ appetite: Appetite = .few) {
        self.appetite = appetite
        if appetite != .few, session != .none { change(.closeSession) }
        session = .none
        budget = operations
        isStopping = false
    }

    // MARK: Time

    func timer(_ token: Int) {
        guard token > 0 else { return think() }
        guard let index = items.firstIndex(where: { $0.request == UInt64(token >> 8) }),
            items[index].attempt & 0xFF == token & 0xFF
        else { return }
        if case .metadata = items[index].work {
            leader = (leader + 1) % masters
        } else if let set = items[index].set {
            refresh(set)
        }
        send(index)
    }

    private func think() {
        world.plan(
            timer: 0, client: place, after: .microseconds(Int64(100 + random.below(2 * pace))))
        guard !isStopping, items.count < window, budget > 0 else { return }
        if session == .none || files < fileGoal {
            guard items.isEmpty else { return }
            session == .none ? openSession() : createFile()
            return
        }
        if changesFiles() { return }
        guard !history.chunks.isEmpty else { return }
        budget -= 1
        if random.chance(2, of: 3) { write() } else { read() }
    }

    private func openSession() {
        change(.openSession(nonce: random.next(), label: "data \(number)"))
    }
    func createFile() {
        files += 1
        newName = Array("f\(number)-\(files)".utf8)
        change(
            .create(
                parent: .root, name: newName, kind: .file, mode: 0o644, user: 0, group: 0,
                device: 0, target: [], open: false))
    }
    func change(_ change: MetadataChange) {
        var number = RequestNumber(rawValue: 0)
        if session != .none {
            number = RequestNumber(rawValue: nextChange)
            nextChange += 1
        }
        begin(
            .metadata(
                MetadataRequest(
                    session: session, number: number, firstIncomplete: number, change: change)))
    }

    /// Asks the masters where a set is now.
    func refresh(_ set: SetID) {
        guard isAsking[set] == nil else { return }
        isAsking[set] = true
        begin(.metadata(MetadataRequest(session: session, query: .sets([set]))))
    }

    // MARK: Work

    private func write() {
        let chunk = history.chunks[random.below(history.chunks.count)]
        guard views[chunk.set] != nil else { return refresh(chunk.set) }
        var cells: [CellPlace] = []
        var extents: [Extent] = []
        history.lastStamp += 1
        let stamp = history.lastStamp
        for _ in 0..<(random.chance(1, of: 4) ? 2 : 1) {
            let block = UInt16(random.below(Cell.blocks))
            let first = random.below(Cell.count)
            let most = appetite == .few ? 4 : Cell.count
            let count = 1 + random.below(min(most, Cell.count - first))
            let places = (first..<first + count).map {
                CellPlace(chunk: chunk.chunk, block: block, cell: $0)
            }
            guard places.allSatisfy({ !isWriting($0) && !cells.contains($0) }) else { continue }
            cells += places
            extents.append(Self.extent(stamp, chunk.chunk, block, first..<first + count))
        }
        guard !extents.isEmpty else { return }
        let context = ChunkContext(
            set: chunk.set, epoch: .none, session: session, truncation: 0, cuts: [])
        let sequence = RequestNumber(rawValue: nextSequence)
        nextSequence += UInt64(extents.count)
        history.check.invoke(stamp, at: cells)
        let request = WriteRequest(
            context: context, sequence: sequence, firstUnacked: sequence, extents: extents)
        begin(.write(stamp: stamp, cells: cells, request), set: chunk.set)
    }

    private func isWriting(_ place: CellPlace) -> Bool {
        items.contains { item in
            if case .write(_, let cells, _) = item.work { cells.contains(place) } else { false }
        }
    }

    static func extent(
        _ stamp: UInt64, _ chunk: ChunkID, _ block: UInt16, _ cells: Range<Int>
    ) -> Extent {
        var writer = ByteWriter(capacity: cells.count * Cell.size)
        for _ in 0..<cells.count * Cell.size / 8 { writer.write(stamp) }
        let start = cells.lowerBound * Cell.size
        var pages: [UInt32] = []
        var position = 0
        while position < writer.count {
            let end = min(
                writer.count, (start + position) / Limits.page * Limits.page + Limits.page - start)
            pages.append(Checksum(of: writer.bytes[position..<end]).value)
            position = end
        }
        return Extent(
            chunk: chunk, block: block, start: UInt32(start), length: UInt32(writer.count),
            codec: .raw, stored: Checksum(of: writer.bytes), pages: pages,
            fileEnd: UInt64(block) * UInt64(Limits.block) + UInt64(start + writer.count),
            modified: .zero, payload: writer.bytes[...])
    }

    private func read() {
        let chunk = history.chunks[random.below(history.chunks.count)]
        let member = random.chance(1, of: 3) ? random.below(3) : nil
        read(chunk, UInt16(random.below(Cell.blocks)), member: member, isPinned: false)
    }
    /// Reads a block; `isPinned`: from that member and no other.
    func read(_ chunk: SharedChunk, _ block: UInt16, member: Int?, isPinned: Bool) {
        let invoked = history.check.tick()
        begin(
            .read(chunk: chunk, block: block, invoked: invoked, pieces: []), set: chunk.set,
            member: member, isPinned: isPinned)
    }

    private func begin(
        _ work: Work, set: SetID? = nil, member: Int? = nil, isPinned: Bool = false
    ) {
        requests += 1
        var item = Item(request: requests, work: work, set: set)
        item.member = member
        item.isPinned = isPinned
        items.append(item)
        send(items.count - 1)
    }

    // MARK: Sending

    private func send(_ index: Int) {
        if let chunk = items[index].chunk, history.gone.contains(chunk) {
            items.remove(at: index)
            return
        }
        items[index].attempt += 1
        let item = items[index]
        let wait = 300 + random.below(700)
        world.plan(
            timer: Int(item.request) << 8 | item.attempt & 0xFF, client: place,
            after: .milliseconds(Int64(wait)))
        switch item.work {
        case .metadata(let request):
            world.send(request.frame(request: item.request), fromClient: place, to: leader)
        case .write(let stamp, let cells, var request):
            guard let view = views[request.context.set] else { return }
            request.context.epoch = view.configuration.epoch
            request.firstUnacked = firstUnacked
            (request.context.truncation, request.context.cuts) = cuts(of: cells[0].chunk)
            items[index].work = .write(stamp: stamp, cells: cells, request)
            post(request.frame(request: item.request), to: view.configuration.primary, view)
        case .read(let chunk, let block, let invoked, _):
            guard let view = views[chunk.set] else { return }
            items[index].work = .read(chunk: chunk, block: block, invoked: invoked, pieces: [])
            let (truncation, cuts) = cuts(of: chunk.chunk)
            let context = ChunkContext(
                set: chunk.set, epoch: view.configuration.epoch, session: session,
                truncation: truncation, cuts: cuts)
            let request = ReadRequest(
                context: context, chunk: chunk.chunk, block: block, count: 1,
                backupFrom: item.member.map { _ in history.numbers[chunk.set] ?? RecordNumber.none }
            )
            let members = view.configuration.members
            let target =
                item.member.map { members[$0 % members.count] } ?? view.configuration.primary
            // Each attempt has a number of its own: pieces of two answers must not mix.
            requests += 1
            items[index].request = requests
            world.plan(
                timer: Int(requests) << 8 | item.attempt & 0xFF, client: place,
                after: .milliseconds(Int64(wait)))
            post(request.frame(request: requests), to: target, view)
        }
    }

    private var firstUnacked: RequestNumber {
        let open = items.compactMap { item -> RequestNumber? in
            if case .write(_, _, let request) = item.work { request.sequence } else { nil }
        }
        return open.min() ?? RequestNumber(rawValue: nextSequence)
    }

    private func post(_ frame: Frame, to disk: DiskID, _ view: SetView) {
        guard let location = view.locations.first(where: { $0.disk == disk }),
            let node = world.place(of: .server(location.server))
        else { return }
        world.send(frame, fromClient: place, to: node)
    }

    private func sendLater(_ index: Int, _ milliseconds: Int = 60) {
        items[index].attempt += 1
        let item = items[index]
        world.plan(
            timer: Int(item.request) << 8 | item.attempt & 0xFF, client: place,
            after: .milliseconds(Int64(5 + random.below(milliseconds))))
    }

    func disconnected(from place: Int) {
        // Whatever went there may be lost; the time-outs would notice too, later.
        for index in items.indices {
            if case .metadata = items[index].work, leader != place { continue }
            if random.chance(1, of: 2) { sendLater(index) }
        }
    }

    // MARK: Answers

    func received(_ frame: Frame, from place: Int) {
        guard let index = items.firstIndex(where: { $0.request == frame.request }) else { return }
        if let chunk = items[index].chunk, history.gone.contains(chunk) {
            items.remove(at: index)
            return
        }
        do {
            switch items[index].work {
            case .metadata(let request):
                take(try MetadataReply(frame), request, index, from: place)
            case .write(let stamp, let cells, let request):
                take(try WriteReply(frame), stamp, cells, request.context.set, index)
            case .read: take(try ReadReply(frame), index)
            }
        } catch {
            world.fail("reply coding", "\(frame.kind): \(error)")
        }
    }

    private func take(
        _ reply: MetadataReply, _ request: MetadataRequest, _ index: Int, from place: Int
    ) {
        switch reply {
        case .notLeader(let hint, _):
            let next = hint.map { Int($0.rawValue) - 1 } ?? place + 1
            leader = (next + masters - 1) % masters
            return sendLater(index)
        case .retry:
            leader = (place + masters - 1) % masters
            return sendLater(index)
        default: break
        }
        leader = place
        items.remove(at: index)
        switch reply {
        case .session(let id, _):
            session = id
            openedAt = world.now
        case .created(let attributes, let layout):
            history.names[attributes.inode] = newName
            guard let first = layout.chunks.first else {
                // No set can take it yet.
                change(.allocate(attributes.inode, first: 0, count: 1))
                return
            }
            learn(attributes.inode, first, layout)
        case .layout(let layout):
            guard let first = layout.chunks.first else {
                change(.allocate(layout.inode, first: 0, count: 1))
                return
            }
            learn(layout.inode, first, layout)
        case .sets(let views):
            for view in views { learn(view) }
            if case .query(.sets(let sets)) = request.body {
                for set in sets { isAsking[set] = nil }
            }
        default:
            if !takeFile(reply) { world.fail("metadata", "\(request.body) got \(reply)") }
        }
    }

    private func learn(_ view: SetView) {
        history.learn(view)
        views.learn(view)
    }

    private func learn(_ inode: InodeID, _ chunk: LayoutChunk, _ layout: Layout) {
        for view in layout.sets { learn(view) }
        history.chunks.append(
            SharedChunk(
                inode: inode, chunk: chunk.chunk, set: chunk.set, owner: number,
                name: history.names[inode] ?? []))
    }

    private func take(
        _ reply: WriteReply, _ stamp: UInt64, _ cells: [CellPlace], _ set: SetID, _ index: Int
    ) {
        switch reply.status {
        case .done:
            items.remove(at: index)
            history.check.acknowledge(stamp, at: cells)
            history.acknowledge(set, reply)
            world.say("client \(number): write \(stamp) is acknowledged as \(reply.number)")
        case .notPrimary, .staleEpoch, .unknownSet:
            refresh(set)
            sendLater(index)
        case .notServing, .busy: sendLater(index)
        case .noSpace:
            history.refusals.append(set)
            if isPatient { sendLater(index, 500) } else { items.remove(at: index) }
        case .outdated where appetite != .few: sendLater(index)
        case .fenced where world.now - openedAt >= Limits.sessionTerm * 4 / 5:
            // The session is not renewed, and has expired: nobody will ever say (C16).
            items.remove(at: index)
        case .outdated, .damaged, .fenced, .invalid:
            world.fail("write status", "write \(stamp) got \(reply.status)")
        }
    }

    private func take(_ reply: ReadReply, _ index: Int) {
        guard case .read(let chunk, let block, let invoked, var pieces) = items[index].work else {
            return
        }
        switch reply.status {
        case .done:
            pieces += reply.pieces
            items[index].work = .read(
                chunk: chunk, block: block, invoked: invoked, pieces: pieces)
            guard reply.isLast else { return }
            items.remove(at: index)
            history.note(chunk.set, reply.number)
            guard reply.blocks >= 1 else {
                return world.fail("read", "an answer without the block that was asked for")
            }
            check(pieces, chunk, block, invoked)
        case .outdated where appetite != .few: sendLater(index)
        case .damaged where history.lost.contains(BlockPlace(chunk: chunk.chunk, block: block)):
            items.remove(at: index)
            history.lostReads += 1
        case .invalid, .fenced, .outdated, .noSpace:
            world.fail("read status", "a read of \(chunk.chunk) got \(reply.status)")
        default:
            if reply.status != .notServing, reply.status != .busy { refresh(chunk.set) }
            if !items[index].isPinned {
                items[index].member = random.chance(1, of: 2) ? random.below(3) : nil
            }
            sendLater(index)
        }
    }

    /// Lays the pieces over each other and checks every cell.
    private func check(
        _ pieces: [Piece], _ chunk: SharedChunk, _ block: UInt16, _ invoked: Int
    ) {
        var content = [UInt8](repeating: 0, count: Cell.count * Cell.size)
        for piece in pieces {
            let extent = piece.extent
            guard extent.chunk == chunk.chunk, extent.block == block, extent.codec == .raw,
                Checksum(of: extent.payload) == extent.stored
            else { return world.fail("read", "a damaged or foreign piece of \(chunk.chunk)") }
            let start = Int(extent.start)
            let visible = extent.payload.prefix(Int(piece.visible))
            content.replaceSubrange(start..<start + visible.count, with: visible)
        }
        history.reads += 1
        for cell in 0..<Cell.count {
            var stamps = ByteReader(content[cell * Cell.size..<(cell + 1) * Cell.size])
            let first = (try? stamps.read(UInt64.self)) ?? 0
            while let next = try? stamps.read(UInt64.self) {
                guard next == first else {
                    return world.fail("atomic", "cell \(cell) mixes \(first) and \(next)")
                }
            }
            let place = CellPlace(chunk: chunk.chunk, block: block, cell: cell)
            let wrong = history.check.read(first, place, invoked: invoked)
            if let wrong {
                return world.fail("registers", "client \(number) read \(wrong)")
            }
        }
    }
}
