// `martlet ls`.

import ArgumentParser
import Base
import Client

struct List: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ls", abstract: "List directories of the cell.")

    @Argument(help: "Absolute paths in the cell.")
    var paths: [String] = ["/"]
    @Flag(name: .short, help: "Mode, links, owner, size and time too.")
    var long = false
    @Flag(help: "Print JSON.")
    var json = false
    @OptionGroup var cell: CellOptions

    mutating func run() throws {
        let paths = try paths.map { (text) throws(CommandFailure) in try RemotePath(text) }
        let fileSystem = try cell.connect("ls")
        defer { fileSystem.close() }
        var listed: [JSON] = []
        for path in paths {
            let found = try path.resolve(in: fileSystem, followLast: path.meansDirectory || !long)
            var entries: [(name: [UInt8], attributes: Attributes)] = []
            if found.kind == .directory {
                try attempt(path.text) { () throws(FileError) in
                    try fileSystem.forEachEntry(of: found.inode) { entry in
                        // A name that went away between the two has no attributes.
                        if let attributes = entry.attributes {
                            entries.append((entry.name, attributes))
                        }
                    }
                }
                entries.sort { $0.name.lexicographicallyPrecedes($1.name) }
            } else {
                entries = [(Array(path.text.utf8), found)]
            }
            let lines = try entries.map { (entry) throws(CommandFailure) in
                try describe(entry.name, entry.attributes, fileSystem)
            }
            if json {
                listed += lines.map(\.json)
            } else {
                if paths.count > 1 { print("\(path.text):") }
                show(lines.map(\.row))
            }
        }
        if json {
            let fields: [(String, JSON)] = [("schema", .integer(1)), ("entries", .array(listed))]
            print(JSON.object(fields).encoded(indented: true))
        }
    }

    private func show(_ rows: [[String]]) {
        guard !rows.isEmpty else { return }
        print(long ? table(rows) : rows.map { $0[0] }.joined(separator: "\n"))
    }

    private func describe(
        _ name: [UInt8], _ attributes: Attributes, _ fileSystem: FileSystem
    ) throws(CommandFailure) -> (row: [String], json: JSON) {
        var target: String?
        if attributes.kind == .symlink, long || json {
            target = try attempt(name.text) { () throws(FileError) in
                try fileSystem.readLink(attributes.inode)
            }.text
        }
        let shown = name.text + (long ? target.map { " -> \($0)" } ?? "" : "")
        let row =
            long
            ? [
                Amounts.mode(attributes), "\(attributes.links)", "\(attributes.user)",
                "\(attributes.group)", "\(attributes.size)", Amounts.time(attributes.modified),
                shown,
            ] : [shown]
        return (row, attributesJSON(name.text, attributes, target: target))
    }
}

/// The fields of an object in `ls` and `stat`.
func attributesJSON(_ name: String, _ attributes: Attributes, target: String?) -> JSON {
    var fields: [(String, JSON)] = [
        ("id", .unsigned(attributes.inode.rawValue)), ("name", .string(name)),
        ("kind", .string("\(attributes.kind)")),
        ("mode", .string("0" + String(attributes.mode, radix: 8))),
        ("links", .unsigned(UInt64(attributes.links))),
        ("user", .unsigned(UInt64(attributes.user))),
        ("group", .unsigned(UInt64(attributes.group))), ("size", .unsigned(attributes.size)),
        ("accessed", .string(Amounts.time(attributes.accessed))),
        ("modified", .string(Amounts.time(attributes.modified))),
        ("changed", .string(Amounts.time(attributes.changed))),
    ]
    if let target { fields.append(("target", .string(target))) }
    return .object(fields)
}
