// What an operator asks for, carried out by whole masters: one path makes every copy (C19).

import Base
import Master
import Testing
import Wire

extension MasterGroup {
    fileprivate func operate(
        _ session: SessionID, _ number: UInt64, _ operation: Operation
    ) -> MetadataReply? { change(session, number, .operate(operation)) }

    fileprivate func members(_ set: SetID) -> [DiskID] {
        guard case .map(let map) = query(.map(after: SetID(rawValue: 0))) else { return [] }
        return map.sets.first { $0.id == set }?.configuration.members ?? []
    }
    fileprivate var operations: CellOperations? {
        guard case .operations(let status) = query(.operations) else { return nil }
        return status
    }
    /// Four servers and a set on the first three of them, with something in it.
    fileprivate static func withSet() throws -> (MasterGroup, SetID) {
        let group = MasterGroup(masters: 3, servers: 4)
        group.servers[3].isUp = false
        group.run(milliseconds: 2_500)
        let set = try #require(group.servers[0].views.keys.min())
        for index in 0..<3 {
            group.servers[index].sets[set]?.prepared = RecordNumber(rawValue: 5)
            group.servers[index].sets[set]?.stored = 1 << 20
        }
        try #require(group.members(set).count == 3)
        group.servers[3].isUp = true
        group.run(milliseconds: 500)
        return (group, set)
    }
}

@Suite struct OperationTests {
    @Test("A drained server's copies go elsewhere without a set ever lacking one (C19)")
    func drain() throws {
        let (group, set) = try MasterGroup.withSet()
        let session = try #require(group.openSession(1))
        let drained = group.servers[1]
        #expect(group.operate(session, 1, .drain(drained.id, isDraining: true)) == .done)
        let isEmpty = group.run { group in
            let members = group.servers[0].views[set]?.members ?? []
            #expect(members.count == 3)
            return !members.contains(drained.disk)
        }
        #expect(isEmpty)
        let goal = [0, 2, 3].map { group.servers[$0].disk }
        #expect(group.members(set) == goal)
        // What is left on the drained server is in the way, and is emptied (C14).
        group.run(milliseconds: 1_000)
        #expect(group.servers[1].discards.contains { $0.set == set && $0.members == goal })
        group.run(milliseconds: 3_000)
        #expect(group.operate(session, 2, .removeServer(drained.id)) == .done)
        #expect(group.alarms.isEmpty && group.halts.isEmpty)
    }

    @Test("A plan's moves are made, also by the next leader, and the plan ends")
    func plan() throws {
        let (group, set) = try MasterGroup.withSet()
        let session = try #require(group.openSession(1))
        let epoch = try #require(group.servers[0].views[set]).epoch
        let move = ReplicaMove(
            set: set, epoch: epoch, from: group.servers[0].disk, to: group.servers[3].disk,
            bytes: 1 << 20)
        let plan = Rebalance(id: 9, bytesPerSecond: 0, moves: [move])
        #expect(group.operate(session, 1, .startRebalance(plan)) == .done)
        group.crash(try #require(group.leader))
        let isDone = group.run { $0.servers[3].views[set]?.members.count == 3 }
        #expect(isDone)
        #expect(group.members(set) == [1, 2, 3].map { group.servers[$0].disk })
        let status = try #require(group.operations?.rebalance)
        #expect(status.state == .finished && status.moves.map(\.state) == [.done])
    }

    @Test("A paused plan moves nothing; what was being filled is let go")
    func pause() throws {
        let (group, set) = try MasterGroup.withSet()
        let session = try #require(group.openSession(1))
        let view = try #require(group.servers[0].views[set])
        let move = ReplicaMove(
            set: set, epoch: view.epoch, from: group.servers[0].disk,
            to: group.servers[3].disk, bytes: 1 << 20)
        group.servers[3].isUp = false
        group.run(milliseconds: 3_000)
        let plan = Rebalance(id: 9, bytesPerSecond: 0, moves: [move])
        #expect(group.operate(session, 1, .startRebalance(plan)) == .done)
        #expect(group.operate(session, 2, .setRebalance(id: 9, .paused)) == .done)
        group.servers[3].isUp = true
        group.run(milliseconds: 3_000)
        #expect(group.members(set) == view.members)
        #expect(group.servers.allSatisfy { !$0.fills.contains { $0.set == set } })
        #expect(group.operate(session, 3, .setRebalance(id: 9, .running)) == .done)
        let isDone = group.run { $0.servers[3].views[set]?.members.count == 3 }
        #expect(isDone)
    }

    @Test("Sets that can take no chunks do not make a master create sets without end")
    func fullSets() throws {
        let (group, _) = try MasterGroup.withSet()
        // Every member but one is drained or down: nothing can be opened in the sets there are.
        let session = try #require(group.openSession(1))
        #expect(group.operate(session, 1, .drain(group.servers[0].id, isDraining: true)) == .done)
        group.servers[1].isUp = false
        group.run(milliseconds: 8_000)
        let before = try #require(group.status()).sets.total
        group.run(milliseconds: 4_000)
        #expect(try #require(group.status()).sets.total == before && before < 40)
    }
}
