// `martlet chunkserver list|drain|undrain|remove|can-stop`.

import ArgumentParser
import Base
import Client
import Placement
import Wire

struct ChunkServerList: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list", abstract: "Show chunk servers, and how far drained ones are.")

    @OptionGroup var cell: CellOptions
    @Flag(help: "Print JSON.")
    var json = false

    mutating func run() throws {
        let fileSystem = try cell.connect("chunkserver list")
        defer { fileSystem.close() }
        let picture = try CellPicture(fileSystem)
        print(json ? Self.json(picture).encoded(indented: true) : Self.text(picture))
    }

    private static func state(_ server: ServerStatus, _ picture: CellPicture) -> String {
        let isDraining = picture.isDraining(server)
        if server.isRefused { return "refused" }
        if !server.isUp { return isDraining ? "down, draining" : "down" }
        if server.disks.contains(where: \.hasFailed) { return "disk failed" }
        guard isDraining else { return "up" }
        return picture.sets(on: server).isEmpty ? "drained" : "draining"
    }

    private static func text(_ picture: CellPicture) -> String {
        var rows = [["CHUNK SERVER", "ID", "RACK", "STATE", "SETS", "USED", "CAPACITY", "USE"]]
        for server in picture.servers {
            let used = server.disks.reduce(0) { $0 + $1.used }
            let capacity = server.disks.reduce(0) { $0 + $1.capacity }
            let percent = capacity == 0 ? 0 : Double(used) * 100 / Double(capacity)
            rows.append([
                server.name, "\(server.id)", server.rack.isEmpty ? "-" : server.rack,
                state(server, picture), "\(picture.sets(on: server).count)",
                Amounts.human(used), Amounts.human(capacity),
                Amounts.decimal(percent, places: 1) + " %",
            ])
            for disk in server.lost {
                rows.append([
                    server.name, "disk \(disk)", "-", "lost",
                    "\(picture.copies(on: [disk]))", "-", "-", "-",
                ])
            }
        }
        return table(rows)
    }

    private static func json(_ picture: CellPicture) -> JSON {
        let servers = picture.servers.map { server in
            JSON.object([
                ("id", .string("\(server.id)")), ("name", .string(server.name)),
                ("rack", .string(server.rack)), ("state", .string(state(server, picture))),
                ("up", .bool(server.isUp)), ("draining", .bool(picture.isDraining(server))),
                ("sets", .unsigned(UInt64(picture.sets(on: server).count))),
                ("used", .unsigned(server.disks.reduce(0) { $0 + $1.used })),
                ("capacity", .unsigned(server.disks.reduce(0) { $0 + $1.capacity })),
                (
                    "lost_disks",
                    .array(
                        server.lost.map { disk in
                            .object([
                                ("id", .string("\(disk)")),
                                ("sets", .integer(Int64(picture.copies(on: [disk])))),
                            ])
                        })
                ),
            ])
        }
        return .object([("schema", .integer(1)), ("chunkservers", .array(servers))])
    }
}

struct ChunkServerDrain: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "drain", abstract: "Move every copy off chunk servers, and wait for it.",
        discussion: """
            Copies are made elsewhere before they leave: redundancy never drops below what it is. \
            Interrupting the command changes nothing; undrain takes the drain back.
            """)

    @Argument(help: "Chunk servers, by name or id; NAME/2 is one disk of several.")
    var servers: [String]
    @OptionGroup var wait: WaitOptions
    @OptionGroup var cell: CellOptions

    mutating func run() throws {
        let fileSystem = try cell.connect("chunkserver drain")
        defer { fileSystem.close() }
        let picture = try CellPicture(fileSystem)
        let wanted = try picture.servers(named: servers)
        for server in wanted {
            try carryOut(.drain(server.id, isDraining: true), server.name, fileSystem)
        }
        let command = "martlet chunkserver list"
        guard !wait.detach else { return print("draining: \(command) shows how far") }
        let total = wanted.reduce(0) { $0 + picture.sets(on: $1).count }
        try Waiting.until(wait, "chunkserver drain", shownBy: command) {
            () throws(CommandFailure) in
            let now = try CellPicture(fileSystem)
            if let undone = wanted.first(where: { !now.operations.draining.contains($0.id) }) {
                throw CommandFailure(.failed, "the drain of \(undone.name) was taken back")
            }
            let sets = wanted.flatMap { now.sets(on: $0) }
            return Waiting.Step(
                done: total - min(total, sets.count), mark: now.copied, total: total, unit: "sets",
                blocker: sets.lazy.compactMap(\.task).map(\.waits).first { !$0.isEmpty },
                left: Waiting.left(
                    bytes: sets.reduce(0) { $0 + $1.stored }, now.operations.copyRate))
        }
        print("drained: \(wanted.map(\.name).joined(separator: ", "))")
    }
}

