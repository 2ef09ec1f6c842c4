// Zeros ahead of the log (DESIGN 3.1). A durable write into space that was set aside and never
// written has to write the file's metadata too, which takes half as long again. So a log with time
// on its hands writes zeros some way ahead of its records in the open segment. One that is filled
// fast goes without: there the zeros would cost more than they save.
//
// Invariants:
//  1. Zeros go behind everything that was issued for the segment, and later groups are issued
//     after them: the disk keeps that order (DiskEffects, 1), so they never hide a record.
//  2. At most one such write is under way. Nobody waits for it to be durable: the next group is.

import Base

/// How far the zeros are.
struct Prewriting: Sendable {
    /// No write of zeros is issued before.
    var next = Instant.zero
    var isUnderWay = false
    /// Bytes of groups since the last write of zeros.
    var logged = 0
}

extension SegmentLog {
    private static let zeros = [UInt8](repeating: 0, count: Limits.block)[...]

    /// When zeros may be written: some time if the log is idle and they are not far ahead.
    var prewriteTime: Instant {
        guard phase == .ready, inFlight == nil, queue.isEmpty, !prewriting.isUnderWay,
            let open, let size = superblock?.segmentSize,
            max(open.written, open.offset) < min(size, open.offset + Limits.prewritten)
        else { return Instant(nanoseconds: .max) }
        return prewriting.next
    }

    /// Writes the next zeros if their time has come and little was logged since the last.
    mutating func prewriteIfDue(now: Instant) -> [LogOutput] {
        guard now >= prewriteTime, let segment = open, let size = superblock?.segmentSize else {
            return []
        }
        prewriting.next = now + Limits.prewritePause
        defer { prewriting.logged = 0 }
        guard prewriting.logged <= Limits.diskWrite else { return [] }
        let from = max(segment.written, segment.offset)
        let count = min(Limits.diskWrite, size - from)
        open?.written = from + count
        prewriting.isUnderWay = true
        let whole = Array(repeating: Self.zeros, count: count / Self.zeros.count)
        let rest = Self.zeros.prefix(count % Self.zeros.count)
        return [
            .disk(
                .write(
                    issue(.prewrite(file: segment.file)), .segment(segment.file), offset: from,
                    pieces: rest.isEmpty ? whole : whole + [rest], durable: false))
        ]
    }

    mutating func prewritten(_ file: UInt32, _ result: DiskResult) -> [LogOutput] {
        prewriting.isUnderWay = false
        if case .failed(let why) = result { return fail(.disk(.segment(file), why)) }
        return []
    }
}
