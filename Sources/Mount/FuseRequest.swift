// One request of the kernel, and the forms of its answer.
//
// Invariants:
//  1. Each request is answered exactly once: an operation ends in one `reply…` or in `fail`.
//  2. The interrupt function is taken off before the answer, because libfuse frees the request
//     with it; `fuse_req_interrupt_func` waits for a call in progress.

import Base
import CFuse
import Client
import Glibc

/// A request that waits for its answer.
struct FuseRequest {
    let raw: fuse_req_t

    /// The effective user and group of the caller.
    var caller: (user: UInt32, group: UInt32) {
        let context = fuse_req_ctx(raw)!
        return (context.pointee.uid, context.pointee.gid)
    }

    /// Runs what may wait for the network; a signal to the caller cancels it (FUSE_INTERRUPT).
    /// nil: it failed, and the failure was the answer.
    func attempt<Value>(
        _ body: (Cancellation) throws(FileError) -> Value
    ) -> Value? {
        let cancellation = Cancellation()
        fuse_req_interrupt_func(
            raw, { Unmanaged<Cancellation>.fromOpaque($1!).takeUnretainedValue().cancel() },
            Unmanaged.passUnretained(cancellation).toOpaque())
        let outcome: Result<Value, FileError>
        do throws(FileError) {
            outcome = .success(try body(cancellation))
        } catch {
            outcome = .failure(error)
        }
        withExtendedLifetime(cancellation) { fuse_req_interrupt_func(raw, nil, nil) }
        switch outcome {
        case .success(let value): return value
        case .failure(let error):
            fail(error)
            return nil
        }
    }

    func fail(_ error: FileError) { fuse_reply_err(raw, error.errno) }
    func replyDone() { fuse_reply_err(raw, 0) }
    func replyNone() { fuse_reply_none(raw) }
    func reply(written count: Int) { fuse_reply_write(raw, count) }
    func reply(size: Int) { fuse_reply_xattr(raw, size) }

    func reply(entry attributes: Attributes) {
        var entry = fuse_entry_param(attributes)
        fuse_reply_entry(raw, &entry)
    }

    func reply(_ attributes: Attributes) {
        var status = stat(attributes)
        fuse_reply_attr(raw, &status, fuse_entry_param.tick)
    }

    func reply(target: [UInt8]) {
        (target + [0]).withUnsafeBytes { bytes in
            _ = fuse_reply_readlink(raw, bytes.baseAddress!.assumingMemoryBound(to: CChar.self))
        }
    }

    func reply(bytes: UnsafeRawBufferPointer) {
        fuse_reply_buf(
            raw, bytes.baseAddress?.assumingMemoryBound(to: CChar.self), bytes.count)
    }

    /// The value of an attribute or a list of names: its size if `room` is 0, ERANGE if too small.
    func reply(extended bytes: [UInt8], room: Int) {
        if room == 0 { return reply(size: bytes.count) }
        if room < bytes.count { return fail(.range) }
        bytes.withUnsafeBytes { reply(bytes: $0) }
    }

    /// False if the caller went away: the handle must be released.
    func reply(open info: UnsafeMutablePointer<fuse_file_info>) -> Bool {
        fuse_reply_open(raw, info) == 0
    }
    func reply(created attributes: Attributes, _ info: UnsafeMutablePointer<fuse_file_info>) -> Bool
    {
        var entry = fuse_entry_param(attributes)
        return fuse_reply_create(raw, &entry, info) == 0
    }
}

extension fuse_entry_param {
    /// Attributes, and names of directories, last a clock tick of the kernel (1 to 10 ms), which
    /// rounds up: long enough for the checks of one walk, whose lookups have just fetched them
    /// (decision 0004).
    static let tick = 0.000_001

    /// Names of what is no directory are looked up each time, until there are capabilities
    /// (DESIGN 3.5).
    init(_ attributes: Attributes) {
        self.init()
        ino = attributes.inode.rawValue
        attr_timeout = Self.tick
        if attributes.kind == .directory { entry_timeout = Self.tick }
        attr = stat(attributes)
    }
}

extension stat {
    init(_ attributes: Attributes) {
        self.init()
        st_ino = UInt(attributes.inode.rawValue)
        st_mode = attributes.kind.typeBits | mode_t(attributes.mode)
        st_nlink = nlink_t(attributes.links)
        st_uid = attributes.user
        st_gid = attributes.group
        st_rdev = dev_t(attributes.device)
        st_size = off_t(attributes.size)
        st_blksize = blksize_t(Limits.block)
        st_blocks = blkcnt_t((attributes.size + 511) / 512)
        st_atim = timespec(attributes.accessed)
        st_mtim = timespec(attributes.modified)
        st_ctim = timespec(attributes.changed)
    }
}

extension timespec {
    init(_ time: Timestamp) {
        let (seconds, rest) = time.nanoseconds.quotientAndRemainder(dividingBy: 1_000_000_000)
        self.init(
            tv_sec: Int(rest < 0 ? seconds - 1 : seconds),
            tv_nsec: Int(rest < 0 ? rest + 1_000_000_000 : rest))
    }
}

extension Timestamp {
    /// Clamped to what 64 bits of nanoseconds can say: the years 1677 to 2262.
    init(_ time: timespec) {
        let bound = Int(Int64.max / 1_000_000_000) - 1
        let seconds = Int64(max(-bound, min(bound, time.tv_sec)))
        self.init(nanoseconds: seconds * 1_000_000_000 + Int64(time.tv_nsec))
    }
}

extension FileKind {
    /// The file type bits of st_mode.
    var typeBits: mode_t {
        switch self {
        case .file: S_IFREG
        case .directory: S_IFDIR
        case .symlink: S_IFLNK
        case .fifo: S_IFIFO
        case .socket: S_IFSOCK
        case .characterDevice: S_IFCHR
        case .blockDevice: S_IFBLK
        }
    }
    /// nil for bits that are no type.
    init?(typeBits mode: mode_t) {
        switch mode & S_IFMT {
        case S_IFREG, 0: self = .file
        case S_IFDIR: self = .directory
        case S_IFLNK: self = .symlink
        case S_IFIFO: self = .fifo
        case S_IFSOCK: self = .socket
        case S_IFCHR: self = .characterDevice
        case S_IFBLK: self = .blockDevice
        default: return nil
        }
    }
}
