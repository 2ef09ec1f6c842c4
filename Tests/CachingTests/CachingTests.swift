// The small values of Caching against plain models.

import Base
import Caching
import Testing

@Suite struct RunsTests {
    @Test("Runs are the bytes of an array that was written to, sorted and apart")
    func model() {
        for seed in 1...60 {
            var random = SeededRandom(seed: UInt64(seed))
            var runs = Runs()
            var model = [UInt8?](repeating: nil, count: Limits.block)
            for _ in 0..<40 {
                let start = random.below(2_000)
                let count = 1 + random.below(random.chance(1, of: 4) ? 900 : 40)
                let bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
                bytes.withUnsafeBytes { runs.write($0, at: start) }
                for (index, byte) in bytes.enumerated() { model[start + index] = byte }
            }
            var seen = [UInt8?](repeating: nil, count: Limits.block)
            for run in runs.list {
                for (index, byte) in run.bytes.enumerated() { seen[run.start + index] = byte }
            }
            #expect(seen == model, "seed \(seed)")
            #expect(runs.count == model.filter { $0 != nil }.count)
            for (one, next) in zip(runs.list, runs.list.dropFirst()) {
                #expect(one.end < next.start)
            }
        }
    }
}

@Suite struct FileBlockTests {
    @Test("Spans cover a range exactly, each within one block")
    func spans() {
        var random = SeededRandom(seed: 1)
        for _ in 0..<200 {
            let offset = UInt64(random.below(1 << 30))
            let count = random.below(1 << 20)
            var next = offset
            for span in FileBlock.spans(at: offset, count: count) {
                #expect(span.block.offset + UInt64(span.range.lowerBound) == next)
                #expect(UInt64(span.offset) == next - offset)
                #expect(!span.range.isEmpty && span.range.upperBound <= Limits.block)
                #expect(
                    FileBlock(chunk: span.block.chunk, block: span.block.blockInChunk)
                        == span.block)
                next += UInt64(span.range.count)
            }
            #expect(next == offset + UInt64(count))
        }
    }
}

@Suite struct RetryTests {
    @Test("Pauses double up to the bound and end at the deadline")
    func pauses() {
        var retry = RetryPolicy(deadline: nil)
        let pauses = (0..<10).compactMap { _ in retry.next(now: .zero) }
        #expect(pauses.count == 10)
        #expect(pauses[0] == Limits.retryFirst && pauses[1] == Limits.retryFirst * 2)
        #expect(pauses[9] == Limits.retryLast)
        var bounded = RetryPolicy(deadline: .zero + .milliseconds(15))
        #expect(bounded.next(now: .zero) == .milliseconds(10))
        #expect(bounded.next(now: .zero + .milliseconds(10)) == .milliseconds(5))
        #expect(bounded.next(now: .zero + .milliseconds(15)) == nil)
    }
}

@Suite struct RequestWindowTests {
    @Test("The oldest number without an answer never goes back, and the span is bounded")
    func model() {
        for seed in 1...30 {
            var random = SeededRandom(seed: UInt64(seed))
            var window = RequestWindow(bound: 16)
            var open: [RequestNumber] = []
            var next: UInt64 = 1
            var first = window.first
            for _ in 0..<300 {
                if random.chance(1, of: 2) {
                    let count = 1 + random.below(4)
                    guard let number = window.take(count) else {
                        #expect(next + UInt64(count) - window.first.rawValue > 16)
                        continue
                    }
                    #expect(number.rawValue == next)
                    for _ in 0..<count {
                        open.append(RequestNumber(rawValue: next))
                        next += 1
                    }
                } else if !open.isEmpty {
                    window.finish(open.remove(at: random.below(open.count)))
                }
                #expect(window.first >= first)
                first = window.first
                #expect(first == open.min() ?? RequestNumber(rawValue: next))
                #expect(window.isIdle == open.isEmpty)
            }
        }
    }
}

@Suite struct BlockCacheTests {
    private func tag(_ size: UInt64) -> CacheTag {
        CacheTag(
            truncation: 0,
            attributes: Attributes(inode: .root, kind: .file, mode: 0, size: size))
    }

    @Test("The cache is a map that forgets the least recently used first, within its bound")
    func model() {
        var random = SeededRandom(seed: 1)
        let bound = 10 * (100 + BlockCache.overhead)
        var cache = BlockCache(bound: bound)
        /// From the least recently used on.
        var model: [(block: UInt32, content: [UInt8])] = []
        for step in 0..<3_000 {
            let number = UInt32(random.below(25))
            let block = FileBlock(rawValue: number)
            switch random.below(5) {
            case 0, 1:
                let content = [UInt8](repeating: UInt8(step % 251), count: 100)
                cache.insert(.root, block, tag: tag(1), content: content)
                model.removeAll { $0.block == number }
                model.append((number, content))
                if model.count > 10 { model.removeFirst() }
            case 2:
                cache.remove(.root, block)
                model.removeAll { $0.block == number }
            default:
                let found = cache.find(.root, block, tag: tag(1))
                let place = model.firstIndex { $0.block == number }
                #expect(found == place.map { model[$0].content })
                if let place { model.append(model.remove(at: place)) }
            }
            #expect(cache.count == model.count && cache.used <= bound)
        }
    }

