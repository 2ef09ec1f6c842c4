// When the scrub of a disk reads, and how much (C18).
//
//   resting -> running (a pass: every segment in the order of its generation; then the copies of
//   the sets of which this disk is the primary are compared, set by set) -> resting
//   paused: by order of an operator; a pass goes on where it was
//
// Invariants:
//  1. A pass takes seven eighths of the period, or as long as the bound of bytes/s makes it.
//  2. One read is on its way at a time; it waits for the disk's other work, but not for ever.
//  3. What is written after a pass began is left to the next one.

package import Base

/// How the scrub of a disk is paced.
package struct ScrubConfiguration: Hashable, Sendable {
    /// Within it everything at rest is read once.
    package var period: Interval
    /// Bytes that are read in a second, at most; at least 1.
    package var bytesPerSecond: UInt64

    /// Both fields at once.
    package init(
        period: Interval = Limits.scrubPeriod, bytesPerSecond: UInt64 = Limits.scrubRate
    ) {
        precondition(period > .zero && bytesPerSecond > 0, "a scrub without pace")
        self.period = period
        self.bytesPerSecond = bytesPerSecond
    }
    /// Between the beginnings of two passes.
    var spacing: Interval { Interval(nanoseconds: period.nanoseconds / 8 * 7) }
}

/// A record that is to be verified, as the index has it.
struct ScrubItem: Sendable {
    var set: SetID
    /// Of a write.
    var chunk: ChunkID?
    var block: Int
    var item: ReadItem

    var damagedPlace: DamagedPlace? {
        chunk.map { DamagedPlace(chunk: $0, block: UInt16(block)) }
    }
}

/// See the head of this file.
struct Scrubber: Sendable {
    /// One disk read, and what it verifies.
    struct Part: Sendable {
        var operation: DiskOperation
        var offset: Int
        var items: ArraySlice<ScrubItem>
    }
    /// So long a due read waits for the disk's other work.
    static let patience = Interval.milliseconds(100)
    /// Progress is logged this often, at the most.
    static let savePause = Interval.seconds(1)

    let configuration: ScrubConfiguration
    var progress = ScrubProgress()
    /// The segment that is being verified, and what of it is still to be read, by offset.
    var segment: LogSegment?
    var items: ArraySlice<ScrubItem> = []
    /// Looks for what is in the segment.
    var scan: SegmentScan?
    var part: Part?
    /// When the next read is due; nil until it is planned.
    var due: Instant?
    /// `progress` differs from what the log says.
    var isUnsaved = false
    var savedAt: Instant?

    init(_ configuration: ScrubConfiguration) { self.configuration = configuration }

    /// Plans the next pass, by the wall clock since the last one; a clock that jumped makes it
    /// wait no longer than one period.
    mutating func plan(_ now: Instant, _ wall: Timestamp) {
        if progress.isRunning || progress.isUrgent {
            due = now
        } else {
            let wait = progress.began + configuration.spacing - wall
            due = now + max(.zero, min(wait, configuration.spacing))
        }
    }

    /// Takes an order; one that is older than the last is the word of a master that lost it.
    mutating func obey(_ order: ScrubOrder, _ now: Instant) {
        guard order != progress.order, order.run >= progress.order.run else { return }
        if order.run > progress.order.run {
            progress.isRunning = false
            progress.isComparing = false
            progress.isUrgent = true
            items = []
            scan = nil
            segment = nil
            due = now
        }
        progress.order = order
        isUnsaved = true
    }

    /// Whether the next read is to go out.
    func isDue(_ now: Instant, isBusy: Bool) -> Bool {
        guard !progress.order.isPaused, part == nil, let due, due <= now else { return false }
        return !isBusy || now - due >= Self.patience
    }

    /// A read of so many bytes goes out, for so many stored ones of `total` on the disk.
    mutating func pace(read: Int, stored: Int, of total: UInt64, _ now: Instant) {
        func pause(_ bytes: Int, _ rate: UInt64) -> Interval {
            let nanoseconds = UInt128(bytes) * 1_000_000_000 / UInt128(rate)
            return Interval(nanoseconds: Int64(clamping: nanoseconds))
        }
        let longest = min(pause(stored, rate(total)), configuration.spacing)
        due = now + max(pause(read, configuration.bytesPerSecond), longest)
    }

    /// Bytes a second of a disk that stores so many; at least 1.
    func rate(_ total: UInt64) -> UInt64 {
        if progress.isUrgent { return configuration.bytesPerSecond }
        let spacing = UInt128(configuration.spacing.nanoseconds)
        let rate = UInt64(UInt128(total) * 1_000_000_000 / max(1, spacing)) + 1
        return min(configuration.bytesPerSecond, rate)
    }

    mutating func begin(_ wall: Timestamp, through generation: UInt64) {
        progress.isRunning = true
        progress.began = wall
        progress.cursor = 0
        progress.through = generation
        progress.verified = 0
        progress.isComparing = false
        progress.compared = SetID(rawValue: 0)
        progress.disputes = 0
        isUnsaved = true
    }

    mutating func end(_ now: Instant, _ wall: Timestamp) {
        progress.isRunning = false
        progress.isUrgent = false
        progress.passes += 1
        progress.since = progress.began
        progress.disputed = progress.disputes
        progress.disputes = 0
        progress.isComparing = false
        isUnsaved = true
        plan(now, wall)
    }

    /// When it wants to be called although nothing happened.
    func wakeTime(_ now: Instant) -> Instant {
        var first = Instant(nanoseconds: .max)
        if !progress.order.isPaused, part == nil {
            // One that is overdue waits for other work, which wakes it when it is done.
            first = due.map { $0 > now ? $0 : max(now, $0 + Self.patience) } ?? now
        }
        if isUnsaved { first = min(first, savedAt.map { $0 + Self.savePause } ?? now) }
        return first
    }
}
