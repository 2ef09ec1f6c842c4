// What a copy gets that asks for the records of a set one by one (C9, C15).

import Base
import Store
import Testing

@Suite struct CopyTests {
    private static let set = SetID(rawValue: 1)
    private static let epoch = Epoch(rawValue: 1)

    private struct Source {
        var run: StoreRun
        var number = RecordNumber.none

        init() {
            var disk = TestDisk()
            disk.isSafe = true
            run = StoreRun(disk, Self.configuration)
            run.settle()
            _ = try? run.store.adopt(SetModel(set: CopyTests.set).start(epoch, keeping: 0))
        }

        static var configuration: StoreConfiguration {
            StoreConfiguration(
                log: LogRun.configuration(segmentSize: 64 << 10), checkpointInterval: 256 << 10)
        }

        mutating func add(
            _ body: RecordBody, _ session: SessionID = .none, _ sequence: UInt64 = 0,
            firstUnacked: UInt64 = 0
        ) throws {
            number = number.next
            var truncation: UInt32 = 0
            if case .trim(_, let trim, _) = body { truncation = trim }
            _ = try run.store.prepare(
                Record(
                    set: set, epoch: epoch, number: number, session: session,
                    sequence: RequestNumber(rawValue: sequence),
                    firstUnacked: RequestNumber(rawValue: firstUnacked), truncation: truncation,
                    body: body))
            run.settle()
            run.store.commit(set, through: number)
        }

        mutating func restart() {
            run.take(run.store.stop())
            run.settle()
            run = StoreRun(run.disk, Self.configuration)
            run.settle()
        }
    }

    private static func chunk(_ number: Int) -> ChunkID {
        ChunkID(inode: InodeID(rawValue: UInt64(number) + 1), index: 0, version: 0)
    }

    private static func write(_ number: Int, block: Int, bytes count: Int = 3_000) -> RecordBody {
        let bytes = [UInt8](repeating: UInt8(1 + number % 255), count: count)
        return .write(
            Extent(
                chunk: chunk(number), block: UInt16(block), start: 0, length: UInt32(count),
                codec: .raw, stored: Checksum(of: bytes), pages: [0], fileEnd: 0, modified: .zero,
                payload: bytes[...]))
    }

    @Test("Trims that cut what is there are told however old they are, and none beside them")
    func trims() throws {
        var source = Source()
        try source.add(Self.write(0, block: 0))
        try source.add(.trim(Self.chunk(0), truncation: 1, from: 1_000))
        let first = source.number
        try source.add(Self.write(0, block: 1))
        // Cuts less of block 0, which stays as short as it is.
        try source.add(.trim(Self.chunk(0), truncation: 2, from: UInt32(Limits.block) + 500))
        let second = source.number
        // Others, of which each replaces the one before.
        for number in 0..<UInt32(2 * Limits.preparedRecords + 100) {
            try source.add(.trim(Self.chunk(1), truncation: number + 1, from: 7))
        }
        let last = source.number
        for _ in 0..<2 {
            let told = source.run.load(Self.set, first)
            #expect(told?.body == .trim(Self.chunk(0), truncation: 1, from: 1_000))
            #expect(told?.truncation == 1)
            let next = source.run.load(Self.set, second)
            #expect(
                next?.body
                    == .trim(Self.chunk(0), truncation: 2, from: UInt32(Limits.block) + 500))
            #expect(
                source.run.load(Self.set, last)?.body
                    == .trim(Self.chunk(1), truncation: UInt32(last.rawValue - 4), from: 7))
            #expect(source.run.load(Self.set, second.next) == nil)
            source.restart()
        }
        // A cut of all before makes them idle.
        try source.add(.trim(Self.chunk(0), truncation: 3, from: 0))
        for number in 2..<40 { try source.add(Self.write(number, block: 0)) }
        for _ in 0..<2_100 { try source.add(Self.write(50, block: 0)) }
        #expect(source.run.load(Self.set, first) == nil)
        #expect(source.run.load(Self.set, second) == nil)
    }

    @Test("Trims without end are remembered as far as extents tell of them")
    func manyTrims() throws {
        var source = Source()
        for number in 0..<300 as Range<UInt32> {
            try source.add(Self.write(0, block: 0))
            try source.add(
                .trim(Self.chunk(0), truncation: number + 1, from: 5 + UInt32(number) * 4))
        }
        // Each block was cut once, and the cuts never reach the one before.
        for block in 1..<200 {
            try source.add(Self.write(0, block: block))
            let from = UInt32(block * Limits.block + 100)
            try source.add(.trim(Self.chunk(0), truncation: 1_000 + UInt32(block), from: from))
        }
        source.restart()
        var copy = SetModel(set: Self.set)
        copy.epoch = Self.epoch
        for number in 1...source.number.rawValue {
            let found = source.run.load(Self.set, RecordNumber(rawValue: number))
            copy.records.append(
                Record(
                    set: Self.set, epoch: Self.epoch, number: RecordNumber(rawValue: number),
                    session: .none, sequence: RequestNumber(rawValue: 0),
                    firstUnacked: RequestNumber(rawValue: 0), truncation: 0,
                    body: found?.body ?? .nothing))
        }
        let content = copy.content(through: source.number.rawValue)[Self.chunk(0)]
        #expect(content?.truncation == 1_199)
        for block in 0..<200 {
            let found = source.run.read(Self.set, Self.chunk(0), block..<block + 1)?.first
            let zeros = [UInt8](repeating: 0, count: SetModel.blockBytes)
            #expect(found.flatMap { bytes(of: $0) } == content?.blocks[block] ?? zeros)
        }
    }

    @Test("Whose request a record was is told when it was overwritten, until it is answered (C15)")
    func requests() throws {
        var source = Source()
        let (one, other) = (SessionID(rawValue: 7), SessionID(rawValue: 8))
        try source.add(Self.write(0, block: 0), one, 5, firstUnacked: 4)
        let overwritten = source.number
        // The end of a session's writes, as a fence logs it (C16).
        let end = UInt64.max
        try source.add(.nothing, SessionID(rawValue: 9), end, firstUnacked: end)
        let fence = source.number
        for sequence in 1...UInt64(2 * Limits.preparedRecords + 100) {
            try source.add(
                Self.write(0, block: 0), other, sequence, firstUnacked: max(3, sequence) - 2)
        }
        let early = RecordNumber(rawValue: fence.rawValue + 1)
        for _ in 0..<2 {
            let told = source.run.load(Self.set, overwritten)
            #expect(told?.body == .nothing && told?.session == one)
            #expect(told?.sequence.rawValue == 5 && told?.firstUnacked.rawValue == 4)
            #expect(source.run.load(Self.set, fence)?.sequence.rawValue == end)
            #expect(source.run.load(Self.set, early) == nil)
            source.restart()
        }
        try source.add(Self.write(1, block: 0), one, 6, firstUnacked: 6)
        for _ in 0..<2 * Limits.preparedRecords + 10 { try source.add(Self.write(2, block: 0)) }
        #expect(source.run.load(Self.set, overwritten) == nil)
    }
}
