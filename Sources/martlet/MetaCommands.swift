// `martlet meta dump|verify|load|adopt`: the masters' state as a file, and a cell from it
// (docs/decisions/0014).
//
// Invariants:
//  1. FILE is there as a whole or not at all, and never replaced unasked.
//  2. `load` changes nothing before the whole dump was checked, and nothing where a master is or
//     answers.

import ArgumentParser
import Base
import Client
import Glibc
import Logging
import Master
import Node
import Wire

struct MetaCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "meta", abstract: "Back up the masters' state, and start a cell from it.",
        subcommands: [MetaDump.self, MetaVerify.self, MetaLoad.self, MetaAdopt.self])
}

struct MetaDump: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dump", abstract: "Write the masters' state to a file, while the cell runs.",
        discussion: """
            All names, attributes and places of data as of one moment after the command began; \
            not the data itself. `martlet meta verify FILE` checks it.
            """)

    @Argument(help: "The file to make.")
    var file: String
    @Flag(help: "Replace the file if it is there.")
    var force = false
    @OptionGroup var cell: CellOptions

    mutating func run() throws {
        let target = try cell.target()
        let output = try DumpOutput(file, replacing: force)
        let fileSystem = try cell.connect("meta dump")
        defer { fileSystem.close() }
        // Two later snapshots may replace the one that is being read.
        for _ in 0..<4 {
            var mark: SnapshotMark?
            do throws(FileError) {
                let newest = try fileSystem.snapshot()
                if try Self.copy(newest, of: fileSystem, target.cell, to: output) { mark = newest }
            } catch {
                guard error == .stale else { throw CommandFailure(file: error, "meta dump") }
            }
            guard let mark else { continue }
            try output.finish()
            return print("slot \(mark.slot) of cell \(target.cell): \(file)")
        }
        throw CommandFailure(
            .failed,
            "the masters let each snapshot go before it was read: nothing was written; "
                + "try again when there is less to do")
    }

    /// False if what came is not what it should be.
    private static func copy(
        _ mark: SnapshotMark, of fileSystem: FileSystem, _ cell: CellID, to output: DumpOutput
    ) throws(FileError) -> Bool {
        let bytes = try fileSystem.part(.plan, of: mark)
        guard ShortHash(of: bytes) == mark.root,
            let plan = try? SnapshotPlan(decoding: bytes[...])
        else { return false }
        output.begin()
        let header = DumpHeader(cell: cell, plan: plan, written: NodeTime.current.wall)
        output.write(header.bytes + bytes)
        for (number, block) in plan.blocks.enumerated() {
            let bytes = try fileSystem.part(SnapshotPart(rawValue: UInt32(number)), of: mark)
            guard ShortHash(of: bytes) == block.hash else { return false }
            output.write(bytes)
        }
        return true
    }
}

/// A file that appears when it is whole.
private final class DumpOutput {
    private let path: String
    private let temporary: String
    private let isReplacing: Bool
    private let file: Int32
    /// The first error.
    private var code: Int32 = 0

    init(_ path: String, replacing: Bool) throws(CommandFailure) {
        guard replacing || !LocalFile.exists(path) else {
            throw CommandFailure(
                .refusedAsUnsafe, "\(path) exists already: take another name, or give --force")
        }
        self.path = path
        isReplacing = replacing
        temporary = "\(path).\(getpid()).new"
        file = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw CommandFailure(errno: errno, temporary) }
    }
    deinit {
        close(file)
        unlink(temporary)
    }

    /// From the start, whatever there is.
    func begin() {
        if ftruncate(file, 0) != 0 || lseek(file, 0, SEEK_SET) != 0 { note(errno) }
    }
    func write(_ bytes: [UInt8]) {
        var rest = bytes[...]
        while !rest.isEmpty, code == 0 {
            let count = rest.withUnsafeBytes { Glibc.write(file, $0.baseAddress, $0.count) }
            if count < 0 { note(errno) } else { rest = rest.dropFirst(count) }
        }
    }
    func finish() throws(CommandFailure) {
        if fsync(file) != 0 { note(errno) }
        guard code == 0 else { throw CommandFailure(errno: code, temporary) }
        // A link fails where the file came up meanwhile.
        let isThere =
            isReplacing ? rename(temporary, path) == 0 : link(temporary, path) == 0
        guard isThere else { throw CommandFailure(errno: errno, path) }
        LocalFile.syncDirectory(LocalFile.absolute(path).directoryPart)
    }
    private func note(_ error: Int32) { if code == 0 { code = error } }
}

