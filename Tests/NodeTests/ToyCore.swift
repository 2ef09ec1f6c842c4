// A core for the tests of the loop: it answers clients after a durable write, passes what it is
// told to on to other nodes, and remembers what it saw.

import Base
import Glibc
import Logging
import Node
import Store
import Synchronization
import Transport
import Wire

/// What all steps of a core saw; a test looks at it from its own thread.
final class Journal: Sendable {
    private let events = Mutex<[NodeEvent]>([])
    private let steps = Mutex(0)

    func add(_ new: [NodeEvent]) {
        events.withLock { $0 += new }
        steps.withLock { $0 += 1 }
    }
    var all: [NodeEvent] { events.withLock { $0 } }
    var stepCount: Int { steps.withLock { $0 } }
    /// Waits for an event, 10 s at most.
    func saw(_ test: (NodeEvent) -> Bool) -> Bool {
        for _ in 0..<10_000 {
            if all.contains(where: test) { return true }
            usleep(1_000)
        }
        return false
    }
}

/// Requests: head [1] is answered when its payload is durable; [2, master] is sent on to a master
/// as a paxos frame; [3] halts; [4] is never answered; [5] is answered with a frame of any size.
struct ToyCore: NodeCore {
    let journal: Journal
    var wakeTime = Instant.zero
    private var operation: UInt64 = 0
    private var answers: [DiskOperation: (Peer, Frame)] = [:]

    init(_ journal: Journal) { self.journal = journal }

    mutating func step(_ events: [NodeEvent], at time: NodeTime) -> [NodeEffect] {
        journal.add(events)
        wakeTime = time.now + .milliseconds(20)
        var effects: [NodeEffect] = []
        for event in events {
            switch event {
            case .frame(.client(let client), let frame):
                answer(frame, of: .client(client), &effects)
            case .disk(let operation, .done):
                guard let (peer, frame) = answers.removeValue(forKey: operation) else { break }
                effects.append(.send(peer, frame))
            case .start, .frame, .disconnected, .disk, .surroundings:
                break
            }
        }
        return effects
    }
    private mutating func answer(_ frame: Frame, of client: Peer, _ effects: inout [NodeEffect]) {
        switch frame.head.first {
        case 1:
            operation += 1
            let id = DiskOperation(rawValue: operation)
            answers[id] = (client, frame)
            effects.append(
                .disk(
                    .write(
                        id, .superblock, offset: 0, pieces: [frame.payload], durable: true)))
        case 2:
            let master = Peer.master(MasterID(rawValue: UInt16(frame.head[1])))
            effects.append(.send(master, Frame(kind: .paxos, head: Array(frame.head.dropFirst(2)))))
            effects.append(.send(client, frame))
        case 3:
            effects.append(.halt("as told"))
        default:
            break
        }
    }
}

let cell = CellID(high: 1, low: 2)
let key = CellKey(bytes: [UInt8](repeating: 7, count: 32)).unsafelyUnwrapped

/// A node with a toy core, and its folder, until `stop`.
final class ToyNode: Sendable {
    let journal = Journal()
    let halted = Mutex<String?>(nil)
    let folder: String
    private let loop = Mutex<NodeLoop?>(nil)

    init(
        _ identity: PeerIdentity, network: String = "127.0.0.1:0", masters: [MasterAddress] = [],
        folder: String = "/tmp/martlet-node-\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
    ) throws(NodeError) {
        self.folder = folder
        let configuration = ServerConfiguration(
            folder: folder, identity: identity, key: key, network: network, socket: "",
            masters: masters)
        let journal = journal
        let started = try NodeLoop.start(
            configuration, logger: Logger(label: "node"),
            halted: { [self] reason in halted.withLock { $0 = reason } },
            makeCore: { _ in
                var core = ToyCore(journal)
                return { core.turn($0, $1) }
            })
        loop.withLock { $0 = started }
    }
    var address: PeerAddress { loop.withLock { $0?.address }.unsafelyUnwrapped }
    var counters: TransportCounters { loop.withLock { $0?.counters }.unsafelyUnwrapped }
    func stop() {
        loop.withLock { $0 }?.stop()
        loop.withLock { $0 = nil }
        for name in ["lock", "superblock"] { unlink("\(folder)/\(name)") }
        rmdir("\(folder)/segments")
        rmdir(folder)
    }
}

func master(_ node: UInt64) -> PeerIdentity { PeerIdentity(cell: cell, role: .master, node: node) }
