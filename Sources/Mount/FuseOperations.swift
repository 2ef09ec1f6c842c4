// The file system as libfuse calls it: names and attributes. One short function for each
// operation; the table that libfuse gets is in FuseTable.swift, files are in FileOperations.swift,
// directories in DirectoryOperations.swift.
//
// What is not here is the kernel's: permission checks (default_permissions), umask, locks, access,
// lseek, fallocate (EOPNOTSUPP), fsyncdir (a reply to a change is durable already).
//
// Invariants:
//  1. Node numbers of the kernel are inode ids; 1 is the directory that is mounted. Inode ids are
//     never reissued (S8), so a forget needs nothing and an old handle finds nobody else's file.
//  2. The kernel caches no attributes, no names and no data beyond an open (DESIGN 3.5).

import Base
import CFuse
import Client
import Glibc
import Wire

/// The operations of one mounted cell.
final class FuseOperations: Sendable {
    let fileSystem: FileSystem
    /// The directory that is mounted.
    let root: InodeID
    let buffers = BufferPool()

    init(fileSystem: FileSystem, root: InodeID) {
        self.fileSystem = fileSystem
        self.root = root
    }

    func inode(_ number: fuse_ino_t) -> InodeID {
        number == UInt64(FUSE_ROOT_ID) ? root : InodeID(rawValue: number)
    }

    /// The bytes of a name; longer ones than the cell has never leave this machine.
    func name(_ name: UnsafePointer<CChar>) throws(FileError) -> [UInt8] {
        let count = strlen(name)
        guard count <= Limits.nameLength else { throw .nameTooLong }
        return Array(UnsafeRawBufferPointer(start: name, count: count))
    }

    func lookup(_ request: FuseRequest, _ parent: fuse_ino_t, _ name: UnsafePointer<CChar>) {
        let found = request.attempt { (cancellation) throws(FileError) in
            try fileSystem.lookup(inode(parent), try self.name(name), cancellation)
        }
        if let found { request.reply(entry: found) }
    }

    func getattr(_ request: FuseRequest, _ number: fuse_ino_t) {
        let found = request.attempt { (cancellation) throws(FileError) in
            try fileSystem.attributes(inode(number), cancellation)
        }
        if let found { request.reply(found) }
    }

    func setattr(
        _ request: FuseRequest, _ number: fuse_ino_t, _ wanted: UnsafePointer<stat>, _ set: Int32
    ) {
        func isSet(_ bit: Int32) -> Bool { set & bit != 0 }
        func time(_ bit: Int32, _ now: Int32, _ value: timespec) -> AttributeChanges.Time? {
            isSet(now) ? .now : isSet(bit) ? .at(Timestamp(value)) : nil
        }
        var changes = AttributeChanges()
        if isSet(FUSE_SET_ATTR_MODE) { changes.mode = UInt16(wanted.pointee.st_mode & 0o7777) }
        if isSet(FUSE_SET_ATTR_UID) { changes.user = wanted.pointee.st_uid }
        if isSet(FUSE_SET_ATTR_GID) { changes.group = wanted.pointee.st_gid }
        changes.accessed = time(
            FUSE_SET_ATTR_ATIME, FUSE_SET_ATTR_ATIME_NOW, wanted.pointee.st_atim)
        changes.modified = time(
            FUSE_SET_ATTR_MTIME, FUSE_SET_ATTR_MTIME_NOW, wanted.pointee.st_mtim)
        let size = isSet(FUSE_SET_ATTR_SIZE) ? UInt64(wanted.pointee.st_size) : nil
        let changed = request.attempt { (cancellation) throws(FileError) in
            try fileSystem.setAttributes(inode(number), changes, size: size, cancellation)
        }
        if let changed { request.reply(changed) }
    }

    func readlink(_ request: FuseRequest, _ number: fuse_ino_t) {
        let target = request.attempt { (cancellation) throws(FileError) in
            try fileSystem.readLink(inode(number), cancellation)
        }
        if let target { request.reply(target: target) }
    }

    func makeNode(
        _ request: FuseRequest, _ parent: fuse_ino_t, _ name: UnsafePointer<CChar>, mode: mode_t,
        device: dev_t
    ) {
        let caller = request.caller
        let made = request.attempt { (cancellation) throws(FileError) in
            guard let kind = FileKind(typeBits: mode) else { throw .invalid }
            return try fileSystem.makeNode(
                inode(parent), try self.name(name), kind: kind, mode: UInt16(mode & 0o7777),
                user: caller.user, group: caller.group, device: UInt32(truncatingIfNeeded: device),
                cancellation)
        }
        if let made { request.reply(entry: made) }
    }

    func symlink(
        _ request: FuseRequest, _ target: UnsafePointer<CChar>, _ parent: fuse_ino_t,
        _ name: UnsafePointer<CChar>
    ) {
        let caller = request.caller
        let made = request.attempt { (cancellation) throws(FileError) in
            try fileSystem.makeSymlink(
                inode(parent), try self.name(name),
                target: Array(UnsafeRawBufferPointer(start: target, count: strlen(target))),
                user: caller.user, group: caller.group, cancellation)
        }
        if let made { request.reply(entry: made) }
    }

