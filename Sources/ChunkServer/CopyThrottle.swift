// How fast a disk copies to learners (C19): as fast as its clients let it, and those of the disks
// that learn. What they ask of a disk is timed, and the slowest hundredth in a window tells.
//
//   in a window                                    the rate
//   requests took too much longer than usual,      falls by an eighth; the disk is strained,
//   or a learner says that it is strained          which it says where it learns
//   they did not                                   grows by an eighth, if it was used
//   nobody asked for anything                      is doubled, below what was too fast before
//
// While copies to and from it are made at no more than the least rate, or none, what requests take
// is what is usual, and the disk is not strained.
//
// Invariant: it stays from `copyRateLeast` to `copyRateMost`: copies always go on.

package import Base

/// How long requests took, in classes of an eighth of a power of two of microseconds.
struct RequestTimes: Sendable {
    private static let perDoubling = 8
    private static let classes = 32 * perDoubling
    private var counts = [UInt32](repeating: 0, count: classes)
    private(set) var count = 0

    mutating func add(_ time: Interval) {
        counts[Self.place(time)] += 1
        count += 1
    }

    private static func place(_ time: Interval) -> Int {
        let micros = UInt64(max(1, time.nanoseconds / 1_000))
        let power = UInt64.bitWidth - 1 - micros.leadingZeroBitCount
        // The three bits after the first one.
        let rest = power >= 3 ? micros >> UInt64(power - 3) : micros << UInt64(3 - power)
        return min(classes - 1, power * perDoubling + Int(rest & 7))
    }

    /// The time that all but a hundredth stayed within, a little rounded up; nil without any.
    var slowest: Interval? {
        guard count > 0 else { return nil }
        var left = count / 100
        for index in counts.indices.reversed() where counts[index] > 0 {
            if left < Int(counts[index]) { return Self.top(of: index) }
            left -= Int(counts[index])
        }
        return nil
    }

    private static func top(of place: Int) -> Interval {
        let (power, rest) = (place / perDoubling, place % perDoubling)
        return .microseconds((Int64(1) << Int64(power)) * Int64(perDoubling + rest + 1) / 8)
    }
}

/// See the head of this file.
package struct CopyThrottle: Sendable {
    /// Bytes a second.
    package private(set) var rate = Limits.copyRateFirst
    /// Bytes that may be copied now; below zero after a large record.
    package private(set) var budget = 0
    private var filledAt = Instant.zero
    private var times = RequestTimes()
    /// The slowest hundredth while hardly anything is copied.
    package private(set) var usual: Interval?
    /// Bytes of this window to learners, and as one.
    private var sent = 0
    private var received = 0
    private var windowEnd = Instant.zero
    /// The rate when clients last waited for too long, since something is copied.
    private var tooFast: UInt64?
    /// A learner said so in this window.
    private var isLearnerStrained = false
    /// In the last window, what was copied slowed its clients down.
    package private(set) var isStrained = false
    /// For clients.
    private var append = FollowedAppend()

    /// A throttle at its first rate.
    package init() {}

    /// A client's request was answered.
    package mutating func note(_ time: Interval) { times.add(time) }

    /// Something was appended for clients, as a backup, which has no requests of its own.
    package mutating func appended(at place: LogNumber, _ now: Instant) {
        append.appended(at: place, now)
    }
    /// Everything up to there is durable.
    package mutating func durable(through place: LogNumber, _ now: Instant) {
        if let time = append.durable(through: place, now) { times.add(time) }
    }

    /// So many bytes came as to a learner.
    package mutating func receive(_ bytes: Int) { received += bytes }
    /// A learner of this disk is strained.
    package mutating func noteStrain() { isLearnerStrained = true }

    /// So many bytes went to learners; less than none where the writers gave some.
    package mutating func spend(_ bytes: Int) {
        budget -= bytes
        sent += max(0, bytes)
    }

    /// When there is budget again, for one who found none.
    package var refillTime: Instant { filledAt + Self.pause }
    private static let pause = Interval.milliseconds(5)

    /// Takes the time that has passed into account.
    package mutating func turn(_ now: Instant) {
        if now >= windowEnd { endWindow(now) }
        let elapsed = now - filledAt
        guard elapsed >= Self.pause else { return }
        filledAt = now
        let most = Int(rate / 16)
        let more = UInt128(min(elapsed.nanoseconds, 1_000_000_000)) * UInt128(rate)
        budget = min(max(most, budget), budget + Int(more / 1_000_000_000))
    }

    private mutating func endWindow(_ now: Instant) {
        defer {
            times = RequestTimes()
            (sent, received) = (0, 0)
            isLearnerStrained = false
            windowEnd = now + Limits.copyWindow
        }
        let slowest = times.slowest
        let isLittle = sent <= Self.little && received <= Self.little * Limits.fillsPerDisk
        if isLittle, let slowest { usual = ((usual ?? slowest) * 3 + slowest) / 4 }
        let isTooSlow = isTooSlow(slowest)
        isStrained = isTooSlow && !isLittle
        if sent == 0 {
            tooFast = nil
        } else if isStrained || isLearnerStrained {
            tooFast = rate
            rate = max(rate - rate / 8, Limits.copyRateLeast)
        } else if !isTooSlow, sent > Self.window(at: rate) / 2 {
            // Well beyond it, whoever waited then does not any more.
            if let known = tooFast, rate > known * 2 { tooFast = nil }
            let isFree = slowest == nil && rate * 2 < tooFast ?? .max
            rate = min(isFree ? rate * 2 : rate + rate / 8, Limits.copyRateMost)
        }
    }

    /// Bytes of a window at a rate.
    private static func window(at rate: UInt64) -> Int {
        Int(rate) / 1_000 * Int(Limits.copyWindow.nanoseconds / 1_000_000)
    }
    /// What one gives in a window at the least rate, and a little more: while nobody gives more,
    /// whatever requests take is usual.
    private static let little = window(at: Limits.copyRateLeast) * 5 / 4

    private func isTooSlow(_ slowest: Interval?) -> Bool {
        guard let slowest else { return false }
        return slowest > max(usual ?? .zero, Limits.quickRequest) * Limits.copySlowdown
    }
}
