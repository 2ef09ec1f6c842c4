// Three replicas, their disks, a network that loses, delays and repeats, and masters, all under
// one seed. `check` holds after every event.

import Base
import Replication

/// See the head of this file.
struct ReplicaWorld {
    struct Member {
        var disk = ModelDisk()
        var replica: SetReplica?
        var incarnation = Incarnation(rawValue: 0)
        var loads: [RecordNumber] = []
        var givenUp: [RecordNumber] = []
        var wasServing = false
        /// Lost synced records that no one has given back yet.
        var isShort = false
        /// The epoch that it had when it was started.
        var startedIn = Epoch.none
        /// What a running replica had durable in its epoch; it must not shrink (C6).
        var high: (epoch: Epoch, durable: RecordNumber) = (.none, .none)
    }
    struct Failure: Error { var text: String }

    let set = SetID(rawValue: 7)
    /// Disks damage records, and lose synced ones.
    let disksLie: Bool
    var random: SeededRandom
    var members: [Member]
    var now = Instant.zero
    var configurations: [SetConfiguration] = []
    /// By sender and receiver: messages under way, in order.
    var links: [[ReplicationMessage]]
    /// Messages that were delivered and may come again.
    var old: [ReplicationMessage] = []
    /// Configurations on their way to a member.
    var orders: [(member: Int, SetConfiguration)] = []
    /// Writes without an answer: tag (= sequence) to try again.
    var open: [UInt64] = []
    var nextWrite: UInt64 = 1
    /// Answered writes and the number they got.
    var acknowledged: [UInt64: RecordNumber] = [:]
    /// Which content a number has, once it was committed anywhere or read at a backup.
    var decided: [RecordNumber: Record] = [:]
    var servedBy: [Epoch: DiskID] = [:]
    var answeredReads = 0
    /// The first broken rule that was noticed within an event.
    var broken: String?

    init(seed: UInt64, count: Int = 3) {
        random = SeededRandom(seed: seed)
        disksLie = seed % 2 == 1
        members = Array(repeating: Member(), count: count)
        links = Array(repeating: [], count: count * count)
        for index in members.indices { start(index) }
        raiseEpoch()
    }

    func disk(_ index: Int) -> DiskID { DiskID(rawValue: UInt64(index) + 1) }
    func index(_ disk: DiskID) -> Int { Int(disk.rawValue) - 1 }

    // MARK: masters

    /// A new epoch whose primary is the member that is up, without rot, and furthest (issue 2).
    mutating func raiseEpoch() {
        let candidates = members.indices.filter { members[$0].replica?.hasRot == false }
        let best = candidates.max { left, right in
            guard let one = members[left].replica, let two = members[right].replica else {
                return false
            }
            return (one.adopted, one.durable) < (two.adopted, two.durable)
        }
        guard let best else { return }
        let epoch = configurations.last?.epoch.next ?? Epoch(rawValue: 1)
        let next = SetConfiguration(
            set: set, epoch: epoch, primary: disk(best), members: members.indices.map(disk))
        configurations.append(next)
        for member in members.indices { orders.append((member, next)) }
    }

    /// The primary of the last epoch.
    var primary: Int { configurations.last.map { index($0.primary) } ?? 0 }

    /// A new epoch of some of the disks; everybody hears of it.
    mutating func give(members: [Int], primary: Int, acceptsLoss: Bool = false) {
        var next = SetConfiguration(
            set: set, epoch: configurations.last?.epoch.next ?? Epoch(rawValue: 1),
            primary: disk(primary), members: members.map(disk))
        next.acceptsLoss = acceptsLoss
        configurations.append(next)
        for member in self.members.indices { step(member, .configure(next)) }
    }

    // MARK: members

    mutating func start(_ index: Int) {
        members[index].incarnation = Incarnation(
            rawValue: members[index].incarnation.rawValue + 1)
        members[index].replica = SetReplica(
            set: set, disk: disk(index), incarnation: members[index].incarnation,
            restored: members[index].disk.restored, now: now)
        members[index].startedIn = members[index].replica?.adopted ?? .none
        members[index].high = (.none, .none)
    }

    mutating func crash(_ index: Int, extra: Int) {
        members[index].replica = nil
        members[index].loads = []
        members[index].wasServing = false
        let tail = members[index].disk.log.count - members[index].disk.synced
        members[index].disk.crash(kept: random.below(tail + 1), extra: extra)
        if extra > 0 { members[index].isShort = true }
        for other in members.indices where other != index {
            breakLink(index, other)
            if members[other].replica != nil { step(other, .lost(disk(index))) }
        }
    }

    /// What was under way may still come, much later.
    mutating func breakLink(_ one: Int, _ two: Int) {
        for link in [one * members.count + two, two * members.count + one] {
            for message in links[link].suffix(8) {
                if old.count >= 64 { old.remove(at: random.below(64)) }
                old.append(message)
            }
            links[link] = []
        }
    }

    mutating func step(_ index: Int, _ event: ReplicaEvent) {
        guard var replica = members[index].replica else { return }
        members[index].replica = nil
        let effects = replica.step(event, now: now)
        for effect in effects {
            switch effect {
            case .appendEpoch(let start):
                replica.placed(at: members[index].disk.append(.start(start)))
            case .append(let record):
                replica.placed(at: members[index].disk.append(.record(record)))
            default: break
            }
        }
        members[index].replica = replica
        for effect in effects { carryOut(effect, at: index) }
    }

