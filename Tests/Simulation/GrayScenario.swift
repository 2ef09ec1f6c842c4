// Scenario "gray": a client writes to a set, and the disk of one of its members, sometimes of
// the primary, becomes so slow that every write waits for it: the client writes 2 MB/s, disks
// take 20 MB/s, and the slow one 0.1 MB/s.
//
//  evicted      ten seconds later the slow disk is no member of the set any more (C21)
//  throughput   and the client writes at least 70 % of what it wrote before
//  replaced     the set has as many members as before soon after, without the slow one
//  flapping     and no more than three epochs were needed for all that

import Base
import ChunkServer
import Master
import Node
import Wire

/// The scenario; see the head of the file.
final class GrayScenario: Scenario, WorldObserver {
    private static let cell = CellID(high: 0xE5, low: 0xF6)
    private static let usual: Int64 = 20_000_000
    private static let slow: Int64 = 100_000
    let world: World
    private let client: StreamClient
    private let slowsPrimary: Bool
    private let victim: Int
    private var latest: [SetID: SetConfiguration] = [:]
    private(set) var probes: [String] = []

    init(random: inout SeededRandom) {
        let servers = 4 + random.below(3)
        slowsPrimary = random.chance(1, of: 3)
        victim = random.below(2)
        var nodes = [Self.master(&random)]
        for number in 0..<servers { nodes.append(Self.chunkServer(number, &random)) }
        world = World(nodes: nodes, clients: 1, random: &random)
        client = StreamClient(number: 0, world: world, master: 0, random: &random)
        world.observer = self
    }

    private static func master(_ random: inout SeededRandom) -> SimNode {
        let address = MasterAddress(
            id: MasterID(rawValue: 1),
            address: PeerAddress(network: "m1", socket: "", machine: ""))
        return SimNode(
            place: 0, name: "master-1", peer: .master(address.id), capacity: 64 << 20, drift: 0,
            random: &random
        ) { node in
            MasterCore(
                MasterConfiguration(
                    cell: cell, id: address.id, masters: [address], goal: 3,
                    disk: DiskID(rawValue: 900), seed: UInt64(node.run), segmentSize: 256 << 10,
                    repairDelay: .seconds(1)))
        }
    }

    private static func chunkServer(_ number: Int, _ random: inout SeededRandom) -> SimNode {
        let id = ServerID(rawValue: UInt64(11 + number))
        let configuration = ChunkServerConfiguration(
            cell: cell, server: id, disk: DiskID(rawValue: UInt64(1 + number)),
            name: "cs\(number)", rack: "",
            address: PeerAddress(network: "c\(number)", socket: "", machine: "host\(number)"),
            masters: [MasterID(rawValue: 1)], segmentSize: 2 << 20)
        return SimNode(
            place: number + 1, name: "server-\(number)", peer: .server(id), capacity: 512 << 20,
            drift: 0, random: &random
        ) { _ in ChunkServerCore(configuration) }
    }

    func run() {
        for node in world.nodes {
            if case .server = node.peer { node.timing.bytesPerSecond = Self.usual }
            world.start(node)
        }
        world.run(until: Instant(nanoseconds: 4_000_000_000))
        client.start()
        world.run(until: Instant(nanoseconds: 10_000_000_000))
        guard world.failure == nil, let before = client.view?.configuration else {
            return world.fail("start", "no set after ten seconds")
        }
        let disk = slowsPrimary ? before.primary : before.backups[victim % before.backups.count]
        world.say("disk \(disk) becomes slow")
        world.nodes[Int(disk.rawValue)].timing.bytesPerSecond = Self.slow
        world.run(until: Instant(nanoseconds: 20_000_000_000))
        check(before, slow: disk)
        // Before the client's session expires, which it does not renew.
        world.run(until: Instant(nanoseconds: 32_000_000_000))
        checkReplaced(before, slow: disk)
    }

    private func check(_ before: SetConfiguration, slow disk: DiskID) {
        guard world.failure == nil, let now = latest[before.set] else { return }
        if now.members.contains(disk) { world.fail("evicted", "\(disk) is still in \(now)") }
        probes.append(slowsPrimary ? "primary-moved" : "backup-evicted")
    }

    private func checkReplaced(_ before: SetConfiguration, slow disk: DiskID) {
        guard world.failure == nil, let now = latest[before.set] else { return }
        let (was, came) = (client.rate(6...10), client.rate(20...30))
        if came * 10 < was * 7 { world.fail("throughput", "\(came) of \(was) writes a second") }
        if now.members.count < before.members.count || now.members.contains(disk) {
            world.fail("replaced", "\(now) after \(before), slow: \(disk)")
        }
        if now.epoch.rawValue > before.epoch.rawValue + 3 {
            world.fail("flapping", "from epoch \(before.epoch) to \(now.epoch)")
        }
        for (set, other) in latest.sorted(by: { $0.key < $1.key })
        where set != before.set && other.epoch.rawValue > 1 {
            world.fail("others", "set \(set) was changed: \(other)")
        }
    }

    func stepped(_ node: SimNode) {}
    func fault(_ number: Int) {}
    func halted(_ node: SimNode, _ reason: String) { world.fail("halt", "\(node.name): \(reason)") }
    func sends(_ node: SimNode, _ frame: Frame, to peer: Peer) {
        guard frame.kind == .orders, let orders = try? ServerOrders(frame) else { return }
        for view in orders.configurations {
            let next = view.configuration
            if next.epoch > latest[next.set]?.epoch ?? .none { latest[next.set] = next }
        }
    }
}
