// Snapshots of masters: taken everywhere, loaded, sent, compared, and the log behind them let go.

import Base
import Consensus
import Master
import Store
import Testing
import Wire

private func fill(_ group: MasterGroup, _ session: SessionID, _ numbers: ClosedRange<Int>) {
    for number in numbers {
        #expect(group.create(session, UInt64(number), "file-\(number)") != nil)
    }
}

private func equalStates(_ group: MasterGroup) -> Bool {
    let cores = group.cores.compactMap { $0 }
    return cores.count == group.cores.count
        && cores.allSatisfy {
            $0.applied == cores[0].applied && $0.stateDigest == cores[0].stateDigest
        }
}

@Test("Masters take the same snapshots, start from them, and keep a bounded log")
func snapshotsAndRestart() throws {
    let group = MasterGroup(masters: 3, segmentSize: 64 << 10, snapshotEntries: 20)
    let session = try #require(group.openSession(1))
    fill(group, session, 1...100)
    var most = 0
    fill(group, session, 101...300)
    most = group.diskBytes(0)
    fill(group, session, 301...500)
    // What is taken up does not grow with the log, but a little with the state.
    #expect(group.diskBytes(0) <= most + (256 << 10))
    #expect(group.run { $0.cores.allSatisfy { $0?.snapshots.count == 2 } })
    let marks = group.cores.map { $0?.snapshots.first?.slot ?? .none }
    #expect(marks.allSatisfy { $0.rawValue > 400 })
    for index in 0..<3 { group.crash(index) }
    for index in 0..<3 { group.start(index) }
    #expect(group.run(until: { $0.leader != nil }))
    #expect(group.run(until: equalStates))
    #expect(group.cores.allSatisfy { ($0?.paxos?.start ?? .none).rawValue > 400 })
    // What was answered before is answered the same way again (M12).
    #expect(group.create(session, 500, "file-500") != nil)
    #expect(group.create(session, 501, "file-500") == nil)
    #expect(group.status()?.files == 500)
    #expect(group.alarms.isEmpty && group.halts.isEmpty)
}

@Test("A master that fell behind the log of the others gets a snapshot and goes on")
func transfer() throws {
    let group = MasterGroup(masters: 3, segmentSize: 64 << 10, snapshotEntries: 20)
    let session = try #require(group.openSession(1))
    fill(group, session, 1...10)
    let leader = try #require(group.leader)
    let behind = (leader + 1) % 3
    group.crash(behind)
    fill(group, session, 11...300)
    group.start(behind)
    #expect(group.run(until: equalStates))
    let slot = try #require(group.cores[behind]?.paxos?.start)
    #expect(slot.rawValue > 100)
    // It votes: the cell goes on without another one.
    group.crash((leader + 2) % 3)
    fill(group, session, 301...320)
    // And it starts from what it was sent.
    group.crash(behind)
    group.start(behind)
    #expect(group.run(until: { $0.leader != nil }))
    fill(group, session, 321...330)
    group.start((leader + 2) % 3)
    #expect(group.run(until: equalStates))
    #expect(group.alarms.isEmpty && group.halts.isEmpty)
}

@Test("A snapshot that comes with entries above it is not installed over them (M16)")
func overtakenSnapshot() throws {
    let group = MasterGroup(masters: 3, segmentSize: 64 << 10, snapshotEntries: 20)
    let session = try #require(group.openSession(1))
    fill(group, session, 1...10)
    let leader = try #require(group.leader)
    let behind = (leader + 1) % 3
    // The entries are late: the master hears of them and asks for a snapshot that is above them.
    group.holds = { to, frame in to == behind && carriesEntries(frame) }
    fill(group, session, 11...80)
    let before = try #require(group.cores[behind]?.applied)
    group.holds = { to, frame in to == behind && (carriesEntries(frame) || lastPage(frame) != nil) }
    #expect(group.run { $0.held.contains { lastPage($0.frame) != nil } })
    let slot = try #require(group.held.compactMap { lastPage($0.frame) }.first)
    #expect(slot > before && group.cores[behind]?.applied == before)
    // Its last page and the entries are there at the same moment.
    group.holds = { _, _ in false }
    group.release()
    #expect(group.run(until: equalStates))
    #expect(try #require(group.cores[behind]?.paxos?.start) <= before)
    #expect(group.alarms.isEmpty && group.halts.isEmpty)
}

private func carriesEntries(_ frame: Frame) -> Bool {
    var reader = ByteReader(frame.head)
    guard frame.kind == .paxos, let message = try? PaxosMessage(from: &reader) else { return false }
    return switch message {
    case .accept, .sync, .fetched: true
    default: false
    }
}

