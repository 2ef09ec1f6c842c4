// Memory for O_DIRECT: aligned to pages, and used again because setting it aside is slow.

import Base
import Glibc
import Synchronization

/// Page-aligned memory.
final class AlignedBuffer: @unchecked Sendable {
    // Used by one thread at a time.
    let start: UnsafeMutableRawPointer
    let size: Int

    init(size: Int) {
        self.size = size
        start = .allocate(byteCount: size, alignment: Limits.page)
        start.initializeMemory(as: UInt8.self, repeating: 0, count: size)
    }
    deinit { start.deallocate() }

    /// Copies `length` bytes of the pieces, from `offset` of their sum, to the front.
    func gather(_ pieces: [ArraySlice<UInt8>], from offset: Int, length: Int) {
        var skip = offset
        var filled = 0
        for piece in pieces where filled < length {
            if skip >= piece.count {
                skip -= piece.count
                continue
            }
            let count = min(piece.count - skip, length - filled)
            piece.withUnsafeBytes { raw in
                guard let base = raw.baseAddress else { return }
                (start + filled).copyMemory(from: base + skip, byteCount: count)
            }
            filled += count
            skip = 0
        }
    }
}

/// Buffers of `Limits.diskWrite` bytes.
final class BufferPool: Sendable {
    /// Enough for every thread of a disk.
    private static let kept = 8
    private let free = Mutex<[AlignedBuffer]>([])

    /// Lends a buffer.
    func with<Result>(_ body: (AlignedBuffer) -> Result) -> Result {
        let buffer = free.withLock { $0.popLast() } ?? AlignedBuffer(size: Limits.diskWrite)
        defer { free.withLock { if $0.count < Self.kept { $0.append(buffer) } } }
        return body(buffer)
    }
}
