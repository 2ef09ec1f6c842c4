// Which cell a command talks to, and how long it waits.

import ArgumentParser
import Base
import Client
import Glibc
import Wire

/// The options of every command that talks to a cell.
struct CellOptions: ParsableArguments {
    @Option(help: "The cell: a folder made by `up`, or HOST[:PORT],… Also from MARTLET_CELL.")
    var cell: String?
    @Option(help: "The key file, where the cell is a list of hosts.")
    var key: String?
    @Option(help: "Give up after so many seconds without an answer.")
    var deadline: Double = Limits.commandDeadline.seconds

    func validate() throws {
        if !(deadline > 0 && deadline < 1e9) {
            throw ValidationError("--deadline must be a number of seconds above 0")
        }
    }

    var interval: Interval { Interval(nanoseconds: Int64(deadline * 1e9)) }

    /// Connects, within the deadline.
    func connect(_ label: String) throws(CommandFailure) -> FileSystem {
        try Self.connect(
            to: try target(), ClientOptions(label: "martlet \(label)", deadline: interval))
    }

    static func connect(
        to target: CellTarget, _ options: ClientOptions
    ) throws(CommandFailure) -> FileSystem {
        signal(SIGPIPE, SIG_IGN)
        let fileSystem = FileSystem(target: target, options: options)
        do throws(ClientError) {
            try fileSystem.connect()
        } catch {
            throw CommandFailure(error)
        }
        return fileSystem
    }

    /// The cell that --cell or MARTLET_CELL names.
    func target() throws(CommandFailure) -> CellTarget { try address().target(key: key) }

    /// Its folder, if it has one.
    func folder() throws(CommandFailure) -> CellFolder? {
        if case .folder(let folder) = try address() { folder } else { nil }
    }

    private func address() throws(CommandFailure) -> CellAddress {
        let fromEnvironment = getenv("MARTLET_CELL").map { String(cString: $0) }
        guard let name = cell ?? fromEnvironment, !name.isEmpty else {
            throw CommandFailure(
                .usage,
                "which cell? Give --cell CELL, or set MARTLET_CELL=CELL "
                    + "(a folder made by `martlet up`, or HOST[:PORT],… with --key FILE)")
        }
        return CellAddress(name)
    }
}

/// A CELL as it is written on a command line.
enum CellAddress {
    case folder(CellFolder)
    case hosts([String])

    /// A folder if it starts with `/` or `.` or exists.
    init(_ text: String) {
        if text.hasPrefix("/") || text.hasPrefix(".") || LocalFile.exists(text) {
            self = .folder(CellFolder(text))
        } else {
            self = .hosts(text.split(separator: ",").map(String.init))
        }
    }

    func target(key: String?) throws(CommandFailure) -> CellTarget {
        switch self {
        case .folder(let folder): return try folder.target()
        case .hosts(let hosts):
            guard let path = key else {
                throw CommandFailure(
                    .usage,
                    "'\(hosts.joined(separator: ","))' is no folder, so it is a list of "
                        + "hosts, which needs --key FILE (made by `martlet init`)")
            }
            let file = try KeyFile(reading: path)
            guard let cell = file.cell else {
                throw CommandFailure(.denied, "\(path) names no cell id after the key")
            }
            return CellTarget(
                cell: cell, key: file.key,
                masters: hosts.map { host in
                    MasterTarget(
                        id: nil,
                        address: PeerAddress(
                            network: Self.address(host, port: 7_420), socket: "", machine: ""))
                })
        }
    }

    /// `HOST:PORT`, with the default port if there is none.
    static func address(_ host: String, port: Int) -> String {
        host.contains(":") && !host.hasSuffix("]") ? host : "\(host):\(port)"
    }
}

/// `CELL[:/PATH]`, as mount takes it.
struct MountSource {
    let cell: String
    /// Absolute, in the cell.
    let path: String

    init(_ text: String) {
        let bytes = Array(text)
        let split = bytes.indices.last {
            bytes[$0] == ":" && $0 + 1 < bytes.count && bytes[$0 + 1] == "/"
        }
        cell = split.map { String(bytes[..<$0]) } ?? text
        path = split.map { String(bytes[($0 + 1)...]) } ?? "/"
    }
}
