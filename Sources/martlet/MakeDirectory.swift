// `martlet mkdir`.

import ArgumentParser
import Base
import Client
import Glibc

struct MakeDirectory: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mkdir", abstract: "Make directories in the cell.")

    @Argument(help: "Absolute paths in the cell.")
    var paths: [String]
    @Flag(name: .short, help: "Parents too; a directory that is there is no error.")
    var parents = false
    @OptionGroup var cell: CellOptions

    mutating func run() throws {
        let paths = try paths.map { (text) throws(CommandFailure) in try RemotePath(text) }
        let fileSystem = try cell.connect("mkdir")
        defer { fileSystem.close() }
        for path in paths {
            if parents {
                try Self.makeAll(path, fileSystem)
            } else {
                let parent = try path.resolveParent(in: fileSystem)
                _ = try attempt(path.text) { () throws(FileError) in
                    try Self.make(parent.inode, path.name, fileSystem)
                }
            }
        }
    }

    private static func make(
        _ parent: InodeID, _ name: [UInt8], _ fileSystem: FileSystem
    ) throws(FileError) -> Attributes {
        let mask = umask(0)
        umask(mask)
        return try fileSystem.makeNode(
            parent, name, kind: .directory, mode: UInt16(0o777 & ~mask), user: geteuid(),
            group: getegid(), device: 0)
    }

    private static func makeAll(
        _ path: RemotePath, _ fileSystem: FileSystem
    ) throws(CommandFailure) {
        var directory = InodeID.root
        for (index, name) in path.names.enumerated() {
            let prefix = "/" + path.names[...index].map(\.text).joined(separator: "/")
            let here = try RemotePath(prefix)
            let found: Attributes
            if let there = try here.resolveIfThere(in: fileSystem) {
                found = there
            } else {
                do throws(FileError) {
                    found = try make(directory, name, fileSystem)
                } catch {
                    // Someone else may have made it meanwhile.
                    guard error == .exists else { throw CommandFailure(file: error, prefix) }
                    found = try here.resolve(in: fileSystem)
                }
            }
            guard found.kind == .directory else {
                throw CommandFailure(file: .notDirectory, prefix)
            }
            directory = found.inode
        }
    }
}
