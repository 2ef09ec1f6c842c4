// Disks that their server does not report any more, that are older than they are known, or on
// which too much is found damaged: what the leading master does without being asked.

import Base
import Master
import Testing
import Wire

extension MasterGroup {
    fileprivate var map: [SetStatus] {
        guard case .map(let map) = query(.map(after: SetID(rawValue: 0))) else { return [] }
        return map.sets
    }
    fileprivate func server(_ index: Int) -> ServerStatus? {
        status()?.servers.first { $0.id == servers[index].id }
    }
    fileprivate var draining: [ServerID] {
        guard case .operations(let status) = query(.operations) else { return [] }
        return status.draining
    }
    /// All sets are on these disks and serve, and nothing waits for others.
    fileprivate func isWell(on disks: [DiskID], goal: Int = 3) -> Bool {
        map.allSatisfy { set in
            set.isServing && set.configuration.members.count == goal
                && set.configuration.members.allSatisfy(disks.contains)
        }
    }
    fileprivate static func withServers(_ count: Int, masters: Int = 1) -> MasterGroup {
        let group = MasterGroup(masters: masters, servers: count, repairDelay: .seconds(3))
        group.run(milliseconds: 12_000)
        for server in group.servers.indices {
            for set in group.servers[server].sets.keys {
                group.servers[server].sets[set]?.prepared = RecordNumber(rawValue: 5)
                group.servers[server].sets[set]?.stored = 1 << 20
            }
        }
        group.run(milliseconds: 500)
        return group
    }
}

@Suite struct LostDiskTests {
    @Test(
        "A disk that another took the place of is lost: its copies are made anew, it is forgotten",
        arguments: [3, 4])
    func replaced(servers: Int) throws {
        let group = MasterGroup.withServers(servers)
        let old = group.servers[1].disk
        group.servers[1].replaceDisk()
        group.run(milliseconds: 2_500)
        // It is told of, and nothing is forgotten while sets count on it.
        #expect(group.server(1)?.lost == [old] && group.server(1)?.isRefused == false)
        #expect(group.server(1)?.disks.map(\.disk) == [group.servers[1].disk])
        group.run(milliseconds: 12_000)
        #expect(group.server(1)?.lost == [])
        #expect(group.map.allSatisfy { !$0.copies.contains { $0.disk == old } })
        #expect(group.isWell(on: group.servers.map(\.disk)))
        #expect(group.servers.allSatisfy { $0.discards.isEmpty })
    }

    @Test("A lost disk that a set needs is kept, and serves when it is back")
    func needed() throws {
        let group = MasterGroup.withServers(3)
        let before = group.servers[1]
        // Two of three are away: the set waits for them.
        group.servers[0].isUp = false
        group.servers[1].replaceDisk()
        group.run(milliseconds: 2_500)
        let old = before.disk
        #expect(group.server(1)?.lost == [old])
        let set = try #require(group.map.first { $0.configuration.members.contains(old) })
        // The next leader knows as much.
        group.crash(0)
        group.start(0)
        for index in group.servers.indices { group.servers[index].target = 0 }
        group.run(milliseconds: 4_000)
        #expect(group.server(1)?.lost == [old])
        group.servers[1] = before
        group.servers[1].incarnation = 2
        group.run(milliseconds: 15_000)
        #expect(group.server(1)?.lost.contains(old) == false)
        let now = try #require(group.map.first { $0.id == set.id })
        #expect(now.isServing && now.configuration.members.contains(old))
    }

    @Test("A disk that was forgotten and comes back is a new one, with former copies")
    func back() throws {
        let group = MasterGroup.withServers(4)
        var before = group.servers[1]
        group.servers[1].replaceDisk()
        group.run(milliseconds: 15_000)
        #expect(group.server(1)?.lost == [])
        before.incarnation = 1
        before.reports = group.servers[1].reports
        let other = group.servers[1].disk
        group.servers[1] = before
        group.run(milliseconds: 15_000)
        #expect(group.server(1)?.lost == [] && group.server(1)?.disks.map(\.disk) == [before.disk])
        #expect(group.isWell(on: group.servers.map(\.disk)))
        #expect(group.map.allSatisfy { !$0.copies.contains { $0.disk == other } })
        #expect(group.alarms.isEmpty)
    }

