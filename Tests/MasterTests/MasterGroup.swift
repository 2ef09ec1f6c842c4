// Masters in memory: disks that are done at once and keep everything, a network with one
// millisecond of delay, clients that ask and chunk servers that obey.

import Base
import Consensus
import Master
import Node
import Store
import Wire

/// What happens at one change of a disk.
enum DiskFault: CaseIterable {
    /// It fails, and so does all after it (S4).
    case broken
    /// The file system has no room for a new file.
    case full
    /// The power fails before it, or in the middle of it.
    case powerBefore, powerWithin
}

/// A disk that keeps everything, and fails only where it is told to.
struct MemoryDisk {
    private(set) var files: [DiskFile: [UInt8]] = [:]
    /// At the change of this number, from 1.
    var fault: (change: Int, kind: DiskFault)?
    private(set) var changes = 0

    mutating func flip(_ file: DiskFile, at offset: Int) { files[file]?[offset] ^= 1 }

    var inventory: DiskInventory {
        DiskInventory(
            files: files.keys.sorted().map { DiskFileSize(file: $0, size: files[$0]!.count) },
            capacity: 64 << 20)
    }
    /// Nil: the power has failed.
    mutating func perform(_ effect: DiskEffect) -> DiskResult? {
        if case .read = effect { return carryOut(effect) }
        changes += 1
        guard let fault, changes >= fault.change else { return carryOut(effect) }
        switch fault.kind {
        case .broken: return .failed(.system(errno: 5))
        case .full:
            guard case .create = effect else { return carryOut(effect) }
            return .failed(.noSpace)
        case .powerBefore: return nil
        case .powerWithin:
            if case .write(let operation, let file, let offset, let pieces, let durable) = effect {
                let bytes = Array(pieces.joined())
                let part = bytes.prefix(bytes.count / 1_024 * 512)
                _ = carryOut(
                    .write(operation, file, offset: offset, pieces: [part], durable: durable))
            }
            return nil
        }
    }
    private mutating func carryOut(_ effect: DiskEffect) -> DiskResult {
        switch effect {
        case .create(_, let file, let size):
            files[file] = [UInt8](repeating: 0, count: size)
        case .write(_, let file, var offset, let pieces, _):
            for piece in pieces {
                let end = offset + piece.count
                if files[file, default: []].count < end {
                    files[file, default: []] += [UInt8](
                        repeating: 0, count: end - files[file, default: []].count)
                }
                files[file]?.replaceSubrange(offset..<end, with: piece)
                offset = end
            }
        case .sync: break
        case .read(_, let file, let offset, let length):
            let bytes = files[file] ?? []
            let end = min(bytes.count, offset + length)
            return .bytes(offset < end ? bytes[offset..<end] : [])
        case .remove(_, let file): files[file] = nil
        }
        return .done
    }
}

/// A chunk server that does as it is told at once.
struct FakeServer {
    let id: ServerID
    var incarnation: UInt64 = 1
    var isUp = true
    var sets: [SetID: SetReport] = [:]
    var dropped: [UInt64] = []
    var drops: [DropOrder] = []
    /// Disks that it was to fill, and has at once.
    var fills: [FillOrder] = []
    /// Copies that it was to empty, and has at once.
    var discards: [SetConfiguration] = []
    var nextReport: Int64 = 0
    var reports: UInt64 = 0
    var target = 0
    /// Configurations that it was sent.
    var views: [SetID: SetConfiguration] = [:]
    /// Its machine, where it is not one of its own.
    var machine: String?
    var space = DiskSpace()
    var connections = ConnectionCounts()
    /// The list of expired sessions that it keeps to.
    var fences = FenceList()
    var used: UInt64 = 1 << 30

    /// How many disks it had before this one.
    var replaced: UInt64 = 0
    var scrub = ScrubReport()