    private mutating func carryOut(_ effect: ReplicaEffect, at index: Int) {
        switch effect {
        case .appendEpoch, .append: break
        case .commit(let through): members[index].disk.committed = through
        case .send(let message):
            links[index * members.count + self.index(message.receiver)].append(message)
        case .load(let number): members[index].loads.append(number)
        case .answer(let tag, .committed(let number)):
            acknowledged[tag] = number
            open.removeAll { $0 == tag }
        case .answer: break
        case .repaired(let record): members[index].disk.damaged.remove(record.number)
        case .givenUp(let number):
            members[index].disk.damaged.remove(number)
            members[index].givenUp.append(number)
        case .alarm: break
        }
    }

    // MARK: clients

    mutating func write(_ index: Int, _ tag: UInt64) {
        guard members[index].replica?.takesWrites == true else { return }
        let session = SessionID(rawValue: 1)
        let sequence = RequestNumber(rawValue: tag)
        // The host looks the committed ones up (C15).
        let known = members[index].disk.alive().first {
            $0.sequence == sequence && $0.number <= members[index].disk.committed
        }
        if let known {
            acknowledged[tag] = known.number
            open.removeAll { $0 == tag }
            return
        }
        let draft = RecordDraft(
            session: session, sequence: sequence, firstUnacked: sequence, truncation: 0,
            body: .trim(
                ChunkID(inode: .root, index: UInt32(tag), version: 0), truncation: 1, from: 0))
        step(index, .write(tag: tag, [draft]))
    }

    mutating func read(_ index: Int) {
        let before = acknowledged.values.max() ?? RecordNumber.none
        guard let replica = members[index].replica, replica.mayServeReads(from: before) else {
            return
        }
        let through = replica.committed
        answeredReads += 1
        let alive = members[index].disk.alive(among: members[index].disk.synced)
        // All that was acknowledged before the read is here.
        if replica.durable < before || through < before {
            broken = broken ?? "a read at a backup misses acknowledged records"
        }
        // A record that only one member has is lost with its disk, read or not.
        guard !disksLie else { return }
        for record in alive where record.number <= through { decide(record) }
    }

    /// From now on the number has this content for ever.
    private mutating func decide(_ record: Record) {
        if let other = decided[record.number] {
            if other.sequence != record.sequence { broken = broken ?? "two contents of a record" }
        }
        decided[record.number] = record
    }
}

extension ReplicaWorld {
    // MARK: invariants

    /// Errors say which rule is broken.
    mutating func check() throws(Failure) {
        for index in members.indices {
            guard let replica = members[index].replica else { continue }
            let disk = members[index].disk
            let alive = disk.alive(among: disk.synced)
            guard replica.committed <= replica.durable || members[index].isShort else {
                throw Failure(text: "committed beyond what is durable")
            }
            guard alive.last?.number ?? .none >= replica.durable else {
                throw Failure(text: "counts as durable what is not (S2)")
            }
            for record in alive where record.number <= replica.committed { decide(record) }
            if replica.isServing {
                let epoch = replica.promised
                if let other = servedBy[epoch], other != replica.disk {
                    throw Failure(text: "two primaries of one epoch")
                }
                servedBy[epoch] = replica.disk
                if !members[index].wasServing { try checkReconciled(epoch) }
            }
            members[index].wasServing = replica.isServing
            let high = members[index].high
            if high.epoch == replica.adopted, replica.durable < high.durable {
                throw Failure(text: "log shrank within an epoch (C6)")
            }
            members[index].high = (replica.adopted, replica.durable)
            if replica.adopted > members[index].startedIn, replica.mayServeReads(from: .none) {
                members[index].isShort = false
            }
        }
        try checkAcknowledged()
        if let broken { throw Failure(text: broken) }
    }

    /// Acknowledged is durable on every member, running or not (C5), but for one whose disk lied.
    private func checkAcknowledged() throws(Failure) {
        for member in members where !member.isShort {
            let alive = member.disk.alive(among: member.disk.synced)
            for (tag, number) in acknowledged {
                let position = Int(number.rawValue) - 1
                guard position < alive.count, alive[position].sequence.rawValue == tag else {
                    throw Failure(text: "acknowledged write \(tag) is not on every member (C5)")
                }
            }
        }
    }

    /// Who begins to serve has heard from every member (C8).
    private func checkReconciled(_ epoch: Epoch) throws(Failure) {
        for member in members {
            let starts = member.disk.log.prefix(member.disk.synced).compactMap {
                if case .start(let start) = $0 { start } else { nil }
            }
            guard let start = starts.first(where: { $0.configuration.epoch == epoch }) else {
                throw Failure(text: "serves before every member adopted the epoch (C3, C8)")
            }
            let count = member.disk.alive(among: member.disk.synced).count
            guard UInt64(count) >= start.keepThrough.rawValue else {
                throw Failure(text: "serves before every member has keepThrough (C8)")
            }
        }
    }
}
