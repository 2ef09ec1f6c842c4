// `martlet explain PATH|SET|SERVER`: where things are, why there and not elsewhere, and what they
// wait for. It changes nothing.

import ArgumentParser
import Base
import Client
import Placement
import Wire

struct Explain: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "explain",
        abstract: "Say why copies are where they are, and what a repair or drain waits for.",
        discussion: """
            WHAT is an absolute path in the cell, the number of a set, or a chunk server's name or \
            id. Reasons are those of the cell as it is now: the rules that chose the members, \
            applied to every disk.
            """)

    @Argument(help: "A path, a set or a chunk server.")
    var what: String
    @OptionGroup var cell: CellOptions
    @Flag(help: "Print JSON.")
    var json = false

    /// Sets of a file that are explained one by one.
    private static let setsPerFile = 8

    mutating func run() throws {
        let path = what.hasPrefix("/") ? try RemotePath(what) : nil
        let fileSystem = try cell.connect("explain")
        defer { fileSystem.close() }
        let picture = try CellPicture(fileSystem)
        if let path {
            try explain(FilePlaces(path, fileSystem, picture), picture)
        } else if let number = UInt64(what),
            let set = picture.sets.first(where: { $0.id.rawValue == number })
        {
            let explained = SetExplanation(set, picture)
            show(explained.text, explained.json)
        } else {
            if UInt64(what) != nil, picture.status.servers.allSatisfy({ "\($0.id)" != what }) {
                throw CommandFailure(
                    .notFound, "there is no set \(what) (martlet explain SERVER lists sets)")
            }
            let servers = try picture.servers(named: [what]).map {
                ServerExplanation($0, picture)
            }
            show(
                servers.map(\.text).joined(separator: "\n\n"),
                [("chunkservers", .array(servers.map { .object($0.json) }))])
        }
    }

    private func show(_ text: String, _ fields: [(String, JSON)]) {
        guard json else { return print(text) }
        print(JSON.object([("schema", .integer(1))] + fields).encoded(indented: true))
    }

    private func explain(_ file: FilePlaces, _ picture: CellPicture) throws {
        let sets = file.sets.prefix(Self.setsPerFile).map { SetExplanation($0.set, picture) }
        var text = file.head
        if file.attributes.kind != .file {
            text += "\n  it has no chunks: the masters keep it, on disk at a majority of them"
        }
        for (set, chunks) in zip(sets, file.sets.map(\.chunks)) {
            text += "\n\nchunks \(FilePlaces.ranges(chunks)): " + set.text
        }
        if file.sets.count > sets.count {
            text += "\n\nand \(file.sets.count - sets.count) more sets: martlet info \(file.path)"
        }
        show(
            text,
            file.fields.filter { $0.0 != "sets" }
                + [("sets", .array(sets.map { .object($0.json) }))])
    }
}

/// Why a set is where it is.
struct SetExplanation {
    let set: SetStatus
    let picture: CellPicture
    private let places: PlaceExplanation

    init(_ set: SetStatus, _ picture: CellPicture) {
        self.set = set
        self.picture = picture
        places = PlaceExplanation(
            members: set.configuration.members, goal: Int(picture.status.goal), in: picture.view)
    }

    private func reason(_ member: MemberPlace) -> String {
        let far: String? =
            switch (member.separation, member.nearest) {
            case (.otherRack, _): "another rack than all other copies"
            case (.otherHost, _): "another host than all other copies"
            case (.otherServer, let near?):
                "another server, on the same host as \(picture.name(of: near))"
            case (.otherDisk, let near?):
                "another disk of the same server as \(picture.name(of: near))"
            default: nil
            }
        let use = "\(member.usedPercent) % used"
        let now = member.obstacle.map { "now it \($0.rawValue)" }
        return [far, use, now].compactMap { $0 }.joined(separator: ", ")
    }

    /// Why there is no other copy, or what is done about it.
    private var doing: String {
        if let task = picture.task(of: set) {
            let seconds = picture.seconds(of: set).map { ", about \($0) s if it were alone" }
            return task + (seconds ?? "")
        }
        let goal = Int(picture.status.goal)
        let members = set.configuration.members.count
        return members >= goal
            ? "nothing: it has its \(goal) copies" : "the next round of the leader begins a repair"
    }

    var text: String {
        let configuration = set.configuration
        var rows = [CellPicture.memberHead + ["WHY HERE"]]
        for row in picture.memberRows(set) {
            let member = places.members.first { "\($0.disk)" == row[2] }
            rows.append(row + [member.map(reason) ?? "-"])
        }
        var lines = [
            "set \(set.id), epoch \(configuration.epoch): \(configuration.members.count) of "
                + "\(picture.status.goal) copies; \(picture.service(of: set))",
            "  \(set.chunks) chunks, \(Amounts.human(set.stored)) stored per copy", "",
            table(rows), "",
        ]
        if !places.others.isEmpty {
            lines.append("not on:")
            lines += places.others.map {
                "  \(picture.name(of: $0.disk)): \(picture.inNames($0.absence.text))"
            }
        }
        lines.append("under way: " + doing)
        if let advice = LossPlan.advice(for: set, picture) { lines.append(advice) }
        return lines.joined(separator: "\n")
    }

