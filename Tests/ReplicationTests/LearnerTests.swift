// Leases of a primary, and learners on their way into a set.

import Base
import Replication
import Testing

extension ReplicaWorld {
    /// Members in their first epoch, serving and quiet.
    static func serving(count: Int = 3) throws -> ReplicaWorld {
        var world = ReplicaWorld(seed: 2, count: count)
        for _ in 0..<40 { world.round() }
        try #require(world.members[world.primary].replica?.isServing == true)
        return world
    }

    /// Delivers what is under way now, and not what comes of it.
    mutating func deliverAll() {
        for link in links.indices {
            let messages = links[link]
            links[link] = []
            for message in messages { step(index(message.receiver), .message(message)) }
        }
    }

    /// Writes until all is acknowledged.
    mutating func finish(_ tags: ClosedRange<UInt64>) throws {
        open += Array(tags)
        for _ in 0..<200 where !open.isEmpty { round() }
        try #require(open.isEmpty)
    }
}

@Suite struct LeaseTests {
    private func wantLease(_ world: inout ReplicaWorld) {
        world.step(world.primary, .wantLease)
        for _ in 0..<4 { world.deliverAll() }
    }

    @Test("A primary may answer reads only with a lease of every backup, and not for long (C11)")
    func lease() throws {
        var world = try ReplicaWorld.serving()
        let primary = world.primary
        #expect(world.members[primary].replica?.hasLease(now: world.now) == false)
        world.step(primary, .wantLease)
        for link in world.links.indices where link % 3 == (primary + 1) % 3 {
            world.links[link] = []
        }
        for _ in 0..<4 { world.deliverAll() }
        #expect(world.members[primary].replica?.hasLease(now: world.now) == false)
        world.now = world.now + Limits.leaseBeacon
        wantLease(&world)
        #expect(world.members[primary].replica?.hasLease(now: world.now) == true)
        let end = world.now + Limits.lease
        #expect(world.members[primary].replica?.hasLease(now: end) == false)
    }

    @Test(
        "A new primary serves when the lease of the old one is over, by its slow clock too (C11)",
        arguments: [Int64(0), 1, 5])
    func waitsForOldLeases(percent: Int64) throws {
        var world = try ReplicaWorld.serving()
        let old = world.primary
        world.now = world.now + Limits.grant
        wantLease(&world)
        let lease = Limits.lease.nanoseconds
        let last = world.now + .milliseconds(lease / 1_000_000 - 1)
        #expect(world.members[old].replica?.hasLease(now: last) == true)
        // The clocks of the others are as fast as its own is slow.
        let end =
            world.now + Interval(nanoseconds: lease * (100 + percent) / (100 - percent))
        // The old primary hears of nothing.
        let others = (0..<3).filter { $0 != old }
        world.members[old].replica = nil
        world.give(members: others, primary: others[0])
        world.open = [1]
        while world.now < end {
            world.round()
            #expect(world.members[others[0]].replica?.isServing == false)
        }
        for _ in 0..<200 { world.round() }
        #expect(world.members[others[0]].replica?.isServing == true)
        #expect(world.acknowledged.count == 1)
    }
}

@Suite struct LearnerTests {
    /// Three members of four, writes done before and after the fourth left.
    private func withoutTheFourth() throws -> ReplicaWorld {
        var world = try ReplicaWorld.serving(count: 4)
        try world.finish(1...3)
        world.give(members: [0, 1, 2], primary: 0)
        for _ in 0..<100 { world.round() }
        try world.finish(4...6)
        return world
    }
    private func fill(_ world: inout ReplicaWorld) {
        let epoch = world.configurations[world.configurations.count - 1].epoch
        world.step(0, .fill(epoch, learner: world.disk(3)))
        for _ in 0..<100 where world.members[0].replica?.learner?.isReady != true {
            world.round()
        }
    }
    private func content(_ world: ReplicaWorld, _ member: Int) -> [UInt64] {
        world.members[member].disk.alive().map(\.sequence.rawValue)
    }

    @Test("A learner whose server died while it was strained slows nobody down any more (C19)")
    func diedStrained() throws {
        var world = try withoutTheFourth()
        world.members[3].disk = ModelDisk()
        world.start(3)
        world.members[3].replica?.isStrained = true
        let epoch = world.configurations[world.configurations.count - 1].epoch
        world.step(0, .fill(epoch, learner: world.disk(3)))
        for _ in 0..<100 where world.members[0].replica?.isLearnerStrained != true {
            world.round()
        }
        try #require(world.members[0].replica?.isLearnerStrained == true)
        world.members[3].replica = nil
        for _ in 0..<3_000 where world.members[0].replica?.isLearnerStrained == true {
            world.round()
        }
        #expect(world.members[0].replica?.isLearnerStrained == false)
    }

