// Sizes, places of chunks, cuts and drops (DESIGN 3.3, Size and Layout).

import Base
import Namespace
import Testing

private let chunk = UInt64(Limits.chunk)

@Test("A file gets its first chunk's place at once, or none from an unknown set")
func firstChunk() throws {
    var cell = Cell()
    let file = cell.create("file", set: cell.sets[1])
    let layout = try cell.namespace.layout(file, first: 0, count: 16)
    let first = ChunkID(inode: file, index: 0, version: 0)
    #expect(layout.chunks == [LayoutChunk(chunk: first, set: cell.sets[1])])
    #expect(cell.namespace.set(cell.sets[1])?.chunks == 1)
    let resolved = cell.namespace.resolve(layout) { $0.id == DiskID(rawValue: 2) }
    #expect(resolved.sets.map(\.configuration.set) == [cell.sets[1]])
    #expect(resolved.sets[0].locations.map(\.isUp) == [false, true, false])
    let other = cell.create("other", set: SetID(rawValue: 99))
    #expect(try cell.namespace.layout(other, first: 0, count: 16).chunks.isEmpty)
    #expect(try cell.namespace.layout(.root, first: 0, count: 16).chunks.isEmpty)
}

@Test("Allocation gives places once, within bounds, and only in sets that are there")
func allocation() throws {
    var cell = Cell()
    let file = cell.create("file", set: cell.sets[0])
    let layout = cell.allocate(file, 0, [cell.sets[1], cell.sets[2]])
    #expect(layout?.chunks.map(\.set) == [cell.sets[0], cell.sets[2]])
    #expect(cell.allocate(file, 1, [cell.sets[0], cell.sets[0]])?.chunks.count == 2)
    #expect(try cell.namespace.layout(file, first: 1, count: 1).chunks.map(\.set) == [cell.sets[2]])
    let before = cell.namespace.digest()
    #expect(
        cell.change(.allocate(file, first: 3, sets: [cell.sets[0], SetID(rawValue: 9)])) == .retry)
    #expect(cell.namespace.digest() != before, "time went on")
    #expect(try cell.namespace.layout(file, first: 3, count: 9).chunks.isEmpty)
    cell.fails(.invalid, .allocate(file, first: 0, sets: []))
    cell.fails(.invalid, .allocate(file, first: 0, sets: Array(repeating: cell.sets[0], count: 17)))
    cell.fails(.tooLarge, .allocate(file, first: 262_143, sets: [cell.sets[0], cell.sets[0]]))
    cell.fails(.tooLarge, .allocate(file, first: .max, sets: [cell.sets[0]]))
    #expect(cell.allocate(file, 262_143, [cell.sets[0]])?.chunks.count == 1)
    cell.fails(.isDirectory, .allocate(.root, first: 0, sets: [cell.sets[0]]))
}

@Test("Extend only grows, under the present truncation number, with a clamped time")
func extend() throws {
    var cell = Cell()
    let file = cell.create("file", set: cell.sets[0])
    func extend(_ end: UInt64, _ truncation: UInt32, _ modified: Int64) -> Change {
        .extend([
            FileEnd(
                inode: file, end: end, truncation: truncation,
                modified: Timestamp(nanoseconds: modified))
        ])
    }
    cell.succeeds(extend(500, 0, .max))
    #expect(cell.attributes(file)?.size == 500)
    #expect(cell.attributes(file)?.modified == cell.now, "no time of writing after the log's")
    let modified = cell.now
    cell.succeeds(extend(100, 0, 3))
    #expect(cell.attributes(file)?.size == 500)
    #expect(cell.attributes(file)?.modified == modified, "a late report of an earlier write")
    #expect(cell.attributes(file)?.changed == cell.now)
    cell.succeeds(.truncate(file, size: 200))
    let attributes = try #require(cell.attributes(file))
    let layout = try cell.namespace.layout(file, first: 0, count: 0)
    #expect(layout.truncation == 1 && layout.cuts.count == 1)
    #expect(cell.change(extend(900, 0, 5)) == .extended([.outdated(attributes, layout)]))
    #expect(cell.attributes(file)?.size == 200)
    cell.succeeds(extend(900, 1, 5))
    #expect(cell.attributes(file)?.size == 900)
    #expect(cell.change(extend(Limits.fileSize + 1, 1, 0)) == .extended([.failed(.tooLarge)]))
    var changes = AttributeChanges()
    changes.modified = .at(Timestamp(nanoseconds: 1 << 60))
    cell.succeeds(.setAttributes(file, changes))
    cell.succeeds(extend(1, 1, 7))
    #expect(cell.attributes(file)?.modified == Timestamp(nanoseconds: 7))
    #expect(cell.namespace.counts.fileBytes == 900)
}

