// Single steps of nodes, with messages carried by hand.

import Base
import Consensus
import Testing

/// Nodes whose disks and messages the test moves itself.
private struct Bench {
    var nodes: [PaxosNode]
    var now = Instant(nanoseconds: 1_000_000_000)
    /// Records and tickets that wait for the disk, of each node.
    var writing: [[(record: PaxosRecord, ticket: PaxosTicket)]]
    var durable: [[PaxosRecord]]
    var mail: [(from: MasterID, to: MasterID, message: PaxosMessage)] = []
    var chosen: [[EntryBody]]

    init(count: Int) {
        let ids = (1...count).map { MasterID(rawValue: UInt16($0)) }
        nodes = ids.map {
            PaxosNode(
                id: $0, members: ids, records: [], hasRot: false, seed: 1,
                now: Instant(nanoseconds: 1_000_000_000))
        }
        writing = Array(repeating: [], count: count)
        durable = Array(repeating: [], count: count)
        chosen = Array(repeating: [], count: count)
    }
    mutating func step(_ index: Int, _ event: PaxosEvent) {
        for effect in nodes[index].step(event, now: now) {
            switch effect {
            case .persist(let record, let ticket): writing[index].append((record, ticket))
            case .send(let to, let message): mail.append((nodes[index].id, to, message))
            case .chosen(let entry): chosen[index].append(entry.body)
            default: break
            }
        }
    }
    /// Makes everything durable that a node wrote.
    mutating func sync(_ index: Int) {
        guard let last = writing[index].last else { return }
        durable[index] += writing[index].map(\.record)
        writing[index] = []
        step(index, .persisted(through: last.ticket))
    }
    /// Delivers the messages to a node that are wanted; drops the others to it.
    mutating func deliver(to index: Int, where isWanted: (PaxosMessage) -> Bool = { _ in true }) {
        let due = mail.filter { $0.to == nodes[index].id }
        mail.removeAll { $0.to == nodes[index].id }
        for item in due where isWanted(item.message) {
            step(index, .message(from: item.from, item.message))
        }
    }
    /// Lets time pass until node 0 leads, everything else being prompt.
    mutating func elect() {
        for _ in 0..<200 where !nodes[0].isServing {
            now = now + .milliseconds(5)
            for index in nodes.indices { sync(index) }
            // Only the first node has its clock running: the others do not compete.
            step(0, .tick(.zero))
            if now.nanoseconds % 50_000_000 == 0 {
                for index in nodes.indices.dropFirst() { beat(index) }
            }
            for index in nodes.indices { deliver(to: index) }
        }
    }
    /// A tick of a follower, of which only the heartbeats leave.
    mutating func beat(_ index: Int) {
        step(index, .tick(.zero))
    }
    /// The disk of a node as after a crash that lost what was not durable.
    mutating func restart(_ index: Int) {
        writing[index] = []
        chosen[index] = []
        nodes[index] = PaxosNode(
            id: nodes[index].id, members: nodes.map(\.id), records: durable[index],
            hasRot: false, seed: 1, now: now)
    }
}

private func isPromise(_ message: PaxosMessage) -> Bool {
    if case .promise = message { true } else { false }
}
private func isAccepted(_ message: PaxosMessage) -> Bool {
    if case .accepted = message { true } else { false }
}

@Suite struct PaxosNodeTests {
    @Test("A promise leaves when it is durable, not before, and is never taken back")
    func promise() throws {
        var bench = Bench(count: 3)
        let first = ConfigurationStart(first: 1)
        let low = Ballot(configuration: 1, round: 1, node: MasterID(rawValue: 2))
        let high = Ballot(configuration: 1, round: 2, node: MasterID(rawValue: 3))
        bench.step(0, .message(from: high.node, .prepare(high, first)))
        #expect(!bench.mail.contains { isPromise($0.message) })
        bench.sync(0)
        #expect(bench.mail.filter { isPromise($0.message) }.count == 1)
        bench.restart(0)
        bench.mail = []
        bench.step(0, .message(from: low.node, .prepare(low, first)))
        #expect(bench.mail.map(\.message) == [.refuse(high)])
        bench.step(0, .message(from: high.node, .prepare(high, first)))
        #expect(bench.mail.filter { isPromise($0.message) }.count == 1)
    }

    @Test(
        "An acceptance leaves when its entry is durable, and a vote of the leader's own counts then"
    )
    func acceptance() throws {
        var bench = Bench(count: 3)
        bench.elect()
        try #require(bench.nodes[0].isServing)
        for index in 0..<3 { bench.sync(index) }
        bench.mail = []
        let before = bench.nodes[0].chosen
        bench.step(0, .propose(PaxosTag(rawValue: 1), [1, 2, 3]))
        bench.deliver(to: 1)
        bench.deliver(to: 2)
        #expect(!bench.mail.contains { isAccepted($0.message) })
        bench.sync(1)
        #expect(bench.mail.filter { isAccepted($0.message) }.count == 1)
        bench.deliver(to: 0)
        #expect(bench.nodes[0].chosen == before)
        bench.sync(0)
        #expect(bench.nodes[0].chosen == before.next)
        #expect(bench.chosen[0].last == .commands([1, 2, 3]))
    }

