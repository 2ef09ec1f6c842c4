// What a set does step by step: who may answer what, and when.

import Base
import Replication
import Testing

@Suite struct SetReplicaTests {
    @Test("A write is answered when every member, the primary too, has it on disk (C5)")
    func answersWhenAllAreDurable() throws {
        for last in 0..<3 {
            var world = try ReplicaWorld.serving()
            let primary = world.primary
            world.open = [1]
            world.write(primary, 1)
            world.deliverAll()
            for member in 0..<3 where member != last {
                world.sync(member)
                world.deliverAll()
            }
            #expect(world.acknowledged.isEmpty)
            world.sync(last)
            world.deliverAll()
            #expect(world.acknowledged[1] == RecordNumber(rawValue: 1))
        }
    }

    @Test("The backups hear of the last commit, and then no one says anything")
    func quietWhenIdle() throws {
        var world = try ReplicaWorld.serving()
        world.open = [1]
        for _ in 0..<20 { world.round() }
        #expect(world.members.allSatisfy { $0.replica?.committed == RecordNumber(rawValue: 1) })
        #expect(world.members.allSatisfy { $0.replica?.deadline == nil })
        for _ in 0..<200 {
            world.round()
            #expect(world.links.allSatisfy { $0.isEmpty })
        }
    }

    @Test("Lost prepares are sent again without a new epoch")
    func resends() throws {
        var world = try ReplicaWorld.serving()
        let primary = world.primary
        world.open = Array(1...20)
        for tag in world.open { world.write(primary, tag) }
        for link in world.links.indices { world.links[link] = [] }
        for _ in 0..<60 { world.round() }
        #expect(world.acknowledged.count == 20)
        #expect(world.configurations.count == 1)
    }

    @Test("A member gets what it lacks soon, though each message overtakes those before it")
    func reversed() throws {
        var world = try ReplicaWorld.serving()
        world.open = Array(1...20)
        for _ in 0..<250 where !world.open.isEmpty {
            for link in world.links.indices { world.links[link].reverse() }
            world.round()
        }
        #expect(world.acknowledged.count == 20)
    }

    @Test("A write that is sent again while it is under way gets the same number (C15)")
    func sameNumberTwice() throws {
        var world = try ReplicaWorld.serving()
        let primary = world.primary
        world.open = [1]
        world.write(primary, 1)
        world.write(primary, 1)
        #expect(world.members[primary].disk.log.count == 2)
        for _ in 0..<20 { world.round() }
        #expect(world.members[primary].disk.alive().count == 1)
    }

    @Test("With a member down the primary takes a bounded number of writes, and keeps them")
    func boundedWindow() throws {
        var world = try ReplicaWorld.serving()
        let primary = world.primary
        let backup = (primary + 1) % 3
        world.crash(backup, extra: 0)
        for tag in 1...UInt64(Limits.preparedRecords) + 5 {
            world.open.append(tag)
            world.write(primary, tag)
        }
        #expect(world.members[primary].replica?.takesWrites == false)
        #expect(world.members[primary].disk.alive().count == Limits.preparedRecords)
        world.start(backup)
        world.raiseEpoch()
        for _ in 0..<400 where !world.open.isEmpty { world.round() }
        #expect(world.acknowledged.count == Limits.preparedRecords + 5)
    }

    @Test("A restarted member acts in no epoch that it had before (C10)")
    func restartedMemberWaits() throws {
        var world = try ReplicaWorld.serving()
        let primary = world.primary
        let backup = (primary + 1) % 3
        world.crash(backup, extra: 0)
        world.start(backup)
        world.step(backup, .configure(world.configurations[0]))
        world.open = [1]
        for _ in 0..<50 { world.round() }
        #expect(world.acknowledged.isEmpty)
        #expect(world.members[backup].replica?.isServing == false)
        world.raiseEpoch()
        for _ in 0..<50 { world.round() }
        #expect(world.acknowledged.count == 1)
        let number = RecordNumber(rawValue: 1)
        #expect(world.members[backup].replica?.mayServeReads(from: number) == true)
        #expect(world.members[backup].replica?.mayServeReads(from: number.next) == false)
    }

