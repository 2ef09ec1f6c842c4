// The scrub of a store: what it finds, how fast it goes, and what it remembers (C18).

import Base
import Store
import Testing

/// A store with a set that has records of every kind, all committed and checkpointed or not.
private struct Scrubbed {
    var run: StoreRun
    var model: SetModel
    var wall = Timestamp(nanoseconds: 1_000_000_000_000)

    static func configuration(
        interval: Int = 60 << 10, period: Interval = .seconds(800), rate: UInt64 = 1 << 30
    ) -> StoreConfiguration {
        StoreConfiguration(
            log: LogRun.configuration(), checkpointInterval: interval,
            scrub: ScrubConfiguration(period: period, bytesPerSecond: rate))
    }

    init(records: Int = 120, _ configuration: StoreConfiguration = configuration()) {
        var random = SeededRandom(seed: 21)
        var disk = TestDisk()
        disk.capacity = 4 << 20
        run = StoreRun(disk, configuration)
        run.settle()
        model = SetModel(set: SetID(rawValue: 1))
        model.epoch = Epoch(rawValue: 1)
        _ = try? run.store.adopt(model.start(model.epoch, keeping: 0))
        for number in 0..<records {
            let record = model.next(&random, chunks: 8)
            _ = try? run.store.prepare(record)
            run.settle()
            // The last ones stay prepared.
            if number < records - 5 { run.store.commit(model.set, through: record.number) }
        }
        run.settle()
    }

    init(_ disk: TestDisk, _ model: SetModel, _ configuration: StoreConfiguration) {
        run = StoreRun(disk, configuration)
        run.settle()
        self.model = model
    }

    /// A turn, then so much time.
    mutating func turn(_ time: Interval = .milliseconds(20)) {
        run.take(run.store.scrub(now: run.now, wall: wall))
        // There are no other copies.
        if run.store.isComparing { run.store.endComparison(now: run.now, wall: wall) }
        run.settle()
        run.now = run.now + time
        wall = wall + time
    }

    /// One pass by order.
    mutating func pass() {
        let progress = run.store.scrubProgress
        run.store.scrub(
            ScrubOrder(run: progress.order.run + 1, isPaused: false), now: run.now)
        for _ in 0..<100_000 where run.store.scrubProgress.passes == progress.passes { turn() }
    }

    /// Numbers that reading everything finds damaged.
    mutating func damagedByReads() -> Set<RecordNumber> {
        run.damaged = []
        var count = 0
        _ = difference(
            &run, model, through: UInt64(model.records.count), prepared: true, damaged: &count)
        for record in model.records.suffix(5) { _ = run.load(model.set, record.number) }
        return Set(run.damaged)
    }
}

@Suite struct ScrubTests {
    @Test("A pass over a sound disk finds nothing, and tells since when all is verified")
    func sound() {
        var scrubbed = Scrubbed()
        let before = scrubbed.run.disk.bytesRead
        let began = scrubbed.wall
        #expect(scrubbed.run.store.scrubProgress.since == .zero)
        scrubbed.pass()
        let progress = scrubbed.run.store.scrubProgress
        #expect(progress.passes == 1 && progress.since == began && progress.found == 0)
        #expect(scrubbed.run.damaged.isEmpty)
        #expect(scrubbed.run.disk.bytesRead - before >= Int(scrubbed.run.store.usage.stored))
        #expect(progress.verified >= scrubbed.run.store.usage.stored)
    }

