// What `put` and `get` did so far, shown while they work and summed up at the end.
//
// Invariants:
//  1. What was to be done is done, skipped because it is there already, or in `failures`.
//  2. After `stop` no new work begins; work in progress ends with `interrupted` and cleans up.

import ArgumentParser
import Base
import Client
import Glibc
import Synchronization

/// The options of put and get.
struct TransferOptions: ParsableArguments {
    @Flag(name: [.customShort("r"), .long], help: "Directories and all they hold.")
    var recursive = false
    @Option(name: .shortAndLong, help: "Files copied at the same time.")
    var jobs = 8
    @Flag(inversion: .prefixedNo, help: "Read back and compare what was copied.")
    var verify = true
    @Flag(name: .shortAndLong, help: "No progress and no summary.")
    var quiet = false
    @Flag(help: "Print the summary as JSON.")
    var json = false

    func validate() throws {
        if !(1...64).contains(jobs) { throw ValidationError("--jobs must be from 1 to 64") }
    }
}

/// One object that could not be copied.
struct TransferFailure: Sendable {
    var path: String
    var failure: CommandFailure
}

/// Counts, and the way to stop.
final class Tally: Sendable {
    struct Counts: Sendable {
        var files: UInt64 = 0
        var directories: UInt64 = 0
        var links: UInt64 = 0
        /// Objects that were there already, just the same.
        var skipped: UInt64 = 0
        /// Bytes of files that are known, and those that are done or skipped.
        var bytesKnown: UInt64 = 0
        var bytesDone: UInt64 = 0
        var bytesSkipped: UInt64 = 0
        /// All there is was found.
        var isComplete = false
        /// The bar must not be drawn any more.
        var isOver = false
        var failures: [TransferFailure] = []
        var reason: CommandFailure?

        var done: UInt64 { files + directories + links + skipped }
    }
    let counts = Mutex(Counts())
    /// Cancels every call in progress.
    let cancellation = Cancellation()
    private let start = Clock.now

    var isStopped: Bool { cancellation.isCancelled }

    func stop(_ reason: CommandFailure) {
        counts.withLock { if $0.reason == nil { $0.reason = reason } }
        cancellation.cancel()
    }

    /// Counts a failure; one that will hit everything else too stops all.
    func fail(_ path: String, _ failure: CommandFailure) {
        if isStopped { return }
        switch failure.status {
        case .timedOut, .unreachable: stop(failure)
        default:
            counts.withLock {
                $0.failures.append(TransferFailure(path: path, failure: failure))
            }
            write(error: "martlet: \(failure.message)")
        }
    }

    /// SIGINT and SIGTERM stop the work; a second one ends the process at once. Comes before any
    /// thread is started.
    func stopOnSignals() {
        var signals = sigset_t()
        sigemptyset(&signals)
        sigaddset(&signals, SIGINT)
        sigaddset(&signals, SIGTERM)
        pthread_sigmask(SIG_BLOCK, &signals, nil)
        let waiting = ThreadGroup(count: 1) {
            var signals = sigset_t()
            sigemptyset(&signals)
            sigaddset(&signals, SIGINT)
            sigaddset(&signals, SIGTERM)
            var number: Int32 = 0
            sigwait(&signals, &number)
            self.stop(
                CommandFailure(
                    .interrupted, "interrupted: the same command again does the rest"))
            sigwait(&signals, &number)
            _exit(ExitStatus.interrupted.rawValue)
        }
        waiting.detach()
    }

    /// Shows a bar on a terminal until `finish` is called.
    func showProgress(_ isWanted: Bool) {
        guard isWanted, isatty(2) == 1 else { return }
        let bar = ThreadGroup(count: 1) {
            var last = (time: self.start, bytes: 0 as UInt64)
            var rate = 0.0
            while true {
                usleep(200_000)
                let (counts, isOver) = self.counts.withLock { ($0, $0.isOver) }
                if isOver { break }
                let now = Clock.now
                let moved = counts.bytesDone - counts.bytesSkipped
                let current = Double(moved - last.bytes) / (now - last.time).seconds
                rate = rate == 0 ? current : 0.8 * rate + 0.2 * current
                last = (now, moved)
                Self.draw(counts, rate)
            }
        }
        bar.detach()
    }

