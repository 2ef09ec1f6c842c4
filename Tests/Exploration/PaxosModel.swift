// The masters' Paxos in the small: the production node (`PaxosNode`), and everything around it that
// may go wrong.
//
//  action      what happens
//  deliver     a message arrives: late, in any order, or never; a bounded number of times it stays
//              on its way and may arrive again
//  lead        a master tries to lead, at any time
//  propose     a client's change reaches a leader; read: a question does
//  sync        what a master wrote becomes durable
//  promote     a leader proposes that the fourth master has the third one's vote (M17)
//  restart     a process ends, with any part of what was on its way to the disk, and begins again;
//              a bounded number of times its disk has lost what an entry says
//
// What must hold, at every state:
//  1. A slot that a majority accepted durably in one ballot is chosen, and never gets another
//     entry: not by another majority, not in anybody's log that is delivered (M2-M5).
//  2. What a master told of its promises and its log is there after a restart (S2).
//  3. A read is answered from no slot below one that was delivered anywhere when it came (M10).
//
// Not here: snapshots, other damage, heartbeats; the simulator has these. A step of a master
// depends on its cell and the event alone: it is taken once and remembered.

import Base
import Consensus

/// How much is explored; each bounds how often something happens in one run.
package struct PaxosScope: Sendable {
    /// How often a master tries to lead.
    package var leaderships = 2
    /// Changes of clients.
    package var proposals = 1
    /// Questions of clients.
    package var reads = 0
    /// Processes that end and begin again.
    package var restarts = 1
    /// Restarts of which the disk has lost what an entry says (docs/decisions/0015).
    package var losses = 0
    /// Messages that arrive and may arrive again.
    package var duplicates = 0
    /// That a record becomes durable is an action of its own, and a restart loses any end of what
    /// was not durable; otherwise every record is at once.
    package var hasSlowDisks = false
    /// It begins later: the first master leads, everybody has its log, and nothing is on its way.
    /// Counts as one leadership.
    package var beginsLed = false
    /// A fourth master is a learner, and may take the third one's place.
    package var replaces = false

    /// The defaults.
    package init() {}
    var masters: [MasterID] { (1...(replaces ? 4 : 3)).map { MasterID(rawValue: $0) } }
    func disk(of id: MasterID) -> DiskID { DiskID(rawValue: UInt64(id.rawValue)) }
    /// Of the first configuration.
    var membership: Membership {
        func address(_ id: MasterID) -> PeerAddress {
            PeerAddress(network: "\(id)", socket: "", machine: "")
        }
        let founders = masters.prefix(3).map {
            MasterMember(id: $0, address: address($0), disk: disk(of: $0))
        }
        let first = Membership(founders: founders)
        guard replaces, let last = masters.last,
            var next = try? first.adding(last, at: address(last), replacing: masters[2])
        else { return first }
        next.learn(disk(of: last), of: last)
        return next
    }
    /// Whose votes count in a configuration, by their places.
    func voters(_ configuration: UInt32) -> [Int] { configuration == 1 ? [0, 1, 2] : [0, 1, 3] }
}