/// The slot of the snapshot of which the frame has the last page.
private func lastPage(_ frame: Frame) -> Slot? {
    guard frame.kind == .snapshot,
        case .page(let mark, let part, _, _, _)? = try? SnapshotMessage(frame), part != .plan
    else { return nil }
    return mark.slot
}

@Test(
    "A damaged snapshot is found at the start, and the other one is used", arguments: [0, 1 << 20])
func damagedSnapshot(offset: Int) throws {
    for file in [DiskFile.checkpoint(0), .checkpoint(1)] {
        let group = MasterGroup(masters: 3, segmentSize: 64 << 10, snapshotEntries: 20)
        let session = try #require(group.openSession(1))
        fill(group, session, 1...120)
        group.crash(0)
        #expect(group.snapshotFiles(0).count == 2)
        group.damage(file, of: 0, at: offset + 100)
        group.start(0)
        #expect(group.run(until: equalStates))
        #expect(group.cores[0]?.isDamaged == false && group.halts.isEmpty)
    }
}

@Test("The log is kept from the older snapshot on: a start from either loses nothing (M16)")
func olderSnapshot() throws {
    var starts: [Slot] = []
    var slots: [Slot] = []
    for file in [DiskFile.checkpoint(0), .checkpoint(1)] {
        // Alone, so that no other master can help out.
        let group = MasterGroup(masters: 1, segmentSize: 64 << 10, snapshotEntries: 60)
        let session = try #require(group.openSession(1))
        fill(group, session, 1...400)
        slots = try #require(group.cores[0]).snapshots.map(\.slot)
        group.crash(0)
        group.damage(file, of: 0, at: 100)
        group.start(0)
        #expect(group.run(until: { $0.leader != nil }))
        let core = try #require(group.cores[0])
        #expect(!core.isDamaged && group.status()?.files == 400)
        starts.append(core.paxos?.start ?? .none)
        fill(group, session, 401...410)
    }
    #expect(slots.count == 2 && starts.sorted() == slots.sorted())
}

/// What may happen to the disk of a master that is stopped.
enum DiskLoss: CaseIterable {
    case log, snapshots, everything
}

@Test(
    "A master that lost its disk, or found it damaged, gets a vote again, not its old one (M18)",
    arguments: DiskLoss.allCases)
func lostDisk(loss: DiskLoss) throws {
    let group = MasterGroup(
        masters: 3, segmentSize: 64 << 10, snapshotEntries: loss == .log ? 100_000 : 20)
    let session = try #require(group.openSession(1))
    fill(group, session, 1...100)
    let lost = (try #require(group.leader) + 1) % 3
    let others = [0, 1, 2].filter { $0 != lost }
    let before = try #require(group.cores[lost]?.paxos).disk
    // Alone it can do nothing: while no other leads, it only says what is wrong.
    for index in 0..<3 { group.crash(index) }
    switch loss {
    case .log:
        for offset in stride(from: 16_384, to: 32_768, by: 64) {
            group.damage(group.segments(lost)[0], of: lost, at: offset)
        }
    case .snapshots: for file in group.snapshotFiles(lost) { group.damage(file, of: lost, at: 100) }
    case .everything: break
    }
    if loss == .everything { group.replaceDisk(lost) } else { group.start(lost) }
    group.start(others[0])
    group.run(milliseconds: 3_000)
    #expect(group.leader == nil && group.cores[lost]?.isDamaged == (loss != .everything))
    #expect(loss == .everything || !group.alarms.isEmpty)
    group.start(others[1])
    #expect(
        group.run { group in
            let members = group.leader.flatMap { group.cores[$0]?.paxos?.membership }
            let id = MasterID(rawValue: UInt16(lost + 1))
            return members?[id].map { $0.disk != before && $0.isVoter } ?? false
                && equalStates(group)
        })
    // Its vote counts: with it another can be spared, and it may lead.
    group.crash(others[0])
    fill(group, session, 101...120)
    // And it stays sound, even if its log still has the damage.
    group.crash(lost)
    group.start(lost)
    group.start(others[0])
    #expect(group.run(until: { equalStates($0) && $0.leader != nil }))
    fill(group, session, 121...130)
    #expect(group.halts.isEmpty)
}

@Test("A master whose state differs from that of the others stops (M15)")
func otherHash() throws {
    let group = MasterGroup(
        masters: 3, snapshotEntries: 20, rootModes: [0o755, 0o755, 0o700])
    let session = try #require(group.openSession(1))
    fill(group, session, 1...40)
    group.run(milliseconds: 500)
    #expect(group.cores[2] == nil && group.cores[0] != nil && group.cores[1] != nil)
    #expect(group.halts.count == 1 && group.halts[0].contains("differs from that of most"))
}
