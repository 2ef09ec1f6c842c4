// `martlet master serve`: one master process.

import ArgumentParser
import Base
import Glibc
import Logging
import Master
import Node
import Wire

struct MasterCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "master", abstract: "Masters.",
        subcommands: [
            MasterServe.self, MasterList.self, MasterAdd.self, MasterRemove.self,
            MasterReplace.self, MasterTransfer.self,
        ])
}

struct MasterServe: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve", abstract: "Run a master in the foreground.")

    @Option(help: "Its number, 1 to 65535, unique in the cell.")
    var id: UInt16
    @Option(help: "All masters, this one too: ID=HOST:PORT[@SOCKET],…")
    var peers: String
    @Flag(help: "It comes to a cell that is there: `martlet master add` names it next.")
    var join = false
    @Option(help: "Copies of all data.")
    var goal = 3
    @Option(help: "Owner of the root directory of a new cell: USER:GROUP, as numbers.")
    var owner = "0:0"
    @Option(help: "Hours until what a disk kept of sets that it left by a failure is emptied.")
    var trashHours = 24
    @Option(
        help: ArgumentHelp("Seconds without a member before it is replaced.", visibility: .hidden))
    var repairDelay = Limits.repairDelay.nanoseconds / 1_000_000_000
    @Option(help: ArgumentHelp("Entries of the log between snapshots.", visibility: .hidden))
    var snapshotEntries = Limits.snapshotEntries
    @Flag(
        help: ArgumentHelp(
            "DIR/wall-error has seconds by which its wall clock is wrong.", visibility: .hidden))
    var wallError = false
    @OptionGroup var server: ServeOptions

    func validate() throws {
        if !(1...Limits.members).contains(goal) {
            throw ValidationError("--goal must be from 1 to \(Limits.members)")
        }
        if !(0...8_760).contains(trashHours) {
            throw ValidationError("--trash-hours is a number of hours, 0 to 8760")
        }
        if !(0...86_400).contains(repairDelay) {
            throw ValidationError("--repair-delay is a number of seconds, 0 to 86400")
        }
        if snapshotEntries == 0 { throw ValidationError("--snapshot-entries is at least 1") }
    }

    mutating func run() throws {
        let masters = try masterAddresses(peers)
        let id = MasterID(rawValue: self.id)
        guard join || masters.contains(where: { $0.id == id }) else {
            throw CommandFailure(.usage, "--peers does not name master \(id) itself")
        }
        let (key, cell) = try server.prepare()
        let logger = Logger(label: "master-\(id)")
        let owner = owner.split(separator: ":").compactMap { UInt32($0) }
        guard owner.count == 2 else { throw CommandFailure(.usage, "--owner must be USER:GROUP") }
        var random = SystemRandomNumberGenerator()
        let disk = server.dir + "/disk"
        try LocalFile.makeDirectories(disk)
        let configuration = server.configuration(
            PeerIdentity(cell: cell, role: .master, node: UInt64(self.id)), key, masters,
            disk: disk)
        let master = MasterConfiguration(
            cell: cell, id: id, masters: masters, isJoining: join, goal: goal,
            disk: DiskID(rawValue: random.next()), seed: random.next(),
            segmentSize: server.segmentBytes, rootUser: owner[0], rootGroup: owner[1],
            repairDelay: .seconds(repairDelay), trashTime: .seconds(Int64(trashHours) * 3_600),
            snapshotEntries: snapshotEntries)
        do throws(NodeError) {
            let running = try MasterServer.start(
                configuration, master, logger: logger,
                wallError: wallError ? Self.readWallError(server.dir) : nil, halted: halt(logger))
            logger.info("serving", metadata: ["address": "\(running.address.network)"])
            waitForEndingSignal(logger)
            running.stop()
        } catch {
            logger.critical("\(error)")
            throw CommandFailure(.failed, "master \(id): \(error)")
        }
    }

    /// For tests of wrong clocks: the machine has one clock for all masters.
    private static func readWallError(_ folder: String) -> @Sendable () -> Interval {
        { () -> Interval in
            guard let file = try? LocalFile.read(folder + "/wall-error") else { return .zero }
            let text = String(decoding: file, as: UTF8.self)
            return .seconds(text.split(separator: "\n").first.flatMap { Int64($0) } ?? 0)
        }
    }
}
