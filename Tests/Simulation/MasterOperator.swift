// An operator who changes who the masters are: adds new ones, removes and replaces old ones, moves
// the leadership, and asks for what must be refused. Sometimes a disk is wiped, and its master
// replaced.

import Base
import Node
import Wire

/// The client; see the head of the file.
final class MasterOperator: SimClient {
    let world: World
    private let founders: Int
    private let watch: MembershipWatch
    private var random: SeededRandom
    private var place = 0
    private var leader = 0
    private var request: UInt64 = 0
    private var open: MasterOrder?
    private let pace: Int
    /// Wipes the disk of a master.
    var wipe: (MasterID) -> Void = { _ in }
    /// How often a disk may still be wiped.
    var wipes = 0
    var isStopping = false
    private(set) var done: Set<String> = []

    init(
        number: Int, world: World, founders: Int, watch: MembershipWatch,
        random: inout SeededRandom
    ) {
        self.world = world
        self.founders = founders
        self.watch = watch
        self.random = random.fork()
        pace = [100, 300, 1_000][self.random.below(3)]
        place = world.attach(self, at: number)
    }

    func start() { wait(.milliseconds(Int64(500 + random.below(500)))) }
    private func wait(_ delay: Interval) { world.plan(timer: 0, client: place, after: delay) }

    /// Token 0: think; others: the request of that number has had no answer.
    func timer(_ token: Int) {
        guard token > 0 else { return think() }
        guard UInt64(token) == request, open != nil else { return }
        // Whether it was taken nobody knows; what the log says counts.
        open = nil
        leader = (leader + 1) % world.nodes.count
    }
    func disconnected(from place: Int) {}

    private func think() {
        guard !isStopping else { return }
        wait(.milliseconds(Int64(pace / 2 + random.below(pace))))
        guard open == nil else { return }
        let masters = watch.current
        if wipes > 0, watch.mayWipe, random.chance(1, of: 4) {
            wipes -= 1
            let victim = masters.voters[random.below(masters.voters.count)]
            world.say("operator: the disk of master \(victim.id) is wiped")
            done.insert("master-wiped")
            wipe(victim.id)
        }
        send(order(masters))
    }

    private func order(_ masters: Membership) -> MasterOrder {
        let voter = masters.voters[random.below(masters.voters.count)].id
        let new = MasterID(rawValue: masters.lastID.rawValue + 1)
        let address = PeerAddress(network: "m\(new)", socket: "", machine: "")
        let hasSpare = Int(new.rawValue) <= world.nodes.count
        if let wiped = watch.wiped, hasSpare, masters.learner == nil, random.chance(2, of: 3) {
            return .add(new, address, replacing: wiped)
        }
        switch random.below(10) {
        case 0...2 where hasSpare: return .add(new, address, replacing: nil)
        case 3...4 where hasSpare: return .add(new, address, replacing: voter)
        case 5, 6: return .transfer(random.chance(1, of: 2) ? voter : nil)
        case 7: return .remove(masters.learner?.id ?? voter)
        case 8: return .remove(voter)
        default: return .add(voter, address, replacing: nil)
        }
    }

    private func send(_ order: MasterOrder) {
        open = order
        request += 1
        let message = MetadataRequest(session: .none, query: .order(order))
        world.say("operator: \(order)")
        world.send(message.frame(request: request), fromClient: place, to: leader)
        world.plan(timer: Int(request), client: place, after: .milliseconds(400))
    }

    func received(_ frame: Frame, from place: Int) {
        guard frame.request == request, let order = open, let reply = try? MetadataReply(frame)
        else { return }
        open = nil
        switch reply {
        case .notLeader(let hint, _):
            leader = hint.map { Int($0.rawValue) - 1 } ?? random.below(world.nodes.count)
        case .done:
            if case .transfer = order { done.insert("master-transfer-ordered") }
        case .refused(let refusal):
            world.say("operator: \(order) is refused: \(refusal)")
            done.insert("master-order-refused")
        default: break
        }
    }
}
