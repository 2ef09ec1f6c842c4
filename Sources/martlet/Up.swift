// `martlet up DIR`: a real cell on this machine, of real processes.
//
//   new DIR ─► cell.key, cell.json ─┐
//   a cell  ─► read cell.json ──────┴─► start what is not running ─► wait until it answers
//                                        ─► mount ─► wait until the mount can be written
//
// Invariants:
//  1. cell.json is written before a process starts, and never loses a member.
//  2. If it fails, the processes that it started are ended again; data stays.

import ArgumentParser
import Base
import Client
import Glibc
import Mount

struct Up: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "up", abstract: "Start a cell on this machine.",
        discussion: """
            The first time it makes the cell; later it starts whatever is not running, on the \
            same data. With more --chunkservers than there are it adds some.
            """)

    @Argument(help: "The cell's folder.")
    var folder: String
    @Option(help: "Masters: 1, 3, 5 or 7 (3 by default).")
    var masters: Int?
    @Option(help: "Chunk servers, 1 to 64 (3 by default).")
    var chunkservers: Int?
    @Option(help: "Disks of each chunk server, for a new cell: folders below DIR (1).")
    var disks: Int?
    @Option(help: "Copies of all data, 1 to 9 (3 by default).")
    var goal: Int?
    @Option(help: "Mount the cell there.")
    var mount: String?
    @Option(name: .customShort("o"), help: "Mount options, as in `martlet mount`.")
    var options: [String] = []
    @Option(help: "Size of a segment of the disks' logs, for a new cell (256MiB).")
    var segmentSize: String?
    @Option(help: "Bytes that each disk may use, for a new cell (all that is free).")
    var capacity: String?
    @Option(help: ArgumentHelp("As of `master serve`, of those it starts.", visibility: .hidden))
    var repairDelay: Int64?
    @Option(help: ArgumentHelp("As of `master serve`, of those it starts.", visibility: .hidden))
    var trashHours: Int?
    @Option(help: ArgumentHelp("As of `master serve`, of those it starts.", visibility: .hidden))
    var snapshotEntries: UInt64?
    @Flag(help: ArgumentHelp("As of `master serve`, of those it starts.", visibility: .hidden))
    var wallError = false
    @Option(help: "Give up after so many seconds.")
    var deadline: Double = 60
    @Flag(help: "Print what runs as JSON.")
    var json = false

    mutating func run() throws {
        let mountOptions = try options.map { (text) throws(CommandFailure) in
            try MountOptions(text)
        }
        let folder = CellFolder(self.folder)
        let given = Sizing(
            masters: masters, chunkServers: chunkservers, disks: disks, goal: goal,
            segmentSize: try segmentSizeBytes(), capacity: try capacityBytes(),
            mount: mount.map { LocalFile.absolute($0) },
            mountOptions: mountOptions.flatMap(\.words))
        try given.check()
        try Self.checkIsCellOrEmpty(folder)
        try LocalFile.makeDirectories(folder.path)
        try folder.lock()
        let description =
            folder.isCell
            ? try given.grow(try folder.description(), in: folder) : try given.make(in: folder)
        var starter = CellStarter(
            folder: folder, description: description,
            end: Clock.now + Interval(nanoseconds: Int64(deadline * 1e9)),
            masterOptions: masterOptions)
        let waiting: String?
        do throws(CommandFailure) {
            try starter.startServers()
            waiting = try starter.waitUntilServing()
            try starter.startMount()
        } catch {
            starter.undo()
            throw error
        }
        try report(folder, description)
        guard let waiting else { return }
        throw CommandFailure(
            .partlyDone,
            "\(waiting): martlet fsck --cell \(folder.path) says what they wait for")
    }

    private var masterOptions: [String] {
        (repairDelay.map { ["--repair-delay", "\($0)"] } ?? [])
            + (trashHours.map { ["--trash-hours", "\($0)"] } ?? [])
            + (snapshotEntries.map { ["--snapshot-entries", "\($0)"] } ?? [])
            + (wallError ? ["--wall-error"] : [])
    }

    private func segmentSizeBytes() throws(CommandFailure) -> Int? {
        guard let text = segmentSize else { return nil }
        guard let bytes = Amounts.segment(text) else {
            throw CommandFailure(.usage, "--segment-size must be from 1MiB to 1GiB: '\(text)'")
        }
        return bytes
    }

    private func capacityBytes() throws(CommandFailure) -> Int? {
        guard let text = capacity else { return nil }
        guard let bytes = Amounts.bytes(text), bytes >= 32 << 20 else {
            throw CommandFailure(.usage, "--capacity must be at least 32MiB: '\(text)'")
        }
        return bytes
    }

    /// A folder with something else in it is not ours to fill.
    private static func checkIsCellOrEmpty(_ folder: CellFolder) throws(CommandFailure) {
        guard LocalFile.exists(folder.path), !folder.isCell else { return }
        guard LocalFile.isDirectory(folder.path) else {
            throw CommandFailure(.refusedAsUnsafe, "\(folder.path) is not a folder")
        }
        let names = (try? LocalFile.names(in: Array(folder.path.utf8)).get()) ?? []
        guard names.allSatisfy({ $0.text == "cell.key" }) else {
            throw CommandFailure(
                .refusedAsUnsafe, "\(folder.path) is not empty and not a cell (it has no cell.json)"
            )
        }
    }

    private func report(
        _ folder: CellFolder, _ description: CellDescription
    ) throws(CommandFailure) {
        if json { return print(description.json.encoded()) }
        print(
            "cell \(folder.path) is up: \(description.masters.count) masters, "
                + "\(description.chunkServers.count) chunk servers, goal \(description.goal)")
        if let mount = description.mount { print("mounted on \(mount.path)") }
        print("next: martlet status --cell \(folder.path)     martlet down \(folder.path)")
    }
}

