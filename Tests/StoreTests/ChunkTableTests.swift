// The table of a disk's chunks against plain dictionaries.

import Base
import Store
import Testing

struct ChunkTableTests {
    /// Names and slots as the table has them, and as they must be.
    private struct Model {
        var lookup = ChunkLookup()
        var names: [ChunkID?] = []
        var slots: [ChunkID: Int] = [:]
        var free: [Int] = []

        func find(_ chunk: ChunkID) -> Int? { lookup.find(chunk) { names[$0] == chunk } }

        mutating func insert(_ chunk: ChunkID) {
            let slot = free.popLast() ?? names.count
            if slot == names.count { names.append(nil) }
            names[slot] = chunk
            slots[chunk] = slot
            lookup.insert(chunk, slot)
        }
        mutating func remove(_ chunk: ChunkID) {
            guard let slot = slots.removeValue(forKey: chunk) else { return }
            lookup.remove(chunk, slot)
            names[slot] = nil
            free.append(slot)
        }
        /// How many names are found elsewhere than they are.
        func faults(_ names: [ChunkID]) -> Int { names.count { find($0) != slots[$0] } }
    }

    private static func chunk(_ number: Int) -> ChunkID {
        ChunkID(
            inode: InodeID(slot: UInt64(number / 3), generation: UInt32(number % 5)),
            index: UInt32(number % 3), version: UInt32(number % 2))
    }

