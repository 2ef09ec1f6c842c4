// Members that are slow (C21), copies that nobody needs any more (C14), sessions that may not write
// any more (C16): what the leading master does about them.

import Base
import Master
import Testing
import Wire

extension MasterGroup {
    fileprivate func map(_ set: SetID) -> SetStatus? {
        guard case .map(let map) = query(.map(after: SetID(rawValue: 0))) else { return nil }
        return map.sets.first { $0.id == set }
    }
    /// Servers, and the first set of the first of them, with something in it.
    fileprivate static func withSet(
        servers: Int, goal: Int = 3, trashTime: Interval = Limits.trashTime
    ) throws -> (MasterGroup, SetConfiguration) {
        let group = MasterGroup(
            masters: 1, servers: servers, goal: goal, repairDelay: .seconds(1),
            trashTime: trashTime)
        group.run(milliseconds: 11_000)
        let set = try #require(group.servers[0].views.values.min { $0.set < $1.set })
        for index in group.servers.indices {
            group.servers[index].sets[set.set]?.prepared = RecordNumber(rawValue: 5)
            group.servers[index].sets[set.set]?.stored = 1 << 20
        }
        group.run(milliseconds: 500)
        return (group, set)
    }
    fileprivate func place(_ disk: DiskID) -> Int { servers.firstIndex { $0.disk == disk }! }
    /// The primary of a set says that these members are slow.
    fileprivate func slow(_ set: SetConfiguration, _ disks: [DiskID], windows: UInt8 = 3) {
        servers[place(set.primary)].sets[set.set]?.slow = disks.map {
            SlowMember(disk: $0, windows: windows)
        }
    }
}

@Suite struct GrayTests {
    @Test("A slow backup leaves its set, another takes its place, and it gets nothing for a while")
    func backup() throws {
        let (group, set) = try MasterGroup.withSet(servers: 4)
        let gray = set.backups[0]
        group.slow(set, [gray], windows: 2)
        group.run(milliseconds: 1_000)
        #expect(group.map(set.set)?.configuration == set)
        group.slow(set, [gray])
        let hasLeft = group.run { group in
            group.servers[group.place(set.primary)].views[set.set]?.members.contains(gray) == false
        }
        #expect(hasLeft)
        group.run(milliseconds: 5_000)
        let now = try #require(group.map(set.set)?.configuration)
        #expect(now.members.count == 3 && !now.members.contains(gray))
        #expect(now.epoch.rawValue == set.epoch.rawValue + 2)
        // Other sets that it does not delay keep it; nothing new comes to it.
        let sets = group.servers[group.place(gray)].views.count
        group.run(milliseconds: 30_000)
        #expect(group.servers[group.place(gray)].views.count == sets)
        #expect(group.servers.allSatisfy { !$0.fills.contains { $0.learner.disk == gray } })
    }

    @Test("A primary whose own disk is slow is moved away")
    func primary() throws {
        let (group, set) = try MasterGroup.withSet(servers: 4)
        group.slow(set, [set.primary])
        group.run(milliseconds: 6_000)
        let now = try #require(group.map(set.set)?.configuration)
        #expect(now.members.count == 3 && !now.members.contains(set.primary))
    }

    @Test("Where most members are slow, or too few would stay, nobody leaves")
    func exceptions() throws {
        let (group, set) = try MasterGroup.withSet(servers: 4)
        group.slow(set, set.backups)
        group.run(milliseconds: 3_000)
        #expect(group.map(set.set)?.configuration == set)
        let (small, pair) = try MasterGroup.withSet(servers: 2, goal: 2)
        small.slow(pair, [pair.backups[0]])
        small.run(milliseconds: 3_000)
        #expect(small.map(pair.set)?.configuration == pair)
        // And the cell still takes new files.
        let session = try #require(small.openSession(1))
        #expect(small.create(session, 1, "file") != nil)
    }

