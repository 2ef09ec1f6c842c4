// Dumps of the masters' state: what is refused, and cells that start from one.

import Base
import Master
import Namespace
import Node
import Store
import Testing
import Wire

private let masters = (0..<3).map { index in
    MasterAddress(
        id: MasterID(rawValue: UInt16(index + 1)),
        address: PeerAddress(network: "127.0.0.1:\(9_000 + index)", socket: "", machine: ""))
}

/// As `martlet meta dump` does.
private func written(_ group: MasterGroup) -> [UInt8]? {
    func part(_ part: SnapshotPart, _ mark: SnapshotMark) -> [UInt8]? {
        var bytes: [UInt8] = []
        while true {
            let query = MetadataQuery.part(mark, part, offset: UInt32(bytes.count))
            guard case .part(let length, let page)? = group.query(query) else { return nil }
            bytes += page
            if bytes.count >= Int(length) { return bytes }
        }
    }
    guard let slot = group.status()?.applied,
        case .snapshot(let mark)? = group.query(.snapshot(since: slot)), mark.slot >= slot,
        let bytes = part(.plan, mark), let plan = try? SnapshotPlan(decoding: bytes[...])
    else { return nil }
    let cell = CellID(high: 1, low: 2)
    var all = DumpHeader(cell: cell, plan: plan, written: Timestamp(nanoseconds: 7)).bytes + bytes
    for number in plan.blocks.indices {
        guard let block = part(SnapshotPart(rawValue: UInt32(number)), mark) else { return nil }
        all += block
    }
    return all
}

private func read(_ bytes: [UInt8]) throws(DumpFault) -> MetadataDump {
    var rest = bytes[...]
    return try MetadataDump { count in
        defer { rest = rest.dropFirst(count) }
        return Array(rest.prefix(count))
    }
}
private func fault(_ bytes: [UInt8]) -> String {
    do throws(DumpFault) { _ = try read(bytes) } catch { return "\(error)" }
    return ""
}

/// A disk with the folder of a master that starts from it.
private func folder(_ dump: MetadataDump, _ index: Int) -> MemoryDisk {
    var disk = MemoryDisk()
    var maker = MasterFolder(
        dump, id: masters[index].id, masters: masters, disk: DiskID(rawValue: 900 + UInt64(index)),
        segmentSize: 64 << 10, inventory: disk.inventory)
    var effects = maker.start()
    while let effect = effects.first {
        effects.removeFirst()
        guard let result = disk.perform(effect) else { break }
        effects += maker.completed(effect.operation, result)
    }
    #expect(maker.failure == nil && maker.isDone)
    return disk
}

