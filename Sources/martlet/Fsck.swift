// `martlet fsck`: what the masters say of the copies of all sets against what chunk servers have.

import ArgumentParser
import Base
import Client
import Glibc
import Placement
import Wire

struct Fsck: ParsableCommand {
    /// The exit codes of fsck(8); 16 is for wrong usage.
    enum Exit: Int32 {
        case clean = 0
        case corrected = 1
        case left = 4
        case operational = 8
        case usage = 16
    }
    static let configuration = CommandConfiguration(
        commandName: "fsck",
        abstract: "Compare the masters' view of all copies with what chunk servers have.",
        discussion: """
            Changes nothing without --repair. Ends with 0: nothing found, 1: all was corrected, \
            4: something is left, 8: the check could not be made, 16: wrong usage.
            """)

    @Flag(
        help: """
            Move misplaced copies, and wait until the cell has made and removed the copies it has \
            to. Never touches copies that the masters do not know.
            """)
    var repair = false
    @Option(help: "With --repair, wait so many seconds.")
    var wait = 300
    @OptionGroup var cell: CellOptions
    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        guard (0...86_400).contains(wait) else {
            throw ValidationError("--wait is a number of seconds, 0 to 86400")
        }
    }

    mutating func run() throws {
        do throws(CommandFailure) {
            Glibc.exit(try check().rawValue)
        } catch {
            write(error: "martlet: \(error.message)")
            Glibc.exit(Exit.operational.rawValue)
        }
    }

    private func check() throws(CommandFailure) -> Exit {
        let fileSystem = try cell.connect("fsck")
        defer { fileSystem.close() }
        var picture = try CellPicture(fileSystem)
        let found = Self.findings(picture)
        var left = found
        if repair, !found.isEmpty {
            try Self.separate(found, picture, fileSystem)
            for _ in 0..<wait * 2 where left.contains(where: { Self.isRepairable($0.kind) }) {
                usleep(500_000)
                picture = try CellPicture(fileSystem)
                left = Self.findings(picture)
            }
        }
        print(json ? json(found, left, picture) : text(found, left, picture))
        if !left.isEmpty { return .left }
        return found.isEmpty ? .clean : .corrected
    }

    private static func findings(_ picture: CellPicture) -> [CheckFinding] {
        CellCheck.findings(
            picture.checkedSets, goal: Int(picture.status.goal),
            unknown: picture.operations.unknownSets, in: picture.view)
    }

    /// Whether the cell, or a plan, makes it good without an operator.
    private static func isRepairable(_ kind: CheckFinding.Kind) -> Bool {
        switch kind {
        case .missing, .newer, .unknown, .over: false
        case .absent, .damaged, .stale, .unavailable, .under, .misplaced, .orphan: true
        }
    }

    /// Starts a plan that takes misplaced copies apart.
    private static func separate(
        _ found: [CheckFinding], _ picture: CellPicture, _ fileSystem: FileSystem
    ) throws(CommandFailure) {
        let moves = found.filter { $0.kind == .misplaced }.compactMap { finding -> ReplicaMove? in
            guard let from = finding.disk, let to = finding.better,
                let set = picture.sets.first(where: { $0.id == finding.set })
            else { return nil }
            return ReplicaMove(
                set: set.id, epoch: set.configuration.epoch, from: from, to: to, bytes: set.stored)
        }
        guard !moves.isEmpty else { return }
        var random = SystemRandomNumberGenerator()
        let plan = Rebalance(
            id: max(1, random.next()), bytesPerSecond: 0,
            moves: Array(moves.prefix(Limits.rebalanceMoves)))
        try carryOut(.startRebalance(plan), "fsck --repair", fileSystem)
    }

    private static func words(
        _ finding: CheckFinding, _ picture: CellPicture
    ) -> String {
        let disk = finding.disk.map { picture.name(of: $0) } ?? ""
        let set = picture.sets.first { $0.id == finding.set }
        let members = set?.configuration.members.count ?? 0
        switch finding.kind {
        case .missing:
            let way = set.flatMap { LossPlan.advice(for: $0, picture) }
            return "no server that is up has a copy; \(set?.chunks ?? 0) chunks can't be read"
                + (way.map { "; " + $0 } ?? "")
        case .newer: return "\(disk) knows a later epoch than the masters, which lost state"
        case .unknown: return "disks have it, the masters do not know it: kept"
        case .absent: return "\(disk) is a member and has no copy"
        case .damaged:
            let way = set.flatMap { LossPlan.advice(for: $0, picture) }
            return "the copy on \(disk) has damaged records" + (way.map { ", and " + $0 } ?? "")
        case .stale: return "the copy on \(disk) is of an older epoch"
        case .unavailable: return "\(disk) is a member and is down"
        case .under: return "\(members) of \(picture.status.goal) copies"
        case .over: return "\(members) copies, \(picture.status.goal) are wanted"
        case .misplaced:
            let better = finding.better.map { picture.name(of: $0) } ?? ""
            return "the copy on \(disk) shares a server, host or rack with another; \(better) "
                + "is free"
        case .orphan: return "\(disk) has a copy and is no member"
        }
    }

    private static func trash(_ picture: CellPicture) -> Int {
        picture.checkedSets.filter(\.keepsTrash).reduce(0) { $0 + $1.strays.count }
    }

    private func text(
        _ found: [CheckFinding], _ left: [CheckFinding], _ picture: CellPicture
    ) -> String {
        let trash = Self.trash(picture)
        let head =
            "\(picture.sets.count) sets checked"
            + (trash == 0 ? "" : " (\(trash) former copies are kept in the trash)")
        if left.isEmpty {
            return head + (found.isEmpty ? ": clean" : ": \(found.count) findings, all corrected")
        }
        var rows = [["SET", "FINDING", "WHAT", "WAITS FOR"]]
        for finding in left {
            let task = picture.sets.first { $0.id == finding.set }?.task
            rows.append([
                "\(finding.set)", finding.kind.rawValue, Self.words(finding, picture),
                task.map { $0.waits.isEmpty ? "\($0.percent) % copied" : $0.waits } ?? "-",
            ])
        }
        return table(rows) + "\n\n" + head + ": \(left.count) findings"
            + (repair ? " left of \(found.count)" : "")
    }

    private func json(
        _ found: [CheckFinding], _ left: [CheckFinding], _ picture: CellPicture
    ) -> String {
        let all = found + left.filter { !found.contains($0) }
        let list = all.map { finding in
            JSON.object([
                ("id", .string("\(finding.set)/\(finding.kind.rawValue)")),
                ("set", .unsigned(finding.set.rawValue)),
                ("finding", .string(finding.kind.rawValue)),
                ("disk", finding.disk.map { .string("\($0)") } ?? .null),
                (
                    "chunkserver",
                    finding.disk.map { .string(picture.name(of: $0)) } ?? .null
                ),
                ("text", .string(Self.words(finding, picture))),
                ("corrected", .bool(!left.contains(finding))),
            ])
        }
        return JSON.object([
            ("schema", .integer(1)), ("sets", .integer(Int64(picture.sets.count))),
            ("clean", .bool(left.isEmpty)), ("trash", .integer(Int64(Self.trash(picture)))),
            ("findings", .array(list)),
        ]).encoded(indented: true)
    }
}
