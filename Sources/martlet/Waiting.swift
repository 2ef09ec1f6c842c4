// Commands that wait for the cell to carry something out: a bar on a terminal, and on standard
// error a line whenever what it waits for changes.

import Base
import Glibc

enum Waiting {
    /// How far it is.
    struct Step {
        var done: Int
        var total: Int
        var unit: String
        /// Why nothing moves, if it does not.
        var blocker: String?
        /// About how many seconds are left; nil: nobody knows.
        var left: Int?
        var isDone: Bool { done >= total }
    }

    /// About how long copying so many bytes takes.
    static func left(bytes: UInt64, _ rate: UInt64) -> Int? {
        rate == 0 ? nil : Int(bytes / rate)
    }

    /// Asks about once a second until it is done; there is no other end but an error.
    static func until(_ step: () throws(CommandFailure) -> Step) throws(CommandFailure) {
        let isTerminal = isatty(2) == 1
        var lastBlocker = ""
        while true {
            let now = try step()
            if isTerminal { draw(now) }
            if now.isDone { return }
            let blocker = now.blocker ?? ""
            if blocker != lastBlocker, !blocker.isEmpty, !isTerminal {
                write(
                    error: "martlet: \(now.done) of \(now.total) \(now.unit); waits for "
                        + blocker)
            }
            lastBlocker = blocker
            usleep(500_000)
        }
    }

    private static func draw(_ step: Step) {
        let width = 30
        let filled = step.total == 0 ? width : step.done * width / step.total
        let bar =
            String(repeating: "#", count: filled) + String(repeating: ".", count: width - filled)
        var line = "\r[\(bar)] \(step.done) of \(step.total) \(step.unit)"
        if let left = step.left, !step.isDone { line += ", about \(left) s left" }
        if let blocker = step.blocker { line += ", waits for \(blocker.prefix(60))" }
        line += "\u{1B}[K" + (step.isDone ? "\n" : "")
        let bytes = Array(line.utf8)
        _ = bytes.withUnsafeBytes { Glibc.write(2, $0.baseAddress, $0.count) }
    }
}