@Test("One extend tells of many files, in order, and each has an answer of its own")
func extendMany() throws {
    var cell = Cell()
    let good = cell.create("good", set: cell.sets[0])
    let old = cell.create("old", set: cell.sets[0])
    let gone = cell.create("gone")
    cell.extend(old, to: 1_000)
    cell.succeeds(.truncate(old, size: 10))
    #expect(cell.unlink("gone") == .done)
    func end(_ inode: InodeID, _ end: UInt64, _ modified: Int64 = 1) -> FileEnd {
        FileEnd(
            inode: inode, end: end, truncation: 0, modified: Timestamp(nanoseconds: modified))
    }
    let attributes = try #require(cell.attributes(old))
    let layout = try cell.namespace.layout(old, first: 0, count: 0)
    let set = SetNumber(set: cell.sets[2], number: RecordNumber(rawValue: 4))
    let change = Change.extend(
        [end(gone, 5), end(good, 50), end(old, 700), end(.root, 1), end(good, 40, .max)],
        numbers: [set])
    let request = Command.Action.client(
        cell.open(nonce: 2), number: RequestNumber(rawValue: 1),
        firstIncomplete: RequestNumber(rawValue: 1), change)
    let outcome = cell.run(request)
    guard case .extended(let outcomes) = outcome, outcomes.count == 5 else {
        Issue.record("\(outcome)")
        return
    }
    #expect(outcomes[0] == .failed(.stale) && outcomes[3] == .failed(.isDirectory))
    #expect(outcomes[2] == .outdated(attributes, layout))
    #expect(cell.attributes(old) == attributes)
    // The second part about a file sees the first.
    let grown = try #require(cell.attributes(good))
    #expect(grown.size == 50 && grown.modified == cell.now)
    #expect(outcomes[4] == .done(grown))
    #expect(outcomes[1] != outcomes[4])
    #expect(cell.namespace.setView(cell.sets[2]) { _ in true }?.number == set.number)
    // Repeated, it has the same answers, whatever happened since, and changes nothing (M12).
    #expect(cell.unlink("old") == .done)
    cell.succeeds(.truncate(good, size: 20))
    #expect(cell.run(request) == outcome)
    #expect(cell.attributes(good)?.size == 20)
    cell.fails(.invalid, .extend([]))
    let many = Array(repeating: end(good, 1), count: Limits.extendedFiles + 1)
    cell.fails(.invalid, .extend(many))
    cell.succeeds(.extend(many.dropLast()))
    cell.expectEqualTwins()
}

@Test("Truncate down drops what is beyond, cuts the chunk it goes through, and raises the number")
func truncateDown() throws {
    var cell = Cell()
    let file = cell.create("file", set: cell.sets[0])
    _ = cell.allocate(file, 0, Array(repeating: cell.sets[1], count: 4))
    cell.extend(file, to: 4 * chunk)
    let outcome = cell.change(.truncate(file, size: chunk + 10))
    let cut = Cut(truncation: 1, size: chunk + 10)
    let layout = try cell.namespace.layout(file, first: 0, count: 16)
    #expect(outcome == .opened(try #require(cell.attributes(file)), layout))
    #expect(layout.cuts == [cut])
    #expect(layout.chunks.map(\.chunk.index) == [0, 1])
    let order = PendingCut(
        set: cell.sets[1], chunk: ChunkID(inode: file, index: 1, version: 0), truncation: 1,
        from: 10)
    #expect(cell.namespace.pendingCuts(limit: 10) { _ in true } == [order])
    #expect(cell.namespace.pendingCuts(limit: 10) { _ in false }.isEmpty)
    // Dropped chunks become orders with the next tick, and come back under a new version.
    #expect(cell.namespace.pendingDrops(limit: 10) { _ in true }.isEmpty)
    _ = cell.run(.tick)
    let drops = cell.namespace.pendingDrops(limit: 10) { _ in true }
    #expect(drops.map(\.chunks) == [[2, 3].map { ChunkID(inode: file, index: $0, version: 0) }])
    let again = cell.allocate(file, 1, [cell.sets[2], cell.sets[2]])
    #expect(again?.chunks.map(\.chunk.version) == [0, 1])
    // To 0 everything goes, the cut too.
    cell.succeeds(.truncate(file, size: 0))
    #expect(try cell.namespace.layout(file, first: 0, count: 16).cuts.isEmpty)
    #expect(try cell.namespace.layout(file, first: 0, count: 16).chunks.isEmpty)
    #expect(cell.namespace.pendingCounts == (5, 0))
    cell.expect(.done, .confirmCuts([order]))
    // Growing is no truncation, and neither is the present size.
    cell.succeeds(.truncate(file, size: 5 * chunk))
    cell.succeeds(.truncate(file, size: 5 * chunk))
    #expect(try cell.namespace.layout(file, first: 0, count: 1).truncation == 2)
    #expect(cell.attributes(file)?.size == 5 * chunk)
    cell.fails(.tooLarge, .truncate(file, size: Limits.fileSize + 1))
    cell.fails(.isDirectory, .truncate(.root, size: 0))
    cell.fails(.invalid, .truncate(cell.create("fifo", .fifo), size: 0))
    cell.expectEqualTwins()
}

