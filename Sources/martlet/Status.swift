// `martlet status`: the leader's view of the cell.

import ArgumentParser
import Base
import Client
import Wire

struct Status: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show masters, chunk servers, data and what is missing.")

    @OptionGroup var cell: CellOptions
    @Flag(help: "Print JSON.")
    var json = false

    mutating func run() throws {
        let fileSystem = try cell.connect("status")
        defer { fileSystem.close() }
        let status = try attempt("status") { () throws(FileError) in try fileSystem.status() }
        let operations = try attempt("status") { () throws(FileError) in
            try fileSystem.operations()
        }
        let redundancy = Redundancy(status, operations)
        print(
            json
                ? Self.json(status, redundancy).encoded(indented: true)
                : Self.text(status, redundancy))
    }

    private static func total(
        _ status: CellStatus, _ value: (DiskReport) -> UInt64
    ) -> UInt64 {
        status.servers.flatMap(\.disks).reduce(0) { $0 + value($1) }
    }

    private static func ratio(_ status: CellStatus) -> Double? {
        let stored = total(status, \.stored)
        return stored == 0 ? nil : Double(total(status, \.logical)) / Double(stored)
    }

    private static func text(_ status: CellStatus, _ redundancy: Redundancy) -> String {
        let sets = status.sets
        let isWell =
            sets.healthy == sets.total && status.masters.allSatisfy(\.isUp)
            && status.servers.allSatisfy(\.isUp)
            && total(status, \.scrub.damaged) + total(status, \.scrub.disputed) == 0
        var rows = [["MASTER", "ADDRESS", "STATE", "DURABLE"]]
        for master in status.masters {
            rows.append([
                "\(master.id)", master.address.network, master.state, "\(master.durable)",
            ])
        }
        var servers = [["CHUNK SERVER", "ADDRESS", "STATE", "USED", "CAPACITY", "STORED"]]
        for server in CellPicture.sorted(status.servers) {
            let failed = server.disks.contains(where: \.hasFailed)
            servers.append([
                server.name, server.address.network,
                !server.isUp ? "down" : failed ? "disk failed" : "up",
                Amounts.human(server.disks.reduce(0) { $0 + $1.used }),
                Amounts.human(server.disks.reduce(0) { $0 + $1.capacity }),
                Amounts.human(server.disks.reduce(0) { $0 + $1.stored }),
            ])
        }
        let ratio = ratio(status).map { Amounts.decimal($0, places: 2) } ?? "-"
        return """
            cell \(status.cell): \(isWell ? "well" : "degraded"), goal \(status.goal)

            \(table(rows))

            \(table(servers))

            replica sets  \(sets.total): \(sets.healthy) healthy, \(sets.waiting) waiting for a \
            member, \(sets.underReplicated) with too few copies
            redundancy    \(redundancy.text)
            content       \(status.files) files, \(status.directories) directories, \
            \(Amounts.human(status.fileBytes))
            data          logical \(Amounts.human(total(status, \.logical))), \
            stored \(Amounts.human(total(status, \.stored))) (all copies), ratio \(ratio)
            scrub         \(total(status, \.scrub.damaged)) damaged records, \
            \(total(status, \.scrub.disputed)) blocks whose copies differ
            clients       \(status.sessions) sessions
            """
    }

    private static func json(_ status: CellStatus, _ redundancy: Redundancy) -> JSON {
        let masters = status.masters.map { master in
            JSON.object(
                master.fields(chosen: status.chosen) + [
                    ("connections", master.connections.map { json($0) } ?? .null)
                ])
        }
        let leader = status.masters.first(where: \.isLeader)
        let sets = status.sets
        return .object([
            ("schema", .integer(1)), ("cell", .string("\(status.cell)")),
            ("goal", .integer(Int64(status.goal))),
            ("leader", leader.map { .unsigned(UInt64($0.id.rawValue)) } ?? .null),
            ("configuration", .unsigned(UInt64(status.configuration))),
            ("round", .unsigned(status.round)), ("chosen", .unsigned(status.chosen.rawValue)),
            ("applied", .unsigned(status.applied.rawValue)), ("masters", .array(masters)),
            ("chunkservers", .array(CellPicture.sorted(status.servers).map { json($0) })),
            (
                "sets",
                .object([
                    ("total", .unsigned(sets.total)), ("healthy", .unsigned(sets.healthy)),
                    ("waiting", .unsigned(sets.waiting)),
                    ("under_replicated", .unsigned(sets.underReplicated)),
                ])
            ),
            ("redundancy", redundancy.json),
            ("files", .unsigned(status.files)), ("directories", .unsigned(status.directories)),
            ("sessions", .unsigned(status.sessions)), ("file_bytes", .unsigned(status.fileBytes)),
            ("capacity", .unsigned(total(status, \.capacity))),
            ("used", .unsigned(total(status, \.used))),
            ("logical", .unsigned(total(status, \.logical))),
            ("stored", .unsigned(total(status, \.stored))),
            ("damaged", .unsigned(total(status, \.scrub.damaged))),
            ("disputed", .unsigned(total(status, \.scrub.disputed))),
            ("ratio", ratio(status).map { .double($0) } ?? .null),
        ])
    }

    private static func json(_ server: ServerStatus) -> JSON {
        let disks = server.disks.map { disk in
            JSON.object([
                ("id", .string("\(disk.disk)")),
                ("incarnation", .unsigned(disk.incarnation.rawValue)),
                ("capacity", .unsigned(disk.capacity)), ("used", .unsigned(disk.used)),
                ("stored", .unsigned(disk.stored)), ("logical", .unsigned(disk.logical)),
                ("recent_bytes", .unsigned(disk.recentBytes)), ("failed", .bool(disk.hasFailed)),
                ("file_system", .string("\(disk.space.fileSystem)")),
                ("file_system_free", .unsigned(disk.space.free)),
                ("appended", .unsigned(disk.cleaning.appended)),
                ("moved", .unsigned(disk.cleaning.moved)),
                ("cleaned_segments", .unsigned(disk.cleaning.segments)),
                ("folded_blocks", .unsigned(disk.cleaning.folded)),
            ])
        }
        return .object([
            ("id", .string("\(server.id)")), ("name", .string(server.name)),
            ("rack", .string(server.rack)), ("address", .string(server.address.network)),
            ("up", .bool(server.isUp)), ("connections", json(server.connections)),
            ("disks", .array(disks)),
        ])
    }

    private static func json(_ counts: ConnectionCounts) -> JSON {
        .object([
            ("bad_frames", .unsigned(counts.badFrames)), ("refused", .unsigned(counts.refused)),
        ])
    }
}
