// The sets of a disk: what a replica wants done, what its peers say, and what the masters order.

import Base
import Node
import Replication
import Store
import Wire

/// A replica with what the host keeps for it.
struct HostedSet: Sendable {
    var replica: SetReplica
    /// Where the members are, as far as known.
    var servers: [(disk: DiskID, server: ServerID)] = []
    /// Writes that wait for the replica, oldest first.
    var waiting = Fifo<PendingWrite>()
    /// Trims that were logged and are not committed: the highest of each chunk.
    var trims: [ChunkID: UInt32] = [:]
    /// Reads that wait for a trim of their chunk.
    var afterTrim: [(asker: Asker, request: ReadRequest)] = []
    /// Reads that wait for the primary's lease (C11), and until when.
    var afterLease: [(asker: Asker, request: ReadRequest)] = []
    var leasePatience = Instant.zero
    /// The last read that waited for the lease did not get it.
    var isLeaseLost = false
    /// What it has taken of the credit of other servers.
    var charged: [(server: ServerID, bytes: Int)] = []
    /// When the replica wants to be stepped.
    var deadline: Instant?
    /// A comparison that waits for the commit of its record, and whose it is.
    var held: (request: CompareRequest, primary: DiskID, epoch: Epoch)?
    /// As the replica was after its last step: to ask it costs a copy of it.
    private(set) var isLearner = false
    private(set) var isBackup = false
    /// What the leader acknowledged last.
    var reported: SetReport?

    mutating func learn(_ disk: DiskID, at server: ServerID) {
        if let index = servers.firstIndex(where: { $0.disk == disk }) {
            servers[index].server = server
        } else {
            servers.append((disk, server))
        }
    }

    /// Steps the replica where it is: a copy of it for each question costs as much as the step.
    /// `isNews`: the leader wants to hear of it at once. `isPressed`: it serves, and another member
    /// has no space. `hurtsLearner`: what it copies slows clients down where it goes.
    mutating func step(
        _ event: ReplicaEvent, fill: DiskFill, copyBudget: Int, isStrained: Bool, now: Instant
    ) -> (effects: [ReplicaEffect], isNews: Bool, isPressed: Bool, hurtsLearner: Bool) {
        replica.diskFill = fill
        replica.copyBudget = copyBudget
        replica.isStrained = isStrained
        let before = Standing(replica)
        let effects = replica.step(event, now: now)
        deadline = replica.deadline
        isLearner = replica.isLearner
        isBackup = replica.isBackup && !isLearner
        let isPressed = replica.isServing && replica.othersFill != .roomy
        return (effects, Standing(replica) != before, isPressed, replica.isLearnerStrained)
    }

    /// Takes from the credit of other servers what is on its way to them now, and gives back the
    /// rest: the changes.
    mutating func recharge() -> [(server: ServerID, change: Int)] {
        let inFlight = replica.inFlight
        if inFlight.isEmpty, charged.isEmpty { return [] }
        var changes = charged.map { (server: $0.server, change: -$0.bytes) }
        charged = inFlight.compactMap { peer in
            let home = servers.first { $0.disk == peer.disk }
            return home.map { ($0.server, peer.bytes) }
        }
        for new in charged {
            if let index = changes.firstIndex(where: { $0.server == new.server }) {
                changes[index].change += new.bytes
            } else {
                changes.append((new.server, new.bytes))
            }
        }
        return changes
    }
}

/// What the leader wants to hear of at once.
private struct Standing: Hashable {
    var adopted: Epoch
    var isServing: Bool
    var hasRot: Bool
    var isLearnerReady: Bool
    var silent: Int

    init(_ replica: SetReplica) {
        adopted = replica.adopted
        isServing = replica.isServing
        hasRot = replica.hasRot
        isLearnerReady = replica.learner?.isReady ?? false
        silent = replica.silent.count
    }
}

