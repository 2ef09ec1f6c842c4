// Plans of moves: what must hold for every prefix of them, and what they do to the spread.

import Base
import Placement
import Testing

/// A cell of servers with one disk each, filled with sets by the rules of placement.
private struct ModelCell {
    var servers: [ClusterView.Server] = []
    var disks: [ClusterView.Disk] = []
    var sets: [MovableSet] = []
    var random: SeededRandom

    init(servers count: Int, seed: UInt64) {
        random = SeededRandom(seed: seed)
        grow(by: count)
    }

    /// Disks of three sizes and speeds, hosts of two servers, racks of eight hosts.
    mutating func grow(by count: Int) {
        for _ in 0..<count {
            addServer(&servers, &disks, perHost: 2, &random)
        }
    }

    var view: ClusterView { ClusterView(servers: servers, disks: disks, sets: []) }

    /// Sets of 1 to 4 GiB until the cell is that full.
    mutating func fill(toPercent percent: UInt64) {
        let capacity = disks.reduce(0) { $0 + $1.capacity }
        while disks.reduce(0, { $0 + $1.used }) < capacity / 100 * percent {
            let choice = PlacementPolicy.chooseMembers(goal: 3, in: view, random: &random)
            guard let choice else { return }
            // A thousand sets are one here, so that a cell of 200 is quick to fill.
            let bytes = UInt64(16 + random.below(48)) << 30
            for member in choice.members {
                disks[Int(member.rawValue)].used += bytes
                // What is read and written there follows what is stored.
                disks[Int(member.rawValue)].recentBytes += bytes >> 12
            }
            sets.append(
                MovableSet(
                    set: SetID(rawValue: UInt64(sets.count + 1)), epoch: Epoch(rawValue: 1),
                    members: choice.members, bytes: bytes))
        }
    }

    var spread: (low: Int, high: Int) {
        let percents = disks.map(\.usedPercent)
        return (percents.min() ?? 0, percents.max() ?? 0)
    }
    var busiest: Double {
        let loads = disks.map { Double($0.recentBytes) / Double($0.capacity) }
        let mean = loads.reduce(0, +) / Double(loads.count)
        return mean == 0 ? 1 : (loads.max() ?? 0) / mean
    }

    mutating func carryOut(_ move: ReplicaMove) {
        let index = sets.firstIndex { $0.set == move.set }!
        sets[index].members = sets[index].members.map { $0 == move.from ? move.to : $0 }.sorted()
        disks[Int(move.from.rawValue)].used -= move.bytes
        disks[Int(move.to.rawValue)].used += move.bytes
        disks[Int(move.from.rawValue)].recentBytes -= move.bytes >> 12
        disks[Int(move.to.rawValue)].recentBytes += move.bytes >> 12
    }

    func sharing(_ members: [DiskID]) -> [Int] {
        let homes = members.map { servers[Int($0.rawValue)] }
        var counts = [0, 0]
        for one in homes.indices {
            for other in homes.indices where other > one {
                counts[0] += homes[one].host == homes[other].host ? 1 : 0
                counts[1] += homes[one].rack == homes[other].rack ? 1 : 0
            }
        }
        return counts
    }
}

@Suite struct RebalanceTests {
    @Test("Placement fills cells of 4 to 200 servers evenly; a plan evens them out after growth")
    func spread() {
        for count in [4, 12, 50, 200] {
            var cell = ModelCell(servers: count, seed: UInt64(count))
            cell.fill(toPercent: 50)
            let filled = cell.spread
            let load = cell.busiest
            // Four servers are two hosts here, and each set must have a copy on both.
            #expect(filled.high - filled.low <= (count == 4 ? 30 : 20), "\(count): \(filled)")
            cell.grow(by: max(1, count / 4))
            let grown = cell.spread
            var moved: UInt64 = 0
            var rounds = 0
            while rounds < 100 {
                var planner = RebalancePlanner(view: cell.view, sets: cell.sets, threshold: 50_000)
                let moves = planner.run()
                if moves.isEmpty { break }
                for planned in moves { cell.carryOut(planned.move) }
                moved += moves.reduce(0) { $0 + $1.move.bytes }
                rounds += 1
            }
            let after = cell.spread
            print(
                "spread: \(count) servers filled to \(filled.low)-\(filled.high) %, busiest "
                    + "\(Int(load * 100)) % of the mean; grown by \(max(1, count / 4)): "
                    + "\(grown.low)-\(grown.high) %, after \(rounds) plans and \(moved >> 40) "
                    + "TiB: \(after.low)-\(after.high) %, busiest \(Int(cell.busiest * 100)) %")
            #expect(after.high - after.low <= 8, "\(count) servers: \(after)")
        }
    }

    @Test("Any prefix of a plan leaves failure domains no worse and the cell more even")
    func prefixes() {
        var moves = 0
        for seed in 1...40 as ClosedRange<UInt64> {
            var cell = ModelCell(servers: 4 + Int(seed), seed: seed)
            cell.fill(toPercent: 20 + seed)
            cell.grow(by: Int(seed % 5))
            var planner = RebalancePlanner(view: cell.view, sets: cell.sets, threshold: 20_000)
            var score = planner.scoreBefore
            for planned in planner.run() {
                let set = cell.sets.first { $0.set == planned.move.set }!
                cell.carryOut(planned.move)
                let after = cell.sets.first { $0.set == planned.move.set }!
                #expect(Set(after.members).count == set.members.count)
                let (old, new) = (cell.sharing(set.members), cell.sharing(after.members))
                #expect(new[0] <= old[0] && new[1] <= old[1])
                #expect(planned.score <= score)
                score = planned.score
                #expect(cell.disks[Int(planned.move.to.rawValue)].usedPercent <= 95)
                moves += 1
            }
        }
        #expect(moves > 100)
    }

    @Test("A plan ends at its bounds, and there is none for an even cell or one disk")
    func bounds() {
        var cell = ModelCell(servers: 12, seed: 3)
        cell.fill(toPercent: 40)
        cell.grow(by: 3)
        let bound: UInt64 = 1 << 40
        var planner = RebalancePlanner(
            view: cell.view, sets: cell.sets, threshold: 50_000, maxBytes: bound)
        let moves = planner.run()
        #expect(!moves.isEmpty && moves.reduce(0) { $0 + $1.move.bytes } <= bound)
        var even = RebalancePlanner(view: cell.view, sets: cell.sets, threshold: 1_000_000)
        #expect(even.run().isEmpty)
        let one = ModelCell(servers: 1, seed: 1)
        var alone = RebalancePlanner(view: one.view, sets: [], threshold: 10_000)
        #expect(alone.run().isEmpty && alone.scoreBefore == 0)
    }

    @Test("A server may be stopped while enough sound members are left")
    func canStop() {
        let disks = (1...4).map { DiskID(rawValue: $0) }
        let set = SetConfiguration(
            set: SetID(rawValue: 1), epoch: Epoch(rawValue: 1), primary: disks[0],
            members: Array(disks[..<3]), minMembers: 2)
        func problems(_ stopped: Set<DiskID>, unsound: DiskID? = nil) -> [StopProblem] {
            StopCheck.problems(stopping: stopped, sets: [set]) { $1 != unsound }
        }
        #expect(problems([disks[0]]).isEmpty)
        #expect(problems([disks[3]], unsound: disks[0]).isEmpty)
        let problem = StopProblem(set: set.set, left: 1, needed: 2)
        #expect(problems([disks[0], disks[1]]) == [problem])
        #expect(problems([disks[0]], unsound: disks[1]) == [problem])
    }
}
