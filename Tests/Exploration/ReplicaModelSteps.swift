// The other parts of `ReplicaModel`: what can happen next, and what must hold.

import Base
import Namespace
import Replication

extension ReplicaModel {
    package mutating func expand(_ state: State, _ found: (Action, State, String?) -> Void) {
        let outside = outsides[state.outside]
        for message in state.messages {
            let receiver = position(messages[message].receiver)
            attempt(deliveries[Int(message)], at: receiver, state, outside, found)
        }
        for member in state.cells.indices { expand(member, state, outside, found) }
        guard outside.configurations.count <= scope.changes else { return }
        for next in changes(outside) {
            var later = outside
            later.configurations.append(next)
            later.ready = nil
            var after = state
            after.outside = outsides.number(of: notingReady(later, state.cells))
            found(Action(member: .max, event: events.number(of: .change(next))), after, nil)
        }
    }

    /// What can happen to one member besides messages.
    private mutating func expand(
        _ member: Int, _ state: State, _ outside: Outside,
        _ found: (Action, State, String?) -> Void
    ) {
        let disk = scope.disks[member]
        let facts = facts[Int(state.cells[member])]
        func number(_ event: Event) -> UInt32 { events.number(of: event) }
        for configuration in outside.configurations where configuration.epoch >= facts.promised {
            if configuration.members.contains(disk) {
                attempt(number(.order(configuration)), at: member, state, outside, found)
            }
            guard configuration.primary == disk, configuration.epoch == facts.promised,
                facts.isServing
            else { continue }
            for other in scope.disks where !configuration.members.contains(other) {
                attempt(
                    number(.fill(configuration.epoch, other)), at: member, state, outside, found)
            }
        }
        if facts.takesWrites {
            write(member, state, outside, found)
        }
        if facts.pending > 0 { attempt(number(.sync), at: member, state, outside, found) }
        if outside.restarts < scope.restarts {
            var later = outside
            later.restarts += 1
            for kept in 0...facts.pending {
                attempt(number(.restart(kept: kept)), at: member, state, later, found)
            }
        }
        if outside.silences < scope.silences, facts.learner != nil {
            var later = outside
            later.silences += 1
            attempt(number(.silence), at: member, state, later, found)
        }
        guard scope.hasLeases else { return }
        if facts.isServing { attempt(number(.want), at: member, state, outside, found) }
        if member == 0 { expire(state, outside, found) }
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
            attempt(events.number(of: .write(tag)), at: member, state, later, found)
        }
    }

    /// All leases and grants end; what was said of them means nothing any more.
    private mutating func expire(
        _ state: State, _ outside: Outside, _ found: (Action, State, String?) -> Void
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
            for message in reaction.sent { insert(message, &after) }
        }
        found(Action(member: .max, event: event), after, fault)
    }

    /// The state after an event at a member; nothing is found if it changes nothing.
    private mutating func attempt(
        _ event: UInt32, at member: Int, _ state: State, _ outside: Outside,
        _ found: (Action, State, String?) -> Void
    ) {
        let index = reaction(state.cells[member], event)
        if taken[index].isNothing { return }
        let reaction = taken[index]
        var after = state
        after.cells[member] = reaction.cell
        var fault = reaction.fault
        var later = outside
        for answer in reaction.answers {
            let known = later.acknowledged[Int(answer.tag) - 1]
            if let known, known != answer.number {
                fault = fault ?? "write \(answer.tag) became two records (C15)"
            }
            later.acknowledged[Int(answer.tag) - 1] = answer.number
        }
        later = notingReady(later, after.cells)
        after.outside = outsides.number(of: later)
        let before = facts[Int(state.cells[member])].promised
        if facts[Int(reaction.cell)].promised > before { forget(member, &after) }
        for message in reaction.sent { insert(message, &after) }
        found(Action(member: UInt8(member), event: event), after, fault)
    }

    /// The masters heard of a learner that may become a member, in the present epoch.
    private func notingReady(_ outside: Outside, _ cells: [UInt32]) -> Outside {
        let current = outside.current
        let primary = facts[Int(cells[position(current.primary)])]
        guard primary.promised == current.epoch, let learner = primary.learner, learner.isReady
        else { return outside }
        var later = outside
        later.ready = learner.disk
        return later
    }

    // MARK: messages

    private mutating func insert(_ message: UInt32, _ state: inout State) {
        if let instead = settled(message, state) {
            for other in instead { insert(other, &state) }
            return
        }
        let place = state.messages.partitioningIndex(message)
        if place < state.messages.count, state.messages[place] == message { return }
        state.messages.insert(message, at: place)
    }

    /// Takes the messages as delivered that a member refuses from now on.
    private mutating func forget(_ member: Int, _ state: inout State) {
        let old = state.messages
        let disk = scope.disks[member]
        state.messages = old.filter { messages[$0].receiver != disk }
        for message in old where messages[message].receiver == disk { insert(message, &state) }
    }

    /// What is said instead of a message whose receiver has left its epoch; nil if it may still do
    /// something there.
    private mutating func settled(_ number: UInt32, _ state: State) -> [UInt32]? {
        let message = messages[number]
        let member = position(message.receiver)
        let cell = state.cells[member]
        let promised = facts[Int(cell)].promised
        if case .stale = message.body { return message.epoch <= promised ? [] : nil }
        guard message.epoch < promised else { return nil }
        let reaction = taken[reaction(cell, deliveries[Int(number)])]
        return reaction.cell == cell ? reaction.sent : nil
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

extension [UInt32] {
    /// The first place of an ascending array whose element is not below `value`.
    fileprivate func partitioningIndex(_ value: UInt32) -> Int {
        var low = 0
        var high = count
        while low < high {
            let middle = (low + high) / 2
            if self[middle] < value { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
