// `martlet info PATH`: what an object is and where its bytes are.

import ArgumentParser
import Base
import Client
import Wire

struct Info: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "info", abstract: "Show where every copy of a file is.",
        discussion: "martlet explain PATH says why they are there.")

    @Argument(help: "Absolute paths in the cell.")
    var paths: [String]
    @OptionGroup var cell: CellOptions
    @Flag(help: "Print JSON.")
    var json = false

    mutating func run() throws {
        let paths = try paths.map { (text) throws(CommandFailure) in try RemotePath(text) }
        let fileSystem = try cell.connect("info")
        defer { fileSystem.close() }
        let picture = try CellPicture(fileSystem)
        var entries: [JSON] = []
        for (index, path) in paths.enumerated() {
            let file = try FilePlaces(path, fileSystem, picture)
            entries.append(.object(file.fields))
            if !json { print((index > 0 ? "\n" : "") + file.text) }
        }
        if json {
            let fields: [(String, JSON)] = [("schema", .integer(1)), ("entries", .array(entries))]
            print(JSON.object(fields).encoded(indented: true))
        }
    }
}

/// A file's chunks by their sets.
struct FilePlaces {
    let path: String
    let attributes: Attributes
    let picture: CellPicture
    /// Indices of its chunks that were written, by set; sets ascending.
    let sets: [(set: SetStatus, chunks: [UInt32])]
    /// Chunks whose set the map of the cell did not have: it is newer than the map.
    let unknown: [UInt32]

    init(
        _ path: RemotePath, _ fileSystem: FileSystem, _ picture: CellPicture
    ) throws(CommandFailure) {
        self.path = path.text
        self.picture = picture
        let found = try path.resolve(in: fileSystem, followLast: path.meansDirectory)
        attributes = found
        var chunks: [LayoutChunk] = []
        if found.kind == .file {
            chunks = try attempt(path.text) { () throws(FileError) in
                try fileSystem.places(of: found.inode, size: found.size)
            }
        }
        var places: [SetID: [UInt32]] = [:]
        for chunk in chunks { places[chunk.set, default: []].append(chunk.chunk.index) }
        sets = picture.sets.compactMap { set in places[set.id].map { (set, $0) } }
        let known = Set(sets.map(\.set.id))
        unknown = chunks.filter { !known.contains($0.set) }.map(\.chunk.index)
    }

    private var chunkCount: Int { sets.reduce(unknown.count) { $0 + $1.chunks.count } }
    private var allChunks: UInt64 {
        (attributes.size + UInt64(Limits.chunk) - 1) / UInt64(Limits.chunk)
    }
    /// The fewest copies of any chunk that are there and current; nil: it has no chunks.
    var fewestCopies: Int? {
        sets.map { set, _ in
            set.configuration.members.count { picture.state(of: $0, in: set) == .current }
        }.min()
    }
    /// Stored bytes of one copy, by how well the disks that it is on compress.
    private var storedEstimate: UInt64? {
        let disks = Set(sets.flatMap(\.set.configuration.members))
        let reports = picture.status.servers.flatMap(\.disks).filter { disks.contains($0.disk) }
        let stored = reports.reduce(0) { $0 + $1.stored }
        let logical = reports.reduce(0) { $0 + $1.logical }
        guard logical > 0 else { return nil }
        return UInt64(Double(attributes.size) * min(1, Double(stored) / Double(logical)))
    }

    var head: String {
        let goal = picture.status.goal
        var lines = [
            path,
            "  \(attributes.kind), inode \(attributes.inode), size \(attributes.size) "
                + "(\(Amounts.human(attributes.size))), goal \(goal)",
        ]
        guard attributes.kind == .file else { return lines.joined(separator: "\n") }
        var copies = "  \(chunkCount) of \(allChunks) chunks were written, in \(sets.count) sets"
        if let fewestCopies { copies += "; at least \(fewestCopies) current copies of each" }
        lines.append(copies)
        if let stored = storedEstimate {
            lines.append(
                "  about \(Amounts.human(stored)) stored per copy, as the disks it is on compress")
        }
        if !unknown.isEmpty {
            lines.append("  chunks \(Self.ranges(unknown)) just got a place: ask again")
        }
        return lines.joined(separator: "\n")
    }

    var text: String {
        guard !sets.isEmpty else { return head }
        var rows = [["SET", "CHUNKS", "EPOCH"] + CellPicture.memberHead]
        for (set, chunks) in sets {
            for (index, row) in picture.memberRows(set).enumerated() {
                let first = ["\(set.id)", Self.ranges(chunks), "\(set.configuration.epoch)"]
                rows.append((index == 0 ? first : ["", "", ""]) + row)
            }
        }
        return head + "\n\n" + table(rows)
    }

    var fields: [(String, JSON)] {
        [
            ("id", .unsigned(attributes.inode.rawValue)), ("path", .string(path)),
            ("kind", .string("\(attributes.kind)")), ("size", .unsigned(attributes.size)),
            ("goal", .integer(Int64(picture.status.goal))),
            ("chunks", .unsigned(UInt64(chunkCount))),
            ("fewest_copies", fewestCopies.map { .integer(Int64($0)) } ?? .null),
            ("stored_estimate", storedEstimate.map { .unsigned($0) } ?? .null),
            (
                "sets",
                .array(
                    sets.map { set, chunks in
                        let indices = JSON.array(chunks.map { .unsigned(UInt64($0)) })
                        return .object(picture.json(set) + [("file_chunks", indices)])
                    })
            ),
        ]
    }

    /// `0-3, 7`, the first few of them.
    static func ranges(_ numbers: [UInt32]) -> String {
        var ranges: [ClosedRange<UInt32>] = []
        for number in numbers {
            if let last = ranges.last, last.upperBound + 1 == number {
                ranges[ranges.count - 1] = last.lowerBound...number
            } else {
                ranges.append(number...number)
            }
        }
        let shown = ranges.prefix(4).map {
            $0.count == 1 ? "\($0.lowerBound)" : "\($0.lowerBound)-\($0.upperBound)"
        }
        return shown.joined(separator: ", ") + (ranges.count > 4 ? ", …" : "")
    }
}