/// The numbers that `up` was given; nil where it was not.
struct Sizing {
    var masters: Int?
    var chunkServers: Int?
    var disks: Int?
    var goal: Int?
    var segmentSize: Int?
    var capacity: Int?
    var mount: String?
    var mountOptions: [String]

    func check() throws(CommandFailure) {
        if let masters, ![1, 3, 5, 7].contains(masters) {
            throw CommandFailure(.usage, "--masters must be 1, 3, 5 or 7, not \(masters)")
        }
        if let chunkServers, !(1...64).contains(chunkServers) {
            throw CommandFailure(.usage, "--chunkservers must be from 1 to 64, not \(chunkServers)")
        }
        if let disks, !(1...ServerID.disks).contains(disks) {
            throw CommandFailure(
                .usage, "--disks must be from 1 to \(ServerID.disks), not \(disks)")
        }
        if let goal, !(1...Limits.members).contains(goal) {
            throw CommandFailure(.usage, "--goal must be from 1 to \(Limits.members), not \(goal)")
        }
        if let mount, LocalFile.exists(mount), !LocalFile.isDirectory(mount) {
            throw CommandFailure(.usage, "--mount \(mount) is not a directory")
        }
    }

    /// A new cell, written to its folder.
    func make(in folder: CellFolder) throws(CommandFailure) -> CellDescription {
        let count = (masters: masters ?? 3, servers: chunkServers ?? 3)
        var ports = try FreePorts(count: count.masters + count.servers * (disks ?? 1))
        let description = CellDescription(
            cell: newCellID(), goal: goal ?? min(3, count.servers),
            segmentSize: segmentSize ?? Limits.segment, disks: disks ?? 1, capacity: capacity,
            masters: (1...count.masters).map {
                Member(id: $0, name: "master-\($0)", address: ports.next())
            },
            chunkServers: (1...count.servers).map {
                Member(id: $0, name: "chunkserver-\($0)", address: ports.next(disks ?? 1))
            },
            mount: mount.map { MountRecord(path: $0, options: mountOptions) })
        unlink(folder.keyPath)
        try KeyFile.make(at: folder.keyPath, cell: description.cell)
        try folder.write(description)
        return description
    }

    /// A cell that is there: more chunk servers, another mount; nothing else can change here.
    func grow(
        _ old: CellDescription, in folder: CellFolder
    ) throws(CommandFailure) -> CellDescription {
        func same(_ given: Int?, _ has: Int, _ what: String) throws(CommandFailure) {
            if let given, given != has {
                throw CommandFailure(
                    .usage, "the cell has \(what) \(has), which `up` can't change to \(given)")
            }
        }
        if let masters, masters != old.masters.count {
            throw CommandFailure(
                .usage,
                "the cell has \(old.masters.count) masters; martlet master add and remove change "
                    + "that")
        }
        try same(goal, old.goal, "--goal")
        try same(disks, old.disks, "--disks")
        try same(segmentSize, old.segmentSize, "--segment-size")
        try same(capacity, old.capacity ?? 0, "--capacity")
        var new = old
        let has = old.chunkServers.count
        if let wanted = chunkServers, wanted < has {
            throw CommandFailure(.usage, "the cell has \(has) chunk servers: `up` only adds some")
        }
        if let wanted = chunkServers, wanted > has {
            var ports = try FreePorts(count: (wanted - has) * old.disks)
            for number in (has + 1)...wanted {
                new.chunkServers.append(
                    Member(
                        id: number, name: "chunkserver-\(number)",
                        address: ports.next(old.disks)))
            }
        }
        if let mount { new.mount = MountRecord(path: mount, options: mountOptions) }
        if mount != nil || new.chunkServers.count > has { try folder.write(new) }
        return new
    }
}

/// Loopback ports in a row that nobody listens on, below the range of outgoing connections.
struct FreePorts {
    private var ports: [Int] = []

    init(count: Int) throws(CommandFailure) {
        var candidate = Int.random(in: 10_000..<25_000)
        var tries = 0
        while ports.count < count {
            if Self.isFree(candidate) { ports.append(candidate) } else { ports = [] }
            candidate += 1
            tries += 1
            if tries > 7_000 { throw CommandFailure(.failed, "no free ports on 127.0.0.1") }
        }
    }

    /// The first of so many ports.
    mutating func next(_ count: Int = 1) -> String {
        defer { ports.removeFirst(count) }
        return "127.0.0.1:\(ports[0])"
    }

    private static func isFree(_ port: Int) -> Bool {
        let socket = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard socket >= 0 else { return false }
        defer { close(socket) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(UInt16(port).bigEndian)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        return withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(socket, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
            }
        }
    }
}
