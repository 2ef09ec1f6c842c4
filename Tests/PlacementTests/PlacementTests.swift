// Placement: failure domains for random cells, and the spread over many placements.

import Base
import Placement
import Testing

private func disk(_ value: Int) -> DiskID { DiskID(rawValue: UInt64(value)) }
private func server(_ value: Int) -> ServerID { ServerID(rawValue: UInt64(value)) }

/// A cell that is small, crooked and partly broken.
private func randomView(_ random: inout SeededRandom) -> ClusterView {
    let hosts = 1 + random.below(5)
    let racks = random.below(4)
    var servers: [ClusterView.Server] = []
    var disks: [ClusterView.Disk] = []
    for index in 0..<1 + random.below(7) {
        let host = random.below(hosts)
        servers.append(
            ClusterView.Server(
                id: server(index), host: "h\(host)",
                rack: racks == 0 ? "" : "r\(host % racks)", isUp: !random.chance(1, of: 5)))
        for _ in 0..<random.below(4) {
            let capacity = UInt64(random.below(1_000) + 1) << 30
            disks.append(
                ClusterView.Disk(
                    id: disk(disks.count), server: server(index), capacity: capacity,
                    used: capacity / 100 * UInt64(random.below(101)),
                    recentBytes: UInt64(random.below(1 << 30)),
                    queue: UInt32(random.below(64)), hasFailed: random.chance(1, of: 8)))
        }
    }
    var sets: [ClusterView.OpenSet] = []
    for index in 0..<random.below(12) where !disks.isEmpty {
        let members = Array(disks.map(\.id).shuffled(using: &random).prefix(3)).sorted()
        sets.append(
            ClusterView.OpenSet(
                set: SetID(rawValue: UInt64(index)), members: members, primary: members[0],
                stored: UInt64(random.below(5)) << 30,
                recentBytes: UInt64(random.below(1 << 30))))
    }
    return ClusterView(servers: servers, disks: disks, sets: sets)
}

@Test("In any cell, members are usable and as far from each other as they can be")
func failureDomains() throws {
    var random = SeededRandom(seed: 1)
    var placed = 0
    for _ in 0..<4_000 {
        let view = randomView(&random)
        let goal = 1 + random.below(4)
        let usable = view.disks.filter { view.obstacle($0.id) == nil }
        let choice = PlacementPolicy.chooseMembers(goal: goal, in: view, random: &random)
        #expect((choice == nil) == (usable.count < min(goal, 2)))
        guard let choice else { continue }
        placed += 1
        let members = choice.members.compactMap { view.disk($0) }
        #expect(members.count == choice.members.count && members.count <= goal)
        #expect(choice.members == choice.members.sorted())
        #expect(choice.members.contains(choice.primary))
        #expect(Set(choice.members).count == members.count, "a disk twice")
        #expect(members.allSatisfy { usable.contains($0) })
        // As many servers, hosts and racks as the usable disks have, up to the goal.
        func count(_ disks: [ClusterView.Disk], _ key: (ClusterView.Server) -> String) -> Int {
            Set(disks.compactMap { view.server($0.server).map(key) }).count
        }
        let keys: [(ClusterView.Server) -> String] = [\.id.description, \.host, \.rack]
        for key in keys {
            #expect(count(members, key) == min(goal, count(usable, key)))
        }
        let servers = count(usable, \.id.description)
        if members.count < goal {
            #expect(
                members.count == max(min(goal, servers), min(goal, 2, usable.count))
                    || members.count == usable.count)
        }
        #expect(choice.reason.picks.count == members.count)
        #expect(choice.reason.description.contains("of goal \(goal)"))
    }
    #expect(placed > 1_500)
}

@Test("A chunk goes to an open set that is well, with as many members as there are")
func setsOfChunks() {
    var random = SeededRandom(seed: 2)
    var placed = 0
    for _ in 0..<4_000 {
        let view = randomView(&random)
        let goal = 1 + random.below(3)
        let usable = view.sets.filter { set in
            set.stored < Limits.setStored
                && set.members.allSatisfy { view.obstacle($0) == nil }
        }
        let choice = PlacementPolicy.chooseSet(for: goal, in: view, random: &random)
        #expect((choice == nil) == usable.isEmpty)
        guard let choice else { continue }
        placed += 1
        let most = usable.map { min($0.members.count, goal) }.max() ?? 0
        #expect(usable.contains { $0.set == choice.set && $0.members.count >= most })
        #expect(choice.reason.preferredTo != choice.set)
        #expect(choice.reason.description.hasPrefix("set \(choice.set) "))
    }
    #expect(placed > 500)
}

private let sizes: [UInt64] = [1, 1, 2, 2, 4, 4, 1, 3, 2, 4, 1, 2]