@Test("A fifth unconfirmed cut waits; shorter truncations make longer ones needless")
func manyCuts() throws {
    var cell = Cell()
    let file = cell.create("file", set: cell.sets[0])
    var cuts: [PendingCut] { cell.namespace.pendingCuts(limit: 100) { _ in true } }
    for round in 1...4 as ClosedRange<UInt32> {
        cell.extend(file, to: 1_000, truncation: round - 1)
        cell.succeeds(.truncate(file, size: UInt64(round) * 100))
    }
    #expect(cuts.map(\.from) == [100, 200, 300, 400])
    cell.extend(file, to: 1_000, truncation: 4)
    let attributes = cell.attributes(file)
    #expect(cell.change(.truncate(file, size: 500)) == .retry)
    #expect(cell.attributes(file) == attributes)
    // A confirmed cut makes room; confirming twice or something unknown does nothing.
    let second = cuts[1]
    cell.expect(.done, .confirmCuts([second, second]))
    #expect(cuts.map(\.from) == [100, 300, 400])
    cell.succeeds(.truncate(file, size: 500))
    cell.succeeds(.truncate(file, size: 250))
    #expect(cuts.map(\.from) == [100, 250])
    #expect(try cell.namespace.layout(file, first: 0, count: 1).cuts.map(\.truncation) == [1, 6])
    #expect(cell.unlink("file") == .done)
    #expect(cuts.isEmpty)
    cell.expectEqualTwins()
}

@Test("A truncated hole leaves no cut")
func cutThroughHole() throws {
    var cell = Cell()
    let file = cell.create("file")
    cell.extend(file, to: 900)
    cell.succeeds(.truncate(file, size: 100))
    #expect(try cell.namespace.layout(file, first: 0, count: 1).truncation == 1)
    #expect(cell.namespace.pendingCounts == (0, 0))
}

@Test("Drops are batched by set, numbered, and stay until they are confirmed (S6)")
func drops() {
    var cell = Cell()
    for index in 0..<300 {
        cell.create("f\(index)", set: cell.sets[index % 2])
    }
    for index in 0..<300 { #expect(cell.unlink("f\(index)") == .done) }
    _ = cell.run(.tick)
    var drops = cell.namespace.pendingDrops(limit: 100) { _ in true }
    #expect(drops.map(\.chunks.count) == [128, 22, 128, 22])
    #expect(drops.map(\.set.rawValue) == [1, 1, 2, 2])
    #expect(drops.map(\.order) == [1, 2, 3, 4])
    let second = cell.namespace.pendingDrops(limit: 100) { $0.configuration.set == cell.sets[1] }
    #expect(second.map(\.order) == [3, 4])
    #expect(cell.namespace.pendingDrops(limit: 3) { _ in true }.count == 3)
    #expect(cell.namespace.set(cell.sets[0])?.chunks == 150)
    cell.expect(.done, .confirmDrops([1, 3, 3, 77]))
    #expect(cell.namespace.set(cell.sets[0])?.chunks == 22)
    drops = cell.namespace.pendingDrops(limit: 100) { _ in true }
    #expect(drops.map(\.order) == [2, 4])
    cell.expect(.done, .confirmDrops([2, 4]))
    #expect(cell.namespace.setRecords.map(\.chunks) == [0, 0, 0])
    #expect(cell.namespace.pendingCounts == (0, 0))
    cell.expectEqualTwins()
}

@Test("Many sparse files of the largest size do not overflow the sum")
func hugeSum() {
    var cell = Cell()
    for index in 0..<5 {
        let file = cell.create("f\(index)")
        cell.succeeds(.truncate(file, size: Limits.fileSize))
    }
    #expect(cell.namespace.counts.fileBytes == 5 * Limits.fileSize)
    for index in 0..<5 { _ = cell.unlink("f\(index)") }
    #expect(cell.namespace.counts.fileBytes == 0)
}
