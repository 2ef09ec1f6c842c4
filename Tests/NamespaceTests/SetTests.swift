// Servers, disks and sets: the configuration of replication (C1, C10).

import Base
import Namespace
import Testing

private func disk(_ value: UInt64) -> DiskID { DiskID(rawValue: value) }
private func incarnations(_ values: UInt64...) -> [Incarnation] {
    values.map { Incarnation(rawValue: $0) }
}

@Test("An epoch changes by compare and set only, and never backwards (C1)")
func epochs() throws {
    var cell = Cell()
    let set = cell.sets[0]
    let first = try #require(cell.namespace.set(set)).configuration
    #expect(first.epoch == Epoch(rawValue: 1) && first.members == [disk(1), disk(2), disk(3)])
    var next = first
    next.epoch = first.epoch.next
    next.primary = disk(2)
    let change = Command.Action.changeEpoch(next, incarnations: incarnations(2, 1, 1))
    // Nobody knows of such a run yet.
    cell.expect(.conflict, change)
    cell.expect(.done, cell.registration(1, incarnation: 2))
    cell.expect(.set(next), change)
    cell.expect(.conflict, change)
    #expect(cell.namespace.set(set)?.configuration == next)
    #expect(cell.namespace.set(set)?.incarnations == incarnations(2, 1, 1))
    var bad = next
    bad.epoch = next.epoch.next
    cell.expect(.conflict, .changeEpoch(bad, incarnations: incarnations(1, 1, 1)))
    cell.expect(.conflict, .changeEpoch(bad, incarnations: incarnations(2, 1)))
    bad.members = [disk(1), disk(2)]
    cell.expect(.conflict, .changeEpoch(bad, incarnations: incarnations(2, 1, 1)))
    bad = next
    bad.epoch = Epoch(rawValue: 9)
    cell.expect(.conflict, .changeEpoch(bad, incarnations: incarnations(2, 1, 1)))
    bad.epoch = .none
    cell.expect(.conflict, .changeEpoch(bad, incarnations: incarnations(2, 1, 1)))
    bad.set = SetID(rawValue: 50)
    bad.epoch = Epoch(rawValue: 1)
    cell.expect(.conflict, .changeEpoch(bad, incarnations: incarnations(2, 1, 1)))
    #expect(cell.namespace.set(set)?.configuration == next)
    cell.expectEqualTwins()
}

@Test("Members leave down to the least number or the last, and come singly, not as primary (C2)")
func members() {
    var cell = Cell()
    let disks = (1...3).map { disk($0) }
    cell.expect(.done, cell.registration(4, incarnation: 7))
    let create = Command.Action.createSet(members: disks, primary: disk(1), minMembers: 3)
    guard case .set(let first) = cell.run(create) else {
        Issue.record("no set")
        return
    }
    var next = first
    next.epoch = first.epoch.next
    next.members = [disk(2), disk(3)]
    next.primary = disk(2)
    cell.expect(.conflict, .changeEpoch(next, incarnations: incarnations(1, 1)))
    next.members = [disk(4)]
    next.primary = disk(4)
    cell.expect(.conflict, .changeEpoch(next, incarnations: incarnations(7)))
    // The last one goes on alone, and is filled up again.
    next.members = [disk(2)]
    next.primary = disk(2)
    var fewer = next
    fewer.minMembers = 1
    cell.expect(.conflict, .changeEpoch(fewer, incarnations: incarnations(1)))
    cell.expect(.set(next), .changeEpoch(next, incarnations: incarnations(1)))
    next.epoch = next.epoch.next
    next.members = [disk(1), disk(2), disk(4)]
    cell.expect(.conflict, .changeEpoch(next, incarnations: incarnations(1, 1, 7)))
    next.members = [disk(2), disk(4)]
    next.primary = disk(4)
    cell.expect(.conflict, .changeEpoch(next, incarnations: incarnations(1, 7)))
    next.primary = disk(2)
    cell.expect(.conflict, .changeEpoch(next, incarnations: incarnations(1, 6)))
    cell.expect(.set(next), .changeEpoch(next, incarnations: incarnations(1, 7)))
    cell.expectEqualTwins()
}