    @Test("A gray disk is taken back when its time is over, and later the next time")
    func decay() throws {
        let (group, set) = try MasterGroup.withSet(servers: 3)
        let gray = set.backups[0]
        group.slow(set, [gray])
        group.run(milliseconds: 58_000)
        #expect(group.map(set.set)?.configuration.members.count == 2)
        group.run(milliseconds: 8_000)
        let again = try #require(group.map(set.set)?.configuration)
        #expect(again.members == set.members)
        group.slow(again, [gray])
        group.run(milliseconds: 70_000)
        #expect(group.map(set.set)?.configuration.members.count == 2)
        #expect(group.map(set.set)?.task?.waits.contains("too slow") == true)
    }
}

@Suite struct SurvivorTests {
    private func withSurvivor(servers: Int) throws -> (MasterGroup, SetConfiguration) {
        let (group, set) = try MasterGroup.withSet(servers: servers)
        for disk in [set.primary, set.backups[0]] { group.servers[group.place(disk)].isUp = false }
        return (group, set)
    }

    @Test("The last survivor of a set goes on alone, and is filled up at once (C2, C19)")
    func alone() throws {
        let (group, set) = try withSurvivor(servers: 4)
        let survivor = set.backups[1]
        // Two seconds until a server counts as down, one until it has left.
        group.run(milliseconds: 2_500)
        #expect(group.map(set.set)?.configuration == set)
        let isAlone = group.run {
            $0.servers[$0.place(survivor)].views[set.set]?.members == [survivor]
        }
        #expect(isAlone && group.alarms.contains { $0.contains("only disk \(survivor) is left") })
        group.run(milliseconds: 900)
        let now = try #require(group.map(set.set)?.configuration)
        #expect(now.members.count == 2 && now.primary == survivor)
        #expect(now.epoch.rawValue == set.epoch.rawValue + 2)
        // Who comes back joins again.
        group.servers[group.place(set.backups[0])].isUp = true
        group.run(milliseconds: 3_000)
        let then = try #require(group.map(set.set)?.configuration)
        #expect(then.members == (now.members + [set.backups[0]]).sorted())
    }

    @Test("An accepted loss is for the members it was said of, and ends when all is sound")
    func acceptedLoss() throws {
        let (group, set) = try MasterGroup.withSet(servers: 4)
        let session = try #require(group.openSession(77))
        let order = Operation.acceptLoss(
            set.set, set.epoch, members: set.members, primary: set.primary)
        for member in set.members {
            group.servers[group.place(member)].sets[set.set]?.hasRot = true
        }
        #expect(group.change(session, 1, .operate(order)) == .done)
        group.run(milliseconds: 3_000)
        var now = try #require(group.map(set.set)?.configuration)
        #expect(now.acceptsLoss && now.epoch == set.epoch.next && now.primary == set.primary)
        // What it has alone was not spoken of.
        for disk in [set.primary, set.backups[0]] { group.servers[group.place(disk)].isUp = false }
        group.run(milliseconds: 20_000)
        #expect(group.map(set.set)?.configuration == now)
        #expect(group.alarms.contains { $0.contains("martlet set accept-loss \(set.set)") })
        for member in set.members {
            group.servers[group.place(member)].isUp = true
            group.servers[group.place(member)].sets[set.set]?.hasRot = false
        }
        group.run(milliseconds: 3_000)
        now = try #require(group.map(set.set)?.configuration)
        #expect(!now.acceptsLoss && now.members == set.members)
        #expect(now.epoch == set.epoch.next.next)
    }

