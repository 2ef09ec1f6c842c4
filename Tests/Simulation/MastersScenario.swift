// Scenario "masters": three or five masters and their clients under chaos, then calm, then a loss
// of power everywhere. Its checks are in MasterPromises and MetadataCheck, and here:
//
//  liveness     in calm a leader answers, and nothing a client asked stays open
//  agreement    masters that applied the same slots have the same state; in the end all have
//  snapshots    snapshots of one slot have one hash, on all masters and in all runs (M15)
//  durability   after the loss of power every chosen slot is there again
//  halt         no master stops by itself but for a broken disk

import Base
import Consensus
import Master
import Namespace
import Node
import Store
import Wire

/// The scenario; see the head of the file.
final class MastersScenario: Scenario, WorldObserver {
    private static let cell = CellID(high: 0xA1, low: 0xB2)
    let world: World
    private let chaos: Chaos
    private let history = MetadataHistory()
    private var clients: [MetadataClient] = []
    private let ids: [MasterID]
    private var random: SeededRandom
    private var promises: [MasterPromises]
    /// The hash of every slot that was chosen anywhere.
    private var chosen: [EntryHash] = []
    /// And what they say.
    private var bodies: [ChosenBody] = []
    private var roots: [Slot: ShortHash] = [:]
    private var checkedRuns: [UInt32]
    /// Runs that took a step after their start.
    private var startedRuns: [UInt32]
    private var digests: [Slot: Digest] = [:]
    private var lastDigest: [Slot]
    private var leaders: [Ballot] = []
    private var reached: Set<String> = []

    init(random: inout SeededRandom) {
        let count = random.chance(2, of: 3) ? 3 : 5
        let ids = (1...count).map { MasterID(rawValue: UInt16($0)) }
        let addresses = ids.map {
            MasterAddress(id: $0, address: PeerAddress(network: "m\($0)", socket: "", machine: ""))
        }
        let segment = [64 << 10, 256 << 10, 1 << 20][random.below(3)]
        let drift = [0, 0, 1_000, 10_000][random.below(4)]
        let snapshots: UInt64 = [12, 30, 30, 100, 100_000][random.below(5)]
        var nodes: [SimNode] = []
        for (place, id) in ids.enumerated() {
            let disk = DiskID(rawValue: UInt64(100 + place))
            nodes.append(
                SimNode(
                    place: place, name: "master-\(id)", peer: .master(id), capacity: 64 << 20,
                    drift: drift, random: &random
                ) { node in
                    MasterCore(
                        MasterConfiguration(
                            cell: Self.cell, id: id, masters: addresses, goal: 3, disk: disk,
                            seed: UInt64(node.run) << 8 | UInt64(place), segmentSize: segment,
                            snapshotEntries: snapshots))
                })
        }
        self.ids = ids
        world = World(nodes: nodes, clients: 1 + random.below(4), random: &random)
        var swarm = Swarm(random: &random, allowed: FaultKind.allCases)
        if swarm.kinds.contains(.rot) {
            swarm.rotting = (0..<(count - 1) / 2).map { _ in random.below(count) }
            swarm.rotBudget = 1 + random.below(2)
            swarm.rotsCheckpoints = true
        }
        chaos = Chaos(world: world, swarm: swarm, random: &random)
        promises = Array(repeating: MasterPromises(), count: count)
        checkedRuns = Array(repeating: 0, count: count)
        startedRuns = checkedRuns
        lastDigest = Array(repeating: .none, count: count)
        self.random = random.fork()
        for number in 0..<world.clients {
            clients.append(
                MetadataClient(
                    number: number, world: world, masters: count, history: history,
                    random: &random))
        }
        for client in clients {
            client.chosen = { [unowned self] in Slot(rawValue: UInt64(self.chosen.count)) }
        }
        world.observer = self
        world.describeFrame = Self.describe
    }

    var probes: [String] { reached.sorted() }

    func run() {
        for node in world.nodes { world.start(node) }
        for client in clients { client.start() }
        world.run(until: Instant(nanoseconds: 1_200_000_000))
        let end = world.now + .seconds(4)
        chaos.begin(until: end)
        world.run(until: end)
        chaos.calm()
        for client in clients { client.isStopping = true }
        settle("calm")
        checkHistory()
        guard world.failure == nil else { return }
        for node in world.nodes { world.crash(node, power: true) }
        for node in world.nodes { world.start(node) }
        settle("after the power cut")
        checkHistory()
    }

