// Scenarios of a network that loses what it carries (A9 to A13, A17, A18), between hosts that have
// a network namespace each.

import Base
import Glibc
import Testing

@Suite(.serialized) struct ScenarioNetworkTests {
    /// Cuts the primary off from a backup, though both see everybody else, for a while.
    private func cutReplicas(
        _ name: String, servers: Int = 4, _ cut: (Network, String, String) throws -> Void
    ) throws {
        try Scenario.runOnHosts(name, servers: servers) { scenario, network in
            let before = try scenario.place()
            try cut(network, before.primary, before.backups[0])
            try scenario.workload.progress(limit: 30)
            try scenario.expectStalls(write: 3, read: 5)
            sleep(15)
            let during = try scenario.place()
            print("    \(name): \(during.epoch - before.epoch) epochs in 15 s")
            #expect(during.epoch > before.epoch)
            // One drops the other, and a spare is filled and joins; no more than that.
            #expect(during.epoch <= before.epoch + 3)
            try scenario.expectStalls(write: 3, read: 5)
            try network.heal()
            try scenario.copies(3, limit: 30 * Scenario.slowness)
            try scenario.expectStalls(write: 3, read: 5)
        }
    }

    @Test(
        "A9: primary and backup lose each other and see all others: one of them leaves, once",
        .enabled(if: Scenario.isChosen("A9")), arguments: Scenario.isFull ? [3, 4] : [3])
    func replicas(servers: Int) throws {
        try cutReplicas("A9", servers: servers) { try $0.cut([$1], [$2]) }
    }

    @Test(
        "A10: what a backup sends to its primary is lost, or the other way: as A9",
        .enabled(if: Scenario.isChosen("A10")), arguments: Scenario.isFull ? [true, false] : [true])
    func oneWay(fromBackup: Bool) throws {
        try cutReplicas("A10") { network, primary, backup in
            let pair = fromBackup ? (backup, primary) : (primary, backup)
            try network.cut([pair.0], [pair.1], oneWay: true)
        }
    }

    @Test(
        "A11: a client loses the primary only: its writes wait, nobody is dropped on its word",
        .enabled(if: Scenario.isChosen("A11")))
    func clientFromPrimary() throws {
        try Scenario.runOnHosts("A11") { scenario, network in
            let before = try scenario.place()
            try network.cut(["client-1"], [before.primary])
            sleep(10)
            #expect(try scenario.workload.stalls().write > 5)
            #expect(try scenario.workload.stalls().read < 5 * Scenario.slowness)
            #expect(try scenario.place() == before)
            try network.heal()
            let healed = now()
            try scenario.workload.progress(limit: 3 * Scenario.slowness)
            print("    A11: writes went on \(seconds(now() - healed)) after the network")
            #expect(try scenario.place() == before)
        }
    }

    @Test(
        "A12: a client loses everything for 20 s: its session lives, its writes go on",
        .enabled(if: Scenario.isChosen("A12")))
    func clientFromAll() throws {
        try Scenario.runOnHosts("A12") { scenario, network in
            try network.cut(["client-1"], network.others("client-1"))
            sleep(20)
            #expect(try scenario.workload.stalls().write > 15)
            try network.heal()
            let healed = now()
            try scenario.workload.progress(limit: 10 * Scenario.slowness)
            print("    A12: writes went on \(seconds(now() - healed)) after the network")
        }
    }

    @Test(
        "A13: a client loses everything for 40 s: another writes; nothing late of the first lands",
        .enabled(if: Scenario.isChosen("A13")))
    func expiredClient() throws {
        try Cell.withHosts(servers: 3) { cell, network in
            let reading = cell.folder + "/mnt2"
            try cell.mount(reading, on: "client-2")
            let script = """
                from os import O_CREAT, O_RDWR, fsync, open as open_file, pwrite
                from sys import argv, exit
                file = open_file(argv[1], O_RDWR | O_CREAT)
                try:
                    for turn in range(1 << 30):
                        pwrite(file, bytes([65 + turn % 26]) * (1 << 20), 0)
                        fsync(file)
                        open(argv[2], "w").write(str(turn))
                except OSError as error: exit(error.errno)
                """
            let turns = cell.folder + "/turns"
            let writer = try Running(["python3", "-c", script, cell.mount + "/file", turns])
            try eventually("the first client writes") { (Int(readText(turns)) ?? 0) > 10 }
            try network.cut(["client-1"], network.others("client-1"))
            sleep(40)
            #expect(writer.isRunning)
            let content = noise(1 << 20, seed: 13)
            try writeFile(reading + "/file", content, sync: true)
            try network.heal()
            #expect(try writer.wait(limit: 60).status == EIO)
            sleep(5)
            #expect(readBytes(reading + "/file") == content)
            // The mount itself goes on, in a new session.
            #expect(readBytes(cell.mount + "/file") == content)
            try writeFile(cell.mount + "/other", content, sync: true)
            #expect(readBytes(reading + "/other") == content)
        }
    }