    @Test("Blocks of a file that has changed are not found, and are gone")
    func changedTag() {
        var cache = BlockCache(bound: 1 << 20)
        let block = FileBlock(rawValue: 1)
        cache.insert(.root, block, tag: tag(1), content: [1])
        #expect(cache.has(.root, block, tag: tag(1)) && !cache.has(.root, block, tag: tag(2)))
        #expect(cache.find(.root, block, tag: tag(2)) == nil)
        #expect(cache.find(.root, block, tag: tag(1)) == nil)
        #expect(cache.used == 0)
    }

    @Test("A cache without room keeps nothing")
    func empty() {
        var cache = BlockCache(bound: 0)
        cache.insert(.root, FileBlock(rawValue: 1), tag: tag(1), content: [1])
        #expect(cache.count == 0)
    }
}

@Suite struct ReadAheadTests {
    @Test("Reading front to back fetches ahead in growing windows, each byte once")
    func sequential() {
        var habit = ReadAhead()
        let size: UInt64 = 64 << 20
        var offset: UInt64 = 0
        var fetched: UInt64 = 0
        while offset < size {
            if let range = habit.note(offset: offset, count: 128 << 10, size: size) {
                #expect(range.lowerBound >= fetched && range.upperBound <= size)
                #expect(range.lowerBound >= offset)
                fetched = range.upperBound
            }
            offset += 128 << 10
            #expect(fetched >= min(offset, size))
            #expect(fetched <= offset + ReadAhead.largest)
        }
        #expect(habit.isStreaming)
    }

    @Test("Reads at random places fetch nothing ahead")
    func random() {
        var habit = ReadAhead()
        var random = SeededRandom(seed: 1)
        var ahead = 0
        for _ in 0..<200 {
            let offset = UInt64(1 + random.below(1 << 30))
            if habit.note(offset: offset, count: 4_096, size: 1 << 31) != nil { ahead += 1 }
        }
        #expect(ahead <= 2)
    }

    @Test("Reads that overtake each other within the window still count as front to back")
    func outOfOrder() {
        var habit = ReadAhead()
        _ = habit.note(offset: 0, count: 128 << 10, size: 1 << 30)
        for step in stride(from: 1, to: 40, by: 2) {
            _ = habit.note(offset: UInt64(step + 1) * 128 << 10, count: 128 << 10, size: 1 << 30)
            _ = habit.note(offset: UInt64(step) * 128 << 10, count: 128 << 10, size: 1 << 30)
        }
        #expect(habit.isStreaming)
    }
}

@Suite struct FileMapTests {
    private func layout(_ truncation: UInt32, _ chunks: [UInt32], cuts: [Cut] = []) -> Layout {
        Layout(
            inode: .root, truncation: truncation, cuts: cuts,
            chunks: chunks.map {
                LayoutChunk(
                    chunk: ChunkID(inode: .root, index: $0, version: truncation),
                    set: SetID(rawValue: 1))
            }, sets: [])
    }

    @Test("A newer truncation number starts the map afresh, an older answer changes nothing")
    func truncation() {
        var map = FileMap(layout(1, [0]), first: 0, count: 1)
        map.learn(layout(1, [2]), first: 1, count: 3)
        #expect(map.place(of: 1) == .absent && map.place(of: 3) == .absent)
        #expect(map.place(of: 4) == .unknown)
        guard case .at(let place) = map.place(of: 2) else {
            Issue.record("no place")
            return
        }
        #expect(place.chunk.index == 2)
        map.learn(layout(0, [3]), first: 3, count: 1)
        #expect(map.place(of: 3) == .absent)
        map.forgetAbsent()
        #expect(map.place(of: 3) == .unknown)
        map.learn(layout(2, []), first: 0, count: 1)
        #expect(map.truncation == 2 && map.place(of: 0) == .absent)
        #expect(map.place(of: 2) == .unknown)
    }

    @Test("Cuts of a chunk are offsets in it; those of other chunks and of borders are left out")
    func cuts() {
        let chunk = UInt64(Limits.chunk)
        let cuts = [
            Cut(truncation: 1, size: 5), Cut(truncation: 2, size: chunk),
            Cut(truncation: 3, size: chunk + 7), Cut(truncation: 4, size: 2 * chunk + 1),
        ]
        let map = FileMap(layout(4, [], cuts: cuts), first: 0, count: 0)
        #expect(map.cuts(of: 0) == [Cut(truncation: 1, size: 5)])
        #expect(map.cuts(of: 1) == [Cut(truncation: 3, size: 7)])
        #expect(map.cuts(of: 5) == [])
    }

    @Test("Allocations grow while writing goes on, and never beyond the largest file")
    func allocation() {
        var map = FileMap(layout(0, [0]), first: 0, count: 1)
        var chunk: UInt32 = 1
        var counts: [UInt32] = []
        for _ in 0..<6 {
            let count = map.allocation(at: chunk)
            counts.append(count)
            chunk += count
        }
        #expect(counts == [2, 4, 8, 16, 16, 16])
        #expect(map.allocation(at: 9_000) == 1)
        let last = UInt32(Limits.fileSize / UInt64(Limits.chunk)) - 1
        #expect(map.allocation(at: last) == 1)
    }
}