extension MetadataDump {
    /// Reads and checks a whole file.
    init(file path: String) throws(CommandFailure) {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { throw CommandFailure(errno: errno, path) }
        defer { close(file) }
        do throws(DumpFault) {
            try self.init { (count) throws(DumpFault) in
                var bytes = [UInt8](repeating: 0, count: count)
                var filled = 0
                while filled < count {
                    let read = bytes.withUnsafeMutableBytes {
                        Glibc.read(file, $0.baseAddress! + filled, count - filled)
                    }
                    guard read >= 0 else { throw .unreadable(CommandFailure.text(of: errno)) }
                    if read == 0 { break }
                    filled += read
                }
                return Array(bytes[..<filled])
            }
        } catch {
            throw CommandFailure(.refusedAsUnsafe, "\(path): \(error); nothing was changed")
        }
    }
}

struct MetaVerify: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify", abstract: "Check a dump, and show what is in it.",
        discussion: "Needs no cell. Everything that `load` needs is checked.")

    @Argument(help: "The file.")
    var file: String
    @Flag(help: "Print JSON.")
    var json = false

    mutating func run() throws {
        let dump = try MetadataDump(file: file)
        let time = Amounts.time(dump.time)
        if json {
            let fields: [(String, JSON)] = [
                ("schema", .integer(1)), ("cell", .string("\(dump.header.cell)")),
                ("slot", .unsigned(dump.header.mark.slot.rawValue)),
                ("root", .string("\(dump.header.mark.root)")), ("time", .string(time)),
                ("written", .string(Amounts.time(dump.header.written))),
                ("files", .unsigned(dump.files)), ("directories", .unsigned(dump.directories)),
                ("bytes", .unsigned(dump.bytes)), ("sets", .unsigned(UInt64(dump.sets))),
                ("masters", .array(dump.masterIDs.map { .unsigned(UInt64($0.rawValue)) })),
            ]
            return print(JSON.object(fields).encoded(indented: true))
        }
        print(
            """
            \(file) is whole
            cell         \(dump.header.cell)
            slot         \(dump.header.mark.slot), at \(time)
            root         \(dump.header.mark.root)
            files        \(dump.files), with \(Amounts.human(dump.bytes))
            directories  \(dump.directories)
            sets         \(dump.sets)
            """)
    }
}

