// Bytes written to a block and not sent yet, as runs.
// Invariant: runs are sorted, and neither overlap nor touch each other.

import Base

/// Consecutive bytes of one block.
package struct Run: Hashable, Sendable {
    /// The first byte within the block.
    package var start: Int
    package var bytes: [UInt8]

    /// Both fields at once.
    package init(start: Int, bytes: [UInt8]) {
        self.start = start
        self.bytes = bytes
    }
    /// The byte after the last one.
    package var end: Int { start + bytes.count }
}

/// The written bytes of one block.
package struct Runs: Hashable, Sendable {
    /// In ascending order.
    package private(set) var list: [Run] = []
    /// Bytes in all runs.
    package private(set) var count = 0

    /// Nothing written.
    package init() {}

    /// Whether every byte of the block was written.
    package var isWhole: Bool { count == Limits.block }

    /// Lays bytes over what is there and joins the runs they touch.
    package mutating func write(_ bytes: UnsafeRawBufferPointer, at start: Int) {
        let end = start + bytes.count
        precondition(start >= 0 && start < end && end <= Limits.block, "not within a block")
        if let last = list.indices.last, list[last].end == start {
            list[last].bytes.append(contentsOf: bytes)
            count += bytes.count
            return
        }
        let first = list.firstIndex { $0.end >= start } ?? list.count
        var after = first
        while after < list.count, list[after].start <= end { after += 1 }
        guard first < after else {
            list.insert(Run(start: start, bytes: Array(bytes)), at: first)
            count += bytes.count
            return
        }
        let replaced = list[first..<after].reduce(0) { $0 + $1.bytes.count }
        if after == first + 1, list[first].start <= start, list[first].end >= end {
            let offset = start - list[first].start
            list[first].bytes.withUnsafeMutableBytes { held in
                UnsafeMutableRawBufferPointer(rebasing: held[offset..<offset + bytes.count])
                    .copyMemory(from: bytes)
            }
            return
        }
        let joined = join(bytes, at: start, with: list[first], list[after - 1])
        list.replaceSubrange(first..<after, with: CollectionOfOne(joined))
        count += joined.bytes.count - replaced
    }

    /// New bytes between what the first run has before them and the last run has behind them.
    private func join(
        _ bytes: UnsafeRawBufferPointer, at start: Int, with first: Run, _ last: Run
    ) -> Run {
        let end = start + bytes.count
        var joined = Run(start: min(start, first.start), bytes: [])
        joined.bytes.reserveCapacity(max(end, last.end) - joined.start)
        if first.start < start {
            joined.bytes.append(contentsOf: first.bytes[..<(start - first.start)])
        }
        joined.bytes.append(contentsOf: bytes)
        if last.end > end {
            joined.bytes.append(contentsOf: last.bytes[(end - last.start)...])
        }
        return joined
    }
}
