// How busy a disk is, for the leader's placement: averages that follow slowly and fade slowly, so
// that a disk which gets less because it is slow does not look quick at once.

import Base
import Store

/// An append that is followed until it is durable; one at a time.
struct FollowedAppend: Sendable {
    private var followed: (place: LogNumber, since: Instant)?

    /// Since when there is one.
    var since: Instant? { followed?.since }

    /// Something was appended there.
    mutating func appended(at place: LogNumber, _ now: Instant) {
        if followed == nil { followed = (place, now) }
    }
    /// Everything up to there is durable: how long that took, if the append is part of it.
    mutating func durable(through place: LogNumber, _ now: Instant) -> Interval? {
        guard let (last, since) = followed, last <= place else { return nil }
        followed = nil
        return now - since
    }
}

/// See the head of this file.
struct DiskLoad: Sendable {
    private var append = FollowedAppend()
    /// In microseconds, times 16.
    private var flush: UInt64 = 0
    /// Times 16.
    private var queue: UInt64 = 0
    private var sampledAt = Instant.zero

    /// Something was appended there.
    mutating func appended(at place: LogNumber, _ now: Instant) {
        append.appended(at: place, now)
    }
    /// Everything up to there is durable.
    mutating func durable(through place: LogNumber, _ now: Instant) {
        guard let time = append.durable(through: place, now) else { return }
        let micros = UInt64(max(0, time.nanoseconds / 1_000)) * 16
        flush = flush == 0 ? micros : (flush * 15 + micros) / 16
    }

    /// Before a report: how many requests wait, and what is overdue.
    mutating func sample(waiting: Int, _ now: Instant) {
        queue = (queue * 7 + UInt64(waiting) * 16) / 8
        if let since = append.since {
            let micros = UInt64(max(0, (now - since).nanoseconds / 1_000)) * 16
            flush = max(flush, micros)
        } else if now - sampledAt >= .seconds(1) {
            sampledAt = now
            // Half of it in about ten seconds without anything new.
            flush -= flush / 16
        }
    }

    /// In microseconds.
    var flushTime: UInt32 { UInt32(min(flush / 16, UInt64(UInt32.max))) }
    /// Requests.
    var waiting: UInt32 { UInt32(min(queue / 16, UInt64(UInt32.max))) }
}
