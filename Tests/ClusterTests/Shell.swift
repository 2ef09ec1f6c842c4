// Processes of tests, with a deadline each.

import Base
import Glibc

/// What went wrong outside of an expectation.
struct TestFailure: Error, CustomStringConvertible {
    var description: String
    init(_ description: String) { self.description = description }
}

/// How a process ended and what it said.
struct Outcome {
    var status: Int32
    var output: String
    var errors: String
}

/// A process that a test started.
final class Running {
    let pid: pid_t
    private let words: [String]
    private let outputPath: String
    private var result: Outcome?

    init(_ words: [String], environment: [String: String] = [:]) throws {
        self.words = words
        outputPath = "\(Cell.root)/output-\(getpid())-\(Running.next())"
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        for (number, suffix) in [(1, ".out"), (2, ".err")] as [(Int32, String)] {
            posix_spawn_file_actions_addopen(
                &actions, number, outputPath + suffix, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        }
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETPGROUP))
        var arguments = words.map { strdup($0) } + [nil]
        defer { for argument in arguments { free(argument) } }
        var variables = Running.variables(environment).map { strdup($0) } + [nil]
        defer { for variable in variables { free(variable) } }
        var child: pid_t = 0
        let spawned = posix_spawnp(&child, words[0], &actions, &attributes, &arguments, &variables)
        guard spawned == 0 else { throw TestFailure("\(words[0]): errno \(spawned)") }
        pid = child
    }

    /// A process that nobody waits for any more is ended.
    deinit {
        if isRunning { destroy() }
    }

    /// Kills it with its children and waits a while: what hangs in the kernel stays behind.
    private func destroy() {
        kill(-pid, SIGKILL)
        let limit = now() + 10
        while isRunning, now() < limit { usleep(1_000) }
    }

    private static func variables(_ changes: [String: String]) -> [String] {
        var all: [String] = []
        var pointer = environ
        while let variable = pointer.pointee {
            let text = String(cString: variable)
            let name = text.prefix { $0 != "=" }
            if changes[String(name)] == nil { all.append(text) }
            pointer += 1
        }
        return all + changes.map { "\($0.key)=\($0.value)" }
    }

    nonisolated(unsafe) private static var count = 0
    private static func next() -> Int {
        count += 1
        return count
    }

    var isRunning: Bool {
        if result != nil { return false }
        var status: Int32 = 0
        guard waitpid(pid, &status, WNOHANG) == pid else { return true }
        finish(status)
        return false
    }

    func signal(_ number: Int32) { if isRunning { kill(pid, number) } }

    /// Waits for its end; after `limit` seconds it is killed, with its children, and that is an
    /// error.
    func wait(limit: Double = 120) throws -> Outcome {
        let end = now() + limit
        while isRunning {
            guard now() < end else {
                destroy()
                throw TestFailure(
                    "no end after \(limit) s: \(words.joined(separator: " "))\n"
                        + (result?.errors ?? "and it could not be killed"))
            }
            usleep(2_000)
        }
        return result!
    }

    private func finish(_ status: Int32) {
        let code = status & 0x7F == 0 ? (status >> 8) & 0xFF : 128 + (status & 0x7F)
        result = Outcome(
            status: code, output: readText(outputPath + ".out"),
            errors: readText(outputPath + ".err"))
        unlink(outputPath + ".out")
        unlink(outputPath + ".err")
    }
}

/// Runs a program to its end; anything but status 0 is an error.
@discardableResult
func run(
    _ words: [String], environment: [String: String] = [:], limit: Double = 120
) throws -> Outcome {
    let outcome = try Running(words, environment: environment).wait(limit: limit)
    guard outcome.status == 0 else {
        throw TestFailure(
            "status \(outcome.status): \(words.joined(separator: " "))\n\(outcome.errors)")
    }
    return outcome
}

/// Seconds since the machine was started.
func now() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_BOOTTIME, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}

/// Waits until something is so.
func eventually(
    _ what: String, limit: Double = 30, _ condition: () throws -> Bool
) throws {
    let end = now() + limit
    while try !condition() {
        guard now() < end else { throw TestFailure("not within \(limit) s: \(what)") }
        usleep(20_000)
    }
}

/// The content of a file; empty if it can't be read.
func readBytes(_ path: String) -> [UInt8] {
    let file = open(path, O_RDONLY | O_CLOEXEC)
    guard file >= 0 else { return [] }
    defer { close(file) }
    var status = stat()
    fstat(file, &status)
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 20)
    while true {
        let count = read(file, &buffer, buffer.count)
        if count <= 0 { return bytes }
        bytes += buffer[..<count]
    }
}

func readText(_ path: String) -> String { String(decoding: readBytes(path), as: UTF8.self) }

/// Writes a whole file, and syncs it if told to.
func writeFile(_ path: String, _ bytes: [UInt8], sync: Bool = false) throws {
    let file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    guard file >= 0 else { throw TestFailure("\(path): errno \(errno)") }
    var rest = bytes[...]
    while !rest.isEmpty {
        let count = rest.withUnsafeBytes { write(file, $0.baseAddress, $0.count) }
        guard count > 0 else {
            let code = errno
            close(file)
            throw TestFailure("writing \(path): errno \(code)")
        }
        rest = rest.dropFirst(count)
    }
    if sync, fsync(file) != 0 { throw TestFailure("fsync \(path): errno \(errno)") }
    guard close(file) == 0 else { throw TestFailure("close \(path): errno \(errno)") }
}

/// Bytes that don't compress, made of a seed.
func noise(_ count: Int, seed: UInt64) -> [UInt8] {
    var random = SeededRandom(seed: seed)
    return [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
        let words = UnsafeMutableRawBufferPointer(buffer)
        for offset in stride(from: 0, to: count, by: 8) {
            var word = random.next()
            withUnsafeBytes(of: &word) { bytes in
                for index in 0..<min(8, count - offset) { words[offset + index] = bytes[index] }
            }
        }
        initialized = count
    }
}