    @Test("the lookup finds what a dictionary finds, while it grows, shrinks and is refilled")
    func lookup() {
        var random = SeededRandom(seed: 31)
        // Few: tables as full as they get. Many: they grow.
        for count in [40, 1_500, 1_790, 20_000] {
            let names = (0..<count).map { Self.chunk($0) }
            var model = Model()
            for round in 0..<6 {
                for _ in 0..<count {
                    let chunk = names[random.below(count)]
                    if model.slots[chunk] == nil {
                        model.insert(chunk)
                    } else if random.chance(round + 1, of: 6) {
                        model.remove(chunk)
                    }
                    if count < 100 { #expect(model.faults(names) == 0) }
                }
                #expect(model.faults(names) == 0)
            }
            for chunk in names where model.slots[chunk] == nil { model.insert(chunk) }
            #expect(model.faults(names) == 0)
            for chunk in names.shuffled(using: &random) { model.remove(chunk) }
            #expect(model.faults(names) == 0 && model.slots.isEmpty)
        }
    }

    @Test("a lookup that is made of all chunks at once is like one that grew, and refuses a twin")
    func bulk() throws {
        for count in [0, 1, 7, 8, 1_000, 30_000] {
            var model = Model()
            model.names = (0..<count).map { Self.chunk($0) }
            for (slot, name) in model.names.enumerated() { model.slots[name!] = slot }
            let (names, hashes) = (model.names, model.names.map { ChunkLookup.hash($0!) })
            model.lookup = try #require(ChunkLookup(hashes) { names[$0] == names[$1] })
            for number in count..<count + 2_000 { model.insert(Self.chunk(number)) }
            for number in 0..<count / 2 { model.remove(Self.chunk(number * 2)) }
            #expect(model.faults((0..<count + 3_000).map { Self.chunk($0) }) == 0)
        }
        let twins = (0..<3_000).map { ChunkLookup.hash(Self.chunk($0 == 2_999 ? 17 : $0)) }
        #expect(ChunkLookup(twins) { twins[$0] == twins[$1] } == nil)
    }

    /// A store of thousands of chunks, and what each of them must have.
    private struct Files {
        /// Blocks with the record that wrote them last, and the truncation.
        struct File: Equatable {
            var blocks: [Int: RecordNumber] = [:]
            var truncation: UInt32 = 0
        }
        static let set = SetID(rawValue: 4)
        /// Of several pages of the index.
        static let blocks = [0, 1, 2, 40, 41, 1_023]
        var run: StoreRun
        var files: [ChunkID: File] = [:]
        var number = RecordNumber.none

        init() {
            var disk = TestDisk()
            disk.capacity = 64 << 20
            run = StoreRun(disk, StoreRun.configuration(interval: 1 << 30))
            run.settle()
            let start = SetModel(set: Self.set).start(Epoch(rawValue: 1), keeping: 0)
            #expect(throws: Never.self) { try run.store.adopt(start) }
        }

        mutating func log(_ body: RecordBody) {
            number = number.next
            let record = Record(
                set: Self.set, epoch: Epoch(rawValue: 1), number: number, session: .none,
                sequence: RequestNumber(rawValue: 0), firstUnacked: RequestNumber(rawValue: 0),
                truncation: 0, body: body)
            #expect(throws: Never.self) { try run.store.prepare(record) }
            if number.rawValue % 100 == 0 { commit() }
        }
        mutating func commit() {
            run.settle()
            run.store.commit(Self.set, through: number)
        }

        mutating func write(_ chunk: ChunkID, _ block: Int) {
            let payload: [UInt8] = [1, 2, 3]
            log(
                .write(
                    Extent(
                        chunk: chunk, block: UInt16(block), start: 0, length: 3, codec: .raw,
                        stored: Checksum(of: payload), pages: [0], fileEnd: 0, modified: .zero,
                        payload: payload[...])))
            files[chunk, default: File()].blocks[block] = number
        }
        /// A chunk that was dropped must not come back soon.
        mutating func change(_ chunk: ChunkID, _ random: inout SeededRandom) {
            switch random.below(10) {
            case 0:
                log(.drop([chunk]))
                files[chunk] = nil
            case 1:
                let block = random.below(3)
                let truncation = files[chunk]!.truncation + 1
                log(.trim(chunk, truncation: truncation, from: UInt32(block * Limits.block)))
                files[chunk]!.truncation = truncation
                files[chunk]!.blocks = files[chunk]!.blocks.filter { $0.key < block }
            case 2, 3, 4: write(chunk, Self.blocks[random.below(Self.blocks.count)])
            default: write(chunk, 0)
            }
        }

        /// How many chunks are not as they must be.
        func faults() -> Int {
            let store = run.store
            #expect(store.chunks(of: Self.set) == files.keys.sorted())
            #expect(Int(store.usage(Self.set).chunks) == files.count)
            let blocks = files.values.reduce(0) { $0 + $1.blocks.count }
            #expect(store.usage(Self.set).stored == UInt64(blocks * 3))
            return files.count { chunk, file in
                let found = Self.blocks.reduce(into: [Int: RecordNumber]()) { found, block in
                    let newest = store.newest(chunk, block)
                    if newest != .none { found[block] = newest }
                }
                return found != file.blocks || store.appliedTruncation(chunk) != file.truncation
            }
        }

        mutating func restart(stopping: Bool) {
            if stopping {
                run.take(run.store.stop())
                run.settle()
                #expect(run.isStopped)
            }
            run = StoreRun(run.disk, StoreRun.configuration(interval: 1 << 30))
            run.settle()
            run.store.commit(Self.set, through: number)
        }
    }

    @Test("thousands of chunks of all forms are what a model says, after stops and crashes too")
    func files() {
        var random = SeededRandom(seed: 32)
        var files = Files()
        var next = 0
        for round in 0..<4 {
            for _ in 0..<1_500 {
                files.write(Self.chunk(next), 0)
                next += 1
            }
            for chunk in files.files.keys.sorted().shuffled(using: &random).prefix(700) {
                files.change(chunk, &random)
            }
            files.commit()
            #expect(files.faults() == 0)
            files.restart(stopping: round % 2 == 0)
            #expect(files.faults() == 0)
        }
        let forms = files.files.values
        #expect(forms.contains { $0.blocks.count > 2 } && forms.contains { $0.blocks.isEmpty })
        #expect(forms.count > 5_000 && forms.contains { $0.truncation > 0 })
    }
}
