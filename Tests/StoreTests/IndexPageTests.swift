// The pages of a disk's index, packed: their coding, what they cost, and what bounds them
// (decision 0021). What they must say is checked wherever a store is compared with a model: tests
// keep very few chunks unpacked.

import Base
import Store
import Testing

/// A store that logs writes of one set.
private struct Writer {
    static let set = SetID(rawValue: 3)
    var run: StoreRun
    var number = RecordNumber.none

    init(_ index: IndexConfiguration, capacity: Int = 64 << 20) throws {
        var disk = TestDisk()
        disk.capacity = UInt64(capacity)
        var configuration = StoreRun.configuration(interval: 1 << 30)
        configuration.index = index
        run = StoreRun(disk, configuration)
        run.settle()
        _ = try run.store.adopt(SetModel(set: Self.set).start(Epoch(rawValue: 1), keeping: 0))
    }

    static func chunk(_ number: Int, index: UInt32 = 2) -> ChunkID {
        ChunkID(inode: InodeID(rawValue: UInt64(1 + number)), index: index, version: 7)
    }

    mutating func log(_ body: RecordBody) throws {
        number = number.next
        let record = Record(
            set: Self.set, epoch: Epoch(rawValue: 1), number: number, session: .none,
            sequence: RequestNumber(rawValue: 0), firstUnacked: RequestNumber(rawValue: 0),
            truncation: 0, body: body)
        _ = try run.store.prepare(record)
        if number.rawValue % 64 == 0 { commit() }
    }
    mutating func write(
        _ chunk: Int, index: UInt32 = 2, _ block: Int, start: Int = 0, _ payload: [UInt8]
    ) throws {
        try log(
            .write(
                Extent(
                    chunk: Self.chunk(chunk, index: index), block: UInt16(block),
                    start: UInt32(start),
                    length: UInt32(payload.count), codec: .raw, stored: Checksum(of: payload),
                    pages: [0], fileEnd: 0, modified: .zero, payload: payload[...])))
    }
    mutating func commit() {
        run.settle()
        run.store.commit(Self.set, through: number)
    }
    /// The items of the checkpoint that a stop writes.
    mutating func items() throws -> [UInt8] {
        commit()
        run.take(run.store.stop())
        run.settle()
        let file = try #require(run.disk.files[.checkpoint(0)])
        var length = ByteReader(file[36..<40])
        return Array(file[64..<64 + Int(try length.read(UInt32.self))])
    }
}

struct IndexPageTests {
    /// A store whose index has a group with chunks of each form, and the items of it in its
    /// checkpoint.
    private static func sample() throws -> (writer: Writer, items: [UInt8]) {
        var writer = try Writer(IndexConfiguration())
        let bytes = [UInt8](repeating: 7, count: 300)
        // One extent; a chunk that will be dropped; the next one of the same file, with three.
        try writer.write(0, 3, Array(bytes.prefix(4)))
        try writer.write(9, 0, bytes)
        try writer.write(0, index: 3, 0, bytes)
        try writer.write(0, index: 3, 0, start: 500, bytes)
        try writer.write(0, index: 3, 2, bytes)
        // In the second page; the first extent is replaced, the last one cut.
        try writer.write(1, 32, start: 16, Array(bytes.prefix(4)))
        try writer.write(1, 32, bytes)
        try writer.write(1, 32, start: 500, bytes)
        try writer.write(1, 34, bytes)
        writer.commit()
        try writer.log(.trim(Writer.chunk(1), truncation: 1, from: UInt32(34 * Limits.block + 9)))
        try writer.log(.drop([Writer.chunk(9)]))
        return (writer, try writer.items())
    }

    /// Its group of chunks, and the trims and the page of the last one.
    private static let group = hexadecimal(
        """
        10 2b000000
        20 02 02 07 06  4a 04 02 8601 78 00 03 00
        80
        47 03  5d 04 10 00 ab02 00  5e 00 00 f403 ab02 00  5e 02 00 00 ab02 00
        6e 02 02 01
        """)
    private static let trims = hexadecimal("0f 03 01000000 0a00000000000000 01000000 09002200")
    private static let page = hexadecimal(
        """
        0c 03 1d000000
        81 00 00  49 0e 02 d201 78 00 ab02 00  5e 00 00 f403 ab02 00  5e 02 00 00 ab02 a302
        """)

    @Test("groups and pages have their documented bytes")
    func vector() throws {
        let expected = Self.group + Self.trims + Self.page
        #expect(try Self.sample().items.suffix(expected.count) == expected[...])
    }

    /// A store whose checkpoint has other chunks.
    private struct Changed {
        let disk: TestDisk
        let set: [UInt8]

        init() throws {
            let (writer, items) = try IndexPageTests.sample()
            disk = writer.run.disk
            let chunks = IndexPageTests.group + IndexPageTests.trims + IndexPageTests.page
            set = Array(items.dropLast(chunks.count))
        }
        /// How many chunks it finds; nil if it took the checkpoint for damaged.
        func start(_ chunks: [UInt8]) -> Int? {
            var disk = disk
            _ = disk.perform(.remove(DiskOperation(rawValue: 0), .checkpoint(0)))
            disk.add(.checkpoint(0), FormatTests.block(set + chunks) + zeros(4_096))
            var run = StoreRun(disk)
            run.settle()
            #expect(run.failure == nil && run.store.isReady)
            let found = run.store.chunks(of: Writer.set)
            for chunk in found { _ = run.read(Writer.set, chunk, 0..<64) }
            // The log tells of records that nobody committed.
            return run.store.committed(Writer.set) == .none ? nil : found.count
        }
    }

