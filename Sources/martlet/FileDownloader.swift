// One file of the cell to the local file system.
//
//   temporary name ─► written, zeros left out ─► synced ─► read back ─► times, mode ─► renamed
//
// Invariant: until it is complete and verified the file has a temporary name; what fails takes
// that away.

import Base
import Client
import Glibc
import Synchronization

/// Copies files; used by several threads at once.
struct FileDownloader: Sendable {
    let fileSystem: FileSystem
    let tally: Tally
    let verifies: Bool
    private static let step = 1 << 20

    static func temporary(for local: [UInt8]) -> [UInt8] {
        let slash = local.lastIndex(of: UInt8(ascii: "/"))
        let name = Array(local[(slash.map { $0 + 1 } ?? 0)...])
        return Array(local[..<(slash.map { $0 + 1 } ?? 0)]) + temporaryName(for: name)
    }

    /// Copies a regular file, unless the same one is there.
    func copy(
        _ attributes: Attributes, _ remote: String, to local: [UInt8]
    ) throws(CommandFailure) {
        var there = stat()
        if local.withPath({ lstat($0, &there) }) == 0, there.st_mode & S_IFMT == S_IFREG,
            UInt64(there.st_size) == attributes.size,
            Timestamp(there.st_mtim) == attributes.modified
        {
            setAttributes(of: local, attributes)
            return tally.counts.withLock {
                $0.skipped += 1
                $0.bytesDone += attributes.size
                $0.bytesSkipped += attributes.size
            }
        }
        let (source, fresh) = try attempt(remote) { () throws(FileError) in
            try fileSystem.open(
                attributes.inode, options: OpenOptions(read: true), tally.cancellation)
        }
        defer { fileSystem.release(source) }
        let temporary = Self.temporary(for: local)
        temporary.withPath { _ = unlink($0) }
        let flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC
        let file = temporary.withPath { open($0, flags, 0o600) }
        guard file >= 0 else { throw CommandFailure(errno: errno, local.text) }
        defer { close(file) }
        do throws(CommandFailure) {
            try write(source, remote, file, local)
            setAttributes(of: temporary, fresh)
            let result = temporary.withPath { old in local.withPath { rename(old, $0) } }
            guard result == 0 else { throw CommandFailure(errno: errno, local.text) }
        } catch {
            temporary.withPath { _ = unlink($0) }
            throw error
        }
        tally.counts.withLock { $0.files += 1 }
    }

