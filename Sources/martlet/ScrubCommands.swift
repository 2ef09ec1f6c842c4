// `martlet scrub start|pause|status`.

import ArgumentParser
import Base
import Client
import Wire

struct ScrubCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "scrub", abstract: "Read everything at rest and check it.",
        discussion: """
            Every chunk server scrubs by itself, so slowly that it is done within its period. \
            What is found damaged is fetched from another copy.
            """,
        subcommands: [ScrubStart.self, ScrubPause.self, ScrubStatus.self])
}

struct ScrubStart: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "start", abstract: "Scrub now, as fast as --scrub-rate of the servers allows.",
        discussion: "One that was paused goes on where it was.")

    @Argument(help: "Names or ids of chunk servers; all by default.")
    var servers: [String] = []
    @OptionGroup var cell: CellOptions

    mutating func run() throws {
        try orderScrub(servers, isPaused: false, "scrub start", cell)
    }
}

struct ScrubPause: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pause", abstract: "Scrub nothing until it is started again.")

    @Argument(help: "Names or ids of chunk servers; all by default.")
    var servers: [String] = []
    @OptionGroup var cell: CellOptions

    mutating func run() throws {
        try orderScrub(servers, isPaused: true, "scrub pause", cell)
    }
}

/// Orders it of every server that is named, or of all.
private func orderScrub(
    _ servers: [String], isPaused: Bool, _ what: String, _ cell: CellOptions
) throws {
    let fileSystem = try cell.connect(what)
    defer { fileSystem.close() }
    guard !servers.isEmpty else {
        return try carryOut(.scrub(nil, isPaused: isPaused), what, fileSystem)
    }
    let picture = try CellPicture(fileSystem)
    let wanted = try picture.servers(named: servers)
    for server in wanted {
        try carryOut(.scrub(server.id, isPaused: isPaused), server.name, fileSystem)
    }
}

struct ScrubStatus: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show what was verified when, found and repaired.")

    @OptionGroup var cell: CellOptions
    @Flag(help: "Print JSON.")
    var json = false

    mutating func run() throws {
        let fileSystem = try cell.connect("scrub status")
        defer { fileSystem.close() }
        let status = try attempt("scrub status") { () throws(FileError) in
            try fileSystem.status()
        }
        let disks = CellPicture.sorted(status.servers).flatMap { server in
            server.disks.map { (server, $0) }
        }
        print(json ? Self.json(disks).encoded(indented: true) : Self.text(disks))
    }

    private static func state(_ server: ServerStatus, _ scrub: ScrubReport) -> String {
        if !server.isUp { return "down" }
        if scrub.progress.order.isPaused { return "paused" }
        if scrub.progress.isComparing { return "comparing" }
        return scrub.progress.isRunning ? "running" : "waiting"
    }

    private static func percent(_ disk: DiskReport) -> Double {
        let progress = disk.scrub.progress
        guard progress.isRunning else { return progress.passes > 0 ? 100 : 0 }
        return min(100, Double(progress.verified) * 100 / Double(max(1, disk.stored)))
    }

    /// Everything was written or verified after this; nil: nobody knows when.
    private static func oldest(_ disks: [(ServerStatus, DiskReport)]) -> Timestamp? {
        let times = disks.map(\.1.scrub.progress.since)
        return times.contains(.zero) ? nil : times.min()
    }

    private static func time(_ time: Timestamp) -> String {
        time == .zero ? "never" : Amounts.time(time)
    }

    private static func text(_ disks: [(ServerStatus, DiskReport)]) -> String {
        var rows = [
            [
                "CHUNK SERVER", "STATE", "DONE", "RATE", "VERIFIED SINCE", "FOUND", "REPAIRED",
                "DAMAGED", "DISPUTED",
            ]
        ]
        for (server, disk) in disks {
            let progress = disk.scrub.progress
            rows.append([
                server.name, state(server, disk.scrub),
                Amounts.decimal(percent(disk), places: 1) + " %",
                Amounts.human(disk.scrub.bytesPerSecond) + "/s", time(progress.since),
                "\(progress.found + progress.met)", "\(progress.repaired)",
                "\(disk.scrub.damaged)", "\(disk.scrub.disputed)",
            ])
        }
        let since = oldest(disks).map { "after " + time($0) } ?? "at times that nobody knows"
        return table(rows) + "\n\neverything at rest was written or verified \(since)"
    }

    private static func json(_ disks: [(ServerStatus, DiskReport)]) -> JSON {
        func time(_ time: Timestamp) -> JSON {
            time == .zero ? .null : .string(Amounts.time(time))
        }
        func sum(_ value: (DiskReport) -> UInt64) -> JSON {
            .unsigned(disks.reduce(0) { $0 + value($1.1) })
        }
        let list = disks.map { server, disk in
            let progress = disk.scrub.progress
            return JSON.object([
                ("id", .string("\(disk.disk)")), ("chunkserver", .string(server.name)),
                ("state", .string(state(server, disk.scrub))),
                ("percent", .double(percent(disk))),
                ("verified", .unsigned(progress.verified)), ("stored", .unsigned(disk.stored)),
                ("bytes_per_second", .unsigned(disk.scrub.bytesPerSecond)),
                ("passes", .unsigned(progress.passes)), ("began", time(progress.began)),
                ("verified_since", time(progress.since)),
                ("run", .unsigned(progress.order.run)),
                ("found", .unsigned(progress.found)), ("met", .unsigned(progress.met)),
                ("repaired", .unsigned(progress.repaired)),
                ("damaged", .unsigned(disk.scrub.damaged)),
                ("differed", .unsigned(progress.differed)),
                ("disputed", .unsigned(disk.scrub.disputed)),
            ])
        }
        return .object([
            ("schema", .integer(1)), ("verified_since", time(oldest(disks) ?? .zero)),
            ("found", sum(\.scrub.progress.found)), ("met", sum(\.scrub.progress.met)),
            ("repaired", sum(\.scrub.progress.repaired)),
            ("damaged", sum(\.scrub.damaged)), ("differed", sum(\.scrub.progress.differed)),
            ("disputed", sum(\.scrub.disputed)), ("disks", .array(list)),
        ])
    }
}
