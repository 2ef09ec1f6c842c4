// A group of Paxos nodes on a bad network and disks that forget what was not synced. Checks after
// every event: one value per slot, no promise goes back, chosen means durable on a majority, no
// stale read.

import Base
import Consensus

/// What a run found wrong.
struct Violation: Error, CustomStringConvertible {
    var description: String
}

/// The odds of a run.
struct Faults {
    /// Per 1,000 messages.
    var loss = 0
    var duplicates = 0
    /// Longest delay of a message and of a disk sync, in milliseconds.
    var delay = 3
    /// Per 1,000 steps of 5 ms.
    var crashes = 0
    var partitions = 0
}

extension PaxosNode {
    /// One of the masters of a cell, each on the disk that is known.
    init(
        id: MasterID, members: [MasterID], base: PaxosBase = .none, records: [PaxosRecord],
        hasRot: Bool, seed: UInt64, now: Instant
    ) {
        self.init(
            id: id, disk: founder(id).disk,
            members: Membership(founders: members.map { founder($0) }),
            base: base, records: records, hasRot: hasRot, seed: seed, now: now)
    }
}

func founder(_ id: MasterID) -> MasterMember {
    MasterMember(
        id: id, address: PeerAddress(network: "m\(id)", socket: "", machine: ""),
        disk: DiskID(rawValue: UInt64(id.rawValue)))
}

struct PaxosNetwork {
    struct Member {
        var node: PaxosNode?
        /// On disk, and how many of these are durable.
        var records: [PaxosRecord] = []
        var durable = 0
        /// Tickets of this life start after this many records.
        var base = 0
        var delivered = 0
        var restartAt = Instant.zero
        /// What it told others; must hold after a restart.
        var toldPromise = Ballot.none
    }
    private enum Happening {
        case message(from: Int, to: Int, [UInt8])
        case synced(Int, through: Int, life: Int)
    }
    private struct Scheduled {
        var time: Int64
        var order: UInt64
        var happening: Happening
    }

    var members: [Member]
    var faults: Faults
    private var lives: [Int]
    private var random: SeededRandom
    private var queue: [Scheduled] = []
    private var order: UInt64 = 0
    private(set) var now = Instant(nanoseconds: 1_000_000_000)
    /// The hash of every slot that any node called chosen.
    private(set) var chosen: [EntryHash] = []
    private var cut: [[Bool]]
    private(set) var acknowledged: [PaxosTag] = []
    private(set) var failedProposals = 0
    private(set) var leaders: [Ballot] = []
    /// Reads: the highest chosen slot anywhere when each began.
    private var reads: [PaxosTag: Slot] = [:]
    private(set) var readsDone = 0
    private(set) var messages = 0
    private var nextTag: UInt64 = 1
    private let ids: [MasterID]

    init(count: Int, seed: UInt64, faults: Faults = Faults()) {
        random = SeededRandom(seed: seed)
        self.faults = faults
        ids = (1...count).map { MasterID(rawValue: UInt16($0)) }
        members = Array(repeating: Member(), count: count)
        lives = Array(repeating: 0, count: count)
        cut = Array(repeating: Array(repeating: false, count: count), count: count)
        for index in 0..<count { start(index) }
    }

    // MARK: Nodes

    mutating func start(_ index: Int, hasRot: Bool = false) {
        let node = PaxosNode(
            id: ids[index], members: ids, records: members[index].records, hasRot: hasRot,
            seed: random.next(), now: now)
        members[index].node = node
        members[index].delivered = 0
        members[index].base = members[index].records.count
    }
    mutating func crash(_ index: Int) {
        members[index].node = nil
        lives[index] += 1
        // What was not synced may be there in part: a prefix, for the log cuts at the first gap.
        let kept =
            members[index].durable
            + random.below(members[index].records.count - members[index].durable + 1)
        members[index].records.removeLast(members[index].records.count - kept)
        members[index].durable = kept
        members[index].restartAt = now + .milliseconds(Int64(50 + random.below(1_500)))
    }
    var servingNodes: [Int] {
        members.indices.filter { members[$0].node?.isServing ?? false }
    }
    mutating func setCut(_ from: Int, _ to: Int, _ value: Bool) { cut[from][to] = value }
    mutating func heal() {
        cut = cut.map { $0.map { _ in false } }
        faults = Faults()
    }

    // MARK: Running

    /// Runs for so long, in steps of 5 ms; `each` may propose and so on between them.
    mutating func run(
        _ span: Interval, each: (inout PaxosNetwork) throws -> Void = { _ in }
    ) throws {
        let end = now + span
        while now < end {
            now = now + .milliseconds(5)
            while let index = earliest(), queue[index].time <= now.nanoseconds {
                try happen(queue.remove(at: index).happening)
            }
            for index in members.indices {
                if members[index].node == nil {
                    if now >= members[index].restartAt { start(index) }
                } else if random.chance(faults.crashes, of: 1_000) {
                    crash(index)
                }
                let wall = Timestamp(nanoseconds: now.nanoseconds)
                try step(index, .tick(wall))
            }
            if random.chance(faults.partitions, of: 1_000) {
                let (from, to) = (random.below(members.count), random.below(members.count))
                cut[from][to].toggle()
            }
            try each(&self)
        }
    }
    private func earliest() -> Int? {
        queue.indices.min {
            (queue[$0].time, queue[$0].order) < (queue[$1].time, queue[$1].order)
        }
    }
    private mutating func happen(_ happening: Happening) throws {
        switch happening {
        case .message(let from, let to, let bytes):
            var reader = ByteReader(bytes)
            let message = try PaxosMessage(from: &reader)
            try reader.finish()
            try step(to, .message(from: ids[from], message))
        case .synced(let index, let through, let life):
            guard life == lives[index] else { return }
            members[index].durable = max(members[index].durable, through)
            let ticket = PaxosTicket(rawValue: UInt64(through - members[index].base))
            try step(index, .persisted(through: ticket))
        }
    }
    private mutating func schedule(_ happening: Happening) {
        let delay = Int64(random.below(faults.delay * 1_000) + 100) * 1_000
        order += 1
        queue.append(
            Scheduled(time: now.nanoseconds + delay, order: order, happening: happening))
    }

