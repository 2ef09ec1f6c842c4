// Workload W of the acceptance scenarios: a writer that syncs as it goes, on one mount, and a
// reader that checks every byte, on another, while something happens to the cell. A process of its
// own: a process that starts others while its writes wait would wait with them, because the
// kernel flushes what they inherit.
//
//   workload run WRITING READING PAUSE      until SIGTERM; then a last fsync
//   workload compare FOLDER GENERATION…     the file has these pieces of these generations
//   workload storm WRITING READING PAUSE    changes of names instead (Storm)
//   workload stormed FOLDER STEPS…          the names are those that so many steps leave
//
//   writer   pieces of 1 MiB in a ring, each with its generation in every page; fsync after every 8
//   reader   in turn: a finished file, all of it; one page run of the writer's file
//
// It prints a line after each round: `W` or `R`, when it ended, the longest call of the round, in
// seconds; `F` and what went wrong; at the end `E` and the generation of every piece.
//
// Invariants:
//  1. A page that is read through another mount is at least of the generation that was synced
//     before the file was opened there: nothing stale, nothing lost, nothing torn (K2, C13).
//  2. A failed call ends the process: programs see a stall, never an error.

import Base
import Glibc
import Synchronization

/// Seconds since the machine was started.
func now() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_BOOTTIME, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}

func say(_ line: String) {
    let bytes = Array((line + "\n").utf8)
    let count = bytes.withUnsafeBytes { write(1, $0.baseAddress, $0.count) }
    precondition(count == bytes.count, "the output can't be written")
}

func fail(_ text: String) -> Never {
    say("F \(text)")
    exit(1)
}

/// SIGTERM came.
let isEnding = Atomic<Bool>(false)

/// Does a call, and keeps the time of the longest.
func timed(_ longest: inout Double, _ call: () -> Int) -> Int {
    let begin = now()
    let result = call()
    let code = errno
    longest = max(longest, now() - begin)
    errno = code
    return result
}

@main struct Workload {
    /// Pieces of the writer's file.
    private static let count = 64
    /// Pieces between two calls of fsync.
    private static let perSync = 8
    private static let finishedPieces = 8

    private struct Generations {
        /// By piece; 0: never.
        var written = [Int](repeating: 0, count: Workload.count)
        var synced = [Int](repeating: 0, count: Workload.count)
    }

    static func main() {
        let words = CommandLine.arguments.dropFirst()
        let numbers = words.dropFirst(2).compactMap { Int($0) }
        if words.first == "compare", words.count > 2 {
            compare(words[words.startIndex + 1] + "/written", numbers)
        } else if words.first == "stormed", words.count > 2 {
            Storm.compare(words[words.startIndex + 1], numbers)
        } else if let mode = words.first, mode == "run" || mode == "storm", words.count == 4,
            let pause = UInt32(words.last!)
        {
            let folders = Array(words)
            awaitEnd()
            if mode == "storm" {
                Storm(writing: folders[1], reading: folders[2], pause: pause).run()
            } else {
                SharedRun(writing: folders[1], reading: folders[2], pause: pause).run()
            }
        } else {
            fail("workload run|storm WRITING READING MICROSECONDS, compare|stormed FOLDER NUMBER…")
        }
    }

    /// A thread of its own takes the signal: it would interrupt the calls of another (EINTR).
    private static func awaitEnd() {
        var end = sigset_t()
        sigemptyset(&end)
        sigaddset(&end, SIGTERM)
        pthread_sigmask(SIG_SETMASK, &end, nil)
        var thread = pthread_t()
        let code = pthread_create(
            &thread, nil,
            { _ in
                var end = sigset_t()
                sigemptyset(&end)
                sigaddset(&end, SIGTERM)
                var number: Int32 = 0
                while sigwait(&end, &number) != 0 {}
                isEnding.store(true, ordering: .releasing)
                return nil
            }, nil)
        guard code == 0 else { fail("no thread: errno \(code)") }
    }

    /// All pieces are of the generations that were written last.
    private static func compare(_ path: String, _ written: [Int]) {
        let pieces = Pieces()
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { fail("\(path): errno \(errno)") }
        var buffer = [UInt8](repeating: 0, count: Pieces.size)
        let whole = (written.lastIndex { $0 > 0 } ?? -1) + 1
        for piece in 0..<whole {
            let count = pread(file, &buffer, buffer.count, off_t(piece * Pieces.size))
            guard count == buffer.count else { fail("\(path): piece \(piece): \(count) bytes") }
            let fault = buffer.withUnsafeBytes {
                pieces.fault(
                    in: $0, piece: piece, firstPage: 0, least: written[piece], most: written[piece])
            }
            if let fault { fail("\(path): \(fault)") }
        }
        guard pread(file, &buffer, 1, off_t(whole * Pieces.size)) == 0 else {
            fail("\(path): is longer than \(whole) pieces")
        }
        say("equal")
    }

