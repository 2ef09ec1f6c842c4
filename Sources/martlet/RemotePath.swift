// Paths in the cell as commands get them.

import Base
import Client

/// An absolute path in the cell.
struct RemotePath {
    /// As it was given.
    let text: String
    /// Its components, without empty ones and ".".
    let names: [[UInt8]]
    /// It ends in a slash: a directory is meant.
    let meansDirectory: Bool

    init(_ text: String) throws(CommandFailure) {
        guard text.hasPrefix("/") else {
            throw CommandFailure(
                .usage, "'\(text)' is not an absolute path of the cell (it must begin with '/')")
        }
        self.text = text
        names = Array(text.utf8).split(separator: UInt8(ascii: "/")).map(Array.init)
            .filter { $0 != [UInt8(ascii: ".")] }
        guard !names.contains([UInt8(ascii: "."), UInt8(ascii: ".")]) else {
            throw CommandFailure(.usage, "'\(text)': '..' is not allowed in a path of the cell")
        }
        if let long = names.first(where: { $0.count > Limits.nameLength }) {
            throw CommandFailure(
                .failed,
                "'\(long.text)': a name has at most \(Limits.nameLength) bytes, not \(long.count)")
        }
        meansDirectory = text.hasSuffix("/") || names.isEmpty
    }

    var name: [UInt8] { names.last ?? [] }

    /// The object itself; symbolic links on the way are followed, the last one if `followLast`.
    func resolve(
        in fileSystem: FileSystem, followLast: Bool = true
    ) throws(CommandFailure) -> Attributes {
        try attempt(text) { () throws(FileError) in
            try fileSystem.resolve(path(names), followLast: followLast)
        }
    }

    /// The same, or nil if it is not there.
    func resolveIfThere(
        in fileSystem: FileSystem, followLast: Bool = true
    ) throws(CommandFailure) -> Attributes? {
        do throws(FileError) {
            return try fileSystem.resolve(path(names), followLast: followLast)
        } catch {
            if error == .notFound { return nil }
            throw CommandFailure(file: error, text)
        }
    }

    /// The directory that holds the last name, which the root has not.
    func resolveParent(in fileSystem: FileSystem) throws(CommandFailure) -> Attributes {
        guard !names.isEmpty else {
            throw CommandFailure(.refusedAsUnsafe, "'/' can't be made, moved or removed")
        }
        let parent = try attempt("the directory of \(text)") { () throws(FileError) in
            try fileSystem.resolve(path(names.dropLast()), followLast: true)
        }
        guard parent.kind == .directory else {
            throw CommandFailure(file: .notDirectory, "the directory of \(text)")
        }
        return parent
    }

    private func path(_ names: some Sequence<[UInt8]>) -> [UInt8] {
        names.reduce(into: [UInt8(ascii: "/")]) { path, name in path = path.appending(name) }
    }
}

extension FileSystem {
    /// Calls `body` with each name of a directory, in pages.
    func forEachEntry(
        of directory: InodeID, withAttributes: Bool = true, _ cancellation: Cancellation? = nil,
        _ body: (DirectoryEntry) throws(FileError) -> Void
    ) throws(FileError) {
        var cookie: UInt64 = 0
        while true {
            let page = try readDirectory(
                directory, after: cookie, limit: Limits.directoryPage,
                withAttributes: withAttributes, cancellation)
            for entry in page.entries { try body(entry) }
            guard !page.atEnd, let last = page.entries.last else { return }
            cookie = last.cookie
        }
    }
}
