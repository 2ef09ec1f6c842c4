// The cleaner: a disk stays usable while it is nearly full, whatever happens to it meanwhile.

import Base
import Store
import Testing

/// One set of many blocks, each of one extent that says which write made it.
private struct Blocks {
    static let payload = 4_000
    var run: StoreRun
    let set = SetID(rawValue: 1)
    var number = RecordNumber.none
    var waiting = 0
    /// The number of the write that made each block; nil: dropped.
    var blocks: [RecordNumber?] = []
    /// Chunks hold so many blocks here.
    static let perChunk = 64
    /// Times that a write had to wait for the cleaner.
    var waits = 0

    init(segment: Int, capacity: UInt64, _ cleaner: CleanerConfiguration = CleanerConfiguration()) {
        var disk = TestDisk()
        disk.capacity = capacity
        disk.isSafe = true
        run = StoreRun(disk, Self.configuration(segment, cleaner))
        run.settle()
        let start = SetModel(set: set).start(Epoch(rawValue: 1), keeping: 0)
        _ = try? run.store.adopt(start)
    }

    static func configuration(
        _ segment: Int, _ cleaner: CleanerConfiguration = CleanerConfiguration()
    ) -> StoreConfiguration {
        StoreConfiguration(
            log: LogRun.configuration(segmentSize: segment), checkpointInterval: 8 << 20,
            cleaner: cleaner)
    }

    static func bytes(_ number: RecordNumber) -> [UInt8] {
        var random = SeededRandom(seed: number.rawValue)
        let word = random.next()
        return (0..<payload).map { UInt8(truncatingIfNeeded: word >> UInt64($0 & 31)) }
    }

    func chunk(_ index: Int) -> ChunkID {
        ChunkID(inode: InodeID(rawValue: UInt64(index) + 1), index: 0, version: 0)
    }

    private func record(_ body: RecordBody) -> Record {
        Record(
            set: set, epoch: Epoch(rawValue: 1), number: number.next, session: .none,
            sequence: RequestNumber(rawValue: 0), firstUnacked: RequestNumber(rawValue: 0),
            truncation: 0, body: body)
    }

    private mutating func took() {
        number = number.next
        waiting += 1
        if waiting >= 24 { commit() }
    }

    mutating func commit() {
        run.settle()
        run.store.commit(set, through: number)
        waiting = 0
    }

    /// Writes a block; false if there is no space. Waits for the cleaner as a server does.
    mutating func write(_ block: Int) -> Bool {
        let bytes = Self.bytes(number.next)
        let extent = Extent(
            chunk: chunk(block / Self.perChunk), block: UInt16(block % Self.perChunk), start: 0,
            length: UInt32(bytes.count), codec: .raw, stored: Checksum(of: bytes),
            pages: [Checksum(of: bytes).value], fileEnd: 0, modified: .zero, payload: bytes[...])
        for _ in 0..<4_000 {
            guard run.store.hasRoom(forData: bytes.count) else { return false }
            if (try? run.store.prepare(record(.write(extent)))) != nil {
                took()
                while blocks.count <= block { blocks.append(nil) }
                blocks[block] = number
                return true
            }
            waits += 1
            commit()
            run.now = run.now + .milliseconds(1)
            run.settle()
        }
        return false
    }

    mutating func drop(_ index: Int) throws {
        _ = try run.store.prepare(record(.drop([chunk(index)])))
        took()
        commit()
        for block in index * Self.perChunk..<min(blocks.count, (index + 1) * Self.perChunk) {
            blocks[block] = nil
        }
    }

    /// The first block that is not as it was written.
    mutating func wrong() -> Int? {
        commit()
        for first in stride(from: 0, to: blocks.count, by: Self.perChunk) {
            let range = 0..<min(Self.perChunk, blocks.count - first)
            guard let found = run.read(set, chunk(first / Self.perChunk), range) else {
                return first
            }
            for (offset, block) in found.enumerated() {
                guard case .pieces(let pieces) = block else { return first + offset }
                let wanted = blocks[first + offset].map { Self.bytes($0) }
                if pieces.count > 1 || pieces.first.map({ Array($0.extent.payload) }) != wanted {
                    return first + offset
                }
            }
        }
        return nil
    }
}

@Suite struct CleanerTests {
    /// Bytes that are overwritten.
    private static let overwritten: UInt64 = 12 << 20

    @Test("A disk that is 90 % full of living records takes random overwrites")
    func nearlyFull() {
        let capacity: UInt64 = 64 << 20
        var blocks = Blocks(segment: 512 << 10, capacity: capacity)
        while blocks.run.store.living < blocks.run.store.capacity * 90 / 100 {
            guard blocks.write(blocks.blocks.count) else { break }
            if blocks.waiting == 0, blocks.run.failure != nil { break }
        }
        blocks.commit()
        let count = blocks.blocks.count
        #expect(blocks.run.store.living >= blocks.run.store.capacity * 90 / 100)
        var random = SeededRandom(seed: 1)
        let before = blocks.run.store.cleaningReport
        var written: UInt64 = 0
        while written < Self.overwritten, blocks.run.failure == nil {
            guard blocks.write(random.below(count)) else {
                Issue.record("no space after \(written) bytes")
                break
            }
            written += UInt64(Blocks.payload)
        }
        #expect(blocks.run.failure == nil && blocks.run.damaged.isEmpty)
        #expect(blocks.wrong() == nil)
        let report = blocks.run.store.cleaningReport
        let appended = report.appended - before.appended
        let moved = report.moved - before.moved
        print(
            "cleaner at \(blocks.run.store.living * 100 / blocks.run.store.capacity) % living: "
                + "\(appended >> 20) MiB written, \(moved >> 20) MiB moved, write amplification "
                + "\(Double((appended + moved) * 10 / appended) / 10), "
                + "\(report.segments) segments, \(blocks.waits) waits")
        #expect(report.segments > 10)
        #expect(moved < appended * 25)
        blocks.run = StoreRun(blocks.run.disk, Blocks.configuration(512 << 10))
        blocks.run.settle()
        blocks.run.store.commit(blocks.set, through: blocks.number)
        #expect(blocks.wrong() == nil)
    }

    @Test("On a full disk deletes work, and what they free takes new data, again and again")
    func full() throws {
        var blocks = Blocks(segment: 64 << 10, capacity: 4 << 20)
        var random = SeededRandom(seed: 2)
        var next = 0
        for round in 0..<60 {
            var written = 0
            while blocks.write(next) {
                next += 1
                written += 1
            }
            #expect(blocks.run.failure == nil && written > 0, "round \(round)")
            #expect(!blocks.run.store.hasRoom(forData: Blocks.payload))
            // Of a full disk one to three chunks, among them such as were dropped before.
            let last = (next - 1) / Blocks.perChunk
            for _ in 0...random.below(3) { try blocks.drop(last - random.below(min(last, 6) + 1)) }
            try blocks.drop(last)
            next = (last + 1) * Blocks.perChunk
            if round % 10 == 9 {
                #expect(blocks.wrong() == nil)
                blocks.run = StoreRun(blocks.run.disk, Blocks.configuration(64 << 10))
                blocks.run.settle()
                blocks.run.store.commit(blocks.set, through: blocks.number)
            }
        }
        #expect(blocks.wrong() == nil)
    }
}