    @Test("An old image of a disk is refused and said to be, by this leader and the next (S8)")
    func oldImage() throws {
        let group = MasterGroup.withServers(4, masters: 3)
        let image = group.servers[1]
        func start(_ incarnation: UInt64) {
            group.servers[1].incarnation = incarnation
            group.servers[1].reports = 0
            group.run(milliseconds: 2_500)
        }
        // Two later runs; the image is started as often as the first, and as the second.
        start(5 << 16 | 7)
        start(6 << 16 | 9)
        #expect(group.server(1)?.isRefused == false)
        group.servers[1] = image
        for (run, isKnown) in [
            (5 << 16 | 8, false), (6 << 16 | 8, false), (6 << 16 | 10, false), (7 << 16, true),
        ] as [(UInt64, Bool)] {
            start(run)
            #expect(group.server(1)?.isRefused == !isKnown, "\(run)")
            guard !isKnown else { break }
            group.run(milliseconds: 8_000)
            #expect(group.isWell(on: [0, 2, 3].map { group.servers[$0].disk }))
            group.crash(try #require(group.leader))
            try #require(group.run { $0.leader != nil })
            group.run(milliseconds: 1_000)
            #expect(group.server(1)?.isRefused == true, "\(run), by the next leader")
            for index in group.cores.indices where group.cores[index] == nil { group.start(index) }
            group.run(milliseconds: 12_000)
        }
    }
}

@Suite struct RolledBackTests {
    @Test("After a restart of all servers a rolled back primary does not lead its sets (C2, S8)")
    func primary() throws {
        let group = MasterGroup.withServers(4)
        func restart(_ starts: UInt64, _ salts: [UInt64]) {
            for index in group.servers.indices {
                group.servers[index].incarnation = starts << 16 | salts[index]
                group.servers[index].reports = 0
            }
        }
        restart(3, [1, 1, 1, 1])
        group.run(milliseconds: 3_000)
        let old = group.servers[1].disk
        let led = group.map.map(\.configuration).filter { $0.primary == old }.map(\.set)
        try #require(!led.isEmpty)
        // Started as often as the masters know it, and without the last records.
        restart(4, [2, 2, 2, 2])
        group.servers[1].incarnation = 3 << 16 | 2
        for set in led { group.servers[1].sets[set]?.prepared = RecordNumber(rawValue: 3) }
        group.run(milliseconds: 10_000)
        for set in group.map where led.contains(set.id) {
            #expect(set.isServing && !set.configuration.members.contains(old))
        }
    }
}

@Suite struct WornDiskTests {
    private func damage(_ group: MasterGroup, _ index: Int, _ records: UInt64) {
        group.servers[index].scrub.progress.found = records / 2
        group.servers[index].scrub.progress.met = records - records / 2
        group.run(milliseconds: 1_000)
    }

    @Test("A disk with too many damaged records is drained; undrained, after as many more")
    func drained() throws {
        let group = MasterGroup.withServers(4)
        let server = group.servers[1].id
        damage(group, 1, Limits.wornRecords - 1)
        #expect(group.draining == [])
        damage(group, 1, Limits.wornRecords)
        #expect(group.draining == [server] && group.alarms.count == 1)
        group.run(milliseconds: 10_000)
        #expect(group.isWell(on: [0, 2, 3].map { group.servers[$0].disk }))
        // Another one has to stay: too few would be left.
        damage(group, 2, 1_000_000)
        #expect(group.draining == [server] && group.alarms.count == 1)
        damage(group, 2, 0)
        let session = try #require(group.openSession(1))
        #expect(group.change(session, 1, .operate(.drain(server, isDraining: false))) == .done)
        damage(group, 1, Limits.wornRecords * 2 - 1)
        #expect(group.draining == [])
        damage(group, 1, Limits.wornRecords * 2)
        #expect(group.draining == [server])
    }

    @Test("Where too many disks have damage it is not the disks: a third is drained at most")
    func many() {
        let group = MasterGroup.withServers(9)
        for index in group.servers.indices {
            group.servers[index].scrub.progress.found = 1_000
        }
        group.run(milliseconds: 20_000)
        #expect(group.draining.count == 3)
    }
}