    @Test(
        "BACK: a chunk server and a master that were cut off for long are back soon after it",
        .enabled(if: Scenario.isChosen("BACK")))
    func back() throws {
        try Scenario.runOnHosts("BACK") { scenario, network in
            let leader = try scenario.cell.leader()
            let lost = [
                try scenario.place().backups[0], leader == "master-1" ? "master-2" : "master-1",
            ]
            try network.cut(lost, network.others(lost[0], lost[1]))
            try scenario.workload.progress(limit: 30)
            sleep(30)
            try network.heal()
            let healed = now()
            try eventually("\(lost) are back", limit: 10 * Scenario.slowness) {
                let health = try scenario.cell.attempt(["health"]).output
                return !health.contains("_DOWN")
            }
            print("    BACK: \(seconds(now() - healed)) after the network")
        }
    }

    @Test(
        "A17: the leader loses its followers, clients see all: another leads, nothing twice",
        .enabled(if: Scenario.isChosen("A17")))
    func isolatedLeader() throws {
        try Scenario.runOnHosts("A17", servers: 3, pause: 1_000, isStorm: true) {
            scenario, network in
            for isOneWay in [false, true] {
                let leader = try scenario.cell.leader()
                let masters = network.members.filter { $0.hasPrefix("master") && $0 != leader }
                try network.cut([leader], masters, oneWay: isOneWay)
                try scenario.workload.progress(syncs: 20, limit: 30)
                try scenario.expectStalls(write: 3, read: 3)
                #expect(try scenario.cell.leader() != leader)
                try network.heal()
                try scenario.workload.progress(syncs: 20, limit: 30)
                try scenario.expectStalls(write: 3, read: 3)
            }
        }
    }

    @Test(
        "A18: five masters see each other in part: one that sees a majority leads, and stays",
        .enabled(if: Scenario.isChosen("A18")))
    func partial() throws {
        try Scenario.runOnHosts("A18", masters: 5, servers: 3, pause: 1_000, isStorm: true) {
            scenario, network in
            func round() throws -> Double {
                number("round", in: try scenario.cell.martlet("status", "--json").output) ?? 0
            }
            let masters = network.members.filter { $0.hasPrefix("master") }
            func shape(_ name: String, _ cut: (String, [String]) throws -> Void) throws {
                let leader = try scenario.cell.leader()
                let before = try round()
                try cut(leader, masters.filter { $0 != leader })
                try scenario.workload.progress(syncs: 20, limit: 30)
                try scenario.expectStalls(write: 5, read: 5)
                sleep(5)
                print("    A18, \(name): \(Int(try round() - before)) ballots")
                #expect(try round() <= before + 2)
                try network.heal()
                try scenario.workload.progress(syncs: 20, limit: 30)
                try scenario.expectStalls(write: 5, read: 5)
            }
            try shape("only one sees a majority") { leader, others in
                let hub = others[0]
                for (index, one) in masters.enumerated() {
                    let rest = masters[(index + 1)...].filter { $0 != hub }
                    if one != hub, !rest.isEmpty { try network.cut([one], rest) }
                }
            }
            try shape("the leader is alone, the others see each other through one") {
                leader, others in
                try network.cut([leader], others)
                try network.cut([others[1]], [others[2], others[3]])
                try network.cut([others[2]], [others[3]])
            }
            try shape("a chain") { leader, others in
                let chain = [others[0], others[1], leader, others[2], others[3]]
                for first in 0..<3 { try network.cut([chain[first]], Array(chain[(first + 2)...])) }
            }
        }
    }

    @Test(
        "NET: links, one-way links, hosts and packets get lost at random: no error",
        .enabled(if: Scenario.isChosen("NET")))
    func random() throws {
        try Scenario.runOnHosts("NET") { scenario, network in
            var random = SeededRandom(seed: UInt64(getpid()))
            for _ in 0..<(Scenario.isFull ? 20 : 5) {
                let hosts = network.others(Network.desk)
                let victim = hosts[random.below(hosts.count)]
                let others = network.others(victim)
                switch random.below(4) {
                case 0: try network.cut([victim], others)
                case 1: try network.cut([victim], [others[random.below(others.count)]])
                case 2: try network.cut([victim], others, oneWay: random.below(2) == 0)
                default: try network.cut(others, others, percent: 5)
                }
                usleep(UInt32(500_000 + random.below(6_000_000)))
                try network.heal()
                try scenario.workload.progress(limit: 30)
            }
        }
    }
}