    private static func draw(_ counts: Counts, _ rate: Double) {
        let share =
            counts.bytesKnown == 0 ? 0 : Double(counts.bytesDone) / Double(counts.bytesKnown)
        let filled = Int(share * 20)
        let bar = String(repeating: "#", count: filled) + String(repeating: ".", count: 20 - filled)
        let rest = Double(counts.bytesKnown - min(counts.bytesKnown, counts.bytesDone))
        let left =
            !counts.isComplete
            ? "counting" : rate < 1 ? "-" : duration(Int64((rest / rate).rounded(.up)))
        let text =
            "[\(bar)] \(Amounts.human(counts.bytesDone)) of \(Amounts.human(counts.bytesKnown))"
            + "  \(Amounts.human(UInt64(max(0, rate))))/s  \(left)  \(counts.files) files"
        let line = Array(("\r\u{1B}[K" + text).utf8)
        _ = line.withUnsafeBytes { Glibc.write(2, $0.baseAddress, $0.count) }
    }

    private static func duration(_ seconds: Int64) -> String {
        func two(_ value: Int64) -> String { value < 10 ? "0\(value)" : "\(value)" }
        return "\(seconds / 3_600):\(two(seconds / 60 % 60)):\(two(seconds % 60))"
    }

    /// Sums up, and fails unless all was done.
    func finish(_ options: TransferOptions, _ verb: String) throws(CommandFailure) {
        let counts = counts.withLock {
            $0.isOver = true
            return $0
        }
        if !options.quiet, isatty(2) == 1 { Glibc.write(2, "\r\u{1B}[K", 4) }
        let seconds = (Clock.now - start).seconds
        let moved = counts.bytesDone - counts.bytesSkipped
        if options.json {
            print(json(counts, seconds).encoded(indented: true))
        } else if !options.quiet, counts.done > 0 {
            let rate = UInt64(Double(moved) / max(seconds, 0.001))
            print(
                "\(verb) \(counts.files) files, \(counts.directories) directories, "
                    + "\(counts.links) links; \(counts.skipped) were there; "
                    + "\(Amounts.human(moved)) in \(Amounts.decimal(seconds, places: 1)) s "
                    + "(\(Amounts.human(rate))/s)")
        }
        if let reason = counts.reason { throw reason }
        guard let first = counts.failures.first else { return }
        if counts.done == 0, counts.failures.count == 1 {
            throw CommandFailure(first.failure.status, "nothing was copied")
        }
        throw CommandFailure(
            counts.done > 0 ? .partlyDone : .failed,
            "\(counts.failures.count) could not be copied; the first: \(first.failure.message)")
    }

    private func json(_ counts: Counts, _ seconds: Double) -> JSON {
        let failures = counts.failures.map { failure in
            JSON.object([
                ("id", .string(failure.path)), ("message", .string(failure.failure.message)),
            ])
        }
        return .object([
            ("schema", .integer(1)), ("files", .unsigned(counts.files)),
            ("directories", .unsigned(counts.directories)), ("links", .unsigned(counts.links)),
            ("skipped", .unsigned(counts.skipped)),
            ("bytes", .unsigned(counts.bytesDone - counts.bytesSkipped)),
            ("seconds", .double(seconds)), ("failures", .array(failures)),
        ])
    }
}

/// The name under which `name` is written until it is complete: the same each time, so that an
/// interrupted copy leaves one at most and the next one removes it.
func temporaryName(for name: [UInt8]) -> [UInt8] {
    let hash = name.reduce(0xCBF2_9CE4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
    return Array(".martlet-\(String(hash, radix: 16)).part".utf8)
}

/// The content of a stretch of a file.
struct Extent: Sendable {
    var offset: UInt64
    var length: UInt64
    var checksum: Checksum
}
