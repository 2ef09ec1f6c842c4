// The rules of rename, as renameat2 has them.

import Base
import Namespace
import Testing

/// A tree: a/ with a/b/ and a/f, empty e/, files x and y; y has a second name z.
private func tree() -> Cell {
    var cell = Cell()
    let a = cell.create("a", .directory)
    cell.create("b", in: a, .directory)
    cell.create("f", in: a)
    cell.create("e", .directory)
    cell.create("x")
    let y = cell.create("y")
    cell.succeeds(.link(y, parent: .root, name: [UInt8](name: "z")))
    return cell
}

private let refusals: [(String, String, RenameFlags, FileError)] = [
    ("none", "new", [], .notFound),
    ("x", "y", .noReplace, .exists),
    ("x", "x", .noReplace, .exists),
    ("x", "none", .exchange, .notFound),
    ("a", "a/b/new", [], .invalid),
    ("a", "a/new", [], .invalid),
    ("a", "a/b", [], .invalid),
    ("a", "a/b", .exchange, .invalid),
    ("a/b", "a", .exchange, .invalid),
    ("a/b", "a", [], .notEmpty),
    ("a/f", "a", [], .notEmpty),
    ("e", "a", [], .notEmpty),
    ("a", "x", [], .notDirectory),
    ("x", "e", [], .isDirectory),
    ("x", "a", [], .isDirectory),
    ("x", "y", [.exchange, .noReplace], .invalid),
    ("x", "y", RenameFlags(rawValue: 4), .invalid),
    ("x", "y/new", [], .notDirectory),
    ("x/f", "new", [], .notDirectory),
]

@Test("Rename refuses what POSIX refuses, and changes nothing then", arguments: refusals)
func renameRefusals(from: String, to: String, flags: RenameFlags, error: FileError) throws {
    var cell = tree()
    func resolve(_ path: String) throws -> (InodeID, [UInt8]) {
        let parts = path.split(separator: "/").map(String.init)
        var parent = InodeID.root
        for part in parts.dropLast() { parent = try #require(cell.find(part, in: parent)) }
        return (parent, [UInt8](name: try #require(parts.last)))
    }
    let source = try resolve(from)
    let target = try resolve(to)
    let attributes = cell.attributes(.root)
    cell.fails(
        error,
        .rename(
            parent: source.0, name: source.1, newParent: target.0, newName: target.1,
            flags: flags, holders: []))
    #expect(cell.attributes(.root) == attributes)
    #expect(cell.names() == ["a", "e", "x", "y", "z"])
    cell.expectEqualTwins()
}

@Test("Two names of one file stay both")
func renameSameInode() {
    var cell = tree()
    let before = cell.attributes(.root)
    #expect(cell.rename("y", "z") == .done)
    #expect(cell.rename("x", "x") == .done)
    #expect(cell.rename("y", "z", flags: .exchange) == .done)
    #expect(cell.names() == ["a", "e", "x", "y", "z"])
    #expect(cell.attributes(.root) == before)
}

@Test("A directory that moves takes its parent and the links along")
func renameDirectory() throws {
    var cell = tree()
    let a = try #require(cell.find("a"))
    let b = try #require(cell.find("b", in: a))
    let e = try #require(cell.find("e"))
    #expect(cell.rename("b", "c", from: a, to: e) == .done)
    #expect(try cell.namespace.parent(of: b) == e)
    #expect(cell.attributes(a)?.links == 2 && cell.attributes(e)?.links == 3)
    for inode in [a, b, e] { #expect(cell.attributes(inode)?.changed == cell.now) }
    #expect(cell.attributes(a)?.modified == cell.now)
    #expect(cell.attributes(b)?.modified != cell.now)
    // Over an empty directory.
    #expect(cell.rename("c", "a2", from: e, to: .root) == .done)
    #expect(cell.rename("a2", "e") == .done)
    #expect(cell.find("e") == b)
    #expect(cell.attributes(e) == nil)
    #expect(cell.attributes(.root)?.links == 4)
    #expect(try cell.namespace.parent(of: b) == .root)
    #expect(try cell.namespace.parent(of: .root) == .root)
    // Now b is at /e: a may go below it, and then not the other way round.
    #expect(cell.rename("a", "a", from: .root, to: b) == .done)
    #expect(cell.rename("e", "e", from: .root, to: a) == .failed(.invalid))
    cell.expectEqualTwins()
}

@Test("Exchange swaps a file and a directory across directories")
func renameExchange() throws {
    var cell = tree()
    let a = try #require(cell.find("a"))
    let b = try #require(cell.find("b", in: a))
    let x = try #require(cell.find("x"))
    #expect(cell.rename("b", "x", from: a, to: .root, flags: .exchange) == .done)
    #expect(cell.find("b", in: a) == x && cell.find("x") == b)
    #expect(cell.attributes(a)?.links == 2)
    #expect(cell.attributes(.root)?.links == 5)
    #expect(try cell.namespace.parent(of: b) == .root)
    #expect(cell.attributes(a)?.size == 2)
    for inode in [a, b, x, .root] { #expect(cell.attributes(inode)?.changed == cell.now) }
    cell.expectEqualTwins()
}

@Test("A replaced file loses a link; the last one frees it or leaves it to its holders")
func renameReplaces() throws {
    var cell = tree()
    let x = try #require(cell.find("x"))
    let y = try #require(cell.find("y"))
    #expect(cell.rename("x", "y") == .done)
    #expect(cell.attributes(y)?.links == 1)
    #expect(cell.attributes(y)?.changed == cell.now)
    #expect(cell.rename("y", "z", holders: [cell.session]) == .done)
    #expect(cell.attributes(y)?.links == 0)
    #expect(cell.namespace.orphans(of: cell.session) == [y])
    #expect(cell.find("z") == x)
    cell.create("w")
    #expect(cell.rename("w", "z") == .done)
    #expect(cell.attributes(x) == nil)
    #expect(cell.names() == ["a", "e", "z"])
    cell.expectEqualTwins()
}
