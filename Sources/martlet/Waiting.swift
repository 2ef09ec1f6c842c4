// Commands that wait for the cell to carry something out: a bar on a terminal, and on standard
// error a line whenever what it waits for changes. None waits for ever: where nothing moves it
// ends, and says what goes on.

import ArgumentParser
import Base
import Glibc

/// The options of every command that waits.
struct WaitOptions: ParsableArguments {
    @Flag(help: "Do not wait.")
    var detach = false
    @Option(help: "Give up waiting after so many seconds in which nothing moved.")
    var patience: Double = 600

    func validate() throws {
        if !(patience > 0 && patience < 1e9) {
            throw ValidationError("--patience must be a number of seconds above 0")
        }
    }
}

enum Waiting {
    /// How far it is.
    struct Step {
        var done: Int
        /// Changes while something moves, before the next one is done.
        var mark: UInt64
        var total: Int
        var unit: String
        /// Why nothing moves, if it does not.
        var blocker: String?
        /// About how many seconds are left; nil: nobody knows.
        var left: Int?
        var isDone: Bool { done >= total }
        var text: String {
            "\(done) of \(total) \(unit)" + (blocker.map { "; waits for \($0)" } ?? "")
        }
    }

    /// About how long copying so many bytes takes.
    static func left(bytes: UInt64, _ rate: UInt64) -> Int? {
        rate == 0 ? nil : Int(bytes / rate)
    }

    /// Asks about once a second until it is done, fails, or nothing moves for too long. `what` is
    /// under way then, and `command` shows how far.
    static func until(
        _ options: WaitOptions, _ what: String, shownBy command: String,
        _ step: () throws(CommandFailure) -> Step
    ) throws(CommandFailure) {
        let isTerminal = isatty(2) == 1
        var last: Step?
        var moved = Clock.now
        while true {
            let now = try step()
            if isTerminal { draw(now) }
            if now.isDone { return }
            if now.done != last?.done || now.mark != last?.mark { moved = Clock.now }
            if now.blocker?.isEmpty == false, now.blocker != last?.blocker, !isTerminal {
                write(error: "martlet: \(now.text)")
            }
            last = now
            guard (Clock.now - moved).seconds < options.patience else {
                throw CommandFailure(
                    .timedOut,
                    "\(what): \(now.text). Nothing moved for \(Int(options.patience)) s: it goes "
                        + "on without this command, and \(command) shows how far")
            }
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
