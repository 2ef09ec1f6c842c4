// Who may use how much of a disk (C20). Two things are counted: what the living records take
// (space), and what can be appended before anything is recycled (room). Space is what users pay
// for; room is what the cleaner makes out of the rest.
//
//   space   new data as long as a reserve stays free of living records: then the cleaner always
//           finds segments that are worth it
//   room    below `cleaningStart` the cleaner works; at `shortRoom` new data waits for it; at
//           `recordRoom` everything waits but epochs, repairs and the cleaner
//
// Invariant: the cleaner empties a segment into less room than it gives back, and one segment of
// room is left to it; so the log goes on as long as the reserve holds.

import Base

extension DiskStore {
    private var segmentBytes: UInt64 { UInt64(log.superblock?.segmentSize ?? 0) }

    /// So many percent of the disk, and at least so many segments; fewer on a disk of few.
    private func part(percent: UInt64, segments: UInt64, ofFew few: UInt64) -> UInt64 {
        let isSmall = log.totalBytes < segmentBytes * 24
        return max(log.totalBytes / 100 * percent, segmentBytes * (isSmall ? few : segments))
    }

    /// What stays free of living records, and what groups lose to their alignment.
    private var reserve: UInt64 {
        let count = log.totalBytes / max(1, segmentBytes)
        let free = part(
            percent: UInt64(Limits.reservePercent), segments: 8, ofFew: max(3, count / 3))
        return free + count * UInt64(paddingBytes)
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
    /// At this room only epochs, repairs and the cleaner go on.
    private var recordRoom: UInt64 { part(percent: 0, segments: 2, ofFew: 1) }

    /// Whether so many bytes of new data have space beside the reserve.
    package func hasRoom(forData bytes: Int) -> Bool {
        let isHopeless = isShort && cleaner.isStuck
        return UInt64(book.total + bytes) + reserve < log.totalBytes && !isHopeless
    }
    /// New data is to wait until the cleaner has made room.
    package var isShort: Bool { log.room <= shortRoom }
    /// Whether records of any kind have room; otherwise they are to wait for the cleaner.
    package var takesRecords: Bool { log.room > recordRoom }

    /// Keeps the reserve for deletes, and the last of it for epochs.
    func checkRoom(for record: Record, isNumbered: Bool) throws(StoreError) {
        let size = record.payload.count
        if case .write = record.body, !isNumbered {
            guard hasRoom(forData: size), log.room > shortRoom + UInt64(size) else {
                throw .noSpace
            }
        } else if log.room <= segmentBytes + UInt64(size) {
            throw .noSpace
        }
    }
}
