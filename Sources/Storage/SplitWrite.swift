// A large write in parts of `Limits.diskWrite` bytes, which several threads write at once: the
// disk is twice as fast with four writes under way as with one.
//
// Invariant: `finish` returns after every part was written or given up.

import Base

/// A write that several threads work on.
final class SplitWrite: Sendable {
    private struct Progress {
        /// Parts that nobody took yet begin here.
        var next = 0
        var done = 0
        var failure: Int32 = 0
    }
    /// How many parts there are.
    let count: Int
    private let file: OpenFile
    private let offset: Int
    private let pieces: [ArraySlice<UInt8>]
    private let length: Int
    private let progress = Monitor(Progress())

    init(_ file: OpenFile, offset: Int, pieces: [ArraySlice<UInt8>], length: Int) {
        self.file = file
        self.offset = offset
        self.pieces = pieces
        self.length = length
        count = (length + Limits.diskWrite - 1) / Limits.diskWrite
    }

    /// Writes parts until all are taken.
    func help(_ pool: BufferPool) {
        while let part = take() {
            let start = part * Limits.diskWrite
            let size = min(Limits.diskWrite, length - start)
            let failure = file.write(
                pieces, from: start, length: size, at: offset + start, durable: false, pool: pool)
            progress.change { progress in
                progress.done += 1
                if failure != 0 { progress.failure = failure }
                return progress.done == count ? 1 : 0
            }
        }
    }
    /// Takes a part; after a failure there are none.
    private func take() -> Int? {
        progress.withLock { progress in
            guard progress.next < count else { return nil }
            if progress.failure != 0 {
                progress.done += count - progress.next
                progress.next = count
                return nil
            }
            defer { progress.next += 1 }
            return progress.next
        }
    }
    /// Helps, and waits for the other helpers. Gives an errno, 0 for success.
    func finish(_ pool: BufferPool) -> Int32 {
        help(pool)
        return progress.wait { $0.done == count ? $0.failure : nil }
    }
}
