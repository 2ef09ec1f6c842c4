// The local file system, as far as commands need it. Paths are bytes where they come from
// directories, because names need not be UTF-8.

import Glibc

/// Work on local files; what fails says which path.
enum LocalFile {
    /// The whole content of a small file.
    static func read(_ path: String, bound: Int = 1 << 20) throws(CommandFailure) -> [UInt8] {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { throw CommandFailure(errno: errno, path) }
        defer { close(file) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            let count = Glibc.read(file, &buffer, buffer.count)
            if count < 0 { throw CommandFailure(errno: errno, path) }
            if count == 0 { return bytes }
            bytes += buffer[..<count]
            if bytes.count > bound { throw CommandFailure(.failed, "\(path): too long") }
        }
    }

    /// Writes a small file so that after a crash it is there as a whole or not at all.
    static func write(
        _ bytes: [UInt8], to path: String, mode: mode_t = 0o644
    ) throws(CommandFailure) {
        let temporary = path + ".new"
        unlink(temporary)
        let file = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode)
        guard file >= 0 else { throw CommandFailure(errno: errno, temporary) }
        let count = bytes.withUnsafeBytes { Glibc.write(file, $0.baseAddress, $0.count) }
        let isSynced = count == bytes.count && fsync(file) == 0
        let code = errno
        close(file)
        guard isSynced else { throw CommandFailure(errno: code, temporary) }
        guard rename(temporary, path) == 0 else { throw CommandFailure(errno: errno, path) }
        syncDirectory(path.directoryPart)
    }

    static func syncDirectory(_ path: String) {
        let directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard directory >= 0 else { return }
        fsync(directory)
        close(directory)
    }

    /// Makes a directory and its parents; one that is there is fine.
    static func makeDirectories(_ path: String) throws(CommandFailure) {
        if mkdir(path, 0o755) == 0 || (errno == EEXIST && isDirectory(path)) { return }
        let code = errno
        let parent = path.directoryPart
        guard code == ENOENT, parent != path else { throw CommandFailure(errno: code, path) }
        try makeDirectories(parent)
        if mkdir(path, 0o755) != 0, errno != EEXIST { throw CommandFailure(errno: errno, path) }
    }

    static func isDirectory(_ path: String) -> Bool {
        status(path).map { $0.st_mode & S_IFMT == S_IFDIR } ?? false
    }

    static func exists(_ path: String) -> Bool { status(path) != nil }

    static func status(_ path: String) -> stat? {
        var status = stat()
        return stat(path, &status) == 0 ? status : nil
    }

    /// The names in a directory but "." and "..", sorted; an errno if it can't be read.
    static func names(in path: [UInt8]) -> Result<[[UInt8]], LocalError> {
        guard let directory = path.withPath({ opendir($0) }) else {
            return .failure(LocalError(code: errno))
        }
        defer { closedir(directory) }
        var names: [[UInt8]] = []
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { Array($0.prefix { $0 != 0 }) }
            if name != [0x2E], name != [0x2E, 0x2E] { names.append(name) }
        }
        return .success(names.sorted { $0.lexicographicallyPrecedes($1) })
    }

    /// Removes a directory and all that is in it.
    static func removeTree(_ path: [UInt8]) throws(CommandFailure) {
        if case .success(let names) = LocalFile.names(in: path) {
            for name in names {
                let child = path.appending(name)
                var status = stat()
                guard child.withPath({ lstat($0, &status) }) == 0 else { continue }
                if status.st_mode & S_IFMT == S_IFDIR {
                    try removeTree(child)
                } else if child.withPath({ unlink($0) }) != 0 {
                    throw CommandFailure(errno: errno, child.text)
                }
            }
        }
        guard path.withPath({ rmdir($0) }) == 0 else {
            throw CommandFailure(errno: errno, path.text)
        }
    }

    /// An absolute path; the last part need not exist.
    static func absolute(_ path: String) -> String {
        if let real = realpath(path, nil) {
            defer { free(real) }
            return String(cString: real)
        }
        if path.hasPrefix("/") { return path }
        guard let current = getcwd(nil, 0) else { return path }
        defer { free(current) }
        var parts = String(cString: current).split(separator: "/").map(String.init)
        for part in path.split(separator: "/") where part != "." {
            if part == ".." { _ = parts.popLast() } else { parts.append(String(part)) }
        }
        return "/" + parts.joined(separator: "/")
    }
}

/// A system call's errno.
struct LocalError: Error, Sendable {
    var code: Int32
}

extension String {
    /// What is before the last slash.
    var directoryPart: String {
        var parts = split(separator: "/", omittingEmptySubsequences: true)
        _ = parts.popLast()
        let joined = parts.joined(separator: "/")
        return hasPrefix("/") ? "/" + joined : joined.isEmpty ? "." : joined
    }
    /// What is after the last slash; trailing slashes do not count.
    var lastPart: String { split(separator: "/").last.map(String.init) ?? "" }
}

extension [UInt8] {
    /// The bytes as a path for the C library.
    func withPath<Value>(_ body: (UnsafePointer<CChar>) -> Value) -> Value {
        (self + [0]).withUnsafeBytes {
            body($0.baseAddress!.assumingMemoryBound(to: CChar.self))
        }
    }
    /// A name below this directory.
    func appending(_ name: [UInt8]) -> [UInt8] {
        last == UInt8(ascii: "/") ? self + name : self + [UInt8(ascii: "/")] + name
    }
    /// For messages: invalid UTF-8 is replaced.
    var text: String { String(decoding: self, as: UTF8.self) }
}
