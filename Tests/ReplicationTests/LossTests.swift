// Records that no copy can give, and an epoch that accepts their loss (decision 0020).

import Base
import Replication
import Testing

@Suite struct LossTests {
    private static func numbers(_ values: UInt64...) -> [RecordNumber] {
        values.map { RecordNumber(rawValue: $0) }
    }

    /// Two members of three disks, with four records; some of them damaged, which they know since
    /// they started again. The third disk is free.
    private func damaged(_ damage: [Int: [RecordNumber]]) throws -> ReplicaWorld {
        var world = try ReplicaWorld.serving()
        world.give(members: [0, 1], primary: 0)
        for _ in 0..<100 { world.round() }
        try world.finish(1...4)
        for _ in 0..<100 { world.round() }
        for (member, numbers) in damage {
            world.members[member].disk.damaged.formUnion(numbers)
            world.start(member)
        }
        return world
    }
    private func fill(_ world: inout ReplicaWorld) throws -> Bool {
        for _ in 0..<100 where world.members[0].replica?.isServing != true { world.round() }
        try #require(world.members[0].replica?.isServing == true)
        let epoch = world.configurations[world.configurations.count - 1].epoch
        world.step(0, .fill(epoch, learner: world.disk(2)))
        for _ in 0..<300 where world.members[0].replica?.learner?.isReady != true {
            world.round()
        }
        return world.members[0].replica?.learner?.isReady == true
    }

    @Test("A last copy with a damaged record is not copied, until its loss is accepted (C2, C17)")
    func last() throws {
        var world = try damaged([0: Self.numbers(2, 4)])
        world.members[1].replica = nil
        // The disk that is filled starts from nothing.
        world.members[2].disk = ModelDisk()
        world.start(2)
        world.give(members: [0], primary: 0)
        let isCopied = try fill(&world)
        #expect(!isCopied)
        #expect(world.members[0].givenUp.isEmpty)

        world.give(members: [0], primary: 0, acceptsLoss: true)
        let isCopiedNow = try fill(&world)
        #expect(isCopiedNow)
        #expect(world.members[0].givenUp.sorted() == Self.numbers(2, 4))
        #expect(world.members[0].replica?.hasRot == false)
        // What is found later, under the same word, is given up as well.
        world.step(0, .damaged(RecordNumber(rawValue: 3)))
        world.members[0].disk.damaged.insert(RecordNumber(rawValue: 3))
        #expect(world.members[0].givenUp.count == 2)
        for _ in 0..<300 { world.round() }
        #expect(world.members[0].givenUp.sorted() == Self.numbers(2, 3, 4))
        // The word ends with the epoch.
        world.give(members: [0], primary: 0)
        for _ in 0..<100 { world.round() }
        world.step(0, .damaged(RecordNumber(rawValue: 1)))
        world.members[0].disk.damaged.insert(RecordNumber(rawValue: 1))
        for _ in 0..<300 { world.round() }
        #expect(world.members[0].givenUp.count == 3)
        #expect(world.members[0].replica?.hasRot == true)
    }

    @Test("What one of the members has is repaired, and only what none has is given up")
    func others() throws {
        var world = try damaged([0: Self.numbers(2, 3), 1: Self.numbers(3)])
        world.give(members: [0, 1], primary: 0, acceptsLoss: true)
        for _ in 0..<600 { world.round() }
        #expect(world.members[0].givenUp == Self.numbers(3))
        #expect(world.members[1].givenUp.isEmpty)
        for member in 0..<2 {
            #expect(world.members[member].replica?.hasRot == false)
            #expect(world.members[member].disk.damaged.isEmpty)
        }
        let isCopied = try fill(&world)
        #expect(isCopied)
    }

    @Test("What nobody can give does not hold up the repair of what comes after it (C17)")
    func turns() throws {
        var world = try damaged([:])
        try world.finish(5...50)
        for _ in 0..<100 { world.round() }
        let all = (1...50 as ClosedRange<UInt64>).map { RecordNumber(rawValue: $0) }
        // More than are tried at one time, and some behind them that the other member has.
        let gone = Array(all.prefix(2 * Limits.recordLoads + 3))
        for (member, numbers) in [(0, all), (1, gone)] {
            world.members[member].disk.damaged.formUnion(numbers)
            world.start(member)
        }
        world.give(members: [0, 1], primary: 0)
        for _ in 0..<3_000 { world.round() }
        for member in 0..<2 { #expect(world.members[member].disk.damaged == Set(gone)) }
        // They are tried again and again: at last they can be had.
        world.members[1].disk.damaged = []
        for _ in 0..<6_000 { world.round() }
        for member in 0..<2 { #expect(world.members[member].replica?.hasRot == false) }
    }

    @Test("Damage that was overwritten meanwhile, or can be read again, ends by itself (C17)")
    func overwritten() throws {
        var world = try damaged([0: Self.numbers(2, 3), 1: Self.numbers(2)])
        world.give(members: [0, 1], primary: 0)
        for _ in 0..<200 { world.round() }
        #expect(world.members[0].replica?.hasRot == true)
        for member in 0..<2 {
            world.members[member].disk.superseded = Set(Self.numbers(2))
        }
        for _ in 0..<600 { world.round() }
        for member in 0..<2 { #expect(world.members[member].replica?.hasRot == false) }
        #expect(world.members[0].givenUp.isEmpty)
    }

    @Test("One failed read is not enough, nor is the word of who has not got the record yet")
    func notYet() throws {
        var world = try damaged([:])
        world.give(members: [0], primary: 0, acceptsLoss: true)
        for _ in 0..<100 { world.round() }
        // It can be read again.
        world.step(0, .damaged(RecordNumber(rawValue: 2)))
        for _ in 0..<300 { world.round() }
        #expect(world.members[0].givenUp.isEmpty && world.members[0].replica?.hasRot == false)

        world.give(members: [0, 1], primary: 0, acceptsLoss: true)
        for _ in 0..<100 { world.round() }
        try #require(world.members[0].replica?.isServing == true)
        // Numbered and damaged here, not there yet, and in memory still.
        world.write(0, 9)
        let number = RecordNumber(rawValue: 5)
        world.members[0].disk.damaged.insert(number)
        world.step(0, .damaged(number))
        try world.finish(9...9)
        for _ in 0..<300 { world.round() }
        #expect(world.members[0].givenUp.isEmpty && world.members[0].replica?.hasRot == false)
    }

    @Test("While a member does not say what it has, nothing is given up")
    func silent() throws {
        var world = try damaged([0: Self.numbers(2)])
        world.give(members: [0, 1], primary: 0, acceptsLoss: true)
        for _ in 0..<100 where world.members[0].replica?.isServing != true { world.deliverAll() }
        world.members[1].replica = nil
        for _ in 0..<300 { world.round() }
        #expect(world.members[0].givenUp.isEmpty)
    }
}
