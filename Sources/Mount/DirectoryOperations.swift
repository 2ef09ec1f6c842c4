// Reading directories as libfuse calls it. Offsets are the cell's cookies, which start at 3:
// 1 follows ".", 2 follows "..".
//
// Invariants:
//  1. An offset means the same to every open directory and for ever, so seekdir works.
//  2. Attributes are never older than the request that carries them: an older size would make the
//     kernel drop pages that were written meanwhile. Names may be as old as the open directory's
//     last read from its start.

import Base
import CFuse
import Client
import Glibc
import Synchronization

/// Names read ahead for one open directory.
final class DirectoryHandle: Sendable {
    /// Names that follow `offset`, in order.
    struct Ahead {
        var offset: UInt64 = 0
        var entries: ArraySlice<DirectoryEntry> = []
        var atEnd = false
    }
    let ahead = Mutex(Ahead())
}

/// Fills the kernel's buffer with names.
private struct NameBuffer {
    let request: FuseRequest
    let room: UnsafeMutableRawBufferPointer
    var used = 0

    /// False if there is no room for it.
    mutating func add(_ name: [UInt8], _ status: stat, offset: UInt64) -> Bool {
        let request = request.raw
        return add(name) { start, room, name in
            withUnsafePointer(to: status) {
                fuse_add_direntry(request, start, room, name, $0, off_t(offset))
            }
        }
    }
    /// The same with attributes; an entry without an inode number says that there are none.
    mutating func add(_ name: [UInt8], _ entry: fuse_entry_param, offset: UInt64) -> Bool {
        let request = request.raw
        return add(name) { start, room, name in
            withUnsafePointer(to: entry) {
                fuse_add_direntry_plus(request, start, room, name, $0, off_t(offset))
            }
        }
    }
    private mutating func add(
        _ name: [UInt8],
        _ place: (UnsafeMutablePointer<CChar>?, Int, UnsafePointer<CChar>) -> Int
    ) -> Bool {
        let start = room.baseAddress! + used
        let size = (name + [0]).withUnsafeBytes { bytes in
            place(
                start.assumingMemoryBound(to: CChar.self), room.count - used,
                bytes.baseAddress!.assumingMemoryBound(to: CChar.self))
        }
        guard size <= room.count - used else { return false }
        used += size
        return true
    }
}

extension FuseOperations {
    func opendir(_ request: FuseRequest, _ info: UnsafeMutablePointer<fuse_file_info>) {
        let handle = Unmanaged.passRetained(DirectoryHandle())
        info.pointee.fh = UInt64(UInt(bitPattern: handle.toOpaque()))
        if !request.reply(open: info) { handle.release() }
    }

    func releasedir(_ request: FuseRequest, _ info: UnsafePointer<fuse_file_info>) {
        Unmanaged<DirectoryHandle>
            .fromOpaque(UnsafeRawPointer(bitPattern: UInt(info.pointee.fh))!).release()
        request.replyDone()
    }

    func readdir(
        _ request: FuseRequest, _ number: fuse_ino_t, _ size: Int, _ offset: off_t,
        _ info: UnsafePointer<fuse_file_info>
    ) {
        let handle = Unmanaged<DirectoryHandle>
            .fromOpaque(UnsafeRawPointer(bitPattern: UInt(info.pointee.fh))!)
            .takeUnretainedValue()
        buffers.withBuffer { buffer in
            let room = UnsafeMutableRawBufferPointer(rebasing: buffer.prefix(size))
            var names = NameBuffer(request: request, room: room)
            let used = request.attempt { (cancellation) throws(FileError) in
                var offset = addDots(number, from: UInt64(offset)) {
                    names.add($0, fuse_entry_param(dots: $1).attr, offset: $2)
                }
                var ahead = handle.ahead.withLock { $0 }
                if ahead.offset != offset || offset <= 2 { ahead = .init(offset: offset) }
                filling: while true {
                    if ahead.entries.isEmpty {
                        if ahead.atEnd { break }
                        let page = try fileSystem.readDirectory(
                            inode(number), after: offset <= 2 ? 0 : offset,
                            limit: Limits.directoryPage, withAttributes: false, cancellation)
                        ahead.entries = page.entries[...]
                        ahead.atEnd = page.atEnd
                        if page.entries.isEmpty { break }
                    }
                    while let entry = ahead.entries.first {
                        let status = fuse_entry_param(named: entry).attr
                        guard names.add(entry.name, status, offset: entry.cookie) else {
                            break filling
                        }
                        ahead.entries.removeFirst()
                        offset = entry.cookie
                    }
                }
                ahead.offset = offset
                handle.ahead.withLock { $0 = ahead }
                return names.used
            }
            if let used { request.reply(bytes: UnsafeRawBufferPointer(rebasing: room[..<used])) }
        }
    }

    func readdirplus(
        _ request: FuseRequest, _ number: fuse_ino_t, _ size: Int, _ offset: off_t
    ) {
        buffers.withBuffer { buffer in
            let room = UnsafeMutableRawBufferPointer(rebasing: buffer.prefix(size))
            var names = NameBuffer(request: request, room: room)
            let used = request.attempt { (cancellation) throws(FileError) in
                let offset = addDots(number, from: UInt64(offset)) {
                    names.add($0, fuse_entry_param(dots: $1), offset: $2)
                }
                // 152 bytes and the name: no more are asked for than can fit.
                let limit = max(1, min(Limits.directoryPage, (size - names.used) / 160))
                let page = try fileSystem.readDirectory(
                    inode(number), after: offset <= 2 ? 0 : offset, limit: limit,
                    withAttributes: true, cancellation)
                for entry in page.entries {
                    let known = entry.attributes.map { fuse_entry_param($0) }
                    guard
                        names.add(
                            entry.name, known ?? fuse_entry_param(named: entry),
                            offset: entry.cookie)
                    else { break }
                }
                return names.used
            }
            if let used { request.reply(bytes: UnsafeRawBufferPointer(rebasing: room[..<used])) }
        }
    }

    /// Adds "." and ".." where the offset is before them; the offset after them.
    private func addDots(
        _ number: fuse_ino_t, from offset: UInt64,
        _ add: ([UInt8], fuse_ino_t, UInt64) -> Bool
    ) -> UInt64 {
        var offset = offset
        let dot = UInt8(ascii: ".")
        if offset == 0, add([dot], number, 1) { offset = 1 }
        if offset == 1, add([dot, dot], number, 2) { offset = 2 }
        return offset
    }
}

extension fuse_entry_param {
    /// A name without attributes: the kernel takes number and type for readdir only.
    fileprivate init(named entry: DirectoryEntry) {
        self.init()
        attr.st_ino = UInt(entry.inode.rawValue)
        attr.st_mode = entry.kind.typeBits
    }
    fileprivate init(dots number: fuse_ino_t) {
        self.init()
        attr.st_ino = UInt(number)
        attr.st_mode = S_IFDIR
    }
}