/// A cell with 100 files, and its dump.
private func filled() throws -> (group: MasterGroup, session: SessionID, bytes: [UInt8]) {
    let group = MasterGroup(masters: 3, servers: 3, segmentSize: 64 << 10, trashTime: .zero)
    let session = try #require(group.openSession(1))
    #expect(group.run { !($0.servers[0].sets.isEmpty) })
    for number in 1...100 {
        #expect(group.create(session, UInt64(number), "file-\(number)") != nil)
    }
    return (group, session, try #require(written(group)))
}

@Test("A dump that was cut, altered or added to is refused, with the part that is wrong")
func dumpsAreChecked() throws {
    let (_, _, bytes) = try filled()
    let whole = try read(bytes)
    #expect(whole.state.counts.files == 100 && whole.masterIDs.count == 3)
    let plan = DumpHeader.size + Int(whole.header.plan)
    for (length, reason) in [
        (0, "no dump"), (3, "no dump"), (50, "within its header"), (127, "within its header"),
        (128, "within its plan"), (plan - 1, "within its plan"), (plan, "within block 0"),
        (plan + 1_000, "within block 0"), (bytes.count - 1, "within block"),
    ] { #expect(fault(Array(bytes.prefix(length))).contains(reason), "\(length)") }
    #expect(fault(bytes + [0]).contains("follows its end"))
    func flipped(_ offset: Int) -> String {
        var bytes = bytes
        bytes[offset] ^= 1
        return fault(bytes)
    }
    for offset in 0..<DumpHeader.size {
        let reason = offset < 4 ? "no dump" : "its header"
        #expect(flipped(offset).contains(reason), "byte \(offset)")
    }
    for offset in DumpHeader.size..<plan { #expect(flipped(offset).contains("its plan")) }
    for offset in stride(from: plan, to: bytes.count, by: 13) {
        #expect(flipped(offset).contains("block 0 of"))
    }
    // What a release of the future wrote.
    var next = bytes
    next[4] = 2
    let sum = Checksum(of: Array(next[..<(DumpHeader.size - 4)])).value
    for byte in 0..<4 {
        next[DumpHeader.size - 4 + byte] = UInt8(truncatingIfNeeded: sum >> (8 * UInt32(byte)))
    }
    #expect(fault(next).contains("format 2"))
}

@Test("Masters start from a dump with the state in it, and give no id again")
func loadedMasters() throws {
    let (old, session, bytes) = try filled()
    // What the cell does after the dump, and what is lost.
    let later = try #require(old.create(session, 101, "later"))
    _ = old.change(session, 102, .unlink(parent: .root, name: Array("file-100".utf8)))
    let reused = try #require(old.create(session, 103, "reused"))
    var dump = try read(bytes)
    let attributes = try dump.state.lookup(.root, Array("file-7".utf8))
    try dump.startOver()
    #expect(dump.state.counts.files == 100 && dump.state.counts.sessions == 0)
    #expect(try dump.state.lookup(.root, Array("file-7".utf8)) == attributes)
    let group = MasterGroup(masters: 3, segmentSize: 64 << 10)
    group.start(on: (0..<3).map { folder(dump, $0) })
    group.crash(1)
    group.crash(2)
    group.run(milliseconds: 100)
    #expect(group.cores[0]?.stateDigest == dump.state.digest())
    group.start(1)
    group.start(2)
    let next = try #require(group.openSession(2))
    #expect(next.rawValue > session.rawValue + 1 << 31)
    #expect(group.status()?.files == 100)
    for number in 1...3 {
        let new = try #require(group.create(next, UInt64(number), "new-\(number)"))
        #expect(new.inode != later.inode && new.inode != reused.inode)
        #expect(new.inode.generation >= Limits.loadedGenerations)
    }
    #expect(group.halts.isEmpty)
    // They are a cell as any other: they restart, and make dumps that can be loaded.
    for index in 0..<3 { group.crash(index) }
    for index in 0..<3 { group.start(index) }
    #expect(group.status()?.files == 103)
    var second = try read(try #require(written(group)))
    try second.startOver()
    #expect(second.state.counts.files == 103)
}

@Test("Sets of a loaded state are held until an operator says so; then all go on, far above")
func adoption() throws {
    let (old, _, bytes) = try filled()
    var dump = try read(bytes)
    try dump.startOver()
    let group = MasterGroup(masters: 3, segmentSize: 64 << 10, trashTime: .zero)
    group.servers = old.servers
    // The disks know more than the dump: a later epoch, and a set that it does not know.
    let set = try #require(old.servers[0].sets.keys.sorted().first)
    for index in group.servers.indices {
        group.servers[index].sets[set]?.epoch = Epoch(rawValue: 9)
        group.servers[index].sets[set]?.prepared = RecordNumber(rawValue: 50)
        group.servers[index].views = [:]
        group.servers[index].target = 0
    }
    let unknown = SetID(rawValue: 77)
    group.servers[0].sets[unknown] = SetReport(
        set: unknown, disk: group.servers[0].disk, epoch: Epoch(rawValue: 1),
        prepared: RecordNumber(rawValue: 5), hasRot: false, isServing: true, stored: 1, chunks: 1)
    group.servers[2].isUp = false
    group.start(on: (0..<3).map { folder(dump, $0) })
    let session = try #require(group.openSession(2))
    group.run(milliseconds: 3_000)
    func held() -> [SetID] {
        guard case .map(let map)? = group.query(.map(after: SetID(rawValue: 0))) else { return [] }
        return map.sets.filter { !$0.held.isEmpty }.map(\.id)
    }
    #expect(held().contains(set))
    #expect(group.change(session, 1, .operate(.adopt(withoutMissing: false))) == .done)
    // One disk has not reported.
    group.run(milliseconds: 3_000)
    #expect(held().contains(set))
    #expect(group.servers.allSatisfy { $0.views[set] == nil && $0.discards.isEmpty })
    group.servers[2].isUp = true
    #expect(group.run { $0.servers.allSatisfy { $0.views[set] != nil } })
    group.run(milliseconds: 1_000)
    #expect(held().isEmpty)
    let view = try #require(group.servers[0].views[set])
    #expect(view.epoch == Epoch(rawValue: 9 + Limits.loadedEpochs) && view.members.count == 3)
    #expect(group.servers.allSatisfy { $0.discards.isEmpty && $0.views[unknown] == nil })
    #expect(group.alarms.contains { $0.contains("set 77, which the log does not know: kept") })
    #expect(group.alarms.contains { $0.contains("martlet meta adopt") })
    let again = group.change(session, 2, .operate(.adopt(withoutMissing: false)))
    #expect(again == .refused(Refusal(.nothingToAdopt, 0)))
}

@Test("What is lost is done without only by order; what comes back later is kept as it is")
func adoptionWithoutMissing() throws {
    let (old, _, bytes) = try filled()
    var dump = try read(bytes)
    try dump.startOver()
    let group = MasterGroup(masters: 3, goal: 2, segmentSize: 64 << 10, trashTime: .zero)
    group.servers = old.servers
    let set = try #require(old.servers[0].sets.keys.sorted().first)
    let known = try #require(group.servers[2].sets[set]?.epoch)
    for index in group.servers.indices {
        group.servers[index].sets[set]?.prepared = RecordNumber(rawValue: 50)
        group.servers[index].sets[set]?.stored = 1_000
        group.servers[index].target = 0
    }
    group.servers[2].sets[set]?.epoch = known.next
    group.servers[2].isUp = false
    group.start(on: (0..<3).map { folder(dump, $0) })
    let session = try #require(group.openSession(2))
    #expect(group.change(session, 1, .operate(.adopt(withoutMissing: true))) == .done)
    #expect(group.run { ($0.servers[0].views[set]?.epoch ?? .none) > Epoch(rawValue: 1 << 20) })
    #expect(group.servers[0].views[set]?.members.count == 2)
    group.servers[2].isUp = true
    group.run(milliseconds: 5_000)
    #expect(group.alarms.contains { $0.contains("nobody knew when the set was adopted: kept") })
    #expect(group.servers[2].discards.isEmpty)
    #expect(group.servers.allSatisfy { $0.fills.allSatisfy { $0.learner.disk.rawValue != 30 } })
}

@Test("An accepted loss does not come back with a dump (decision 0020)")
func acceptedLossEnds() throws {
    let (old, session, _) = try filled()
    let set = try #require(old.servers[0].sets.keys.sorted().first)
    let before = try #require(old.servers[0].views[set])
    for index in old.servers.indices { old.servers[index].sets[set]?.hasRot = true }
    let order = Operation.acceptLoss(
        set, before.epoch, members: before.members, primary: before.primary)
    #expect(old.change(session, 1_000, .operate(order)) == .done)
    #expect(old.run { $0.servers[0].views[set]?.acceptsLoss == true })
    let bytes = try #require(written(old))
    var dump = try read(bytes)
    try dump.startOver()
    let group = MasterGroup(masters: 3, segmentSize: 64 << 10, trashTime: .zero)
    group.servers = old.servers
    for index in group.servers.indices {
        group.servers[index].sets[set]?.hasRot = false
        group.servers[index].views = [:]
        group.servers[index].target = 0
    }
    group.start(on: (0..<3).map { folder(dump, $0) })
    let again = try #require(group.openSession(2))
    #expect(group.change(again, 1, .operate(.adopt(withoutMissing: false))) == .done)
    #expect(group.run { $0.servers.allSatisfy { $0.views[set] != nil } })
    let view = try #require(group.servers[0].views[set])
    #expect(view.epoch == Epoch(rawValue: before.epoch.rawValue + 1 + Limits.loadedEpochs))
    #expect(!view.acceptsLoss && view.members == before.members)
}