    mutating func propose(_ index: Int, size: Int = 10) throws {
        let tag = PaxosTag(rawValue: nextTag)
        nextTag += 1
        var writer = ByteWriter(capacity: size)
        writer.write(tag)
        writer.append(repeatElement(7, count: max(0, size - 8)))
        try step(index, .propose(tag, writer.bytes))
    }
    mutating func read(_ index: Int) throws {
        let tag = PaxosTag(rawValue: nextTag)
        nextTag += 1
        reads[tag] = Slot(rawValue: UInt64(chosen.count))
        try step(index, .readIndex(tag))
    }

    mutating func step(_ index: Int, _ event: PaxosEvent) throws {
        guard let effects = members[index].node?.step(event, now: now) else { return }
        for effect in effects { try carryOut(effect, index) }
        guard let node = members[index].node else { return }
        if node.promised < members[index].toldPromise {
            throw Violation(description: "node \(index + 1) forgot its promise")
        }
    }

    private mutating func carryOut(_ effect: PaxosEffect, _ index: Int) throws {
        switch effect {
        case .persist(let record, _):
            try persist(record, index)
        case .send(let to, let message):
            try send(message, index, Int(to.rawValue) - 1)
        case .chosen(let entry): try check(entry, index)
        case .becameLeader(let ballot):
            if leaders.contains(ballot) { throw Violation(description: "ballot led twice") }
            leaders.append(ballot)
        case .readReady(let tag, let slot):
            readsDone += 1
            if let before = reads.removeValue(forKey: tag), slot < before {
                throw Violation(description: "stale read: \(slot) < \(before)")
            }
        case .proposalFailed: failedProposals += 1
        case .stoppedLeading, .readFailed, .ordered: break
        case .diverged(let slot): throw Violation(description: "diverged at \(slot)")
        }
    }
    private mutating func persist(_ record: PaxosRecord, _ index: Int) throws {
        var header = ByteWriter()
        record.encodeHeader(into: &header)
        let back = try PaxosRecord(header: header.bytes[...], payload: record.payload)
        guard back == record else { throw Violation(description: "record coding") }
        members[index].records.append(record)
        schedule(.synced(index, through: members[index].records.count, life: lives[index]))
    }
    private mutating func send(_ message: PaxosMessage, _ from: Int, _ to: Int) throws {
        messages += 1
        switch message {
        case .promise(let ballot, let state) where state.isTrusted:
            members[from].toldPromise = max(members[from].toldPromise, ballot)
        case .accepted(let state):
            members[from].toldPromise = max(members[from].toldPromise, state.ballot)
        default: break
        }
        var writer = ByteWriter()
        message.encode(into: &writer)
        guard writer.count <= Limits.frameHead else {
            throw Violation(description: "message over a frame")
        }
        if cut[from][to] || random.chance(faults.loss, of: 1_000) { return }
        schedule(.message(from: from, to: to, writer.bytes))
        if random.chance(faults.duplicates, of: 1_000) {
            schedule(.message(from: from, to: to, writer.bytes))
        }
    }

    // MARK: Checks

    private mutating func check(_ entry: ChosenEntry, _ index: Int) throws {
        guard entry.slot.rawValue == UInt64(members[index].delivered) + 1,
            let hash = members[index].node?.hash(at: entry.slot)
        else { throw Violation(description: "delivered out of order") }
        members[index].delivered += 1
        if let tag = entry.tag { acknowledged.append(tag) }
        if Int(entry.slot.rawValue) <= chosen.count {
            guard chosen[Int(entry.slot.rawValue) - 1] == hash else {
                throw Violation(description: "two values in slot \(entry.slot)")
            }
            return
        }
        chosen.append(hash)
        if entry.slot.rawValue % 4 == 0 { try checkMajority(entry.slot, hash) }
    }
    /// A slot that is chosen is in the durable log of a majority.
    private func checkMajority(_ slot: Slot, _ hash: EntryHash) throws {
        let holders = members.indices.filter { index in
            let node = PaxosNode(
                id: ids[index], members: ids,
                records: Array(members[index].records.prefix(members[index].durable)),
                hasRot: false, seed: 0, now: now)
            return node.end >= slot && node.hash(at: slot) == hash
        }
        if holders.count * 2 <= members.count {
            throw Violation(description: "slot \(slot) chosen on \(holders.count) disks")
        }
    }
    /// Every node has delivered everything, and holds the same.
    func checkConverged() throws {
        for member in members where member.delivered != chosen.count {
            let rot = member.node?.hasRot ?? false
            throw Violation(
                description: "\(member.delivered) of \(chosen.count) delivered, rot \(rot)")
        }
    }
    /// A generator for the test's own choices.
    mutating func fork() -> SeededRandom { random.fork() }
}
