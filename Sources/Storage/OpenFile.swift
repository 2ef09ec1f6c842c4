// One open file of a disk.
//
// Invariants:
//  1. Segments go past the page cache where the file system lets them (S4: after a failed write
//     the cache is not to be believed); other files through it, with fdatasync.
//  2. Changes come from one thread at a time (PosixDisk, invariant 1); reads from any.

import Base
import Glibc
import Store

/// One open file; see above for who may call what.
final class OpenFile: @unchecked Sendable {
    private let path: String
    private let access: DiskAccess
    private var isDirect: Bool { access != .cached }
    private let plain: OwnedDescriptor
    /// Writes to it are durable when they return; opened when first needed.
    private var durable: OwnedDescriptor?
    /// Something was written that no sync covers.
    private(set) var isDirty = false
    /// Its name is not durable yet.
    private(set) var isNew: Bool

    /// Opens a file; makes it where it is not there and `create` is true.
    init(_ path: String, _ access: DiskAccess, create: Bool) throws(StorageError) {
        self.path = path
        self.access = access
        let flags = O_RDWR | (access == .cached ? 0 : directFlag)
        do throws(StorageError) {
            plain = try OwnedDescriptor(path, flags)
            isNew = false
        } catch {
            guard create, case .system(_, _, ENOENT) = error else { throw error }
            plain = try OwnedDescriptor(path, flags | O_CREAT | O_EXCL)
            isNew = true
        }
    }

    /// Empties the file and sets `size` bytes of zeros aside. Gives an errno, 0 for success.
    func reset(size: Int) -> Int32 {
        isDirty = true
        isNew = true
        guard ftruncate(plain.number, 0) == 0 else { return errno }
        return size > 0 ? posix_fallocate(plain.number, 0, size) : 0
    }

    /// Writes `length` bytes of the pieces, beginning at `start` of their sum, to a place in the
    /// file. Gives an errno, 0 for success.
    func write(
        _ pieces: [ArraySlice<UInt8>], from start: Int, length: Int, at offset: Int,
        durable: Bool, pool: BufferPool
    ) -> Int32 {
        if isDirect {
            precondition(
                offset % Limits.groupAlignment == 0 && length % Limits.groupAlignment == 0,
                "a segment is written in whole pages")
        }
        var descriptor = plain.number
        if durable {
            guard let other = durableDescriptor() else { return errno }
            descriptor = other
        }
        return pool.with { buffer in
            withExtendedLifetime(pieces) {
                buffer.gather(
                    pieces, from: start, length: length, isDirect: access == .directBySector
                ).write(to: descriptor, at: offset)
            }
        }
    }
    /// Must be called before writes that are not durable by themselves.
    func markDirty() { isDirty = true }
    private func durableDescriptor() -> Int32? {
        if durable == nil {
            let flags = O_RDWR | O_DSYNC | (isDirect ? directFlag : 0)
            durable = try? OwnedDescriptor(path, flags)
        }
        return durable?.number
    }

    /// Makes all writes durable, and the name in `folder` too. Gives an errno, 0 for success.
    func sync(folder: OwnedDescriptor) -> Int32 {
        guard (isNew ? fsync(plain.number) : fdatasync(plain.number)) == 0 else { return errno }
        if isNew {
            guard fsync(folder.number) == 0 else { return errno }
        }
        isDirty = false
        isNew = false
        return 0
    }

    /// Reads up to `length` bytes; fewer at the end of the file. Past the page cache whole sectors
    /// or pages are read, to where they stay.
    func read(at offset: Int, length: Int) -> DiskResult {
        let unit = access == .cached ? 1 : access == .direct ? Limits.page : Limits.sector
        let first = offset / unit * unit
        let wanted = (offset + length + unit - 1) / unit * unit - first
        var skip = 0
        var failure: Int32 = 0
        let bytes = [UInt8](unsafeUninitializedCapacity: wanted + unit - 1) { target, count in
            guard let base = target.baseAddress else { return }
            skip = -Int(bitPattern: base) & (unit - 1)
            base.initialize(repeating: 0, count: skip)
            count = skip
            while count < skip + wanted {
                let done = count - skip
                let read = pread(plain.number, base + count, wanted - done, off_t(first + done))
                if read < 0 {
                    if errno == EINTR { continue }
                    failure = errno
                    return
                }
                count += read
                // A short count is the end of the file: the next read would not be aligned.
                if read == 0 || read % unit != 0 { return }
            }
        }
        guard failure == 0 else { return .failed(.system(errno: failure)) }
        return .bytes(bytes.dropFirst(skip + offset - first).prefix(length))
    }
}
