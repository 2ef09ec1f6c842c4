// A place in the local tree where something is or will be mounted.
//
// Invariants:
//  1. A live mount is never taken away here but by `unmount`; `clearStale` removes only mounts
//     whose process is gone (the kernel answers ENOTCONN).
//  2. Nothing here waits for a file system's answer except the `stat` of `isStale`, which the
//     kernel answers by itself when the process is gone.

import CFuse
import Glibc

/// Why a mount could not be made or taken away.
package enum MountError: Error, Hashable, Sendable {
    /// The place does not exist or is no directory: its path.
    case notDirectory(String)
    /// Something of ours is mounted there and alive: its path.
    case alreadyMounted(String)
    /// A system call failed: what was tried, and the errno.
    case system(String, Int32)
    /// libfuse refused; it wrote the reason to standard error.
    case fuse(String)
}

/// One line of /proc/self/mountinfo.
package struct MountEntry: Hashable, Sendable {
    /// `major:minor` of the device.
    package var device: String
    package var path: String
    /// The kind of file system; ours is `fuse.martlet`.
    package var type: String

    /// All mounts of this process's namespace, in mounting order.
    package static func all() -> [MountEntry] {
        guard let file = fopen("/proc/self/mountinfo", "re") else { return [] }
        defer { fclose(file) }
        var line: UnsafeMutablePointer<CChar>?
        var capacity = 0
        defer { free(line) }
        var entries: [MountEntry] = []
        while getline(&line, &capacity, file) > 0 {
            guard let line else { break }
            let fields = String(cString: line).split(whereSeparator: { $0 == " " || $0 == "\n" })
            guard let separator = fields.firstIndex(of: "-"), separator >= 6,
                separator + 1 < fields.count
            else { continue }
            entries.append(
                MountEntry(
                    device: String(fields[2]), path: unescape(fields[4]),
                    type: String(fields[separator + 1])))
        }
        return entries
    }

    /// The kernel writes blanks and backslashes of paths as three octal digits.
    private static func unescape(_ text: Substring) -> String {
        var bytes: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            let digits = rest.prefix(3)
            if byte == UInt8(ascii: "\\"), digits.count == 3 {
                bytes.append(digits.reduce(0) { $0 &* 8 &+ ($1 &- UInt8(ascii: "0")) })
                rest = rest.dropFirst(3)
            } else {
                bytes.append(byte)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}

/// A directory that a cell is mounted on.
package struct MountPoint: Hashable, Sendable {
    /// Absolute, without symbolic links.
    package let path: String

    /// Makes a path absolute. A stale mount can't be resolved, so only its parent is.
    package init(_ path: String) {
        self.path = Self.absolute(path)
    }

    private static func absolute(_ path: String) -> String {
        if let real = resolved(path) { return real }
        var parts = path.split(separator: "/", omittingEmptySubsequences: true)
        let last = parts.popLast().map(String.init) ?? ""
        let parent = (path.hasPrefix("/") ? "/" : "") + parts.joined(separator: "/")
        guard let real = resolved(parent.isEmpty ? "." : parent) else { return path }
        return real == "/" ? "/" + last : real + "/" + last
    }

    private static func resolved(_ path: String) -> String? {
        guard let real = realpath(path, nil) else { return nil }
        defer { free(real) }
        return String(cString: real)
    }

    /// The topmost mount here, if any.
    package var entry: MountEntry? { MountEntry.all().last { $0.path == path } }

    /// Whether a Martlet is mounted here, alive or stale.
    package var isMartlet: Bool { entry?.type == "fuse.martlet" }

    /// Whether what is mounted here has lost its process.
    package var isStale: Bool {
        guard entry != nil else { return false }
        var answer = Glibc.stat()
        return stat(path, &answer) != 0 && (errno == ENOTCONN || errno == ECONNABORTED)
    }

    /// Takes stale mounts away, however many lie on one another (issue: SIGKILL of the mount).
    package func clearStale() throws(MountError) {
        while isStale {
            let result = unmount(lazily: true)
            guard result == 0 else { throw .system("unmounting the stale \(path)", result) }
        }
    }

    /// Unmounts; 0, or the errno. `lazily`: out of the tree now, gone with its last user.
    package func unmount(lazily: Bool) -> Int32 {
        if umount2(path, lazily ? Int32(MNT_DETACH) : 0) == 0 { return 0 }
        guard errno == EPERM else { return errno }
        let arguments = ["fusermount3", lazily ? "-uzq" : "-uq", "--", path]
        var pointers = arguments.map { strdup($0) } + [nil]
        defer { for pointer in pointers { free(pointer) } }
        var child: pid_t = 0
        let spawned = posix_spawnp(&child, "fusermount3", nil, nil, &pointers, environ)
        guard spawned == 0 else { return spawned }
        var status: Int32 = 0
        while waitpid(child, &status, 0) < 0, errno == EINTR {}
        return status == 0 ? 0 : EBUSY
    }

    /// Raises the kernel's read-ahead of this mount: 128 KiB requests halve a cold read. Only root
    /// may, and only after INIT was answered, which the `stat` waits for.
    func raiseReadAhead(toKiB size: Int) {
        var answer = Glibc.stat()
        guard stat(path, &answer) == 0, let device = entry?.device else { return }
        let file = open("/sys/class/bdi/\(device)/read_ahead_kb", O_WRONLY | O_CLOEXEC)
        guard file >= 0 else { return }
        defer { close(file) }
        let text = "\(size)"
        _ = text.withCString { Glibc.write(file, $0, text.utf8.count) }
    }
}