    var disk: DiskID { DiskID(rawValue: id.rawValue * 10 + replaced) }
    /// It starts with an empty disk in the place of its own.
    mutating func replaceDisk() {
        replaced += 1
        incarnation = 1
        reports = 0
        sets = [:]
        views = [:]
    }
    var report: ServerReport {
        ServerReport(
            server: id, name: "chunkserver-\(id)", rack: "",
            address: PeerAddress(
                network: "127.0.0.1:\(id)", socket: "", machine: machine ?? "host\(id)"),
            disks: [
                DiskReport(
                    disk: disk, incarnation: Incarnation(rawValue: incarnation),
                    capacity: 100 << 30, used: used, stored: 0, logical: 0, recentBytes: 0,
                    hasFailed: false, scrub: scrub, space: space)
            ], sets: sets.keys.sorted().map { sets[$0]! }, dropped: dropped, cut: [],
            connections: connections, fences: fences.version)
    }
    mutating func obey(_ orders: ServerOrders) {
        for view in orders.configurations {
            let configuration = view.configuration
            views[configuration.set] = configuration
            var report =
                sets[configuration.set]
                ?? SetReport(
                    set: configuration.set, disk: disk, epoch: .none, prepared: .none,
                    hasRot: false, isServing: false, stored: 0, chunks: 0)
            report.epoch = max(report.epoch, configuration.epoch)
            report.members = configuration.members
            report.isServing = configuration.primary == disk
            report.learner = nil
            report.slow = []
            sets[configuration.set] = report
        }
        for fill in orders.fills {
            fills.append(fill)
            sets[fill.set]?.learner = LearnerReport(
                disk: fill.learner.disk, durable: .none, isCounted: true, isReady: true)
        }
        for next in orders.discards {
            discards.append(next)
            sets[next.set]?.epoch = next.epoch
            sets[next.set]?.prepared = .none
            sets[next.set]?.stored = 0
        }
        if orders.fences.sessions != nil { fences = orders.fences }
        drops += orders.drops
        dropped = orders.drops.map(\.order)
    }
}

final class MasterGroup {
    private struct Flight {
        var time: Int64
        var from: Peer
        var to: Int
        var frame: Frame
    }
    var cores: [MasterCore?]
    private var disks: [MemoryDisk]
    /// Changes of disks that hang wait here.
    private var hanging: [Int: [DiskEffect]] = [:]
    private var mail: [[NodeEvent]]
    private var flights: [Flight] = []
    /// What is not delivered, by receiver, but kept in `held`.
    var holds: (Int, Frame) -> Bool = { _, _ in false }
    private(set) var held: [(from: Peer, to: Int, frame: Frame)] = []
    private(set) var now = Instant(nanoseconds: 5_000_000_000)
    /// Answers by request id.
    private(set) var replies: [UInt64: MetadataReply] = [:]
    private(set) var alarms: [String] = []
    private(set) var halts: [String] = []
    var servers: [FakeServer] = []
    private var lastRequest: UInt64 = 0
    let goal: Int
    private let repairDelay: Interval
    private let trashTime: Interval
    private let segmentSize: Int
    private let snapshotEntries: UInt64
    /// Of each master's root directory: they should be the same.
    var rootModes: [UInt16]
    private var wipes: UInt64 = 0
    /// By how much each wall clock is off.
    var wallErrors: [Interval]

    init(
        masters: Int, servers: Int = 0, goal: Int = 3, segmentSize: Int = 4 << 20,
        repairDelay: Interval = Limits.repairDelay, trashTime: Interval = Limits.trashTime,
        snapshotEntries: UInt64 = Limits.snapshotEntries, rootModes: [UInt16]? = nil
    ) {
        self.goal = goal
        self.repairDelay = repairDelay
        self.trashTime = trashTime
        self.segmentSize = segmentSize
        self.snapshotEntries = snapshotEntries
        self.rootModes = rootModes ?? Array(repeating: 0o755, count: masters)
        cores = Array(repeating: nil, count: masters)
        wallErrors = Array(repeating: .zero, count: masters)
        disks = Array(repeating: MemoryDisk(), count: masters)
        mail = Array(repeating: [], count: masters)
        self.servers = (0..<servers).map { FakeServer(id: ServerID(rawValue: UInt64($0 + 1))) }
        for index in 0..<masters { start(index) }
    }

