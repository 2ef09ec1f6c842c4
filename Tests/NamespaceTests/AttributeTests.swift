// Attributes and extended attributes.

import Base
import Namespace
import Testing

@Test("Setting attributes changes what is named, and the time of change")
func setAttributes() throws {
    var cell = Cell()
    let file = cell.create("file")
    let created = cell.now
    var changes = AttributeChanges()
    #expect(
        cell.change(.setAttributes(file, changes)) == .entry(try #require(cell.attributes(file))))
    #expect(cell.attributes(file)?.changed == created)
    changes.mode = 0o7777
    changes.accessed = .at(Timestamp(nanoseconds: -5))
    changes.modified = .now
    cell.succeeds(.setAttributes(file, changes))
    let found = try #require(cell.attributes(file))
    #expect(found.mode == 0o7777)
    #expect(found.accessed == Timestamp(nanoseconds: -5))
    #expect(found.modified == cell.now && found.changed == cell.now)
    #expect(found.user == 10 && found.group == 20)
    changes.mode = 0o10000
    cell.fails(.invalid, .setAttributes(file, changes))
    cell.fails(.stale, .setAttributes(InodeID(slot: 50, generation: 0), AttributeChanges()))
    let link = cell.create("link", .symlink)
    changes.mode = 0o600
    cell.fails(.notSupported, .setAttributes(link, changes))
}

@Test(
    "A new owner or group clears set-uid, and set-gid where the group may execute",
    arguments: [
        (FileKind.file, UInt16(0o6755), UInt16(0o0755)), (.file, 0o6644, 0o2644),
        (.file, 0o1755, 0o1755), (.directory, 0o6755, 0o6755),
    ])
func changeOwner(kind: FileKind, before: UInt16, after: UInt16) {
    for owner in [true, false] {
        var cell = Cell()
        let inode = cell.create("n", kind, mode: before)
        var changes = AttributeChanges()
        if owner { changes.user = 10 } else { changes.group = 5 }
        cell.succeeds(.setAttributes(inode, changes))
        #expect(cell.attributes(inode)?.mode == after)
        changes.mode = 0o6755
        cell.succeeds(.setAttributes(inode, changes))
        #expect(cell.attributes(inode)?.mode == 0o6755, "an explicit mode counts")
    }
}

@Test("Extended attributes keep their flags and bounds")
func extendedAttributes() throws {
    var cell = Cell()
    let file = cell.create("file")
    let name = [UInt8](name: "user.b")
    func set(_ name: [UInt8], _ value: [UInt8], _ flags: ExtendedFlags = []) -> Change {
        .setExtendedAttribute(file, name: name, value: value, flags: flags)
    }
    cell.fails(.noAttribute, set(name, [1], .replace))
    cell.succeeds(set(name, [1], .create))
    #expect(cell.attributes(file)?.changed == cell.now)
    cell.fails(.exists, set(name, [2], .create))
    cell.succeeds(set(name, [2], .replace))
    cell.succeeds(set([UInt8](name: "user.a"), []))
    #expect(try cell.namespace.extendedAttribute(file, name) == [2])
    #expect(
        try cell.namespace.extendedAttributes(file).map { String(decoding: $0, as: UTF8.self) }
            == ["user.a", "user.b"])
    cell.fails(.range, set([], [1]))
    cell.fails(.range, set(Array(repeating: 1, count: 256), [1]))
    cell.fails(.invalid, set([1, 0], [1]))
    cell.fails(.invalid, set(name, [1], ExtendedFlags(rawValue: 4)))
    cell.fails(.listTooLong, set(name, Array(repeating: 1, count: (64 << 10) + 1)))
    cell.fails(.noSpace, set([UInt8](name: "user.c"), Array(repeating: 1, count: 64 << 10)))
    #expect(try cell.namespace.extendedAttributes(file).count == 2)
    cell.succeeds(.removeExtendedAttribute(file, name: name))
    cell.fails(.noAttribute, .removeExtendedAttribute(file, name: name))
    #expect(throws: FileError.noAttribute) {
        try cell.namespace.extendedAttribute(file, name)
    }
    // They go with the inode and do not come back with its slot.
    #expect(cell.unlink("file") == .done)
    let next = cell.create("next")
    #expect(next.slot == file.slot)
    #expect(try cell.namespace.extendedAttributes(next).isEmpty)
    #expect(throws: FileError.stale) { try cell.namespace.extendedAttributes(file) }
    cell.expectEqualTwins()
}

@Test("The log's time never goes back, whatever a leader's clock says (M14)")
func logTime() {
    var cell = Cell()
    let future = Timestamp(nanoseconds: 5_000_000)
    _ = cell.run(.tick, at: future)
    let file = cell.create("file")
    #expect(cell.attributes(file)?.modified == future)
    _ = cell.run(.tick, at: Timestamp(nanoseconds: .min))
    _ = cell.run(.tick, at: Timestamp(nanoseconds: .max))
    #expect(cell.open(nonce: 9) != .none)
    cell.expectEqualTwins()
}