    @Test("A disk that left goes on where it was, gets what it lacks and is ready (C9)")
    func returns() throws {
        var world = try withoutTheFourth()
        fill(&world)
        #expect(world.members[0].replica?.learner?.isReady == true)
        #expect(content(world, 3) == content(world, 0))
        #expect(!world.members[3].disk.restored.starts.contains { $0.startsOver })
        world.give(members: [0, 1, 2, 3], primary: 0)
        for _ in 0..<100 { world.round() }
        try world.finish(7...9)
        #expect(content(world, 3) == content(world, 0))
    }

    @Test("Once it counts, a write waits for the learner too (C9)")
    func counts() throws {
        var world = try withoutTheFourth()
        fill(&world)
        world.open = [7]
        world.write(0, 7)
        for member in 0..<3 {
            world.deliverAll()
            world.sync(member)
        }
        for _ in 0..<4 { world.deliverAll() }
        #expect(world.acknowledged[7] == nil)
        world.sync(3)
        for _ in 0..<4 { world.deliverAll() }
        #expect(world.acknowledged[7] != nil)
    }

    @Test("A disk with a start that the set does not know starts from nothing (C9)")
    func startsOver() throws {
        var world = try withoutTheFourth()
        // An epoch that it began and nobody else, with a record of its own.
        let other = SetConfiguration(
            set: world.set, epoch: Epoch(rawValue: 2), primary: world.disk(3),
            members: (0..<4).map(world.disk))
        world.crash(3, extra: 0)
        let start = EpochStart(configuration: other, keepThrough: RecordNumber(rawValue: 1))
        _ = world.members[3].disk.append(.start(start))
        _ = world.members[3].disk.append(
            .record(
                Record(
                    set: world.set, epoch: Epoch(rawValue: 2), number: RecordNumber(rawValue: 2),
                    session: SessionID(rawValue: 1), sequence: RequestNumber(rawValue: 99),
                    firstUnacked: RequestNumber(rawValue: 99), truncation: 0,
                    body: .trim(
                        ChunkID(inode: .root, index: 99, version: 0), truncation: 1, from: 0))))
        world.members[3].disk.synced = world.members[3].disk.log.count
        world.members[3].disk.committed = .none
        world.start(3)
        #expect(content(world, 3) == [1, 99])
        world.give(members: [0, 1, 2], primary: 0)
        for _ in 0..<100 { world.round() }
        fill(&world)
        #expect(world.members[0].replica?.learner?.isReady == true)
        #expect(world.members[3].disk.restored.starts.contains { $0.startsOver })
        #expect(content(world, 3) == content(world, 0))
    }

    @Test("A disk that is far behind starts over: nobody may know what it lacks (C9)")
    func farBehind() throws {
        var world = try withoutTheFourth()
        for first in stride(from: 7 as UInt64, through: UInt64(Limits.preparedRecords), by: 64) {
            try world.finish(first...first + 63)
        }
        fill(&world)
        for _ in 0..<2_000 where world.members[0].replica?.learner?.isReady != true {
            world.round()
        }
        #expect(world.members[0].replica?.learner?.isReady == true)
        #expect(world.members[3].disk.restored.starts.contains { $0.startsOver })
        #expect(content(world, 3) == content(world, 0))
    }

    @Test("A copy in the way is emptied by a start, once; a member's never is (C14)")
    func discards() throws {
        var world = try withoutTheFourth()
        #expect(!content(world, 3).isEmpty)
        // An epoch of which the fourth hears nothing.
        var left = world.configurations[world.configurations.count - 1]
        left.epoch = left.epoch.next
        world.configurations.append(left)
        for member in 0..<3 { world.step(member, .configure(left)) }
        for _ in 0..<100 { world.round() }
        // Orders of an epoch that the copy has passed, or in which it is a member, are old.
        var old = left
        old.epoch = Epoch(rawValue: 1)
        world.step(3, .discard(old))
        for member in 0..<3 { world.step(member, .discard(left)) }
        for _ in 0..<20 { world.round() }
        #expect(!content(world, 3).isEmpty && !content(world, 0).isEmpty)
        world.step(3, .discard(left))
        for _ in 0..<20 { world.round() }
        #expect(content(world, 3).isEmpty)
        let starts = world.members[3].disk.restored.starts
        #expect(starts.last?.startsOver == true && starts.last?.configuration == left)
        world.step(3, .discard(left))
        for _ in 0..<20 { world.round() }
        #expect(world.members[3].disk.restored.starts == starts)
        // It can come back, and then it has everything again.
        fill(&world)
        #expect(world.members[0].replica?.learner?.isReady == true)
        #expect(content(world, 3) == content(world, 0))
    }
}