extension ChunkServerCore {
    /// Takes over what the store found; from now on the core serves (C10).
    mutating func becomeReady() {
        guard let superblock = store.superblock else { return }
        disk = superblock.disk
        incarnation = superblock.incarnation
        for set in store.sets {
            addSet(set)
            let damaged = store.rot(set).reduce(0) {
                $0 + $1.upperBound.rawValue - $1.lowerBound.rawValue + 1
            }
            if damaged > 0 { alarm("\(damaged) records of set \(set) are damaged on disk \(disk)") }
        }
        phase = .serving
        leader.nextReport = now
    }

    @discardableResult
    private mutating func addSet(_ set: SetID) -> Int {
        let index = sets.count
        sets.append(
            HostedSet(
                replica: SetReplica(
                    set: set, disk: disk, incarnation: incarnation, restored: restored(set),
                    now: now)))
        places[set] = index
        return index
    }

    // MARK: stepping

    /// Steps a replica and carries out what it wants.
    mutating func step(_ index: Int, _ event: ReplicaEvent) {
        throttle.turn(now)
        let wasServing = sets[index].replica.isServing
        let (wanted, isNews, isPressed, hurtsLearner) = sets[index].step(
            event, fill: store.fill, copyBudget: throttle.budget,
            isStrained: throttle.isStrained, now: now)
        store.press(sets[index].replica.set, isPressed)
        throttle.spend(throttle.budget - sets[index].replica.copyBudget)
        if hurtsLearner { throttle.noteStrain() }
        if sets[index].replica.wantsCopyBudget, !starving.contains(index) {
            starving.append(index)
        }
        for effect in wanted { carryOut(effect, index) }
        charge(index)
        if isNews { leader.isUrgent = true }
        if !wasServing, sets[index].replica.isServing { fences.due.append(index) }
        if !sets[index].waiting.isEmpty { drainable.append(index) }
        wakeReads(index)
    }

    /// Counts what the set has on its way to other servers (DESIGN 3.2, Back-pressure).
    private mutating func charge(_ index: Int) {
        var isFreed = false
        for (server, change) in sets[index].recharge() {
            credit[server, default: 0] += change
            if change < 0 { isFreed = true }
        }
        guard isFreed else { return }
        drainable += thirsty
        thirsty = []
    }

    /// Whether every other member's server may be sent more.
    func hasCredit(_ index: Int) -> Bool {
        sets[index].charged.allSatisfy { credit[$0.server, default: 0] < Limits.prepareCredit }
    }

    private mutating func carryOut(_ effect: ReplicaEffect, _ index: Int) {
        guard phase != .failed else { return }
        switch effect {
        case .appendEpoch(let start): adopt(start, index)
        case .append(let record): append(record, index)
        case .commit(let through): commit(through: through, index)
        case .send(let message): send(message, index)
        case .load(let number): load(number, index)
        case .answer(let tag, let outcome): finishWrite(tag, outcome)
        case .repaired(let record): repair(record)
        case .givenUp(let number): giveUp(number, index)
        case .alarm(let text): alarm(text)
        }
    }

    mutating func placed(_ index: Int, at place: LogNumber) {
        sets[index].replica.placed(at: place)
        load.appended(at: place, now)
        if sets[index].isBackup { throttle.appended(at: place, now) }
        guard !unsynced.contains(index) else { return }
        unsynced.append(index)
        unsynced.sort()
    }

    /// Tells the replicas what is durable now.
    mutating func becomeDurable(through place: LogNumber) {
        load.durable(through: place, now)
        throttle.durable(through: place, now)
        let waiting = unsynced
        unsynced = []
        for index in waiting {
            step(index, .durable(through: place))
            if sets[index].replica.isAppending, !unsynced.contains(index) {
                unsynced.append(index)
            }
        }
        unsynced.sort()
    }

    /// Steps the replicas whose learners may be sent more.
    mutating func goOnCopying() {
        guard !starving.isEmpty else { return }
        throttle.turn(now)
        guard throttle.budget > 0 else { return }
        let waiting = starving
        starving = []
        for index in waiting { step(index, .tick) }
    }

    /// Steps the replicas whose time has come.
    mutating func wakeSets() {
        for index in sets.indices {
            guard let deadline = sets[index].deadline, deadline <= now else { continue }
            step(index, .tick)
        }
    }

    // MARK: peers

