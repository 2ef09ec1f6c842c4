// The table that libfuse calls, and the capabilities that are agreed on with the kernel.

import CFuse
import Glibc

extension FuseOperations {
    /// What libfuse calls; its user data must be a FuseOperations.
    static var table: fuse_lowlevel_ops {
        var table = fuse_lowlevel_ops()
        table.`init` = { agree($1!) }
        addNames(to: &table)
        addFiles(to: &table)
        addAttributes(to: &table)
        return table
    }

    private static func addNames(to table: inout fuse_lowlevel_ops) {
        table.lookup = { of($0).lookup(FuseRequest(raw: $0!), $1, $2!) }
        table.forget = { request, _, _ in FuseRequest(raw: request!).replyNone() }
        table.forget_multi = { request, _, _ in FuseRequest(raw: request!).replyNone() }
        table.readlink = { of($0).readlink(FuseRequest(raw: $0!), $1) }
        table.mknod = { request, parent, name, mode, device in
            of(request).makeNode(
                FuseRequest(raw: request!), parent, name!, mode: mode, device: device)
        }
        table.mkdir = { request, parent, name, mode in
            of(request).makeNode(
                FuseRequest(raw: request!), parent, name!, mode: mode & 0o7777 | S_IFDIR, device: 0)
        }
        table.unlink = { of($0).unlink(FuseRequest(raw: $0!), $1, $2!) }
        table.rmdir = { of($0).rmdir(FuseRequest(raw: $0!), $1, $2!) }
        table.symlink = { of($0).symlink(FuseRequest(raw: $0!), $1!, $2, $3!) }
        table.rename = { request, parent, name, newParent, newName, flags in
            of(request).rename(
                FuseRequest(raw: request!), parent, name!, newParent, newName!, flags: flags)
        }
        table.link = { of($0).link(FuseRequest(raw: $0!), $1, $2, $3!) }
        table.opendir = { request, _, info in
            of(request).opendir(FuseRequest(raw: request!), info!)
        }
        table.readdir = { of($0).readdir(FuseRequest(raw: $0!), $1, $2, $3, $4!) }
        table.readdirplus = { request, number, size, offset, _ in
            of(request).readdirplus(FuseRequest(raw: request!), number, size, offset)
        }
        table.releasedir = { request, _, info in
            of(request).releasedir(FuseRequest(raw: request!), info!)
        }
    }

    private static func addFiles(to table: inout fuse_lowlevel_ops) {
        table.open = { of($0).open(FuseRequest(raw: $0!), $1, $2!) }
        table.create = { of($0).create(FuseRequest(raw: $0!), $1, $2!, $3, $4!) }
        table.read = { request, _, size, offset, info in
            of(request).read(FuseRequest(raw: request!), size, offset, info!)
        }
        table.write = { request, _, bytes, size, offset, info in
            of(request).write(
                FuseRequest(raw: request!), UnsafeRawBufferPointer(start: bytes, count: size),
                offset, info!)
        }
        table.flush = { request, _, info in of(request).flush(FuseRequest(raw: request!), info!) }
        table.fsync = { request, _, dataOnly, info in
            of(request).fsync(FuseRequest(raw: request!), dataOnly: dataOnly != 0, info!)
        }
        table.release = { request, _, info in
            of(request).release(FuseRequest(raw: request!), info!)
        }
    }

    private static func addAttributes(to table: inout fuse_lowlevel_ops) {
        table.getattr = { request, number, _ in
            of(request).getattr(FuseRequest(raw: request!), number)
        }
        table.setattr = { request, number, wanted, set, _ in
            of(request).setattr(FuseRequest(raw: request!), number, wanted!, set)
        }
        table.statfs = { request, _ in of(request).statfs(FuseRequest(raw: request!)) }
        table.getxattr = { of($0).getxattr(FuseRequest(raw: $0!), $1, $2!, $3) }
        table.listxattr = { of($0).listxattr(FuseRequest(raw: $0!), $1, $2) }
        table.setxattr = { request, number, name, value, size, flags in
            of(request).setxattr(
                FuseRequest(raw: request!), number, name!,
                UnsafeRawBufferPointer(start: value, count: size), flags)
        }
        table.removexattr = { of($0).removexattr(FuseRequest(raw: $0!), $1, $2!) }
    }
}

/// The operations behind a request.
private func of(_ request: fuse_req_t?) -> FuseOperations {
    Unmanaged<FuseOperations>.fromOpaque(fuse_req_userdata(request)!).takeUnretainedValue()
}

/// What we want of the kernel. Not wanted: splice (checksums need the bytes), the writeback
/// cache (size and times are ours), HANDLE_KILLPRIV (the kernel clears set-uid bits), umask
/// and ACLs of our own, AUTO_INVAL_DATA (it asks for attributes before each read; an open
/// drops cached pages anyway).
private func agree(_ connection: UnsafeMutablePointer<fuse_conn_info>) {
    let wanted: [Int32] = [
        FUSE_CAP_ASYNC_READ, FUSE_CAP_ASYNC_DIO, FUSE_CAP_PARALLEL_DIROPS,
        FUSE_CAP_READDIRPLUS, FUSE_CAP_READDIRPLUS_AUTO, FUSE_CAP_ATOMIC_O_TRUNC,
    ]
    let bits = wanted.reduce(0 as UInt32) { $0 | UInt32(bitPattern: $1) }
    connection.pointee.want = connection.pointee.capable & bits
    connection.pointee.max_write = UInt32(BufferPool.size)
    connection.pointee.max_background = 64
    connection.pointee.congestion_threshold = 48
    connection.pointee.time_gran = 1
}