    func start(_ index: Int) {
        let addresses = cores.indices.map { index in
            MasterAddress(
                id: MasterID(rawValue: UInt16(index + 1)),
                address: PeerAddress(network: "127.0.0.1:\(9_000 + index)", socket: "", machine: "")
            )
        }
        cores[index] = MasterCore(
            MasterConfiguration(
                cell: CellID(high: 1, low: 2), id: MasterID(rawValue: UInt16(index + 1)),
                masters: addresses, goal: goal,
                disk: DiskID(rawValue: UInt64(index + 100) + 1_000 * wipes),
                seed: UInt64(now.nanoseconds) + UInt64(index), segmentSize: segmentSize,
                rootMode: rootModes[index], repairDelay: repairDelay, trashTime: trashTime,
                snapshotEntries: snapshotEntries))
        mail[index] = [.start(disks[index].inventory)]
    }
    /// A stopped master loses its disk and starts on an empty one.
    func replaceDisk(_ index: Int) {
        disks[index] = MemoryDisk()
        wipes += 1
        start(index)
    }
    /// All masters begin on these disks.
    func start(on disks: [MemoryDisk]) {
        self.disks = disks
        for index in cores.indices { start(index) }
    }
    func crash(_ index: Int) {
        cores[index] = nil
        hanging[index] = nil
        mail[index] = []
        for place in servers.indices where servers[place].target == index {
            turn(place)
        }
    }
    /// A server that was turned away, or cut off, asks the next master that is there.
    private func turn(_ place: Int) {
        for _ in cores {
            servers[place].target = (servers[place].target + 1) % cores.count
            if cores[servers[place].target] != nil { return }
        }
    }
    var leader: Int? { cores.firstIndex { $0?.isLeading ?? false } }

    // MARK: Running

    func run(milliseconds: Int) {
        for _ in 0..<milliseconds {
            now = now + .milliseconds(1)
            let due = flights.filter { $0.time <= now.nanoseconds }
            flights.removeAll { $0.time <= now.nanoseconds }
            for flight in due {
                if holds(flight.to, flight.frame) {
                    held.append((flight.from, flight.to, flight.frame))
                } else {
                    deliver(flight.frame, from: flight.from, to: flight.to)
                }
            }
            for index in servers.indices { runServer(index) }
            for index in cores.indices { runCore(index) }
        }
    }
    /// Until `condition`, at most ten seconds.
    func run(until condition: (MasterGroup) -> Bool) -> Bool {
        for _ in 0..<10_000 {
            if condition(self) { return true }
            run(milliseconds: 1)
        }
        return false
    }

    private func runServer(_ index: Int) {
        guard servers[index].isUp, now.nanoseconds >= servers[index].nextReport else { return }
        servers[index].nextReport = now.nanoseconds + 50_000_000
        servers[index].reports += 1
        post(
            from: .server(servers[index].id), to: servers[index].target,
            servers[index].report.frame(request: servers[index].reports))
    }
    private func post(from: Peer, to: Int, _ frame: Frame) {
        flights.append(
            Flight(time: now.nanoseconds + 1_000_000, from: from, to: to, frame: frame))
    }

    private func runCore(_ index: Int) {
        while let core = cores[index], !mail[index].isEmpty || core.wakeTime <= now {
            let events = mail[index]
            mail[index] = []
            let wall = Timestamp(nanoseconds: now.nanoseconds) + wallErrors[index]
            let time = NodeTime(now: now, wall: wall)
            for effect in cores[index]?.step(events, at: time) ?? [] { carryOut(effect, index) }
        }
    }

    private func carryOut(_ effect: NodeEffect, _ index: Int) {
        switch effect {
        case .disk(let effect):
            // What else the core said in this step comes to nothing.
            guard cores[index] != nil else { return }
            if hanging[index] != nil {
                hanging[index]?.append(effect)
                return
            }
            guard let result = disks[index].perform(effect) else { return crash(index) }
            mail[index].append(.disk(effect.operation, result))
        case .send(.master(let master), let frame):
            let from = MasterID(rawValue: UInt16(index + 1))
            if cores[Int(master.rawValue) - 1] != nil {
                post(from: .master(from), to: Int(master.rawValue) - 1, frame)
            }
        case .send(.client, let frame): replies[frame.request] = try? MetadataReply(frame)
        case .send(.server(let server), let frame):
            guard let orders = try? ServerOrders(frame),
                let place = servers.firstIndex(where: { $0.id == server }), servers[place].isUp
            else { return }
            if orders.isLeader {
                servers[place].obey(orders)
                for fill in orders.fills { receiveCopy(fill, from: place) }
            } else {
                turn(place)
            }
        case .halt(let reason):
            halts.append(reason)
            cores[index] = nil
        case .report(let text, let isAlarm): if isAlarm { alarms.append(text) }
        case .address: break
        }
    }

