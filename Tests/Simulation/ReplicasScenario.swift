// Scenario "replicas": chunk servers, one or three masters and clients that write and read, under
// chaos, then calm, then in some seeds the loss of all members but one of a set for good, also with
// damage at the last one (see LostMembers), or of all masters (see LostMasters), then a loss of
// power everywhere. Its checks are in PageCheck and ReplicaPromises, and here:
//
//  liveness     in calm everything that clients asked is answered
//  whole        some time into the calm every set has as many members as are wanted
//  leak         and no disk has more of a set that is elsewhere than that it was there (C14)
//  agreement    in the end every member returns the same cells
//  durability   after the loss of power the same holds again
//  members      nothing is acknowledged by fewer than two members, where two copies are wanted
//  scrub        after a pass over every disk no read meets damage (C18)
//  copies       at any common record the content of all copies of a block is the same (C18)
//  halt         no server stops by itself but for a broken disk
//
// In the scenario "full" disks have few segments, and clients write until there is no space for
// more; see FullDisks.

import Base
import ChunkServer
import Master
import Node
import Replication
import Store
import Wire

/// The scenario; see the head of the file.
final class ReplicasScenario: Scenario, WorldObserver {
    static let cell = CellID(high: 0xC3, low: 0xD4)
    let world: World
    private let chaos: Chaos
    let history = DataHistory()
    private(set) var clients: [DataClient] = []
    private(set) var operators: [OperatorClient] = []
    let masters: Int
    let goal: Int
    private let repairDelay: Interval
    private let scrub: ScrubConfiguration
    private let stores: [StoreConfiguration]
    var random: SeededRandom
    private var promises = ReplicaPromises()
    private var checkedRuns: [UInt32]
    var reached: Set<String> = []
    /// The newest configuration of each set that masters gave out.
    private(set) var latest: [SetID: SetConfiguration] = [:]
    /// The last report of each replica.
    var reports: [ReplicaName: SetReport] = [:]
    /// The last report of the scrub of each chunk server.
    private var scrubs: [ServerID: ScrubReport] = [:]
    private var isScrubbed = false
    /// Places of chunk servers that are gone for good.
    var lost: Set<Int> = []
    private let mayLoseMembers: Bool
    private let isFull: Bool
    private let isWild: Bool
    /// Damaged records that reads met until the pass was over.
    private var met: UInt64 = 0

    init(isFull: Bool, random: inout SeededRandom) {
        self.isFull = isFull
        masters = random.chance(3, of: 4) ? 1 : 3
        goal = random.chance(1, of: 4) ? 2 : 3
        let servers = goal + random.below(3)
        let sizes = Sizes(isFull: isFull, random: &random)
        repairDelay = sizes.repairDelay
        isWild = sizes.drift == Sizes.wild
        scrub = sizes.scrub
        var stores: [StoreConfiguration] = []
        var nodes = Self.masterNodes(masters, goal: goal, sizes, &random)
        for number in 0..<servers {
            let (node, store) = Self.chunkServer(
                number, place: nodes.count, masters: masters, sizes, &random)
            nodes.append(node)
            stores.append(store)
        }
        self.stores = stores
        let dataClients = 1 + random.below(3)
        let hasOperator = random.chance(1, of: 2)
        // There is a place for an operator who is called when nothing else helps.
        world = World(
            nodes: nodes, clients: dataClients + (hasOperator || !isFull ? 1 : 0), random: &random)
        var swarm = Swarm(
            random: &random, allowed: isFull ? FaultKind.allCases : FaultKind.usual)
        if swarm.kinds.contains(.rot) {
            swarm.rotting = [masters + random.below(servers)]
            swarm.rotBudget = 1 + random.below(4)
        }
        // The last survivor must not be the one whose bytes are damaged.
        mayLoseMembers =
            !isFull && !swarm.kinds.contains(.rot) && servers > goal
            && sizes.repairDelay < .seconds(10)
        chaos = Chaos(world: world, swarm: swarm, random: &random)
        checkedRuns = Array(repeating: 0, count: nodes.count)
        self.random = random.fork()
        for number in 0..<dataClients {
            clients.append(
                DataClient(
                    number: number, world: world, masters: masters, history: history,
                    appetite: isFull ? .churn : .few, random: &random))
        }
        if hasOperator {
            operators.append(
                OperatorClient(
                    number: dataClients, world: world, masters: masters,
                    servers: (0..<servers).map { ServerID(rawValue: UInt64(11 + $0)) },
                    random: &random))
        }
        world.observer = self
        world.describeFrame = Self.describe
    }

    var probes: [String] {
        operators.reduce(reached) { $0.union($1.done) }.sorted()
    }