@Test("What extends announce of a set is in its views, and never goes back")
func announcedNumbers() {
    var cell = Cell()
    let file = cell.create("f")
    let set = cell.sets[1]
    func number(_ value: UInt64) -> RecordNumber { RecordNumber(rawValue: value) }
    for (value, expected) in [(5, 5), (3, 5), (9, 9)] as [(UInt64, UInt64)] {
        cell.succeeds(
            .extend(
                [FileEnd(inode: file, end: 1, truncation: 0, modified: .zero)],
                numbers: [
                    SetNumber(set: set, number: number(value)),
                    SetNumber(set: SetID(rawValue: 99), number: number(1)),
                ]))
        let view = cell.namespace.setView(set) { _ in true }
        #expect(view?.number == number(expected))
    }
    cell.expectEqualTwins()
}

@Test("A set is of known disks, each once, with its primary among them")
func createSets() {
    var cell = Cell()
    let all = [disk(1), disk(2), disk(3)]
    for (members, primary) in [
        ([], disk(1)), (all, disk(4)), ([disk(2), disk(1)], disk(1)),
        ([disk(1), disk(1)], disk(1)), ([disk(1), disk(9)], disk(1)),
    ] { cell.expect(.conflict, .createSet(members: members, primary: primary)) }
    let expected = SetConfiguration(
        set: SetID(rawValue: 4), epoch: Epoch(rawValue: 1), primary: disk(3),
        members: [disk(1), disk(3)])
    cell.expect(.set(expected), .createSet(members: [disk(1), disk(3)], primary: disk(3)))
    cell.expect(.done, .setFull(SetID(rawValue: 4)))
    cell.expect(.conflict, .setFull(SetID(rawValue: 5)))
    #expect(cell.namespace.openSets.map(\.configuration.set) == cell.sets)
    #expect(cell.namespace.sets(on: disk(3)).count == 4)
    #expect(cell.namespace.sets(on: disk(2)).count == 3)
}

@Test("A disk never goes back to an older incarnation and is never on two servers (S8)")
func registration() {
    var cell = Cell()
    cell.expect(.done, cell.registration(1, incarnation: 5))
    cell.expect(.done, cell.registration(1, incarnation: 5))
    cell.expect(.conflict, cell.registration(1, incarnation: 4))
    #expect(cell.namespace.disk(disk(1))?.incarnation == Incarnation(rawValue: 5))
    // An image of the disk that was started as often, or less often, is no later run of it.
    let start: UInt64 = 1 << 16
    for (value, outcome) in [
        (3 * start + 7, .done), (3 * start + 8, .conflict), (3 * start + 6, .conflict),
        (2 * start + 9, .conflict), (3 * start + 7, .done), (4 * start, .done),
    ] as [(UInt64, Outcome)] { cell.expect(outcome, cell.registration(3, incarnation: value)) }
    guard case .registerServer(let server, var disks) = cell.registration(2, incarnation: 1)
    else { return }
    disks[0].id = disk(1)
    disks[0].incarnation = Incarnation(rawValue: 5)
    cell.expect(.conflict, .registerServer(server, disks: disks))
    disks[0].incarnation = Incarnation(rawValue: 6)
    cell.expect(.conflict, .registerServer(server, disks: disks + disks))
    cell.expect(.done, .registerServer(server, disks: disks))
    #expect(cell.namespace.disk(disk(1))?.server == ServerID(rawValue: 2))
    #expect(cell.namespace.serverRecords.map(\.id.rawValue) == [1, 2, 3])
    #expect(cell.namespace.diskRecords.map(\.id.rawValue) == [1, 2, 3])
    cell.expectEqualTwins()
}
