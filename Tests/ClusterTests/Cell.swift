// A real cell of a test: real processes in a folder of its own, ended and removed with the test,
// however that ends.
//
// Invariants:
//  1. The folder names the test process (id and start time); the next run ends what a dead one
//     left, and nothing else.
//  2. Every wait has a deadline.

import Base
import Glibc
import Testing

final class Cell {
    /// Short, because the paths of Unix sockets are bounded.
    static let root = "/tmp/martlet-test"
    /// The program: MARTLET, or what lies beside the tests.
    static let program: String = {
        if let path = getenv("MARTLET") { return String(cString: path) }
        let own = CommandLine.arguments[0].split(separator: "/").dropLast().joined(separator: "/")
        return "/\(own)/martlet"
    }()

    /// The test's folder; the cell is in `cell` below it.
    let folder: String
    /// On a network too long for Unix sockets.
    var path: String {
        folder + "/cell" + String(repeating: "-", count: network == nil ? 0 : 80)
    }
    var mount: String { folder + "/mnt" }
    private var started: [Running] = []
    /// Members that the test killed at some time.
    private(set) var killed: Set<String> = []
    /// Seconds after which members are replaced, and nothing stays in the trash; defaults if nil.
    private var repairDelay: Int?
    /// What masters are told of that.
    var delays: [String] {
        repairDelay.map { ["--repair-delay", "\($0)", "--trash-hours", "0"] } ?? []
    }
    /// Where every process has a host of its own.
    private(set) var network: Network?

    /// Starts a cell, does `body`, and takes everything away.
    static func with(
        _ options: [String] = [], mounted: Bool = true, repairDelay: Int? = nil,
        _ body: (Cell) throws -> Void
    ) throws {
        try with(
            repairDelay: repairDelay, body,
            start: { try $0.up(options + (mounted ? ["--mount", $0.mount] : [])) })
    }
    /// The same on hosts of a network, and mounted on one of them.
    static func withHosts(
        masters: Int = 3, servers: Int, _ body: (Cell, Network) throws -> Void
    ) throws {
        func start(_ cell: Cell) throws {
            let network = Network(Network.prefix + (cell.folder.split(separator: "/").last ?? ""))
            cell.network = network
            try cell.makeHosts(network, masters: masters, servers: servers)
            try cell.up()
            try cell.mount(cell.mount, on: "client-1")
        }
        try with(repairDelay: 10, { try body($0, $0.network!) }, start: start)
    }
    private static func with(
        repairDelay: Int?, _ body: (Cell) throws -> Void, start: (Cell) throws -> Void
    ) throws {
        let cell = try Cell()
        cell.repairDelay = repairDelay
        defer { cell.remove() }
        do {
            try start(cell)
            try body(cell)
        } catch {
            cell.showLogs()
            throw error
        }
    }

    /// A folder without a cell yet.
    init() throws {
        mkdir(Self.root, 0o755)
        _ = Self.removeLeftovers
        folder = "\(Self.root)/\(getpid())-\(Self.next())"
        guard mkdir(folder, 0o755) == 0 else { throw TestFailure("\(folder): errno \(errno)") }
        try writeFile(folder + "/owner", Array("\(getpid()) \(Self.startTime(getpid()))\n".utf8))
    }

    nonisolated(unsafe) private static var count = 0
    private static func next() -> Int {
        count += 1
        return count
    }

    /// The start time of a process, in clock ticks; empty if it does not run.
    static func startTime(_ pid: pid_t) -> String {
        let fields =
            readText("/proc/\(pid)/stat").split(separator: ")").last?
            .split(separator: " ") ?? []
        guard fields.count > 19 else { return "" }
        // Of one that was killed other threads may be there a moment longer, with its sockets.
        return fields[0] != "Z" || Int(fields[17]) ?? 0 > 1 ? String(fields[19]) : ""
    }

    // MARK: Commands

    /// Runs martlet for this cell.
    @discardableResult
    func martlet(_ words: String..., limit: Double = 120) throws -> Outcome {
        try run(
            prefix(Network.desk) + words, environment: ["MARTLET_CELL": path], limit: limit)
    }
    private func prefix(_ host: String) -> [String] {
        (network?.enter(host) ?? []) + [Self.program]
    }

