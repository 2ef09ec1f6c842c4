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
    let perChunk: Int
    var epoch = Epoch(rawValue: 1)
    /// How often a chunk was dropped: its name does not come again.
    var versions: [Int: UInt32] = [:]
    var truncation: UInt32 = 0
    /// Times that a write had to wait for the cleaner.
    var waits = 0

    init(segment: Int, capacity: UInt64, perChunk: Int = 64) {
        self.perChunk = perChunk
        var disk = TestDisk()
        disk.capacity = capacity
        disk.isSafe = true
        run = StoreRun(disk, Self.configuration(segment))
        run.settle()
        let start = SetModel(set: set).start(epoch, keeping: 0)
        _ = try? run.store.adopt(start)
    }

    static func configuration(_ segment: Int) -> StoreConfiguration {
        StoreConfiguration(
            log: LogRun.configuration(segmentSize: segment), checkpointInterval: 8 << 20,
            index: IndexConfiguration(openGroups: 1, openPages: 2))
    }

    /// The same again after a restart.
    mutating func restart(_ segment: Int) {
        commit()
        for _ in 0..<400 where run.store.committed(set) != number {
            run.now = run.now + .milliseconds(10)
            commit()
        }
        if run.store.committed(set) != number {
            let (living, capacity) = (run.store.living, run.store.capacity)
            Issue.record("stuck: \(living) of \(capacity) live, \(run.store.spare) spare")
        }
        run = StoreRun(run.disk, Self.configuration(segment))
        run.settle()
        run.store.commit(set, through: number)
    }

    mutating func begin(_ next: Epoch) throws {
        epoch = next
        _ = try run.store.adopt(
            SetModel(set: set).start(epoch, keeping: number.rawValue))
    }

    static func bytes(_ number: RecordNumber) -> [UInt8] {
        var random = SeededRandom(seed: number.rawValue)
        let word = random.next()
        return (0..<payload).map { UInt8(truncatingIfNeeded: word >> UInt64($0 & 31)) }
    }

    func chunk(_ index: Int) -> ChunkID {
        ChunkID(
            inode: InodeID(rawValue: UInt64(index) + 1), index: 0, version: versions[index] ?? 0)
    }

    private func record(_ body: RecordBody) -> Record {
        Record(
            set: set, epoch: epoch, number: number.next, session: .none,
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
        for _ in 0..<4_000 {
            guard run.store.hasRoom(forData: Self.payload) else { return false }
            if !run.store.isShort { return log(block) }
            waits += 1
            commit()
            run.now = run.now + .milliseconds(1)
            run.settle()
        }
        return false
    }

    /// Writes a block, whatever room there is.
    mutating func log(_ block: Int) -> Bool {
        let bytes = Self.bytes(number.next)
        let extent = Extent(
            chunk: chunk(block / perChunk), block: UInt16(block % perChunk), start: 0,
            length: UInt32(bytes.count), codec: .raw, stored: Checksum(of: bytes),
            pages: [Checksum(of: bytes).value], fileEnd: 0, modified: .zero, payload: bytes[...])
        guard (try? run.store.prepare(record(.write(extent)))) != nil else { return false }
        took()
        while blocks.count <= block { blocks.append(nil) }
        blocks[block] = number
        return true
    }

    mutating func mustWrite(_ block: Int) throws {
        let isWritten = write(block)
        try #require(isWritten)
    }

    /// Deletes and trims wait for the cleaner too, but never in vain.
    private mutating func awaitRoom() {
        for _ in 0..<400 where !run.store.takesNumbered(data: 0) {
            commit()
            run.now = run.now + .milliseconds(10)
            run.settle()
        }
        if !run.store.takesNumbered(data: 0) { Issue.record("no room for a delete") }
    }

    mutating func drop(_ index: Int) throws {
        awaitRoom()
        _ = try run.store.prepare(record(.drop([chunk(index)])))
        took()
        commit()
        versions[index, default: 0] += 1
        forget(index)
    }

    private mutating func forget(_ index: Int) {
        for block in blocks.indices.dropFirst(index * perChunk).prefix(perChunk) {
            blocks[block] = nil
        }
    }

    /// Cuts a chunk to nothing.
    mutating func trim(_ index: Int) throws -> Record {
        awaitRoom()
        truncation += 1
        let trim = record(.trim(chunk(index), truncation: truncation, from: 0))
        _ = try run.store.prepare(trim)
        took()
        commit()
        forget(index)
        return trim
    }

    /// The first block that is not as it was written.
    mutating func wrong() -> Int? {
        commit()
        for first in stride(from: 0, to: blocks.count, by: perChunk) {
            let range = 0..<min(perChunk, blocks.count - first)
            guard let found = run.read(set, chunk(first / perChunk), range) else {
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
        blocks.restart(512 << 10)
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
            let last = (next - 1) / blocks.perChunk
            for _ in 0...random.below(3) { try blocks.drop(last - random.below(min(last, 6) + 1)) }
            try blocks.drop(last)
            next = (last + 1) * blocks.perChunk
            if round % 10 == 9 {
                #expect(blocks.wrong() == nil)
                blocks.restart(64 << 10)
            }
        }
        #expect(blocks.wrong() == nil)
    }

    @Test("Trims and drops can be loaded when their segment is gone, after a restart too (C9)")
    func changes() throws {
        var blocks = Blocks(segment: 64 << 10, capacity: 4 << 20)
        for block in 0..<blocks.perChunk * 3 { try blocks.mustWrite(block) }
        let gone = blocks.chunk(2)
        try blocks.drop(2)
        let drop = blocks.number
        let trim = try blocks.trim(1)
        let files = blocks.run.disk.inventory.files.count
        for _ in 0..<20 { for block in 0..<blocks.perChunk { try blocks.mustWrite(block) } }
        blocks.commit()
        #expect(blocks.run.store.cleaningReport.appended > UInt64(files) * 2 * (64 << 10))
        for _ in 0..<2 {
            #expect(blocks.run.load(blocks.set, drop)?.body == .drop([gone]))
            #expect(blocks.run.load(blocks.set, trim.number)?.body == trim.body)
            // The write before them is gone with their segment.
            let before = RecordNumber(rawValue: drop.rawValue - 1)
            #expect(blocks.run.load(blocks.set, before) == nil)
            blocks.restart(64 << 10)
        }
    }

    /// Deletes, and what frees space, work on every disk, however small and full.
    @Test("A small disk refuses data when it is full, never stops, and takes deletes (C20)")
    func small() throws {
        let segment = 64 << 10
        var stored = 0
        for count in 6...26 {
            let capacity = UInt64(count * segment) / 97 * 100 + 200
            var blocks = Blocks(segment: segment, capacity: capacity, perChunk: 4)
            var random = SeededRandom(seed: UInt64(count))
            let span = count * 16
            for step in 0..<1_500 {
                switch random.below(40) {
                case 0: try blocks.drop(random.below(span / 4))
                case 1: _ = try blocks.trim(random.below(span / 4))
                case 2: try blocks.begin(Epoch(rawValue: UInt64(step) + 2))
                case 3:
                    blocks.restart(segment)
                    if blocks.run.store.lastPrepared(blocks.set) != blocks.number {
                        Issue.record("\(count) segments, step \(step)")
                        return
                    }
                case 4..<8:
                    // A backup gets what a primary with more space has numbered.
                    if blocks.run.store.takesNumbered(data: Blocks.payload) {
                        let isLogged = blocks.log(random.below(span))
                        #expect(isLogged)
                    }
                default: _ = blocks.write(random.below(span))
                }
                if let failure = blocks.run.failure {
                    Issue.record("\(count) segments, step \(step): \(failure)")
                    return
                }
            }
            #expect(blocks.wrong() == nil, "\(count) segments")
            stored += blocks.blocks.count { $0 != nil }
            for chunk in 0...span / 4 { try blocks.drop(chunk) }
            for _ in 0..<200 where blocks.run.store.isShort {
                blocks.run.now = blocks.run.now + .milliseconds(50)
                blocks.run.settle()
            }
            #expect(blocks.run.store.committed(blocks.set) == blocks.number, "\(count) segments")
            #expect(blocks.run.store.living == 0 && !blocks.run.store.isShort, "\(count) segments")
            let isTaken = blocks.write(span + 8)
            #expect(isTaken || count < 7, "\(count) segments")
        }
        #expect(stored > 500)
    }

    @Test("A checkpoint that finds no space on the file system is tried again later (C20)")
    func fullFileSystem() throws {
        var blocks = Blocks(segment: 64 << 10, capacity: 4 << 20)
        blocks.run.disk.refusesCheckpoints = true
        var random = SeededRandom(seed: 3)
        // Nothing is recycled, so in the end they wait in vain.
        while blocks.write(random.below(200)), blocks.number.rawValue < 5_000 {}
        #expect(blocks.run.failure == nil && blocks.run.disk.refused > 2)
        blocks.run.disk.refusesCheckpoints = false
        try blocks.drop(1)
        blocks.run.now = blocks.run.now + .seconds(2)
        blocks.run.settle()
        for _ in 0..<500 { try blocks.mustWrite(random.below(200)) }
        #expect(blocks.wrong() == nil && blocks.run.failure == nil)
        blocks.restart(64 << 10)
        #expect(blocks.wrong() == nil)
    }

    @Test("A new disk of fewer than six segments is refused, with the size that it needs")
    func tooSmall() {
        var disk = TestDisk()
        disk.capacity = 5 * 64 << 10
        let run = StoreRun(disk, Blocks.configuration(64 << 10))
        guard case .tooSmall(_, let least)? = run.failure else {
            Issue.record("\(String(describing: run.failure))")
            return
        }
        disk.capacity = least
        #expect(StoreRun(disk, Blocks.configuration(64 << 10)).failure == nil)
    }

    @Test("After a segment found no space on the file system, another is made once there is some")
    func moreSegments() throws {
        var blocks = Blocks(segment: 64 << 10, capacity: 4 << 20)
        blocks.run.disk.refusesSegments = true
        var random = SeededRandom(seed: 4)
        while blocks.write(random.below(2_000)), blocks.number.rawValue < 5_000 {}
        let few = blocks.run.store.capacity
        #expect(blocks.run.failure == nil && few < 1 << 20)
        blocks.run.disk.refusesSegments = false
        for _ in 0..<200 {
            blocks.run.now = blocks.run.now + .milliseconds(100)
            blocks.run.settle()
        }
        #expect(blocks.run.store.capacity > 3 << 20)
        for _ in 0..<100 { try blocks.mustWrite(random.below(2_000)) }
        #expect(blocks.wrong() == nil)
    }
}
