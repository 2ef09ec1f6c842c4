// What the cleaner of a disk knows: it moves the living records out of segments that are mostly
// dead, so that these can be recycled (DESIGN 3.1).
//
//   idle -> cleaning (a segment: read, verify, append again; when all copies are durable, the
//           next one) -> idle, when there is room enough or no segment is worth it
//
// Invariants:
//  1. Records are moved with their set, epoch and number, committed or prepared: a copy is the same
//     record at another place, and a replay that meets it does what a repair of the record does
//     (decision 0011).
//  2. The index names the old place until the copy is durable. The old segment is recycled by the
//     rule for all segments: nothing is in it, and two checkpoints say so.
//  3. Damaged records are reported, never copied (C17).
//  4. One read is on its way at a time, and copies of a bounded size.

import Base

/// How the cleaner of a disk is paced.
package struct CleanerConfiguration: Hashable, Sendable {
    /// It works while less than this part of the disk can be appended to, in percent.
    package var startPercent: Int
    /// Limits of what is folded; see `FoldQueue`.
    package var foldRuns: Int
    package var foldRecords: Int

    /// All fields at once.
    package init(
        startPercent: Int = Limits.cleaningPercent, foldRuns: Int = Limits.foldRuns,
        foldRecords: Int = Limits.foldRecords
    ) {
        precondition((0...100).contains(startPercent), "not a part of a disk")
        self.startPercent = startPercent
        self.foldRuns = foldRuns
        self.foldRecords = foldRecords
    }
}

/// See the head of this file.
struct Cleaner: Sendable {
    /// One disk read, and the records that it is for.
    struct Part: Sendable {
        var operation: DiskOperation
        var offset: Int
        var items: ArraySlice<ScrubItem>
    }
    /// So long a due read waits for the disk's other work.
    static let patience = Interval.milliseconds(20)
    /// Bytes that it reads in a second while there is time.
    static let rate = 64 << 20
    /// Bytes of copies on their way to the disk, but for one read more.
    static let window = 4 << 20
    /// It gives up after so many victims without a gain.
    static let attempts = 4

    /// Segments that one look through the index is for.
    static let victims = 8

    /// The segment that is being emptied, and what of it is still to be read, by offset.
    var victim: LogSegment?
    var items: ArraySlice<ScrubItem> = []
    /// Those that come after it, the next one last.
    var queue: [(segment: LogSegment, items: [ScrubItem])] = []
    /// Looks for what lives in these.
    var scan: (victims: [LogSegment], scan: SegmentScan)?
    var part: Part?
    /// Bytes of copies that are not durable yet.
    var moving = 0
    var due = Instant.zero
    /// When it wants to be called although nothing happened.
    var wake = Instant(nanoseconds: .max)
    /// Generations of segments with things that can't be moved now, until the next checkpoint.
    var passed: [UInt64] = []
    /// There is nothing to clean, and no checkpoint would change that.
    var isStuck = false
    /// What `idleBytes` was last, and as long as what stays the same.
    struct IdleKey: Hashable, Sendable {
        var turns: UInt64
        var end: UInt64
        var unused: Int
    }
    var idle: (key: IdleKey, bytes: UInt64)?
    /// The most room that it has made so far, if nobody had used any.
    var peak: UInt64 = 0
    /// Victims since then.
    var fruitless = 0
    /// Bytes of new records when it gave up; there is nothing to gain before there are more.
    var restsAt: UInt64?
    var report = CleaningReport()
}