    /// Runs martlet and hands back how it ended, whatever that is.
    func attempt(_ words: [String], limit: Double = 60) throws -> Outcome {
        try start(words).wait(limit: limit)
    }

    /// Starts martlet in the background.
    func start(_ words: [String], on host: String = Network.desk) throws -> Running {
        let running = try Running(prefix(host) + words, environment: ["MARTLET_CELL": path])
        started.append(running)
        return running
    }

    /// Starts the cell, or whatever of it is not running.
    func up(_ options: [String] = []) throws {
        let isNew = access(path + "/cell.json", F_OK) != 0
        let segment = isNew ? ["--segment-size", "8MiB"] : []
        if let network { try startServers(network) }
        try run(prefix(Network.desk) + ["up", path] + segment + delays + options, limit: 90)
    }

    /// A mount in a process of its own.
    func mount(_ point: String, on host: String = Network.desk, options: [String] = []) throws {
        mkdir(point, 0o755)
        _ = try start(["mount", path, point, "--foreground"] + options, on: host)
        try eventually("\(point) is mounted") {
            readText("/proc/self/mountinfo").contains(" \(point) ")
        }
    }

    /// The process of a member.
    func pid(_ name: String) throws -> pid_t {
        guard
            let pid = readText("\(path)/pids/\(name)").split(separator: "\n").first
                .flatMap({ pid_t($0) })
        else { throw TestFailure("\(name) has no pid file") }
        return pid
    }

    /// SIGKILL, and the wait until it is gone.
    func kill(_ names: String...) throws {
        let running = try names.map { name in
            let pid = try pid(name)
            return (name, pid, Self.startTime(pid))
        }
        for (name, pid, _) in running {
            killed.insert(name)
            Glibc.kill(pid, SIGKILL)
        }
        for (name, pid, start) in running {
            try eventually("\(name) is gone") { Self.startTime(pid) != start || start.isEmpty }
        }
    }

    /// SIGSTOP or SIGCONT.
    func signal(_ name: String, _ number: Int32) throws { Glibc.kill(try pid(name), number) }

    /// Restarts members on disks that can be made to fail (tools/lossyfs).
    func makeLossy(_ members: [String]) throws {
        try moveDisks(of: members, startLossy)
    }
    private func startLossy(_ below: String, _ disk: String) throws {
        let program = Self.program.dropLast("martlet".count) + "lossyfs"
        started.append(try Running([String(program), below, disk]))
        try eventually("\(disk) is mounted") {
            readText("/proc/self/mountinfo").contains(" \(disk) ")
        }
    }

    /// Restarts members on file systems of so many MiB each.
    func makeSmall(_ members: [String], mebibytes: Int) throws {
        try moveDisks(of: members) { below, disk in
            try makeSmall(mebibytes: mebibytes, at: disk)
            try run(["cp", "-a", below + "/.", disk])
        }
    }
    /// Restarts a member on a disk of 4 GiB of which a part exists, in its folder `device`: a file
    /// with holes is a device with a file system. `isCached`: tools/lossyfs is on top, which writes
    /// through the page cache.
    func makeOverbooked(_ member: String, isCached: Bool) throws {
        let device = "\(path)/\(member)/device"
        try makeSmall(mebibytes: 384, at: device)
        try run(["truncate", "-s", "4G", device + "/image"])
        try run(["mkfs.ext4", "-q", "-O", "^has_journal", "-E", "nodiscard", device + "/image"])
        try moveDisks(of: [member]) { below, disk in
            let store = isCached ? "\(path)/\(member)/store" : disk
            mkdir(store, 0o700)
            try run(["mount", "-o", "loop", device + "/image", store])
            try run(["cp", "-a", below + "/.", store])
            if isCached { try startLossy(store, disk) }
        }
    }
    private func makeSmall(mebibytes: Int, at path: String) throws {
        mkdir(path, 0o700)
        try run(["mount", "-t", "tmpfs", "-o", "size=\(mebibytes)m", "tmpfs", path])
    }
    /// Takes all that is left on the file system of a member's disk, or gives it back.
    func fillDisk(of member: String, _ isFull: Bool = true) throws {
        try fill(member + "/disk", isFull)
    }
    /// The same of any folder of the cell.
    func fill(_ folder: String, _ isFull: Bool = true) throws {
        let path = "\(path)/\(folder)/ballast"
        guard isFull else {
            unlink(path)
            return
        }
        let outcome = try Running(["dd", "if=/dev/zero", "of=\(path)", "bs=4k"]).wait(limit: 30)
        #expect(outcome.errors.contains("No space left"))
    }

