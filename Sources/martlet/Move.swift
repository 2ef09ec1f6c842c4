// `martlet mv`.

import ArgumentParser
import Base
import Client

struct Move: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mv", abstract: "Rename or move objects of the cell.")

    @Argument(help: "Absolute paths in the cell; the last one is the target.")
    var paths: [String]
    @Flag(name: .short, help: "Never replace what is there.")
    var noReplace = false
    @OptionGroup var cell: CellOptions

    func validate() throws {
        if paths.count < 2 { throw ValidationError("mv needs a source and a target") }
    }

    mutating func run() throws {
        let paths = try paths.map { (text) throws(CommandFailure) in try RemotePath(text) }
        let sources = paths.dropLast()
        let target = paths[paths.count - 1]
        let fileSystem = try cell.connect("mv")
        defer { fileSystem.close() }
        let there = try target.resolveIfThere(in: fileSystem)
        let intoDirectory = there?.kind == .directory
        if sources.count > 1 || target.meansDirectory, !intoDirectory {
            throw CommandFailure(file: .notDirectory, target.text)
        }
        let newParent =
            intoDirectory ? there!.inode : try target.resolveParent(in: fileSystem).inode
        for source in sources {
            let parent = try source.resolveParent(in: fileSystem)
            try attempt("\(source.text) to \(target.text)") { () throws(FileError) in
                try fileSystem.rename(
                    parent.inode, source.name, newParent,
                    intoDirectory ? source.name : target.name,
                    flags: noReplace ? .noReplace : [])
            }
        }
    }
}
