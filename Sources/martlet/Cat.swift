// `martlet cat`.

import ArgumentParser
import Base
import Client
import Glibc

struct Cat: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cat", abstract: "Write files of the cell to standard output.")

    @Argument(help: "Absolute paths in the cell.")
    var paths: [String]
    @OptionGroup var cell: CellOptions

    mutating func run() throws {
        let paths = try paths.map { (text) throws(CommandFailure) in try RemotePath(text) }
        let fileSystem = try cell.connect("cat")
        defer { fileSystem.close() }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4_096)
        defer { buffer.deallocate() }
        for path in paths {
            let found = try path.resolve(in: fileSystem)
            guard found.kind == .file else {
                throw CommandFailure(
                    file: found.kind == .directory ? .isDirectory : .invalid, path.text)
            }
            let file = try attempt(path.text) { () throws(FileError) in
                try fileSystem.open(found.inode, options: OpenOptions(read: true)).0
            }
            defer { fileSystem.release(file) }
            var offset: UInt64 = 0
            while true {
                let count = try attempt(path.text) { () throws(FileError) in
                    try fileSystem.read(file, at: offset, into: buffer)
                }
                if count == 0 { break }
                try Self.write(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
                offset += UInt64(count)
            }
        }
    }

    private static func write(_ bytes: UnsafeRawBufferPointer) throws(CommandFailure) {
        var rest = bytes
        while !rest.isEmpty {
            let count = Glibc.write(1, rest.baseAddress, rest.count)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw CommandFailure(errno: errno, "standard output") }
            rest = UnsafeRawBufferPointer(rebasing: rest[count...])
        }
    }
}
