// A member that delays writes is told from one that does not (C21); learners are fed as the host
// lets them (C19).

import Base
import Replication
import Testing

@Suite struct DelayTests {
    /// Writes all the time; the acknowledgements of `slow` are lost, or its disk never syncs.
    private func run(
        _ world: inout ReplicaWorld, _ time: Interval, losesFrom slow: Int?
    ) {
        let end = world.now + time
        while world.now < end {
            if let slow {
                world.links[slow * world.members.count + world.primary] = []
            }
            world.nextWrite += 1
            world.open.append(world.nextWrite)
            world.round()
        }
    }

    @Test("The primary names the member that it waits for, after some windows, and not the others")
    func slowBackup() throws {
        var world = try ReplicaWorld.serving()
        let primary = world.primary
        let slow = (primary + 1) % 3
        run(&world, .seconds(3), losesFrom: nil)
        #expect(world.members[primary].replica?.slow.isEmpty == true)
        run(&world, Limits.slowWindow * 5, losesFrom: slow)
        let named = try #require(world.members[primary].replica?.slow)
        #expect(named.map(\.disk) == [world.disk(slow)])
        #expect(named.allSatisfy { Int($0.windows) >= Limits.slowWindows })
        run(&world, Limits.slowWindow * 3, losesFrom: nil)
        #expect(world.members[primary].replica?.slow.isEmpty == true)
    }

    @Test("A burst that a member takes long to store counts, though its first record went fast")
    func slowBurst() throws {
        var world = try ReplicaWorld.serving()
        let (slow, primary) = (0, 2)
        // What it answers within a round is delivered in the next one.
        world.give(members: [0, 1, 2], primary: primary)
        for _ in 0..<40 { world.round() }
        try #require(world.members[primary].replica?.isServing == true)
        let link = slow * world.members.count + primary
        world.open += Array(1...40)
        for round in 0..<750 {
            // Five records a second.
            let stored = RecordNumber(rawValue: UInt64(2 + round / 20))
            world.links[link] = world.links[link].map { message in
                guard case .acknowledge(let durable, let committed, let fill, _) = message.body
                else { return message }
                var message = message
                message.body = .acknowledge(
                    durable: min(durable, stored), committed: committed, fill: fill,
                    isStrained: false)
                return message
            }
            world.round()
        }
        let named = try #require(world.members[primary].replica?.slow)
        #expect(named.map(\.disk) == [world.disk(slow)])
        #expect(named.allSatisfy { Int($0.windows) >= Limits.slowWindows })
    }

    @Test("A learner gets as much as there is budget, and all where members are too few")
    func budget() throws {
        for minMembers in [2, 3] as [UInt8] {
            var world = try ReplicaWorld.serving(count: 3)
            try world.finish(1...400)
            let next = SetConfiguration(
                set: world.set, epoch: world.configurations[0].epoch.next, primary: world.disk(0),
                members: [world.disk(0), world.disk(1)], minMembers: minMembers)
            world.configurations.append(next)
            for member in 0..<3 { world.step(member, .configure(next)) }
            for _ in 0..<100 { world.round() }
            world.members[2].disk = ModelDisk()
            world.start(2)
            world.members[0].replica?.copyBudget = 0
            world.step(0, .fill(next.epoch, learner: world.disk(2)))
            for _ in 0..<200 {
                world.members[0].replica?.copyBudget = 0
                world.round()
            }
            let learner = world.members[0].replica?.learner
            let isHeldBack = learner?.durable == RecordNumber.none
            #expect(isHeldBack == (minMembers == 2), "\(String(describing: learner))")
            for _ in 0..<400 {
                world.members[0].replica?.copyBudget = 1 << 20
                world.round()
            }
            #expect(world.members[0].replica?.learner?.isReady == true)
        }
    }
}
