// Who may use how much of a disk (C20). Counted are what the living records take (space), what can
// be appended before anything is recycled (room), and the memory of the index. Space is what users
// pay for; room is what the cleaner makes out of the rest.
//
//   space   new data as long as a reserve stays free of living records: then the cleaner always
//           finds segments that are worth it. The less is left, the fewer extents a block may have;
//           when there is none, new data waits as long as folding gives some back
//   memory  a disk whose index takes all it may is full, and tells others half way (decision 0021)
//   room    below `cleaningStart` the cleaner works; at `shortRoom` new data waits for it; at
//           two segments the data of records that have numbers too; at half a one deletes and
//           trims; epochs and repairs never do
//
// Invariant: the cleaner empties a segment into less room than it gives back, and some room is
// left to it; so the log goes on as long as the reserve holds. Where it can do nothing (others
// filled the file system), deletes may have the last room. What finds none waits in memory.

package import Base

extension DiskStore {
    private var segmentBytes: UInt64 { UInt64(log.superblock?.segmentSize ?? 0) }

    /// So many percent of the disk, and at least so many segments; fewer on a disk of few.
    private func part(percent: UInt64, segments: UInt64, ofFew few: UInt64) -> UInt64 {
        let isSmall = log.totalBytes < segmentBytes * 24
        return max(log.totalBytes / 100 * percent, segmentBytes * (isSmall ? few : segments))
    }

    /// What stays free of living records, and what groups lose to their alignment.
    package var reserve: UInt64 {
        let count = log.totalBytes / max(1, segmentBytes)
        let free = part(
            percent: UInt64(Limits.reservePercent), segments: 8, ofFew: max(3, count / 3))
        // What primaries may have numbered before they heard that there is no space here.
        let arrears = min(UInt64(Limits.preparedBytes), log.totalBytes / 32)
        let least = shortRoom + segmentBytes + arrears
        return max(free, least) + count * UInt64(paddingBytes)
    }
    /// Bytes that full groups lose to their alignment in one segment, at the most.
    var paddingBytes: Int {
        Int(segmentBytes) / max(1, log.groupBytes) * Limits.groupAlignment
    }
    /// At this room new data waits for the cleaner.
    var shortRoom: UInt64 { part(percent: 1, segments: 3, ofFew: 2) }
    /// Below this room the cleaner goes as fast as it can.
    var urgentRoom: UInt64 { part(percent: 2, segments: 4, ofFew: 3) }
    /// Below this room the cleaner works.
    var cleaningStart: UInt64 {
        part(percent: UInt64(configuration.cleaner.startPercent), segments: 6, ofFew: 4)
    }

    /// Whether so many bytes of new data have space beside the reserve, and in the index.
    package func hasRoom(forData bytes: Int) -> Bool { hasSpace(bytes) && !isIndexFull }
    /// Whether so many bytes have space beside the reserve.
    func hasSpace(_ bytes: Int) -> Bool {
        let isHopeless = isShort && cleaner.isStuck
        return UInt64(book.total + bytes) + reserve < log.totalBytes && !isHopeless
    }
    /// Bytes of memory that the index takes, about.
    package var indexMemory: Int { chunks.memory }
    /// The index takes all the memory it may (decision 0021).
    package var isIndexFull: Bool { indexMemory >= configuration.index.memory }
    /// Of a disk's capacity, what data like its own can reach: where the memory of the index gets
    /// short first, less, so that others get the new data in time. All of it up to half of the
    /// memory; at all of the memory what it has.
    package func reachable(of capacity: UInt64) -> UInt64 {
        let half = configuration.index.memory / 2
        let beyond = min(max(0, indexMemory - half), half)
        guard beyond > 0, living < capacity else { return capacity }
        return capacity - (capacity - living) / 1_000 * UInt64(beyond * 1_000 / half)
    }
    /// How many segments there should be: others may fill the file system at any time, and then
    /// the cleaner needs some beside what is alive.
    var wantedSegments: Int {
        let living = UInt64(book.total)
        return Int((living + min(living, 4 * segmentBytes)) / max(1, segmentBytes)) + 1
    }
    /// Bytes that living records may still take before data is refused.
    private var space: UInt64 {
        let bound = UInt64(book.total + Limits.framePayload) + reserve
        return bound < log.totalBytes ? log.totalBytes - bound : 0
    }
    /// How many runs a block may have: fewer when there is little space, or memory; 0: nothing that
    /// folding makes smaller stays.
    var foldRuns: Int {
        let runs = configuration.cleaner.foldRuns
        func part(_ left: UInt64, ofPlenty plenty: UInt64) -> Int {
            left >= plenty ? runs : Int(left * UInt64(runs) / max(1, plenty))
        }
        let memory = configuration.index.memory
        let bySpace = part(space, ofPlenty: log.totalBytes / 8)
        return min(
            bySpace, part(UInt64(max(0, memory - indexMemory)), ofPlenty: UInt64(memory / 8)))
    }
    /// What the disk can take now.
    package var fill: DiskFill {
        if hasRoom(forData: Limits.framePayload) { return .roomy }
        return folds.isHopeful && !(isShort && cleaner.isStuck) ? .folding : .full
    }
    /// Looks whether folding still makes space, where there is none.
    mutating func watchSpace(_ now: Instant) {
        guard phase == .ready, !hasRoom(forData: Limits.framePayload) else {
            return folds.endShortage()
        }
        folds.watch(living: book.total, now)
    }
    /// New data is to wait until the cleaner has made room.
    package var isShort: Bool { log.room <= shortRoom }
    /// Whether a record that has its number, or must get one, has room, with so many bytes of data;
    /// otherwise it is to wait for the cleaner, as long as that can do anything.
    package func takesNumbered(data bytes: Int) -> Bool {
        let kept: UInt64
        if bytes > 0 {
            kept = cleaner.isStuck ? segmentBytes : 2 * segmentBytes
        } else {
            kept = cleaner.isStuck ? 0 : segmentBytes / 2
        }
        return log.room > kept + UInt64(bytes)
    }
}
