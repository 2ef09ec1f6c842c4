// Where chunks go in cells of mixed sizes and speeds, by what the disks report of their load.

import Base
import Placement
import Testing

/// Disks that take what placement gives them, second by second. What they can't write at once
/// waits there, and their flushes take longer by that.
private struct LoadedCell {
    /// What a client writes before it asks for a place again.
    static let chunk: UInt64 = 4 << 20
    var servers: [ClusterView.Server] = []
    var disks: [ClusterView.Disk] = []
    var sets: [ClusterView.OpenSet] = []
    /// Bytes a second.
    var speeds: [UInt64] = []
    var backlogs: [UInt64] = []
    /// Bytes that each disk was given.
    var given: [UInt64] = []
    var random: SeededRandom

    init(servers count: Int, seed: UInt64) {
        random = SeededRandom(seed: seed)
        grow(by: count)
    }

    /// Disks of three sizes and three speeds; hosts of one server, racks of eight.
    mutating func grow(by count: Int) {
        for _ in 0..<count {
            addServer(&servers, &disks, perHost: 1, &random)
            speeds.append(UInt64([100, 200, 400][random.below(3)]) << 20)
            backlogs.append(0)
            given.append(0)
        }
        // Sets on every disk, as the leader keeps them.
        for _ in 0..<count * 4 {
            guard
                let choice = PlacementPolicy.chooseMembers(goal: 3, in: view, random: &random)
            else { continue }
            sets.append(
                ClusterView.OpenSet(
                    set: SetID(rawValue: UInt64(sets.count + 1)), members: choice.members,
                    primary: choice.primary, stored: 0, recentBytes: 0))
        }
    }

    var view: ClusterView { ClusterView(servers: servers, disks: disks, sets: sets) }

    /// So many seconds in which clients write as much as `percent` of what all disks can.
    mutating func run(seconds: Int, percent: UInt64) {
        given = given.map { _ in 0 }
        for _ in 0..<seconds {
            let all = speeds.reduce(0, +)
            var count = all / 100 * percent / 3 / Self.chunk
            // Four reports a second: choices between two of them see the same load.
            var came = [UInt64](repeating: 0, count: disks.count)
            for quarter in 0..<4 as Range<UInt64> {
                let view = view
                let share = count / (4 - quarter)
                count -= share
                for _ in 0..<share {
                    let choice = PlacementPolicy.chooseSet(for: 3, in: view, random: &random)
                    guard let choice else { continue }
                    // Sets are numbered from 1.
                    for member in sets[Int(choice.set.rawValue) - 1].members {
                        came[Int(member.rawValue)] += Self.chunk
                        backlogs[Int(member.rawValue)] += Self.chunk
                    }
                }
                for index in disks.indices { serve(index) }
            }
            for index in disks.indices {
                given[index] += came[index]
                disks[index].recentBytes = came[index]
            }
        }
    }

    /// A quarter of a second of one disk.
    private mutating func serve(_ index: Int) {
        let speed = speeds[index]
        let waiting = backlogs[index] * 1_000_000 / speed
        // As chunk servers average: quickly up, slowly down.
        let flush = UInt64(disks[index].flushTime)
        disks[index].flushTime = UInt32(
            waiting > flush ? (flush + waiting) / 2 : (flush * 15 + waiting) / 16)
        disks[index].queue = UInt32(backlogs[index] / UInt64(Limits.frameData))
        let done = min(backlogs[index], speed / 4)
        backlogs[index] -= done
        disks[index].used += done
    }

    /// The busiest and the laziest disk, in percent of what each can do.
    func utilization(seconds: Int) -> (low: UInt64, high: UInt64) {
        let shares = disks.indices.map {
            given[$0] * 100 / (speeds[$0] * UInt64(seconds))
        }
        return (shares.min() ?? 0, shares.max() ?? 0)
    }
    var use: (low: UInt64, high: UInt64) {
        // In hundredths of a percent: a run fills a small part of a disk.
        let shares = disks.map { $0.used * 10_000 / $0.capacity }
        return (shares.min() ?? 0, shares.max() ?? 0)
    }
    /// What one disk got, in percent of an even share.
    func share(of index: Int) -> UInt64 {
        let all = given.reduce(0, +)
        return all == 0 ? 0 : given[index] * UInt64(disks.count) * 100 / all
    }
}

@Suite struct LoadTests {
    @Test("Load follows speed in cells of 4 to 200 servers, also after more are added")
    func spread() {
        for count in [4, 12, 50, 200] {
            var cell = LoadedCell(servers: count, seed: UInt64(count))
            cell.run(seconds: 60, percent: 50)
            let before = cell.utilization(seconds: 60)
            cell.grow(by: max(1, count / 4))
            cell.run(seconds: 60, percent: 50)
            let after = cell.utilization(seconds: 60)
            print(
                "load: \(count) servers, half of what they can do: each disk at "
                    + "\(before.low)-\(before.high) % of its speed, \(cell.use.low)-"
                    + "\(cell.use.high) of 10,000 used; grown by \(max(1, count / 4)): "
                    + "\(after.low)-\(after.high) %")
            #expect(before.high <= 105, "\(count): \(before)")
            #expect(after.high <= 105, "\(count): \(after)")
        }
    }

    @Test("New chunks go elsewhere when one disk becomes slow, and come back when it is quick")
    func slowDisk() {
        for count in [4, 12, 50] {
            var cell = LoadedCell(servers: count, seed: UInt64(count) + 7)
            cell.speeds = cell.speeds.map { _ in 200 << 20 }
            cell.run(seconds: 30, percent: 30)
            let usual = cell.share(of: 0)
            cell.speeds[0] = 5 << 20
            cell.run(seconds: 60, percent: 30)
            let slow = cell.share(of: 0)
            cell.speeds[0] = 200 << 20
            cell.run(seconds: 120, percent: 30)
            cell.run(seconds: 30, percent: 30)
            let again = cell.share(of: 0)
            print(
                "slow: \(count) servers, one at 5 instead of 200 MiB/s: it gets \(usual) % of "
                    + "an even share before, \(slow) % then, \(again) % when it is quick again")
            #expect(slow * 4 < usual, "\(count): \(usual) \(slow)")
            #expect(again * 2 > usual, "\(count): \(usual) \(again)")
        }
    }
}
