// Records whose bytes are given up (decision 0020): what takes their place, and what it does.

import Base
import Store
import Testing

@Suite struct LostRecordTests {
    private static let set = SetID(rawValue: 1)
    private static let epoch = Epoch(rawValue: 1)
    private static let chunk = ChunkID(inode: InodeID(rawValue: 5), index: 0, version: 0)
    private static let configuration = StoreConfiguration(
        log: LogRun.configuration(segmentSize: 64 << 10), checkpointInterval: 64 << 10)
    private var run: StoreRun
    private var number = RecordNumber.none

    init() throws {
        var disk = TestDisk()
        disk.isSafe = true
        disk.capacity = 1 << 20
        run = StoreRun(disk, Self.configuration)
        run.settle()
        _ = try run.store.adopt(SetModel(set: Self.set).start(Self.epoch, keeping: 0))
    }

    private func extent(_ block: Int, start: Int = 0, count: Int, _ byte: UInt8) -> Extent {
        let bytes = [UInt8](repeating: byte, count: count)
        return Extent(
            chunk: Self.chunk, block: UInt16(block), start: UInt32(start), length: UInt32(count),
            codec: .raw, stored: Checksum(of: bytes), pages: [Checksum(of: bytes).value],
            fileEnd: 0, modified: .zero, payload: bytes[...])
    }
    private mutating func write(_ extent: Extent, sequence: UInt64, commit: Bool = true) throws {
        number = number.next
        _ = try run.store.prepare(
            Record(
                set: Self.set, epoch: Self.epoch, number: number, session: SessionID(rawValue: 3),
                sequence: RequestNumber(rawValue: sequence),
                firstUnacked: RequestNumber(rawValue: 1), truncation: 0, body: .write(extent)))
        run.settle()
        if commit { run.store.commit(Self.set, through: number) }
    }
    private mutating func restart() {
        run.take(run.store.stop())
        run.settle()
        run = StoreRun(run.disk, Self.configuration)
        run.settle()
    }
    private mutating func giveUp(_ value: UInt64) throws {
        let found = run.store.lostRecord(RecordNumber(rawValue: value), Self.set)
        let lost = try #require(found)
        _ = try run.store.repair(Self.set, lost)
        // It is answered for before it is durable: who copies the set goes on.
        #expect(run.load(Self.set, lost.number) == lost)
        run.settle()
    }
    private mutating func block(_ number: Int) -> StoredBlock? {
        run.read(Self.set, Self.chunk, number..<number + 1)?.first
    }
    /// Damages what is stored of a record that was written with this byte.
    private mutating func damage(_ byte: UInt8) {
        let piece = [UInt8](repeating: byte, count: 64)
        for (file, bytes) in run.disk.files {
            guard case .segment = file, let place = bytes.firstRange(of: piece)?.lowerBound else {
                continue
            }
            run.disk.replace(file, place + 8, [byte ^ 0x40])
        }
    }

    @Test("A given-up block says so until it is written anew; others, and restarts, don't mind")
    mutating func lostBlock() throws {
        try write(extent(0, count: 3_000, 0xA1), sequence: 1)
        try write(extent(1, count: 3_000, 0xA2), sequence: 2)
        try write(extent(2, count: 3_000, 0xA3), sequence: 3)
        damage(0xA2)
        #expect(block(1) == .damaged)
        #expect(run.store.hasRot(Self.set))
        try giveUp(2)
        #expect(!run.store.hasRot(Self.set))
        for _ in 0..<2 {
            #expect(block(1) == .lost)
            #expect(block(0) != .lost && block(0) != .damaged)
            #expect(block(1)?.digest != block(0)?.digest)
            // Whose request it was is known still (C15).
            #expect(
                run.store.duplicate(
                    Self.set, SessionID(rawValue: 3), RequestNumber(rawValue: 2))
                    == .known(RecordNumber(rawValue: 2)))
            let found = run.load(Self.set, RecordNumber(rawValue: 2))
            let record = try #require(found)
            #expect(record.payload.isEmpty && record.number.rawValue == 2)
            restart()
        }
        // A part of it is not enough, the whole is.
        try write(extent(1, start: 8, count: 100, 0xB1), sequence: 4)
        #expect(block(1) == .lost)
        // The whole is, also in parts that lie over each other.
        try write(extent(1, start: 100, count: 2_900, 0xB2), sequence: 5)
        #expect(block(1) == .lost)
        try write(extent(1, count: 50, 0xB3), sequence: 6)
        #expect(block(1)?.content?[..<50] == [UInt8](repeating: 0xB3, count: 50)[...])
        #expect(block(1)?.content?[50..<100] == [UInt8](repeating: 0xB1, count: 50)[...])
        #expect(block(1)?.content?[100..<3_000] == [UInt8](repeating: 0xB2, count: 2_900)[...])
    }

    @Test("A prepared record is given up with its place; one of which nothing is left is nothing")
    mutating func prepared() throws {
        try write(extent(0, count: 3_000, 0xA1), sequence: 1)
        try write(extent(0, start: 500, count: 700, 0xA2), sequence: 2, commit: false)
        damage(0xA2)
        #expect(run.load(Self.set, RecordNumber(rawValue: 2)) == nil)
        try giveUp(2)
        run.store.commit(Self.set, through: RecordNumber(rawValue: 2))
        #expect(block(0) == .lost)
        // It was damaged, and is replaced: nothing of it is left to be lost.
        try write(extent(1, count: 900, 0xA4), sequence: 3)
        damage(0xA4)
        #expect(block(1) == .damaged)
        try write(extent(1, count: 900, 0xA5), sequence: 4)
        let third = RecordNumber(rawValue: 3)
        #expect(run.store.lostRecord(third, Self.set)?.body == .nothing)
        // So it is no damage any more, and whose request it was is told.
        #expect(run.store.hasRot(Self.set) && !run.store.isDamaged(Self.set, third))
        let rest = run.load(Self.set, third)
        #expect(rest?.body == .nothing && rest?.sequence == RequestNumber(rawValue: 3))
        _ = try run.store.repair(Self.set, try #require(rest))
        run.settle()
        #expect(!run.store.hasRot(Self.set))
        #expect(block(1)?.content?.prefix(900) == [UInt8](repeating: 0xA5, count: 900)[...])
    }

    @Test("A given-up record moves with the cleaner, and is sound for a scrub")
    mutating func moved() throws {
        try write(extent(0, count: 3_000, 0xA1), sequence: 1)
        damage(0xA1)
        #expect(block(0) == .damaged)
        try giveUp(1)
        // Enough turns of the log that its segment is wanted.
        for round in 0..<600 {
            try write(
                extent(1 + round % 3, count: 3_000, UInt8(1 + round % 90)),
                sequence: 2 + UInt64(round))
        }
        run.settle()
        #expect(block(0) == .lost)
        restart()
        #expect(block(0) == .lost)
        #expect(!run.store.hasRot(Self.set))
    }
}
