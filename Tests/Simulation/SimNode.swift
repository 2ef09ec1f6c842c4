// A server process of the simulation: a core, its disk, its clock, and what waits for it.

package import Base
package import Node
import Store
import Wire

/// A machine's clocks: they start anywhere and run at their own rate.
package struct SimClock: Sendable {
    /// Of CLOCK_BOOTTIME at virtual time 0.
    package var offset: Interval
    /// Faster than virtual time by so many millionths.
    package var drift: Int64
    /// The wall clock, of CLOCK_BOOTTIME.
    package var wall: Timestamp

    /// A machine's clocks, drawn; drift at most so many millionths, and that much in most of them.
    /// Twice as fast, or half as fast, where the bound is a million.
    package init(random: inout SeededRandom, drift bound: Int) {
        offset = .seconds(Int64(random.below(100_000)))
        let most = [-min(bound, 500_000), bound][random.below(2)]
        drift = Int64(random.chance(2, of: 3) ? most : random.below(2 * bound + 1) - bound)
        if drift < -500_000 { drift = 0 }
        let jump = Interval.seconds(Int64(random.below(7_200) - 3_600))
        wall = Timestamp(nanoseconds: 1_700_000_000_000_000_000) + jump
    }
    /// What the clocks show.
    package func time(at virtual: Instant) -> NodeTime {
        let elapsed = elapsed(at: virtual)
        let now = Instant(nanoseconds: offset.nanoseconds + elapsed)
        return NodeTime(now: now, wall: wall + Interval(nanoseconds: elapsed))
    }
    private func elapsed(at virtual: Instant) -> Int64 {
        let (whole, rest) = virtual.nanoseconds.quotientAndRemainder(dividingBy: 1_000_000)
        return virtual.nanoseconds + whole * drift + rest * drift / 1_000_000
    }
    /// From now on it runs as virtual time does.
    mutating func mend(at virtual: Instant) {
        let gained = Interval(nanoseconds: elapsed(at: virtual) - virtual.nanoseconds)
        offset = Interval(nanoseconds: offset.nanoseconds + gained.nanoseconds)
        wall = wall + gained
        drift = 0
    }
    /// The virtual time at which CLOCK_BOOTTIME shows `local`, or a little later.
    func virtual(_ local: Instant) -> Instant {
        let elapsed = max(0, min(local.nanoseconds - offset.nanoseconds, 1 << 50))
        let (whole, rest) = elapsed.quotientAndRemainder(dividingBy: 1_000_000 + drift)
        let exact = whole * 1_000_000 + rest * 1_000_000 / (1_000_000 + drift)
        return Instant(nanoseconds: exact + 1_000)
    }
}

/// How long disk operations take. Changes of one file take effect in order.
package struct DiskTiming {
    /// Of one operation, at least.
    package var least = Interval.microseconds(40)
    /// A slow spell: everything takes so many times as long.
    package var slowness: Int64 = 1
    /// What the device reads or writes in a second, one after the other; nil: any amount.
    package var bytesPerSecond: Int64?
    private var busyUntil = Instant.zero
    private var latest: [DiskFile: Instant] = [:]
    private var barrier: [DiskFile: Instant] = [:]

    mutating func restart() {
        latest = [:]
        barrier = [:]
        busyUntil = .zero
    }

    mutating func completion(
        of effect: DiskEffect, at now: Instant, random: inout SeededRandom
    ) -> Instant {
        let spread = Int(least.nanoseconds) << (random.chance(1, of: 30) ? 5 : 1)
        let taken = (least.nanoseconds + Int64(random.below(spread))) * slowness
        if let rate = bytesPerSecond {
            let bytes = Int64(effect.bytes)
            busyUntil = max(busyUntil, now) + Interval(nanoseconds: bytes * 1_000_000_000 / rate)
        }
        let time = max(now, busyUntil) + Interval(nanoseconds: taken)
        switch effect {
        case .read(_, let file, _, _): return max(time, barrier[file] ?? .zero)
        case .write(_, let file, _, _, false):
            let done = max(time, barrier[file] ?? .zero)
            latest[file] = max(done, latest[file] ?? .zero)
            return done
        case .write(_, let file, _, _, true), .sync(_, let file), .create(_, let file, _),
            .remove(_, let file):
            let done = max(time, latest[file] ?? .zero) + Interval(nanoseconds: 1)
            latest[file] = done
            if case .create = effect { barrier[file] = done }
            return done
        }
    }
}

extension DiskEffect {
    /// Bytes that the device has to move.
    fileprivate var bytes: Int {
        switch self {
        case .write(_, _, _, let pieces, _): pieces.reduce(0) { $0 + $1.count }
        case .read(_, _, _, let length): length
        default: 0
        }
    }
}

/// One server.
package final class SimNode {
    package let place: Int
    package let name: String
    /// What others call it.
    package let peer: Peer
    package var disk: SimDisk
    package var timing = DiskTiming()
    package var clock: SimClock
    /// Its process; nil while it is down.
    package fileprivate(set) var core: (any NodeCore)?
    /// Raised at every start and end of its process.
    package internal(set) var run: UInt32 = 0
    package internal(set) var isPaused = false
    /// Die after so many effects of the next step that has any; power is lost with it.
    package var crashesAfter: Int?
    package var crashLosesPower = false
    package internal(set) var alarms = 0
    var inbox: [NodeEvent] = []
    var isStepPlanned = false
    var plannedWake: Instant?
    var random: SeededRandom
    private let make: (SimNode) -> any NodeCore

    /// A server that was never started, on an empty disk. `make` gives a new core for each start.
    package init(
        place: Int, name: String, peer: Peer, capacity: UInt64, drift: Int,
        random: inout SeededRandom, make: @escaping (SimNode) -> any NodeCore
    ) {
        self.place = place
        self.name = name
        self.peer = peer
        self.make = make
        disk = SimDisk(capacity: capacity, random: random.fork())
        self.random = random.fork()
        clock = SimClock(random: &self.random, drift: drift)
    }

    package var isUp: Bool { core != nil }

    func begin() {
        core = make(self)
        inbox = []
        isStepPlanned = false
        isPaused = false
        plannedWake = nil
        crashesAfter = nil
        timing.restart()
    }
    func end() {
        core = nil
        inbox = []
    }
    /// A core as a new process would have it, for a start on a copy of the disk.
    package func makeCore() -> any NodeCore { make(self) }

    /// Steps the core; what it was is what it is afterwards.
    func step(_ events: [NodeEvent], at time: NodeTime) -> [NodeEffect] {
        core!.step(events, at: time)
    }
}