    @Test("with any byte changed they are refused, or are others; no store fails")
    func fuzz() throws {
        let changed = try Changed()
        let (group, trims, page) = (Self.group, Self.trims, Self.page)
        let whole = group + trims + page
        #expect(changed.start(whole) == 3)
        var random = SeededRandom(seed: 51)
        var refused = 0
        for place in whole.indices {
            for _ in 0..<8 {
                var other = whole
                other[place] ^= UInt8(1 + random.below(255))
                if changed.start(other) == nil { refused += 1 }
            }
        }
        #expect(refused > whole.count * 3)
        // Cut short, with the length and without.
        for length in 6..<page.count {
            var short = Array(page.prefix(length))
            #expect(changed.start(group + trims + short) == nil)
            short.replaceSubrange(2..<6, with: little(UInt32(length - 6)))
            _ = changed.start(group + trims + short)
        }
        // What is told of all extents of a page: no piles, segments 0 to 1; no chunk has page 33.
        for head in ["01 00 00", "81 00 01", "a1 00 00"] {
            var other = page
            other.replaceSubrange(6..<9, with: hexadecimal(head))
            #expect(changed.start(group + trims + other) == nil)
        }
        // No slots at all; without a rest, with one twice, of a chunk that has none, or no group.
        let none = hexadecimal("10 00000000")
        for other in [none, none + whole, whole + none, group, group + page + page, page, trims] {
            #expect(changed.start(other) == nil)
        }
        for place in [0, 1, 2, 4] {
            var other = page
            other[1] = UInt8(place)
            #expect(changed.start(group + trims + other) == nil)
        }
        // Chunks twice, in a full group or not; a group that is not full before another.
        #expect(changed.start(whole + whole) == nil)
        let free = [UInt8](repeating: 0x80, count: 12)
        var full = group + free
        full[1] += 12
        #expect(changed.start(full + trims + page) == 3)
        #expect(changed.start(full + trims + page + whole) == nil)
        #expect(changed.start(full + trims + page + hexadecimal("10 01000000 80")) == 3)
        #expect(changed.start(whole + hexadecimal("10 01000000 80")) == nil)
        full += [0x80]
        full[1] += 1
        #expect(changed.start(full + trims + page) == nil)
    }

    @Test("whole blocks and small files take few bytes each, and no more after a restart")
    func memory() throws {
        var writer = try Writer(IndexConfiguration(openGroups: 4, openPages: 4), capacity: 64 << 20)
        let (chunks, blocks) = (20, 256)
        // Two files at a time, as clients write them.
        for chunk in stride(from: 0, to: chunks, by: 2) {
            for block in 0..<blocks {
                try writer.write(chunk, block, [1, 2, 3])
                try writer.write(chunk + 1, block, [1, 2, 3])
            }
        }
        writer.commit()
        let open = 4 * blocks * 80
        #expect(writer.run.store.indexMemory < open + chunks * blocks * 12)
        _ = try writer.items()
        var again = StoreRun(writer.run.disk)
        again.settle()
        #expect(again.store.usage(Writer.set).stored == UInt64(chunks * blocks * 3))
        #expect(again.store.indexMemory < chunks * blocks * 11)
        let before = again.store.indexMemory
        // One block is written anew: its page is open, and packed again after others.
        writer.run = again
        try writer.write(7, 100, [4, 5, 6])
        let newest = writer.number
        for chunk in [40, 60] { try writer.write(chunk, 0, [1]) }
        writer.commit()
        #expect(writer.run.store.indexMemory < before + 1_000)
        #expect(writer.run.store.newest(Writer.chunk(7), 100) == newest)
        #expect(writer.run.store.newest(Writer.chunk(7), 99) != .none)
    }

    @Test("a disk whose index takes all the memory it may is full, and tells so in time (C20)")
    func bound() throws {
        let most = 1 << 20
        var writer = try Writer(IndexConfiguration(memory: most, openGroups: 4))
        let payload = [UInt8](repeating: 1, count: 100)
        let capacity = writer.run.store.capacity
        func reachable(_ writer: Writer) -> UInt64 { writer.run.store.reachable(of: capacity) }
        var written = 0
        var half = 0
        while writer.run.store.hasRoom(forData: 100) {
            try writer.write(written, 0, payload)
            written += 1
            if half == 0, reachable(writer) < capacity { half = written }
            try #require(written < 50_000)
        }
        writer.commit()
        let store = writer.run.store
        #expect(store.isIndexFull && store.fill != .roomy && store.indexMemory >= most)
        #expect(store.living < store.capacity / 2)
        #expect(reachable(writer) < store.living + capacity / 100)
        #expect(half > written / 2 && half < written)
        // Deletes give it back, for chunks and for blocks.
        for chunk in 0..<written where chunk % 4 != 0 {
            try writer.log(.drop([Writer.chunk(chunk)]))
        }
        writer.commit()
        #expect(writer.run.store.hasRoom(forData: 100))
        #expect(reachable(writer) == capacity)
        while writer.run.store.hasRoom(forData: 100) {
            try writer.write(written, written % 900, payload)
            try writer.write(written, written % 900 + 60, payload)
            written += 1
            try #require(written < 100_000)
        }
        #expect(writer.run.store.isIndexFull)
        for chunk in 0..<written {
            try writer.log(.trim(Writer.chunk(chunk), truncation: 1, from: 0))
        }
        writer.commit()
        // Chunks that were cut to nothing still have their names.
        #expect(writer.run.store.indexMemory < written * 130)
        #expect(writer.run.store.usage(Writer.set).stored == 0)
    }
}
