// The operations that a disk's folder needs, as libfuse calls them. The handle of an open file is
// a descriptor of the file below.

import CFuse
import Glibc

/// Does something and answers how it ended.
private func answer(_ request: fuse_req_t?, _ body: () throws(Failure) -> Void) {
    do throws(Failure) {
        try body()
        fuse_reply_err(request, 0)
    } catch { fuse_reply_err(request, error.code) }
}

private func check(_ result: Int32) throws(Failure) {
    if result < 0 { throw Failure(code: errno) }
}

private func text(_ name: UnsafePointer<CChar>?) -> String {
    name.map { String(cString: $0) } ?? ""
}

/// What a name stands for; the control file stands beside those of the folder.
private func entry(_ folder: UInt64, _ name: String) throws(Failure) -> fuse_entry_param {
    var entry = fuse_entry_param()
    if folder == UInt64(FUSE_ROOT_ID), name == Main.controlName {
        entry.attr = controlAttributes()
    } else {
        let path = Main.lossy.path(folder, name)
        try check(lstat(path, &entry.attr))
        Main.lossy.note(UInt64(entry.attr.st_ino), path)
    }
    entry.ino = UInt64(entry.attr.st_ino)
    return entry
}
private func controlAttributes() -> stat {
    var status = stat()
    status.st_ino = UInt(Main.control)
    status.st_mode = S_IFREG | 0o600
    status.st_nlink = 1
    return status
}
private func attributes(_ inode: UInt64) throws(Failure) -> stat {
    if inode == Main.control { return controlAttributes() }
    var status = stat()
    try check(lstat(Main.lossy.path(inode) ?? "", &status))
    status.st_ino = UInt(inode)
    return status
}

private func reply(_ request: fuse_req_t?, _ found: () throws(Failure) -> fuse_entry_param) {
    do throws(Failure) {
        var entry = try found()
        fuse_reply_entry(request, &entry)
    } catch { fuse_reply_err(request, error.code) }
}
private func reply(_ request: fuse_req_t?, attributes found: () throws(Failure) -> stat) {
    do throws(Failure) {
        var status = try found()
        fuse_reply_attr(request, &status, 0)
    } catch { fuse_reply_err(request, error.code) }
}

private func openBelow(
    _ path: String, _ info: UnsafeMutablePointer<fuse_file_info>, create: mode_t? = nil
) throws(Failure) {
    let flags = O_RDWR | O_CLOEXEC | (create == nil ? 0 : O_CREAT)
    let file = open(path, flags | (info.pointee.flags & (O_EXCL | O_TRUNC)), create ?? 0)
    try check(file)
    info.pointee.fh = UInt64(file)
    // The kernel keeps nothing: all reads and writes come here.
    info.pointee.direct_io = 1
}