    /// Lets everything come right, within a bound of virtual time.
    private func settle(_ when: String) {
        let deadline = world.now + .seconds(15)
        while world.failure == nil, !isSettled {
            guard world.now < deadline else {
                let states = world.nodes.map { node -> String in
                    guard let core = node.core as? MasterCore else { return "\(node.name) down" }
                    return "\(node.name) applied \(core.applied) leads \(core.isLeading) "
                        + "rot \(core.isDamaged)"
                }
                let open = clients.filter { !$0.isIdle }.map(\.firstOutstanding)
                return world.fail("liveness", "\(when): \(states); open: \(open)")
            }
            world.run(until: world.now + .milliseconds(100))
        }
    }

    private var isSettled: Bool {
        guard clients.allSatisfy(\.isIdle) else { return false }
        let cores = world.nodes.compactMap { $0.core as? MasterCore }
        let last = Slot(rawValue: UInt64(chosen.count))
        return cores.count == world.nodes.count && cores.contains(where: \.isLeading)
            && cores.allSatisfy { $0.applied == last || $0.isDamaged }
            && cores.allSatisfy {
                $0.isDamaged || $0.stateDigest == cores[0].stateDigest || cores[0].isDamaged
            }
    }

    // MARK: Watching

    func fault(_ number: Int) { chaos.perform(number) }

    func halted(_ node: SimNode, _ reason: String) {
        guard reason.hasPrefix("the log failed: disk") else {
            return world.fail("halt", "\(node.name): \(reason)")
        }
        reached.insert("master-disk-broke")
        chaos.restart(node)
    }

    func sends(_ node: SimNode, _ frame: Frame, to peer: Peer) {
        guard frame.kind == .paxos else { return }
        let promises = promises[node.place].tell(frame.head)
        guard promises, random.chance(1, of: 300) else { return }
        checkDurable(node, "persist before tell")
    }

    /// What a start from the disk of a node would find.
    private func durable(_ node: SimNode) -> PaxosNode? {
        guard let core = node.makeCore() as? MasterCore else { return nil }
        return MasterCore.start(core, from: node.disk)?.paxos
    }

    private func checkDurable(_ node: SimNode, _ check: String) {
        guard node.disk.damage == 0 else { return }
        guard let found = durable(node) else {
            return world.fail(check, "\(node.name): its disk can't be read")
        }
        if let forgotten = promises[node.place].forgotten(by: found) {
            world.fail(check, "\(node.name) \(forgotten)")
        }
    }

    func stepped(_ node: SimNode) {
        guard let core = node.core as? MasterCore, let paxos = core.paxos else { return }
        defer { startedRuns[node.place] = node.run }
        if checkedRuns[node.place] != node.run {
            checkedRuns[node.place] = node.run
            lastDigest[node.place] = .none
            if node.run > 1 { reached.insert("master-restarted") }
            if core.isDamaged { reached.insert("master-rotten") }
            if node.disk.damage == 0, core.isDamaged {
                world.fail("rot", "\(node.name): damage on a sound disk")
            }
            // Damage may take anything, but never unnoticed.
            if !core.isDamaged, let forgotten = promises[node.place].forgotten(by: paxos) {
                return world.fail("amnesia", "\(node.name) \(forgotten)")
            }
        }
        checkChosen(node, paxos)
        checkSnapshots(node, core, paxos)
        if core.isLeading, leaders.last != paxos.promised {
            guard paxos.promised.node == ids[node.place] else {
                return world.fail("leader", "\(node.name) leads in \(paxos.promised)")
            }
            leaders.append(paxos.promised)
            if leaders.count > 1 { reached.insert("leader-changed") }
        }
        if core.applied > lastDigest[node.place] || core.applied < lastDigest[node.place] {
            lastDigest[node.place] = core.applied
            checkState(node, core)
        }
    }