    @Test("A lower epoch is refused, and its primary stops serving when it hears so (C3)")
    func refusesLowerEpochs() throws {
        var world = try ReplicaWorld.serving()
        let primary = world.primary
        let backup = (primary + 1) % 3
        let next = SetConfiguration(
            set: world.set, epoch: Epoch(rawValue: 2), primary: world.disk(backup),
            members: (0..<3).map(world.disk))
        world.step(backup, .configure(next))
        for link in world.links.indices { world.links[link] = [] }
        world.open = [1]
        world.write(primary, 1)
        world.deliverAll()
        #expect(world.members[backup].disk.alive().isEmpty)
        world.deliverAll()
        #expect(world.members[primary].replica?.isServing == false)
    }

    @Test("A set of one member serves and answers by itself")
    func singleMember() throws {
        var world = try ReplicaWorld.serving(count: 1)
        world.open = [1, 2]
        for _ in 0..<3 { world.round() }
        #expect(world.acknowledged.count == 2)
    }
}

@Suite struct ReplicationMessageTests {
    private let record = Record(
        set: SetID(rawValue: 7), epoch: Epoch(rawValue: 3), number: RecordNumber(rawValue: 9),
        session: SessionID(rawValue: 4), sequence: RequestNumber(rawValue: 5),
        firstUnacked: RequestNumber(rawValue: 5), truncation: 1,
        body: .write(
            Extent(
                chunk: ChunkID(inode: .root, index: 0, version: 0), block: 3, start: 0, length: 5,
                codec: .raw, stored: Checksum(of: [1, 2, 3, 4, 5]), pages: [1], fileEnd: 5,
                modified: .zero, payload: [1, 2, 3, 4, 5])))

    private var messages: [ReplicationMessage] {
        let disks = [DiskID(rawValue: 1), DiskID(rawValue: 2)]
        let number = RecordNumber(rawValue: 9)
        let configuration = SetConfiguration(
            set: SetID(rawValue: 7), epoch: Epoch(rawValue: 3), primary: disks[0],
            members: disks)
        let start = EpochStart(configuration: configuration, keepThrough: number)
        let run = Incarnation(rawValue: 6)
        let state = ReplicaState(
            adopted: Epoch(rawValue: 2), durable: number, committed: number, starts: [start],
            kept: number, grants: [Grant(primary: disks[1], remaining: .seconds(2))])
        let bodies: [ReplicationBody] = [
            .query(configuration, incarnation: run, after: Epoch(rawValue: 1)),
            .state(state, incarnation: run), .begin(start, missed: [start, start]),
            .acknowledge(durable: number, committed: number, fill: .full, isStrained: true),
            .prepare(committed: number, [record, record]), .beacon(committed: number, sent: number),
            .missing(after: number), .stale, .fetch(number), .fetched(number, .record(record)),
            .fetched(number, .superseded), .fetched(number, .unavailable),
            .lease(Instant(nanoseconds: 5)),
            .granted(Instant(nanoseconds: .max)),
        ]
        return bodies.map {
            ReplicationMessage(
                set: SetID(rawValue: 7), sender: disks[0], receiver: disks[1],
                epoch: Epoch(rawValue: 3), body: $0)
        }
    }
    private func payload(_ message: ReplicationMessage) -> ArraySlice<UInt8> {
        Array(message.payloads.joined())[...]
    }
    private func coded(_ message: ReplicationMessage) -> [UInt8] {
        var writer = ByteWriter()
        message.encode(into: &writer)
        return writer.bytes
    }

    @Test("Every message is read as it was written")
    func roundTrip() throws {
        for message in messages {
            let copy = try ReplicationMessage(head: coded(message), payload: payload(message))
            #expect(copy == message)
        }
    }

    @Test("Cut or changed messages are errors or other messages, never a crash")
    func brokenBytes() {
        var random = SeededRandom(seed: 1)
        for message in messages {
            let head = coded(message)
            for length in head.indices {
                #expect(throws: DecodeError.self) {
                    try ReplicationMessage(head: Array(head[..<length]), payload: [])
                }
            }
            for _ in 0..<500 {
                var bytes = head
                bytes[random.below(bytes.count)] = UInt8(random.below(256))
                _ = try? ReplicationMessage(head: bytes, payload: payload(message))
            }
        }
    }
}
