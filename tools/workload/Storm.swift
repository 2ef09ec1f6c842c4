// A storm of changes of names: threads that create, rename, link and remove, each in a directory of
// its own, and one that looks at what they did through another mount.
//
//   steps of item I    create a-I, rename it to b-I, link b-I as c-I, remove b-I if I is odd
//
// Invariants:
//  1. Each change happens once: one that happened twice fails, because the name is there already,
//     or not any more (M12).
//  2. What was done before is seen through the other mount (M10).
//  3. What is there in the end depends on the number of steps only.

import Glibc
import Synchronization

/// See the head of this file.
final class Storm: Sendable {
    private static let threads = 4
    private let writing: String
    private let reading: String
    /// Between two steps of a thread, in microseconds.
    private let pause: UInt32
    /// Steps that each thread has done.
    private let done = Mutex([Int](repeating: 0, count: Storm.threads))

    init(writing: String, reading: String, pause: UInt32) {
        self.writing = writing
        self.reading = reading
        self.pause = pause
    }

    func run() {
        for thread in 0..<Self.threads {
            guard mkdir("\(writing)/storm-\(thread)", 0o755) == 0 else {
                fail("mkdir: errno \(errno)")
            }
        }
        let workers = (0..<Self.threads).map { thread in start { $0.change(thread) } }
        let looker = start { $0.look() }
        for worker in workers + [looker] { pthread_join(worker, nil) }
        say("E " + done.withLock { $0 }.map { "\($0)" }.joined(separator: " "))
    }

    private final class Job {
        let storm: Storm
        let body: (Storm) -> Void
        init(_ storm: Storm, _ body: @escaping (Storm) -> Void) {
            self.storm = storm
            self.body = body
        }
    }
    private func start(_ body: @escaping (Storm) -> Void) -> pthread_t {
        var thread = pthread_t()
        let code = pthread_create(
            &thread, nil,
            { argument in
                let job = Unmanaged<Job>.fromOpaque(argument!).takeRetainedValue()
                job.body(job.storm)
                return nil
            }, Unmanaged.passRetained(Job(self, body)).toOpaque())
        guard code == 0 else { fail("no thread: errno \(code)") }
        return thread
    }

    private func change(_ thread: Int) {
        let folder = "\(writing)/storm-\(thread)"
        var step = 0
        while !isEnding.load(ordering: .acquiring) {
            var longest = 0.0
            for _ in 0..<20 {
                let result = timed(&longest) { Self.perform(step, folder) }
                guard result == 0 else {
                    fail("storm-\(thread), step \(step): errno \(errno)")
                }
                step += 1
                done.withLock { $0[thread] = step }
                usleep(pause)
            }
            say("W \(now()) \(longest)")
        }
    }

    private static func perform(_ step: Int, _ folder: String) -> Int {
        let item = step / 4
        let (first, second) = ("\(folder)/a-\(item)", "\(folder)/b-\(item)")
        switch step % 4 {
        case 0:
            let file = open(first, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o644)
            return file < 0 ? -1 : Int(close(file))
        case 1: return Int(rename(first, second))
        case 2: return Int(link(second, "\(folder)/c-\(item)"))
        default: return item % 2 == 0 ? 0 : Int(unlink(second))
        }
    }

    /// The names that so many steps leave.
    private static func names(after steps: Int) -> Set<String> {
        var names: Set<String> = []
        for item in 0...(steps / 4) {
            let taken = min(4, steps - item * 4)
            if taken == 1 { names.insert("a-\(item)") }
            if taken == 2 || taken == 3 || taken == 4 && item % 2 == 0 {
                names.insert("b-\(item)")
            }
            if taken >= 3 { names.insert("c-\(item)") }
        }
        return names
    }

    private func look() {
        var turn = 0
        while !isEnding.load(ordering: .acquiring) {
            var longest = 0.0
            for _ in 0..<20 {
                let thread = turn % Self.threads
                turn += 1
                let item = done.withLock { $0[thread] / 4 - 1 }
                guard item >= 0 else { continue }
                var status = stat()
                let name = "\(reading)/storm-\(thread)/c-\(item)"
                guard timed(&longest, { Int(stat(name, &status)) }) == 0 else {
                    fail("\(name) is not there: errno \(errno)")
                }
                guard status.st_nlink == (item % 2 == 0 ? 2 : 1) else {
                    fail("\(name) has \(status.st_nlink) links")
                }
                usleep(pause)
            }
            say("R \(now()) \(longest)")
        }
    }

    /// What is there is what the steps leave.
    static func compare(_ folder: String, _ steps: [Int]) {
        for (thread, steps) in steps.enumerated() {
            let path = "\(folder)/storm-\(thread)"
            guard let directory = opendir(path) else { fail("\(path): errno \(errno)") }
            var found: Set<String> = []
            var count = 0
            while let entry = readdir(directory) {
                let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                    String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
                }
                if name == "." || name == ".." { continue }
                found.insert(name)
                count += 1
            }
            closedir(directory)
            let expected = names(after: steps)
            guard found == expected, count == expected.count else {
                let wrong = found.symmetricDifference(expected).sorted().prefix(5)
                fail("\(path) after \(steps) steps: \(count) names, wrong: \(wrong)")
            }
        }
        say("equal")
    }
}