    /// The learner has all of it at once.
    private func receiveCopy(_ fill: FillOrder, from primary: Int) {
        let learner = servers.firstIndex { $0.disk == fill.learner.disk }
        guard let learner, var copy = servers[primary].sets[fill.set] else { return }
        copy.disk = servers[learner].disk
        copy.isServing = false
        copy.learner = nil
        servers[learner].sets[fill.set] = copy
    }

    /// A master's disk does nothing more, until it goes on.
    func hang(_ index: Int, _ hangs: Bool) {
        let waiting = hanging.removeValue(forKey: index) ?? []
        if hangs { hanging[index] = [] }
        for effect in waiting { carryOut(.disk(effect), index) }
    }
    /// Bytes of all files on a master's disk.
    func diskBytes(_ index: Int) -> Int { disks[index].files.values.reduce(0) { $0 + $1.count } }
    /// Lets something happen to a master's disk; the number of its changes since.
    func plan(_ fault: DiskFault?, at change: Int, of index: Int) {
        disks[index].fault = fault.map { (disks[index].changes + change, $0) }
    }
    /// Whether it happened.
    func hasHappened(_ index: Int) -> Bool {
        disks[index].fault.map { disks[index].changes >= $0.change } ?? false
    }
    /// Files of the log on a master's disk, by name.
    func segments(_ index: Int) -> [DiskFile] {
        disks[index].files.keys.filter { if case .segment = $0 { true } else { false } }.sorted()
    }
    /// Damages a file of a master's disk.
    func damage(_ file: DiskFile, of index: Int, at offset: Int) {
        disks[index].flip(file, at: offset)
    }
    /// Files of snapshots on a master's disk, by name.
    func snapshotFiles(_ index: Int) -> [DiskFile] {
        disks[index].files.keys.filter { $0 == .checkpoint(0) || $0 == .checkpoint(1) }.sorted()
    }

    func deliver(_ frame: Frame, from: Peer, to index: Int) {
        mail[index].append(.frame(from: from, frame))
    }
    /// Delivers all that was held, at once and in order.
    func release() {
        for (from, to, frame) in held { deliver(frame, from: from, to: to) }
        held = []
    }

    // MARK: Clients

    /// Asks one master once.
    func ask(_ request: MetadataRequest, of index: Int) -> MetadataReply? {
        lastRequest += 1
        let number = lastRequest
        deliver(
            request.frame(request: number),
            from: .client(ConnectionID(rawValue: request.session.rawValue + 1)), to: index)
        _ = run { $0.replies[number] != nil || $0.cores[index] == nil }
        return replies[number]
    }
    /// Asks the leader until it answers.
    func ask(_ request: MetadataRequest) -> MetadataReply? {
        for _ in 0..<500 {
            guard run(until: { $0.leader != nil }), let leader,
                let reply = ask(request, of: leader)
            else { return nil }
            switch reply {
            case .retry, .notLeader: run(milliseconds: 10)
            default: return reply
            }
        }
        return nil
    }
    func query(
        _ query: MetadataQuery, _ session: SessionID = .none
    ) -> MetadataReply? { ask(MetadataRequest(session: session, query: query)) }

    func change(
        _ session: SessionID, _ number: UInt64, _ change: MetadataChange
    ) -> MetadataReply? {
        ask(
            MetadataRequest(
                session: session, number: RequestNumber(rawValue: number),
                firstIncomplete: RequestNumber(rawValue: number), change: change))
    }
    /// A session of a cell in which no master is needed any more that every cell begins with (M18).
    func openSession(_ nonce: UInt64) -> SessionID? {
        let isFounded = run { group in
            group.leader.map { (group.cores[$0]?.paxos?.membership.number ?? 0) > 1 } ?? false
        }
        guard isFounded else { return nil }
        let reply = change(.none, 0, .openSession(nonce: nonce, label: "test"))
        guard case .session(let session, _) = reply else { return nil }
        return session
    }
    func create(
        _ session: SessionID, _ number: UInt64, _ name: String, open: Bool = false
    ) -> Attributes? {
        let reply = change(
            session, number,
            .create(
                parent: .root, name: Array(name.utf8), kind: .file, mode: 0o644, user: 0,
                group: 0, device: 0, target: [], open: open))
        guard case .created(let attributes, _) = reply else { return nil }
        return attributes
    }
    func status() -> CellStatus? {
        guard case .status(let status) = query(.status) else { return nil }
        return status
    }
}
