// The file of a plan: lines of words, the last of which is the SHA-256 of all before it.
//
//   martlet-plan 1
//   cell CELL
//   score BEFORE AFTER
//   move SET EPOCH FROM TO BYTES SCORE REASON…        in the order in which they are made
//   digest HEX

import Base
import Wire

/// A plan as it is kept in a file.
struct PlanFile {
    struct Entry {
        var move: ReplicaMove
        /// Unevenness of the cell after the move, in percent.
        var score: Double
        var reason: String
    }
    var cell: CellID
    var scoreBefore: Double
    var scoreAfter: Double
    var entries: [Entry]

    init(cell: CellID, scoreBefore: Double, entries: [Entry]) {
        self.cell = cell
        self.scoreBefore = scoreBefore
        scoreAfter = entries.last?.score ?? scoreBefore
        self.entries = entries
    }

    private var lines: [String] {
        let moves = entries.map { entry in
            "move \(entry.move.set) \(entry.move.epoch) \(entry.move.from) \(entry.move.to) "
                + "\(entry.move.bytes) \(entry.score) \(entry.reason)"
        }
        return ["martlet-plan 1", "cell \(cell)", "score \(scoreBefore) \(scoreAfter)"] + moves
    }
    private static func digest(_ lines: [String]) -> Digest {
        Digest(sha256: Array((lines.joined(separator: "\n") + "\n").utf8))
    }

    /// The whole file.
    var text: String {
        let lines = lines
        return (lines + ["digest \(Self.digest(lines).text)"]).joined(separator: "\n") + "\n"
    }

    /// The plan's name in the cell: from its digest, so that it is the same for the same plan.
    var id: UInt64 {
        let bytes = Self.digest(lines).bytes
        return max(1, bytes.prefix(8).reduce(0) { $0 << 8 | UInt64($1) })
    }

    /// Reads a file that `plan -o` wrote; anything else is refused.
    init(reading path: String) throws(CommandFailure) {
        let text = try LocalFile.read(path, bound: 1 << 20).text
        let lines = text.split(separator: "\n").map(String.init)
        guard lines.first == "martlet-plan 1" else {
            throw CommandFailure(.failed, "\(path) is no plan of martlet rebalance plan -o")
        }
        guard lines.count > 3, lines.last == "digest \(Self.digest(lines.dropLast()).text)",
            let cell = Self.cell(lines[1]), let scores = Self.scores(lines[2])
        else { throw Self.altered(path) }
        var entries: [Entry] = []
        for line in lines[3..<(lines.count - 1)] {
            guard let entry = Self.entry(line) else { throw Self.altered(path) }
            entries.append(entry)
        }
        self.init(cell: cell, scoreBefore: scores, entries: entries)
    }

    private static func altered(_ path: String) -> CommandFailure {
        CommandFailure(
            .refusedAsUnsafe,
            "\(path) was altered or cut: nothing was changed; make a new plan with "
                + "martlet rebalance plan -o FILE")
    }
    private static func cell(_ line: String) -> CellID? {
        let words = line.split(separator: " ")
        guard words.count == 2, words[0] == "cell" else { return nil }
        return CellID(hexadecimal: words[1])
    }
    private static func scores(_ line: String) -> Double? {
        let words = line.split(separator: " ")
        guard words.count == 3, words[0] == "score" else { return nil }
        return Double(String(words[1]))
    }
    private static func entry(_ line: String) -> Entry? {
        let words = line.split(separator: " ", maxSplits: 7)
        guard words.count == 8, words[0] == "move",
            let numbers = Optional(words[1...5].compactMap { UInt64($0) }), numbers.count == 5,
            let score = Double(String(words[6]))
        else { return nil }
        let move = ReplicaMove(
            set: SetID(rawValue: numbers[0]), epoch: Epoch(rawValue: numbers[1]),
            from: DiskID(rawValue: numbers[2]), to: DiskID(rawValue: numbers[3]),
            bytes: numbers[4])
        return Entry(move: move, score: score, reason: String(words[7]))
    }
}

extension Digest {
    /// In hexadecimal.
    fileprivate var text: String {
        bytes.map { byte in
            let digits = String(byte, radix: 16)
            return byte < 16 ? "0" + digits : digits
        }.joined()
    }
}
