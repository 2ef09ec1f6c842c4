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

    static func chunk(_ number: Int) -> ChunkID {
        ChunkID(inode: InodeID(rawValue: UInt64(1 + number)), index: 2, version: 7)
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
    mutating func write(_ chunk: Int, _ block: Int, start: Int = 0, _ payload: [UInt8]) throws {
        try log(
            .write(
                Extent(
                    chunk: Self.chunk(chunk), block: UInt16(block), start: UInt32(start),
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
    @Test("a page has its documented bytes")
    func vector() throws {
        var writer = try Writer(IndexConfiguration())
        let bytes = [UInt8](repeating: 7, count: 300)
        try writer.write(0, 32, start: 16, Array(bytes.prefix(4)))
        try writer.write(0, 32, bytes)
        try writer.write(0, 32, start: 500, bytes)
        try writer.write(0, 34, bytes)
        writer.commit()
        try writer.log(.trim(Writer.chunk(0), truncation: 1, from: UInt32(34 * Limits.block + 9)))
        let page = Self.page
        #expect(try writer.items().suffix(page.count) == page[...])
    }

    /// The item of the above. The first record is no more, the last was cut.
    private static let page = hexadecimal(
        """
        0c 1d000000 81 00 00
        49 04 02 8c01 78 00 ab02 00
        5e 00 00 f403 ab02 00
        5e 02 00 00 ab02 a302
        """)

    @Test("a page with any byte changed is refused, or is another page; no store fails")
    func fuzz() throws {
        var writer = try Writer(IndexConfiguration())
        let items = try writer.items()
        var chunk = ByteWriter()
        chunk.write(11 as UInt8)
        chunk.write(Writer.chunk(0))
        chunk.write(Writer.set)
        chunk.write(1 as UInt32)

        /// Blocks that the store finds; nil if it took the checkpoint for damaged.
        func start(_ page: [UInt8]) -> Int? {
            var disk = writer.run.disk
            _ = disk.perform(.remove(DiskOperation(rawValue: 0), .checkpoint(0)))
            disk.add(
                .checkpoint(0), FormatTests.block(items + chunk.bytes + page) + zeros(4_096))
            var run = StoreRun(disk)
            run.settle()
            #expect(run.failure == nil && run.store.isReady)
            _ = run.read(Writer.set, Writer.chunk(0), 30..<64)
            let isThere = run.store.chunks(of: Writer.set) == [Writer.chunk(0)]
            return isThere ? run.store.blockCount(Writer.chunk(0)) : nil
        }
        #expect(start(Self.page) == 35)
        var random = SeededRandom(seed: 51)
        var refused = 0
        for place in Self.page.indices {
            for _ in 0..<12 {
                var page = Self.page
                page[place] ^= UInt8(1 + random.below(255))
                if start(page) == nil { refused += 1 }
            }
        }
        #expect(refused > 200)
        // Cut short, with its length and without.
        for length in 5..<Self.page.count {
            var page = Array(Self.page.prefix(length))
            _ = start(page)
            page.replaceSubrange(1..<5, with: little(UInt32(length - 5)))
            _ = start(page)
        }
        // What is told of all entries: no piles, segments 0 to 1; and no chunk has page 33.
        for head in ["01 00 00", "81 00 01", "a1 00 00"] {
            var page = Self.page
            page.replaceSubrange(5..<8, with: hexadecimal(head))
            #expect(start(page) == nil)
        }
        // Twice: the second does not come after the first.
        #expect(start(Self.page + Self.page) == nil)
    }

    @Test("whole blocks take few bytes each, small files no more than before; a restart keeps both")
    func memory() throws {
        var writer = try Writer(IndexConfiguration(openChunks: 4), capacity: 64 << 20)
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
        // One block is written anew: its page is open, the others stay as they are.
        writer.run = again
        try writer.write(7, 100, [4, 5, 6])
        writer.commit()
        let grown = writer.run.store.indexMemory - before
        #expect(grown > 32 * 20 && grown < 32 * 100)
        #expect(writer.run.store.newest(Writer.chunk(7), 100) == writer.number)
        #expect(writer.run.store.newest(Writer.chunk(7), 99) != .none)
    }

    @Test("a disk whose index takes all the memory it may is full, and tells so in time (C20)")
    func bound() throws {
        let most = 1 << 20
        var writer = try Writer(IndexConfiguration(memory: most))
        let payload = [UInt8](repeating: 1, count: 100)
        var written = 0
        var half = 0
        while writer.run.store.hasRoom(forData: 100) {
            try writer.write(written, 0, payload)
            written += 1
            if half == 0, writer.run.store.used > writer.run.store.living { half = written }
            try #require(written < 50_000)
        }
        writer.commit()
        let store = writer.run.store
        #expect(store.isIndexFull && store.fill != .roomy && store.indexMemory >= most)
        #expect(store.living < store.capacity / 2)
        #expect(store.used > store.capacity / 100 * 99)
        #expect(half > written / 2 && half < written)
        // Deletes give it back, for chunks and for blocks.
        for chunk in 0..<written where chunk % 4 != 0 {
            try writer.log(.drop([Writer.chunk(chunk)]))
        }
        writer.commit()
        #expect(writer.run.store.hasRoom(forData: 100))
        #expect(writer.run.store.used == writer.run.store.living)
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
        #expect(writer.run.store.indexMemory < written * 100)
        #expect(writer.run.store.usage(Writer.set).stored == 0)
    }
}
