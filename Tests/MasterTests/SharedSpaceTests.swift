// Disks on one file system, as the leader counts them, and what else reports say of a server.

import Base
import Master
import Testing
import Wire

@Suite struct SharedSpaceTests {
    private let gib: UInt64 = 1 << 30

    @Test("What is free on a file system that several disks share is counted once")
    func shared() throws {
        let group = MasterGroup(masters: 1, servers: 4)
        // Three on one file system of one machine; the fourth has the same number elsewhere.
        for index in 0..<3 { group.servers[index].machine = "one" }
        for index in 0..<4 {
            group.servers[index].space = DiskSpace(
                fileSystem: 7, free: 30 * gib, spare: index == 0 ? 2 * gib : 0)
        }
        group.run(milliseconds: 1_000)
        let capacities = try #require(group.status()).servers.flatMap(\.disks).map(\.capacity)
        // Each uses 1 GiB of the 100 GiB that it found when it started.
        #expect(capacities == [13, 11, 11, 31].map { $0 * gib })
        guard case .statistics(let statistics) = group.query(.statistics) else {
            Issue.record("no statistics")
            return
        }
        let usable = capacities.reduce(0) { $0 + $1 / 100 * 95 }
        #expect(statistics.capacity == usable / 3)

        // One that is gone leaves its part to the others; an unknown file system is a disk's own.
        group.servers[1].isUp = false
        group.servers[3].space = DiskSpace()
        group.run(milliseconds: 4_000)
        let after = try #require(group.status()).servers.flatMap(\.disks).map(\.capacity)
        #expect(after[3] == 100 * gib)
        #expect(after[2] == 16 * gib)
    }

    @Test("Bad frames and refused callers of servers are in the status")
    func connections() throws {
        let group = MasterGroup(masters: 1, servers: 1)
        group.servers[0].connections = ConnectionCounts(badFrames: 3, refused: 4)
        group.run(milliseconds: 1_000)
        let status = try #require(group.status())
        #expect(status.servers[0].connections == ConnectionCounts(badFrames: 3, refused: 4))
        #expect(status.masters[0].connections == ConnectionCounts())
    }
}
