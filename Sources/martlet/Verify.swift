// `martlet verify`: reads every copy of every block of files, and compares them.

import ArgumentParser
import Base
import Client
import Wire

struct Verify: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify",
        abstract: "Read every copy of every block of a file or tree, and compare them.",
        discussion: "Ends with 0 if all copies are sound and the same, with 4 if not.")

    @Argument(help: "Absolute paths in the cell.")
    var paths: [String]
    @OptionGroup var cell: CellOptions
    @Flag(help: "Print JSON.")
    var json = false

    /// A copy that is not as it should be.
    private struct Problem {
        var path: String
        var offset: UInt64
        var set: SetID
        var disk: String
        var what: String
    }
    private struct Sum {
        var files: UInt64 = 0
        var blocks: UInt64 = 0
        var copies: UInt64 = 0
        var problems: [Problem] = []
        /// Files with several links are read once.
        var seen: Set<InodeID> = []
    }

    mutating func run() throws {
        let paths = try paths.map { (text) throws(CommandFailure) in try RemotePath(text) }
        let fileSystem = try cell.connect("verify")
        defer { fileSystem.close() }
        let picture = try CellPicture(fileSystem)
        var sum = Sum()
        for path in paths {
            let found = try path.resolve(in: fileSystem, followLast: path.meansDirectory)
            try Self.verify(found, path.text, fileSystem, picture, &sum)
        }
        if json {
            print(Self.json(sum).encoded(indented: true))
        } else {
            for problem in sum.problems {
                print(
                    "\(problem.path): bytes from \(problem.offset): set \(problem.set) on "
                        + "\(problem.disk): \(problem.what)")
            }
            print(
                "\(sum.files) files, \(sum.blocks) blocks, \(sum.copies) copies read: "
                    + (sum.problems.isEmpty
                        ? "all sound and alike" : "\(sum.problems.count) problems"))
        }
        if !sum.problems.isEmpty {
            throw CommandFailure(
                .differences,
                "copies are damaged, differ or can't be read: martlet scrub status shows what is "
                    + "being repaired, martlet fsck what is missing")
        }
    }

    private static func verify(
        _ root: Attributes, _ rootPath: String, _ fileSystem: FileSystem, _ picture: CellPicture,
        _ sum: inout Sum
    ) throws(CommandFailure) {
        var directories: [(InodeID, String)] = []
        var files: [(Attributes, String)] = []
        func add(_ attributes: Attributes, _ path: String) {
            if attributes.kind == .directory { directories.append((attributes.inode, path)) }
            if attributes.kind == .file { files.append((attributes, path)) }
        }
        add(root, rootPath)
        while true {
            while let (file, path) = files.popLast() {
                guard file.links <= 1 || sum.seen.insert(file.inode).inserted else { continue }
                try verify(file: file, path, fileSystem, picture, &sum)
            }
            guard let (next, path) = directories.popLast() else { return }
            let prefix = path.hasSuffix("/") ? path : path + "/"
            try attempt(path) { () throws(FileError) in
                try fileSystem.forEachEntry(of: next) { entry in
                    guard let attributes = entry.attributes else { return }
                    add(attributes, prefix + entry.name.text)
                }
            }
        }
    }

    private static func verify(
        file: Attributes, _ path: String, _ fileSystem: FileSystem, _ picture: CellPicture,
        _ sum: inout Sum
    ) throws(CommandFailure) {
        var found = sum
        found.files += 1
        try attempt(path) { () throws(FileError) in
            let open = try fileSystem.open(file.inode, options: OpenOptions(read: true)).0
            defer { fileSystem.release(open) }
            try fileSystem.verify(open) { block in
                found.blocks += 1
                found.copies += UInt64(block.copies.count)
                if !block.areAlike { found.problems += problems(block, path, picture) }
            }
        }
        sum = found
    }

    /// What is wrong with the copies of a block; where nothing but their content differs, that.
    private static func problems(
        _ block: BlockCopies, _ path: String, _ picture: CellPicture
    ) -> [Problem] {
        let sound = block.copies.filter { if case .sound = $0.content { true } else { false } }
        let differ = Set(sound.map(\.content)).count > 1
        return block.copies.compactMap { copy in
            let what: String
            switch copy.content {
            case .damaged: what = "damaged"
            case .unavailable: what = "can't be read"
            case .sound(let sum):
                guard differ else { return nil }
                what = "differs from other copies (content \(sum.value))"
            }
            return Problem(
                path: path, offset: block.offset, set: block.set,
                disk: picture.name(of: copy.disk), what: what)
        }
    }

    private static func json(_ sum: Sum) -> JSON {
        let problems = sum.problems.map { problem in
            JSON.object([
                ("id", .string(problem.path)), ("offset", .unsigned(problem.offset)),
                ("set", .unsigned(problem.set.rawValue)), ("chunkserver", .string(problem.disk)),
                ("problem", .string(problem.what)),
            ])
        }
        return .object([
            ("schema", .integer(1)), ("files", .unsigned(sum.files)),
            ("blocks", .unsigned(sum.blocks)), ("copies", .unsigned(sum.copies)),
            ("problems", .array(problems)),
        ])
    }
}