    private func checkSnapshots(_ node: SimNode, _ core: MasterCore, _ paxos: PaxosNode) {
        for mark in core.snapshots {
            if let root = roots[mark.slot], root != mark.root {
                world.fail("snapshots", "\(node.name) has another one of slot \(mark.slot)")
            }
            roots[mark.slot] = mark.root
            reached.insert("snapshot-taken")
        }
        guard core.applied == paxos.start, core.applied > lastDigest[node.place] else { return }
        // A start from a snapshot, or one that came while it ran.
        reached.insert(startedRuns[node.place] == node.run ? "snapshot-came" : "snapshot-loaded")
    }

    private func checkChosen(_ node: SimNode, _ paxos: PaxosNode) {
        let known = chosen.count
        let last = Int(paxos.chosen.rawValue)
        guard paxos.end >= paxos.chosen else {
            return world.fail("one value", "\(node.name) chose beyond its log")
        }
        if last > known {
            for slot in known + 1...last {
                let entry = paxos.entry(at: Slot(rawValue: UInt64(slot)))
                chosen.append(entry.hash)
                bodies.append(ChosenBody(ballot: entry.ballot, body: entry.body))
            }
            let slot = Slot(rawValue: UInt64(last))
            if paxos.accepted.node == ids[node.place] { checkVotes(node, paxos, slot) }
            if random.chance(1, of: 200) { checkMajority(slot) }
        }
        // Equal hashes mean equal logs up to there.
        let slot = min(last, chosen.count)
        if slot > 0, paxos.hash(at: Slot(rawValue: UInt64(slot))) != chosen[slot - 1] {
            world.fail("one value", "\(node.name) has another entry chosen in slot \(slot)")
        }
    }

    /// A leader calls a slot chosen: a majority must have told so in its ballot (M5).
    private func checkVotes(_ node: SimNode, _ paxos: PaxosNode, _ slot: Slot) {
        let votes = world.nodes.filter { other in
            if other.place == node.place { return paxos.durable >= slot }
            let told = promises[other.place]
            return told.accepted == paxos.accepted && told.durable >= slot
        }
        if 2 * votes.count <= world.nodes.count {
            world.fail(
                "votes",
                "\(node.name) calls \(slot) chosen in \(paxos.accepted) by \(votes.map(\.name))")
        }
    }

    private func checkMajority(_ slot: Slot) {
        let hash = chosen[Int(slot.rawValue) - 1]
        let holders = world.nodes.filter { node in
            guard node.disk.damage == 0 else { return true }
            guard let found = durable(node), found.end >= slot else { return false }
            // What is in its snapshot is not in its log.
            return found.start > slot || found.hash(at: slot) == hash
        }
        if 2 * holders.count <= world.nodes.count {
            world.fail("majority", "slot \(slot) is on the disks of \(holders.map(\.name)) only")
        }
    }

    private func checkState(_ node: SimNode, _ core: MasterCore) {
        let digest = core.stateDigest
        if let other = digests[core.applied] {
            if other != digest {
                world.fail("agreement", "\(node.name) has another state at slot \(core.applied)")
            }
        } else {
            digests[core.applied] = digest
        }
    }

    private func checkHistory() {
        guard world.failure == nil else { return }
        let last = Slot(rawValue: UInt64(chosen.count))
        for node in world.nodes {
            guard let found = durable(node), found.end >= last,
                found.start > last || found.hash(at: last) == chosen.last ?? .none
            else { continue }
            let replay = MetadataReplay(bodies)
            if let core = node.core as? MasterCore, core.applied == last,
                replay.last.digest() != core.stateDigest
            {
                return world.fail("agreement", "the replay of slot \(last) is another state")
            }
            if let wrong = replay.check(history) { world.fail(wrong.check, wrong.detail) }
            return
        }
        world.fail("durability", "no disk has the chosen log up to \(last)")
    }

    private static func describe(_ frame: Frame) -> String {
        var reader = ByteReader(frame.head)
        switch frame.kind {
        case .paxos: return (try? PaxosMessage(from: &reader)).map { "\($0)" } ?? "bad paxos"
        case .metadataRequest: return (try? MetadataRequest(frame)).map { "\($0.body)" } ?? "bad"
        case .metadataReply: return (try? MetadataReply(frame)).map { "\($0)" } ?? "bad"
        default: return "\(frame.kind)"
        }
    }
}
