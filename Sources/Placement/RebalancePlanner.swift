// Which copies should go where so that all disks are equally full. Greedy: the fullest disk gives
// the copy that fits best to the emptiest disk that may take it, until the spread is small.
//
// Invariants:
//  1. Every move lessens the unevenness of the disks, as they are after the moves before it.
//  2. A set is moved once, and its members are as well separated after as before: so any prefix
//     of a plan leaves redundancy and failure domains no worse (C19).
//  3. Nothing goes to a disk with an obstacle, or above the share that is kept free (C20).

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
    /// Of the disk that gives and the one that gets, before the move; in hundredths of a percent.
    package var fullness: (from: Int, to: Int) { (fromUsed, toUsed) }
    private let fromUsed: Int
    private let toUsed: Int
    /// The unevenness after the move.
    package var score: Double

    init(_ move: ReplicaMove, from: Double, to: Double, score: Double) {
        self.move = move
        fromUsed = Int(from * 10_000)
        toUsed = Int(to * 10_000)
        self.score = score
    }
}

/// The planner; a plan is made by `run` and does nothing by itself.
package struct RebalancePlanner {
    private struct Place {
        var disk: ClusterView.Disk
        var server: ClusterView.Server
        /// As it would be after the moves so far.
        var used: UInt64
        var fraction: Double { disk.capacity == 0 ? 1 : Double(used) / Double(disk.capacity) }
    }
    private let view: ClusterView
    private let threshold: Double
    private let maxBytes: UInt64
    private var places: [Place]
    private var left: [MovableSet]

    /// The unevenness as it is now: the standard deviation of how full the disks are, in percent.
    package let scoreBefore: Double

    /// `threshold`: in percent; a plan ends when no two disks differ by more. `maxBytes`: of all
    /// moves together.
    package init(
        view: ClusterView, sets: [MovableSet], threshold: Double, maxBytes: UInt64 = .max
    ) {
        self.view = view
        self.threshold = threshold / 100
        self.maxBytes = maxBytes
        left = sets.filter { $0.bytes > 0 }
        places = view.disks.compactMap { disk in
            guard let server = view.server(disk.server), disk.capacity > 0,
                view.obstacle(disk, server).map({ $0 == .isFull }) ?? true
            else { return nil }
            return Place(disk: disk, server: server, used: disk.used)
        }
        scoreBefore = Self.score(places)
    }

    private static func score(_ places: [Place]) -> Double {
        guard !places.isEmpty else { return 0 }
        let mean = places.reduce(0) { $0 + $1.fraction } / Double(places.count)
        let sum = places.reduce(0) { $0 + ($1.fraction - mean) * ($1.fraction - mean) }
        return (sum / Double(places.count)).squareRoot() * 100
    }

    /// The moves, in the order in which they should be made.
    package mutating func run() -> [PlannedMove] {
        var moves: [PlannedMove] = []
        var bytes: UInt64 = 0
        while moves.count < Limits.rebalanceMoves, let (index, from, to) = next(bytes) {
            let set = left.remove(at: index)
            let before = (places[from].fraction, places[to].fraction)
            places = moving(set.bytes, from, to)
            bytes += set.bytes
            let move = ReplicaMove(
                set: set.set, epoch: set.epoch, from: places[from].disk.id,
                to: places[to].disk.id, bytes: set.bytes)
            moves.append(
                PlannedMove(
                    move, from: before.0, to: before.1, score: Self.score(places)))
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
        let score = Self.score(places)
        let byFullness = places.indices.sorted {
            (places[$0].fraction, places[$0].disk.id) > (places[$1].fraction, places[$1].disk.id)
        }
        for from in byFullness {
            for to in byFullness.reversed() {
                let gap = places[from].fraction - places[to].fraction
                guard gap > threshold, gap > 0 else { break }
                guard let set = bestSet(from, to, planned) else { continue }
                if Self.score(moving(left[set].bytes, from, to)) < score {
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
        let share = 1 / Double(giver.disk.capacity) + 1 / Double(taker.disk.capacity)
        let ideal = (giver.fraction - taker.fraction) / share
        let room =
            UInt128(taker.disk.capacity) * UInt128(100 - Limits.reservePercent) / 100
        var best: (index: Int, miss: Double)?
        for (index, set) in left.enumerated() where set.members.contains(giver.disk.id) {
            guard !set.members.contains(taker.disk.id), Double(set.bytes) < ideal * 2,
                planned + set.bytes <= maxBytes,
                UInt128(taker.used) + UInt128(set.bytes) <= room
            else { continue }
            let miss = abs(Double(set.bytes) - ideal)
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
                counts.servers += one.id == other.id ? 1 : 0
                counts.hosts += one.host == other.host ? 1 : 0
                counts.racks += one.rack == other.rack ? 1 : 0
            }
        }
        return counts
    }
}
