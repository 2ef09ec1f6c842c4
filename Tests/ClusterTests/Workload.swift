// The process of tools/workload: a writer and a reader whose stalls are measured and whose every
// byte is checked, or a storm of changes of names.

import Glibc

final class Workload {
    private static let program =
        Cell.program.split(separator: "/", omittingEmptySubsequences: false).dropLast()
        .joined(separator: "/") + "/workload"
    private let process: Running
    private let output: String
    private let reading: String
    private let isStorm: Bool
    private var reset = 0.0

    /// Starts it and waits until it is under way. `pause`: microseconds between two syncs.
    init(writing: String, reading: String, pause: Int, isStorm: Bool = false) throws {
        self.reading = reading
        self.isStorm = isStorm
        output = reading + ".workload"
        let script = "exec \"$@\" >\(output)"
        process = try Running([
            "sh", "-c", script, "sh", Self.program, isStorm ? "storm" : "run", writing, reading,
            "\(pause)",
        ])
        try progress(syncs: 9, reads: 4, limit: 90)
        resetStalls()
    }

    /// One line that it printed.
    private struct Line {
        var kind: Substring
        var end: Double
        var longest: Double
    }
    private func lines() throws -> [Line] {
        // The last line may be half written.
        let text = readText(output).split(separator: "\n", omittingEmptySubsequences: false)
        return try text.dropLast().compactMap { line in
            let words = line.split(separator: " ")
            if words.first == "F" { throw TestFailure("workload: \(line.dropFirst(2))") }
            guard words.count == 3, let end = Double(words[1]), let longest = Double(words[2])
            else { return nil }
            return Line(kind: words[0], end: end, longest: longest)
        }
    }

    /// Waits until so many more syncs and reads were done.
    func progress(syncs: Int = 3, reads: Int = 3, limit: Double) throws {
        func counts() throws -> (Int, Int) {
            let lines = try lines()
            return (lines.count { $0.kind == "W" }, lines.count { $0.kind == "R" })
        }
        let before = try counts()
        try eventually("writes and reads go on", limit: limit) {
            let now = try counts()
            guard process.isRunning else { throw TestFailure("the workload has ended") }
            return now.0 >= before.0 + syncs && now.1 >= before.1 + reads
        }
    }

    /// The longest calls since the last reset; one that is under way counts as far as it is.
    func stalls() throws -> (write: Double, read: Double) {
        let lines = try lines()
        func longest(_ kind: Substring) -> Double {
            let own = lines.filter { $0.kind == kind }
            let waiting = now() - max(own.last?.end ?? 0, reset)
            let past = own.filter { $0.end > reset }.map(\.longest).max() ?? 0
            // A round in peace takes no second.
            return max(past, waiting > 1.5 ? waiting : 0)
        }
        return (longest("W"), longest("R"))
    }
    func resetStalls() { reset = now() }

    /// Lets it end after a last fsync; what it wrote is compared through the reader's mount.
    private(set) var generations: [String] = []
    func end(limit: Double) throws {
        process.signal(SIGTERM)
        let outcome = try process.wait(limit: limit)
        _ = try lines()
        guard outcome.status == 0,
            let last = readText(output).split(separator: "\n").last, last.hasPrefix("E ")
        else { throw TestFailure("the workload ended with \(outcome.status)") }
        generations = last.dropFirst(2).split(separator: " ").map(String.init)
    }

    func compare() throws {
        let outcome = try Running(
            [Self.program, isStorm ? "stormed" : "compare", reading] + generations
        ).wait(limit: 120)
        guard outcome.status == 0 else { throw TestFailure(outcome.output) }
    }
}
