// Scenario "log": the log of a disk alone. A client has records appended and hears when they are
// durable; the node loses power, its disk tears writes, and bytes at rest are damaged.
//
// Checks:
//  acknowledged   a start finds every record that was acknowledged, or found by a start before
//                 it, or reports it as damaged
//  content        what a start finds under a number is what was appended under it
//  order          numbers come once and ascending
//  rot            nothing counts as damaged on a disk that was not damaged

import Base
import Node
import Store
import Wire

/// A server around a log and nothing else.
struct LogCore: NodeCore {
    static let kind = LogRecordKind(rawValue: 7)
    private var log: SegmentLog
    private var isReady = false
    private var waiting: [(LogNumber, Peer, UInt64)] = []
    private(set) var found: [LogRecord] = []
    private(set) var damaged: [LogDamage] = []
    private(set) var failure: LogFailure?
    private var now = Instant.zero
    private var early: [(Peer, Frame)] = []

    init(_ configuration: LogConfiguration) { log = SegmentLog(configuration) }

    var wakeTime: Instant { min(log.wakeTime, now + .milliseconds(50)) }
    var hasStarted: Bool { isReady }

    mutating func step(_ events: [NodeEvent], at time: NodeTime) -> [NodeEffect] {
        now = time.now
        var effects: [NodeEffect] = []
        for event in events {
            switch event {
            case .start(let inventory): take(log.start(inventory), &effects)
            case .disk(let operation, let result):
                take(log.completed(operation, result, now: now), &effects)
            case .frame(let peer, let frame): append(frame, peer)
            case .disconnected, .surroundings: break
            }
        }
        take(log.flush(now: now), &effects)
        return effects
    }

    private mutating func append(_ frame: Frame, _ peer: Peer) {
        guard isReady, !log.hasFailed, log.room > 64 << 10 else { return }
        let cut = min(frame.head.count, 64)
        let number = log.append(
            kind: Self.kind, header: Array(frame.head[..<cut]), payload: frame.head[cut...])
        waiting.append((number, peer, frame.request))
    }

    private mutating func take(_ outputs: [LogOutput], _ effects: inout [NodeEffect]) {
        for output in outputs {
            switch output {
            case .disk(let effect): effects.append(.disk(effect))
            case .replayed(let record): found.append(record)
            case .damaged(let damage): damaged.append(damage)
            case .ready: isReady = true
            case .durable(let number):
                while let (first, peer, request) = waiting.first, first <= number {
                    waiting.removeFirst()
                    var writer = ByteWriter()
                    writer.write(first)
                    effects.append(
                        .send(peer, Frame(kind: .orders, request: request, head: writer.bytes)))
                }
            case .failed(let failure):
                self.failure = failure
                effects.append(.halt("\(failure)"))
            case .identified, .placed, .renamed: break
            }
        }
    }
}

/// The scenario; see the head of the file.
final class LogScenario: Scenario, WorldObserver, SimClient {
    let world: World
    private let chaos: Chaos
    private var random: SeededRandom
    private var place = 0
    private let configuration: LogConfiguration
    private let rots: Bool
    /// Content by request.
    private var sent: [Checksum] = []
    /// Number -> request, of what was acknowledged.
    private var acknowledged: [(number: UInt64, request: Int)] = []
    private var checkedRun: UInt32 = 0
    private var starts = 0
    private var isFull = false
    private var isCalm = false

    init(random: inout SeededRandom) {
        let sizes = [32 << 10, 64 << 10, 256 << 10, 1 << 20]
        configuration = LogConfiguration(
            cell: CellID(high: 1, low: 2), owner: .server(ServerID(rawValue: 1)),
            disk: DiskID(rawValue: 9), segmentSize: sizes[random.below(4)],
            groupBytes: [16 << 10, 64 << 10][random.below(2)])
        let configuration = configuration
        let capacity = UInt64(configuration.segmentSize * 400)
        let node = SimNode(
            place: 0, name: "log", peer: .server(ServerID(rawValue: 1)), capacity: capacity,
            drift: 0, random: &random
        ) { _ in LogCore(configuration) }
        world = World(nodes: [node], clients: 1, random: &random)
        var swarm = Swarm(random: &random, allowed: [.slowDisk, .pause, .brokenDisk])
        swarm.kinds += [.kill, .powerCut, .powerCut]
        rots = random.chance(1, of: 3)
        if rots {
            swarm.kinds.append(.rot)
            swarm.rotting = [0]
            swarm.rotBudget = 1 + random.below(2)
        }
        chaos = Chaos(world: world, swarm: swarm, random: &random)
        self.random = random.fork()
        place = world.attach(self, at: 0)
        world.observer = self
    }

