// Open files as libfuse calls them. The kernel's handle is a retained FileHandle.
//
// Invariants:
//  1. A handle is made by open or create and released once: by release, or at once when the
//     caller went away before the answer.
//  2. Bytes read are answered from a pooled buffer on this thread: no hop, and no copy but the
//     kernel's.

import Base
import CFuse
import Client
import Glibc
import Synchronization

/// What the kernel's file handle stands for.
final class FileHandle: Sendable {
    let file: OpenFile
    let appends: Bool
    init(file: OpenFile, appends: Bool) {
        self.file = file
        self.appends = appends
    }

    /// The handle in an open file's information; still owned by it.
    static func of(_ info: UnsafePointer<fuse_file_info>) -> FileHandle {
        Unmanaged.fromOpaque(UnsafeRawPointer(bitPattern: UInt(info.pointee.fh))!)
            .takeUnretainedValue()
    }
    /// Gives the handle to an open file's information.
    func give(to info: UnsafeMutablePointer<fuse_file_info>) {
        info.pointee.fh = UInt64(UInt(bitPattern: Unmanaged.passRetained(self).toOpaque()))
    }
    /// Takes it back.
    static func take(from info: UnsafePointer<fuse_file_info>) -> FileHandle {
        Unmanaged.fromOpaque(UnsafeRawPointer(bitPattern: UInt(info.pointee.fh))!)
            .takeRetainedValue()
    }
}

/// Page-aligned buffers of the largest read, kept for reuse.
final class BufferPool: @unchecked Sendable {
    static let size = 1 << 20
    /// Free buffers kept; the rest goes back to the system.
    private static let kept = 8
    private let free = Mutex<[Int]>([])

    func withBuffer<Value>(_ body: (UnsafeMutableRawBufferPointer) -> Value) -> Value {
        let reused = free.withLock { $0.popLast() }.flatMap {
            UnsafeMutableRawPointer(bitPattern: $0)
        }
        let start = reused ?? .allocate(byteCount: Self.size, alignment: Limits.page)
        defer {
            let isKept = free.withLock { free in
                guard free.count < Self.kept else { return false }
                free.append(Int(bitPattern: start))
                return true
            }
            if !isKept { start.deallocate() }
        }
        return body(UnsafeMutableRawBufferPointer(start: start, count: Self.size))
    }
}

extension FuseOperations {
    private func options(_ flags: Int32) -> OpenOptions {
        let access = flags & O_ACCMODE
        return OpenOptions(
            read: access != O_WRONLY, write: access != O_RDONLY, append: flags & O_APPEND != 0,
            truncate: flags & O_TRUNC != 0)
    }

    func open(
        _ request: FuseRequest, _ number: fuse_ino_t, _ info: UnsafeMutablePointer<fuse_file_info>
    ) {
        let options = options(info.pointee.flags)
        let opened = request.attempt { (cancellation) throws(FileError) in
            try fileSystem.open(inode(number), options: options, cancellation).0
        }
        guard let opened else { return }
        FileHandle(file: opened, appends: options.append).give(to: info)
        if !request.reply(open: info) { fileSystem.release(FileHandle.take(from: info).file) }
    }

    func create(
        _ request: FuseRequest, _ parent: fuse_ino_t, _ name: UnsafePointer<CChar>, _ mode: mode_t,
        _ info: UnsafeMutablePointer<fuse_file_info>
    ) {
        let options = options(info.pointee.flags)
        let exclusive = info.pointee.flags & O_EXCL != 0
        let caller = request.caller
        let created = request.attempt { (cancellation) throws(FileError) in
            try fileSystem.create(
                inode(parent), try self.name(name), mode: UInt16(mode & 0o7777),
                user: caller.user, group: caller.group, exclusive: exclusive, options: options,
                cancellation)
        }
        guard let (file, attributes) = created else { return }
        FileHandle(file: file, appends: options.append).give(to: info)
        if !request.reply(created: attributes, info) {
            fileSystem.release(FileHandle.take(from: info).file)
        }
    }

    func read(
        _ request: FuseRequest, _ size: Int, _ offset: off_t, _ info: UnsafePointer<fuse_file_info>
    ) {
        let handle = FileHandle.of(info)
        buffers.withBuffer { buffer in
            let room = UnsafeMutableRawBufferPointer(rebasing: buffer.prefix(size))
            let count = request.attempt { (cancellation) throws(FileError) in
                var filled = 0
                while filled < room.count {
                    let rest = UnsafeMutableRawBufferPointer(rebasing: room[filled...])
                    let count = try fileSystem.read(
                        handle.file, at: UInt64(offset) + UInt64(filled), into: rest, cancellation)
                    if count == 0 { break }
                    filled += count
                }
                return filled
            }
            if let count { request.reply(bytes: UnsafeRawBufferPointer(rebasing: room[..<count])) }
        }
    }

    func write(
        _ request: FuseRequest, _ bytes: UnsafeRawBufferPointer, _ offset: off_t,
        _ info: UnsafePointer<fuse_file_info>
    ) {
        let handle = FileHandle.of(info)
        let isPage = info.pointee.writepage != 0
        let done: Void? = request.attempt { (cancellation) throws(FileError) in
            if isPage && handle.appends {
                try writePage(handle.file.inode, bytes, UInt64(offset), cancellation)
            } else {
                try fileSystem.write(handle.file, at: UInt64(offset), bytes, cancellation)
            }
        }
        if done != nil { request.reply(written: bytes.count) }
    }

    /// The kernel writes a mapped page through any open file of the inode; through one that
    /// appends, it would go to the end of the file.
    private func writePage(
        _ inode: InodeID, _ bytes: UnsafeRawBufferPointer, _ offset: UInt64,
        _ cancellation: Cancellation
    ) throws(FileError) {
        let options = OpenOptions(
            read: false, write: true, append: false, truncate: false)
        let file = try fileSystem.open(inode, options: options, cancellation).0
        defer { fileSystem.release(file) }
        try fileSystem.write(file, at: offset, bytes, cancellation)
        try fileSystem.flush(file, cancellation)
    }

    func flush(_ request: FuseRequest, _ info: UnsafePointer<fuse_file_info>) {
        let done: Void? = request.attempt { (cancellation) throws(FileError) in
            try fileSystem.flush(FileHandle.of(info).file, cancellation)
        }
        if done != nil { request.replyDone() }
    }

    func fsync(
        _ request: FuseRequest, dataOnly: Bool, _ info: UnsafePointer<fuse_file_info>
    ) {
        let done: Void? = request.attempt { (cancellation) throws(FileError) in
            try fileSystem.sync(FileHandle.of(info).file, dataOnly: dataOnly, cancellation)
        }
        if done != nil { request.replyDone() }
    }

    func release(_ request: FuseRequest, _ info: UnsafePointer<fuse_file_info>) {
        fileSystem.release(FileHandle.take(from: info).file)
        request.replyDone()
    }
}
