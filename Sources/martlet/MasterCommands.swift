// `martlet master list|add|remove|replace|transfer`: who the masters are (M17).
//
// Invariant: a new master counts only when the leader took the order; where that is refused, what
// was started for it here is gone again.

import ArgumentParser
import Base
import Client
import Wire

extension MasterStatus {
    /// In one word.
    var state: String {
        if isLeader { return "leader" }
        if !isUp { return "down" }
        if hasRot { return "damaged" }
        if isStranger { return "other disk" }
        return isVoter ? "up" : "joins"
    }
    /// Slots that it lacks.
    func lag(behind chosen: Slot) -> UInt64 {
        chosen > self.chosen ? chosen.rawValue - self.chosen.rawValue : 0
    }
    func fields(chosen: Slot) -> [(String, JSON)] {
        [
            ("id", .unsigned(UInt64(id.rawValue))), ("address", .string(address.network)),
            ("state", .string(state)), ("leader", .bool(isLeader)), ("voter", .bool(isVoter)),
            ("up", .bool(isUp)), ("rot", .bool(hasRot)), ("other_disk", .bool(isStranger)),
            ("durable", .unsigned(durable.rawValue)), ("applied", .unsigned(self.chosen.rawValue)),
            ("lag", .unsigned(lag(behind: chosen))), ("snapshot", .unsigned(snapshot.rawValue)),
            ("first_kept", .unsigned(firstKept.rawValue)),
        ]
    }
}

struct MasterList: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list", abstract: "Show masters, who leads, who votes, and how far each is.")

    @OptionGroup var cell: CellOptions
    @Flag(help: "Print JSON.")
    var json = false

    mutating func run() throws {
        let fileSystem = try cell.connect("master list")
        defer { fileSystem.close() }
        let status = try attempt("master list") { () throws(FileError) in
            try fileSystem.status()
        }
        print(json ? Self.json(status).encoded(indented: true) : Self.text(status))
    }

    private static func ballot(_ status: CellStatus, _ leader: MasterStatus?) -> String {
        "\(status.configuration).\(status.round).\(leader.map { "\($0.id)" } ?? "-")"
    }
    private static func text(_ status: CellStatus) -> String {
        var rows = [
            ["MASTER", "ADDRESS", "STATE", "VOTE", "DURABLE", "APPLIED", "LAG", "SNAPSHOT"]
        ]
        for master in status.masters {
            rows.append([
                "\(master.id)", master.address.network, master.state,
                master.isVoter && !master.isStranger ? "yes" : "no", "\(master.durable)",
                "\(master.chosen)", "\(master.lag(behind: status.chosen))",
                "\(master.snapshot)",
            ])
        }
        let ballot = ballot(status, status.masters.first(where: \.isLeader))
        return """
            configuration \(status.configuration), ballot \(ballot), chosen \(status.chosen), \
            applied \(status.applied)

            \(table(rows))
            """
    }
    private static func json(_ status: CellStatus) -> JSON {
        let leader = status.masters.first(where: \.isLeader)
        return .object([
            ("schema", .integer(1)), ("configuration", .unsigned(UInt64(status.configuration))),
            ("leader", leader.map { .unsigned(UInt64($0.id.rawValue)) } ?? .null),
            ("ballot", .string(ballot(status, leader))),
            ("chosen", .unsigned(status.chosen.rawValue)),
            ("applied", .unsigned(status.applied.rawValue)),
            ("masters", .array(status.masters.map { .object($0.fields(chosen: status.chosen)) })),
        ])
    }
}

/// Where a new master runs; the same words for `add` and `replace`.
private let newcomer: ArgumentHelp = """
    ID=HOST:PORT of a master that runs there already, started with --join on an empty folder; \
    without it one is started on this machine, where CELL is a folder made by `martlet up`.
    """

struct MasterAdd: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "add", abstract: "Give a new master the log, and then a vote.",
        discussion: "Interrupting the command changes nothing: it only waits.")

    @Argument(help: newcomer)
    var new: String?
    @OptionGroup var wait: WaitOptions
    @OptionGroup var cell: CellOptions

    mutating func run() throws {
        let change = try MasterChange(cell, "master add")
        defer { change.end() }
        let id = try change.add(new, replacing: nil, wait)
        print(
            wait.detach
                ? "master \(id) joins: martlet master list shows how far"
                : "master \(id) has a vote")
    }
}

struct MasterReplace: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "replace",
        abstract: "Give the place of a master, maybe a lost one, to a new one in one step.",
        discussion: """
            Interrupting the command changes nothing: it only waits. Where the old one runs in a \
            folder made by `martlet up`, and nobody waited, `martlet master remove` ends it then.
            """)

    @Argument(help: "The id of the master that goes.")
    var old: UInt16
    @Argument(help: newcomer)
    var new: String?
    @OptionGroup var wait: WaitOptions
    @OptionGroup var cell: CellOptions

    mutating func run() throws {
        let change = try MasterChange(cell, "master replace")
        defer { change.end() }
        let gone = MasterID(rawValue: old)
        try change.check(gone)
        let id = try change.add(new, replacing: gone, wait)
        guard !wait.detach else {
            return print("master \(id) takes its place: martlet master list shows how far")
        }
        try change.forget(gone)
        print("master \(id) has the place of master \(gone)")
    }
}

struct MasterRemove: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "remove", abstract: "Take a master's vote, or stop a new one from joining.",
        discussion: "Its folder is not used any more and can be deleted; its id never comes back.")

    @Argument(help: "Its id.")
    var id: UInt16
    @OptionGroup var cell: CellOptions

    mutating func run() throws {
        let change = try MasterChange(cell, "master remove")
        defer { change.end() }
        let gone = MasterID(rawValue: id)
        if !change.isLeftOver(gone) { try change.remove(gone) }
        try change.forget(gone)
        print("master \(gone) is removed")
    }
}

struct MasterTransfer: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "transfer", abstract: "Let another master lead.")

    @Argument(help: "Its id; the one that is furthest, if none is given.")
    var id: UInt16?
    @OptionGroup var cell: CellOptions

    mutating func run() throws {
        let change = try MasterChange(cell, "master transfer")
        defer { change.end() }
        print("master \(try change.transfer(id.map { MasterID(rawValue: $0) })) leads")
    }
}
