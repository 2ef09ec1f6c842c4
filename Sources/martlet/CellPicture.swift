// What commands for operators look at: servers, sets with their copies, and what is under way.

import Base
import Client
import Placement
import Wire

/// A cell at a moment, as the leader told it.
struct CellPicture {
    let status: CellStatus
    /// Ascending.
    let sets: [SetStatus]
    let operations: CellOperations
    private let homes: [DiskID: Int]
    /// Of disks that their server has no more.
    private let formerHomes: [DiskID: Int]

    init(status: CellStatus, sets: [SetStatus], operations: CellOperations) {
        self.status = status
        self.sets = sets
        self.operations = operations
        var homes: [DiskID: Int] = [:]
        var formerHomes: [DiskID: Int] = [:]
        for (index, server) in status.servers.enumerated() {
            for disk in server.disks { homes[disk.disk] = index }
            for disk in server.lost { formerHomes[disk] = index }
        }
        self.homes = homes
        self.formerHomes = formerHomes
    }

    init(_ fileSystem: FileSystem) throws(CommandFailure) {
        self.init(
            status: try attempt("status") { () throws(FileError) in try fileSystem.status() },
            sets: try attempt("map") { () throws(FileError) in try fileSystem.map() },
            operations: try attempt("operations") { () throws(FileError) in
                try fileSystem.operations()
            })
    }

    var servers: [ServerStatus] { Self.sorted(status.servers) }

    /// By name, `chunkserver-2` before `chunkserver-10`.
    static func sorted(_ servers: [ServerStatus]) -> [ServerStatus] {
        servers.sorted { ($0.name.count, $0.name) < ($1.name.count, $1.name) }
    }

    /// The server that has a disk.
    func server(of disk: DiskID) -> ServerStatus? { homes[disk].map { status.servers[$0] } }

    /// The servers that these names and ids mean, each once: NAME is all disks of a server, NAME/2
    /// one of them.
    func servers(named texts: [String]) throws(CommandFailure) -> [ServerStatus] {
        var found: [ServerStatus] = []
        for text in texts {
            for server in try servers(named: text) where !found.contains(server) {
                found.append(server)
            }
        }
        return found
    }
    private func servers(named text: String) throws(CommandFailure) -> [ServerStatus] {
        let found = servers.filter {
            $0.name == text || "\($0.id)" == text || $0.name.hasPrefix(text + "/")
        }
        if Set(found.map(\.id.unit)).count == 1 { return found }
        let names = servers.map(\.name).joined(separator: ", ")
        throw CommandFailure(
            .notFound,
            found.isEmpty
                ? "there is no chunk server '\(text)'; there are: \(names)"
                : "several chunk servers are called '\(text)': use the id "
                    + "(martlet chunkserver list)"
        )
    }

    /// A disk in words: its server's name, and its own number where the server has several.
    func name(of disk: DiskID) -> String {
        guard let server = server(of: disk) else {
            let former = formerHomes[disk].map { " (lost, of \(status.servers[$0].name))" }
            return "disk \(disk)" + (former ?? "")
        }
        return server.disks.count > 1 ? "\(server.name) (disk \(disk))" : server.name
    }

    func isDraining(_ server: ServerStatus) -> Bool {
        operations.draining.contains(server.id)
    }

    /// The sets with a member on a server.
    func sets(on server: ServerStatus) -> [SetStatus] {
        sets.filter { set in
            set.configuration.members.contains { self.server(of: $0)?.id == server.id }
        }
    }

    /// How many sets have a member on one of the disks.
    func copies(on disks: [DiskID]) -> Int {
        sets.count { $0.configuration.members.contains(where: disks.contains) }
    }

    /// For the rules of placement: disks with their use, and every set.
    var view: ClusterView {
        ClusterView(
            servers: status.servers.map { server in
                ClusterView.Server(
                    id: server.id,
                    host: server.address.machine.isEmpty
                        ? "server \(server.id)" : server.address.machine,
                    rack: server.rack, isUp: server.isUp, isDraining: isDraining(server))
            },
            disks: status.servers.flatMap { server in
                server.disks.map { disk in
                    ClusterView.Disk(
                        id: disk.disk, server: server.id, capacity: disk.capacity,
                        used: disk.used, recentBytes: disk.recentBytes,
                        hasFailed: disk.hasFailed)
                }
            },
            sets: sets.map { set in
                ClusterView.OpenSet(
                    set: set.id, members: set.configuration.members,
                    primary: set.configuration.primary, stored: set.stored, recentBytes: 0)
            })
    }
}
