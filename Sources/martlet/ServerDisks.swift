// The disks of a chunk server process: who each of them is, and their loops.
//
// Invariants:
//  1. Nothing is started before every disk that can be read is known to be this server's, and to be
//     there once; a disk of somebody else is refused and not touched (S8).
//  2. A disk that fails stops its own loop; the process ends with the last one (S4).

import Base
import ChunkServer
import Glibc
import Logging
import Node
import Store
import Synchronization

/// One disk of a server.
struct ServerDisk {
    var path: String
    var id: ServerID
    var name: String
}

enum ServerDisks {
    /// The server's identity, which is that of its first disk: random, made at its first start,
    /// kept in its folder.
    static func identity(in folder: String) throws(CommandFailure) -> ServerID {
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

    /// Gives each folder its identity: what its superblock says, or, for one that is new, the
    /// lowest number that is free.
    static func assign(
        _ paths: [String], of server: ServerID, in cell: CellID, called name: String
    ) throws(CommandFailure) -> [ServerDisk] {
        let known = try paths.map { (path) throws(CommandFailure) in
            try number(of: path, server, cell)
        }
        for (index, number) in known.enumerated() where number != nil {
            guard let other = known[..<index].firstIndex(of: number) else { continue }
            throw CommandFailure(
                .refusedAsUnsafe,
                "\(paths[other]) and \(paths[index]) say that they are the same disk: one is a "
                    + "copy of the other. Give only the one that was used last")
        }
        var free = (0..<ServerID.disks).filter { !known.contains($0) }
        return zip(paths, known).map { path, known in
            let number = known ?? free.removeFirst()
            return ServerDisk(
                path: path, id: server.disk(number),
                name: paths.count > 1 ? "\(name)/\(number + 1)" : name)
        }
    }

    /// Which disk of the server a folder is; nil: a new one, or one that can't be read, which its
    /// loop will find out.
    private static func number(
        of path: String, _ server: ServerID, _ cell: CellID
    ) throws(CommandFailure) -> Int? {
        guard let bytes = try? LocalFile.read(path + "/superblock", bound: 1 << 20),
            let superblock = try? Superblock.newest(in: bytes)
        else { return nil }
        guard superblock.cell == cell else {
            throw CommandFailure(
                .refusedAsUnsafe,
                "\(path) is a disk of another cell, \(superblock.cell): nothing was changed there")
        }
        guard case .server(let owner) = superblock.owner, let number = server.number(of: owner)
        else {
            throw CommandFailure(
                .refusedAsUnsafe,
                "\(path) is disk \(superblock.disk) of \(words(superblock.owner)), not of this "
                    + "chunk server (\(server)): nothing was changed there. Start it with the "
                    + "--dir it came with, or give an empty folder; copies move by chunkserver "
                    + "drain")
        }
        return number
    }

    private static func words(_ owner: DiskOwner) -> String {
        switch owner {
        case .master(let master): "master \(master)"
        case .server(let server): "chunk server \(server)"
        }
    }
}

/// The loops of a server's disks.
final class DiskLoops: Sendable {
    fileprivate enum State {
        case starting
        case serving(ChunkServer)
        case failed
    }
    private let states: Mutex<[State]>
    private let count: Int
    private let logger: Logger

    init(count: Int, logger: Logger) {
        states = Mutex([])
        self.count = count
        self.logger = logger
    }

    /// Starts the next disk. One that can't be opened leaves the others alone; an address that
    /// can't be listened on is the operator's to change.
    func start(
        _ configuration: ServerConfiguration, _ options: ChunkServer.Options, _ logger: Logger
    ) throws(CommandFailure) {
        let index = states.withLock { states in
            states.append(.starting)
            return states.count - 1
        }
        // What fails here fails again, with its reason, where the loop opens the folder.
        try? LocalFile.makeDirectories(configuration.folder)
        do throws(NodeError) {
            let server = try ChunkServer(configuration, options, logger: logger) { reason in
                logger.critical("halted: \(reason)")
                self.end(index)
            }
            logger.info("serving", metadata: ["address": "\(server.address.network)"])
            let hasFailed = states.withLock { states in
                if case .failed = states[index] { return true }
                states[index] = .serving(server)
                return false
            }
            if hasFailed { server.stop() }
        } catch {
            logger.critical("\(configuration.folder): \(error)")
            guard case .storage = error, count > 1 else {
                throw CommandFailure(.failed, "chunk server \(options.name): \(error)")
            }
            end(index)
        }
    }

    /// The loop of a disk halted, maybe on itself: it is stopped from another thread.
    private func end(_ index: Int) {
        let (server, isLast) = states.withLock { states -> (ChunkServer?, Bool) in
            var server: ChunkServer?
            if case .serving(let running) = states[index] { server = running }
            states[index] = .failed
            return (server, states.count == count && states.allSatisfy(\.isFailed))
        }
        if isLast {
            logger.critical("no disk is left: ending")
            _exit(ExitStatus.failed.rawValue)
        }
        if let server { ThreadGroup(count: 1) { server.stop() }.detach() }
    }

    /// Ends them all.
    func stop() {
        let servers = states.withLock { states in
            states.compactMap { state in
                if case .serving(let server) = state { server } else { nil }
            }
        }
        for server in servers { server.stop() }
    }
}

extension DiskLoops.State {
    fileprivate var isFailed: Bool { if case .failed = self { true } else { false } }
}
