// Which bytes of an open file to fetch before they are asked for.
//
//  state        a read at the expected place          a read elsewhere
//  random       window 128 KiB, sequential            random
//  sequential   window doubles up to 2 MiB            random, nothing fetched ahead
//
// The kernel's own read-ahead asks out of order, so a place within a window of the expected one
// counts as expected.

import Base

/// The reading habit of one open file.
package struct ReadAhead: Hashable, Sendable {
    /// The first window of a sequence, in bytes.
    package static let smallest: UInt64 = 128 << 10
    /// The widest window, in bytes.
    package static let largest: UInt64 = 2 << 20

    private var expected: UInt64 = 0
    /// 0: random.
    private var window: UInt64 = 0
    /// All before it was read or is being fetched.
    private var fetched: UInt64 = 0

    /// A read of the file's start counts as expected.
    package init() {}

    /// Whether the last reads went on from each other for long enough that caching them is vain.
    package var isStreaming: Bool { window >= Self.largest }

    /// Notes a read and returns what to fetch ahead, below `size`; nil for nothing.
    package mutating func note(offset: UInt64, count: Int, size: UInt64) -> Range<UInt64>? {
        let end = offset + UInt64(count)
        guard offset <= expected + window, offset + window >= expected else {
            window = 0
            expected = end
            fetched = end
            return nil
        }
        if end > expected { window = min(max(window * 2, Self.smallest), Self.largest) }
        expected = max(expected, end)
        fetched = max(fetched, expected)
        // Half a window is left until more is asked for, so that requests stay large.
        guard fetched - expected <= window / 2 else { return nil }
        let target = min(expected + window, size)
        guard target > fetched else { return nil }
        defer { fetched = target }
        return fetched..<target
    }
}