    @Test("A disk that dies while it is filled gives way to another (C19)")
    func learnerDies() throws {
        let (group, set) = try MasterGroup.withSet(servers: 5)
        group.servers[group.place(set.backups[0])].isUp = false
        let isFilled = group.run {
            $0.servers[$0.place(set.primary)].fills.contains { $0.set == set.set }
        }
        #expect(isFilled)
        let first = try #require(
            group.servers[group.place(set.primary)].fills.last { $0.set == set.set }?.learner.disk)
        let learner = LearnerReport(disk: first, durable: .none, isCounted: false, isReady: false)
        group.servers[group.place(set.primary)].sets[set.set]?.learner = learner
        group.servers[group.place(first)].isUp = false
        group.run(milliseconds: 6_000)
        let now = try #require(group.map(set.set)?.configuration)
        #expect(now.members.count == 3 && !now.members.contains(first))
    }

    @Test("Without another disk to fill, or while a second member is there, it waits (C2)")
    func waits() throws {
        let (group, set) = try withSurvivor(servers: 3)
        group.run(milliseconds: 20_000)
        #expect(group.map(set.set)?.configuration == set)
        let (other, second) = try withSurvivor(servers: 4)
        for _ in 0..<10 {
            other.run(milliseconds: 2_700)
            other.servers[other.place(second.backups[0])].isUp = true
            other.run(milliseconds: 500)
            other.servers[other.place(second.backups[0])].isUp = false
            let members = try #require(other.map(second.set)?.configuration.members)
            #expect(members.count > 1)
        }
    }
}

@Suite struct TrashTests {
    /// A member goes, another takes its place, and it comes back with what it had.
    private func withStaleCopy(
        trashTime: Interval
    ) throws -> (MasterGroup, SetConfiguration, Int) {
        let (group, set) = try MasterGroup.withSet(servers: 4, trashTime: trashTime)
        let gone = group.place(set.backups[0])
        group.servers[gone].isUp = false
        group.run(milliseconds: 8_000)
        let now = try #require(group.map(set.set)?.configuration)
        try #require(now.members.count == 3 && !now.members.contains(set.backups[0]))
        group.servers[gone].isUp = true
        return (group, now, gone)
    }

    @Test("What a disk had when it left is emptied after it lay there for its time (C14)")
    func time() throws {
        let (group, set, gone) = try withStaleCopy(trashTime: .seconds(30))
        group.run(milliseconds: 15_000)
        #expect(!group.servers[gone].discards.contains { $0.set == set.set })
        group.run(milliseconds: 20_000)
        #expect(group.servers[gone].discards.contains { $0.set == set.set })
    }

    @Test("Sooner on a disk that is nearly full, and only while every member is up (C14)")
    func pressure() throws {
        let (group, set, gone) = try withStaleCopy(trashTime: Limits.trashTime)
        group.run(milliseconds: 2_000)
        #expect(!group.servers[gone].discards.contains { $0.set == set.set })
        let member = group.place(set.backups[0])
        group.servers[member].isUp = false
        group.run(milliseconds: 2_300)
        group.servers[gone].used = 90 << 30
        group.run(milliseconds: 400)
        #expect(!group.servers[gone].discards.contains { $0.set == set.set })
        group.servers[member].isUp = true
        let isEmptied = group.run { $0.servers[gone].discards.contains { $0.set == set.set } }
        #expect(isEmptied)
    }

    @Test("A copy that knows a later epoch than the log is kept, and raises an alarm (S6, C14)")
    func newer() throws {
        let (group, set, gone) = try withStaleCopy(trashTime: .zero)
        group.servers[gone].sets[set.set]?.epoch = Epoch(rawValue: set.epoch.rawValue + 7)
        group.run(milliseconds: 3_000)
        #expect(group.servers.allSatisfy { !$0.discards.contains { $0.set == set.set } })
        #expect(group.alarms.contains { $0.contains("the masters have lost state") })
    }
}

@Suite struct FenceListTests {
    @Test("Every server hears of a session that expired, also from the next leader")
    func expiry() throws {
        let group = MasterGroup(masters: 3, servers: 3)
        let lost = try #require(group.openSession(1))
        let closed = try #require(group.openSession(2))
        #expect(group.change(closed, 1, .closeSession) == .done)
        group.run(milliseconds: 29_000)
        #expect(group.servers.allSatisfy { $0.fences.version == 0 })
        group.run(milliseconds: 5_000)
        let list = FenceList(version: 1, sessions: [lost])
        #expect(group.servers.map(\.fences) == [list, list, list])
        group.crash(try #require(group.leader))
        group.servers[0].fences = FenceList()
        let isTold = group.run { $0.servers[0].fences == list }
        #expect(isTold)
    }
}