    private func write(
        _ source: OpenFile, _ remote: String, _ file: Int32, _ local: [UInt8]
    ) throws(CommandFailure) {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.step, alignment: 4_096)
        defer { buffer.deallocate() }
        var whole = Extent(offset: 0, length: 0, checksum: Checksum(value: 0))
        while true {
            let count = try attempt(remote) { () throws(FileError) in
                try fileSystem.read(source, at: whole.length, into: buffer, tally.cancellation)
            }
            if count == 0 { break }
            let bytes = UnsafeRawBufferPointer(rebasing: buffer[..<count])
            whole.checksum = Checksum(of: bytes, after: whole.length == 0 ? nil : whole.checksum)
            try Self.writeSparse(bytes, at: whole.length, file, local)
            whole.length += UInt64(count)
            tally.counts.withLock { $0.bytesDone += UInt64(count) }
        }
        guard ftruncate(file, off_t(whole.length)) == 0, fdatasync(file) == 0 else {
            throw CommandFailure(errno: errno, local.text)
        }
        if verifies { try Self.check(whole, file, local, buffer) }
    }

    /// Writes what is not zero, in units of pages.
    private static func writeSparse(
        _ bytes: UnsafeRawBufferPointer, at offset: UInt64, _ file: Int32, _ local: [UInt8]
    ) throws(CommandFailure) {
        var start = 0
        while start < bytes.count {
            let isHole = isZero(bytes, page: start)
            var end = start
            while end < bytes.count, isZero(bytes, page: end) == isHole {
                end = min(bytes.count, end + Limits.page)
            }
            while !isHole, start < end {
                let count = pwrite(
                    file, bytes.baseAddress! + start, end - start, off_t(offset) + off_t(start))
                if count < 0, errno == EINTR { continue }
                guard count > 0 else { throw CommandFailure(errno: errno, local.text) }
                start += count
            }
            start = end
        }
    }

    private static func isZero(_ bytes: UnsafeRawBufferPointer, page start: Int) -> Bool {
        let count = min(Limits.page, bytes.count - start)
        let page = bytes.baseAddress! + start
        // The first byte is zero, and each byte equals the next one.
        return page.load(as: UInt8.self) == 0
            && (count == 1 || memcmp(page, page + 1, count - 1) == 0)
    }

    private static func check(
        _ whole: Extent, _ file: Int32, _ local: [UInt8], _ buffer: UnsafeMutableRawBufferPointer
    ) throws(CommandFailure) {
        var seen = Extent(offset: 0, length: 0, checksum: Checksum(value: 0))
        while true {
            let count = pread(file, buffer.baseAddress, buffer.count, off_t(seen.length))
            guard count >= 0 else { throw CommandFailure(errno: errno, local.text) }
            if count == 0 { break }
            seen.checksum = Checksum(
                of: UnsafeRawBufferPointer(rebasing: buffer[..<count]),
                after: seen.length == 0 ? nil : seen.checksum)
            seen.length += UInt64(count)
        }
        guard seen.length == whole.length, seen.checksum == whole.checksum else {
            throw CommandFailure(
                .failed, "\(local.text): what the disk gives back is not what was written")
        }
    }

    /// Owner (as root), mode and times; what can't be set is left.
    func setAttributes(of local: [UInt8], _ attributes: Attributes) {
        local.withPath { path in
            if geteuid() == 0 { lchown(path, attributes.user, attributes.group) }
            if attributes.kind != .symlink { chmod(path, mode_t(attributes.mode)) }
            let times = [timespec(attributes.accessed), timespec(attributes.modified)]
            utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW)
        }
    }

    /// Symbolic links, fifos, sockets and devices.
    func copySpecial(
        _ attributes: Attributes, _ remote: String, to local: [UInt8]
    ) throws(CommandFailure) {
        let temporary = Self.temporary(for: local)
        temporary.withPath { _ = unlink($0) }
        let result: Int32
        if attributes.kind == .symlink {
            let target = try attempt(remote) { () throws(FileError) in
                try fileSystem.readLink(attributes.inode, tally.cancellation)
            }
            if Self.target(of: local) == target {
                setAttributes(of: local, attributes)
                return tally.counts.withLock { $0.skipped += 1 }
            }
            result = target.withPath { old in temporary.withPath { symlink(old, $0) } }
        } else {
            let mode = Self.type(of: attributes.kind) | mode_t(attributes.mode)
            var there = stat()
            if local.withPath({ lstat($0, &there) }) == 0, there.st_mode & S_IFMT == mode & S_IFMT {
                return tally.counts.withLock { $0.skipped += 1 }
            }
            result = temporary.withPath { mknod($0, mode, dev_t(attributes.device)) }
        }
        guard result == 0 else { throw CommandFailure(errno: errno, local.text) }
        setAttributes(of: temporary, attributes)
        guard temporary.withPath({ old in local.withPath { rename(old, $0) } }) == 0 else {
            let code = errno
            temporary.withPath { _ = unlink($0) }
            throw CommandFailure(errno: code, local.text)
        }
        tally.counts.withLock { $0.links += 1 }
    }

    private static func type(of kind: FileKind) -> mode_t {
        switch kind {
        case .fifo: S_IFIFO
        case .socket: S_IFSOCK
        case .characterDevice: S_IFCHR
        case .blockDevice: S_IFBLK
        case .file, .directory, .symlink: S_IFREG
        }
    }

    private static func target(of local: [UInt8]) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: Limits.symlinkTarget + 1)
        let count = local.withPath { path in
            bytes.withUnsafeMutableBytes {
                readlink(path, $0.baseAddress!.assumingMemoryBound(to: CChar.self), $0.count)
            }
        }
        return count < 0 ? nil : Array(bytes[..<count])
    }
}

extension timespec {
    fileprivate init(_ time: Timestamp) {
        let (seconds, rest) = time.nanoseconds.quotientAndRemainder(dividingBy: 1_000_000_000)
        self.init(
            tv_sec: Int(rest < 0 ? seconds - 1 : seconds),
            tv_nsec: Int(rest < 0 ? rest + 1_000_000_000 : rest))
    }
}