    func run() {
        history.check.allowsStale = isWild
        for node in world.nodes { world.start(node) }
        for client in clients { client.start() }
        for client in operators { client.start() }
        world.run(until: Instant(nanoseconds: 3_000_000_000))
        let end = world.now + .seconds(4)
        chaos.begin(until: end)
        world.run(until: end)
        chaos.calm()
        for client in clients { client.isStopping = true }
        for client in operators { client.isStopping = true }
        if isWild { mendClocks() }
        settle("calm")
        awaitWholeSets()
        awaitScrub()
        readEverything("calm")
        checkScrub()
        if mayLoseMembers, !operators.isEmpty, random.chance(1, of: 2) {
            loseBytes()
        } else if mayLoseMembers {
            loseMembers()
        } else if !isFull, random.chance(1, of: 2) {
            loseMasters()
        }
        if isFull { fillDisks() }
        guard world.failure == nil else { return }
        for node in living { world.crash(node, power: true) }
        for node in living { world.start(node) }
        settle("after the power cut")
        readEverything("after the power cut")
        checkMembers()
        if history.acknowledged > 20 { reached.insert("many-writes") }
    }

    /// An operator who does nothing by itself.
    func callOperator() -> OperatorClient {
        let keeper = OperatorClient(
            number: clients.count, world: world, masters: masters, servers: [], random: &random)
        operators.append(keeper)
        keeper.isStopping = true
        keeper.start()
        return keeper
    }

    /// Clients write and read for a second; then everything is whole, and reads as it should.
    func workAndCheck(_ when: String) {
        for client in clients { client.goOn(40) }
        world.run(until: world.now + .seconds(1))
        for client in clients { client.isStopping = true }
        settle(when, limit: .seconds(120))
        awaitWholeSets()
        readEverything(when)
    }

    var living: [SimNode] { world.nodes.filter { !lost.contains($0.place) } }
    /// So many members a set can have.
    var wanted: Int { min(goal, living.count - masters) }

    /// What was acknowledged was on enough disks.
    private func checkMembers() {
        for (set, epochs) in history.epochs.sorted(by: { $0.key < $1.key }) {
            for epoch in epochs {
                let members = promises.members(set, epoch)
                guard members.count < min(2, goal) else { continue }
                world.fail("members", "set \(set): acknowledged in \(epoch) by \(members)")
            }
        }
    }

    func settle(_ when: String, limit: Interval = .seconds(30)) {
        var deadline = world.now + limit
        while world.failure == nil,
            !(clients.allSatisfy(\.isIdle) && operators.allSatisfy(\.isIdle))
        {
            if world.now >= deadline, !isFull, acceptLosses() { deadline = world.now + limit }
            guard world.now < deadline else {
                let open = clients.filter { !$0.isIdle }.map(\.firstOpen)
                return world.fail("liveness", "\(when): open: \(open)")
            }
            world.run(until: world.now + .milliseconds(100))
        }
    }

    /// Members that left come back, or others take their place (C9, C19).
    func awaitWholeSets() {
        guard repairDelay < .seconds(10) else { return }
        let deadline = world.now + .seconds(30)
        var copied: [RecordNumber] = []
        var grown = world.now
        let used = Set(history.chunks.map(\.set)).sorted()
        while world.failure == nil {
            let small = used.filter { latest[$0].map { $0.members.count < wanted } ?? false }
            let left = leftovers
            if small.isEmpty, left.isEmpty { return }
            let learners = reports.values.compactMap { $0.learner?.durable }.sorted()
            if learners != copied { grown = world.now }
            copied = learners
            guard world.now < deadline else {
                // A disk may be so slow that a copy takes its time.
                if !learners.isEmpty, world.now - grown < .seconds(5) { return }
                if small.isEmpty { return world.fail("leak", "\(left)") }
                return world.fail("whole", "\(small.map { "\(latest[$0]!)" })")
            }
            world.run(until: world.now + .milliseconds(100))
        }
    }

    /// A whole pass over every disk, and the repair of what it finds in the members.
    private func awaitScrub() {
        guard scrub.period < .seconds(60) else { return }
        world.run(until: world.now + .seconds(1))
        // A disk that can't be trusted leaves its last partner alone, which waits so long (A3).
        let (before, deadline) = (scrubs, world.now + .seconds(40) + repairDelay)
        while world.failure == nil {
            let late = before.filter {
                (scrubs[$0.key]?.progress.passes ?? 0) < $0.value.progress.passes + 2
            }
            let damaged = reports.filter { name, report in
                report.hasRot && latest[name.set]?.members.contains(name.disk) ?? false
            }
            if late.isEmpty, damaged.isEmpty { break }
            guard world.now < deadline else {
                return world.fail("scrub", "late: \(late.keys.sorted()), \(damaged.values)")
            }
            world.run(until: world.now + .milliseconds(100))
        }
        isScrubbed = true
        met = total(\.progress.met)
    }

