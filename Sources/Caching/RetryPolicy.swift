// When to try again: doubling pauses up to a bound, and no longer than the caller's patience (S7).

package import Base

/// The pauses between the tries of one request.
package struct RetryPolicy: Hashable, Sendable {
    /// When the caller gives up; nil never (hard mount).
    package let deadline: Instant?
    private var pause = Limits.retryFirst

    /// Starts with the shortest pause.
    package init(deadline: Instant?) { self.deadline = deadline }

    /// How long to wait before the next try; nil when the deadline has passed. The pause never
    /// goes beyond the deadline, so there is one last try at it.
    package mutating func next(now: Instant) -> Interval? {
        guard let deadline else { return grow() }
        guard now < deadline else { return nil }
        return min(grow(), deadline - now)
    }
    /// Begins with the shortest pause again, after something got better.
    package mutating func reset() { pause = Limits.retryFirst }

    private mutating func grow() -> Interval {
        defer { pause = min(pause * 2, Limits.retryLast) }
        return pause
    }
}
