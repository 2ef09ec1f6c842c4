// `martlet rebalance plan|show|apply|status|pause|resume|cancel`.

import ArgumentParser
import Base
import Client
import Placement
import Wire

struct RebalanceCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rebalance", abstract: "Make chunk servers equally full.",
        discussion: "A plan changes nothing; apply carries it out, and survives any restart.",
        subcommands: [
            RebalancePlan.self, RebalanceShow.self, RebalanceApply.self, RebalanceStatus.self,
            RebalancePause.self, RebalanceResume.self, RebalanceCancel.self,
        ])
}

struct RebalancePlan: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "plan", abstract: "Show what should move, with reasons; change nothing.")

    @Option(name: [.short, .long], help: "Write the plan to this file, for apply.")
    var output: String?
    @Option(help: "Disks may differ by so many percent.")
    var threshold: Double = 5
    @Option(help: "Move at most so many bytes (K, M, G, T).")
    var maxBytes: String?
    @OptionGroup var cell: CellOptions
    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        if !(threshold >= 0 && threshold <= 100) {
            throw ValidationError("--threshold is a number of percent, 0 to 100")
        }
        if let maxBytes, Amounts.bytes(maxBytes) == nil {
            throw ValidationError("--max-bytes is a number with K, M, G or T, not '\(maxBytes)'")
        }
    }

    mutating func run() throws {
        let fileSystem = try cell.connect("rebalance plan")
        defer { fileSystem.close() }
        let picture = try CellPicture(fileSystem)
        let bound = maxBytes.flatMap(Amounts.bytes).map { UInt64($0) } ?? .max
        let plan = Self.make(picture, threshold: threshold, maxBytes: bound)
        print(json ? plan.json.encoded(indented: true) : plan.table(picture))
        if let output {
            try LocalFile.write(Array(plan.text.utf8), to: output)
            write(error: "martlet: written to \(output); martlet rebalance apply \(output)")
        }
    }

    /// Sets that are whole and that nothing else happens to may be moved.
    private static func make(
        _ picture: CellPicture, threshold: Double, maxBytes: UInt64
    ) -> PlanFile {
        let sets = picture.sets.filter { set in
            set.isServing && !set.isFrozen && set.task == nil
                && !set.copies.contains { $0.hasRot }
        }
        var planner = RebalancePlanner(
            view: picture.view,
            sets: sets.map { set in
                MovableSet(
                    set: set.id, epoch: set.configuration.epoch,
                    members: set.configuration.members, bytes: set.stored)
            }, threshold: Int(threshold * 10_000), maxBytes: maxBytes)
        let before = Self.percent(planner.scoreBefore)
        let entries = planner.run().map { planned in
            let (from, to) = (planned.move.from, planned.move.to)
            let full = [planned.fromUsed, planned.toUsed].map {
                Amounts.decimal(Self.percent($0), places: 1)
            }
            return PlanFile.Entry(
                move: planned.move, score: Self.percent(planned.score),
                reason: "\(picture.name(of: from)) is \(full[0]) % full, "
                    + "\(picture.name(of: to)) \(full[1]) %")
        }
        return PlanFile(cell: picture.status.cell, scoreBefore: before, entries: entries)
    }
    private static func percent(_ millionths: Int) -> Double { Double(millionths) / 10_000 }
}

extension PlanFile {
    /// For people.
    func table(_ picture: CellPicture?) -> String {
        guard !entries.isEmpty else {
            return "nothing to move: unevenness \(Amounts.decimal(scoreBefore, places: 2)) %"
        }
        var rows = [["SET", "FROM", "TO", "BYTES", "SCORE", "REASON"]]
        for entry in entries {
            let move = entry.move
            rows.append([
                "\(move.set)", picture?.name(of: move.from) ?? "\(move.from)",
                picture?.name(of: move.to) ?? "\(move.to)", Amounts.human(move.bytes),
                Amounts.decimal(entry.score, places: 2), entry.reason,
            ])
        }
        let bytes = entries.reduce(0) { $0 + $1.move.bytes }
        let seconds = bytes / Self.assumedRate
        return martlet.table(rows) + """


            \(entries.count) moves, \(Amounts.human(bytes)); unevenness \
            \(Amounts.decimal(scoreBefore, places: 2)) % before, \
            \(Amounts.decimal(scoreAfter, places: 2)) % after; about \(seconds) s at \
            \(Amounts.human(Self.assumedRate))/s
            """
    }
    /// What the time in a plan is reckoned with.
    private static var assumedRate: UInt64 { 64 << 20 }

