// A replica set in the small: the production replicas (`SetReplica`), the production rule for epoch
// changes (`SetConfiguration.mayFollow`), and everything around them that may go wrong.
//
//  action      what happens
//  deliver     a message that was ever sent arrives: late, again, in any order, or never
//  order       the masters' word about a configuration, old or new, reaches a member
//  change      the masters' log takes a next epoch: any members and any primary that the rule
//              allows, a new member only once the primary of the epoch reported it ready (C9)
//  fill        the order to fill a disk reaches a primary
//  write       a client's write reaches a serving primary, first or again
//  sync        the appends of a disk become durable
//  restart     a process ends, with any part of what was on its way to the disk, and begins again
//  silence     a primary waits for an answer in vain
//  want        a read wants a lease; `expire`: all leases and grants are over
//
// The masters may change an epoch for a run of a disk that is over: they refuse that in production,
// so the model has more behaviours. It also has all choices that their leader would not make.
//
// Not here: damage and repairs, full disks, loads that take time, and time that passes differently
// at different members; the simulator has these. A message that does nothing and never will is
// taken as delivered, and one that says less than a later one of its kind gives way to that.
//
// A step of a replica depends on its cell and the event alone: it is taken once and remembered. A
// state is three cells, the masters and the messages, all by the number under which they are kept.

import Base
import Namespace
import Replication