    var json: [(String, JSON)] {
        let reasons = places.members.map { member in
            JSON.object([
                ("id", .string("\(member.disk)")),
                ("chunkserver", .string(picture.name(of: member.disk))),
                ("reason", .string(reason(member))),
                ("used_percent", .integer(Int64(member.usedPercent))),
            ])
        }
        let others = places.others.map { other in
            JSON.object([
                ("id", .string("\(other.disk)")),
                ("chunkserver", .string(picture.name(of: other.disk))),
                ("reason", .string(picture.inNames(other.absence.text))),
            ])
        }
        return picture.json(set) + [
            ("here_because", .array(reasons)), ("not_on", .array(others)),
            ("under_way", .string(doing)),
        ]
    }
}

/// What a chunk server, or one disk of several, has and waits for.
struct ServerExplanation {
    let server: ServerStatus
    let picture: CellPicture
    private let sets: [SetStatus]
    private let obstacles: [(disk: DiskReport, obstacle: ClusterView.Obstacle?)]

    init(_ server: ServerStatus, _ picture: CellPicture) {
        self.server = server
        self.picture = picture
        sets = picture.sets(on: server)
        let view = picture.view
        obstacles = server.disks.map { ($0, view.obstacle($0.disk)) }
    }

    private var primaries: Int {
        sets.count { picture.server(of: $0.configuration.primary)?.id == server.id }
    }
    /// Sets with a copy here, or one that comes here, for which something is under way.
    private var waiting: [SetStatus] {
        picture.sets.filter { set in
            guard let task = set.task else { return false }
            let here = set.configuration.members + [task.to].compactMap { $0 }
            return here.contains { picture.server(of: $0)?.id == server.id }
        }
    }
    private var draining: [SetStatus] { sets.filter { $0.task?.kind == .drain } }

    /// How far a drain is and what stops it; nil: the server is not drained.
    private var drain: String? {
        guard picture.isDraining(server) else { return nil }
        guard !sets.isEmpty else {
            return "drained: no copy is left; martlet chunkserver remove \(server.name)"
        }
        let bytes = sets.reduce(0) { $0 + $1.stored }
        let left = Waiting.left(bytes: bytes, picture.operations.copyRate)
        let blocked = draining.filter(CellPicture.isBlocked)
        var text = "draining: \(sets.count) sets are left, \(Amounts.human(bytes)) to copy"
        text += left.map { ", about \($0) s" } ?? ""
        if let first = blocked.first?.task {
            text += "; \(blocked.count) of them wait for \(picture.inNames(first.waits))"
        }
        return text
    }

    private var state: String {
        if server.isRefused {
            return "refused: its disk is older than the masters remember, or a copy; start it with "
                + "the disk that it had last, or an empty one"
        }
        if server.isUp { return "up" }
        let unit = picture.servers.filter { $0.id.unit == server.id.unit && $0.isUp }
        if server.disks.contains(where: \.hasFailed) || !unit.isEmpty {
            return "down: its disk has failed, or was taken out"
        }
        return "down: no report for \(Limits.serverSilence.seconds) s"
    }

    var text: String {
        var lines = [
            "\(server.name) (\(server.id)) at \(server.address.network), rack "
                + "\(server.rack.isEmpty ? "-" : server.rack): \(state)",
            "  \(sets.count) sets have a copy here, \(primaries) of them their primary",
        ]
        for (disk, obstacle) in obstacles {
            let data = obstacle.map { "takes no new data: it \($0.rawValue)" } ?? "takes new data"
            lines.append(
                "  disk \(disk.disk): \(Amounts.human(disk.used)) of "
                    + "\(Amounts.human(disk.capacity)) used, \(data)")
        }
        for disk in server.lost {
            let sets = picture.copies(on: [disk])
            lines.append(
                "  disk \(disk): not there any more; \(sets) sets still have it as a member, with "
                    + "none it is forgotten")
        }
        if let drain { lines.append("  " + drain) }
        if !waiting.isEmpty {
            lines.append("  under way:")
            lines += waiting.prefix(16).map { "    set \($0.id): \(picture.task(of: $0) ?? "")" }
            if waiting.count > 16 { lines.append("    and \(waiting.count - 16) more sets") }
        }
        return lines.joined(separator: "\n")
    }

    var json: [(String, JSON)] {
        let disks = obstacles.map { disk, obstacle in
            JSON.object([
                ("id", .string("\(disk.disk)")), ("used", .unsigned(disk.used)),
                ("capacity", .unsigned(disk.capacity)), ("failed", .bool(disk.hasFailed)),
                ("takes_new_data", .bool(obstacle == nil)),
                ("obstacle", obstacle.map { .string($0.rawValue) } ?? .null),
            ])
        }
        let tasks = waiting.map { JSON.object(picture.json($0)) }
        return [
            ("id", .string("\(server.id)")), ("name", .string(server.name)),
            ("rack", .string(server.rack)), ("address", .string(server.address.network)),
            ("up", .bool(server.isUp)), ("state", .string(state)), ("disks", .array(disks)),
            ("lost_disks", .array(server.lost.map { .string("\($0)") })),
            ("sets", .array(sets.map { .unsigned($0.id.rawValue) })),
            ("primaries", .integer(Int64(primaries))),
            ("drain", drain.map { .string($0) } ?? .null), ("under_way", .array(tasks)),
        ]
    }
}