    /// For programs.
    var json: JSON {
        let moves = entries.map { entry in
            JSON.object([
                ("set", .unsigned(entry.move.set.rawValue)),
                ("epoch", .unsigned(entry.move.epoch.rawValue)),
                ("from", .string("\(entry.move.from)")), ("to", .string("\(entry.move.to)")),
                ("bytes", .unsigned(entry.move.bytes)), ("score", .double(entry.score)),
                ("reason", .string(entry.reason)),
            ])
        }
        return .object([
            ("schema", .integer(1)), ("cell", .string("\(cell)")), ("plan", .string("\(id)")),
            ("score_before", .double(scoreBefore)), ("score_after", .double(scoreAfter)),
            ("moves", .array(moves)),
        ])
    }
}

struct RebalanceShow: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show", abstract: "Show the plan in a file.")

    @Argument(help: "A file of rebalance plan -o.")
    var file: String
    @Flag(help: "Print JSON.")
    var json = false

    mutating func run() throws {
        let plan = try PlanFile(reading: file)
        print(json ? plan.json.encoded(indented: true) : plan.table(nil))
    }
}

struct RebalanceApply: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "apply", abstract: "Carry out a plan, and wait for it.",
        discussion: """
            Refused when a set has changed since the plan was made. Interrupting the command \
            does not stop the plan; cancel does.
            """)

    @Argument(help: "A file of rebalance plan -o.")
    var file: String
    @Option(help: "All moves together copy at most so many bytes a second (K, M, G).")
    var bytesPerSecond: String?
    @OptionGroup var wait: WaitOptions
    @OptionGroup var cell: CellOptions

    func validate() throws {
        if let bytesPerSecond, Amounts.bytes(bytesPerSecond) == nil {
            throw ValidationError("--bytes-per-second is a number with K, M or G")
        }
    }

    mutating func run() throws {
        let plan = try PlanFile(reading: file)
        guard !plan.entries.isEmpty else { return print("the plan has no moves") }
        let fileSystem = try cell.connect("rebalance apply")
        defer { fileSystem.close() }
        let picture = try CellPicture(fileSystem)
        guard picture.status.cell == plan.cell else {
            throw CommandFailure(
                .refusedAsUnsafe,
                "\(file) is a plan of cell \(plan.cell), this is \(picture.status.cell)")
        }
        let rate = bytesPerSecond.flatMap(Amounts.bytes).map { UInt64($0) } ?? 0
        try carryOut(
            .startRebalance(
                Rebalance(
                    id: plan.id, bytesPerSecond: rate, moves: plan.entries.map(\.move))),
            file, fileSystem)
        let command = "martlet rebalance status"
        guard !wait.detach else { return print("started: \(command) shows how far") }
        try follow(plan.id, command, fileSystem)
    }

    private func follow(
        _ id: UInt64, _ command: String, _ fileSystem: FileSystem
    ) throws(CommandFailure) {
        var skipped = 0
        try Waiting.until(wait, "rebalance apply", shownBy: command) {
            () throws(CommandFailure) in
            let now = try CellPicture(fileSystem)
            guard let plan = now.operations.rebalance, plan.id == id else {
                throw CommandFailure(.failed, "another plan has taken its place")
            }
            if plan.state == .cancelled {
                throw CommandFailure(.partlyDone, "the plan was cancelled")
            }
            skipped = plan.moves.count { $0.state == .skipped }
            let open = plan.moves.filter { $0.state == .waiting }
            let sets = now.sets.filter { set in open.contains { $0.set == set.id } }
            return Waiting.Step(
                done: plan.moves.count - open.count, mark: now.copied, total: plan.moves.count,
                unit: "moves",
                blocker: plan.state == .paused
                    ? "martlet rebalance resume"
                    : sets.lazy.compactMap(\.task).map(\.waits).first { !$0.isEmpty },
                left: Waiting.left(
                    bytes: open.reduce(0) { $0 + $1.bytes }, now.operations.copyRate))
        }
        print("done" + (skipped == 0 ? "" : "; \(skipped) moves were not needed any more"))
    }
}

