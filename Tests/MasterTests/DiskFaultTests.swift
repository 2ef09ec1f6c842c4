// Every change of a master's disk fails once (S4, M16): the log, its segments, its snapshots.

import Base
import Consensus
import Master
import Testing
import Wire

/// A master alone, with a log of a few small segments and a snapshot every eight entries.
private func loneMaster() -> MasterGroup {
    MasterGroup(masters: 1, segmentSize: 64 << 10, snapshotEntries: 8)
}

/// Makes files until one is not answered; what was acknowledged.
private func work(_ group: MasterGroup) -> [(name: String, made: Attributes)] {
    var acknowledged: [(String, Attributes)] = []
    guard let session = group.openSession(1) else { return [] }
    for number in 1...24 {
        // Long names fill the segments.
        let name = "\(number)-" + String(repeating: "x", count: 200)
        guard let made = group.create(session, UInt64(number), name) else { break }
        acknowledged.append((name, made))
    }
    return acknowledged
}

@Test("A leader whose disk hangs lets another lead; with such a disk nobody takes over (S11)")
func hungDisk() throws {
    let group = MasterGroup(masters: 3)
    let session = try #require(group.openSession(1))
    let first = try #require(group.leader)
    group.hang(first, true)
    let before = group.now
    // The others have it on their disks.
    _ = try #require(group.create(session, 1, "one"))
    #expect(group.run(until: { $0.leader.map { $0 != first } ?? false }))
    #expect(group.now - before < .seconds(2))
    _ = try #require(group.create(session, 2, "two"))
    // With the two that are left nothing can be durable at a majority, and it does not try.
    group.crash(try #require(group.leader))
    for _ in 0..<3_000 {
        group.run(milliseconds: 1)
        if group.cores[first]?.paxos?.isLeadingOrTrying != false { break }
    }
    #expect(group.cores[first]?.paxos?.isLeadingOrTrying == false && group.leader == nil)
    group.hang(first, false)
    _ = try #require(group.create(session, 3, "three"))
    #expect(group.halts.isEmpty)
}

@Test("On a full disk a leader refuses changes and answers questions, until there is space (C20)")
func fullDisk() throws {
    let group = MasterGroup(masters: 1, segmentSize: 64 << 10)
    let session = try #require(group.openSession(1))
    let first = try #require(group.create(session, 1, "first"))
    group.plan(.full, at: 1, of: 0)
    var made = 1
    var refusal: MetadataReply?
    while refusal == nil, made < 100 {
        made += 1
        let reply = group.change(
            session, UInt64(made),
            .link(first.inode, parent: .root, name: Array("\(made)".utf8)))
        if case .entry = reply { continue }
        refusal = reply
    }
    #expect(refusal == .failed(.noSpace))
    #expect(group.query(.lookup(parent: .root, name: Array("first".utf8))) != nil)
    // A change that was made is answered again, and upkeep goes on.
    let last = MetadataChange.link(
        first.inode, parent: .root, name: Array("\(made - 1)".utf8))
    guard case .entry = group.change(session, UInt64(made - 1), last) else { throw NoAnswer() }
    guard case .orphans = group.change(session, UInt64(made + 1), .renewSession) else {
        throw NoAnswer()
    }
    // It starts on the full disk too.
    group.crash(0)
    group.start(0)
    group.run(milliseconds: 3_000)
    #expect(group.halts.isEmpty)
    group.plan(nil, at: 0, of: 0)
    let next = group.change(
        session, UInt64(made + 2), .link(first.inode, parent: .root, name: Array("next".utf8)))
    guard case .entry = next else { throw NoAnswer() }
}

/// What was expected to be answered was not.
struct NoAnswer: Error {}

@Test(
    "Whatever change of a master's disk fails, it stops or goes on, and loses nothing",
    arguments: DiskFault.allCases)
func everyChange(kind: DiskFault) throws {
    var change = 0
    while true {
        change += 1
        let group = loneMaster()
        group.plan(kind, at: change, of: 0)
        let acknowledged = work(group)
        guard group.hasHappened(0) else { break }
        // A broken disk is never written to again by the same process.
        if kind == .broken { #expect(group.cores[0] == nil, "\(kind) at \(change)") }
        group.crash(0)
        group.plan(nil, at: 0, of: 0)
        for nonce: UInt64 in 2...3 {
            group.start(0)
            try #require(group.run { $0.leader != nil }, "\(kind) at \(change): \(group.halts)")
            #expect(group.cores[0]?.isDamaged == false, "\(kind) at \(change)")
            for (name, made) in acknowledged {
                let found = group.query(.lookup(parent: .root, name: Array(name.utf8)))
                #expect(found == .entry(made), "\(kind) at \(change)")
            }
            let session = try #require(group.openSession(nonce))
            #expect(group.create(session, 1, "after-\(nonce)") != nil, "\(kind) at \(change)")
            group.crash(0)
        }
    }
    // Segments and both snapshots were made, written and removed on the way.
    #expect(change > 40)
}
