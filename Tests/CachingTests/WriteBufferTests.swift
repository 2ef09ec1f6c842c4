// The write buffer against plain arrays: what is read, what is sent, what is lost.

import Base
import Caching
import Testing

/// A cell that is an array, and a file of a few small blocks' worth of writes.
private struct Model {
    static let blocks = 4
    static let size = blocks * Limits.block
    /// What the writer wrote: what a reader must see.
    var written = [UInt8](repeating: 0, count: size)
    /// What the cell has.
    var cell = [UInt8](repeating: 0, count: size)
    /// What the cell has and could lose by a truncation of somebody else.
    var settled = [UInt8](repeating: 0, count: size)
    var buffer = WriteBuffer()
    var flying: [(block: FileBlock, extent: Extent)] = []
    var now = Instant.zero
    /// How many extents in `flying` are refused as outdated when they are answered.
    var overtaken = false

    static func extent(_ block: FileBlock, _ run: Run) -> Extent {
        Extent(
            chunk: ChunkID(inode: .root, index: block.chunk, version: 0),
            block: block.blockInChunk, start: UInt32(run.start), length: UInt32(run.bytes.count),
            codec: .raw, stored: Checksum(of: run.bytes), pages: [], fileEnd: 0, modified: .zero,
            payload: run.bytes[...])
    }
    mutating func launch(_ block: FileBlock, _ runs: [Run]) {
        let extents = runs.map { Self.extent(block, $0) }
        buffer.launch(block, extents)
        flying += extents.map { (block, $0) }
    }
    mutating func seal(_ block: FileBlock) {
        if let runs = buffer.seal(block) { launch(block, runs) }
    }

    mutating func write(_ random: inout SeededRandom) {
        let block = FileBlock(rawValue: UInt32(random.below(Self.blocks)))
        let isWhole = random.chance(1, of: 6)
        let start = isWhole ? 0 : random.below(Limits.block)
        let bound = random.chance(1, of: 3) ? Limits.block - start : min(300, Limits.block - start)
        let count = isWhole ? Limits.block : 1 + random.below(bound)
        let byte = UInt8.random(in: 1...255, using: &random)
        let bytes = [UInt8](repeating: byte, count: count)
        let offset = Int(block.offset) + start
        if isWhole, buffer.claim(block, now: now, modified: Timestamp(nanoseconds: 1)) {
            if random.chance(1, of: 4) {
                // The caller could not go on: nothing was written.
                buffer.withdraw(block, now: now)
                return
            }
            launch(block, [Run(start: 0, bytes: bytes)])
        } else {
            let isDue = bytes.withUnsafeBytes {
                buffer.write(
                    $0, to: block, at: start, now: now, modified: Timestamp(nanoseconds: 1))
            }
            if isDue { seal(block) }
        }
        written.replaceSubrange(offset..<offset + count, with: bytes)
    }

    mutating func answer(_ random: inout SeededRandom) {
        guard !flying.isEmpty else { return }
        let (block, extent) = flying.remove(at: random.below(flying.count))
        let start = Int(block.offset) + Int(extent.start)
        if overtaken {
            buffer.answer(block, .outdated, now: now)
        } else {
            cell.replaceSubrange(start..<start + Int(extent.length), with: extent.payload)
            buffer.answer(block, .done, now: now)
        }
    }

    /// Checks that the overlay over the cell is what was written.
    func check() -> Bool {
        for index in 0..<Self.blocks {
            let block = FileBlock(rawValue: UInt32(index))
            let offset = Int(block.offset)
            var seen = Array(cell[offset..<offset + Limits.block])
            for layer in buffer.overlay(of: block) {
                switch layer {
                case .run(let run): seen.replaceSubrange(run.start..<run.end, with: run.bytes)
                case .extent(let extent):
                    let start = Int(extent.start)
                    seen.replaceSubrange(start..<start + Int(extent.length), with: extent.payload)
                }
            }
            if seen != Array(written[offset..<offset + Limits.block]) { return false }
        }
        return true
    }

    /// Two extents without an answer never overlap in a block unless they were sealed together.
    func isOneFlightPerBlock() -> Bool {
        for (index, one) in flying.enumerated() {
            for other in flying[(index + 1)...] where other.block == one.block {
                let (a, b) = (one.extent, other.extent)
                if a.start < b.start + b.length, b.start < a.start + a.length { return false }
            }
        }
        return true
    }
}

@Suite struct WriteBufferTests {
    @Test("Reads see every write, whatever the order of writes, seals, answers and settling")
    func model() {
        for seed in 1...40 {
            var random = SeededRandom(seed: UInt64(seed))
            var model = Model()
            for _ in 0..<120 {
                model.now = model.now + .milliseconds(100)
                switch random.below(10) {
                case 0..<4: model.write(&random)
                case 4: model.seal(FileBlock(rawValue: UInt32(random.below(Model.blocks))))
                case 5, 6: model.answer(&random)
                case 7: for block in model.buffer.takeReady() { model.seal(block) }
                case 8:
                    let old = model.now + Interval.milliseconds(-500)
                    for block in model.buffer.demand(dirtySince: old) { model.seal(block) }
                default:
                    if let settlement = model.buffer.settlement {
                        model.buffer.settle(settlement, now: model.now)
                    }
                }
                #expect(model.isOneFlightPerBlock())
            }
            #expect(model.check(), "seed \(seed)")
            drain(&model, &random)
            #expect(model.cell == model.written, "seed \(seed)")
            #expect(model.buffer.bytes == 0 && model.buffer.isClean)
            #expect(model.buffer.end == nil && model.buffer.modified == nil)
        }
    }

