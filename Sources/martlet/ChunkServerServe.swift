// `martlet chunkserver serve`: one chunk server process, a loop for each of its disks.

import ArgumentParser
import Base
import ChunkServer
import Logging
import Store
import Wire

struct ChunkServerCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "chunkserver", abstract: "Chunk servers.",
        subcommands: [
            ChunkServerServe.self, ChunkServerList.self, ChunkServerDrain.self,
            ChunkServerUndrain.self, ChunkServerRemove.self, ChunkServerCanStop.self,
        ])
}

struct ChunkServerServe: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve", abstract: "Run a chunk server in the foreground.")

    @Option(help: "All masters: ID=HOST:PORT[@SOCKET],…")
    var masters: String
    @Option(help: "What it calls itself in `martlet status`; its address by default.")
    var name: String?
    @Option(help: "Copies go to different racks where possible.")
    var rack = ""
    @Option(
        help: """
            The folder of a disk, once for each; DIR/disk by default. The second one listens on \
            the port after that of --listen, and so on.
            """)
    var disk: [String] = []
    @Option(help: "Days within which everything on the disk is read and checked.")
    var scrubDays = 14
    @Option(help: "Bytes a second that such checks read, at most (K, M, G).")
    var scrubRate = "\(Limits.scrubRate)"
    @Option(
        help: """
            Memory that the index of each disk may take, at least 1M (K, M, G); a disk whose index \
            takes more counts as full.
            """)
    var indexMemory = "\(Limits.indexMemory >> 30)G"
    @OptionGroup var server: ServeOptions

    func validate() throws {
        guard (1...365).contains(scrubDays) else {
            throw ValidationError("--scrub-days is a number of days, 1 to 365")
        }
        guard let rate = Amounts.bytes(scrubRate), rate > 0 else {
            throw ValidationError("--scrub-rate is a number with K, M or G, not '\(scrubRate)'")
        }
        guard let memory = Amounts.bytes(indexMemory), memory >= 1 << 20 else {
            throw ValidationError(
                "--index-memory is a number with M or G, at least 1M, not '\(indexMemory)'")
        }
        guard disk.count <= ServerID.disks, Set(disk).count == disk.count else {
            throw ValidationError("--disk names at most \(ServerID.disks) folders, each once")
        }
    }

    mutating func run() throws {
        let masters = try masterAddresses(self.masters)
        let (key, cell) = try server.prepare()
        let name = name ?? server.listen
        let logger = Logger(label: name)
        let paths = disk.isEmpty ? [server.dir + "/disk"] : disk
        let first = try ServerDisks.identity(in: server.dir)
        let disks = try ServerDisks.assign(paths, of: first, in: cell, called: name)
        let running = DiskLoops(count: disks.count, logger: logger)
        var random = SystemRandomNumberGenerator()
        for (position, disk) in disks.enumerated() {
            let identity = PeerIdentity(cell: cell, role: .chunkServer, node: disk.id.rawValue)
            let options = ChunkServer.Options(
                name: disk.name, rack: rack, newDisk: DiskID(rawValue: random.next()),
                segmentSize: server.segmentBytes,
                scrub: ScrubConfiguration(
                    period: .seconds(Int64(scrubDays) * 86_400),
                    bytesPerSecond: UInt64(Amounts.bytes(scrubRate) ?? 1)),
                index: IndexConfiguration(memory: Amounts.bytes(indexMemory) ?? 1))
            try running.start(
                server.configuration(identity, key, masters, disk: disk.path, position: position),
                options, Logger(label: disk.name))
        }
        waitForEndingSignal(logger)
        running.stop()
    }
}
