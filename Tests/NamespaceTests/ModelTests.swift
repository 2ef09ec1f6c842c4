// Random changes by several sessions, against the reference tree.

import Base
import Namespace
import Testing

/// Draws changes that are mostly sensible: few names, few directories, so that they collide.
private struct Workload {
    var random: SeededRandom
    var model = TreeModel()
    var cell = Cell()
    /// Every inode ever seen, the dead ones too.
    var inodes: [InodeID] = [.root]

    private mutating func pick<Item>(_ items: [Item]) -> Item {
        items[random.below(items.count)]
    }
    private mutating func name() -> [UInt8] { [UInt8](name: "n\(random.below(14))") }
    private mutating func inode() -> InodeID {
        inodes[max(0, inodes.count - 1 - random.below(min(inodes.count, 60)))]
    }
    private mutating func directory() -> InodeID {
        if random.chance(1, of: 30) { return inode() }
        let found = inodes.filter { model.nodes[$0]?.kind == .directory }
        return random.chance(1, of: 3) ? .root : pick(found)
    }
    private mutating func holders() -> [SessionID] {
        random.chance(1, of: 3) ? [cell.session] : []
    }

    private mutating func change() -> Change {
        switch random.below(20) {
        case 0...5:
            let kinds: [FileKind] = [.file, .file, .file, .directory, .directory, .directory]
            let kind = random.chance(1, of: 8) ? pick(FileKind.allCases) : pick(kinds)
            return .create(
                Creation(
                    parent: directory(), name: name(), kind: kind,
                    mode: pick([0o644, 0o2775, 0o6755]), user: 1, group: 2, device: 3,
                    target: kind == .symlink ? name() : [],
                    set: random.chance(1, of: 2) ? pick(cell.sets) : nil))
        case 6: return .link(inode(), parent: directory(), name: name())
        case 7...8: return .unlink(parent: directory(), name: name(), holders: holders())
        case 9: return .removeDirectory(parent: directory(), name: name())
        case 10...13:
            return .rename(
                parent: directory(), name: name(), newParent: directory(), newName: name(),
                flags: pick([[], [], .noReplace, .exchange]), holders: holders())
        case 14:
            var changes = AttributeChanges()
            if random.chance(1, of: 2) { changes.mode = UInt16(random.below(0o10000)) }
            if random.chance(1, of: 2) { changes.user = 9 }
            if changes == AttributeChanges() { changes.user = 8 }
            return .setAttributes(inode(), changes)
        default: return contentChange()
        }
    }

    private mutating func contentChange() -> Change {
        let size = UInt64(random.below(6)) * UInt64(Limits.chunk) / 2
        switch random.below(6) {
        case 0: return .truncate(inode(), size: size)
        case 1:
            return .extend(
                (0...random.below(4)).map { index in
                    let inode = inode()
                    let present = model.nodes[inode]?.truncation ?? 0
                    return FileEnd(
                        inode: inode, end: size * UInt64(index + 1) / 3,
                        truncation: random.chance(1, of: 8) ? present + 1 : present,
                        modified: Timestamp(nanoseconds: .max))
                })
        case 2:
            let sets = (0...random.below(3)).map { _ in pick(cell.sets) }
            return .allocate(inode(), first: UInt32(random.below(3)), sets: sets)
        case 3:
            return .setExtendedAttribute(inode(), name: name(), value: name(), flags: [])
        case 4: return .removeExtendedAttribute(inode(), name: name())
        default: return .releaseOrphans([inode(), inode()])
        }
    }

    mutating func step() {
        let change = change()
        // The model has no bound on cuts: confirm them all before each truncation.
        if case .truncate = change {
            let cuts = cell.namespace.pendingCuts(limit: .max) { _ in true }
            _ = cell.run(.confirmCuts(cuts))
        }
        let outcome = cell.change(change)
        model.now = cell.namespace.time
        var created: InodeID?
        if case .created(let attributes, _) = outcome {
            created = attributes.inode
            #expect(!inodes.contains(attributes.inode), "an inode id was reissued")
            inodes.append(attributes.inode)
        }
        let error = model.apply(change, created: created, session: cell.session)
        if case .extended(let outcomes) = outcome {
            let errors = outcomes.map { outcome -> FileError? in
                if case .failed(let error) = outcome { error } else { nil }
            }
            #expect(errors == model.extendErrors, "\(change)")
        }
        if case .failed(let found) = outcome {
            #expect(found == error, "\(change)")
        } else {
            #expect(error == nil, "\(change): \(outcome)")
            #expect(outcome != .retry)
        }
        if random.chance(1, of: 40) { _ = cell.run(.tick) }
    }