    var probes: [String] { starts > 3 ? ["log-restarted"] : [] }

    func run() {
        world.start(world.nodes[0])
        chaos.begin(until: Instant(nanoseconds: 4_000_000_000))
        world.plan(timer: 0, client: place, after: .milliseconds(1))
        world.run(until: Instant(nanoseconds: 4_000_000_000))
        isCalm = true
        chaos.calm()
        world.run(until: world.now + .seconds(1))
        world.crash(world.nodes[0], power: true)
        world.start(world.nodes[0])
        world.run(until: world.now + .seconds(1))
        if world.failure == nil, checkedRun != world.nodes[0].run {
            world.fail("start", "the log does not start")
        }
    }

    func timer(_ token: Int) {
        if world.now < Instant(nanoseconds: 4_500_000_000) {
            let size = random.below(3) == 0 ? random.below(9_000) : random.below(300)
            var bytes = [UInt8](repeating: 0, count: 8 + size)
            let request = sent.count
            for index in bytes.indices { bytes[index] = UInt8(truncatingIfNeeded: random.next()) }
            for index in 0..<8 { bytes[index] = UInt8(truncatingIfNeeded: request >> (8 * index)) }
            sent.append(Checksum(of: bytes))
            world.send(
                Frame(kind: .report, request: UInt64(request), head: bytes), fromClient: place,
                to: 0)
            let pause = random.chance(1, of: 20) ? 100_000 : random.below(4_000)
            world.plan(timer: 0, client: place, after: .microseconds(Int64(1 + pause)))
        }
    }

    func received(_ frame: Frame, from place: Int) {
        var reader = ByteReader(frame.head)
        guard let number = try? reader.read(UInt64.self) else { return }
        acknowledged.append((number, Int(frame.request)))
    }
    func disconnected(from place: Int) {}
    func fault(_ number: Int) { chaos.perform(number) }
    func sends(_ node: SimNode, _ frame: Frame, to peer: Peer) {}
    func halted(_ node: SimNode, _ reason: String) {
        // A failed write stops the log (S4); so does a full one.
        if reason.contains("full") { isFull = true }
        if !isFull { chaos.restart(node) }
    }

    func stepped(_ node: SimNode) {
        guard let core = node.core as? LogCore, core.hasStarted, checkedRun != node.run else {
            return
        }
        checkedRun = node.run
        starts += 1
        check(core)
    }

    private func check(_ core: LogCore) {
        var contents: [UInt64: Int] = [:]
        var last = LogNumber.none
        for record in core.found {
            guard record.number > last else {
                return world.fail("order", "\(record.number) after \(last)")
            }
            last = record.number
            var request = 0
            for (index, byte) in record.header.prefix(8).enumerated() {
                request |= Int(byte) << (8 * index)
            }
            guard record.kind == LogCore.kind, request < sent.count,
                Checksum(of: record.header + record.payload) == sent[request]
            else { return world.fail("content", "record \(record.number) is not what was sent") }
            contents[record.number.rawValue] = request
        }
        if !core.damaged.isEmpty, world.nodes[0].disk.damage == 0 {
            return world.fail("rot", "damage on a sound disk: \(core.damaged[0].numbers)")
        }
        for (number, request) in acknowledged where contents[number] != request {
            if contents[number] == nil,
                core.damaged.contains(where: { $0.numbers.contains(LogNumber(rawValue: number)) })
            {
                continue
            }
            return world.fail(
                "acknowledged",
                "record \(number) (request \(request)) is \(contents[number] ?? -1)")
        }
        // What a start found is believed from now on: it must stay as if it were acknowledged.
        let known = Set(acknowledged.map(\.number))
        for record in core.found where !known.contains(record.number.rawValue) {
            acknowledged.append((record.number.rawValue, contents[record.number.rawValue]!))
        }
    }
}