    mutating func send(_ message: ReplicationMessage, _ index: Int) {
        let home = sets[index].servers.first { $0.disk == message.receiver }
        // Where a member is comes with the masters' orders; until then the message counts as lost.
        guard let home else { return }
        var writer = ByteWriter(capacity: 160)
        message.encode(into: &writer)
        let frame = Frame(
            kind: .replication, request: 0, head: writer.bytes, pieces: message.payloads)
        effects.append(.send(.server(home.server), frame))
    }

    mutating func takeReplication(_ frame: Frame, from server: ServerID) {
        let message: ReplicationMessage
        do throws(DecodeError) {
            message = try ReplicationMessage(head: frame.head, payload: frame.payload)
        } catch {
            alarm("chunk server \(server) sent a message that cannot be read: \(error)")
            return
        }
        guard message.receiver == disk, message.sender != disk else { return }
        guard hasGoodPayload(message) else {
            // It counts as lost; the sender has the record and sends it again (D9).
            alarm("chunk server \(server) sent damaged bytes of set \(message.set)")
            return
        }
        guard let index = place(of: message) else { return }
        sets[index].learn(message.sender, at: server)
        switch message.body {
        case .compare(let request):
            takeCompare(request, from: message.sender, message.epoch, index)
        case .compared(let answer):
            takeCompared(answer, from: message.sender, message.epoch, index)
        case .copy(let request):
            takeCopy(request, from: message.sender, message.epoch, index)
        case .copied(let request, let extent):
            takeCopied(request, extent, message.epoch, index)
        // They count as lost until the cleaner has made room, and are sent again (C20).
        case .prepare, .fetched:
            if store.takesNumbered(data: message.payloadLength) {
                step(index, .message(message))
            }
        default: step(index, .message(message))
        }
    }

    /// The set of a message; the query for a new set may come before the masters' order, and a
    /// learner gets none of them.
    private mutating func place(of message: ReplicationMessage) -> Int? {
        if let index = places[message.set] { return index }
        guard case .query = message.body else { return nil }
        return addSet(message.set)
    }

    private func hasGoodPayload(_ message: ReplicationMessage) -> Bool {
        switch message.body {
        case .prepare(_, let records): records.allSatisfy { isSound($0.body) }
        case .fetched(_, .record(let record)): isSound(record.body)
        case .copied(_, let extent): isSound(.write(extent))
        default: true
        }
    }

    /// Whether stored bytes have the checksum that travels with them (D9).
    func isSound(_ body: RecordBody) -> Bool {
        guard case .write(let extent) = body else { return true }
        return Checksum(of: extent.payload) == extent.stored
    }

    mutating func loseServer(_ server: ServerID) {
        for index in sets.indices {
            for home in sets[index].servers where home.server == server {
                step(index, .lost(home.disk))
            }
        }
    }

    // MARK: configurations

    /// A configuration by order of the masters (C1).
    mutating func configure(_ view: SetView, isAnswer: Bool) {
        let next = view.configuration
        guard next.members.contains(disk) else { return }
        let index = places[next.set] ?? addSet(next.set)
        for location in view.locations where location.disk != disk {
            sets[index].learn(location.disk, at: location.server)
            effects.append(.address(.server(location.server), location.address))
        }
        if isAnswer, let reported = sets[index].reported, next.epoch < reported.epoch {
            // The masters lost state: nothing is changed or deleted, an operator must look (C10).
            alarm(
                "set \(next.set) is in epoch \(reported.epoch) here, \(next.epoch) at the masters")
            return
        }
        step(index, .configure(next))
    }

    /// A disk that is to become a member (C9).
    mutating func carryOut(_ fill: FillOrder) {
        guard let index = places[fill.set] else { return }
        let learner = fill.learner
        sets[index].learn(learner.disk, at: learner.server)
        effects.append(.address(.server(learner.server), learner.address))
        step(index, .fill(fill.epoch, learner: learner.disk))
    }

    /// A set whose copy here is in the way (C14).
    mutating func carryOut(discard configuration: SetConfiguration) {
        guard let index = places[configuration.set] else { return }
        step(index, .discard(configuration))
    }
}