struct MetaLoad: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "load", abstract: "Make the folders of masters that start from a dump.",
        discussion: """
            All masters of the cell must be new, each made from the same file and with the same \
            --peers. Where CELL is a folder made by `martlet up`, all of its masters are made at \
            once; else one, with the words that it is then served with. The chunk servers stay as \
            they are. Then start the masters and run `martlet meta adopt`.
            """)

    @Argument(help: "The file.")
    var file: String
    @Option(help: "The cell: a folder made by `up`. Also from MARTLET_CELL.")
    var cell: String?
    @Option(help: "Of one master: its folder, as in `martlet master serve`.")
    var dir: String?
    @Option(help: "Of one master: its number.")
    var id: UInt16?
    @Option(help: "Of one master: all masters, this one too: ID=HOST:PORT[@SOCKET],…")
    var peers: String?
    @Option(help: "Of one master: the key file of the cell.")
    var key: String?
    @Option(help: "Of one master: the size of a segment of its log.")
    var segmentSize = "256MiB"

    /// A folder that is to be made.
    private struct Place {
        var id: MasterID
        var folder: String
        var disk: String { folder + "/disk" }
        var temporary: String { folder + "/disk.loading" }
    }

    mutating func run() throws {
        var dump = try MetadataDump(file: file)
        let (places, masters, target, size) = try plan()
        guard target.cell == dump.header.cell else {
            throw CommandFailure(
                .refusedAsUnsafe,
                "\(file) is of cell \(dump.header.cell), not of \(target.cell): "
                    + "nothing was changed")
        }
        for place in places where LocalFile.exists(place.disk) {
            throw CommandFailure(
                .refusedAsUnsafe,
                "\(place.disk) holds a master already: nothing was changed; "
                    + "move it away if it is lost, or take another folder")
        }
        try Self.checkNobodyAnswers(target)
        do throws(DumpFault) { try dump.startOver() } catch {
            throw CommandFailure(.refusedAsUnsafe, "\(file): \(error); nothing was changed")
        }
        startLogging(to: nil)
        do {
            for place in places { try Self.make(place, dump, masters, size) }
        } catch {
            for place in places { try? Self.clear(place) }
            throw error
        }
        for place in places {
            guard rename(place.temporary, place.disk) == 0 else {
                throw CommandFailure(errno: errno, place.disk)
            }
            LocalFile.syncDirectory(place.folder)
        }
        print(
            "made \(places.count) of \(masters.count) masters, as of slot \(dump.header.mark.slot)"
                + "\nnext: make and start all masters, start every chunk server, make sure that "
                + "no old master runs; then: martlet meta adopt")
    }

    private func plan() throws(CommandFailure) -> ([Place], [MasterAddress], CellTarget, Int) {
        if let dir, let id, let peers, let key {
            let masters = try masterAddresses(peers)
            let file = try KeyFile(reading: key)
            guard let cell = file.cell, masters.contains(where: { $0.id.rawValue == id }) else {
                throw CommandFailure(
                    .usage, "--peers must name master \(id) itself, and \(key) the cell")
            }
            guard let size = Amounts.segment(segmentSize) else {
                throw CommandFailure(.usage, "--segment-size must be from 1MiB to 1GiB")
            }
            let targets = masters.map { MasterTarget(id: $0.id, address: $0.address) }
            return (
                [Place(id: MasterID(rawValue: id), folder: dir)], masters,
                CellTarget(cell: cell, key: file.key, masters: targets), size
            )
        }
        guard dir == nil, id == nil, peers == nil, key == nil,
            let name = cell ?? getenv("MARTLET_CELL").map({ String(cString: $0) }),
            case .folder(let folder) = CellAddress(name)
        else {
            throw CommandFailure(
                .usage,
                "give --cell DIR, a folder made by `martlet up`; or --dir, --id, --peers "
                    + "and --key of one master")
        }
        let description = try folder.description()
        try folder.lock()
        let running = description.masters.first {
            Daemon(folder: folder, name: $0.name).process != nil
        }
        if let running {
            throw CommandFailure(
                .refusedAsUnsafe, "\(running.name) runs: nothing was changed; end it first")
        }
        let places = description.masters.map {
            Place(id: MasterID(rawValue: UInt16($0.id)), folder: folder.folder(of: $0.name))
        }
        let masters = description.masters.map {
            MasterAddress(id: MasterID(rawValue: UInt16($0.id)), address: folder.address(of: $0))
        }
        return (places, masters, try folder.target(), description.segmentSize)
    }

    /// A cell has one set of masters.
    private static func checkNobodyAnswers(_ target: CellTarget) throws(CommandFailure) {
        let options = ClientOptions(label: "martlet meta load", deadline: .seconds(2))
        do throws(CommandFailure) {
            try CellOptions.connect(to: target, options).close()
        } catch {
            if error.status == .unreachable { return }
            throw error
        }
        throw CommandFailure(
            .refusedAsUnsafe,
            "a master of the cell answers: nothing was changed; there must be "
                + "none but those that are made from one dump")
    }

    private static func make(
        _ place: Place, _ dump: MetadataDump, _ masters: [MasterAddress], _ size: Int
    ) throws(CommandFailure) {
        try LocalFile.makeDirectories(place.folder)
        try clear(place)
        var random = SystemRandomNumberGenerator()
        do throws(NodeError) {
            try MasterFolder.make(
                at: place.temporary, dump, id: place.id, masters: masters,
                disk: DiskID(rawValue: random.next()), segmentSize: size,
                logger: Logger(label: "meta-load"))
        } catch {
            throw CommandFailure(.failed, "\(place.temporary): \(error)")
        }
    }
    /// Takes away what a load that did not end has left.
    private static func clear(_ place: Place) throws(CommandFailure) {
        guard LocalFile.exists(place.temporary) else { return }
        try LocalFile.removeTree(Array(place.temporary.utf8))
    }
}

struct MetaAdopt: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "adopt",
        abstract: "Let the data of a cell that was loaded from a dump go on where its disks are.",
        discussion: """
            Run it when every chunk server that the cell had is up, and no master that is older \
            than the load. A set goes on when all disks have reported and all its copies are \
            there; the command waits for that. Interrupting it takes nothing back.
            """)

    @Flag(help: "What is not up is lost: go on without it, where one copy is left.")
    var withoutMissing = false
    @OptionGroup var cell: CellOptions

    mutating func run() throws {
        let fileSystem = try cell.connect("meta adopt")
        defer { fileSystem.close() }
        let refusal = try attempt("meta adopt") { () throws(FileError) in
            try fileSystem.operate(.adopt(withoutMissing: withoutMissing))
        }
        if let refusal, refusal.cause == .nothingToAdopt { return print("\(refusal)") }
        if let refusal { throw CommandFailure(.refusedAsUnsafe, "meta adopt: \(refusal)") }
        let end = Clock.now + cell.interval
        while true {
            let picture = try CellPicture(fileSystem)
            let held = picture.sets.filter { !$0.held.isEmpty }
            guard let first = held.first else {
                return print("\(picture.sets.count) sets go on")
            }
            guard Clock.now < end else {
                throw CommandFailure(
                    .partlyDone,
                    "\(held.count) of \(picture.sets.count) sets wait; set "
                        + "\(first.id): \(picture.inNames(first.held)). They go on by themselves "
                        + "when it is there; if it is lost: martlet meta adopt --without-missing")
            }
            usleep(200_000)
        }
    }
}
