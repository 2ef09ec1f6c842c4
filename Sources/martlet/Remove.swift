// `martlet rm`.

import ArgumentParser
import Base
import Client

struct Remove: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rm", abstract: "Remove files of the cell, or directories with -r.")

    @Argument(help: "Absolute paths in the cell.")
    var paths: [String]
    @Flag(name: .short, help: "Directories and all they hold.")
    var recursive = false
    @Flag(name: .short, help: "What is not there is no error.")
    var force = false
    @OptionGroup var cell: CellOptions

    mutating func run() throws {
        let paths = try paths.map { (text) throws(CommandFailure) in try RemotePath(text) }
        let fileSystem = try cell.connect("rm")
        defer { fileSystem.close() }
        for path in paths {
            let parent = try path.resolveParent(in: fileSystem)
            let found = try path.resolveIfThere(in: fileSystem, followLast: false)
            guard let found else {
                if force { continue }
                throw CommandFailure(file: .notFound, path.text)
            }
            guard found.kind == .directory else {
                try attempt(path.text) { () throws(FileError) in
                    try fileSystem.unlink(parent.inode, path.name)
                }
                continue
            }
            guard recursive else {
                throw CommandFailure(.failed, "\(path.text): is a directory (-r removes it)")
            }
            try TreeRemover(fileSystem: fileSystem).remove(found.inode, path.text)
            try attempt(path.text) { () throws(FileError) in
                try fileSystem.removeDirectory(parent.inode, path.name)
            }
        }
    }
}

/// Empties directories; the names of one are removed side by side.
private struct TreeRemover {
    let fileSystem: FileSystem

    func remove(_ directory: InodeID, _ path: String) throws(CommandFailure) {
        while true {
            let page = try attempt(path) { () throws(FileError) in
                try fileSystem.readDirectory(
                    directory, after: 0, limit: Limits.directoryPage, withAttributes: false)
            }
            for entry in page.entries where entry.kind == .directory {
                try remove(entry.inode, "\(path)/\(entry.name.text)")
            }
            let failures = inParallel(page.entries, threads: 8) { entry -> CommandFailure? in
                do throws(FileError) {
                    if entry.kind == .directory {
                        try fileSystem.removeDirectory(directory, entry.name)
                    } else {
                        try fileSystem.unlink(directory, entry.name)
                    }
                    return nil
                } catch {
                    return error == .notFound
                        ? nil : CommandFailure(file: error, "\(path)/\(entry.name.text)")
                }
            }
            if let failure = failures.compactMap({ $0 }).first { throw failure }
            if page.atEnd { return }
        }
    }
}