/// 12 disks of 1 to 4 TiB on 6 hosts in 3 racks.
private func unequal(_ used: [UInt64], recent: [UInt64]) -> ClusterView {
    ClusterView(
        servers: (0..<6).map {
            ClusterView.Server(id: server($0), host: "h\($0)", rack: "r\($0 % 3)", isUp: true)
        },
        disks: sizes.indices.map {
            ClusterView.Disk(
                id: disk($0), server: server($0 % 6), capacity: sizes[$0] << 40,
                used: used[$0], recentBytes: recent[$0])
        }, sets: [])
}

@Test("100,000 placements keep racks apart and fill unequal disks to within 15 points in each")
func spreadOfMembers() {
    var random = SeededRandom(seed: 3)
    var used = sizes.map { _ in 0 as UInt64 }
    var recent = used
    var chosen = sizes.map { _ in 0 }
    // So much that the cell is three quarters full at the end.
    let amount = (sizes.reduce(0, +) << 40) / 4 * 3 / 300_000
    for round in 0..<100_000 {
        let view = unequal(used, recent: recent)
        guard let choice = PlacementPolicy.chooseMembers(goal: 3, in: view, random: &random)
        else {
            Issue.record("no place in round \(round)")
            return
        }
        #expect(Set(choice.members.map { $0.rawValue % 3 }).count == 3)
        if round % 100 == 0 { recent = recent.map { $0 / 2 } }
        for member in choice.members {
            let index = Int(member.rawValue)
            used[index] += amount
            recent[index] += 1 << 20
            chosen[index] += 1
        }
    }
    let percents = unequal(used, recent: recent).disks.map(\.usedPercent)
    print("disk  TiB  placements  used %")
    for index in sizes.indices {
        print("\(index)\t\(sizes[index])\t\(chosen[index])\t\(percents[index])")
    }
    // Racks have 8, 9 and 10 TiB and each gets a member of every set: they fill unevenly. The
    // disks of one rack differ by what a large one's higher load counts.
    for rack in 0..<3 {
        let inRack = percents.indices.filter { $0 % 3 == rack }.map { percents[$0] }
        #expect((inRack.max() ?? 0) - (inRack.min() ?? 0) <= 15)
    }
}

@Test("Without racks, placements fill all unequal disks to within 10 points of each other")
func spreadWithoutRacks() {
    var random = SeededRandom(seed: 4)
    var used = sizes.map { _ in 0 as UInt64 }
    let amount = (sizes.reduce(0, +) << 40) / 4 * 3 / 30_000
    for _ in 0..<10_000 {
        let view = unequal(used, recent: used.map { _ in 0 })
        let flat = ClusterView(
            servers: view.servers.map {
                ClusterView.Server(id: $0.id, host: $0.host, rack: "", isUp: true)
            }, disks: view.disks, sets: [])
        let choice = PlacementPolicy.chooseMembers(goal: 3, in: flat, random: &random)
        for member in choice?.members ?? [] { used[Int(member.rawValue)] += amount }
    }
    let percents = unequal(used, recent: used).disks.map(\.usedPercent)
    print("used % by disk:", percents)
    #expect((percents.max() ?? 0) - (percents.min() ?? 0) <= 10)
}

@Test("100,000 chunks over 24 open sets are within a fifth of the mean, and avoid a busy disk")
func spreadOfChunks() {
    var random = SeededRandom(seed: 5)
    let disks = (0..<12).map {
        ClusterView.Disk(
            id: disk($0), server: server($0), capacity: 1 << 40, used: 1 << 38,
            recentBytes: $0 == 11 ? 1 << 30 : 0)
    }
    let servers = disks.map {
        ClusterView.Server(id: $0.server, host: "h\($0.server)", rack: "", isUp: true)
    }
    let sets = (0..<24).map { index in
        let members = [index % 12, (index + 1) % 12, (index + 5) % 12].sorted().map(disk)
        return ClusterView.OpenSet(
            set: SetID(rawValue: UInt64(index)), members: members, primary: members[0],
            stored: 0, recentBytes: 0)
    }
    let view = ClusterView(servers: servers, disks: disks, sets: sets)
    var counts = sets.map { _ in 0 }
    for _ in 0..<100_000 {
        guard let choice = PlacementPolicy.chooseSet(for: 3, in: view, random: &random) else {
            Issue.record("no set")
            return
        }
        counts[Int(choice.set.rawValue)] += 1
    }
    print("chunks by set:", counts)
    let busy = sets.indices.filter { sets[$0].members.contains(disk(11)) }
    let calm = sets.indices.filter { !busy.contains($0) }
    let mean = calm.reduce(0) { $0 + counts[$1] } / calm.count
    #expect(calm.allSatisfy { abs(counts[$0] - mean) * 5 < mean })
    #expect(busy.allSatisfy { counts[$0] * 2 < mean })
}

