// The POSIX rules of create, link, unlink and removal of directories.

import Base
import Namespace
import Testing

private func name(_ text: String) -> [UInt8] { [UInt8](name: text) }

@Test("Malformed names are refused by every operation that takes one")
func malformedNames() {
    var cell = Cell()
    let file = cell.create("file")
    let cases: [([UInt8], FileError)] = [
        ([], .invalid), (name("."), .invalid), (name(".."), .invalid), (name("a/b"), .invalid),
        ([0x61, 0], .invalid), (Array(repeating: 0x61, count: 256), .nameTooLong),
    ]
    for (bad, error) in cases {
        cell.fails(
            error, .create(Creation(parent: .root, name: bad, kind: .file, mode: 0o600)))
        cell.fails(error, .link(file, parent: .root, name: bad))
        cell.fails(error, .unlink(parent: .root, name: bad, holders: []))
        cell.fails(error, .removeDirectory(parent: .root, name: bad))
        for (from, to) in [(bad, name("x")), (name("file"), bad)] {
            cell.fails(
                error,
                .rename(
                    parent: .root, name: from, newParent: .root, newName: to, flags: [],
                    holders: []))
        }
        #expect(throws: error) { try cell.namespace.lookup(.root, bad) }
    }
    let longest = String(repeating: "n", count: 255)
    cell.create(longest)
    #expect(cell.find(longest) != nil)
    #expect(cell.names() == ["file", longest])
}

@Test("Create makes every kind with its attributes, and times of the log")
func createKinds() throws {
    var cell = Cell()
    for (index, kind) in FileKind.allCases.enumerated() {
        let inode = cell.create("n\(index)", kind, mode: 0o4751)
        let found = try #require(cell.attributes(inode))
        let isDevice = kind == .characterDevice || kind == .blockDevice
        let expected = Attributes(
            inode: inode, kind: kind, mode: kind == .symlink ? 0o777 : 0o4751,
            links: kind == .directory ? 2 : 1, user: 10, group: 20, device: isDevice ? 7 : 0,
            size: kind == .symlink ? 6 : 0, accessed: cell.now, modified: cell.now,
            changed: cell.now)
        #expect(found == expected)
        #expect(cell.attributes(.root)?.modified == cell.now)
        #expect(cell.attributes(.root)?.changed == cell.now)
    }
    #expect(cell.attributes(.root)?.links == 3)
    #expect(try cell.namespace.readLink(try #require(cell.find("n2"))) == name("target"))
    #expect(throws: FileError.invalid) { try cell.namespace.readLink(.root) }
    #expect(cell.namespace.counts.files == 6)
    #expect(cell.namespace.counts.directories == 2)
    cell.expectEqualTwins()
}

@Test("Create refuses existing names, missing parents, files as parents, bad modes and targets")
func createRefusals() {
    var cell = Cell()
    let file = cell.create("file")
    func creation(
        _ parent: InodeID, _ text: String, _ kind: FileKind = .file, mode: UInt16 = 0,
        target: [UInt8] = []
    ) -> Change {
        .create(
            Creation(parent: parent, name: name(text), kind: kind, mode: mode, target: target))
    }
    cell.fails(.exists, creation(.root, "file"))
    cell.fails(.exists, creation(.root, "file", .directory))
    cell.fails(.notDirectory, creation(file, "x"))
    cell.fails(.stale, creation(InodeID(slot: 99, generation: 0), "x"))
    cell.fails(.stale, creation(InodeID(slot: 1, generation: 1), "x"))
    cell.fails(.stale, creation(InodeID(slot: 0, generation: 0), "x"))
    cell.fails(.invalid, creation(.root, "x", mode: 0o10000))
    cell.fails(.invalid, creation(.root, "x", target: name("t")))
    cell.fails(.notFound, creation(.root, "x", .symlink))
    cell.fails(.invalid, creation(.root, "x", .symlink, target: [0x61, 0]))
    let long = [UInt8](repeating: 0x61, count: 4_096)
    cell.fails(.nameTooLong, creation(.root, "x", .symlink, target: long))
    cell.succeeds(creation(.root, "x", .symlink, target: Array(long.dropLast())))
}

@Test("In a set-gid directory the group is inherited, by directories with the bit")
func setGroupInheritance() throws {
    var cell = Cell()
    let shared = cell.create("shared", .directory, mode: 0o2775)
    var changes = AttributeChanges()
    changes.group = 77
    cell.succeeds(.setAttributes(shared, changes))
    #expect(cell.attributes(shared)?.mode == 0o2775)
    let ids = (cell.create("f", in: shared), cell.create("d", in: shared, .directory, mode: 0o755))
    let file = try #require(cell.attributes(ids.0))
    let sub = try #require(cell.attributes(ids.1))
    #expect(file.group == 77 && file.mode == 0o644)
    #expect(sub.group == 77 && sub.mode == 0o2755)
}