    private func moveDisks(
        of members: [String], _ mount: (_ below: String, _ disk: String) throws -> Void
    ) throws {
        for member in members { try kill(member) }
        for member in members {
            let (disk, below) = ("\(path)/\(member)/disk", "\(path)/\(member)/below")
            guard rename(disk, below) == 0, mkdir(disk, 0o700) == 0 else {
                throw TestFailure("\(disk): errno \(errno)")
            }
            try mount(below, disk)
        }
        try up()
    }

    /// A command to the disk of a member.
    func tellDisk(of member: String, _ command: String) throws {
        try writeFile("\(path)/\(member)/disk/.lossy", Array(command.utf8))
    }

    /// Members lose their power at one moment, and what they had not synced; a seed picks pages
    /// that were written all the same, 0 none.
    func cutPower(of members: [String], seed: Int) throws {
        for member in members { try signal(member, SIGSTOP) }
        for member in members { try kill(member) }
        for member in members { try tellDisk(of: member, "drop \(seed)") }
    }

    /// The member names with a pid file.
    var members: [String] { names(in: path + "/pids") }

    /// The name of the leading master.
    func leader() throws -> String {
        var name = ""
        try eventually("there is a leader") {
            let outcome = try attempt(["status", "--json", "--deadline", "5"])
            guard outcome.status == 0 else { return false }
            name = "master-\(Int(number("leader", in: outcome.output) ?? 0))"
            return name != "master-0"
        }
        return name
    }

    /// Waits until no replica set waits for a member or a new epoch. One that lost all members but
    /// one waits for `Limits.repairDelay` (decision 0010).
    func settled() throws {
        try eventually("no set waits", limit: 120) {
            let outcome = try attempt(["status", "--json", "--deadline", "5"])
            return outcome.status == 0 && number("waiting", in: outcome.output) == 0
        }
    }

    // MARK: The end

    /// Prints the ends of the logs.
    private func showLogs() {
        for name in names(in: path) where access("\(path)/\(name)/log", F_OK) == 0 {
            let lines = readText("\(path)/\(name)/log").split(separator: "\n").suffix(8)
            print(lines.map { "    \(name): \($0)" }.joined(separator: "\n"))
        }
    }

    func remove() {
        for running in started { running.signal(SIGKILL) }
        for running in started { _ = try? running.wait(limit: 10) }
        Self.remove(folder)
    }

    private static func remove(_ folder: String) {
        for line in readText("/proc/self/mountinfo").split(separator: "\n").reversed() {
            let fields = line.split(separator: " ")
            if fields.count > 4, fields[4].hasPrefix(folder + "/") {
                umount2(String(fields[4]), Int32(MNT_DETACH))
            }
        }
        for name in names(in: folder) where access("\(folder)/\(name)/cell.json", F_OK) == 0 {
            _ = try? run(
                [program, "down", "\(folder)/\(name)", "--destroy", "--patience", "5"], limit: 60)
        }
        Network.remove(Network.prefix + (folder.split(separator: "/").last ?? ""))
        _ = try? run(["rm", "-rf", "--one-file-system", folder], limit: 60)
    }

    /// Ends what earlier runs left whose process is gone.
    private static let removeLeftovers: Void = {
        for name in names(in: root) {
            let folder = "\(root)/\(name)"
            let words = readText(folder + "/owner").split(whereSeparator: {
                $0 == " " || $0 == "\n"
            })
            guard words.count == 2, let pid = pid_t(words[0]) else { continue }
            if startTime(pid) != words[1] { remove(folder) }
        }
    }()
}

/// The names in a directory, sorted.
func names(in path: String) -> [String] {
    guard let directory = opendir(path) else { return [] }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
        let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
            String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
        if name != ".", name != ".." { names.append(name) }
    }
    return names.sorted()
}

/// The number after `"field": ` in JSON.
func number(_ field: String, in json: some StringProtocol) -> Double? {
    guard let range = json.firstRange(of: "\"\(field)\": ") else { return nil }
    return Double(json[range.upperBound...].prefix { $0.isNumber || $0 == "." })
}
