// The log of a disk alone: round trips, torn tails, rot, recycling, failures.

import Base
import Store
import Testing

/// Records of a seed: kind, header, payload.
private func content(_ random: inout SeededRandom, payload: Int = 9_000) -> (
    UInt8, [UInt8], [UInt8]
) {
    let header = (0..<random.below(120)).map { _ in UInt8.random(in: 0...255, using: &random) }
    let length = random.chance(1, of: 2) ? random.below(200) : random.below(payload)
    let payload = (0..<length).map { _ in UInt8.random(in: 0...255, using: &random) }
    return (UInt8(1 + random.below(254)), header, payload)
}

struct SegmentLogTests {
    @Test("what was appended is replayed, in order, over many segments and restarts")
    func roundTrip() {
        var random = SeededRandom(seed: 1)
        var run = LogRun()
        run.settle()
        var expected: [LogNumber: (UInt8, [UInt8], [UInt8])] = [:]
        for round in 1...6 {
            for _ in 0..<40 {
                let (kind, header, payload) = content(&random)
                expected[run.append(kind, header, payload)] = (kind, header, payload)
                if random.chance(1, of: 3) { run.settle() }
            }
            run.settle()
            #expect(run.durable.rawValue == UInt64(round * 40))
            run = run.restarted()
            #expect((run.superblock?.incarnation.rawValue ?? 0) >> 16 == UInt64(round + 1))
            #expect(run.damaged.isEmpty)
            #expect(run.replayed.map(\.number.rawValue) == Array(1...UInt64(round * 40)))
            for record in run.replayed {
                let (kind, header, payload) = expected[record.number]!
                #expect(record.kind.rawValue == kind)
                #expect(record.header == header)
                #expect(Array(record.payload) == payload)
            }
        }
        #expect(run.log.segments.count > 5)
    }

    @Test("large payloads start at sectors where their headers let them, and all is replayed")
    func sectors() {
        var random = SeededRandom(seed: 5)
        var disk = TestDisk()
        disk.capacity = 1 << 30
        var run = LogRun(disk, LogRun.configuration(segmentSize: 5 << 20))
        run.settle()
        var expected: [(header: [UInt8], payload: [UInt8])] = []
        for _ in 0..<200 {
            let padded = random.chance(2, of: 3)
            let headerLength = padded ? 64 * random.below(5) : random.below(300)
            let header = [UInt8](repeating: 1, count: headerLength)
            let length = [0, 100, 5_000, Limits.largePayload, 40_001, Limits.block][random.below(6)]
            let payload = [UInt8](repeating: UInt8(random.below(256)), count: length)
            expected.append((header, payload))
            _ = run.append(1, header, payload)
            if random.chance(1, of: 4) { run.settle() }
        }
        run.settle()
        let again = run.restarted()
        #expect(again.damaged.isEmpty)
        #expect(again.replayed.map(\.header) == expected.map(\.header))
        #expect(again.replayed.map { Array($0.payload) } == expected.map(\.payload))
        for record in again.replayed
        where record.payload.count >= Limits.largePayload && record.header.count % 64 == 0 {
            let start = Int(record.place.offset) + record.place.length - record.payload.count
            #expect(start % Limits.sector == 0)
        }
    }

    @Test("an idle log writes zeros behind its records, to the end of the segment; a busy one none")
    func zerosAhead() {
        let segment = 5 << 20
        var disk = TestDisk()
        disk.capacity = 1 << 30
        var run = LogRun(disk, LogRun.configuration(segmentSize: segment))
        run.settle()
        let payload = [UInt8](repeating: 7, count: 300 << 10)
        /// Lets time pass and runs on; gives where zeros were written meanwhile.
        func zeros() -> [Range<Int>] {
            var zeros: [Range<Int>] = []
            run.now = run.now + Limits.prewritePause
            run.take(run.log.flush(now: run.now))
            while let effect = run.pending.first {
                if case .write(_, .segment, let offset, let pieces, _) = effect,
                    pieces.allSatisfy({ $0.allSatisfy { $0 == 0 } })
                {
                    zeros.append(offset..<offset + pieces.reduce(0) { $0 + $1.count })
                }
                _ = run.step()
            }
            return zeros
        }
        // Filled fast: each time that zeros are due, more was logged than they would hold.
        for _ in 0..<3 {
            for _ in 0..<4 { _ = run.append(1, [], payload) }
            #expect(zeros().isEmpty)
        }
        var written = zeros()
        // A record that is appended meanwhile is written before the next ones, and found again.
        _ = run.append(2, [5], [6])
        for _ in 0..<20 { written += zeros() }
        #expect(written.last?.upperBound == segment)
        #expect(zip(written, written.dropFirst()).allSatisfy { $0.upperBound <= $1.lowerBound })
        let again = run.restarted()
        #expect(again.damaged.isEmpty)
        #expect(again.replayed.map(\.number.rawValue) == Array(1...13))
        #expect(again.replayed.last?.header == [5])
    }

