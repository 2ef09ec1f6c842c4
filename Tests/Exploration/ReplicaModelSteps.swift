// The other parts of `ReplicaModel`: what can happen next, and what must hold.

import Base
import Namespace
import Replication

extension ReplicaModel {
    package mutating func expand(_ state: State, _ found: (Action, State, String?) -> Void) {
        for message in state.messages {
            let letter = letters[Int(message)]
            attempt(letter.event, at: letter.receiver, state, state.outside, found)
        }
        let plan = plan(state.outside)
        for order in plans[plan].orders {
            let facts = facts[Int(state.cells[order.member])]
            guard order.isFill ? facts.isServing : order.epoch >= facts.promised else { continue }
            attempt(order.event, at: order.member, state, state.outside, found)
        }
        for change in plans[plan].changes {
            var after = state
            after.outside = change.outside
            found(Action(member: .max, event: change.event), after, nil)
        }
        for member in state.cells.indices { expand(member, state, found) }
    }

    /// What the masters may say and do; it depends on them alone.
    private mutating func plan(_ number: UInt32) -> Int {
        if let known = planOf[number] { return known }
        let outside = outsides[number]
        var plan = Plan()
        for configuration in outside.configurations {
            for disk in scope.disks {
                let isMember = configuration.members.contains(disk)
                let fill = Event.fill(configuration.epoch, disk)
                plan.orders.append(
                    Plan.Order(
                        member: position(isMember ? disk : configuration.primary),
                        epoch: configuration.epoch, isFill: !isMember,
                        event: events.number(of: isMember ? .order(configuration) : fill)))
            }
        }
        for next in outside.configurations.count <= scope.changes ? changes(outside) : [] {
            var later = outside
            later.configurations.append(next)
            later.ready = nil
            let after = outsides.number(of: later)
            plan.changes.append((events.number(of: .change(next)), after))
        }
        plans.append(plan)
        planOf[number] = plans.count - 1
        return plans.count - 1
    }

    /// What can happen to one member besides messages and orders.
    private mutating func expand(
        _ member: Int, _ state: State, _ found: (Action, State, String?) -> Void
    ) {
        let outside = outsides[state.outside]
        let facts = facts[Int(state.cells[member])]
        func number(_ event: Event) -> UInt32 { events.number(of: event) }
        if facts.takesWrites {
            write(member, state, outside, found)
        }
        if facts.pending > 0 { attempt(number(.sync), at: member, state, state.outside, found) }
        if outside.restarts < scope.restarts {
            var later = outside
            later.restarts += 1
            let after = outsides.number(of: later)
            for kept in 0...facts.pending {
                attempt(number(.restart(kept: kept)), at: member, state, after, found)
            }
        }
        if outside.silences < scope.silences, facts.learner != nil {
            var later = outside
            later.silences += 1
            let after = outsides.number(of: later)
            attempt(number(.silence), at: member, state, after, found)
        }
        guard scope.hasLeases else { return }
        if facts.isServing { attempt(number(.want), at: member, state, state.outside, found) }
        if member == 0 { expire(state, found) }
    }

    private mutating func write(
        _ member: Int, _ state: State, _ outside: Outside,
        _ found: (Action, State, String?) -> Void
    ) {
        guard outside.attempts < scope.writes + scope.retries else { return }
        let last = min(outside.writes + 1, UInt64(scope.writes))
        for tag in 1...max(1, last) where outside.acknowledged[Int(tag) - 1] == nil {
            var later = outside
            later.attempts += 1
            later.writes = max(later.writes, tag)
            guard later.attempts - Int(later.writes) <= scope.retries else { continue }
            let after = outsides.number(of: later)
            attempt(events.number(of: .write(tag)), at: member, state, after, found)
        }
    }

    /// All leases and grants end; what was said of them means nothing any more.
    private mutating func expire(
        _ state: State, _ found: (Action, State, String?) -> Void
    ) {
        let event = events.number(of: .expire)
        var after = state
        var fault: String?
        after.messages.removeAll {
            switch messages[$0].body {
            case .lease, .granted: true
            default: false
            }
        }
        for member in state.cells.indices {
            let reaction = taken[reaction(state.cells[member], event)]
            after.cells[member] = reaction.cell
            fault = fault ?? reaction.fault
            settle(member, &after, reaction.sent)
        }
        found(Action(member: .max, event: event), after, fault)
    }

    /// The state after an event at a member, `outside` being what it is outside then; nothing is
    /// found if nothing changes.
    private mutating func attempt(
        _ event: UInt32, at member: Int, _ state: State, _ outside: UInt32,
        _ found: (Action, State, String?) -> Void
    ) {
        let index = reaction(state.cells[member], event)
        if taken[index].isNothing { return }
        let reaction = taken[index]
        var after = state
        after.outside = outside
        after.cells[member] = reaction.cell
        var fault = reaction.fault
        let learner = facts[Int(reaction.cell)].learner
        if !reaction.answers.isEmpty || learner?.isReady == true {
            fault = noting(reaction, at: member, &after) ?? fault
        }
        settle(member, &after, reaction.sent)
        found(Action(member: UInt8(member), event: event), after, fault)
    }