    mutating func compare() {
        for inode in inodes {
            #expect(cell.attributes(inode) == model.attributes(inode))
            guard let node = model.nodes[inode] else { continue }
            if node.kind == .directory {
                let page = try? cell.namespace.readDirectory(
                    inode, after: 0, limit: 1_000, withAttributes: false)
                let found = page?.entries.map { ($0.name, $0.inode) } ?? []
                #expect(Dictionary(found) { first, _ in first } == node.children)
                #expect(found.count == node.children.count)
                for (name, child) in node.children {
                    #expect((try? cell.namespace.lookup(inode, name))?.inode == child)
                    if model.nodes[child]?.kind == .directory {
                        #expect((try? cell.namespace.parent(of: child)) == inode)
                    }
                }
            }
            compareContent(inode, node)
        }
    }

    private mutating func compareContent(_ inode: InodeID, _ node: TreeModel.Node) {
        let names = (try? cell.namespace.extendedAttributes(inode)) ?? []
        #expect(names == node.extended.keys.sorted { $0.lexicographicallyPrecedes($1) })
        for (name, value) in node.extended {
            #expect((try? cell.namespace.extendedAttribute(inode, name)) == value)
        }
        let layout = try? cell.namespace.layout(inode, first: 0, count: 100)
        #expect(layout?.truncation == node.truncation)
        let expected = node.chunks.sorted { $0.key < $1.key }.map { index, place in
            LayoutChunk(
                chunk: ChunkID(inode: inode, index: index, version: place.version),
                set: place.set)
        }
        #expect(layout?.chunks == expected)
    }
}

@Test("Random changes do what the reference tree does", arguments: 1...8 as ClosedRange<UInt64>)
func randomChanges(seed: UInt64) throws {
    var workload = Workload(random: SeededRandom(seed: seed))
    for round in 1...1_500 {
        workload.step()
        if round % 300 == 0 { workload.compare() }
    }
    workload.cell.expectEqualTwins()

    // At the end every chunk that ever left its file is in exactly one order, and goes.
    _ = workload.cell.run(.tick)
    let namespace = workload.cell.namespace
    let drops = namespace.pendingDrops(limit: .max) { _ in true }
    #expect(drops.allSatisfy { $0.chunks.count <= Record.chunksPerDrop })
    #expect(drops.flatMap(\.chunks).sorted() == workload.model.dropped.sorted())
    #expect(Set(workload.model.dropped).count == workload.model.dropped.count)
    #expect(!workload.model.dropped.isEmpty)
    _ = workload.cell.run(.confirmDrops(drops.map(\.order)))
    let kept = workload.model.nodes.values.reduce(0) { $0 + $1.chunks.count }
    #expect(workload.cell.namespace.setRecords.reduce(0) { $0 + Int($1.chunks) } == kept)
    #expect(
        workload.cell.namespace.counts.files + workload.cell.namespace.counts.directories
            == UInt64(workload.model.nodes.count))
}

@Test("A copy of the state stays as it was while the original goes on")
func snapshots() {
    var workload = Workload(random: SeededRandom(seed: 99))
    for _ in 0..<500 { workload.step() }
    let copy = workload.cell.namespace
    let digest = copy.digest()
    for _ in 0..<500 { workload.step() }
    #expect(copy.digest() == digest)
    #expect(workload.cell.namespace.digest() != digest)
}

// MARK: Snapshots

private func encode(_ state: Namespace, items: Int = 1_000) -> [[UInt8]] {
    var encoder = SnapshotEncoder(state)
    var blocks: [[UInt8]] = []
    while true {
        switch encoder.advance(items: items) {
        case .more: break
        case .block(let block): blocks.append(block)
        case .end: return blocks
        }
    }
}
private func decode(_ blocks: [[UInt8]]) throws -> Namespace {
    var decoder = SnapshotDecoder()
    for block in blocks { try decoder.add(block[...]) }
    return try decoder.finish()
}

@Test(
    "A snapshot is the state: it goes on as the original does",
    arguments: 1...6 as ClosedRange<UInt64>)
func snapshotRoundTrip(seed: UInt64) throws {
    var workload = Workload(random: SeededRandom(seed: seed))
    for _ in 1...6 {
        for _ in 0..<150 { workload.step() }
        let blocks = encode(workload.cell.namespace)
        #expect(blocks.allSatisfy { (1...Limits.snapshotBlock).contains($0.count) })
        // Where blocks end does not depend on the pace.
        #expect(encode(workload.cell.namespace, items: 1) == blocks)
        let copy = try decode(blocks)
        #expect(copy.digest() == workload.cell.namespace.digest())
        #expect(copy.counts == workload.cell.namespace.counts)
        #expect(encode(copy) == blocks)
        workload.cell.replace(with: copy)
    }
    for _ in 0..<300 { workload.step() }
    workload.compare()
    workload.cell.expectEqualTwins()
}