/// See the head of this file.
package struct PaxosModel: Explorable {
    /// What was ever accepted durably in a ballot.
    private struct Votes: Hashable {
        var ballot: Ballot
        /// Of its log, by slot.
        var hashes: [EntryHash] = []
        /// Up to where each master accepted it.
        var through: [Int]
    }
    /// What the world knows.
    private struct Outside: Hashable {
        var leaderships = 0
        var proposals = 0
        var restarts = 0
        var losses = 0
        var duplicates = 0
        var reads = 0
        var promotions = 0
        var votes: [Votes] = []
        var chosen: [EntryHash] = []
        /// The highest slot that was delivered anywhere when the read came.
        var floor = 0
        var delivered = 0
    }
    /// A state: numbers of things that are kept.
    package struct State {
        var cells: [UInt32]
        var outside: UInt32
        /// In any order.
        var letters: [UInt32]
    }
    /// An action, by numbers.
    package struct Action {
        var member: Int
        var event: UInt32
    }
    private enum Event: Hashable {
        case deliver(PaxosLetter)
        case lead(UInt64)
        case propose(UInt8)
        case restart(kept: Int, lost: Int?)
        case read, sync, promote
    }
    private struct Reaction {
        var cell: UInt32
        var sent: [UInt32]
        var ready: [Slot]
        var fault: String?
    }
    /// What the checks ask of a cell.
    private struct Facts {
        var accepted: Ballot
        var promised: Ballot
        var end: Int
        var durable: Int
        var delivered: Int
        /// Of the log, by slot.
        var hashes: [EntryHash]
        var mayLead: Bool
        var isLeading: Bool
        var isServing: Bool
        var unsynced: Int
        var entries: Int

        init(_ cell: PaxosCell) {
            let node = cell.node
            accepted = node.accepted
            promised = node.promised
            end = Int(node.end.rawValue)
            durable = Int(node.durable.rawValue)
            delivered = Int(node.delivered.rawValue)
            hashes = (0..<end).map { node.hash(at: Slot(rawValue: UInt64($0 + 1))) }
            mayLead = node.isCandidate
            isLeading = node.isLeadingOrTrying
            isServing = node.isServing
            unsynced = cell.unsynced
            entries = cell.entries
        }
    }

    package let scope: PaxosScope
    private var cells = Interner<PaxosCell>()
    private var facts: [Facts] = []
    private var outsides = Interner<Outside>()
    private var letters = Interner<PaxosLetter>()
    /// Of the letter with the same number, its delivery.
    private var deliveries: [UInt32] = []
    private var events = Interner<Event>()
    private var reactions = StepTable()
    private var taken: [Reaction] = []

    /// A model of that scope.
    package init(_ scope: PaxosScope) { self.scope = scope }

    /// Cells that were met, steps that masters took, and messages that were sent.
    package var size: String {
        "\(cells.count) cells, \(taken.count) steps, \(letters.count) messages"
    }

    /// Empty disks, and nobody leads; or what `PaxosScope.beginsLed` says.
    package mutating func start() -> State {
        let cells = scope.masters.map { keep(PaxosCell($0, scope)) }
        let first = State(cells: cells, outside: outsides.number(of: Outside()), letters: [])
        return scope.beginsLed ? led(first) : first
    }

    /// The first master tries to lead, and every message arrives once, in order.
    private mutating func led(_ first: State) -> State {
        var state = first
        func go(_ event: UInt32, _ member: Int, _ model: inout Self) {
            var outside = model.outsides[state.outside]
            outside.leaderships = 1
            model.attempt(event, at: member, state, outside, nil) { _, after, fault in
                precondition(fault == nil)
                state = after
            }
        }
        func sync(_ model: inout Self) {
            let slow = state.cells.indices.filter {
                model.facts[Int(state.cells[$0])].unsynced > 0
            }
            for member in slow { go(model.events.number(of: .sync), member, &model) }
        }
        go(events.number(of: .lead(1)), 0, &self)
        sync(&self)
        var next = 0
        while next < letters.count {
            go(deliveries[next], Int(letters[UInt32(next)].to.rawValue) - 1, &self)
            sync(&self)
            next += 1
        }
        precondition(facts[Int(state.cells[0])].isServing, "the first master leads")
        state.letters = []
        return state
    }

    private mutating func keep(_ cell: PaxosCell) -> UInt32 {
        let number = cells.number(of: cell)
        if Int(number) == facts.count { facts.append(Facts(cell)) }
        return number
    }
    private mutating func keep(_ letter: PaxosLetter) -> UInt32 {
        let number = letters.number(of: letter)
        if Int(number) == deliveries.count {
            deliveries.append(events.number(of: .deliver(letter)))
        }
        return number
    }

    // MARK: Steps

    package mutating func expand(_ state: State, _ found: (Action, State, String?) -> Void) {
        for letter in state.letters {
            let to = Int(letters[letter].to.rawValue) - 1
            let event = deliveries[Int(letter)]
            var outside = outsides[state.outside]
            attempt(event, at: to, state, outside, letter, found)
            guard outside.duplicates < scope.duplicates else { continue }
            outside.duplicates += 1
            attempt(event, at: to, state, outside, nil, found)
        }
        let outside = outsides[state.outside]
        for member in state.cells.indices { expand(member, state, outside, found) }
    }

    private mutating func expand(
        _ member: Int, _ state: State, _ outside: Outside,
        _ found: (Action, State, String?) -> Void
    ) {
        let facts = facts[Int(state.cells[member])]
        func attempt(
            _ event: Event, _ model: inout Self, _ change: (inout Outside) -> Void = { _ in }
        ) {
            var later = outside
            change(&later)
            model.attempt(model.events.number(of: event), at: member, state, later, nil, found)
        }
        if facts.mayLead, outside.leaderships < scope.leaderships {
            // Each Begin says another time, so that no two are alike.
            attempt(.lead(UInt64(outside.leaderships + 1)), &self) { $0.leaderships += 1 }
        }
        if facts.isServing, outside.proposals < scope.proposals {
            attempt(.propose(UInt8(outside.proposals + 1)), &self) { $0.proposals += 1 }
        }
        if facts.isServing, outside.reads < scope.reads {
            attempt(.read, &self) {
                $0.reads += 1
                $0.floor = $0.delivered
            }
        }
        if facts.isServing, scope.replaces, outside.promotions == 0 {
            attempt(.promote, &self) { $0.promotions = 1 }
        }
        if facts.unsynced > 0 { attempt(.sync, &self) }
        guard outside.restarts < scope.restarts else { return }
        for kept in 0...facts.unsynced {
            attempt(.restart(kept: kept, lost: nil), &self) { $0.restarts += 1 }
        }
        guard outside.losses < scope.losses else { return }
        for lost in 0..<facts.entries {
            attempt(.restart(kept: 0, lost: lost), &self) {
                $0.restarts += 1
                $0.losses += 1
            }
        }
    }

    /// `arrived`: a letter that is not on its way any more.
    private mutating func attempt(
        _ event: UInt32, at member: Int, _ state: State, _ outside: Outside, _ arrived: UInt32?,
        _ found: (Action, State, String?) -> Void
    ) {
        let reaction = taken[reaction(state.cells[member], event)]
        var after = state
        after.cells[member] = reaction.cell
        after.letters.removeAll { $0 == arrived }
        for letter in reaction.sent where !after.letters.contains(letter) {
            after.letters.removeAll { isReplaced($0, by: letter) }
            after.letters.append(letter)
        }
        if !scope.hasSlowDisks {
            let receiver = facts[Int(reaction.cell)]
            after.letters.removeAll {
                isSettled($0, at: member, receiver)
            }
        }
        var outside = outside
        var fault = reaction.fault
        if reaction.cell != state.cells[member] {
            fault = fault ?? count(member, facts[Int(reaction.cell)], &outside)
        }
        if let slot = reaction.ready.first, slot.rawValue < outside.floor {
            fault = fault ?? "a read is answered from \(slot), not \(outside.floor) (M10)"
        }
        if case .restart = events[event] {
            fault = fault ?? told(member, facts[Int(reaction.cell)], state)
        }
        after.outside = outsides.number(of: outside)
        found(Action(member: member, event: event), after, fault)
    }

    private mutating func reaction(_ cell: UInt32, _ event: UInt32) -> Int {
        let key = UInt64(cell) << 32 | UInt64(event)
        if let known = reactions[key] { return Int(known) }
        var next = cells[cell]
        var result = PaxosCell.Result()
        let tag = PaxosTag(rawValue: 1)
        switch events[event] {
        case .deliver(let letter):
            result = next.step(.message(from: letter.from, letter.message), scope)
        case .lead(let time):
            result = next.lead(wall: Timestamp(nanoseconds: Int64(time)), scope)
        case .propose(let value): result = next.step(.propose(tag, [value]), scope)
        case .read: result = next.step(.readIndex(tag), scope)
        case .sync: result = next.sync(scope)
        case .promote: result = next.promoteLearner(scope)
        case .restart(let kept, let lost):
            result = next.restart(kept: kept, lost: lost, scope)
        }
        let sent = result.sent.map { keep($0) }
        taken.append(
            Reaction(
                cell: keep(next), sent: sent, ready: result.ready, fault: result.fault))
        reactions.insert(key, UInt32(taken.count - 1))
        return taken.count - 1
    }

    /// Whether a letter can't do anything any more to a receiver whose disk forgets nothing.
    private func isSettled(_ number: UInt32, at member: Int, _ receiver: Facts) -> Bool {
        let letter = letters[number]
        guard letter.to.rawValue == member + 1 else { return false }
        return switch letter.message {
        case .refuse(let ballot): ballot <= receiver.promised
        case .promise(let ballot, _), .fetched(let ballot, _), .syncProgress(let ballot, _, _),
            .probeAnswer(let ballot, _, _):
            isOver(ballot, receiver)
        case .accepted(let vote): isOver(vote.ballot, receiver)
        case .prepare, .fetch, .probe, .sync, .accept, .lead, .removed, .mend, .mended: false
        case .heartbeat: true
        }
    }
    /// Answers in a ballot of the receiver's, which it does not lead any more.
    private func isOver(_ ballot: Ballot, _ receiver: Facts) -> Bool {
        ballot < receiver.promised || ballot == receiver.promised && !receiver.isLeading
    }

    /// Whether the first letter says less of the same than the second: who gets it late could have
    /// got it before the second was sent.
    private func isReplaced(_ first: UInt32, by second: UInt32) -> Bool {
        let (first, second) = (letters[first], letters[second])
        guard first.from == second.from, first.to == second.to else { return false }
        switch (first.message, second.message) {
        case (.accepted(let old), .accepted(let new)):
            return old.ballot == new.ballot && old.hasGap == new.hasGap
                && old.durable <= new.durable && old.end <= new.end
        case (.refuse(let old), .refuse(let new)): return old <= new
        default: return false
        }
    }

    // MARK: Checks

    /// Counts a master's durable log as its vote, and compares what it delivered.
    private func count(_ member: Int, _ facts: Facts, _ outside: inout Outside) -> String? {
        if facts.accepted != .none {
            if let fault = vote(member, facts, &outside) { return fault }
        }
        outside.delivered = max(outside.delivered, facts.delivered)
        for slot in 0..<facts.delivered {
            guard slot < outside.chosen.count else {
                return "master \(member + 1) delivers slot \(slot + 1), which no majority has (M5)"
            }
            guard facts.hashes[slot] == outside.chosen[slot] else {
                return "master \(member + 1) delivers another entry at slot \(slot + 1) (M2)"
            }
        }
        return nil
    }

    private func vote(_ member: Int, _ facts: Facts, _ outside: inout Outside) -> String? {
        let place: Int
        if let known = outside.votes.firstIndex(where: { $0.ballot >= facts.accepted }) {
            place = known
        } else {
            place = outside.votes.count
        }
        if place == outside.votes.count || outside.votes[place].ballot != facts.accepted {
            outside.votes.insert(
                Votes(
                    ballot: facts.accepted,
                    through: Array(repeating: 0, count: scope.masters.count)), at: place)
        }
        for slot in 0..<facts.durable {
            if slot == outside.votes[place].hashes.count {
                outside.votes[place].hashes.append(facts.hashes[slot])
            } else if outside.votes[place].hashes[slot] != facts.hashes[slot] {
                return "two entries in ballot \(facts.accepted) at slot \(slot + 1) (M1)"
            }
        }
        let through = outside.votes[place].through
        outside.votes[place].through[member] = max(through[member], facts.durable)
        let voters = scope.voters(facts.accepted.configuration)
        let votes = voters.map { outside.votes[place].through[$0] }.sorted(by: >)
        for slot in 0..<votes[1] {
            let hash = outside.votes[place].hashes[slot]
            if slot == outside.chosen.count {
                outside.chosen.append(hash)
            } else if outside.chosen[slot] != hash {
                return "slot \(slot + 1) is chosen twice (M2-M5)"
            }
        }
        return nil
    }

    /// Whether a master that began again still has what it told.
    private func told(_ member: Int, _ facts: Facts, _ state: State) -> String? {
        for number in state.letters where letters[number].from.rawValue == member + 1 {
            switch letters[number].message {
            case .promise(let ballot, _) where ballot > facts.promised:
                return "master \(member + 1) forgot that it promised \(ballot) (S2)"
            case .accepted(let vote)
            where vote.durable > .none && vote.ballot > facts.accepted
                || vote.ballot == facts.accepted && vote.durable.rawValue > facts.end:
                return "master \(member + 1) forgot what it accepted in \(vote.ballot) (S2)"
            default: continue
            }
        }
        return nil
    }

    package func fault(of state: State) -> String? { nil }

    package func digest(of state: State) -> UInt128 {
        Exploration.digest(
            outside: state.outside, cells: state.cells, messages: state.letters)
    }

    package func describe(_ action: Action) -> String {
        switch events[action.event] {
        case .deliver(let letter): "\(letter.to) gets from \(letter.from): \(letter.message)"
        case let event: "master \(action.member + 1): \(event)"
        }
    }
}