    /// The clients hear of answers, and the masters of a learner that may become a member.
    private mutating func noting(
        _ reaction: Reaction, at member: Int, _ state: inout State
    ) -> String? {
        var outside = outsides[state.outside]
        var fault: String?
        for answer in reaction.answers {
            let known = outside.acknowledged[Int(answer.tag) - 1]
            if let known, known != answer.number {
                fault = "write \(answer.tag) became two records (C15)"
            }
            outside.acknowledged[Int(answer.tag) - 1] = answer.number
        }
        let facts = facts[Int(reaction.cell)]
        let epoch = outside.configurations.first { $0.epoch == facts.promised }
        if !reaction.answers.isEmpty, epoch?.members.count ?? 0 < scope.minMembers {
            fault = fault ?? "a write was acknowledged by too few members (C5)"
        }
        if facts.promised == outside.current.epoch, let learner = facts.learner, learner.isReady {
            outside.ready = learner.disk
        }
        state.outside = outsides.number(of: outside)
        return fault
    }

    // MARK: messages

    /// Adds what was sent after a step of a member, and takes the messages as delivered that can
    /// do nothing more there.
    private mutating func settle(_ member: Int, _ state: inout State, _ sent: [UInt32]) {
        let cell = state.cells[member]
        var waiting = sent
        var place = 0
        while place < state.messages.count {
            let letter = letters[Int(state.messages[place])]
            if letter.receiver == member {
                let index = reaction(cell, letter.event)
                if taken[index].isSettled {
                    waiting += taken[index].sent
                    state.messages.swapAt(place, state.messages.count - 1)
                    state.messages.removeLast()
                    continue
                }
            }
            place += 1
        }
        // A settled message may be answered by one that is settled too, and that by the first.
        var next = 0
        while next < waiting.count {
            let message = waiting[next]
            next += 1
            let letter = letters[Int(message)]
            let index = reaction(state.cells[letter.receiver], letter.event)
            if taken[index].isSettled {
                for other in taken[index].sent where !waiting.contains(other) {
                    waiting.append(other)
                }
            } else {
                insert(message, letter, &state.messages)
            }
        }
    }

    private func insert(_ message: UInt32, _ letter: Letter, _ messages: inout [UInt32]) {
        for (place, other) in messages.enumerated()
        where letters[Int(other)].group == letter.group {
            let rank = letters[Int(other)].rank
            if rank.0 >= letter.rank.0, rank.1 >= letter.rank.1 { return }
            guard rank.0 <= letter.rank.0, rank.1 <= letter.rank.1 else { continue }
            messages[place] = message
            return
        }
        messages.append(message)
    }

    // MARK: the masters

    /// Every next epoch that the rule allows; whoever is no member must have been reported ready,
    /// but for who wants to be the primary: that is the rule's affair alone (C2).
    private func changes(_ outside: Outside) -> [SetConfiguration] {
        let old = outside.current
        var changes: [SetConfiguration] = []
        for bits in 1..<1 << scope.members {
            let members = scope.disks.filter { bits >> position($0) & 1 == 1 }
            for primary in members {
                let isKnown = members.allSatisfy {
                    old.members.contains($0) || $0 == outside.ready || $0 == primary
                }
                let next = SetConfiguration(
                    set: old.set, epoch: old.epoch.next, primary: primary, members: members,
                    minMembers: old.minMembers)
                if isKnown, next.mayFollow(old) { changes.append(next) }
            }
        }
        return changes
    }

    // MARK: invariants

    package func fault(of state: State) -> String? {
        let outside = outsides[state.outside]
        let current = outside.current
        let all = state.cells.map { facts[Int($0)] }
        for (index, number) in outside.acknowledged.enumerated() {
            guard let number else { continue }
            for disk in current.members
            where all[position(disk)].write(number) != UInt64(index) + 1 {
                return "write \(index + 1), acknowledged as \(number), is not on disk \(disk) (C5)"
            }
        }
        for cell in all {
            if cell.epochOnDisk > current.epoch { return "an epoch that the masters don't have" }
            for disk in current.members {
                let member = all[position(disk)]
                if member.prefix(cell.committed) != cell.prefix(cell.committed) {
                    return "a committed record is not on disk \(disk), or is another (C5)"
                }
            }
        }
        for primary in all where primary.isServing {
            if let text = fault(of: primary, all, outside) { return text }
        }
        return nil
    }

    private func fault(
        of primary: CellFacts, _ all: [CellFacts], _ outside: Outside
    ) -> String? {
        var primaries = 0
        for cell in all where cell.promised == primary.promised {
            primaries += cell.isServing ? 1 : 0
            if cell.isFollowing, cell.committed > primary.committed {
                return "a backup believes committed what its primary does not"
            }
        }
        if primaries > 1 { return "two primaries serve one epoch (C1)" }
        let mayRead =
            scope.hasLeases ? primary.hasLease : primary.promised == outside.current.epoch
        let newest = outside.acknowledged.reduce(RecordNumber.none) { max($0, $1 ?? .none) }
        return mayRead && primary.committed < newest
            ? "a read at a serving primary misses record \(newest) (C8, C11)" : nil
    }

    // MARK: words

    package func describe(_ action: Action) -> String {
        let event = events[action.event]
        if case .change(let next) = event { return "masters: \(next.text)" }
        guard action.member != .max else { return "\(event)" }
        let disk = scope.disks[Int(action.member)]
        guard case .deliver(let message) = event else {
            if case .order(let configuration) = event {
                return "disk \(disk) is told of \(configuration.text)"
            }
            return "disk \(disk): \(event)"
        }
        return "disk \(disk) hears from \(message.sender) in \(message.epoch): \(message.body)"
    }
}

extension SetConfiguration {
    fileprivate var text: String {
        let names = members.map { $0 == primary ? "[\($0)]" : "\($0)" }
        return "epoch \(epoch) of \(names.joined(separator: " "))"
    }
}