    func link(
        _ request: FuseRequest, _ number: fuse_ino_t, _ parent: fuse_ino_t,
        _ name: UnsafePointer<CChar>
    ) {
        let linked = request.attempt { (cancellation) throws(FileError) in
            try fileSystem.link(inode(number), inode(parent), try self.name(name), cancellation)
        }
        if let linked { request.reply(entry: linked) }
    }

    func unlink(_ request: FuseRequest, _ parent: fuse_ino_t, _ name: UnsafePointer<CChar>) {
        let done: Void? = request.attempt { (cancellation) throws(FileError) in
            try fileSystem.unlink(inode(parent), try self.name(name), cancellation)
        }
        if done != nil { request.replyDone() }
    }

    func rmdir(_ request: FuseRequest, _ parent: fuse_ino_t, _ name: UnsafePointer<CChar>) {
        let done: Void? = request.attempt { (cancellation) throws(FileError) in
            try fileSystem.removeDirectory(inode(parent), try self.name(name), cancellation)
        }
        if done != nil { request.replyDone() }
    }

    /// Flags that we do not know are refused: RENAME_WHITEOUT must not become a plain rename.
    func rename(
        _ request: FuseRequest, _ parent: fuse_ino_t, _ name: UnsafePointer<CChar>,
        _ newParent: fuse_ino_t, _ newName: UnsafePointer<CChar>, flags: UInt32
    ) {
        let done: Void? = request.attempt { (cancellation) throws(FileError) in
            let wanted: RenameFlags
            switch flags {
            case 0: wanted = []
            case MARTLET_RENAME_NOREPLACE: wanted = .noReplace
            case MARTLET_RENAME_EXCHANGE: wanted = .exchange
            default: throw .invalid
            }
            try fileSystem.rename(
                inode(parent), try self.name(name), inode(newParent), try self.name(newName),
                flags: wanted, cancellation)
        }
        if done != nil { request.replyDone() }
    }

    func statfs(_ request: FuseRequest) {
        let found = request.attempt { (cancellation) throws(FileError) in
            try fileSystem.statistics(cancellation)
        }
        guard let found else { return }
        let page = UInt(Limits.page)
        let free = UInt(found.free) / page
        var answer = statvfs()
        answer.f_bsize = page
        answer.f_frsize = page
        answer.f_blocks = UInt(found.capacity) / page
        answer.f_bfree = free
        answer.f_bavail = free
        // Inodes are bounded by memory only: as many as there are free pages.
        answer.f_files = UInt(found.files) + free
        answer.f_ffree = free
        answer.f_favail = free
        answer.f_namemax = UInt(Limits.nameLength)
        fuse_reply_statfs(request.raw, &answer)
    }
}

// Extended attributes.
extension FuseOperations {
    /// The kernel asks for `security.capability` before each write: answered here, without a
    /// round trip. ACLs come with permission checks of our own.
    private func check(_ name: UnsafePointer<CChar>, missing: FileError) throws(FileError)
        -> [UInt8]
    {
        let count = strlen(name)
        if strcmp(name, "security.capability") == 0 { throw missing }
        if strncmp(name, "system.posix_acl_", 17) == 0 { throw .notSupported }
        guard count <= Limits.attributeName else { throw .range }
        return Array(UnsafeRawBufferPointer(start: name, count: count))
    }

    func getxattr(
        _ request: FuseRequest, _ number: fuse_ino_t, _ name: UnsafePointer<CChar>, _ room: Int
    ) {
        let value = request.attempt { (cancellation) throws(FileError) in
            try fileSystem.extendedAttribute(
                inode(number), try check(name, missing: .noAttribute), cancellation)
        }
        if let value { request.reply(extended: value, room: room) }
    }

    func listxattr(_ request: FuseRequest, _ number: fuse_ino_t, _ room: Int) {
        let names = request.attempt { (cancellation) throws(FileError) in
            try fileSystem.extendedAttributes(inode(number), cancellation)
        }
        if let names { request.reply(extended: names.flatMap { $0 + [0] }, room: room) }
    }

    func setxattr(
        _ request: FuseRequest, _ number: fuse_ino_t, _ name: UnsafePointer<CChar>,
        _ value: UnsafeRawBufferPointer, _ flags: Int32
    ) {
        let done: Void? = request.attempt { (cancellation) throws(FileError) in
            guard flags & ~(MARTLET_XATTR_CREATE | MARTLET_XATTR_REPLACE) == 0 else {
                throw .invalid
            }
            var wanted: ExtendedFlags = []
            if flags & MARTLET_XATTR_CREATE != 0 { wanted.insert(.create) }
            if flags & MARTLET_XATTR_REPLACE != 0 { wanted.insert(.replace) }
            try fileSystem.setExtendedAttribute(
                inode(number), try check(name, missing: .notSupported), Array(value),
                flags: wanted, cancellation)
        }
        if done != nil { request.replyDone() }
    }

    func removexattr(
        _ request: FuseRequest, _ number: fuse_ino_t, _ name: UnsafePointer<CChar>
    ) {
        let done: Void? = request.attempt { (cancellation) throws(FileError) in
            try fileSystem.removeExtendedAttribute(
                inode(number), try check(name, missing: .noAttribute), cancellation)
        }
        if done != nil { request.replyDone() }
    }
}
