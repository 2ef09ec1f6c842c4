// Memory for O_DIRECT: aligned to pages, and used again because setting it aside is slow.
//
// A large payload that lies in memory as it will lie in the file, by sectors, is written from
// there: copying all of them took a ninth of the CPU of a sequential write (decision 0019).

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

    /// Where to write `length` bytes of the pieces from, beginning at `offset` of their sum: they
    /// are copied here, but for large ones that lie in whole sectors if `isDirect`. Good as long as
    /// the pieces are held and this buffer is lent.
    func gather(
        _ pieces: [ArraySlice<UInt8>], from offset: Int, length: Int, isDirect: Bool
    ) -> Vectors {
        var vectors = Vectors()
        var skip = offset
        var copied = 0
        func copy(_ bytes: UnsafeRawBufferPointer) {
            guard let base = bytes.baseAddress, bytes.count > 0 else { return }
            (start + copied).copyMemory(from: base, byteCount: bytes.count)
            vectors.add(start + copied, bytes.count)
            copied += bytes.count
        }
        for piece in pieces where vectors.length < length {
            if skip >= piece.count {
                skip -= piece.count
                continue
            }
            let end = min(piece.count, skip + length - vectors.length)
            piece.withUnsafeBytes { raw in
                let bytes = UnsafeRawBufferPointer(rebasing: raw[skip..<end])
                let sectors = isDirect ? Self.sectors(bytes, at: vectors.length) : 0..<0
                copy(UnsafeRawBufferPointer(rebasing: bytes[..<sectors.lowerBound]))
                if !sectors.isEmpty, let base = bytes.baseAddress {
                    vectors.add(base + sectors.lowerBound, sectors.count)
                }
                copy(UnsafeRawBufferPointer(rebasing: bytes[sectors.upperBound...]))
            }
            skip = 0
        }
        return vectors
    }

    /// The whole sectors of bytes that are to be written at `position`; none unless they are large
    /// and lie in memory as they will lie there.
    private static func sectors(_ bytes: UnsafeRawBufferPointer, at position: Int) -> Range<Int> {
        let sector = Limits.sector
        let place = Int(bitPattern: bytes.baseAddress)
        let first = -position & (sector - 1)
        let count = (bytes.count - first) / sector * sector
        guard count >= Limits.largePayload, (place + first) % sector == 0 else { return 0..<0 }
        return first..<first + count
    }
}

/// Places in memory whose bytes are written one after the other.
struct Vectors {
    private(set) var list: [iovec] = []
    /// Bytes of all together.
    private(set) var length = 0

    mutating func add(_ base: UnsafeRawPointer, _ count: Int) {
        length += count
        if let last = list.last, UnsafeRawPointer(last.iov_base) + last.iov_len == base {
            list[list.count - 1].iov_len += count
        } else {
            list.append(iovec(iov_base: UnsafeMutableRawPointer(mutating: base), iov_len: count))
        }
    }

    /// Writes all of it to a place in a file. Gives an errno, 0 for success.
    func write(to descriptor: Int32, at offset: Int) -> Int32 {
        var rest = list[...]
        var offset = offset
        while !rest.isEmpty {
            let count = rest.withUnsafeBufferPointer { vectors in
                pwritev(descriptor, vectors.baseAddress, Int32(vectors.count), off_t(offset))
            }
            guard count > 0 else {
                if count < 0, errno == EINTR { continue }
                // A write that makes no progress means that the device is full.
                return count == 0 ? ENOSPC : errno
            }
            offset += count
            var done = count
            while let first = rest.first, done > 0 {
                if first.iov_len <= done {
                    done -= first.iov_len
                    rest.removeFirst()
                } else {
                    rest[rest.startIndex].iov_base += done
                    rest[rest.startIndex].iov_len -= done
                    done = 0
                }
            }
        }
        return 0
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
