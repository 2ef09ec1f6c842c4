// The acceptance scenarios A1 to A44 as real processes: which of them run, what they run in, and
// how each of them ends.
//
// All run with MARTLET_ALL (tools/test --all), those that MARTLET_SCENARIOS=A1,A7 names, or two
// that the number MARTLET_ROTATE picks (tools/check: of the commit). Bounds are those of the list
// times `slowness`: it is for a machine of its own; this may have two cores for twelve processes.

import Base
import Glibc
import Testing

struct Scenario {
    /// Of the machine, against the one that the list's bounds are for.
    static let slowness = 2.5
    /// The scenarios that were seen to hold.
    private static let all = rotating + ["A20", "A30", "A39", "GROW", "LOAD"]
    /// Those that were seen to hold again and again beside other work, and take a minute at most.
    private static let rotating = [
        "A1", "A2", "A3", "A4", "A5", "A6", "A7", "A8", "A9", "A10", "A11", "A12", "A13", "A14",
        "A15", "A16", "A17", "A18", "A19", "A21", "A22", "A23", "A24", "A25", "A26", "A27", "A28",
        "A29", "A31", "A32", "A33", "A34", "A35", "A36", "A37", "A38", "A41", "BACK", "NET",
    ]

    /// Those that run.
    static let chosen: Set<String> = {
        if getenv("MARTLET_ALL") != nil { return Set(all) }
        if let list = getenv("MARTLET_SCENARIOS") {
            return Set(String(cString: list).split(separator: ",").map(String.init))
        }
        guard let text = getenv("MARTLET_ROTATE"), let number = Int(String(cString: text))
        else { return [] }
        return Set([0, rotating.count / 2].map { rotating[(number + $0) % rotating.count] })
    }()

    static func isChosen(_ name: String) -> Bool { chosen.contains(name) }
    /// Whether everything runs, at full length.
    static let isFull = getenv("MARTLET_ALL") != nil

    let cell: Cell
    let workload: Workload
    var writing: String { cell.mount }
    private let name: String
    /// Servers that were removed from the cell, and don't come back.
    var isShrunk = false
    /// Members whose disk was made to fail, so that they stopped.
    var halted: Set<String> = []

    /// A cell with two mounts under workload W, then `body`, then the common end.
    static func run(
        _ name: String, servers: Int = 4, options: [String] = [], pause: Int = 200_000,
        isStorm: Bool = false, _ body: (inout Scenario) throws -> Void
    ) throws {
        let all = ["--chunkservers", "\(servers)"] + options
        try Cell.with(all, repairDelay: 10) { cell in
            try run(name, cell, pause: pause, isStorm: isStorm, body)
        }
    }

    /// The same on a network.
    static func runOnHosts(
        _ name: String, masters: Int = 3, servers: Int = 4, pause: Int = 200_000,
        isStorm: Bool = false, _ body: (inout Scenario, Network) throws -> Void
    ) throws {
        if let lack = Network.lack { try Test.cancel("\(name): \(lack)") }
        try Cell.withHosts(masters: masters, servers: servers) { cell, network in
            try run(name, cell, pause: pause, isStorm: isStorm) { try body(&$0, network) }
        }
    }

    private static func run(
        _ name: String, _ cell: Cell, pause: Int, isStorm: Bool,
        _ body: (inout Scenario) throws -> Void
    ) throws {
        let reading = cell.folder + "/mnt2"
        try cell.mount(reading, on: "client-2", options: ["-o", "cache=1MiB"])
        let workload = try Workload(
            writing: cell.mount, reading: reading, pause: pause, isStorm: isStorm)
        var scenario = Scenario(cell: cell, workload: workload, name: name)
        try body(&scenario)
        try scenario.finish()
    }

    /// Members of the set of a file of one chunk, or of the file that is being written.
    func place(
        of file: String = "/written"
    ) throws -> (primary: String, backups: [String], epoch: Int) {
        // One chunk, so one set; its primary comes first.
        let json = try cell.martlet("info", file, "--json").output
        let names = json.split(separator: "\n").filter { $0.contains("\"chunkserver\":") }
            .compactMap { $0.split(separator: "\"").last { $0.hasPrefix("chunkserver-") } }
        guard let primary = names.first, let epoch = number("epoch", in: json) else {
            throw TestFailure("no chunk server has \(file): \(json)")
        }
        return (String(primary), names.dropFirst().map(String.init), Int(epoch))
    }

    /// Waits until the file has so many copies, none of them on servers of `without`.
    func copies(_ count: Int, without: Set<String> = [], limit: Double) throws {
        try eventually("\(count) copies without \(without.sorted())", limit: limit) {
            let place = try place()
            return place.backups.count + 1 == count
                && without.isDisjoint(with: place.backups + [place.primary])
        }
    }

    /// The longest calls so far against what the list allows; then they are counted afresh.
    func expectStalls(
        write: Double, read: Double, _ location: SourceLocation = #_sourceLocation
    ) throws {
        let stalls = try workload.stalls()
        print(
            "    \(name): longest write \(seconds(stalls.write)), read \(seconds(stalls.read))")
        #expect(stalls.write <= write * Self.slowness, sourceLocation: location)
        #expect(stalls.read <= read * Self.slowness, sourceLocation: location)
        workload.resetStalls()
    }

    /// All that was synced is there, all copies are there and the same, nothing has leaked, and
    /// nothing has died that the test did not kill.
    private func finish() throws {
        try workload.end(limit: 60)
        for member in cell.members where !cell.killed.contains(member) {
            let pid = try cell.pid(member)
            #expect(!Cell.startTime(pid).isEmpty, "\(name): \(member) has died")
        }
        if !isShrunk { try cell.up() }
        for member in cell.members where !halted.contains(member) {
            let log = readText("\(cell.path)/\(member)/log")
            let crash = log.split(separator: "\n").first {
                $0.contains("halted") || $0.contains("Fatal error") || $0.contains("Crash")
            }
            #expect(crash == nil, "\(name): \(member)")
        }
        var report = ""
        do {
            try eventually("fsck is clean", limit: 60 * Self.slowness) {
                let outcome = try cell.attempt(["fsck"])
                report = outcome.output + outcome.errors
                return outcome.status == 0
            }
        } catch { throw TestFailure("\(error)\n\(report)") }
        try workload.compare()
        let verified = try cell.attempt(["verify", "/"])
        #expect(verified.status == 0, "\(name): \(verified.output)")
        let files = names(in: writing).map { writing + "/" + $0 }
        let removal = try Running(["rm", "-r"] + files).wait()
        #expect(removal.status == 0, "\(name): \(removal.errors)")
        try eventually("nothing is stored any more", limit: 60) {
            number("stored", in: try cell.martlet("status", "--json").output.tail) == 0
        }
    }
}

extension String {
    /// What comes after the lists of members in the output of status.
    fileprivate var tail: Substring {
        firstRange(of: "\"sessions\"").map { self[$0.lowerBound...] } ?? self[...]
    }
}

/// A time in words.
func seconds(_ time: Double) -> String {
    let hundredths = Int((time * 100).rounded())
    return "\(hundredths / 100).\(hundredths % 100 < 10 ? "0" : "")\(hundredths % 100) s"
}