/// See the head of this file.
package struct ReplicaModel: Explorable {
    /// The masters, and what the clients know.
    struct Outside: Hashable {
        /// All epochs, from the first.
        var configurations: [SetConfiguration]
        /// The primary of the present epoch reported it ready.
        var ready: DiskID?
        /// Writes that were sent, and how often in all.
        var writes: UInt64 = 0
        var attempts = 0
        /// The numbers of answered writes, by write.
        var acknowledged: [RecordNumber?]
        var restarts = 0
        var silences = 0

        var current: SetConfiguration { configurations[configurations.count - 1] }
    }
    /// A state: numbers of things that are kept.
    package struct State {
        var cells: [UInt32]
        var outside: UInt32
        /// In any order.
        var messages: [UInt32]
    }
    /// An action, by numbers.
    package struct Action {
        var member: UInt8
        var event: UInt32
    }
    /// What happens at a member, or at the masters.
    enum Event: Hashable {
        case deliver(ReplicationMessage)
        case order(SetConfiguration)
        case fill(Epoch, DiskID)
        case write(UInt64)
        case restart(kept: Int)
        case sync, silence, want, expire
        case change(SetConfiguration)
    }
    /// What the masters may do next.
    struct Plan {
        /// An order that may reach a member.
        struct Order {
            var member: Int
            var epoch: Epoch
            var isFill: Bool
            var event: UInt32
        }
        var orders: [Order] = []
        var changes: [(event: UInt32, outside: UInt32)] = []
    }
    /// A step of a cell.
    struct Reaction {
        var cell: UInt32
        var sent: [UInt32] = []
        var answers: [(tag: UInt64, number: RecordNumber)] = []
        var fault: String?
        var isNothing: Bool
        /// A message that can do nothing more to the cell than it did now.
        var isSettled = false
    }

    package let scope: Scope
    var cells = Interner<Cell>()
    var facts: [CellFacts] = []
    var outsides = Interner<Outside>()
    var messages = Interner<ReplicationMessage>()
    var events = Interner<Event>()
    var letters: [Letter] = []
    private var groups = Interner<ReplicationMessage>()
    private var reactions = StepTable()
    var taken: [Reaction] = []
    var plans: [Plan] = []
    var planOf: [UInt32: Int] = [:]

    /// A model of that scope.
    package init(_ scope: Scope) { self.scope = scope }

    /// Cells that were met, steps that replicas took, and messages that were sent.
    package var size: String {
        "\(cells.count) cells, \(taken.count) steps, \(messages.count) messages"
    }

    // MARK: the start

    /// The first epoch in force with all members following and nothing under way; or what
    /// `Scope.beginsAlone` says.
    package mutating func start() -> State {
        let disks = scope.disks
        let first = SetConfiguration(
            set: scope.set, epoch: Epoch.none.next, primary: disks[0], members: disks,
            minMembers: scope.minMembers)
        var outside = Outside(
            configurations: [first],
            acknowledged: Array(repeating: nil, count: scope.writes))
        var members = disks.map { Cell(disk: $0, scope: scope) }
        settle(&members, members.indices.map { ($0, .configure(first)) })
        var messages: [UInt32] = []
        if scope.beginsAlone {
            let sent = members[0].step(.write(tag: 1, [draft(1)]), scope).sent
            messages = sent.map { keep($0) }
            outside.writes = 1
            outside.attempts = 1
            let second = SetConfiguration(
                set: scope.set, epoch: first.epoch.next, primary: disks[1],
                members: [disks[1]], minMembers: scope.minMembers)
            precondition(second.mayFollow(first), "nothing may begin alone with so many members")
            outside.configurations.append(second)
            settle(&members, [(1, .configure(second))])
        }
        return State(
            cells: members.map { keep($0) }, outside: outsides.number(of: outside),
            messages: messages)
    }

    /// Everything is delivered at once, and durable.
    private func settle(_ members: inout [Cell], _ events: [(Int, ReplicaEvent)]) {
        var waiting = events
        var delivered: Set<ReplicationMessage> = []
        while !waiting.isEmpty {
            let (index, event) = waiting.removeFirst()
            var sent = members[index].step(event, scope).sent
            while !members[index].pending.isEmpty {
                sent += members[index].step(members[index].sync(), scope).sent
            }
            for message in sent where delivered.insert(message).inserted {
                waiting.append((position(message.receiver), .message(message)))
            }
        }
    }

    func position(_ disk: DiskID) -> Int { Int(disk.rawValue) - 1 }

    mutating func keep(_ cell: Cell) -> UInt32 {
        let number = cells.number(of: cell)
        if Int(number) == facts.count { facts.append(CellFacts(cell)) }
        return number
    }

    mutating func keep(_ message: ReplicationMessage) -> UInt32 {
        let number = messages.number(of: message)
        if Int(number) == letters.count {
            let (group, rank) = message.rank
            letters.append(
                Letter(
                    event: events.number(of: .deliver(message)),
                    receiver: position(message.receiver), group: groups.number(of: group),
                    rank: rank))
        }
        return number
    }

    // MARK: steps of a cell

    /// What an event does to a cell.
    mutating func reaction(_ cell: UInt32, _ event: UInt32) -> Int {
        let key = UInt64(cell) << 32 | UInt64(event)
        if let known = reactions[key] { return Int(known) }
        let reaction = react(cell, events[event])
        taken.append(reaction)
        reactions.insert(key, UInt32(taken.count - 1))
        return taken.count - 1
    }

    private mutating func react(_ number: UInt32, _ event: Event) -> Reaction {
        var cell = cells[number]
        var result = Cell.Result()
        var isRestart = false
        switch event {
        case .deliver(let message): result = cell.step(.message(message), scope)
        case .order(let configuration): result = cell.step(.configure(configuration), scope)
        case .fill(let epoch, let disk): result = cell.step(.fill(epoch, learner: disk), scope)
        case .write(let tag): result = cell.step(.write(tag: tag, [draft(tag)]), scope)
        case .sync: result = cell.step(cell.sync(), scope)
        case .silence: result = cell.step(.tick, scope, now: .zero + Limits.memberSilence)
        case .want: result = cell.step(.wantLease, scope)
        case .restart(let kept):
            cell.restart(kept: kept, scope)
            isRestart = true
        case .expire:
            cell.replica.forgetTimes(leases: true)
            result = cell.step(.tick, scope)
        case .change: preconditionFailure("the masters' own")
        }
        let next = keep(cell)
        var sent: [UInt32] = []
        for message in result.sent {
            let kept = keep(message)
            if !sent.contains(kept) { sent.append(kept) }
        }
        let fault = facts[Int(next)].fault(after: facts[Int(number)], isRestart: isRestart)
        var isSettled = false
        if next == number, case .deliver(let message) = event {
            isSettled = isOver(message, facts[Int(number)])
        }
        return Reaction(
            cell: next, sent: sent, answers: result.answers, fault: fault ?? result.alarm,
            isNothing: next == number && sent.isEmpty && result.answers.isEmpty,
            isSettled: isSettled)
    }

    /// Whether a message that changed nothing at its receiver never will. Within an epoch what was
    /// learned is not forgotten, but for a primary after a silence. That a late prepare changes
    /// nothing is what C6 claims, so those stay.
    private func isOver(_ message: ReplicationMessage, _ receiver: CellFacts) -> Bool {
        if case .stale = message.body { return message.epoch <= receiver.promised }
        if message.epoch != receiver.promised { return message.epoch < receiver.promised }
        let isIn = receiver.adopted == receiver.promised
        switch message.body {
        case .beacon(_, let sent): return isIn && sent <= receiver.prepared
        case .query, .begin, .fetched: return isIn
        case .acknowledge, .state: return isIn && scope.silences == 0
        // What is sent again is still under way from the first time.
        case .missing, .fetch: return true
        default: return false
        }
    }

    private func draft(_ tag: UInt64) -> RecordDraft {
        RecordDraft(
            session: SessionID(rawValue: 1), sequence: RequestNumber(rawValue: tag),
            firstUnacked: RequestNumber(rawValue: 1), truncation: 0,
            body: .trim(
                ChunkID(inode: .root, index: UInt32(tag), version: 0), truncation: 1, from: 0))
    }

    // MARK: digests

    package func digest(of state: State) -> UInt128 {
        Exploration.digest(
            outside: state.outside, cells: state.cells, messages: state.messages)
    }
}

/// What is known of a message under its number.
struct Letter {
    /// Its delivery.
    var event: UInt32
    /// The receiver's position.
    var receiver: Int
    /// Of the messages of one group, one that says no less than another replaces it: who gets the
    /// other one late could have got it before this one was sent.
    var group: UInt32
    var rank: (UInt64, UInt64)
}

extension ReplicationMessage {
    /// What it has in common with messages that it may replace, and how much it says.
    fileprivate var rank: (ReplicationMessage, (UInt64, UInt64)) {
        var group = self
        switch body {
        case .prepare(let committed, let records):
            group.body = .prepare(committed: .none, records)
            return (group, (committed.rawValue, 0))
        case .beacon(let committed, let sent):
            group.body = .beacon(committed: .none, sent: .none)
            return (group, (committed.rawValue, sent.rawValue))
        case .acknowledge(let durable, let committed, let fill, let isStrained):
            group.body = .acknowledge(
                durable: .none, committed: committed, fill: fill, isStrained: isStrained)
            return (group, (durable.rawValue, 0))
        case .stale:
            group.epoch = .none
            return (group, (epoch.rawValue, 0))
        default: return (group, (0, 0))
        }
    }
}
