// `martlet stat`.

import ArgumentParser
import Base
import Client

struct StatCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stat", abstract: "Show the attributes of objects of the cell.")

    @Argument(help: "Absolute paths in the cell.")
    var paths: [String]
    @Flag(help: "Print JSON.")
    var json = false
    @OptionGroup var cell: CellOptions

    mutating func run() throws {
        let paths = try paths.map { (text) throws(CommandFailure) in try RemotePath(text) }
        let fileSystem = try cell.connect("stat")
        defer { fileSystem.close() }
        var entries: [JSON] = []
        for path in paths {
            let found = try path.resolve(in: fileSystem, followLast: path.meansDirectory)
            var target: String?
            if found.kind == .symlink {
                target = try attempt(path.text) { () throws(FileError) in
                    try fileSystem.readLink(found.inode)
                }.text
            }
            entries.append(attributesJSON(path.text, found, target: target))
            if !json { print(Self.text(path.text, found, target)) }
        }
        if json {
            let fields: [(String, JSON)] = [("schema", .integer(1)), ("entries", .array(entries))]
            print(JSON.object(fields).encoded(indented: true))
        }
    }

    private static func text(_ path: String, _ found: Attributes, _ target: String?) -> String {
        """
        \(path)\(target.map { " -> \($0)" } ?? "")
          \(found.kind), inode \(found.inode), links \(found.links), size \(found.size)
          mode \(Amounts.mode(found)) 0\(String(found.mode, radix: 8)), user \(found.user), \
        group \(found.group)
          accessed \(Amounts.time(found.accessed))
          modified \(Amounts.time(found.modified))
          changed  \(Amounts.time(found.changed))
        """
    }
}