struct ChunkServerUndrain: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "undrain", abstract: "Take a drain back; copies that left stay away.")

    @Argument(help: "Chunk servers, by name or id; NAME/2 is one disk of several.")
    var servers: [String]
    @OptionGroup var cell: CellOptions

    mutating func run() throws {
        let fileSystem = try cell.connect("chunkserver undrain")
        defer { fileSystem.close() }
        let picture = try CellPicture(fileSystem)
        for server in try picture.servers(named: servers) {
            try carryOut(.drain(server.id, isDraining: false), server.name, fileSystem)
        }
    }
}

struct ChunkServerRemove: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "remove", abstract: "Forget chunk servers that hold no copy any more.",
        discussion: "A removed server can't come back with its folder; start one in a new folder.")

    @Argument(help: "Chunk servers, by name or id; NAME/2 is one disk of several.")
    var servers: [String]
    @OptionGroup var cell: CellOptions

    mutating func run() throws {
        let fileSystem = try cell.connect("chunkserver remove")
        defer { fileSystem.close() }
        let picture = try CellPicture(fileSystem)
        let wanted = try picture.servers(named: servers)
        for server in wanted {
            try carryOut(.removeServer(server.id), server.name, fileSystem)
            print("removed: \(server.name)")
        }
    }
}

struct ChunkServerCanStop: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "can-stop",
        abstract: "Say whether chunk servers can be stopped together while programs go on.",
        discussion: "Ends with 0 if they can, with 9 if not.")

    @Argument(help: "Chunk servers, by name or id; NAME/2 is one disk of several.")
    var servers: [String]
    @OptionGroup var cell: CellOptions
    @Flag(help: "Print JSON.")
    var json = false

    mutating func run() throws {
        let fileSystem = try cell.connect("chunkserver can-stop")
        defer { fileSystem.close() }
        let picture = try CellPicture(fileSystem)
        let wanted = try picture.servers(named: servers)
        let problems = StopCheck.problems(
            stopping: Set(wanted.flatMap(\.disks).map(\.disk)),
            sets: picture.sets.map(\.configuration),
            isSound: { set, disk in Self.isSound(set, disk, picture) })
        if json {
            let list = problems.map { problem in
                JSON.object([
                    ("set", .unsigned(problem.set.rawValue)),
                    ("left", .integer(Int64(problem.left))),
                    ("needed", .integer(Int64(problem.needed))),
                ])
            }
            print(
                JSON.object([
                    ("schema", .integer(1)), ("can_stop", .bool(problems.isEmpty)),
                    ("problems", .array(list)),
                ]).encoded(indented: true))
        } else if problems.isEmpty {
            print("yes: reads and writes go on without \(names(wanted))")
        }
        if let first = problems.first {
            throw CommandFailure(
                .refusedAsUnsafe,
                "no: without \(names(wanted)) set \(first.set) would have \(first.left) of at "
                    + "least \(first.needed) sound copies (\(problems.count) sets in all): "
                    + "martlet health shows what is missing, drain moves copies away")
        }
    }

    private func names(_ servers: [ServerStatus]) -> String {
        servers.map(\.name).joined(separator: ", ")
    }

    /// Up, in the present epoch, without damage.
    private static func isSound(
        _ set: SetID, _ disk: DiskID, _ picture: CellPicture
    ) -> Bool {
        guard picture.server(of: disk)?.isUp == true,
            let state = picture.sets.first(where: { $0.id == set }),
            let copy = state.copies.first(where: { $0.disk == disk })
        else { return false }
        return copy.epoch == state.configuration.epoch && !copy.hasRot
    }
}

/// Carries an operation out; a refusal ends the command and says why.
func carryOut(
    _ operation: Operation, _ what: String, _ fileSystem: FileSystem
) throws(CommandFailure) {
    let refusal = try attempt(what) { () throws(FileError) in
        try fileSystem.operate(operation)
    }
    if let refusal { throw CommandFailure(.refusedAsUnsafe, "\(what): \(refusal)") }
}
