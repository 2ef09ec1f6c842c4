// The log of a process: lines to standard error, or to a file that is rotated by size.
//
// Invariants:
//  1. One write(2) a line, so that lines of several threads do not mix.
//  2. With a file, standard error goes there too: what the runtime says when it traps is kept.

import Base
import Glibc
import Logging
import Synchronization

/// Where lines go.
private final class LogFile: Sendable {
    /// Beyond this the file is renamed to `.1`, and `.1` to `.2`, and so on.
    private static let bound = 16 << 20
    private static let kept = 4

    private let path: String?
    private let size: Mutex<Int>

    init(path: String?) {
        self.path = path
        size = Mutex(path.flatMap { LocalFile.status($0) }.map { Int($0.st_size) } ?? 0)
        if path != nil { reopen() }
    }

    func write(_ line: String) {
        let bytes = Array(line.utf8)
        size.withLock { size in
            _ = bytes.withUnsafeBytes { Glibc.write(2, $0.baseAddress, $0.count) }
            size += bytes.count
            guard let path, size > Self.bound else { return }
            for number in (1..<Self.kept).reversed() {
                rename("\(path).\(number)", "\(path).\(number + 1)")
            }
            rename(path, "\(path).1")
            reopen()
            size = 0
        }
    }

    private func reopen() {
        guard let path else { return }
        let file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o644)
        guard file >= 0 else { return }
        dup2(file, 2)
        close(file)
    }
}

/// Formats lines.
private struct LineHandler: LogHandler {
    let label: String
    let file: LogFile
    var metadata: Logger.Metadata = [:]
    var logLevel: Logger.Level

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        let milliseconds = Int64(now.tv_sec) * 1_000 + Int64(now.tv_nsec) / 1_000_000
        let time = Amounts.time(Timestamp(nanoseconds: milliseconds * 1_000_000))
        var line = "\(time) \(event.level) \(label): \(event.message)"
        let all = metadata.merging(event.metadata ?? [:]) { _, new in new }
        for (key, value) in all.sorted(by: { $0.key < $1.key }) { line += " \(key)=\(value)" }
        file.write(line + "\n")
    }
}

/// Sends all loggers of the process to a file, or to standard error.
func startLogging(to path: String?) {
    let name = getenv("MARTLET_LOG_LEVEL").map { String(cString: $0) } ?? "info"
    let level = Logger.Level(rawValue: name) ?? .info
    let file = LogFile(path: path)
    LoggingSystem.bootstrap { LineHandler(label: $0, file: file, logLevel: level) }
}
