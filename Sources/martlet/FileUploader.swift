// One local file into the cell.
//
//   open, read ─► temporary name ─► flushed ─► read back ─► times, mode ─► renamed
//
// Invariants:
//  1. Until it is complete and verified the file has a temporary name; what fails takes that away.
//  2. A local file that changes while it is copied is a failure.

import Base
import Client
import Glibc
import Synchronization

/// Which inode each local file got.
final class Uploaded: Sendable {
    private let inodes = Mutex<[FileKey: InodeID]>([:])
    func set(_ key: FileKey, _ inode: InodeID) { inodes.withLock { $0[key] = inode } }
    func inode(of key: FileKey) -> InodeID? { inodes.withLock { $0[key] } }
}

/// The owner in the cell: root keeps the local one, others own what they copy.
func owner(_ status: stat) -> (user: UInt32, group: UInt32) {
    geteuid() == 0 ? (status.st_uid, status.st_gid) : (geteuid(), getegid())
}

/// What is kept of a local object's attributes.
func changes(for status: stat) -> AttributeChanges {
    var changes = AttributeChanges()
    if status.st_mode & S_IFMT != S_IFLNK { changes.mode = UInt16(status.st_mode & 0o7777) }
    (changes.user, changes.group) = owner(status)
    changes.accessed = .at(Timestamp(status.st_atim))
    changes.modified = .at(Timestamp(status.st_mtim))
    return changes
}

extension Timestamp {
    /// Clamped to what 64 bits of nanoseconds can say.
    init(_ time: timespec) {
        let bound = Int(Int64.max / 1_000_000_000) - 1
        let seconds = Int64(max(-bound, min(bound, time.tv_sec)))
        self.init(nanoseconds: seconds * 1_000_000_000 + Int64(time.tv_nsec))
    }
}

/// Copies files; used by several threads at once.
struct FileUploader: Sendable {
    let fileSystem: FileSystem
    let tally: Tally
    let verifies: Bool
    private static let step = 1 << 20

    /// Copies a regular file, unless the cell has the same one; its inode.
    func copy(
        _ local: [UInt8], to parent: InodeID, _ name: [UInt8], replacing existing: Attributes?
    ) throws(CommandFailure) -> InodeID {
        let file = local.withPath { open($0, O_RDONLY | O_CLOEXEC | O_NOCTTY) }
        guard file >= 0 else { throw CommandFailure(errno: errno, local.text) }
        defer { close(file) }
        var status = stat()
        guard fstat(file, &status) == 0 else { throw CommandFailure(errno: errno, local.text) }
        guard UInt64(status.st_size) <= Limits.fileSize else {
            throw CommandFailure(
                .failed, "\(local.text): larger than a file may be (\(Limits.fileSize) bytes)")
        }
        if let existing, isSame(existing, status) {
            try skip(existing, status, local)
            return existing.inode
        }
        let temporary = temporaryName(for: name)
        try? fileSystem.unlink(parent, temporary)
        let inode = try write(file, status, local, to: parent, temporary)
        do throws(FileError) {
            _ = try fileSystem.setAttributes(
                inode, changes(for: status), size: nil, tally.cancellation)
            try fileSystem.rename(parent, temporary, parent, name, flags: [], tally.cancellation)
        } catch {
            try? fileSystem.unlink(parent, temporary)
            throw CommandFailure(file: error, local.text)
        }
        tally.counts.withLock { $0.files += 1 }
        return inode
    }

    private func isSame(_ existing: Attributes, _ status: stat) -> Bool {
        existing.kind == .file && existing.size == UInt64(status.st_size)
            && existing.modified == Timestamp(status.st_mtim)
    }

