// Servers that are drained and removed, and plans of moves (C19).

import Base
import Namespace
import Testing

private func server(_ value: UInt64) -> ServerID { ServerID(rawValue: value) }
private func disk(_ value: UInt64) -> DiskID { DiskID(rawValue: value) }

extension Cell {
    fileprivate mutating func operate(_ operation: Operation) -> Outcome {
        change(.operate(operation))
    }
    fileprivate mutating func refuses(
        _ cause: Refusal.Cause, _ subject: UInt64, _ operation: Operation,
        location: SourceLocation = #_sourceLocation
    ) {
        let state = namespace.lastRebalance
        let found = operate(operation)
        #expect(found == .refused(Refusal(cause, subject)), sourceLocation: location)
        #expect(namespace.lastRebalance == state, sourceLocation: location)
    }

    /// A fourth server and disk.
    fileprivate mutating func grow() { expect(.done, registration(4, incarnation: 1)) }

    /// The set's members are these now, by as many epochs as that takes.
    fileprivate mutating func give(_ set: SetID, _ members: [UInt64]) {
        guard var next = namespace.set(set)?.configuration else { return }
        next.epoch = next.epoch.next
        next.members = members.map(disk)
        if !next.members.contains(next.primary) { next.primary = next.members[0] }
        let incarnations = members.map { _ in Incarnation(rawValue: 1) }
        expect(.set(next), .changeEpoch(next, incarnations: incarnations))
    }

    fileprivate func move(_ set: Int, _ from: UInt64, _ to: UInt64) -> ReplicaMove {
        ReplicaMove(
            set: sets[set], epoch: namespace.set(sets[set])?.configuration.epoch ?? .none,
            from: disk(from), to: disk(to), bytes: 7)
    }
    fileprivate var moveStates: [ReplicaMove.State] {
        namespace.lastRebalance?.moves.map(\.state) ?? []
    }
}

@Suite struct OperationTests {
    @Test("A loss is accepted for the epoch that was looked at, by members of it (decision 0020)")
    func acceptLoss() throws {
        var cell = Cell()
        let set = cell.sets[0]
        let old = try #require(cell.namespace.set(set)).configuration
        func accept(_ epoch: Epoch, _ members: [UInt64], _ primary: UInt64) -> Operation {
            .acceptLoss(set, epoch, members: members.map(disk), primary: disk(primary))
        }
        cell.refuses(
            .unknownSet, 99,
            .acceptLoss(SetID(rawValue: 99), old.epoch, members: [disk(1)], primary: disk(1)))
        cell.refuses(.changedSet, set.rawValue, accept(old.epoch.next, [1], 1))
        cell.refuses(.changedSet, set.rawValue, accept(old.epoch, [4], 4))
        cell.refuses(.changedSet, set.rawValue, accept(old.epoch, [1, 2], 3))
        cell.refuses(.changedSet, set.rawValue, accept(old.epoch, [], 1))
        #expect(cell.namespace.set(set)?.configuration == old)
        var next = old
        next.epoch = old.epoch.next
        next.members = [disk(2)]
        next.primary = disk(2)
        next.acceptsLoss = true
        #expect(cell.operate(accept(old.epoch, [2], 2)) == .set(next))
        #expect(cell.namespace.set(set)?.configuration == next)
        cell.refuses(.changedSet, set.rawValue, accept(old.epoch, [2], 2))
        // A former member, where the last one is gone; not beside others.
        cell.refuses(.changedSet, set.rawValue, accept(next.epoch, [1, 2], 1))
        cell.refuses(.changedSet, set.rawValue, accept(next.epoch, [1, 3], 1))
        next.epoch = next.epoch.next
        next.members = [disk(3)]
        next.primary = disk(3)
        #expect(cell.operate(accept(old.epoch.next, [3], 3)) == .set(next))
        // The masters themselves take only members.
        var other = next
        other.epoch = next.epoch.next
        other.acceptsLoss = false
        other.members = [disk(1)]
        other.primary = disk(1)
        cell.expect(.conflict, .changeEpoch(other, incarnations: [Incarnation(rawValue: 1)]))
        cell.expectEqualTwins()
    }

    @Test("A server is drained while enough others are left, and that can be taken back")
    func drain() {
        var cell = Cell()
        cell.refuses(.unknownServer, 9, .drain(server(9), isDraining: true))
        // Sets of three on three disks: there is no place for the copies of one.
        cell.refuses(.tooFewDisks, 3, .drain(server(1), isDraining: true))
        cell.grow()
        #expect(cell.operate(.drain(server(1), isDraining: true)) == .done)
        #expect(cell.namespace.isDraining(disk(1)) && !cell.namespace.isDraining(disk(2)))
        cell.refuses(.tooFewDisks, 3, .drain(server(2), isDraining: true))
        // Once more changes nothing, and it can be taken back.
        #expect(cell.operate(.drain(server(1), isDraining: true)) == .done)
        #expect(cell.namespace.drainingServers == [server(1)])
        #expect(cell.operate(.drain(server(1), isDraining: false)) == .done)
        #expect(cell.namespace.drainingServers.isEmpty)
        #expect(cell.operate(.drain(server(2), isDraining: true)) == .done)
        cell.expectEqualTwins()
    }

