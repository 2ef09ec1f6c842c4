// Scenario "masters": three or five masters, others that may join, their clients and an operator
// who changes who the masters are, under chaos, then calm, then a loss of power everywhere. Its
// checks are in MasterPromises, MembershipWatch and MetadataCheck, and here:
//
//  liveness     in calm a leader answers, and nothing a client asked stays open
//  agreement    masters that applied the same slots have the same state; in the end all have
//  snapshots    snapshots of one slot have one hash, on all masters and in all runs (M15)
//  durability   after the loss of power every chosen slot is there again, although some of the
//               disks have lost what one entry says (RottenEntries)
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
    private let watch: MembershipWatch
    private let changes: MasterOperator
    private var random: SeededRandom
    private var promises: [MasterPromises]
    /// What a master told under the names that it had before.
    private var former: [[MasterPromises]]
    /// The hash of every slot that was chosen anywhere.
    private var chosen: [EntryHash] = []
    /// And what they say.
    private var bodies: [ChosenBody] = []
    private var roots: [Slot: ShortHash] = [:]
    private var checkedRuns: [UInt32]
    /// Its log was found damaged in this run.
    private var unchecked: [Bool]
    /// Runs that took a step after their start.
    private var startedRuns: [UInt32]
    private var digests: [Slot: Digest] = [:]
    private var lastDigest: [Slot]
    private var leaders: [Ballot] = []
    private var reached: Set<String> = []

    init(random: inout SeededRandom) {
        let count = random.chance(2, of: 3) ? 3 : 5
        let spares = 3
        let ids = (1...count + spares).map { MasterID(rawValue: UInt16($0)) }
        let addresses = ids.prefix(count).map {
            MasterAddress(id: $0, address: PeerAddress(network: "m\($0)", socket: "", machine: ""))
        }
        let founders = addresses.map { MasterMember(id: $0.id, address: $0.address) }
        let watch = MembershipWatch(founders: Membership(founders: founders), nodes: ids.count)
        let segment = [64 << 10, 256 << 10, 1 << 20][random.below(3)]
        // Only reads of chunks trust clocks: here they may go as wrong as they like (S1).
        let drift = [0, 0, 10_000, 50_000, 1_000_000][random.below(5)]
        let snapshots: UInt64 = [12, 30, 30, 100, 100_000][random.below(5)]
        var nodes: [SimNode] = []
        for (place, id) in ids.enumerated() {
            nodes.append(
                SimNode(
                    place: place, name: "master-\(id)", peer: .master(id), capacity: 64 << 20,
                    drift: drift, random: &random
                ) { node in
                    MasterCore(
                        MasterConfiguration(
                            cell: Self.cell, id: id, masters: addresses,
                            isJoining: place >= count, goal: 3, disk: watch.disk(of: place),
                            seed: UInt64(node.run) << 8 | UInt64(place), segmentSize: segment,
                            snapshotEntries: snapshots))
                })
        }
        self.ids = ids
        self.watch = watch
        world = World(nodes: nodes, clients: 2 + random.below(4), random: &random)
        changes = MasterOperator(
            number: world.clients - 1, world: world, founders: count, watch: watch,
            random: &random)
        var swarm = Swarm(random: &random, allowed: FaultKind.usual)
        if swarm.kinds.contains(.rot) {
            swarm.rotting = (0..<(count - 1) / 2).map { _ in random.below(count) }
            swarm.rotBudget = 1 + random.below(2)
            swarm.rotsCheckpoints = true
        }
        chaos = Chaos(world: world, swarm: swarm, random: &random)
        // A rotten disk is the one that the masters survive, where there is one.
        changes.wipes = swarm.kinds.contains(.rot) ? 0 : random.below(3)
        promises = Array(repeating: MasterPromises(), count: ids.count)
        former = Array(repeating: [], count: ids.count)
        checkedRuns = Array(repeating: 0, count: ids.count)
        startedRuns = checkedRuns
        lastDigest = Array(repeating: .none, count: ids.count)
        unchecked = Array(repeating: false, count: ids.count)
        self.random = random.fork()
        for number in 0..<world.clients - 1 {
            clients.append(
                MetadataClient(
                    number: number, world: world, masters: ids.count, history: history,
                    random: &random))
        }
        for client in clients {
            client.chosen = { [unowned self] in Slot(rawValue: UInt64(self.chosen.count)) }
        }
        changes.wipe = { [unowned self] in self.wipe($0) }
        world.observer = self
        world.describeFrame = Self.describe
    }

    var probes: [String] {
        reached.union(watch.reached).union(changes.done).sorted()
    }

    func run() {
        for node in world.nodes { world.start(node) }
        for client in clients { client.start() }
        changes.start()
        world.run(until: Instant(nanoseconds: 1_200_000_000))
        let end = world.now + .seconds(4)
        chaos.begin(until: end)
        world.run(until: end)
        chaos.calm()
        for client in clients { client.isStopping = true }
        changes.isStopping = true
        settle("calm")
        checkHistory()
        guard world.failure == nil else { return }
        for node in world.nodes { world.crash(node, power: true) }
        var rotten = RottenEntries(world, cell: Self.cell, random: random.fork())
        if random.chance(1, of: 2) {
            rotten.damage(watch.current.members.map { world.nodes[Int($0.id.rawValue) - 1] })
        }
        for node in world.nodes { world.start(node) }
        rotten.disturb()
        settle("after the power cut")
        checkHistory()
        rotten.check()
        if rotten.mending > 0 { reached.insert("entry-mended") }
        if rotten.mending > 1 { reached.insert("entries-mended-on-two") }
    }

    /// Lets everything come right, within a bound of virtual time.
    private func settle(_ when: String) {
        let deadline = world.now + .seconds(15)
        while world.failure == nil, !isSettled {
            guard world.now < deadline else {
                let states = world.nodes.map { node -> String in
                    guard let core = node.core as? MasterCore else { return "\(node.name) down" }
                    return "\(node.name) applied \(core.applied) leads \(core.isLeading) "
                        + "rot \(core.isDamaged) stranger \(core.paxos?.isStranger ?? false)"
                }
                let open = clients.filter { !$0.isIdle }.map(\.firstOutstanding)
                return world.fail("liveness", "\(when): \(states); open: \(open)")
            }
            world.run(until: world.now + .milliseconds(100))
        }
    }

    private var isSettled: Bool {
        guard clients.allSatisfy(\.isIdle), watch.current.learner == nil else { return false }
        let members = watch.current.members.map { world.nodes[Int($0.id.rawValue) - 1] }
        let cores = members.compactMap { $0.core as? MasterCore }
        let last = Slot(rawValue: UInt64(chosen.count))
        // Whoever lost its disk, or found it damaged, votes again (M18).
        return cores.count == members.count && cores.contains(where: \.isLeading)
            && cores.allSatisfy { !$0.isDamaged && $0.paxos?.isStranger == false }
            && cores.allSatisfy { $0.applied == last && $0.stateDigest == cores[0].stateDigest }
    }

    /// A master loses its disk, and comes back with an empty one.
    private func wipe(_ id: MasterID) {
        let node = world.nodes[Int(id.rawValue) - 1]
        world.crash(node, power: true)
        watch.wipe(id)
        node.disk = SimDisk(capacity: node.disk.capacity, random: random.fork())
        forgetPromises(node)
        chaos.restart(node)
    }

    /// What it told before counts under its old name only.
    private func forgetPromises(_ node: SimNode) {
        former[node.place].append(promises[node.place])
        promises[node.place] = MasterPromises()
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
            unchecked[node.place] = core.isDamaged
            if node.disk.damage == 0, core.isDamaged {
                world.fail("rot", "\(node.name): damage on a sound disk")
            }
            // Damage may take anything, but never unnoticed.
            if !core.isDamaged, let forgotten = promises[node.place].forgotten(by: paxos) {
                return world.fail("amnesia", "\(node.name) \(forgotten)")
            }
        }
        if paxos.disk != watch.disk(of: node.place) {
            guard node.disk.damage > 0 else {
                return world.fail("rot", "\(node.name): another name for a sound disk")
            }
            watch.rename(node.place, paxos.disk)
            forgetPromises(node)
        }
        if unchecked[node.place], !core.isDamaged {
            unchecked[node.place] = false
            if let forgotten = promises[node.place].forgotten(by: paxos) {
                return world.fail("amnesia", "\(node.name), found damaged, \(forgotten)")
            }
        }
        if paxos.isOldCopy, node.disk.damage == 0 {
            return world.fail("old copy", "\(node.name) takes its disk for an old copy")
        }
        checkChosen(node, paxos)
        checkSnapshots(node, core, paxos)
        if core.isLeading, leaders.last != paxos.promised {
            guard paxos.promised.node == ids[node.place] else {
                return world.fail("leader", "\(node.name) leads in \(paxos.promised)")
            }
            guard
                watch.membership(paxos.promised.configuration)?.hasVote(
                    ids[node.place], on: watch.disk(of: node.place)) == true
            else { return world.fail("leader", "\(node.name) leads and has no vote") }
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
        let came = startedRuns[node.place] == node.run
        reached.insert(came ? "snapshot-came" : "snapshot-loaded")
        if came { watch.filled(ids[node.place]) }
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
                let isOwn = paxos.accepted.node == ids[node.place]
                if isOwn { checkVotes(node, paxos, entry.slot) }
                let number = watch.current.number
                if let wrong = watch.chose(entry, leader: isOwn ? ids[node.place] : nil) {
                    return world.fail(wrong.check, wrong.detail)
                }
                if isOwn, watch.current.number > number { checkVotes(node, paxos, entry.slot) }
                chosen.append(entry.hash)
                bodies.append(ChosenBody(ballot: entry.ballot, body: entry.body))
            }
            let slot = Slot(rawValue: UInt64(last))
            if random.chance(1, of: 200) { checkMajority(slot) }
        }
        // Equal hashes mean equal logs up to there.
        let slot = min(last, chosen.count)
        if slot > 0, paxos.hash(at: Slot(rawValue: UInt64(slot))) != chosen[slot - 1] {
            world.fail("one value", "\(node.name) has another entry chosen in slot \(slot)")
        }
    }

    /// A leader calls a slot chosen: a majority of the voters must have told so in its ballot,
    /// from the disks that have the votes (M5, M18). Of a stop entry, that of both configurations.
    private func checkVotes(_ node: SimNode, _ paxos: PaxosNode, _ slot: Slot) {
        let votes = watch.current.voters.filter { voter in
            let place = Int(voter.id.rawValue) - 1
            let isPresent = voter.disk == .none || voter.disk == watch.disk(of: place)
            if place == node.place, isPresent { return paxos.durable >= slot }
            let told = (isPresent ? [promises[place]] : []) + former[place]
            return told.contains { ($0.votes[paxos.accepted] ?? .none) >= slot }
        }
        if votes.count < watch.current.quorum {
            world.fail(
                "votes",
                "\(node.name) calls \(slot) chosen in \(paxos.accepted) by "
                    + "\(votes.map(\.id)) of \(watch.current)")
        }
    }

    private func checkMajority(_ slot: Slot) {
        let hash = chosen[Int(slot.rawValue) - 1]
        let holders = watch.current.voters.filter { voter in
            let node = world.nodes[Int(voter.id.rawValue) - 1]
            guard node.disk.damage == 0, voter.id != watch.wiped else { return true }
            guard let found = durable(node), found.end >= slot else { return false }
            // What is in its snapshot is not in its log.
            return found.start > slot || found.hash(at: slot) == hash
        }
        if holders.count < watch.current.quorum {
            world.fail(
                "majority", "slot \(slot) is on the disks of \(holders.map(\.id)) only")
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