    private func skip(
        _ existing: Attributes, _ status: stat, _ local: [UInt8]
    ) throws(CommandFailure) {
        let wanted = changes(for: status)
        if existing.mode != wanted.mode || existing.user != wanted.user
            || existing.group != wanted.group
        {
            _ = try attempt(local.text) { () throws(FileError) in
                try fileSystem.setAttributes(existing.inode, wanted, size: nil, tally.cancellation)
            }
        }
        tally.counts.withLock {
            $0.skipped += 1
            $0.bytesDone += UInt64(status.st_size)
            $0.bytesSkipped += UInt64(status.st_size)
        }
    }

    /// Writes the content under a temporary name, and reads it back.
    private func write(
        _ file: Int32, _ status: stat, _ local: [UInt8], to parent: InodeID, _ name: [UInt8]
    ) throws(CommandFailure) -> InodeID {
        let (remote, _) = try attempt(local.text) { () throws(FileError) in
            try fileSystem.create(
                parent, name, mode: 0o600, user: owner(status).user, group: owner(status).group,
                exclusive: true, options: OpenOptions(read: true, write: true), tally.cancellation)
        }
        defer { fileSystem.release(remote) }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.step, alignment: 4_096)
        defer { buffer.deallocate() }
        do throws(CommandFailure) {
            let extents = try send(file, UInt64(status.st_size), local, remote, buffer)
            try attempt(local.text) { () throws(FileError) in
                try fileSystem.flush(remote, tally.cancellation)
                if (extents.last.map { $0.offset + $0.length } ?? 0) < UInt64(status.st_size) {
                    _ = try fileSystem.setAttributes(
                        remote.inode, AttributeChanges(), size: UInt64(status.st_size),
                        tally.cancellation)
                }
            }
            if verifies { try check(extents, local, remote, buffer) }
            var now = stat()
            guard fstat(file, &now) == 0, now.st_size == status.st_size,
                Timestamp(now.st_mtim) == Timestamp(status.st_mtim)
            else { throw CommandFailure(.failed, "\(local.text): changed while it was copied") }
        } catch {
            try? fileSystem.unlink(parent, name)
            throw error
        }
        return remote.inode
    }

    /// Sends what is not a hole.
    private func send(
        _ file: Int32, _ size: UInt64, _ local: [UInt8], _ remote: OpenFile,
        _ buffer: UnsafeMutableRawBufferPointer
    ) throws(CommandFailure) -> [Extent] {
        var extents: [Extent] = []
        var offset: UInt64 = 0
        while let next = Self.nextData(file, offset, size) {
            tally.counts.withLock { $0.bytesDone += next.lowerBound - offset }
            var extent = Extent(offset: next.lowerBound, length: 0, checksum: Checksum(value: 0))
            while extent.offset + extent.length < next.upperBound {
                let position = extent.offset + extent.length
                let wanted = min(buffer.count, Int(next.upperBound - position))
                let count = pread(file, buffer.baseAddress, wanted, off_t(position))
                guard count >= 0 else { throw CommandFailure(errno: errno, local.text) }
                if count == 0 { break }
                let bytes = UnsafeRawBufferPointer(rebasing: buffer[..<count])
                try attempt(local.text) { () throws(FileError) in
                    try fileSystem.write(remote, at: position, bytes, tally.cancellation)
                }
                extent.checksum = Checksum(
                    of: bytes, after: extent.length == 0 ? nil : extent.checksum)
                extent.length += UInt64(count)
                tally.counts.withLock { $0.bytesDone += UInt64(count) }
            }
            extents.append(extent)
            offset = next.upperBound
        }
        tally.counts.withLock { $0.bytesDone += size - offset }
        return extents
    }

    /// The next stretch of a local file that is no hole.
    private static func nextData(_ file: Int32, _ offset: UInt64, _ size: UInt64) -> Range<UInt64>?
    {
        guard offset < size else { return nil }
        let start = lseek(file, off_t(offset), seekData)
        if start < 0 {
            // ENXIO: nothing but a hole follows. Else the file system knows no holes.
            return errno == ENXIO ? nil : offset..<size
        }
        let end = lseek(file, start, seekHole)
        let bound = end < 0 ? size : min(size, UInt64(end))
        return UInt64(start) < bound ? UInt64(start)..<bound : nil
    }

    // lseek's whence, hidden behind _GNU_SOURCE.
    private static let seekData: Int32 = 3
    private static let seekHole: Int32 = 4

    /// Reads back what was sent.
    private func check(
        _ extents: [Extent], _ local: [UInt8], _ remote: OpenFile,
        _ buffer: UnsafeMutableRawBufferPointer
    ) throws(CommandFailure) {
        for extent in extents {
            var seen = Extent(offset: extent.offset, length: 0, checksum: Checksum(value: 0))
            while seen.length < extent.length {
                let rest = Int(min(UInt64(buffer.count), extent.length - seen.length))
                let room = UnsafeMutableRawBufferPointer(rebasing: buffer[..<rest])
                let count = try attempt(local.text) { () throws(FileError) in
                    try fileSystem.read(
                        remote, at: extent.offset + seen.length, into: room, tally.cancellation)
                }
                if count == 0 { break }
                seen.checksum = Checksum(
                    of: UnsafeRawBufferPointer(rebasing: room[..<count]),
                    after: seen.length == 0 ? nil : seen.checksum)
                seen.length += UInt64(count)
            }
            guard seen.length == extent.length, seen.checksum == extent.checksum else {
                throw CommandFailure(
                    .failed,
                    "\(local.text): what the cell gives back is not what was written "
                        + "(at \(extent.offset), \(extent.length) bytes)")
            }
        }
    }

    /// Symbolic links, fifos, sockets and devices.
    func copySpecial(
        _ local: [UInt8], _ status: stat, to parent: InodeID, _ name: [UInt8],
        replacing existing: Attributes?
    ) throws(CommandFailure) {
        let isSymlink = status.st_mode & S_IFMT == S_IFLNK
        let target = isSymlink ? try Self.target(of: local) : []
        let temporary = existing == nil ? name : temporaryName(for: name)
        let isThere = try attempt(local.text) { () throws(FileError) in
            if let existing, existing.kind == kind(of: status),
                isSymlink ? try fileSystem.readLink(existing.inode) == target : true
            {
                return true
            }
            if existing != nil { try? fileSystem.unlink(parent, temporary) }
            let owner = owner(status)
            let made =
                isSymlink
                ? try fileSystem.makeSymlink(
                    parent, temporary, target: target, user: owner.user, group: owner.group,
                    tally.cancellation)
                : try fileSystem.makeNode(
                    parent, temporary, kind: kind(of: status),
                    mode: UInt16(status.st_mode & 0o7777), user: owner.user, group: owner.group,
                    device: UInt32(truncatingIfNeeded: status.st_rdev), tally.cancellation)
            _ = try fileSystem.setAttributes(
                made.inode, changes(for: status), size: nil, tally.cancellation)
            if existing != nil {
                try fileSystem.rename(parent, temporary, parent, name, flags: [])
            }
            return false
        }
        tally.counts.withLock { if isThere { $0.skipped += 1 } else { $0.links += 1 } }
    }

    private func kind(of status: stat) -> FileKind {
        switch status.st_mode & S_IFMT {
        case S_IFLNK: .symlink
        case S_IFIFO: .fifo
        case S_IFSOCK: .socket
        case S_IFCHR: .characterDevice
        case S_IFBLK: .blockDevice
        default: .file
        }
    }

    private static func target(of local: [UInt8]) throws(CommandFailure) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Limits.symlinkTarget + 1)
        let count = local.withPath { path in
            bytes.withUnsafeMutableBytes {
                readlink(path, $0.baseAddress!.assumingMemoryBound(to: CChar.self), $0.count)
            }
        }
        guard count >= 0 else { throw CommandFailure(errno: errno, local.text) }
        return Array(bytes[..<count])
    }
}
