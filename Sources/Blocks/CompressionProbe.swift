// Whether compressing the next block of a file is worth the attempt (D8).
//
//  state           event                          next
//  trying          block saved 1/8                trying
//  trying          two blocks in a row did not    skipping
//  skipping        15 blocks went by              trying, for one block
//  that one block  saved 1/8                      trying
//  that one block  did not                        skipping

/// Remembers how the last blocks of one file compressed.
package struct CompressionProbe: Hashable, Sendable {
    /// Blocks in a row that did not get smaller, until attempts stop.
    private static let patience = 2
    /// While attempts have stopped, every so many blocks one is tried.
    private static let period = 16

    private var failures = 0
    private var skipped = 0

    /// Tries the first block.
    package init() {}

    /// Whether to try the next block; counts it as skipped if not.
    package mutating func wantsAttempt() -> Bool {
        guard failures >= Self.patience else { return true }
        skipped += 1
        guard skipped == Self.period else { return false }
        skipped = 0
        return true
    }
    /// Notes how an attempt ended.
    package mutating func note(saved: Bool) { failures = saved ? 0 : failures + 1 }
}