    private func total(_ value: (ScrubReport) -> UInt64) -> UInt64 {
        scrubs.values.reduce(0) { $0 + value($1) }
    }

    /// What scrubs have passed over is sound.
    private func checkScrub() {
        guard isScrubbed, world.failure == nil else { return }
        world.run(until: world.now + .seconds(1))
        let now = total(\.progress.met)
        if now > met { world.fail("scrub", "reads met \(now - met) damaged records after a pass") }
    }

    /// What disks have of sets whose members are all elsewhere, without damage (C14).
    private var leftovers: [SetReport] {
        let damaged = Set(
            latest.keys.filter { set in
                reports.contains { $0.key.set == set && $0.value.hasRot }
            })
        return reports.filter { name, report in
            let members = latest[name.set]?.members ?? []
            if lost.contains(masters + Int(name.disk.rawValue) - 1) { return false }
            return members.count >= goal && !members.contains(name.disk)
                && !damaged.contains(name.set) && report.prepared > .none
        }.values.sorted { ($0.set, $0.disk) < ($1.set, $1.disk) }
    }

    /// Every block from its primary, then from every member. A disk with damage may refuse.
    func readEverything(_ when: String) {
        guard world.failure == nil, let reader = clients.first else { return }
        reader.views = history.views
        for chunk in history.chunks {
            for block in 0..<UInt16(Cell.blocks) {
                reader.read(chunk, block, member: nil, isPinned: true)
            }
        }
        settle("reading, \(when)")
        guard world.failure == nil else { return }
        for chunk in history.chunks {
            guard let view = reader.views[chunk.set] else { continue }
            for (index, location) in view.locations.enumerated() {
                guard let place = world.place(of: .server(location.server)),
                    world.nodes[place].disk.damage == 0 || (isScrubbed && when == "calm")
                else { continue }
                for block in 0..<UInt16(Cell.blocks) {
                    reader.read(chunk, block, member: index, isPinned: true)
                }
            }
        }
        settle("reading from every member, \(when)")
    }

    // MARK: Watching

    func fault(_ number: Int) { chaos.perform(number) }

    func halted(_ node: SimNode, _ reason: String) {
        let isBroken = reason.contains("failed: ") && reason.contains("disk(")
        guard isBroken, !reason.contains("noSpace") else {
            return world.fail("halt", "\(node.name): \(reason)")
        }
        reached.insert("disk-broke")
        chaos.restart(node)
    }

    func sends(_ node: SimNode, _ frame: Frame, to peer: Peer) {
        switch frame.kind {
        case .replication:
            guard let message = try? ReplicationMessage(head: frame.head, payload: frame.payload)
            else { return world.fail("coding", "\(node.name) sends what can't be read") }
            if case .begin(let start, _) = message.body, start.startsOver {
                reached.insert("started-over")
            }
            let verdict = promises.tell(message)
            if let wrong = verdict.wrong {
                return world.fail(wrong.check, "\(node.name): \(wrong.detail)")
            }
            if verdict.promises, random.chance(1, of: 200) {
                checkDurable(node, "persist before tell")
            }
        case .report:
            guard let report = try? ServerReport(frame) else { return }
            promises.tell(report)
            for disk in report.disks {
                note(disk.scrub, of: report.server)
                if disk.cleaning.segments > 0 { reached.insert("segment-cleaned") }
                if disk.cleaning.folded > 0 { reached.insert("block-folded") }
            }
            for set in report.sets {
                let before = reports[ReplicaName(set: set.set, disk: set.disk)]
                if before?.prepared ?? .none > set.prepared, set.prepared == .none {
                    reached.insert("copy-emptied")
                }
                reports[ReplicaName(set: set.set, disk: set.disk)] = set
            }
        case .orders:
            guard let orders = try? ServerOrders(frame) else { return }
            for view in orders.configurations { give(view, by: node) }
        case .metadataReply:
            guard let reply = try? MetadataReply(frame) else { return }
            if case .sets(let views) = reply { for view in views { give(view, by: node) } }
        case .writeReply:
            guard let reply = try? WriteReply(frame), reply.status == .done else { return }
            reached.insert("write-acknowledged")
        default: break
        }
    }

    private func note(_ scrub: ScrubReport, of server: ServerID) {
        if scrub.progress.passes > 0 { reached.insert("scrub-passed") }
        if scrub.progress.found > 0 { reached.insert("scrub-found") }
        if scrub.progress.compared.rawValue > 0 { reached.insert("copies-compared") }
        if scrub.progress.differed > 0 {
            world.fail("copies", "server \(server) found that copies differ")
        }
        if scrub.progress.found > 0, scrub.progress.met == 0, scrub.progress.repaired > 0 {
            reached.insert("scrub-repaired")
        }
        scrubs[server] = scrub
    }

