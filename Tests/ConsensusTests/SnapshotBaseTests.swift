// Where an acceptor begins by word of a snapshot, and what it becomes when one is installed.

import Base
import Consensus
import Testing

private let members = (1...3).map { MasterID(rawValue: $0) }
private let founders = Membership(founders: members.map { founder($0) })
private let first = ConfigurationStart(first: 1)

/// A leader of its own with some entries, all chosen; and its records.
private func leader(entries: Int) -> (node: PaxosNode, records: [PaxosRecord]) {
    var now = Instant(nanoseconds: 1_000_000_000)
    var node = PaxosNode(
        id: members[0], members: [members[0]], records: [], hasRot: false, seed: 1, now: now)
    var records: [PaxosRecord] = []
    func step(_ event: PaxosEvent) {
        var last: PaxosTicket?
        for effect in node.step(event, now: now) {
            guard case .persist(let record, let ticket) = effect else { continue }
            records.append(record)
            last = ticket
        }
        if let last { step(.persisted(through: last)) }
    }
    while !node.isServing {
        now = now + .milliseconds(10)
        step(.tick(.zero))
    }
    for number in 1...entries {
        step(.propose(PaxosTag(rawValue: UInt64(number)), [UInt8(truncatingIfNeeded: number)]))
    }
    return (node, records)
}

private func persisted(_ effects: [PaxosEffect]) -> [PaxosRecord] {
    effects.compactMap { if case .persist(let record, _) = $0 { record } else { nil } }
}

private func node(_ base: PaxosBase, _ records: [PaxosRecord]) -> PaxosNode {
    PaxosNode(
        id: members[0], members: members, base: base, records: records, hasRot: false, seed: 1,
        now: .zero)
}

@Test("A start from a snapshot knows what is above it, from the records written again")
func carriedRecords() {
    var (leader, records) = leader(entries: 200)
    let slot = Slot(rawValue: 150)
    let base = leader.base(at: slot)
    let carried = persisted(leader.carry(above: slot))
    #expect(carried.count == Int(leader.end.rawValue) - 150)
    let started = node(base, carried)
    #expect(!started.hasRot)
    #expect(started.start == slot && started.end == leader.end)
    #expect(started.hash(at: started.end) == leader.hash(at: leader.end))
    #expect(started.promised == leader.promised && started.accepted == leader.accepted)
    // A start from before goes through the same records a second time.
    let whole = node(.none, records + carried)
    #expect(!whole.hasRot && whole.end == leader.end)
    // Without them there is a gap as soon as the log goes on.
    records = carried
    records.removeFirst()
    #expect(node(base, records).hasRot)
}

@Test("Entries leave the memory up to what was delivered, and the rest stays")
func forgetting() {
    var (leader, _) = leader(entries: 500)
    let end = leader.end
    let hash = leader.hash(at: end)
    for _ in 0..<100 { leader.forget(through: Slot(rawValue: 450)) }
    #expect(leader.start.rawValue > 400 && leader.start.rawValue <= 450)
    #expect(leader.end == end && leader.hash(at: end) == hash)
    #expect(leader.entry(at: leader.start.next).previous == leader.hash(at: leader.start))
}

@Test("An installed snapshot keeps the ballot and the entries that follow it")
func installing() throws {
    let (leader, records) = leader(entries: 100)
    let slot = Slot(rawValue: 60)
    let hash = leader.hash(at: slot)
    // One that has more already, but does not know that it is chosen.
    var ahead = node(.none, records)
    let installed = persisted(ahead.install(slot, hash, .none, founders, first))
    #expect(ahead.end == leader.end && ahead.delivered == slot && ahead.chosen >= slot)
    #expect(ahead.accepted == leader.accepted && ahead.promised == leader.promised)
    #expect(installed == [.installed(slot, hash)])
    // One that has less.
    var behind = node(.none, Array(records.prefix(30)))
    let before = behind
    #expect(!behind.hasRot && behind.end < slot)
    let higher = Ballot(configuration: 1, round: 9, node: members[1])
    let effects = behind.install(slot, hash, higher, founders, first)
    #expect(persisted(effects).first == .promise(higher))
    #expect(behind.end == slot && behind.start == slot && behind.hash(at: slot) == hash)
    #expect(behind.accepted == before.accepted && behind.promised == higher)
    // Its records tell that something is missing, unless the snapshot is there.
    let logged = Array(records.prefix(30)) + [.installed(slot, hash)]
    #expect(node(.none, logged).hasRot)
    let base = before.base(after: slot, hash, higher, first)
    let restarted = node(base, [.promise(higher), .installed(slot, hash)])
    #expect(!restarted.hasRot && restarted.promised == higher)
}

@Test("The note of a snapshot survives its coding")
func baseCoding() throws {
    let (leader, _) = leader(entries: 10)
    let base = leader.base(at: Slot(rawValue: 7))
    var writer = ByteWriter()
    base.encode(into: &writer)
    var reader = ByteReader(writer.bytes)
    #expect(try PaxosBase(from: &reader) == base)
    #expect(reader.remaining == 0)
}