@Test("Link adds a name of the same inode, but none of a directory, an orphan, or over the bound")
func links() throws {
    var cell = Cell()
    let file = cell.create("file")
    let directory = cell.create("dir", .directory)
    cell.succeeds(.link(file, parent: directory, name: name("second")))
    #expect(cell.find("second", in: directory) == file)
    #expect(cell.attributes(file)?.links == 2)
    #expect(cell.attributes(file)?.changed == cell.now)
    #expect(cell.attributes(directory)?.modified == cell.now)
    cell.fails(.exists, .link(file, parent: .root, name: name("dir")))
    cell.fails(.notPermitted, .link(directory, parent: .root, name: name("d2")))
    cell.fails(.notDirectory, .link(file, parent: file, name: name("x")))
    #expect(cell.unlink("file") == .done)
    #expect(cell.attributes(file)?.links == 1)
    #expect(cell.unlink("second", in: directory, holders: [cell.session]) == .done)
    #expect(cell.attributes(file)?.links == 0)
    cell.fails(.notFound, .link(file, parent: .root, name: name("x")))

    let many = cell.create("many")
    for index in 1..<Int(Limits.links) {
        _ = cell.change(.link(many, parent: .root, name: name("l\(index)")))
    }
    #expect(cell.attributes(many)?.links == Limits.links)
    cell.fails(.tooManyLinks, .link(many, parent: .root, name: name("over")))
    cell.expectEqualTwins()
}

@Test("Unlink takes what is no directory, rmdir takes empty directories")
func removals() {
    var cell = Cell()
    let directory = cell.create("dir", .directory)
    let inner = cell.create("inner", in: directory, .directory)
    cell.create("file")
    cell.fails(.isDirectory, .unlink(parent: .root, name: name("dir"), holders: []))
    cell.fails(.notFound, .unlink(parent: .root, name: name("none"), holders: []))
    cell.fails(.notDirectory, .removeDirectory(parent: .root, name: name("file")))
    cell.fails(.notFound, .removeDirectory(parent: .root, name: name("none")))
    cell.fails(.notEmpty, .removeDirectory(parent: .root, name: name("dir")))
    #expect(cell.attributes(directory)?.links == 3)
    cell.succeeds(.removeDirectory(parent: directory, name: name("inner")))
    #expect(cell.attributes(directory)?.links == 2)
    #expect(cell.attributes(directory)?.modified == cell.now)
    #expect(cell.attributes(inner) == nil)
    cell.fails(.stale, .unlink(parent: inner, name: name("x"), holders: []))
    cell.succeeds(.removeDirectory(parent: .root, name: name("dir")))
    #expect(cell.attributes(.root)?.links == 2)
    #expect(cell.unlink("file") == .done)
    #expect(cell.names().isEmpty)
    #expect(cell.namespace.counts.files == 0)
    #expect(cell.namespace.counts.directories == 1)
}

@Test("An inode id is never given out twice, although its slot is")
func idsAreNotReissued() {
    var cell = Cell()
    var seen: Set<InodeID> = []
    var slots: Set<UInt64> = []
    for _ in 0..<200 {
        let inode = cell.create("file")
        #expect(seen.insert(inode).inserted)
        slots.insert(inode.slot)
        #expect(cell.unlink("file") == .done)
        #expect(cell.attributes(inode) == nil)
    }
    #expect(slots.count == 1)
}

@Test("Two names with one hash are two names")
func equalHashes() {
    var cell = Cell()
    // Their FNV-1a sums are equal.
    let first = cell.create("8yn0iYCKYHlIj4-BwPqk")
    #expect(cell.find("GReLUrM4wMqfg9yzV3KQ") == nil)
    let second = cell.create("GReLUrM4wMqfg9yzV3KQ")
    #expect(cell.find("8yn0iYCKYHlIj4-BwPqk") == first)
    #expect(cell.find("GReLUrM4wMqfg9yzV3KQ") == second)
    #expect(cell.unlink("8yn0iYCKYHlIj4-BwPqk") == .done)
    #expect(cell.find("GReLUrM4wMqfg9yzV3KQ") == second)
    #expect(cell.find("8yn0iYCKYHlIj4-BwPqk") == nil)
}

@Test("Reading a directory by cookie sees every name that stays exactly once")
func readDirectory() throws {
    var cell = Cell()
    let directory = cell.create("dir", .directory)
    var random = SeededRandom(seed: 7)
    for index in 0..<1_500 { cell.create("old\(index)", in: directory) }
    // Half goes before, half while the directory is read; new names come in all the time.
    for index in stride(from: 0, to: 1_500, by: 3) {
        #expect(cell.unlink("old\(index)", in: directory) == .done)
    }
    var seen: [String] = []
    var cookie: UInt64 = 0
    var last: UInt64 = 2
    var added = 0
    while true {
        let page = try cell.namespace.readDirectory(
            directory, after: cookie, limit: 50, withAttributes: true)
        for entry in page.entries {
            #expect(entry.cookie > last)
            #expect(entry.attributes?.inode == entry.inode)
            last = entry.cookie
            seen.append(String(decoding: entry.name, as: UTF8.self))
        }
        cookie = last
        if page.atEnd { break }
        for index in (0..<20).map({ _ in random.below(500) * 3 + 1 }) {
            _ = cell.unlink("old\(index)", in: directory)
        }
        if added < 100 {
            cell.create("new\(added)", in: directory)
            added += 1
        }
    }
    #expect(Set(seen).count == seen.count)
    let stays = (0..<1_500).filter { $0 % 3 == 2 }.map { "old\($0)" }
    #expect(Set(stays).isSubset(of: Set(seen)))
    #expect(cell.attributes(directory)?.size == UInt64(cell.namespace.counts.files))
    let (entries, atEnd) = try cell.namespace.readDirectory(
        directory, after: .max, limit: 10, withAttributes: false)
    #expect(entries.isEmpty && atEnd)
    cell.expectEqualTwins()
}