    /// The two workers.
    private final class SharedRun: Sendable {
        private let state = Mutex(Generations())
        private let pieces = Pieces()
        private let writing: String
        private let reading: String
        /// Between two syncs, in microseconds.
        private let pause: UInt32

        init(writing: String, reading: String, pause: UInt32) {
            self.writing = writing
            self.reading = reading
            self.pause = pause
        }

        func run() {
            writeFinished()
            var thread = pthread_t()
            let code = pthread_create(
                &thread, nil,
                { argument in
                    Unmanaged<SharedRun>.fromOpaque(argument!).takeRetainedValue().read()
                    return nil
                }, Unmanaged.passRetained(self).toOpaque())
            guard code == 0 else { fail("no thread: errno \(code)") }
            write()
            pthread_join(thread, nil)
            let written = state.withLock { $0.written }
            say("E " + written.map { "\($0)" }.joined(separator: " "))
        }

        private func writeFinished() {
            let path = writing + "/finished"
            let file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o644)
            guard file >= 0 else { fail("\(path): errno \(errno)") }
            for piece in 0..<Workload.finishedPieces {
                let count = pieces.bytes(piece: piece, generation: 1).withUnsafeBytes {
                    pwrite(file, $0.baseAddress, $0.count, off_t(piece * Pieces.size))
                }
                guard count == Pieces.size else { fail("\(path): \(count), errno \(errno)") }
            }
            guard fsync(file) == 0, close(file) == 0 else { fail("\(path): errno \(errno)") }
        }

        private func write() {
            let path = writing + "/written"
            let file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
            guard file >= 0 else { fail("\(path): errno \(errno)") }
            var next = 0
            while !isEnding.load(ordering: .acquiring) {
                var longest = 0.0
                for _ in 0..<Workload.perSync {
                    let (piece, generation) = (next % Workload.count, next / Workload.count + 1)
                    state.withLock { $0.written[piece] = generation }
                    let bytes = pieces.bytes(piece: piece, generation: generation)
                    let count = timed(&longest) {
                        bytes.withUnsafeBytes {
                            pwrite(file, $0.baseAddress, $0.count, off_t(piece * Pieces.size))
                        }
                    }
                    guard count == Pieces.size else { fail("write: \(count), errno \(errno)") }
                    next += 1
                }
                guard timed(&longest, { Int(fsync(file)) }) == 0 else {
                    fail("fsync: errno \(errno)")
                }
                state.withLock { $0.synced = $0.written }
                say("W \(now()) \(longest)")
                usleep(pause)
            }
            guard close(file) == 0 else { fail("close: errno \(errno)") }
        }

        private func read() {
            var random = SeededRandom(seed: UInt64(getpid()))
            var buffer = [UInt8](repeating: 0, count: Pieces.size)
            while !isEnding.load(ordering: .acquiring) {
                var longest = 0.0
                for piece in 0..<Workload.finishedPieces {
                    read("finished", &buffer, piece, 0, Pieces.size / Limits.page, &longest)
                }
                if state.withLock({ $0.synced.last! > 0 }) {
                    let piece = random.below(Workload.count)
                    read("written", &buffer, piece, random.below(240), 16, &longest)
                }
                say("R \(now()) \(longest)")
                usleep(20_000)
            }
        }

        /// Opens, reads and checks pages of a piece.
        private func read(
            _ name: String, _ buffer: inout [UInt8], _ piece: Int, _ page: Int, _ pages: Int,
            _ longest: inout Double
        ) {
            let isFinished = name == "finished"
            let least = isFinished ? 1 : state.withLock { $0.synced[piece] }
            let length = pages * Limits.page
            let offset = off_t(piece * Pieces.size + page * Limits.page)
            let count = timed(&longest) {
                let file = open(reading + "/" + name, O_RDONLY | O_CLOEXEC)
                guard file >= 0 else { return -1 }
                defer { close(file) }
                return buffer.withUnsafeMutableBytes { pread(file, $0.baseAddress, length, offset) }
            }
            guard count == length else { fail("read of \(name): \(count), errno \(errno)") }
            let most = isFinished ? 1 : state.withLock { $0.written[piece] }
            let fault = buffer.withUnsafeBytes { bytes in
                pieces.fault(
                    in: .init(rebasing: bytes.prefix(length)), piece: piece, firstPage: page,
                    least: least, most: most)
            }
            if let fault { fail("read of \(name): \(fault)") }
        }
    }
}
