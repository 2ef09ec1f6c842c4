// `martlet chunkserver serve`: one chunk server process.

import ArgumentParser
import Base
import ChunkServer
import Glibc
import Logging
import Node
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
    @Option(help: "The folder of its disk; DIR/disk by default.")
    var disk: String?
    @Option(help: "Days within which everything on the disk is read and checked.")
    var scrubDays = 14
    @Option(help: "Bytes a second that such checks read, at most (K, M, G).")
    var scrubRate = "\(Limits.scrubRate)"
    @OptionGroup var server: ServeOptions

    func validate() throws {
        guard (1...365).contains(scrubDays) else {
            throw ValidationError("--scrub-days is a number of days, 1 to 365")
        }
        guard let rate = Amounts.bytes(scrubRate), rate > 0 else {
            throw ValidationError("--scrub-rate is a number with K, M or G, not '\(scrubRate)'")
        }
    }

    mutating func run() throws {
        let masters = try masterAddresses(self.masters)
        let (key, cell) = try server.prepare()
        let name = name ?? server.listen
        let logger = Logger(label: name)
        let id = try Self.identity(in: server.dir)
        let disk = self.disk ?? server.dir + "/disk"
        try LocalFile.makeDirectories(disk)
        let configuration = server.configuration(
            PeerIdentity(cell: cell, role: .chunkServer, node: id.rawValue), key, masters,
            disk: disk)
        var random = SystemRandomNumberGenerator()
        let options = ChunkServer.Options(
            name: name, rack: rack, newDisk: DiskID(rawValue: random.next()),
            segmentSize: server.segmentBytes,
            scrub: ScrubConfiguration(
                period: .seconds(Int64(scrubDays) * 86_400),
                bytesPerSecond: UInt64(Amounts.bytes(scrubRate) ?? 1)))
        do throws(NodeError) {
            let running = try ChunkServer(
                configuration, options, logger: logger, halted: halt(logger))
            logger.info("serving", metadata: ["address": "\(running.address.network)"])
            waitForEndingSignal(logger)
            running.stop()
        } catch {
            logger.critical("\(error)")
            throw CommandFailure(.failed, "chunk server \(name): \(error)")
        }
    }

    /// Its identity: random, made at its first start, kept in its folder.
    private static func identity(in folder: String) throws(CommandFailure) -> ServerID {
        let path = folder + "/server-id"
        if !LocalFile.exists(path) {
            var random = SystemRandomNumberGenerator()
            let digits = String(random.next() as UInt64, radix: 16)
            try LocalFile.write(Array("\(digits)\n".utf8), to: path)
        }
        let text = try LocalFile.read(path, bound: 100).text
        guard let value = text.split(separator: "\n").first.flatMap({ UInt64($0, radix: 16) })
        else { throw CommandFailure(.failed, "\(path) is damaged: it holds no number") }
        return ServerID(rawValue: value)
    }
}
