// The processes of a cell on this machine: started, recognised, ended.
//
// Invariants:
//  1. A process is known by its id and its start time; an id that was reused is another process.
//  2. Only processes that a record of this cell names are signalled.

import Base
import Glibc

/// A process that can't be mistaken for a later one with the same id.
struct ProcessIdentity: Equatable, Sendable {
    var pid: pid_t
    /// Clock ticks since boot, from /proc/PID/stat.
    var startTime: UInt64

    /// The running process with this id; nil if there is none, or only its remains.
    init?(running pid: pid_t) {
        guard let bytes = try? LocalFile.read("/proc/\(pid)/stat", bound: 4_096),
            let end = bytes.lastIndex(of: UInt8(ascii: ")"))
        else { return nil }
        let fields = Array(bytes[(end + 1)...]).text.split(separator: " ")
        guard fields.count > 19, fields[0] != "Z", let time = UInt64(fields[19]) else { return nil }
        self.pid = pid
        startTime = time
    }

    /// What a record says; nil if there is none.
    init?(file path: String) {
        guard let bytes = try? LocalFile.read(path, bound: 100) else { return nil }
        let words = bytes.text.split(whereSeparator: { $0 == " " || $0 == "\n" })
        guard words.count >= 2, let pid = pid_t(words[0]), let time = UInt64(words[1]) else {
            return nil
        }
        self.pid = pid
        startTime = time
    }

    var isAlive: Bool { ProcessIdentity(running: pid) == self }

    /// Waits for its end; false if it still runs then.
    func waitForEnd(_ limit: Interval) -> Bool {
        let end = Clock.now + limit
        while isAlive {
            if Clock.now > end { return false }
            // It may be a child of ours.
            waitpid(pid, nil, WNOHANG)
            usleep(5_000)
        }
        return true
    }
}

/// The clock of commands.
enum Clock {
    static var now: Instant {
        var time = timespec()
        clock_gettime(CLOCK_BOOTTIME, &time)
        return Instant(nanoseconds: Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec))
    }
}

/// One process of a cell: its folder, log and pid file.
struct Daemon: Sendable {
    let folder: CellFolder
    /// `master-1`, `chunkserver-1`, `mount`, …
    let name: String

    /// Its process id and nothing else, so that `kill $(cat …)` works.
    var pidPath: String { "\(folder.path)/pids/\(name)" }
    /// Process id and start time.
    var recordPath: String { "\(folder.folder(of: name))/process" }
    var logPath: String { "\(folder.folder(of: name))/log" }
    /// Its process, if it runs.
    var process: ProcessIdentity? {
        ProcessIdentity(file: recordPath).flatMap { $0.isAlive ? $0 : nil }
    }

    /// Starts the same program with other arguments, in a session of its own.
    func start(_ arguments: [String]) throws(CommandFailure) -> ProcessIdentity {
        try LocalFile.makeDirectories(folder.folder(of: name))
        try LocalFile.makeDirectories(folder.path + "/pids")
        let process = try spawn(arguments + ["--log", logPath], output: logPath)
        let record = "\(process.pid) \(process.startTime)\n"
        try LocalFile.write(Array(record.utf8), to: recordPath)
        try LocalFile.write(Array("\(process.pid)\n".utf8), to: pidPath)
        return process
    }

    /// SIGTERM, some patience, SIGKILL; true if it ended by itself.
    func stop(patience: Interval) -> Bool {
        defer {
            unlink(pidPath)
            unlink(recordPath)
        }
        guard let process else { return true }
        kill(process.pid, SIGTERM)
        if process.waitForEnd(patience) { return true }
        if process.isAlive { kill(process.pid, SIGKILL) }
        _ = process.waitForEnd(.seconds(5))
        return false
    }

    /// The last lines of its log, for messages.
    func logTail(_ count: Int = 8) -> String {
        guard let file = fopen(logPath, "re") else { return "(no log)" }
        defer { fclose(file) }
        fseek(file, 0, SEEK_END)
        fseek(file, max(0, ftell(file) - 4_096), SEEK_SET)
        var bytes = [UInt8](repeating: 0, count: 4_096)
        let length = fread(&bytes, 1, bytes.count, file)
        let lines = Array(bytes[..<length]).text.split(separator: "\n")
        return lines.suffix(count).map { "  \(name): \($0)" }.joined(separator: "\n")
    }

    /// All daemons with a pid file whose name starts so, in order.
    static func all(in folder: CellFolder, prefix: String) -> [Daemon] {
        guard case .success(let names) = LocalFile.names(in: Array("\(folder.path)/pids".utf8))
        else { return [] }
        return names.map(\.text).filter { $0.hasPrefix(prefix) && !$0.hasSuffix(".new") }
            .map { Daemon(folder: folder, name: $0) }
    }
}

/// Starts this program again, detached, with standard output and error in a file.
func spawn(_ arguments: [String], output: String) throws(CommandFailure) -> ProcessIdentity {
    keepFilesFromChildren()
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_addopen(&actions, 1, output, O_WRONLY | O_CREAT | O_APPEND, 0o644)
    posix_spawn_file_actions_adddup2(&actions, 1, 2)
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var none = sigset_t()
    sigemptyset(&none)
    posix_spawnattr_setsigmask(&attributes, &none)
    var all = sigset_t()
    sigfillset(&all)
    posix_spawnattr_setsigdefault(&attributes, &all)
    let flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF
    posix_spawnattr_setflags(&attributes, Int16(flags) | spawnInNewSession)
    let words = ["martlet"] + arguments
    var pointers = words.map { strdup($0) } + [nil]
    defer { for pointer in pointers { free(pointer) } }
    var pid: pid_t = 0
    let result = posix_spawn(&pid, ownProgram(), &actions, &attributes, &pointers, environ)
    guard result == 0 else { throw CommandFailure(errno: result, "starting martlet") }
    guard let process = ProcessIdentity(running: pid) else {
        throw CommandFailure(.failed, "martlet \(arguments.joined(separator: " ")) ended at once")
    }
    return process
}

/// The path of this program; where it was replaced meanwhile, the kernel still has this one.
private func ownProgram() -> String {
    guard let path = realpath("/proc/self/exe", nil) else { return "/proc/self/exe" }
    defer { free(path) }
    return String(cString: path)
}

/// A daemon must not hold a pipe or lock of whoever called us.
private func keepFilesFromChildren() {
    guard case .success(let names) = LocalFile.names(in: Array("/proc/self/fd".utf8)) else {
        return
    }
    for number in names.compactMap({ Int32($0.text) }) where number > 2 {
        _ = fcntl(number, F_SETFD, FD_CLOEXEC)
    }
}

/// POSIX_SPAWN_SETSID, which the C library hides behind _GNU_SOURCE.
private let spawnInNewSession: Int16 = 0x80