    @Test("A vote for another ballot does not count (M5)")
    func otherVotes() throws {
        var bench = Bench(count: 3)
        bench.elect()
        try #require(bench.nodes[0].isServing)
        for index in 0..<3 { bench.sync(index) }
        bench.mail = []
        let before = bench.nodes[0].chosen
        bench.step(0, .propose(PaxosTag(rawValue: 1), [1, 2, 3]))
        bench.deliver(to: 1)
        bench.sync(1)
        bench.sync(0)
        let votes = bench.mail.compactMap { mail -> Acceptance? in
            if case .accepted(let vote) = mail.message { vote } else { nil }
        }
        let vote = try #require(votes.first)
        let sender = bench.nodes[1].id
        var other = vote
        other.ballot = Ballot(
            configuration: vote.ballot.configuration, round: vote.ballot.round - 1,
            node: bench.nodes[1].id)
        bench.step(0, .message(from: sender, .accepted(other)))
        #expect(bench.nodes[0].chosen == before)
        bench.step(0, .message(from: sender, .accepted(vote)))
        #expect(bench.nodes[0].chosen == before.next)
    }

    @Test("A sync whose end is not on the disk has not happened")
    func cutSync() throws {
        var bench = Bench(count: 3)
        bench.elect()
        try #require(bench.nodes[0].isServing)
        for index in 0..<3 { bench.sync(index) }
        let records = bench.durable[1]
        let end = try #require(
            records.lastIndex { if case .syncEnd = $0 { true } else { false } })
        let members = bench.nodes.map(\.id)
        let cut = PaxosNode(
            id: members[1], members: members, records: Array(records[..<end]), hasRot: false,
            seed: 1, now: bench.now)
        #expect(cut.accepted == .none && cut.end == .none && !cut.hasRot)
        #expect(cut.promised == bench.nodes[1].promised)
        let whole = PaxosNode(
            id: members[1], members: members, records: records, hasRot: false, seed: 1,
            now: bench.now)
        #expect(whole.accepted == bench.nodes[1].accepted)
        // A hole in the middle is damage: such a node must not vote.
        var holed = records
        holed.remove(at: end)
        holed.append(contentsOf: records.suffix(1))
        let faulty = PaxosNode(
            id: members[1], members: members, records: holed + [holed[holed.count - 1]],
            hasRot: false, seed: 1, now: bench.now)
        #expect(faulty.hasRot || faulty.accepted == .none)
    }

    @Test("A master that lost what an entry says asks for it, and until then does nothing")
    func mending() throws {
        var bench = Bench(count: 3)
        bench.elect()
        try #require(bench.nodes[0].isServing)
        bench.step(0, .propose(PaxosTag(rawValue: 1), [1, 2, 3]))
        for _ in 0..<3 {
            for index in 0..<3 {
                bench.sync(index)
                bench.deliver(to: index)
            }
        }
        let before = bench.nodes[1]
        try #require(before.durable == bench.nodes[0].durable && before.durable > .none)
        let place = try #require(bench.durable[1].lastIndex { !$0.payload.isEmpty })
        var header = ByteWriter()
        bench.durable[1][place].encodeHeader(into: &header)
        bench.durable[1][place] = try PaxosRecord(header: header.bytes[...], payload: [])
        bench.restart(1)
        #expect(bench.nodes[1].isMending && bench.nodes[1].missing == 1)
        bench.mail = []
        let high = Ballot(configuration: 1, round: 9, node: bench.nodes[2].id)
        let first = ConfigurationStart(first: 1)
        bench.step(1, .message(from: high.node, .prepare(high, first)))
        bench.step(1, .tick(.zero))
        #expect(bench.nodes[1].promised == before.promised && bench.writing[1].isEmpty)
        let asked = bench.mail.compactMap { mail -> Slot? in
            if case .mend(let slot, _) = mail.message { slot } else { nil }
        }
        #expect(asked == [before.end, before.end])
        // Another entry of that slot is not what it had.
        bench.step(2, .message(from: bench.nodes[1].id, .mend(before.end, before.hash(at: .none))))
        #expect(!bench.mail.contains { if case .mended = $0.message { true } else { false } })
        bench.deliver(to: 0)
        bench.deliver(to: 1)
        #expect(bench.nodes[1].isMending && bench.nodes[1].missing == 0)
        bench.sync(1)
        #expect(!bench.nodes[1].isMending && !bench.nodes[1].hasRot)
        #expect(bench.nodes[1].accepted == before.accepted && bench.nodes[1].end == before.end)
        bench.restart(1)
        #expect(!bench.nodes[1].hasRot && bench.nodes[1].durable == before.durable)
        bench.step(1, .message(from: high.node, .prepare(high, first)))
        bench.sync(1)
        #expect(bench.nodes[1].promised == high)
    }

    @Test("A master on an old copy of its disk is told so, and does not vote any more (M18)")
    func oldCopy() throws {
        var bench = Bench(count: 3)
        bench.elect()
        try #require(bench.nodes[0].isServing)
        bench.sync(1)
        // The disk as it was before it promised anything.
        bench.durable[1] = []
        bench.restart(1)
        #expect(!bench.nodes[1].hasRot)
        bench.mail = []
        for _ in 0..<40 where !bench.nodes[1].hasRot {
            bench.now = bench.now + .milliseconds(50)
            for index in 0..<2 {
                bench.step(index, .tick(.zero))
                bench.deliver(to: index) { if case .heartbeat = $0 { true } else { false } }
            }
        }
        #expect(bench.nodes[1].isOldCopy && bench.nodes[1].hasRot)
        // One that only crashed goes on.
        bench.restart(2)
        for _ in 0..<40 {
            bench.now = bench.now + .milliseconds(50)
            for index in [0, 2] {
                bench.step(index, .tick(.zero))
                bench.deliver(to: index)
                bench.sync(index)
            }
        }
        #expect(!bench.nodes[2].isOldCopy && !bench.nodes[2].hasRot)
    }

    @Test("A late copy of a sync of the same ballot does not shrink the log (M20)")
    func lateSync() throws {
        var bench = Bench(count: 3)
        var syncs: [PaxosMessage] = []
        for _ in 0..<200 where !bench.nodes[0].isServing {
            bench.now = bench.now + .milliseconds(5)
            for index in 0..<3 { bench.sync(index) }
            bench.step(0, .tick(.zero))
            for index in 1..<3 where bench.now.nanoseconds % 50_000_000 == 0 {
                bench.beat(index)
            }
            bench.deliver(to: 0)
            for item in bench.mail where item.to == bench.nodes[1].id {
                if case .sync = item.message { syncs.append(item.message) }
            }
            for index in 1..<3 { bench.deliver(to: index) }
        }
        try #require(!syncs.isEmpty)
        for tag in 1...5 as ClosedRange<UInt64> {
            bench.step(0, .propose(PaxosTag(rawValue: tag), [9]))
            for index in 0..<3 { bench.sync(index) }
            for index in 0..<3 { bench.deliver(to: index) }
        }
        bench.sync(1)
        let end = bench.nodes[1].end
        for sync in syncs { bench.step(1, .message(from: bench.nodes[0].id, sync)) }
        #expect(bench.nodes[1].end == end && end >= Slot(rawValue: 6))
        bench.restart(1)
        for sync in syncs { bench.step(1, .message(from: bench.nodes[0].id, sync)) }
        #expect(bench.nodes[1].end == end)
    }

    @Test("A follower that lost its disk under a leader is asked for a promise again (M18)")
    func lostDisk() throws {
        var bench = Bench(count: 3)
        bench.elect()
        try #require(bench.nodes[0].isServing)
        bench.durable[1] = []
        bench.restart(1)
        bench.mail = []
        bench.step(0, .propose(PaxosTag(rawValue: 1), [1]))
        bench.deliver(to: 1)
        bench.deliver(to: 0)
        let isAsked = bench.mail.contains { item in
            if case .prepare = item.message { item.to == bench.nodes[1].id } else { false }
        }
        #expect(isAsked)
    }

    @Test("Damaged messages are refused, never a crash")
    func fuzz() throws {
        var bench = Bench(count: 3)
        var random = SeededRandom(seed: 1)
        var samples: [[UInt8]] = []
        for _ in 0..<60 {
            bench.now = bench.now + .milliseconds(10)
            for index in 0..<3 { bench.sync(index) }
            for index in 0..<3 { bench.step(index, .tick(.zero)) }
            bench.step(0, .propose(PaxosTag(rawValue: 1), [1, 2, 3]))
            for item in bench.mail {
                var writer = ByteWriter()
                item.message.encode(into: &writer)
                samples.append(writer.bytes)
            }
            for index in 0..<3 { bench.deliver(to: index) }
        }
        try #require(samples.count > 50)
        for round in 0..<20_000 {
            var bytes = samples[random.below(samples.count)]
            for _ in 0...random.below(3) {
                bytes[random.below(bytes.count)] = UInt8(truncatingIfNeeded: random.next())
            }
            if round % 3 == 0 { bytes.removeLast(random.below(bytes.count)) }
            var reader = ByteReader(bytes)
            guard let message = try? PaxosMessage(from: &reader) else { continue }
            var copy = bench.nodes[1]
            _ = copy.step(.message(from: bench.nodes[0].id, message), now: bench.now)
        }
    }
}
