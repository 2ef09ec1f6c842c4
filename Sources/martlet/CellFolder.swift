// A cell on this machine: DIR/cell.json says what it consists of, DIR/cell.key proves identity,
// DIR/NAME holds the data and log of one process, DIR/pids/NAME its process id.
//
// Invariants:
//  1. cell.json is replaced as a whole; its format version is checked before anything else.
//  2. Paths in it are relative to DIR, so a cell may be moved while it is down.

import Base
import Client
import Glibc
import Wire

/// One process of the cell.
struct Member: Sendable {
    /// Of a master; chunk servers have ids of their own.
    var id: Int
    /// `master-1`, `chunkserver-2`; also the name of its folder.
    var name: String
    /// `127.0.0.1:PORT`; the disks of a chunk server take the ports from there on.
    var address: String
    /// A master that came later than the cell.
    var hasJoined = false
}

/// The mount that `up` keeps.
struct MountRecord: Sendable {
    var path: String
    var options: [String]
}

/// What cell.json says.
struct CellDescription: Sendable {
    var cell: CellID
    var goal: Int
    var segmentSize: Int
    /// Of each chunk server.
    var disks: Int
    /// Bytes that each of them may use; nil: all that is free.
    var capacity: Int?
    var masters: [Member]
    var chunkServers: [Member]
    var mount: MountRecord?

    var json: JSON {
        func members(_ members: [Member]) -> JSON {
            .array(
                members.map { member in
                    .object([
                        ("id", .integer(Int64(member.id))), ("name", .string(member.name)),
                        ("address", .string(member.address)),
                        ("socket", .string("\(member.name)/socket")),
                        ("joined", .bool(member.hasJoined)),
                    ])
                })
        }
        let mount = mount.map { mount in
            JSON.object([
                ("path", .string(mount.path)),
                ("options", .array(mount.options.map { .string($0) })),
            ])
        }
        return .object([
            ("schema", .integer(1)), ("format", .integer(Version.cellFormat)),
            ("cell", .string("\(cell)")), ("goal", .integer(Int64(goal))),
            ("segment_size", .integer(Int64(segmentSize))),
            ("disks", .integer(Int64(disks))),
            ("capacity", capacity.map { .integer(Int64($0)) } ?? .null),
            ("masters", members(masters)),
            ("chunkservers", members(chunkServers)), ("mount", mount ?? .null),
        ])
    }

    /// Reads what `json` wrote; nil if anything is missing.
    init?(_ json: JSON) {
        func members(_ name: String) -> [Member]? {
            guard let items = json[name]?.items else { return nil }
            let members = items.compactMap { item -> Member? in
                guard let id = item["id"]?.number, let name = item["name"]?.text,
                    let address = item["address"]?.text
                else { return nil }
                return Member(
                    id: Int(id), name: name, address: address,
                    hasJoined: item["joined"]?.flag ?? false)
            }
            return members.count == items.count ? members : nil
        }
        guard let cell = json["cell"]?.text.flatMap({ CellID(hexadecimal: $0) }),
            let goal = json["goal"]?.number, let segmentSize = json["segment_size"]?.number,
            let masters = members("masters"), let chunkServers = members("chunkservers")
        else { return nil }
        self.init(
            cell: cell, goal: Int(goal), segmentSize: Int(segmentSize),
            disks: Int(json["disks"]?.number ?? 1),
            capacity: json["capacity"]?.number.map { Int($0) }, masters: masters,
            chunkServers: chunkServers,
            mount: json["mount"]?["path"]?.text.map { path in
                let options = json["mount"]?["options"]?.items ?? []
                return MountRecord(path: path, options: options.compactMap(\.text))
            })
    }

    init(
        cell: CellID, goal: Int, segmentSize: Int, disks: Int, capacity: Int?,
        masters: [Member], chunkServers: [Member], mount: MountRecord?
    ) {
        self.cell = cell
        self.goal = goal
        self.segmentSize = segmentSize
        self.disks = disks
        self.capacity = capacity
        self.masters = masters
        self.chunkServers = chunkServers
        self.mount = mount
    }
}

/// The folder of a cell.
struct CellFolder: Sendable {
    /// Absolute.
    let path: String

    init(_ path: String) { self.path = LocalFile.absolute(path) }

