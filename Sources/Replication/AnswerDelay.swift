// How long a disk takes until it has what it was given: one record at a time is followed; when it
// is there, and others are not, the last of them.
// Invariant: a window counts as slow if any answer in it took too long, one that is still to come
// included; a window without one ends the row of slow ones.

package import Base

/// See the head of this file.
struct AnswerDelay: Hashable, Sendable {
    private struct Followed: Hashable, Sendable {
        var number: RecordNumber
        var since: Instant
    }
    /// The record that is followed, and since when.
    private var followed: Followed?
    /// The last that it was given.
    private var last = RecordNumber.none
    private var slowest = Interval.zero
    private var windowEnd = Instant.zero
    /// Slow windows in a row.
    private(set) var slowWindows: UInt8 = 0

    /// The disk was given a record.
    mutating func began(_ number: RecordNumber, _ now: Instant) {
        turn(now)
        last = number
        if followed == nil { followed = Followed(number: number, since: now) }
    }

    /// It has everything up to this record.
    mutating func answered(through number: RecordNumber, _ now: Instant) {
        guard let past = followed, past.number <= number else { return }
        slowest = max(slowest, now - past.since)
        followed = number < last ? Followed(number: last, since: now) : nil
    }

    /// Ends the window if it is over.
    mutating func turn(_ now: Instant) {
        guard now >= windowEnd else { return }
        if let since = followed?.since { slowest = max(slowest, now - since) }
        // A process that slept does not know what happened meanwhile.
        let isWhole = now < windowEnd + Limits.slowWindow
        let isSlow = slowest > Limits.slowAnswer && isWhole
        slowWindows = isSlow ? min(slowWindows, .max - 1) + 1 : 0
        slowest = .zero
        windowEnd = now + Limits.slowWindow
    }

    /// When a window ends that may be slow.
    var deadline: Instant? { followed == nil && slowWindows == 0 ? nil : windowEnd }
}

extension SetReplica {
    /// Members that delay writes (C21).
    package var slow: [SlowMember] {
        guard isServing else { return [] }
        let own = SlowMember(disk: disk, windows: ownDelay.slowWindows)
        let others = peers.filter { !$0.isLearner }.map {
            SlowMember(disk: $0.disk, windows: $0.delay.slowWindows)
        }
        return ([own] + others).filter { $0.windows > 0 }
    }

    mutating func turnDelays() {
        ownDelay.turn(now)
        for index in peers.indices { peers[index].delay.turn(now) }
    }
}