    /// What a flush does: demand, seal, answer, until nothing is pending; then settle.
    private func drain(_ model: inout Model, _ random: inout SeededRandom) {
        let last = model.buffer.tick
        for block in model.buffer.demand(through: last) { model.seal(block) }
        var rounds = 0
        while model.buffer.isPending(through: last) {
            model.answer(&random)
            for block in model.buffer.takeReady() { model.seal(block) }
            rounds += 1
            guard rounds < 1_000 else {
                Issue.record("a flush that never ends")
                return
            }
        }
        if let settlement = model.buffer.settlement {
            model.buffer.settle(settlement, now: model.now)
        }
    }

    @Test("After a truncation by somebody else everything not settled is written again, once")
    func restored() {
        for seed in 1...40 {
            var random = SeededRandom(seed: UInt64(seed))
            var model = Model()
            for _ in 0..<30 {
                model.write(&random)
                if random.chance(1, of: 3) { model.answer(&random) }
                if random.chance(1, of: 3) {
                    for block in model.buffer.takeReady() { model.seal(block) }
                }
            }
            // Nothing is settled: the other's truncation takes all of it away.
            model.cell = [UInt8](repeating: 0, count: Model.size)
            model.overtaken = true
            while !model.flying.isEmpty { model.answer(&random) }
            model.buffer.overtake()
            #expect(model.buffer.settlement == nil)
            for index in 0..<Model.blocks {
                let sealed = model.buffer.seal(FileBlock(rawValue: UInt32(index)))
                #expect(sealed == nil)
            }
            model.overtaken = false
            model.buffer.restore(now: model.now) { Array($0.payload) }
            #expect(!model.buffer.isStranded)
            #expect(model.check(), "seed \(seed)")
            drain(&model, &random)
            #expect(model.cell == model.written, "seed \(seed)")
            #expect(model.buffer.bytes == 0 && model.buffer.isClean)
        }
    }

    @Test("Later bytes of a flying block wait for its answer, and are then ready if a flush waits")
    func waiting() {
        var model = Model()
        let block = FileBlock(rawValue: 0)
        func put(_ model: inout Model, _ byte: UInt8) -> Bool {
            [byte].withUnsafeBytes {
                model.buffer.write($0, to: block, at: 5, now: .zero, modified: .zero)
            }
        }
        let first = put(&model, 1)
        model.seal(block)
        let second = put(&model, 2)
        #expect(!first && !second)
        let early = model.buffer.seal(block)
        let demanded = model.buffer.demand(through: model.buffer.tick)
        #expect(early == nil && demanded.isEmpty)
        model.buffer.answer(block, .done, now: .zero)
        let ready = model.buffer.takeReady()
        let sealed = model.buffer.seal(block)
        #expect(ready == [block] && sealed == [Run(start: 5, bytes: [2])])
    }

    @Test("A failed extent is dropped and noted; the rest goes on (K6)")
    func failure() {
        var model = Model()
        var random = SeededRandom(seed: 1)
        for block in 0..<2 {
            _ = [UInt8]([1, 2, 3]).withUnsafeBytes {
                model.buffer.write(
                    $0, to: FileBlock(rawValue: UInt32(block)), at: 0, now: .zero,
                    modified: .zero)
            }
            model.seal(FileBlock(rawValue: UInt32(block)))
        }
        model.buffer.answer(FileBlock(rawValue: 0), .failed(.noSpace), now: .zero)
        #expect(model.buffer.failures == 1 && model.buffer.lastFailure == .noSpace)
        model.flying.removeFirst()
        model.answer(&random)
        #expect(model.buffer.settlement?.extents == 1)
        let isPending = model.buffer.isPending(through: model.buffer.tick)
        #expect(!isPending)
    }

    @Test("An abandoned buffer forgets all but what flies, and its accounts end at zero")
    func abandoned() {
        var model = Model()
        var random = SeededRandom(seed: 9)
        for _ in 0..<40 {
            model.write(&random)
            if random.chance(1, of: 4) { model.answer(&random) }
        }
        model.buffer.abandon(.io)
        while let (block, _) = model.flying.popLast() {
            model.buffer.answer(block, .failed(.io), now: .zero)
        }
        model.buffer.abandon(.io)
        #expect(model.buffer.isClean && model.buffer.bytes == 0)
        #expect(model.buffer.lastFailure == .io)
    }

    @Test("Many small runs of one block are sent without waiting for the rest of it")
    func manyRuns() {
        var buffer = WriteBuffer()
        let block = FileBlock(rawValue: 3)
        var due = 0
        for index in 0..<64 {
            let isDue = [UInt8(1)].withUnsafeBytes {
                buffer.write($0, to: block, at: index * 100, now: .zero, modified: .zero)
            }
            if isDue { due = due == 0 ? index : due }
        }
        #expect(due == 32)
    }

    @Test("The settlement reaches to the end of what is acknowledged, not of what is dirty")
    func settlement() {
        var model = Model()
        var random = SeededRandom(seed: 1)
        _ = [UInt8]([1, 2, 3]).withUnsafeBytes {
            model.buffer.write(
                $0, to: FileBlock(rawValue: 1), at: 10, now: .zero,
                modified: Timestamp(nanoseconds: 5))
        }
        model.seal(FileBlock(rawValue: 1))
        _ = [UInt8]([1]).withUnsafeBytes {
            model.buffer.write(
                $0, to: FileBlock(rawValue: 2), at: 10, now: .zero,
                modified: Timestamp(nanoseconds: 6))
        }
        #expect(model.buffer.settlement == nil)
        #expect(model.buffer.end == UInt64(2 * Limits.block + 11))
        model.answer(&random)
        #expect(model.buffer.settlement?.end == UInt64(Limits.block + 13))
    }
}
