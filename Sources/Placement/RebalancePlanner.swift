// Which copies should go where so that all disks are equally full. Greedy: the fullest disk gives
// the copy that fits best to the emptiest disk that may take it, until the spread is small.
//
// Invariants:
//  1. Every move lessens the unevenness of the disks, as they are after the moves before it.
//  2. A set is moved once, and its members are as well separated after as before: so any prefix
//     of a plan leaves redundancy and failure domains no worse (C19).
//  3. Nothing goes to a disk with an obstacle, or above the share that is kept free (C20).
//
// Fullness is counted in millionths of a disk, so that it is the same on every machine (T3).

package import Base

/// A set that may be moved.
package struct MovableSet: Hashable, Sendable {
    package var set: SetID
    package var epoch: Epoch
    package var members: [DiskID]
    /// Stored bytes of one copy.
    package var bytes: UInt64

    /// All fields at once.
    package init(set: SetID, epoch: Epoch, members: [DiskID], bytes: UInt64) {
        self.set = set
        self.epoch = epoch
        self.members = members
        self.bytes = bytes
    }
}

/// A move with the reason for it.
package struct PlannedMove: Hashable, Sendable {
    package var move: ReplicaMove
    /// How full the disk that gives is before the move, in millionths.
    package var fromUsed: Int
    /// How full the one that gets is before the move, in millionths.
    package var toUsed: Int
    /// The unevenness after the move, in millionths.
    package var score: Int
}

/// The planner; a plan is made by `run` and does nothing by itself.
package struct RebalancePlanner {
    private struct Place {
        var disk: ClusterView.Disk
        var server: ClusterView.Server
        /// As it would be after the moves so far.
        var used: UInt64
        /// In millionths; capacities are never 0 here.
        var fullness: Int { Int(UInt128(used) * 1_000_000 / UInt128(disk.capacity)) }
    }
    private let view: ClusterView
    private let threshold: Int
    private let maxBytes: UInt64
    private var places: [Place]
    private var left: [MovableSet]

    /// The unevenness as it is now: the standard deviation of how full the disks are, in
    /// millionths.
    package let scoreBefore: Int

    /// `threshold`: in millionths; a plan ends when no two disks differ by more. `maxBytes`: of all
    /// moves together.
    package init(
        view: ClusterView, sets: [MovableSet], threshold: Int, maxBytes: UInt64 = .max
    ) {
        self.view = view
        self.threshold = threshold
        self.maxBytes = maxBytes
        left = sets.filter { $0.bytes > 0 }
        places = view.disks.compactMap { disk in
            guard let server = view.server(disk.server), disk.capacity > 0,
                view.obstacle(disk, server).map({ $0 == .isFull }) ?? true
            else { return nil }
            return Place(disk: disk, server: server, used: disk.used)
        }
        scoreBefore = Self.root(Self.variance(places))
    }

    private static func variance(_ places: [Place]) -> Int {
        guard !places.isEmpty else { return 0 }
        let mean = places.reduce(0) { $0 + $1.fullness } / places.count
        let squares = places.reduce(0) { sum, place in
            sum + (place.fullness - mean) * (place.fullness - mean)
        }
        return squares / places.count
    }
    /// The square root, rounded down, by Newton's method.
    private static func root(_ number: Int) -> Int {
        var guess = number
        while guess > 1 {
            let next = (guess + number / guess) / 2
            if next >= guess { break }
            guess = next
        }
        return guess
    }

    /// The moves, in the order in which they should be made.
    package mutating func run() -> [PlannedMove] {
        var moves: [PlannedMove] = []
        var bytes: UInt64 = 0
        while moves.count < Limits.rebalanceMoves, let (index, from, to) = next(bytes) {
            let set = left.remove(at: index)
            let (fromUsed, toUsed) = (places[from].fullness, places[to].fullness)
            places = moving(set.bytes, from, to)
            bytes += set.bytes
            let move = ReplicaMove(
                set: set.set, epoch: set.epoch, from: places[from].disk.id,
                to: places[to].disk.id, bytes: set.bytes)
            moves.append(
                PlannedMove(
                    move: move, fromUsed: fromUsed, toUsed: toUsed,
                    score: Self.root(Self.variance(places))))
        }
        return moves
    }

    private func moving(_ bytes: UInt64, _ from: Int, _ to: Int) -> [Place] {
        var places = places
        places[from].used -= min(places[from].used, bytes)
        places[to].used += bytes
        return places
    }

    /// The best next move: from the fullest disk that can give to the emptiest that can take.
    private func next(_ planned: UInt64) -> (set: Int, from: Int, to: Int)? {
        let variance = Self.variance(places)
        let byFullness = places.indices.sorted {
            (places[$0].fullness, places[$0].disk.id) > (places[$1].fullness, places[$1].disk.id)
        }
        for from in byFullness {
            for to in byFullness.reversed() {
                let gap = places[from].fullness - places[to].fullness
                guard gap > threshold, gap > 0 else { break }
                guard let set = bestSet(from, to, planned) else { continue }
                if Self.variance(moving(left[set].bytes, from, to)) < variance {
                    return (set, from, to)
                }
            }
        }
        return nil
    }

    /// The set whose move comes closest to making two disks equally full, without making the one
    /// that gets it the fuller one.
    private func bestSet(_ from: Int, _ to: Int, _ planned: UInt64) -> Int? {
        let (giver, taker) = (places[from], places[to])
        let capacities = (UInt128(giver.disk.capacity), UInt128(taker.disk.capacity))
        let ideal = UInt64(
            UInt128(giver.fullness - taker.fullness) * capacities.0 * capacities.1
                / (capacities.0 + capacities.1) / 1_000_000)
        let room =
            UInt128(taker.disk.capacity) * UInt128(100 - Limits.reservePercent) / 100
        var best: (index: Int, miss: UInt64)?
        for (index, set) in left.enumerated() where set.members.contains(giver.disk.id) {
            guard !set.members.contains(taker.disk.id), set.bytes < ideal * 2,
                planned + set.bytes <= maxBytes,
                UInt128(taker.used) + UInt128(set.bytes) <= room
            else { continue }
            let miss = max(set.bytes, ideal) - min(set.bytes, ideal)
            if let best, best.miss <= miss { continue }
            if keepsDomains(set, giver.disk.id, taker.disk.id) { best = (index, miss) }
        }
        return best?.index
    }

    private func keepsDomains(_ set: MovableSet, _ from: DiskID, _ to: DiskID) -> Bool {
        let after = set.members.map { $0 == from ? to : $0 }
        let (old, new) = (shared(set.members), shared(after))
        return new.servers <= old.servers && new.hosts <= old.hosts && new.racks <= old.racks
    }

    /// How many pairs of members share a server, a host, a rack.
    private func shared(_ members: [DiskID]) -> (servers: Int, hosts: Int, racks: Int) {
        let homes = members.compactMap { view.disk($0).flatMap { view.server($0.server) } }
        var counts = (servers: 0, hosts: 0, racks: 0)
        for (index, one) in homes.enumerated() {
            for other in homes[(index + 1)...] {
                counts.servers += one.id.unit == other.id.unit ? 1 : 0
                counts.hosts += one.host == other.host ? 1 : 0
                counts.racks += one.rack == other.rack ? 1 : 0
            }
        }
        return counts
    }
}