    @Test("every flipped byte of a durable log is reported as damage or does no harm")
    func rotIsNeverCut() {
        var random = SeededRandom(seed: 2)
        var run = LogRun()
        run.settle()
        var contents: [(UInt8, [UInt8], [UInt8])] = []
        for _ in 0..<14 {
            contents.append(content(&random, payload: 6_000))
            _ = run.append(contents.last!.0, contents.last!.1, contents.last!.2)
            if random.chance(1, of: 2) { run.idle() }
        }
        run.idle()
        let files = run.disk.inventory.files
        #expect(files.count >= 2)
        var harmed = 0
        for file in files where file.file != .superblock {
            for offset in stride(from: 0, to: file.size, by: 13) {
                var rotten = run
                rotten.disk.rot(file.file, at: offset, mask: 1 << UInt8(random.below(8)))
                let again = rotten.restarted()
                let lost = again.damaged.flatMap { damage in
                    Array(damage.numbers.lowerBound.rawValue...damage.numbers.upperBound.rawValue)
                }
                harmed += lost.isEmpty ? 0 : 1
                let all = (again.replayed.map(\.number.rawValue) + lost).sorted()
                #expect(all == Array(1...14), "\(file.file) at \(offset)")
                #expect(lost.count <= 14)
                for record in again.replayed {
                    let (kind, header, payload) = contents[Int(record.number.rawValue) - 1]
                    #expect(record.kind.rawValue == kind && record.header == header)
                    #expect(Array(record.payload) == payload)
                }
                for record in again.damaged.flatMap(\.records) {
                    #expect(record.header == contents[Int(record.number.rawValue) - 1].1)
                }
            }
        }
        #expect(harmed > 500)
    }

    @Test("a file that a crash left shorter than a segment is made again before it is written to")
    func shortFiles() {
        var run = LogRun()
        run.settle()
        _ = run.append(1, [1], [2])
        run.settle()
        run.disk.add(.segment(1), [])
        run.disk.add(.segment(2), Array(repeating: 0, count: 8_192))
        var again = run.restarted()
        again.settle()
        #expect(again.disk.files[.segment(1)] == nil && again.disk.files[.segment(2)] == nil)
        for _ in 0..<40 {
            _ = again.append(1, [1], Array(repeating: 7, count: 9_000))
            again.settle()
        }
        let segments = again.disk.inventory.files.filter { $0.file != .superblock }
        #expect(segments.count > 3)
        #expect(segments.allSatisfy { $0.size == 64 << 10 })
    }

    @Test("a power cut loses nothing that was durable and reports no damage")
    func powerCuts() {
        for seed in 0..<300 as Range<UInt64> {
            var model = PowerCutModel(seed: seed)
            for round in 0..<6 {
                model.work()
                model.restart()
                if let fault = model.fault() {
                    Issue.record("seed \(seed) round \(round): \(fault)")
                    break
                }
            }
        }
    }
}

/// A log that is cut off again and again, and what must be in it.
private struct PowerCutModel {
    var random: SeededRandom
    var run = LogRun()
    var contents: [LogNumber: (UInt8, [UInt8], [UInt8])] = [:]
    var durable: Set<LogNumber> = []

    init(seed: UInt64) { random = SeededRandom(seed: seed) }

    mutating func work() {
        var fresh: [LogNumber] = []
        for _ in 0..<5 + random.below(60) {
            if run.log.isReady, random.chance(1, of: 2) {
                let new = content(&random)
                fresh.append(run.append(new.0, new.1, new.2))
                if durable.contains(fresh.last!) { Issue.record("\(fresh.last!) was reused") }
                contents[fresh.last!] = new
            }
            if random.chance(1, of: 9) { run.now = run.now + .milliseconds(30) }
            run.take(run.log.flush(now: run.now))
            _ = run.step()
            durable.formUnion(fresh.filter { $0 <= run.durable })
        }
    }

    mutating func restart() {
        if random.chance(1, of: 4) {
            run.disk.kill(during: run.pending, &random)
        } else {
            run.disk.crash(during: run.pending, &random)
        }
        run = LogRun(run.disk)
        if random.chance(1, of: 5) {
            for _ in 0..<random.below(12) { _ = run.step() }
            run.disk.crash(during: run.pending, &random)
            run = LogRun(run.disk)
        }
        run.settle()
    }

    mutating func fault() -> String? {
        if let failure = run.failure { return "\(failure)" }
        if !run.damaged.isEmpty { return "damage \(run.damaged)" }
        let numbers = run.replayed.map(\.number)
        if numbers != numbers.sorted() { return "order" }
        let lost = durable.subtracting(numbers)
        if !lost.isEmpty { return "lost \(lost.sorted())" }
        for record in run.replayed {
            let (kind, header, payload) = contents[record.number]!
            let isSame =
                record.kind.rawValue == kind && record.header == header
                && Array(record.payload) == payload
            if !isSame { return "content of \(record.number)" }
        }
        durable.formUnion(numbers)
        return nil
    }
}
