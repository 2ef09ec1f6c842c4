// Time as a value that is passed in: nothing here reads a clock (D1, S1).

/// A length of time in nanoseconds.
package struct Interval: Hashable, Comparable, Sendable {
    /// Nanoseconds; may be negative.
    package var nanoseconds: Int64
    /// Makes a length of so many nanoseconds.
    package init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }
    /// So many microseconds.
    package static func microseconds(_ count: Int64) -> Interval {
        Interval(nanoseconds: count * 1_000)
    }
    /// So many milliseconds.
    package static func milliseconds(_ count: Int64) -> Interval {
        Interval(nanoseconds: count * 1_000_000)
    }
    /// So many seconds.
    package static func seconds(_ count: Int64) -> Interval {
        Interval(nanoseconds: count * 1_000_000_000)
    }
    /// Nothing.
    package static let zero = Interval(nanoseconds: 0)
    /// Shorter first.
    package static func < (left: Interval, right: Interval) -> Bool {
        left.nanoseconds < right.nanoseconds
    }
    /// The sum.
    package static func + (left: Interval, right: Interval) -> Interval {
        Interval(nanoseconds: left.nanoseconds + right.nanoseconds)
    }
    /// So many times as long.
    package static func * (left: Interval, right: Int64) -> Interval {
        Interval(nanoseconds: left.nanoseconds * right)
    }
    /// One part of so many.
    package static func / (left: Interval, right: Int64) -> Interval {
        Interval(nanoseconds: left.nanoseconds / right)
    }
    /// The length in seconds, for people and JSON only (T3).
    package var seconds: Double { Double(nanoseconds) / 1e9 }
}

/// A point on a machine's CLOCK_BOOTTIME, or of the simulator's virtual time.
package struct Instant: Hashable, Comparable, Sendable {
    /// Nanoseconds since the clock's own start.
    package var nanoseconds: Int64
    /// The point so many nanoseconds after the clock's start.
    package init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }
    /// The clock's start.
    package static let zero = Instant(nanoseconds: 0)
    /// Earlier first.
    package static func < (left: Instant, right: Instant) -> Bool {
        left.nanoseconds < right.nanoseconds
    }
    /// Later by an interval.
    package static func + (left: Instant, right: Interval) -> Instant {
        Instant(nanoseconds: left.nanoseconds + right.nanoseconds)
    }
    /// The time from `right` to `left`.
    package static func - (left: Instant, right: Instant) -> Interval {
        Interval(nanoseconds: left.nanoseconds - right.nanoseconds)
    }
}

/// Wall-clock time of files: nanoseconds since 1970, UTC. It comes from the leader in each
/// command (M14) and never decides anything.
package struct Timestamp: Hashable, Comparable, Sendable {
    /// Nanoseconds since 1970-01-01T00:00:00Z; negative before.
    package var nanoseconds: Int64
    /// The time so many nanoseconds after 1970.
    package init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }
    /// 1970-01-01T00:00:00Z
    package static let zero = Timestamp(nanoseconds: 0)
    /// Earlier first.
    package static func < (left: Timestamp, right: Timestamp) -> Bool {
        left.nanoseconds < right.nanoseconds
    }
    /// Later by an interval.
    package static func + (left: Timestamp, right: Interval) -> Timestamp {
        Timestamp(nanoseconds: left.nanoseconds + right.nanoseconds)
    }
    /// The time from `right` to `left`.
    package static func - (left: Timestamp, right: Timestamp) -> Interval {
        Interval(nanoseconds: left.nanoseconds - right.nanoseconds)
    }
}