    private func give(_ view: SetView, by node: SimNode) {
        if let wrong = promises.give(view.configuration) {
            world.fail("one configuration", "\(node.name): \(wrong)")
        }
        note(view.configuration)
    }

    private func note(_ next: SetConfiguration) {
        let known = latest[next.set]
        guard next.epoch > known?.epoch ?? .none else { return }
        latest[next.set] = next
        if next.epoch.rawValue > 1 { reached.insert("second-epoch") }
        guard let known, known.epoch.next == next.epoch else { return }
        let hasJoined = !next.members.allSatisfy(known.members.contains)
        if next.members.count < known.members.count { reached.insert("member-left") }
        if next.members.count == 1, known.members.count > 1 { reached.insert("went-on-alone") }
        if hasJoined {
            reached.insert("member-joined")
            let isSame = next.members.count == known.members.count
            if isSame { reached.insert("member-replaced") }
        }
        if !next.members.contains(known.primary) { reached.insert("primary-left") }
    }

    private func checkDurable(_ node: SimNode, _ check: String) {
        let number = node.place - masters
        guard number >= 0, node.disk.damage == 0 else { return }
        let found = DurableStore(of: node.disk, stores[number])
        guard found.isReady else {
            // Nothing was promised before its first superblock.
            if promises.names.contains(where: { $0.disk == stores[number].log.disk }) {
                world.fail(check, "\(node.name): its disk can't be read")
            }
            return
        }
        if let forgotten = promises.forgotten(by: found.store, disk: stores[number].log.disk) {
            world.fail(check, "\(node.name): \(forgotten)")
        }
    }

    /// Clocks that were as wrong as no lease allows are right again: from now on no read is stale
    /// that begins when the leases of before are over.
    private func mendClocks() {
        for node in world.nodes { node.clock.mend(at: world.now) }
        settle("wild clocks")
        world.run(until: world.now + Limits.grant)
        history.check.allowsStale = false
        if history.check.stale > 0 { reached.insert("stale-read-by-wild-clocks") }
        reached.insert("clocks-went-wild")
    }

    /// Where a primary serves, none of an earlier epoch answers reads any more (C11).
    private func checkLeases(_ node: SimNode) {
        guard !isWild, let core = node.core as? ChunkServerCore else { return }
        let own = core.served(now: node.clock.time(at: world.now).now)
        guard !own.isEmpty else { return }
        for other in world.nodes where other !== node {
            guard let core = other.core as? ChunkServerCore else { continue }
            for old in core.served(now: other.clock.time(at: world.now).now) where old.hasLease {
                guard let new = own.first(where: { $0.set == old.set && $0.epoch > old.epoch })
                else { continue }
                world.fail(
                    "leases",
                    "set \(new.set): \(node.name) serves in epoch \(new.epoch), and "
                        + "\(other.name) reads in \(old.epoch)")
            }
        }
    }

    func stepped(_ node: SimNode) {
        checkLeases(node)
        guard checkedRuns[node.place] != node.run else { return }
        checkedRuns[node.place] = node.run
        if node.run > 1 {
            reached.insert("restarted")
            checkDurable(node, "amnesia")
        }
    }

    private static func describe(_ frame: Frame) -> String {
        switch frame.kind {
        case .replication:
            let message = try? ReplicationMessage(head: frame.head, payload: frame.payload)
            return message.map { "set \($0.set) epoch \($0.epoch) \($0.body.summary)" } ?? "bad"
        case .metadataRequest: return (try? MetadataRequest(frame)).map { "\($0.body)" } ?? "bad"
        case .metadataReply: return (try? MetadataReply(frame)).map { "\($0)" } ?? "bad"
        case .writeReply: return (try? WriteReply(frame)).map { "\($0)" } ?? "bad"
        case .readReply: return (try? ReadReply(frame)).map { "read: \($0.status)" } ?? "bad"
        case .report:
            return (try? ServerReport(frame)).map { "report of \($0.sets)" } ?? "bad"
        case .orders: return (try? ServerOrders(frame)).map { "orders \($0)" } ?? "bad"
        default: return "\(frame.kind)"
        }
    }
}

extension ReplicationBody {
    fileprivate var summary: String {
        switch self {
        case .prepare(let committed, let records):
            "prepare \(records.map { "\($0.number) of epoch \($0.epoch)" }), committed \(committed)"
        case .fetched(let number, let result):
            if case .record = result { "fetched \(number)" } else { "fetched \(number) \(result)" }
        default: "\(self)"
        }
    }
}