@Test("The replies that a session may ask for again are in the snapshot (M12)")
func snapshotReplies() throws {
    var cell = Cell()
    let creation = Creation(parent: .root, name: [UInt8](name: "once"), kind: .file, mode: 0o644)
    let outcome = cell.change(.create(creation))
    guard case .created = outcome else {
        Issue.record("not created: \(outcome)")
        return
    }
    cell.replace(with: try decode(encode(cell.namespace)))
    let again = Command.Action.client(
        cell.session, number: cell.number, firstIncomplete: cell.number, .create(creation))
    #expect(cell.run(again) == outcome)
}

@Test("A snapshot of many blocks comes back, and a copy costs little when the state changes")
func snapshotBlocks() throws {
    var cell = Cell()
    let parent = cell.create("many", .directory)
    for index in 0..<12_000 {
        cell.create("a name that is somewhat longer than most of them are \(index)", in: parent)
    }
    let blocks = encode(cell.namespace)
    #expect(blocks.count > 1)
    #expect(try decode(blocks).digest() == cell.namespace.digest())
    #expect(throws: DecodeError.self) { try decode(Array(blocks.dropLast())) }
    #expect(throws: DecodeError.self) { try decode(Array(blocks.dropFirst())) }
    #expect(throws: DecodeError.self) { try decode(blocks + [blocks[1]]) }
}

@Test("A directory of a million names is read to its end, over deletes and another leader")
func millionNames() throws {
    let count = 1_000_000
    var cell = Cell()
    let directory = cell.create("many", .directory)
    var state = cell.namespace
    var number = cell.number
    var slot = cell.slot
    func name(_ index: Int) -> [UInt8] { Array("name-\(index)".utf8) }
    func apply(_ change: Change) -> Outcome {
        number = number.next
        slot = slot.next
        let action = Command.Action.client(
            cell.session, number: number, firstIncomplete: number, change)
        return state.apply(Command(time: cell.now, action: action), slot: slot)
    }
    for index in 0..<count {
        let made = apply(
            .create(Creation(parent: directory, name: name(index), kind: .file, mode: 0o644)))
        guard case .created = made else { throw Unexpected(outcome: made) }
    }
    var seen = [UInt8](repeating: 0, count: count)
    var isDeleted = [Bool](repeating: false, count: count)
    var random = SeededRandom(seed: 5)
    var cookie: UInt64 = 0
    var pages = 0
    while true {
        let page = try state.readDirectory(
            directory, after: cookie, limit: UInt32(Limits.directoryPage), withAttributes: false)
        for entry in page.entries {
            let digits = String(decoding: entry.name.dropFirst(5), as: UTF8.self)
            seen[try #require(Int(digits))] += 1
        }
        if page.atEnd { break }
        cookie = try #require(page.entries.last).cookie
        pages += 1
        for _ in 0..<20 {
            let victim = random.below(count)
            if isDeleted[victim] { continue }
            isDeleted[victim] = true
            #expect(apply(.unlink(parent: directory, name: name(victim), holders: [])) == .done)
        }
        // Another leader, which started from a snapshot, goes on.
        if pages % 300 == 0 { state = try decode(encode(state)) }
    }
    #expect(pages > 900)
    #expect(!seen.contains { $0 > 1 })
    #expect(!zip(seen, isDeleted).contains { seen, deleted in seen == 0 && !deleted })
}

private struct Unexpected: Error { var outcome: Outcome }

@Test("Damaged snapshots are refused or give a sound state, and never end the process")
func snapshotFuzz() throws {
    var workload = Workload(random: SeededRandom(seed: 7))
    for _ in 0..<400 { workload.step() }
    let block = encode(workload.cell.namespace)[0]
    var random = SeededRandom(seed: 8)
    var refused = 0
    for _ in 0..<4_000 {
        var bytes = block
        for _ in 0...random.below(3) {
            let place = random.below(bytes.count)
            switch random.below(3) {
            case 0: bytes[place] ^= 1 << UInt8(random.below(8))
            case 1: bytes[place] = [0, 1, 0xFF][random.below(3)]
            default: bytes.removeSubrange(place..<min(bytes.count, place + 1 + random.below(40)))
            }
        }
        guard let state = try? decode([bytes]) else {
            refused += 1
            continue
        }
        _ = state.digest()
    }
    #expect(refused > 1_000)
}
