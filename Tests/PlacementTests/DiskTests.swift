// Servers with several disks: disks of one process fail together.

import Base
import Placement
import Testing

/// So many servers on one host, each with so many disks; disk ids count from 1.
private func view(servers: Int, disks: Int, down: [Int] = []) -> ClusterView {
    let ids = (1...servers).flatMap { server in
        (0..<disks).map { ServerID(rawValue: UInt64(server)).disk($0) }
    }
    return ClusterView(
        servers: ids.enumerated().map {
            ClusterView.Server(
                id: $0.element, host: "host", rack: "", isUp: !down.contains($0.offset + 1))
        },
        disks: ids.enumerated().map {
            ClusterView.Disk(
                id: DiskID(rawValue: UInt64($0.offset + 1)), server: $0.element,
                capacity: 100 << 30, used: 10 << 30)
        }, sets: [])
}

@Suite struct ServerDiskTests {
    @Test("The ids of a server's disks differ, and say whose they are")
    func identity() {
        let first = ServerID(rawValue: 0x8123_4567_89AB_CDEF)
        let ids = (0..<ServerID.disks).map(first.disk)
        #expect(Set(ids).count == ServerID.disks && ids[0] == first)
        #expect(ids.allSatisfy { $0.unit == first.unit })
        #expect(ids.map { first.number(of: $0) } == Array(0..<ServerID.disks))
        #expect(first.number(of: ServerID(rawValue: first.rawValue + 1)) == nil)
    }

    @Test("Members are on different servers while there is another, whatever the host")
    func apart() throws {
        var random = SeededRandom(seed: 3)
        for _ in 0..<200 {
            let cell = view(servers: 3, disks: 2)
            let choice = try #require(
                PlacementPolicy.chooseMembers(goal: 3, in: cell, random: &random))
            let units = choice.members.compactMap { cell.disk($0)?.server.unit }
            #expect(Set(units).count == 3)
            // The third server is down: no third copy beside another one meanwhile.
            let two = PlacementPolicy.chooseMembers(
                goal: 3, in: view(servers: 3, disks: 2, down: [5, 6]), random: &random)
            #expect(two?.members.count == 2)
            // One server: its disks are all there is.
            let one = PlacementPolicy.chooseMembers(
                goal: 3, in: view(servers: 1, disks: 4), random: &random)
            #expect(one?.members.count == 3)
        }
    }

    @Test("A learner goes to another server; two copies of one server are misplaced")
    func repair() {
        var random = SeededRandom(seed: 4)
        let members = [1, 3].map { DiskID(rawValue: $0) }
        for _ in 0..<50 {
            let pick = PlacementPolicy.chooseLearner(
                beside: members, goal: 3, in: view(servers: 3, disks: 2), random: &random,
                isAllowed: { _ in true })
            #expect(pick.map { $0.disk.rawValue >= 5 } == true)
        }
        let configuration = SetConfiguration(
            set: SetID(rawValue: 1), epoch: Epoch(rawValue: 1), primary: members[0],
            members: [1, 2, 3].map { DiskID(rawValue: $0) })
        let set = CheckedSet(
            configuration: configuration, chunks: 1,
            copies: configuration.members.map {
                CheckedSet.Copy(
                    disk: $0, epoch: configuration.epoch, hasContent: true, hasRot: false)
            })
        let found = CellCheck.findings(
            [set], goal: 3, unknown: [], in: view(servers: 3, disks: 2))
        #expect(found.map(\.kind) == [.misplaced])
        #expect(found.first?.disk?.rawValue == 2 && found.first?.better?.rawValue == 5)
        #expect(
            CellCheck.findings([set], goal: 3, unknown: [], in: view(servers: 2, disks: 2)) == [])
    }

    @Test("Every disk without a copy has its reason")
    func reasons() {
        let members = [1, 3].map { DiskID(rawValue: $0) }
        let cell = view(servers: 4, disks: 2, down: [8])
        let short = PlaceExplanation(members: members, goal: 3, in: cell)
        #expect(short.members.map(\.separation) == [.otherServer, .otherServer])
        #expect(short.members.map(\.nearest) == members.reversed())
        #expect(
            short.others.map(\.absence) == [
                .shares(.otherDisk, with: members[0]), .shares(.otherDisk, with: members[1]),
                .candidate, .candidate, .candidate, .obstacle(.serverIsDown),
            ])
        let whole = PlaceExplanation(members: members, goal: 2, in: cell)
        #expect(whole.others.map(\.absence)[2...4].allSatisfy { $0 == .spare })
        #expect(whole.others.allSatisfy { !$0.absence.text.isEmpty })
        // A lone copy, and one that the cell does not know.
        let lone = PlaceExplanation(
            members: [DiskID(rawValue: 1), DiskID(rawValue: 99)], goal: 2, in: cell)
        #expect(lone.members.map(\.separation) == [nil, nil])
        #expect(lone.members[1].obstacle == .unknown)
    }
}