@Test("The primary of a new set is the member that leads the fewest")
func primaries() {
    var random = SeededRandom(seed: 6)
    var sets: [ClusterView.OpenSet] = []
    let servers = (0..<5).map {
        ClusterView.Server(id: server($0), host: "h\($0)", rack: "", isUp: true)
    }
    let disks = (0..<5).map {
        ClusterView.Disk(id: disk($0), server: server($0), capacity: 1 << 40, used: 0)
    }
    for index in 0..<50 {
        let view = ClusterView(servers: servers, disks: disks, sets: sets)
        guard let choice = PlacementPolicy.chooseMembers(goal: 3, in: view, random: &random)
        else { continue }
        sets.append(
            ClusterView.OpenSet(
                set: SetID(rawValue: UInt64(index)), members: choice.members,
                primary: choice.primary, stored: 0, recentBytes: 0))
    }
    let led = disks.map { disk in sets.count { $0.primary == disk.id } }
    print("sets led by disk:", led)
    #expect(led.reduce(0, +) == 50)
    #expect(led.allSatisfy { (8...12).contains($0) })
}

private typealias Case = (
    servers: [(host: String, isUp: Bool, disks: Int)], goal: Int, members: Int?
)
private let cases: [Case] = [
    ([("a", true, 1), ("b", true, 1), ("c", true, 1)], 3, 3),
    // One machine with three servers is a cell as well.
    ([("a", true, 1), ("a", true, 1), ("a", true, 1)], 3, 3),
    // A server that is down comes back: no second member on another meanwhile.
    ([("a", true, 2), ("b", true, 2), ("c", false, 2)], 3, 2),
    ([("a", true, 2), ("b", false, 2), ("c", false, 2)], 3, 2),
    ([("a", true, 1), ("b", false, 1), ("c", false, 1)], 3, nil),
    ([("a", true, 1), ("b", false, 1)], 1, 1),
    ([("a", true, 3)], 3, 3),
    ([("a", true, 1)], 3, nil),
    ([("a", true, 2), ("b", true, 1)], 3, 3),
    ([], 1, nil),
]

@Test("A set has its goal of members, or what there is, but two at least", arguments: cases)
func smallCells(servers: [(host: String, isUp: Bool, disks: Int)], goal: Int, members: Int?) {
    var random = SeededRandom(seed: 7)
    var disks: [ClusterView.Disk] = []
    for (index, item) in servers.enumerated() {
        for _ in 0..<item.disks {
            disks.append(
                ClusterView.Disk(
                    id: disk(disks.count), server: server(index), capacity: 100, used: 0))
        }
    }
    let view = ClusterView(
        servers: servers.enumerated().map {
            ClusterView.Server(id: server($0), host: $1.host, rack: "", isUp: $1.isUp)
        }, disks: disks, sets: [])
    let choice = PlacementPolicy.chooseMembers(goal: goal, in: view, random: &random)
    #expect(choice?.members.count == members)
}

@Test("A disk is full above 95 %, and the largest sizes do not overflow")
func obstacles() {
    let servers = [
        ClusterView.Server(id: server(1), host: "a", rack: "", isUp: true),
        ClusterView.Server(id: server(2), host: "b", rack: "", isUp: false),
    ]
    let disks = [
        ClusterView.Disk(id: disk(1), server: server(1), capacity: 1_000, used: 950),
        ClusterView.Disk(id: disk(2), server: server(1), capacity: 1_000, used: 951),
        ClusterView.Disk(id: disk(3), server: server(1), capacity: 0, used: 0),
        ClusterView.Disk(id: disk(4), server: server(2), capacity: 10, used: 0),
        ClusterView.Disk(
            id: disk(5), server: server(1), capacity: 10, used: 0, hasFailed: true),
        ClusterView.Disk(id: disk(6), server: server(1), capacity: .max, used: .max / 2),
        ClusterView.Disk(id: disk(7), server: server(9), capacity: 10, used: 0),
        ClusterView.Disk(id: disk(8), server: server(1), capacity: 10, used: .max),
    ]
    let view = ClusterView(servers: servers, disks: disks, sets: [])
    let found = (1...9).map { view.obstacle(disk($0)) }
    #expect(
        found == [
            nil, .isFull, .isFull, .serverIsDown, .hasFailed, nil, .unknown, .isFull, .unknown,
        ])
    #expect(view.disks.map(\.usedPercent) == [95, 95, 100, 0, 0, 49, 0, 100])
    var random = SeededRandom(seed: 8)
    let choice = PlacementPolicy.chooseMembers(goal: 2, in: view, random: &random)
    #expect(choice?.members == [disk(1), disk(6)])
}