    var descriptionPath: String { path + "/cell.json" }
    var keyPath: String { path + "/cell.key" }
    var isCell: Bool { LocalFile.exists(descriptionPath) }

    /// A folder of one of its processes.
    func folder(of name: String) -> String { "\(path)/\(name)" }

    /// The process's Unix socket; empty if the path is too long for one.
    func socket(of name: String) -> String {
        let socket = "\(path)/\(name)/socket"
        return socket.utf8.count < 100 ? socket : ""
    }

    /// Reads cell.json.
    func description() throws(CommandFailure) -> CellDescription {
        guard isCell else {
            throw CommandFailure(
                .notFound, "\(path) is not a cell: it has no cell.json (`martlet up DIR` makes one)"
            )
        }
        guard let json = JSON(try LocalFile.read(descriptionPath)) else {
            throw CommandFailure(.failed, "\(descriptionPath) is damaged: not JSON")
        }
        guard let format = json["format"]?.number else {
            throw CommandFailure(.failed, "\(descriptionPath) is damaged: it has no format version")
        }
        guard format == Version.cellFormat else {
            throw CommandFailure(
                .refusedAsUnsafe,
                "\(path) is a cell of format \(format); Martlet \(Version.release) reads format "
                    + "\(Version.cellFormat) only: use the release that made it")
        }
        guard let description = CellDescription(json) else {
            throw CommandFailure(.failed, "\(descriptionPath) is damaged: a field is missing")
        }
        return description
    }

    func write(_ description: CellDescription) throws(CommandFailure) {
        let text = description.json.encoded(indented: true) + "\n"
        try LocalFile.write(Array(text.utf8), to: descriptionPath)
    }

    /// How a client on this machine reaches the cell.
    func target() throws(CommandFailure) -> CellTarget {
        let description = try description()
        let key = try KeyFile(reading: keyPath)
        return CellTarget(
            cell: description.cell, key: key.key,
            masters: description.masters.map { master in
                MasterTarget(
                    id: MasterID(rawValue: UInt16(master.id)), address: address(of: master))
            })
    }
    /// How processes on this machine reach one of them.
    func address(of member: Member) -> PeerAddress {
        PeerAddress(
            network: member.address, socket: socket(of: member.name), machine: thisMachine())
    }

    /// Keeps a second `up` or `down` of the same folder waiting out; lasts until the process ends.
    func lock() throws(CommandFailure) {
        let directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard directory >= 0 else { throw CommandFailure(errno: errno, path) }
        guard flock(directory, LOCK_EX | LOCK_NB) == 0 else {
            throw CommandFailure(
                .failed, "\(path): another `martlet up` or `down` is at work there")
        }
    }
}

/// A file with the cell's key and id: 64 hexadecimal digits, a blank, 32 hexadecimal digits. The
/// id may be missing where it is known from cell.json.
struct KeyFile: Sendable {
    let key: CellKey
    let cell: CellID?

    init(reading path: String) throws(CommandFailure) {
        let words = try LocalFile.read(path, bound: 1_000).text
            .split(whereSeparator: { $0 == " " || $0 == "\n" })
        guard let key = words.first.flatMap({ CellKey(hexadecimal: $0) })
        else { throw CommandFailure(.denied, "\(path) holds no cell key (64 hexadecimal digits)") }
        self.key = key
        cell = words.count > 1 ? CellID(hexadecimal: words[1]) : nil
    }

    /// Makes a new cell's key file, readable by its owner only.
    static func make(at path: String, cell: CellID) throws(CommandFailure) {
        let digits = randomBytes(32).map { byte in
            (byte < 16 ? "0" : "") + String(byte, radix: 16)
        }
        try LocalFile.write(Array("\(digits.joined()) \(cell)\n".utf8), to: path, mode: 0o600)
    }
}

/// Bytes from the kernel's random generator.
func randomBytes(_ count: Int) -> [UInt8] {
    var generator = SystemRandomNumberGenerator()
    return (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
}

/// A new cell's id.
func newCellID() -> CellID {
    var generator = SystemRandomNumberGenerator()
    return CellID(high: generator.next(), low: generator.next())
}

/// The boot id: peers with the same one use Unix sockets.
func thisMachine() -> String {
    let bytes = (try? LocalFile.read("/proc/sys/kernel/random/boot_id", bound: 100)) ?? []
    return bytes.text.split(separator: "\n").first.map(String.init) ?? ""
}