    @Test("A disk that holds a copy is not forgotten; one that was may come back as a new one")
    func removeDisk() {
        var cell = Cell()
        cell.grow()
        cell.refuses(.holdsCopy, cell.sets[0].rawValue, .removeDisk(disk(2)))
        for set in cell.sets { cell.give(set, [1, 3, 4]) }
        #expect(cell.namespace.holdsCopy(disk(1)) && !cell.namespace.holdsCopy(disk(2)))
        cell.expect(.done, .operate(.removeDisk(disk(2))))
        #expect(cell.namespace.disk(disk(2)) == nil && cell.namespace.server(server(2)) != nil)
        cell.expect(.done, .operate(.removeDisk(disk(2))))
        cell.expect(.done, cell.registration(2, incarnation: 1))
        #expect(cell.namespace.disk(disk(2)) != nil)
        cell.expectEqualTwins()
    }

    @Test("A server that holds a copy is not removed; one that was removed does not come back")
    func remove() {
        var cell = Cell()
        cell.grow()
        cell.refuses(.unknownServer, 9, .removeServer(server(9)))
        cell.refuses(.holdsCopy, cell.sets[0].rawValue, .removeServer(server(2)))
        #expect(cell.operate(.drain(server(2), isDraining: true)) == .done)
        for set in cell.sets { cell.give(set, [1, 3, 4]) }
        #expect(cell.operate(.removeServer(server(2))) == .done)
        #expect(cell.namespace.server(server(2)) == nil && cell.namespace.disk(disk(2)) == nil)
        #expect(cell.namespace.drainingServers.isEmpty)
        cell.expect(.conflict, cell.registration(2, incarnation: 2))
        #expect(cell.namespace.server(server(2)) == nil)
        cell.expectEqualTwins()
    }

    @Test("A plan is refused whole when it is stale, senseless or not the only one")
    func refusals() {
        var cell = Cell()
        cell.grow()
        func plan(_ id: UInt64, _ moves: [ReplicaMove]) -> Operation {
            .startRebalance(Rebalance(id: id, bytesPerSecond: 0, moves: moves))
        }
        let good = cell.move(0, 1, 4)
        cell.refuses(.emptyPlan, 5, plan(5, []))
        cell.refuses(.emptyPlan, 0, plan(0, [good]))
        for bad in [
            cell.move(0, 4, 1), cell.move(0, 1, 2), cell.move(0, 1, 1), cell.move(0, 1, 9),
        ] { cell.refuses(.badMove, cell.sets[0].rawValue, plan(5, [bad])) }
        cell.refuses(.badMove, cell.sets[0].rawValue, plan(5, [good, good]))
        var stale = good
        stale.epoch = stale.epoch.next
        cell.refuses(.stale, cell.sets[0].rawValue, plan(5, [cell.move(1, 1, 4), stale]))
        #expect(cell.namespace.lastRebalance == nil)
        cell.refuses(.unknownPlan, 5, .setRebalance(id: 5, .paused))
        #expect(cell.operate(plan(5, [good])) == .done)
        cell.refuses(.openPlan, 5, plan(6, [cell.move(1, 1, 4)]))
        cell.refuses(.unknownPlan, 6, .setRebalance(id: 6, .paused))
        // Only the masters say that it is finished.
        cell.refuses(.unknownPlan, 5, .setRebalance(id: 5, .finished))
        for state in [.paused, .running, .cancelled] as [RebalanceState] {
            #expect(cell.operate(.setRebalance(id: 5, state)) == .done)
            #expect(cell.namespace.lastRebalance?.state == state)
        }
        cell.refuses(.unknownPlan, 5, .setRebalance(id: 5, .running))
        #expect(cell.operate(plan(6, [cell.move(1, 1, 4)])) == .done)
        cell.expectEqualTwins()
    }

    @Test("Moves end by what happens to their sets, whoever caused it")
    func ends() {
        var cell = Cell()
        cell.grow()
        let moves = [cell.move(0, 1, 4), cell.move(1, 1, 4), cell.move(2, 1, 4)]
        let plan = Rebalance(id: 5, bytesPerSecond: 3, moves: moves)
        #expect(cell.operate(.startRebalance(plan)) == .done)
        cell.give(cell.sets[0], [2, 3, 4])
        #expect(cell.moveStates == [.done, .waiting, .waiting])
        // The copy that was to go is lost, before another is there.
        cell.give(cell.sets[1], [2, 3])
        #expect(cell.moveStates == [.done, .skipped, .waiting])
        // A repair put a copy where the plan wanted this one: there is nothing left to move.
        cell.give(cell.sets[2], [1, 2])
        #expect(cell.moveStates[2] == .waiting)
        cell.give(cell.sets[2], [1, 2, 4])
        #expect(cell.moveStates == [.done, .skipped, .skipped])
        #expect(cell.namespace.lastRebalance?.state == .finished)
        cell.expectEqualTwins()
    }

    @Test("Moves to a server that is removed are skipped")
    func removedPlace() {
        var cell = Cell()
        cell.grow()
        let plan = Rebalance(id: 5, bytesPerSecond: 0, moves: [cell.move(0, 1, 4)])
        #expect(cell.operate(.startRebalance(plan)) == .done)
        #expect(cell.operate(.removeServer(server(4))) == .done)
        #expect(cell.moveStates == [.skipped])
        #expect(cell.namespace.lastRebalance?.state == .finished)
        cell.expectEqualTwins()
    }
}
