// Groups of masters under faults, from seeds.

import Base
import Consensus
import Testing

@Suite struct PaxosNetworkTests {
    @Test("A quiet group elects one leader within a second and keeps it", arguments: [1, 2, 3, 5])
    func quiet(count: Int) throws {
        var network = PaxosNetwork(count: count, seed: 5)
        try network.run(.milliseconds(900))
        #expect(network.servingNodes.count == 1)
        let leader = try #require(network.servingNodes.first)
        for _ in 0..<20 { try network.propose(leader) }
        try network.read(leader)
        try network.run(.seconds(10))
        #expect(network.leaders.count == 1)
        #expect(network.acknowledged.count == 20 && network.readsDone == 1)
        try network.checkConverged()
    }

    @Test(
        "After the leader's death the others serve within a second",
        arguments: 0..<40 as Range<UInt64>)
    func takeOver(seed: UInt64) throws {
        var network = PaxosNetwork(count: 3, seed: seed)
        try network.run(.milliseconds(1_500))
        let leader = try #require(network.servingNodes.first)
        for _ in 0..<30 { try network.propose(leader) }
        network.crash(leader)
        network.members[leader].restartAt = network.now + .seconds(60)
        try network.run(.milliseconds(1_000))
        #expect(network.servingNodes.count == 1)
        let next = try #require(network.servingNodes.first)
        try network.propose(next)
        try network.run(.milliseconds(100))
        #expect(network.acknowledged.count >= 1)
    }

    @Test(
        "Loss, duplicates, reordering, partitions and crashes lose nothing",
        arguments: 0..<250 as Range<UInt64>)
    func chaos(seed: UInt64) throws {
        let count = seed % 3 == 0 ? 5 : 3
        var odds = SeededRandom(seed: seed)
        let faults = Faults(
            loss: odds.below(200), duplicates: odds.below(200), delay: 1 + odds.below(80),
            crashes: odds.below(8), partitions: odds.below(30))
        var network = PaxosNetwork(count: count, seed: seed, faults: faults)
        var choices = network.fork()
        try network.run(.seconds(8)) { network in
            for index in network.servingNodes where choices.chance(1, of: 12) {
                try network.propose(index)
                if choices.chance(1, of: 4) { try network.read(index) }
            }
        }
        network.heal()
        try network.run(.seconds(5))
        let leader = try #require(network.servingNodes.first)
        let before = network.acknowledged.count
        try network.propose(leader)
        try network.run(.seconds(1))
        #expect(network.acknowledged.count == before + 1)
        try network.checkConverged()
    }

    @Test("A follower that lost contact catches up in pages")
    func pages() throws {
        var network = PaxosNetwork(count: 3, seed: 11)
        try network.run(.seconds(1))
        let leader = try #require(network.servingNodes.first)
        let behind = (leader + 1) % 3
        network.crash(behind)
        network.members[behind].restartAt = network.now + .seconds(5)
        for _ in 0..<12 {
            try network.propose(leader, size: 400_000)
            try network.run(.milliseconds(20))
        }
        network.crash(leader)
        network.members[leader].restartAt = network.now + .seconds(3)
        try network.run(.seconds(8))
        try network.checkConverged()
        #expect(network.chosen.count >= 13)
    }

    @Test("A master that no one hears raises no ballot")
    func deaf() throws {
        var network = PaxosNetwork(count: 3, seed: 3)
        try network.run(.seconds(1))
        let leader = try #require(network.servingNodes.first)
        let other = (leader + 1) % 3
        for index in 0..<3 { network.setCut(other, index, true) }
        try network.run(.seconds(5))
        for index in 0..<3 { network.setCut(index, other, true) }
        try network.run(.seconds(5))
        network.heal()
        try network.run(.seconds(5))
        #expect(network.leaders.count == 1)
    }

    @Test("A master with rot neither leads nor votes")
    func rot() throws {
        var network = PaxosNetwork(count: 3, seed: 9)
        network.start(0, hasRot: true)
        try network.run(.seconds(1))
        #expect(network.servingNodes.count == 1 && network.servingNodes != [0])
        let leader = try #require(network.servingNodes.first)
        network.crash(3 - leader)
        network.members[3 - leader].restartAt = network.now + .seconds(60)
        try network.run(.seconds(1))
        try network.propose(leader)
        try network.run(.seconds(2))
        #expect(network.acknowledged.isEmpty)
        #expect(network.servingNodes.isEmpty)
    }

    @Test("A leader that hears no majority stops, and fails what waits")
    func alone() throws {
        var network = PaxosNetwork(count: 3, seed: 4)
        try network.run(.seconds(1))
        let leader = try #require(network.servingNodes.first)
        for index in 0..<3 { network.setCut(index, leader, true) }
        try network.propose(leader)
        try network.run(.milliseconds(1_500))
        #expect(network.failedProposals == 1)
        #expect(!network.servingNodes.contains(leader))
        #expect(network.servingNodes.count == 1)
    }
}
