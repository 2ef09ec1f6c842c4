// `martlet du` and `martlet df`.

import ArgumentParser
import Base
import Client
import Glibc
import Wire

struct DiskUsage: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "du", abstract: "Sum up the sizes of files below paths of the cell.")

    @Argument(help: "Absolute paths in the cell.")
    var paths: [String] = ["/"]
    @Flag(name: .short, help: "Sizes for people.")
    var human = false
    @Flag(help: "Print JSON.")
    var json = false
    @OptionGroup var cell: CellOptions

    private struct Sum {
        var bytes: UInt64 = 0
        var files: UInt64 = 0
        var directories: UInt64 = 0
        /// Files with several links count once.
        var seen: Set<InodeID> = []
    }

    mutating func run() throws {
        let paths = try paths.map { (text) throws(CommandFailure) in try RemotePath(text) }
        let fileSystem = try cell.connect("du")
        defer { fileSystem.close() }
        var entries: [JSON] = []
        for path in paths {
            let found = try path.resolve(in: fileSystem, followLast: path.meansDirectory)
            let sum = try attempt(path.text) { () throws(FileError) in
                try Self.sum(found, fileSystem)
            }
            entries.append(
                .object([
                    ("id", .string(path.text)), ("bytes", .unsigned(sum.bytes)),
                    ("files", .unsigned(sum.files)), ("directories", .unsigned(sum.directories)),
                ]))
            let isHuman = human || isatty(1) == 1
            if !json {
                print("\(isHuman ? Amounts.human(sum.bytes) : "\(sum.bytes)")\t\(path.text)")
            }
        }
        if json {
            let fields: [(String, JSON)] = [("schema", .integer(1)), ("paths", .array(entries))]
            print(JSON.object(fields).encoded(indented: true))
        }
    }

    private static func sum(
        _ root: Attributes, _ fileSystem: FileSystem
    ) throws(FileError) -> Sum {
        var sum = Sum()
        var directories: [InodeID] = []
        func add(_ attributes: Attributes) {
            if attributes.kind == .directory {
                sum.directories += 1
                directories.append(attributes.inode)
            } else if attributes.links <= 1 || sum.seen.insert(attributes.inode).inserted {
                sum.files += 1
                sum.bytes += attributes.size
            }
        }
        add(root)
        while let next = directories.popLast() {
            do throws(FileError) {
                try fileSystem.forEachEntry(of: next) { entry in
                    if let attributes = entry.attributes { add(attributes) }
                }
            } catch {
                // It may have been removed meanwhile.
                if error != .notFound && error != .stale { throw error }
            }
        }
        return sum
    }
}

struct DiskFree: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "df", abstract: "Show the capacity of the cell and what is free.")

    @Flag(name: .short, help: "Sizes for people.")
    var human = false
    @Flag(help: "Print JSON.")
    var json = false
    @OptionGroup var cell: CellOptions

    mutating func run() throws {
        let fileSystem = try cell.connect("df")
        defer { fileSystem.close() }
        let found = try attempt("df") { () throws(FileError) in try fileSystem.statistics() }
        let used = found.capacity - min(found.capacity, found.free)
        if json {
            let fields: [(String, JSON)] = [
                ("schema", .integer(1)), ("capacity", .unsigned(found.capacity)),
                ("used", .unsigned(used)), ("free", .unsigned(found.free)),
                ("files", .unsigned(found.files)),
            ]
            return print(JSON.object(fields).encoded(indented: true))
        }
        func size(_ bytes: UInt64) -> String {
            human || isatty(1) == 1 ? Amounts.human(bytes) : "\(bytes)"
        }
        let share =
            found.capacity == 0
            ? "-" : Amounts.decimal(100 * Double(used) / Double(found.capacity), places: 0) + "%"
        print(
            table([
                ["CAPACITY", "USED", "FREE", "USE", "FILES"],
                [size(found.capacity), size(used), size(found.free), share, "\(found.files)"],
            ]))
    }
}
