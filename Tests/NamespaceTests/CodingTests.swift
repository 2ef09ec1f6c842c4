// The coding of commands: every case survives it, and no bytes trap.

import Base
import Namespace
import Testing

private let samples: [Command.Action] = {
    let inode = InodeID(slot: 5, generation: 3)
    let name = [UInt8](name: "name")
    let sessions = [SessionID(rawValue: 4), SessionID(rawValue: 9)]
    var attributes = AttributeChanges()
    attributes.mode = 0o1777
    attributes.user = 3
    attributes.accessed = .now
    attributes.modified = .at(Timestamp(nanoseconds: -1))
    let changes: [Change] =
        [
            .create(Creation(parent: inode, name: name, kind: .symlink, mode: 1, target: name)),
            .create(
                Creation(parent: inode, name: name, kind: .file, mode: 1, set: SetID(rawValue: 8))),
            .link(inode, parent: .root, name: name),
            .unlink(parent: inode, name: name, holders: sessions),
            .removeDirectory(parent: inode, name: name),
            .rename(
                parent: inode, name: name, newParent: .root, newName: [], flags: .exchange,
                holders: sessions),
            .setAttributes(inode, attributes), .truncate(inode, size: 77),
            .extend(
                [inode, .root].map { FileEnd(inode: $0, end: 9, truncation: 8, modified: .zero) },
                numbers: [SetNumber(set: SetID(rawValue: 3), number: .none)]),
            .allocate(inode, first: 3, sets: [SetID(rawValue: 1), SetID(rawValue: 2)]),
            .setExtendedAttribute(inode, name: name, value: [1, 2, 3], flags: .create),
            .removeExtendedAttribute(inode, name: name), .renewSession,
            .releaseOrphans([inode, .root]), .closeSession,
        ] + operations.map { .operate($0) }
    let configuration = SetConfiguration(
        set: SetID(rawValue: 1), epoch: Epoch(rawValue: 2), primary: DiskID(rawValue: 2),
        members: [DiskID(rawValue: 1), DiskID(rawValue: 2)])
    let cut = PendingCut(
        set: SetID(rawValue: 1), chunk: ChunkID(inode: inode, index: 1, version: 2),
        truncation: 3, from: 4)
    let server = ServerRecord(
        id: ServerID(rawValue: 3), name: "n", rack: "r",
        address: PeerAddress(network: "a:1", socket: "s", machine: "m"))
    let disk = DiskRecord(
        id: DiskID(rawValue: 1), server: server.id, incarnation: Incarnation(rawValue: 4),
        capacity: 5)
    return changes.enumerated().map { index, change in
        .client(
            sessions[0], number: RequestNumber(rawValue: UInt64(index)),
            firstIncomplete: RequestNumber(rawValue: 1), change)
    } + [
        .openSession(nonce: 77, label: "mount"), .tick,
        .begin(round: 8, leader: MasterID(rawValue: 2)), .registerServer(server, disks: [disk]),
        .createSet(members: configuration.members, primary: DiskID(rawValue: 1)),
        .changeEpoch(configuration, incarnations: [disk.incarnation, disk.incarnation]),
        .setFull(configuration.set), .confirmDrops([1, 2, 3]), .confirmCuts([cut]), .snapshot,
        .adoptSet(
            configuration, base: Epoch(rawValue: 5),
            incarnations: [disk.incarnation, disk.incarnation]),
        .operate(.drain(server.id, isDraining: true)),
    ]
}()

private let operations: [Operation] = [
    .drain(ServerID(rawValue: 3), isDraining: true), .removeServer(ServerID(rawValue: 4)),
    .removeDisk(DiskID(rawValue: 5)),
    .acceptLoss(
        SetID(rawValue: 6), Epoch(rawValue: 7), members: [DiskID(rawValue: 8)],
        primary: DiskID(rawValue: 8)),
    .setRebalance(id: 7, .paused),
    .startRebalance(
        Rebalance(
            id: 7, bytesPerSecond: 8,
            moves: [
                ReplicaMove(
                    set: SetID(rawValue: 1), epoch: Epoch(rawValue: 2),
                    from: DiskID(rawValue: 3), to: DiskID(rawValue: 4), bytes: 5)
            ])),
]

private func encoded(_ action: Command.Action) -> [UInt8] {
    var writer = ByteWriter()
    Command(time: Timestamp(nanoseconds: 123), action: action).encode(into: &writer)
    return writer.bytes
}

@Test("Every command survives its coding and needs all of its bytes")
func roundTrip() throws {
    for action in samples {
        let bytes = encoded(action)
        let decoded = try Command(decoding: bytes[...])
        #expect(decoded == Command(time: Timestamp(nanoseconds: 123), action: action))
        for length in 0..<bytes.count {
            #expect(throws: DecodeError.self) { try Command(decoding: bytes[..<length]) }
        }
        #expect(throws: DecodeError.trailing(count: 1)) {
            try Command(decoding: (bytes + [0])[...])
        }
    }
    #expect(throws: DecodeError.version("command", found: 9)) { try Command(decoding: [9, 0]) }
}

@Test("Whatever a client may send can be decoded again: bounds are checked when applied")
func oversizeFields() throws {
    let long = [UInt8](repeating: 1, count: 100_000)
    let change = Change.setExtendedAttribute(.root, name: long, value: long, flags: [])
    let action = Command.Action.client(
        .none, number: RequestNumber(rawValue: 1), firstIncomplete: RequestNumber(rawValue: 1),
        change)
    #expect(try Command(decoding: encoded(action)[...]).action == action)
    #expect(change.fault == .range)
}

@Test("Damaged bytes are refused or give a command with a coding of its own; applying never traps")
func fuzz() {
    var random = SeededRandom(seed: 42)
    var namespace = Namespace()
    _ = namespace.apply(
        Command(time: .zero, action: .openSession(nonce: 1, label: "")), slot: .none)
    var accepted = 0
    for _ in 0..<40_000 {
        var bytes = encoded(samples[random.below(samples.count)])
        for _ in 0..<random.below(4) {
            let index = random.below(bytes.count)
            switch random.below(3) {
            case 0: bytes[index] = UInt8(truncatingIfNeeded: random.next())
            case 1: bytes[index] ^= 1 << UInt8(random.below(8))
            default: bytes.remove(at: index)
            }
        }
        guard let command = try? Command(decoding: bytes[...]) else { continue }
        accepted += 1
        var writer = ByteWriter()
        command.encode(into: &writer)
        #expect((try? Command(decoding: writer.bytes[...])) == command)
        var request = command
        if case .client(_, _, _, let change) = command.action {
            request.action = .client(
                SessionID(rawValue: 1), number: RequestNumber(rawValue: UInt64(accepted)),
                firstIncomplete: RequestNumber(rawValue: UInt64(accepted)), change)
        }
        _ = namespace.apply(request, slot: Slot(rawValue: UInt64(accepted)))
        _ = namespace.apply(
            Command(time: .zero, action: .openSession(nonce: 1, label: "")),
            slot: Slot(rawValue: UInt64(accepted)))
    }
    #expect(accepted > 5_000)
}