private func list(_ inode: UInt64, _ request: fuse_req_t?, _ size: Int, _ offset: Int) {
    guard let folder = opendir(Main.lossy.path(inode) ?? "") else {
        fuse_reply_err(request, errno)
        return
    }
    defer { closedir(folder) }
    var buffer = [CChar](repeating: 0, count: size)
    var used = 0
    var number = 0
    while let found = readdir(folder) {
        number += 1
        if number <= offset { continue }
        var status = stat()
        status.st_ino = found.pointee.d_ino
        status.st_mode = mode_t(found.pointee.d_type) << 12
        let name = withUnsafeBytes(of: &found.pointee.d_name) { bytes in
            String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
        let room = size - used
        let need = buffer.withUnsafeMutableBufferPointer {
            fuse_add_direntry(
                request, $0.baseAddress! + used, room, name, &status, off_t(number))
        }
        if need > room { break }
        used += need
    }
    fuse_reply_buf(request, buffer, used)
}

extension Main {
    static var table: fuse_lowlevel_ops {
        var table = fuse_lowlevel_ops()
        addNames(to: &table)
        addFiles(to: &table)
        return table
    }

    private static func addNames(to table: inout fuse_lowlevel_ops) {
        table.lookup = { request, folder, name in
            reply(request) { () throws(Failure) in try entry(folder, text(name)) }
        }
        table.getattr = { request, inode, _ in
            reply(request, attributes: { () throws(Failure) in try attributes(inode) })
        }
        table.setattr = { request, inode, wanted, set, _ in
            reply(
                request,
                attributes: { () throws(Failure) in
                    if inode != Main.control, set & FUSE_SET_ATTR_SIZE != 0 {
                        // Nobody here shortens a file but to empty it.
                        Main.lossy.forget(inode)
                        try check(truncate(Main.lossy.path(inode) ?? "", wanted!.pointee.st_size))
                    }
                    return try attributes(inode)
                })
        }
        table.mkdir = { request, folder, name, mode in
            reply(request) { () throws(Failure) in
                try check(mkdir(Main.lossy.path(folder, text(name)), mode))
                return try entry(folder, text(name))
            }
        }
        table.unlink = { request, folder, name in
            answer(request) { () throws(Failure) in
                let inode = try entry(folder, text(name)).ino
                try check(unlink(Main.lossy.path(folder, text(name))))
                Main.lossy.forget(inode)
            }
        }
        table.rmdir = { request, folder, name in
            answer(request) { () throws(Failure) in
                try check(rmdir(Main.lossy.path(folder, text(name))))
            }
        }
        table.readdir = { request, inode, size, offset, _ in list(inode, request, size, offset) }
        table.statfs = { request, _ in
            var system = statvfs()
            let result = statvfs(Main.lossy.path(UInt64(FUSE_ROOT_ID)) ?? "", &system)
            _ = result == 0 ? fuse_reply_statfs(request, &system) : fuse_reply_err(request, errno)
        }
    }

    private static func addFiles(to table: inout fuse_lowlevel_ops) {
        table.create = { request, folder, name, mode, info in
            do throws(Failure) {
                try openBelow(Main.lossy.path(folder, text(name)), info!, create: mode)
                var made = try entry(folder, text(name))
                fuse_reply_create(request, &made, info)
            } catch { fuse_reply_err(request, error.code) }
        }
        table.open = { request, inode, info in
            do throws(Failure) {
                if inode != Main.control {
                    if info!.pointee.flags & O_TRUNC != 0 { Main.lossy.forget(inode) }
                    try openBelow(Main.lossy.path(inode) ?? "", info!)
                }
                fuse_reply_open(request, info)
            } catch { fuse_reply_err(request, error.code) }
        }
        table.release = { request, inode, info in
            if inode != Main.control { close(Int32(info!.pointee.fh)) }
            fuse_reply_err(request, 0)
        }
        table.read = { request, inode, size, offset, info in
            do throws(Failure) {
                let file = Int32(info!.pointee.fh)
                let bytes = try Main.lossy.read(inode, file, size, at: Int(offset))
                bytes.withUnsafeBytes { raw in
                    let start = raw.baseAddress?.assumingMemoryBound(to: CChar.self)
                    _ = fuse_reply_buf(request, start, raw.count)
                }
            } catch { fuse_reply_err(request, error.code) }
        }
        table.write = { request, inode, bytes, size, offset, info in
            let content = UnsafeRawBufferPointer(start: bytes, count: size)
            do throws(Failure) {
                if inode == Main.control {
                    try Main.lossy.command(String(decoding: content, as: UTF8.self))
                } else {
                    try Main.lossy.write(
                        inode, Int32(info!.pointee.fh), [UInt8](content), at: Int(offset),
                        isDurable: info!.pointee.flags & O_DSYNC != 0)
                }
                fuse_reply_write(request, size)
            } catch { fuse_reply_err(request, error.code) }
        }
        table.fsync = { request, inode, _, info in
            answer(request) { () throws(Failure) in
                if inode != Main.control { try Main.lossy.sync(inode, Int32(info!.pointee.fh)) }
            }
        }
        table.fallocate = { request, _, mode, offset, length, info in
            // Other modes are not needed.
            let file = Int32(info!.pointee.fh)
            fuse_reply_err(request, mode == 0 ? posix_fallocate(file, offset, length) : EOPNOTSUPP)
        }
    }
}
