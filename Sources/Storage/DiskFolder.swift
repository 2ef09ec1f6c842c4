// The folder of a disk: where its files are, who may use it, what is in it.
//
//   FOLDER/lock           flock of the process that has it open, with its process id
//   FOLDER/superblock
//   FOLDER/checkpoint-0   FOLDER/checkpoint-1
//   FOLDER/segments/00000001 …
//
// Invariant: two processes never have one folder open.

import Base
import Glibc
import Store

/// How segments are read and written.
enum DiskAccess {
    /// Through the page cache.
    case cached
    /// Past it, from and to whole pages of memory.
    case direct
    /// Past it, from and to any sectors of memory.
    case directBySector
}

/// An open folder. Paths and the lock; it holds no other state.
struct DiskFolder {
    let path: String
    private let lock: OwnedDescriptor
    let directory: OwnedDescriptor
    let segments: OwnedDescriptor
    /// How segments can be read and written here.
    let access: DiskAccess

    /// Makes the folder where it is not there, and takes its lock.
    init(_ path: String) throws(StorageError) {
        self.path = path
        try Self.makeFolder(path)
        lock = try Self.takeLock(path + "/lock")
        try Self.makeFolder(path + "/segments")
        directory = try OwnedDescriptor(path, O_RDONLY | O_DIRECTORY)
        segments = try OwnedDescriptor(path + "/segments", O_RDONLY | O_DIRECTORY)
        try directory.sync(path)
        access = Self.probe(path + "/probe")
    }

    /// Lets another process open the folder. Nothing of it may be used afterwards.
    func release() { flock(lock.number, LOCK_UN) }

    /// Where a file is.
    func path(of file: DiskFile) -> String {
        switch file {
        case .superblock: return path + "/superblock"
        case .checkpoint(let which): return path + "/checkpoint-\(which)"
        case .segment(let number):
            let digits = String(number)
            let zeros = String(repeating: "0", count: max(0, 8 - digits.utf8.count))
            return path + "/segments/" + zeros + digits
        }
    }
    /// The folder a file is in, open.
    func folder(of file: DiskFile) -> OwnedDescriptor {
        if case .segment = file { segments } else { directory }
    }

    /// What is there, and how much may be: the free space and what is used already, at most
    /// `limit` bytes.
    func inventory(limit: UInt64?) throws(StorageError) -> DiskInventory {
        var files: [DiskFileSize] = []
        var used: UInt64 = 0
        let segmentNumbers = try Self.names(in: path + "/segments").compactMap { UInt32($0) }
        let candidates: [DiskFile] =
            [.superblock, .checkpoint(0), .checkpoint(1)] + segmentNumbers.map { .segment($0) }
        for file in candidates.sorted() {
            var status = stat()
            guard stat(path(of: file), &status) == 0 else {
                guard errno == ENOENT else { throw Self.failed("stat", path(of: file)) }
                continue
            }
            files.append(DiskFileSize(file: file, size: Int(status.st_size)))
            used += UInt64(status.st_blocks) * 512
        }
        var system = statvfs()
        guard statvfs(path, &system) == 0 else { throw Self.failed("statvfs", path) }
        let free = UInt64(system.f_bavail) * UInt64(system.f_frsize)
        let most = limit ?? .max
        return DiskInventory(files: files, capacity: min(most, free + used), limit: most)
    }

    /// Its file system, and the bytes that are free there now; 0 and 0 if it can't be asked.
    var space: (fileSystem: UInt64, free: UInt64) {
        var status = stat()
        var system = statvfs()
        guard fstat(directory.number, &status) == 0, fstatvfs(directory.number, &system) == 0 else {
            return (0, 0)
        }
        return (UInt64(status.st_dev), UInt64(system.f_bavail) * UInt64(system.f_frsize))
    }

    private static func failed(_ call: String, _ path: String) -> StorageError {
        .system(call: call, path: path, errno: errno)
    }
    private static func makeFolder(_ path: String) throws(StorageError) {
        guard mkdir(path, 0o700) == 0 || errno == EEXIST else { throw failed("mkdir", path) }
    }
    private static func takeLock(_ path: String) throws(StorageError) -> OwnedDescriptor {
        let lock = try OwnedDescriptor(path, O_RDWR | O_CREAT)
        guard flock(lock.number, LOCK_EX | LOCK_NB) == 0 else {
            guard errno == EWOULDBLOCK else { throw failed("flock", path) }
            var text = [UInt8](repeating: 0, count: 32)
            let count = pread(lock.number, &text, text.count, 0)
            let digits = String(decoding: text.prefix(max(0, count)), as: UTF8.self)
            throw .inUse(path: path, process: Int32(digits) ?? 0)
        }
        let text = Array(String(getpid()).utf8)
        guard ftruncate(lock.number, 0) == 0,
            pwrite(lock.number, text, text.count, 0) == text.count
        else { throw failed("write", path) }
        return lock
    }
    /// Some file systems refuse O_DIRECT when a file is opened, some when it is written.
    /// Some disks have larger sectors, and some kernels ask for more than a sector.
    private static func probe(_ path: String) -> DiskAccess {
        guard let file = try? OwnedDescriptor(path, O_RDWR | O_CREAT | directFlag) else {
            unlink(path)
            return .cached
        }
        defer { unlink(path) }
        let buffer = AlignedBuffer(size: Limits.groupAlignment)
        guard pwrite(file.number, buffer.start, buffer.size, 0) == buffer.size,
            pread(file.number, buffer.start, buffer.size, 0) == buffer.size
        else { return .cached }
        let sector = Limits.sector
        var vectors = Vectors()
        vectors.add(buffer.start + sector, sector)
        vectors.add(buffer.start + 3 * sector, 2 * sector)
        guard vectors.write(to: file.number, at: 0) == 0,
            pread(file.number, buffer.start + sector, sector, off_t(sector)) == sector
        else { return .direct }
        return .directBySector
    }
    private static func names(in path: String) throws(StorageError) -> [String] {
        guard let listing = opendir(path) else { throw failed("opendir", path) }
        defer { closedir(listing) }
        var names: [String] = []
        while let entry = readdir(listing) {
            names.append(
                withUnsafeBytes(of: entry.pointee.d_name) { raw in
                    String(decoding: raw.prefix { $0 != 0 }, as: UTF8.self)
                })
        }
        return names
    }
}

/// O_DIRECT, which Swift's Glibc module leaves out.
#if arch(arm64)
    let directFlag: Int32 = 0o200000
#else
    let directFlag: Int32 = 0o40000
#endif

/// A file descriptor that is closed with its last user.
final class OwnedDescriptor: Sendable {
    let number: Int32

    init(_ path: String, _ flags: Int32) throws(StorageError) {
        number = open(path, flags | O_CLOEXEC, 0o600)
        guard number >= 0 else {
            throw .system(call: "open", path: path, errno: errno)
        }
    }
    deinit { close(number) }

    /// Makes the names in a folder durable.
    func sync(_ path: String) throws(StorageError) {
        guard fsync(number) == 0 else { throw .system(call: "fsync", path: path, errno: errno) }
    }
}