    @Test("A flipped byte that any read could meet is found without a reader, and healed")
    func rot() {
        let whole = Scrubbed()
        var found = 0
        var named = 0
        for file in whole.run.disk.inventory.files {
            guard case .segment = file.file else { continue }
            for offset in stride(from: 0, to: file.size, by: 97) {
                var again = whole
                again.run.disk.rot(file.file, at: offset, mask: 4)
                again.pass()
                let numbers = Set(again.run.damaged)
                #expect(again.run.store.scrubProgress.found == UInt64(numbers.count))
                #expect(again.damagedByReads().isSubset(of: numbers))
                let writes = numbers.map { again.model.records[Int($0.rawValue) - 1] }.compactMap {
                    if case .write(let extent) = $0.body { extent } else { nil }
                }
                let places = Set(
                    writes.map { DamagedPlace(chunk: $0.chunk, block: $0.block) })
                #expect(Set(again.run.store.damagedPlaces).isSubset(of: places))
                named += again.run.store.damagedPlaces.count
                for number in numbers {
                    let record = again.model.records[Int(number.rawValue) - 1]
                    #expect(throws: Never.self) {
                        try again.run.store.repair(again.model.set, record)
                    }
                }
                again.run.settle()
                #expect(!again.run.store.hasRot(again.model.set))
                #expect(again.run.store.scrubProgress.repaired == UInt64(numbers.count))
                #expect(again.damagedByReads().isEmpty)
                #expect(again.run.store.damagedPlaces.isEmpty)
                found += numbers.count
            }
        }
        #expect(found > 200 && named > 100)
    }

    @Test("A write that was lost, and one that went elsewhere, are found")
    func lostWrites() {
        let whole = Scrubbed()
        let files = whole.run.disk.inventory.files.filter {
            if case .segment = $0.file { true } else { false }
        }
        // The second segment never got its middle, and what belongs there is in the third.
        var again = whole
        let bytes = Array(whole.run.disk.files[files[1].file]![16_384..<32_768])
        again.run.disk.replace(files[1].file, 16_384, Array(repeating: 0, count: 16_384))
        again.run.disk.replace(files[2].file, 16_384, bytes)
        again.pass()
        let numbers = Set(again.run.damaged)
        #expect(numbers.count >= 2)
        #expect(again.damagedByReads().isSubset(of: numbers))
    }

    @Test("Reading takes half of seven eighths of the period, and keeps below the bound")
    func pace() {
        var scrubbed = Scrubbed(Scrubbed.configuration(period: .seconds(80)))
        while !scrubbed.run.store.scrubProgress.isRunning { scrubbed.turn(.milliseconds(100)) }
        let began = scrubbed.run.now
        while scrubbed.run.store.scrubProgress.passes == 0 { scrubbed.turn(.milliseconds(100)) }
        let took = scrubbed.run.now - began
        #expect(took > .seconds(28) && took < .seconds(45), "\(took.seconds)")
        // The bound is slower than the period wants it.
        let rate: UInt64 = 10_000
        var slow = Scrubbed(Scrubbed.configuration(period: .seconds(8), rate: rate))
        let before = slow.run.disk.bytesRead
        let start = slow.run.now
        while slow.run.store.scrubProgress.passes == 0 { slow.turn() }
        let read = slow.run.disk.bytesRead - before
        let time = slow.run.now - start
        #expect(Double(read) / time.seconds < Double(rate) * 1.3)
    }

    @Test("After a crash the pass goes on with the segment it was in; a pause holds")
    func restarts() {
        var scrubbed = Scrubbed(records: 200)
        let segments = scrubbed.run.disk.inventory.files.count
        #expect(segments > 4)
        scrubbed.run.store.scrub(ScrubOrder(run: 1, isPaused: false), now: scrubbed.run.now)
        while scrubbed.run.store.scrubProgress.cursor == 0 { scrubbed.turn(.seconds(2)) }
        scrubbed.turn(.seconds(2))
        let before = scrubbed.run.store.scrubProgress
        var again = Scrubbed(scrubbed.run.disk, scrubbed.model, Scrubbed.configuration())
        again.wall = scrubbed.wall
        let kept = again.run.store.scrubProgress
        #expect(kept.cursor > 0 && kept.cursor >= before.cursor && kept.isRunning)
        #expect(kept.isUrgent && kept.began == before.began && kept.order.run == 1)
        again.run.store.scrub(ScrubOrder(run: 1, isPaused: true), now: again.run.now)
        for _ in 0..<100 { again.turn(.seconds(1)) }
        #expect(again.run.store.scrubProgress.passes == 0)
        // A clean stop keeps it in the checkpoint.
        again.run.take(again.run.store.stop())
        again.run.settle()
        var last = Scrubbed(again.run.disk, again.model, Scrubbed.configuration())
        #expect(last.run.store.scrubProgress.order == ScrubOrder(run: 1, isPaused: true))
        for _ in 0..<100 { last.turn(.seconds(1)) }
        #expect(last.run.store.scrubProgress.passes == 0)
        // An older order is not obeyed, the next one is.
        last.run.store.scrub(ScrubOrder(run: 0, isPaused: false), now: last.run.now)
        #expect(last.run.store.scrubProgress.order.isPaused)
        last.run.store.scrub(ScrubOrder(run: 1, isPaused: false), now: last.run.now)
        for _ in 0..<1_000 where last.run.store.scrubProgress.passes == 0 { last.turn() }
        #expect(last.run.store.scrubProgress.passes == 1)
        #expect(last.run.store.scrubProgress.since == before.began)
    }

    @Test("A due read waits for the disk's other work, and not for ever")
    func foreground() {
        var scrubbed = Scrubbed()
        scrubbed.run.store.scrub(ScrubOrder(run: 1, isPaused: false), now: scrubbed.run.now)
        // A read that the disk does not answer.
        let chunk = scrubbed.model.records.lazy.compactMap { record -> ChunkID? in
            if case .write(let extent) = record.body { extent.chunk } else { nil }
        }.last!
        #expect(
            !scrubbed.run.store.read(token: 9, set: scrubbed.model.set, chunk: chunk, blocks: 0..<3)
                .isEmpty)
        var now = scrubbed.run.now
        #expect(scrubbed.run.store.scrub(now: now, wall: scrubbed.wall).isEmpty)
        now = now + .milliseconds(600)
        #expect(scrubbed.run.store.scrub(now: now, wall: scrubbed.wall).count == 1)
    }
}
