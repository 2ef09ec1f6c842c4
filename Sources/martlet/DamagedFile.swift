// Damage that nothing has repaired, by file and offset: its inode is looked up by a walk through
// the names of the cell, as far as `names` goes.

import Base
import Client
import Wire

/// See the head of this file.
struct DamagedFile {
    /// Names that are looked at.
    private static let names = 1_000_000

    var place: DamagedPlace
    var server: String
    /// Nil: it was not found, or has no name any more.
    var path: String?

    var text: String {
        let file = path ?? "inode \(place.chunk.inode)"
        return "\(file), \(Limits.block) bytes from \(place.offset) (\(server))"
    }
    var json: JSON {
        .object([
            ("id", .string("\(place.chunk.inode)/\(place.offset)")),
            ("path", path.map { .string($0) } ?? .null), ("offset", .unsigned(place.offset)),
            ("length", .integer(Int64(Limits.block))), ("chunkserver", .string(server)),
        ])
    }

    /// What servers say is damaged now. What other copies repair is so for a moment only.
    static func all(
        _ picture: CellPicture, _ fileSystem: FileSystem
    ) throws(CommandFailure) -> [DamagedFile] {
        var found = picture.servers.flatMap { server in
            server.disks.flatMap(\.scrub.places).map { DamagedFile(place: $0, server: server.name) }
        }
        var wanted = Set(found.map(\.place.chunk.inode))
        var paths: [InodeID: String] = [:]
        var directories: [(InodeID, String)] = [(.root, "/")]
        var count = 0
        while !wanted.isEmpty, count < names, let (next, prefix) = directories.popLast() {
            try attempt(prefix) { () throws(FileError) in
                do throws(FileError) {
                    try fileSystem.forEachEntry(of: next) { entry in
                        count += 1
                        guard let attributes = entry.attributes else { return }
                        let path = prefix + entry.name.text
                        if wanted.remove(attributes.inode) != nil {
                            paths[attributes.inode] = path
                        }
                        if attributes.kind == .directory {
                            directories.append((attributes.inode, path + "/"))
                        }
                    }
                } catch {
                    // It may have been removed meanwhile.
                    if error != .notFound && error != .stale { throw error }
                }
            }
        }
        for index in found.indices { found[index].path = paths[found[index].place.chunk.inode] }
        return found
    }
}
