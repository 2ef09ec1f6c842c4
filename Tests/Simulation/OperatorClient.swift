// An operator who drains servers and takes that back, and has sets moved about, at any time. In
// calm it undoes what is open and stops.

import Base
import Node
import Wire

/// The client; see the head of the file.
final class OperatorClient: SimClient {
    let world: World
    private let masters: Int
    private let servers: [ServerID]
    private var random: SeededRandom
    private var place = 0
    private var leader: Int
    private var session = SessionID.none
    private var nextNumber: UInt64 = 1
    private var request: UInt64 = 0
    private var open: MetadataRequest?
    private var queue: [MetadataChange] = []
    private var plans: UInt64 = 0
    private var wantsMap = false
    /// The dump that it takes.
    var reader: DumpReader?
    /// What it did, for the probes.
    private(set) var done: Set<String> = []
    var isStopping = false {
        didSet {
            guard isStopping else { return }
            wantsMap = false
            // All of them: of a change without an answer nobody knows whether it happened.
            queue = servers.map { .operate(.drain($0, isDraining: false)) }
            if plans > 0 { queue.append(.operate(.setRebalance(id: plans, .cancelled))) }
        }
    }
    var isIdle: Bool { open == nil && queue.isEmpty }

    init(
        number: Int, world: World, masters: Int, servers: [ServerID],
        random: inout SeededRandom
    ) {
        self.world = world
        self.masters = masters
        self.servers = servers
        self.random = random.fork()
        leader = self.random.below(masters)
        place = world.attach(self, at: number)
    }

    func start() { think() }
    /// Does this next, also after it was stopped.
    func order(_ operation: Operation) { queue.append(.operate(operation)) }

    /// Token 0: think; others: the request of that number has had no answer.
    func timer(_ token: Int) {
        if token == 0 { return think() }
        guard UInt64(token) == request, open != nil else { return }
        leader = (leader + 1) % masters
        send()
    }
    func disconnected(from place: Int) {}

    private func think() {
        world.plan(
            timer: 0, client: place, after: .milliseconds(Int64(50 + random.below(400))))
        guard open == nil else { return }
        if !isStopping, queue.isEmpty { choose() }
        if session == .none {
            begin(
                MetadataRequest(
                    session: .none, number: RequestNumber(rawValue: 0),
                    firstIncomplete: RequestNumber(rawValue: 0),
                    change: .openSession(nonce: random.next(), label: "operator")))
        } else if let query = reader?.next {
            begin(MetadataRequest(session: session, query: query))
        } else if wantsMap {
            begin(MetadataRequest(session: session, query: .map(after: SetID(rawValue: 0))))
        } else if !queue.isEmpty {
            let number = RequestNumber(rawValue: nextNumber)
            nextNumber += 1
            begin(
                MetadataRequest(
                    session: session, number: number, firstIncomplete: number,
                    change: queue.removeFirst()))
        }
    }

    private func choose() {
        let server = servers[random.below(servers.count)]
        switch random.below(10) {
        case 0..<3: queue = [.operate(.drain(server, isDraining: true))]
        case 3..<5: queue = [.operate(.drain(server, isDraining: false))]
        case 5..<8: wantsMap = true
        default:
            let states: [RebalanceState] = [.paused, .running, .cancelled]
            queue = [.operate(.setRebalance(id: plans, states[random.below(3)]))]
        }
    }

    /// A plan of a few moves to wherever no copy is.
    private func plan(_ map: SetMap) {
        wantsMap = false
        var moves: [ReplicaMove] = []
        for set in map.sets where moves.count < 4 && random.chance(1, of: 2) {
            let members = set.configuration.members
            // Each server of this world has one disk, whose number is ten below its own.
            let others = servers.map { DiskID(rawValue: $0.rawValue - 10) }
                .filter { !members.contains($0) }
            guard !others.isEmpty else { continue }
            moves.append(
                ReplicaMove(
                    set: set.id, epoch: set.configuration.epoch,
                    from: members[random.below(members.count)],
                    to: others[random.below(others.count)], bytes: set.stored))
        }
        guard !moves.isEmpty else { return }
        plans += 1
        let rate = random.chance(1, of: 2) ? 0 : UInt64(1 + random.below(1 << 20))
        queue = [
            .operate(.startRebalance(Rebalance(id: plans, bytesPerSecond: rate, moves: moves)))
        ]
    }

    private func begin(_ message: MetadataRequest) {
        open = message
        send()
    }
    private func send() {
        guard let open else { return }
        request += 1
        world.send(open.frame(request: request), fromClient: place, to: leader)
        world.plan(
            timer: Int(request), client: place,
            after: .milliseconds(Int64(200 + random.below(600))))
    }

    func received(_ frame: Frame, from place: Int) {
        guard frame.request == request, let open else { return }
        guard let reply = try? MetadataReply(frame) else {
            return world.fail("reply coding", "an operator's answer")
        }
        switch reply {
        case .notLeader, .retry:
            leader = (leader + 1) % masters
            return
        case .sessionDead:
            session = .none
            if case .change(let change) = open.body { queue.insert(change, at: 0) }
        case .session(let id, _):
            session = id
            nextNumber = 1
        case .map(let map): if wantsMap { plan(map) }
        case .status, .snapshot, .part, .failed(.stale): reader?.take(reply)
        case .done: note(open)
        case .refused: done.insert("operation-refused")
        default: return world.fail("operations", "\(open.body) got \(reply)")
        }
        self.open = nil
    }

    private func note(_ request: MetadataRequest) {
        switch request.body {
        case .change(.operate(.drain(_, let isDraining))):
            done.insert(isDraining ? "server-drained" : "server-undrained")
        case .change(.operate(.startRebalance)): done.insert("plan-started")
        default: break
        }
    }
}