struct RebalanceStatus: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show how far the last plan is.")

    @OptionGroup var cell: CellOptions
    @Flag(help: "Print JSON.")
    var json = false

    mutating func run() throws {
        let fileSystem = try cell.connect("rebalance status")
        defer { fileSystem.close() }
        let picture = try CellPicture(fileSystem)
        guard let plan = picture.operations.rebalance else {
            let none = JSON.object([("schema", .integer(1)), ("plan", .null)])
            return print(json ? none.encoded(indented: true) : "no plan was ever applied")
        }
        print(json ? Self.json(plan).encoded(indented: true) : Self.text(plan, picture))
    }

    private static func count(_ plan: Rebalance, _ state: ReplicaMove.State) -> Int {
        plan.moves.count { $0.state == state }
    }

    private static func text(_ plan: Rebalance, _ picture: CellPicture) -> String {
        var rows = [["SET", "FROM", "TO", "BYTES", "STATE"]]
        for move in plan.moves where move.state == .waiting {
            let task = picture.sets.first { $0.id == move.set }?.task
            let isFilling = task.map { $0.kind == .move && $0.waits.isEmpty } ?? false
            let state =
                isFilling
                ? "copying, \(task?.percent ?? 0) %"
                : task.map { $0.waits.isEmpty ? "waits" : "waits for \($0.waits)" } ?? "waits"
            rows.append([
                "\(move.set)", picture.name(of: move.from), picture.name(of: move.to),
                Amounts.human(move.bytes), state,
            ])
        }
        let rate = plan.bytesPerSecond
        let head =
            "plan \(plan.id): \(plan.state), \(count(plan, .done)) of \(plan.moves.count) moves "
            + "done, \(count(plan, .skipped)) not needed any more"
            + (rate == 0 ? "" : ", at most \(Amounts.human(rate))/s")
        return rows.count == 1 || !plan.state.isOpen ? head : head + "\n\n" + table(rows)
    }

    private static func json(_ plan: Rebalance) -> JSON {
        .object([
            ("schema", .integer(1)), ("plan", .string("\(plan.id)")),
            ("state", .string("\(plan.state)")),
            ("bytes_per_second", .unsigned(plan.bytesPerSecond)),
            ("moves", .integer(Int64(plan.moves.count))),
            ("done", .integer(Int64(count(plan, .done)))),
            ("skipped", .integer(Int64(count(plan, .skipped)))),
        ])
    }
}

/// Pauses, resumes or cancels the plan that is open.
private func setRebalance(
    _ cell: CellOptions, _ state: RebalanceState
) throws(CommandFailure) {
    let fileSystem = try cell.connect("rebalance")
    defer { fileSystem.close() }
    let operations = try attempt("rebalance") { () throws(FileError) in
        try fileSystem.operations()
    }
    guard let plan = operations.rebalance, plan.state.isOpen else {
        throw CommandFailure(.notFound, "no plan is open: see martlet rebalance status")
    }
    try carryOut(.setRebalance(id: plan.id, state), "plan \(plan.id)", fileSystem)
}

struct RebalancePause: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pause", abstract: "Begin no more moves; what is being copied is let go.")
    @OptionGroup var cell: CellOptions
    mutating func run() throws { try setRebalance(cell, .paused) }
}

struct RebalanceResume: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "resume", abstract: "Go on with a plan that was paused.")
    @OptionGroup var cell: CellOptions
    mutating func run() throws { try setRebalance(cell, .running) }
}

struct RebalanceCancel: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cancel", abstract: "End the open plan; moves that are done stay.")
    @OptionGroup var cell: CellOptions
    mutating func run() throws { try setRebalance(cell, .cancelled) }
}
