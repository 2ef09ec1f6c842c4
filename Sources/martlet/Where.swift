// `martlet where`: which chunk servers have a file, and which of them takes its writes.

import ArgumentParser
import Base
import Client
import Wire

struct Where: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "where", abstract: "Show which chunk servers have the chunks of files.")

    @Argument(help: "Absolute paths of files in the cell.")
    var paths: [String]
    @OptionGroup var cell: CellOptions
    @Flag(help: "Print JSON.")
    var json = false

    /// One chunk of a file and the set it is in.
    private struct Row {
        var path: String
        var offset: UInt64
        var set: SetConfiguration
        var primary: String
        var backups: [String]
    }

    mutating func run() throws {
        let paths = try paths.map { (text) throws(CommandFailure) in try RemotePath(text) }
        let fileSystem = try cell.connect("where")
        defer { fileSystem.close() }
        let picture = try CellPicture(fileSystem)
        var rows: [Row] = []
        for path in paths {
            let found = try path.resolve(in: fileSystem, followLast: true)
            guard found.kind == .file else {
                throw CommandFailure(.failed, "\(path.text) is no file")
            }
            let places = try attempt(path.text) { () throws(FileError) in
                let open = try fileSystem.open(found.inode, options: OpenOptions(read: true)).0
                defer { fileSystem.release(open) }
                return try fileSystem.places(of: open)
            }
            for place in places {
                guard let set = picture.sets.first(where: { $0.id == place.set })?.configuration
                else { continue }
                let backups = set.members.filter { $0 != set.primary }
                rows.append(
                    Row(
                        path: path.text, offset: place.offset, set: set,
                        primary: picture.name(of: set.primary),
                        backups: backups.map { picture.name(of: $0) }))
            }
        }
        print(json ? Self.json(rows).encoded(indented: true) : Self.text(rows))
    }

    private static func text(_ rows: [Row]) -> String {
        let head = ["FILE", "OFFSET", "SET", "EPOCH", "PRIMARY", "BACKUPS"]
        return table(
            [head]
                + rows.map {
                    [
                        $0.path, "\($0.offset)", "\($0.set.set)", "\($0.set.epoch)", $0.primary,
                        $0.backups.joined(separator: ", "),
                    ]
                })
    }

    private static func json(_ rows: [Row]) -> JSON {
        let chunks = rows.map { row in
            JSON.object([
                ("id", .string(row.path)), ("offset", .unsigned(row.offset)),
                ("set", .unsigned(row.set.set.rawValue)),
                ("epoch", .unsigned(row.set.epoch.rawValue)), ("primary", .string(row.primary)),
                ("backups", .array(row.backups.map { .string($0) })),
            ])
        }
        return .object([("schema", .integer(1)), ("chunks", .array(chunks))])
    }
}
