// Random runs of three replicas with crashes, lost, late and repeated messages, damage, and disks
// that lose synced records; then everything comes back and must agree.

import Base
import Replication
import Testing

extension ReplicaWorld {
    /// One random event.
    mutating func stir() {
        switch random.below(100) {
        case 0..<45: deliver()
        case 45..<65: syncSome()
        case 65..<75: tick(Interval.milliseconds(Int64(random.below(60))))
        case 75..<85: writeSome()
        case 85..<88: order()
        case 88..<92: loadSome()
        case 92..<94: repeatOld()
        case 94: dropLink()
        case 95..<97: read(random.below(members.count))
        case 97: crashSome()
        case 98: restartSome()
        default: damageSome()
        }
    }

    mutating func deliver() {
        let filled = links.indices.filter { !links[$0].isEmpty }
        guard !filled.isEmpty else { return }
        let link = filled[random.below(filled.count)]
        let message = links[link].removeFirst()
        if random.chance(1, of: 8) {
            if old.count >= 64 { old.remove(at: random.below(64)) }
            old.append(message)
        }
        if !random.chance(1, of: 40) { step(index(message.receiver), .message(message)) }
    }

    mutating func syncSome() {
        let member = random.below(members.count)
        let tail = members[member].disk.log.count - members[member].disk.synced
        guard tail > 0, members[member].replica != nil else { return }
        members[member].disk.synced += 1 + random.below(tail)
        step(
            member,
            .durable(through: LogNumber(rawValue: UInt64(members[member].disk.synced))))
    }

    mutating func tick(_ pause: Interval) {
        now = now + pause
        for member in members.indices { step(member, .tick) }
    }

    mutating func writeSome() {
        let tag: UInt64
        if open.isEmpty || (open.count < 12 && random.chance(2, of: 3)) {
            tag = nextWrite
            nextWrite += 1
            open.append(tag)
        } else {
            tag = open[random.below(open.count)]
        }
        for member in members.indices where open.contains(tag) { write(member, tag) }
    }

    mutating func order() {
        guard !orders.isEmpty else { return }
        let order = orders.remove(at: random.below(orders.count))
        step(order.member, .configure(order.1))
    }

    mutating func loadSome() {
        let member = random.below(members.count)
        guard !members[member].loads.isEmpty else { return }
        let number = members[member].loads.remove(at: random.below(members[member].loads.count))
        step(member, .loaded(number, members[member].disk.load(number)))
    }

    mutating func repeatOld() {
        guard !old.isEmpty else { return }
        let message = old[random.below(old.count)]
        step(index(message.receiver), .message(message))
    }

    mutating func dropLink() {
        let one = random.below(members.count)
        let two = random.below(members.count)
        guard one != two else { return }
        breakLink(one, two)
        step(one, .lost(disk(two)))
        step(two, .lost(disk(one)))
    }

    mutating func crashSome() {
        let member = random.below(members.count)
        guard members[member].replica != nil else { return }
        // Only one disk lies at a time, and only while no other has damage.
        let mayLie = disksLie && !members.contains { $0.isShort || !$0.disk.damaged.isEmpty }
        crash(member, extra: mayLie && random.chance(1, of: 3) ? 1 + random.below(2) : 0)
    }

    mutating func restartSome() {
        let down = members.indices.filter { members[$0].replica == nil }
        guard !down.isEmpty else { return }
        start(down[random.below(down.count)])
        raiseEpoch()
    }

    /// Damages a record of one member, which it finds out at once or at its next start.
    mutating func damageSome() {
        let isSound = !members.contains { $0.isShort || !$0.disk.damaged.isEmpty }
        guard disksLie, isSound else { return }
        let member = random.below(members.count)
        let alive = members[member].disk.alive(among: members[member].disk.synced)
        guard let record = alive.randomElement(using: &random),
            record.number <= members[member].replica?.durable ?? .none
        else { return }
        members[member].disk.damaged.insert(record.number)
        if random.chance(1, of: 2) { step(member, .damaged(record.number)) }
    }

    /// Everything comes back, nothing is lost any more, until all is quiet.
    mutating func calm() throws(Failure) {
        for member in members.indices where members[member].replica == nil { start(member) }
        for member in members.indices {
            for number in members[member].disk.damaged.sorted() { step(member, .damaged(number)) }
        }
        raiseEpoch()
        for count in 0..<600 {
            round()
            try check()
            let isQuiet = links.allSatisfy(\.isEmpty) && orders.isEmpty && open.isEmpty
            if isQuiet, count > 100, members.allSatisfy({ $0.replica?.deadline == nil }) { return }
        }
        throw Failure(text: "does not come to rest")
    }

    /// Delivers, loads and syncs all there is; 10 ms pass.
    mutating func round() {
        for link in links.indices {
            let messages = links[link]
            links[link] = []
            for message in messages { step(index(message.receiver), .message(message)) }
        }
        while !orders.isEmpty {
            let order = orders.removeFirst()
            step(order.member, .configure(order.1))
        }
        for member in members.indices {
            let loads = members[member].loads
            members[member].loads = []
            for load in loads { step(member, .loaded(load, members[member].disk.load(load))) }
            sync(member)
            for tag in open { write(member, tag) }
        }
        tick(.milliseconds(10))
    }

    /// Makes durable all that a member has appended.
    mutating func sync(_ member: Int) {
        guard members[member].replica != nil else { return }
        members[member].disk.synced = members[member].disk.log.count
        let last = LogNumber(rawValue: UInt64(members[member].disk.synced))
        step(member, .durable(through: last))
    }

    /// All members have the same records, and each answered write once.
    func checkEnd() throws(Failure) {
        let logs = members.map { $0.disk.alive().map(\.sequence) }
        guard logs.allSatisfy({ $0 == logs[0] }) else {
            throw Failure(text: "members differ at the end")
        }
        guard Swift.Set(logs[0]).count == logs[0].count else {
            throw Failure(text: "a write happened twice (C15)")
        }
        guard members.allSatisfy({ $0.disk.damaged.isEmpty }) else {
            throw Failure(text: "damage was not repaired")
        }
        for (number, record) in decided {
            guard logs[0][Int(number.rawValue) - 1] == record.sequence else {
                throw Failure(text: "record \(number) was committed or read, and is lost")
            }
        }
        for member in members {
            guard member.disk.committed.rawValue == UInt64(logs[0].count) else {
                throw Failure(text: "a backup never heard what is committed")
            }
        }
    }
}

@Suite struct ReplicaRunTests {
    @Test("Random runs keep every acknowledged write, and the replicas agree at the end")
    func randomRuns() {
        var writes = 0
        var epochs = 0
        var reads = 0
        for seed in 0..<300 as Range<UInt64> {
            var world = ReplicaWorld(seed: seed)
            do throws(ReplicaWorld.Failure) {
                for _ in 0..<500 {
                    world.stir()
                    try world.check()
                }
                try world.calm()
                try world.checkEnd()
            } catch {
                Issue.record("seed \(seed): \(error.text)")
                return
            }
            writes += world.acknowledged.count
            epochs += world.servedBy.count
            reads += world.answeredReads
        }
        // The runs must reach what they are for.
        #expect(writes > 2_000)
        #expect(epochs > 400)
        #expect(reads > 100)
    }
}
