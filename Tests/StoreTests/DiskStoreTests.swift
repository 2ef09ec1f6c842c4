// The chunk data of a disk against a plain model: crashes at random points, rot, failing disks.

import Base
import Store
import Testing

/// A store with two sets that is cut off again and again.
private struct StoreModel {
    var random: SeededRandom
    var run: StoreRun
    let configuration: StoreConfiguration
    var cleaned: UInt64 = 0
    var sets = [SetModel(set: SetID(rawValue: 3)), SetModel(set: SetID(rawValue: 8))]
    /// Log numbers of records on their way: set, number.
    var waiting: [(log: LogNumber, set: Int, number: UInt64)] = []
    var refused = 0

    init(seed: UInt64) {
        random = SeededRandom(seed: seed)
        var disk = TestDisk()
        disk.capacity = 2 << 20
        // Every other one cleans whenever there is anything to clean.
        configuration = StoreRun.configuration(cleaning: seed % 2 == 0 ? 100 : 3)
        run = StoreRun(disk, configuration)
        run.settle()
    }

    mutating func newEpoch(_ index: Int, keeping number: UInt64) {
        sets[index].begin(Epoch(rawValue: sets[index].epoch.rawValue + 1), keeping: number)
        waiting.removeAll { $0.set == index && $0.number > number }
        do throws(StoreError) {
            _ = try run.store.adopt(sets[index].start(sets[index].epoch, keeping: number))
        } catch { Issue.record("epoch refused: \(error)") }
    }

    mutating func prepare(_ index: Int) {
        let record = sets[index].next(&random)
        do throws(StoreError) {
            let log = try run.store.prepare(record)
            waiting.append((log, index, record.number.rawValue))
        } catch .noSpace {
            sets[index].records.removeLast()
            refused += 1
        } catch { Issue.record("record refused: \(error)") }
    }

    mutating func hear() {
        for entry in waiting where entry.log <= run.durable {
            sets[entry.set].acknowledged = max(sets[entry.set].acknowledged, entry.number)
        }
        waiting.removeAll { $0.log <= run.durable }
    }

    mutating func work(_ steps: Int) {
        for _ in 0..<steps {
            let index = random.below(2)
            switch random.below(40) {
            case 0..<16: prepare(index)
            case 16..<21:
                let open = sets[index].acknowledged - sets[index].committed
                sets[index].committed += UInt64(random.below(Int(open) + 1))
                run.store.commit(
                    sets[index].set, through: RecordNumber(rawValue: sets[index].committed))
            case 21:
                let tail = UInt64(sets[index].records.count) - sets[index].committed
                let kept = sets[index].committed + UInt64(random.below(Int(tail) + 1))
                newEpoch(index, keeping: kept)
            case 22: run.now = run.now + .milliseconds(30)
            case 23: check()
            default: _ = run.step()
            }
            run.take(run.store.flush(now: run.now))
            hear()
        }
    }

    mutating func restart() {
        if random.chance(1, of: 6) {
            run.take(run.store.stop())
            for _ in 0..<random.below(30) { _ = run.step() }
            hear()
        }
        if random.chance(1, of: 4) {
            run.disk.kill(during: run.pending, &random)
        } else {
            run.disk.crash(during: run.pending, &random)
        }
        cleaned += run.store.cleaningReport.segments
        run = StoreRun(run.disk, configuration)
        run.settle()
        waiting = []
        for index in sets.indices {
            let set = sets[index].set
            let last = run.store.lastPrepared(set).rawValue
            sets[index].goBack(to: run.store.epoch(set))
            if last < sets[index].acknowledged || last > sets[index].records.count {
                Issue.record("set \(set) has \(last), not \(sets[index].acknowledged)")
                return
            }
            if run.store.committed(set).rawValue > sets[index].committed {
                Issue.record("set \(set) committed what was not")
            }
            sets[index].records.removeSubrange(Int(last)...)
            sets[index].acknowledged = last
            if run.store.hasRot(set) { Issue.record("set \(set) has rot") }
            newEpoch(index, keeping: last)
            sets[index].committed = last
            run.store.commit(set, through: RecordNumber(rawValue: last))
        }
        check()
    }

    mutating func check() {
        run.settle()
        hear()
        for model in sets {
            let committed = run.store.committed(model.set).rawValue
            var damaged = 0
            var fault = difference(
                &run, model, through: committed, prepared: false, damaged: &damaged)
            fault =
                fault
                ?? difference(
                    &run, model, through: model.acknowledged, prepared: true, damaged: &damaged)
            if let fault { Issue.record("set \(model.set): \(fault)") }
            if damaged > 0 { Issue.record("set \(model.set): \(damaged) damaged") }
            for record in model.records.suffix(8) {
                let known = run.store.duplicate(model.set, record.session, record.sequence)
                if known != .known(record.number), known != .forgotten {
                    Issue.record("\(record.number): \(known)")
                }
            }
            if let record = model.records.last {
                let found = run.load(model.set, record.number)
                let isGone = found == nil && committed >= record.number.rawValue
                if found != record, !isGone || model.leavesMore(record) {
                    Issue.record("record \(record.number) was not loaded")
                }
            }
        }
        if let failure = run.failure { Issue.record("\(failure)") }
    }
}

struct DiskStoreTests {
    @Test("after crashes at random points the store holds what the model holds")
    func randomModel() {
        var refused = 0
        var cleaned: UInt64 = 0
        var isRecycled = false
        for seed in 0..<60 as Range<UInt64> {
            var model = StoreModel(seed: seed)
            for index in model.sets.indices { model.newEpoch(index, keeping: 0) }
            for round in 0..<5 {
                model.work(40 + model.random.below(160))
                let issues = model.run.failure
                model.restart()
                model.check()
                if issues != nil {
                    Issue.record("seed \(seed) round \(round)")
                    return
                }
            }
            refused += model.refused
            cleaned += model.cleaned
            isRecycled = isRecycled || model.run.disk.inventory.files.count < 20
        }
        #expect(isRecycled)
        #expect(cleaned > 100)
    }

    @Test("dropped chunks give their segments back, for ever")
    func recycling() {
        var random = SeededRandom(seed: 9)
        var disk = TestDisk()
        disk.capacity = 1 << 20
        var run = StoreRun(disk)
        run.settle()
        var model = SetModel(set: SetID(rawValue: 1))
        model.epoch = Epoch(rawValue: 1)
        _ = try? run.store.adopt(model.start(model.epoch, keeping: 0))
        var written = 0
        var refused = 0
        var version: UInt32 = 0
        for turn in 0..<3_000 {
            let names = (0..<100).map {
                ChunkID(inode: InodeID(rawValue: 77 + $0), index: 0, version: version)
            }
            var record = model.next(&random)
            record.body = .write(SetModel.extent(names[random.below(100)], &random))
            do throws(StoreError) {
                _ = try run.store.prepare(record)
                written += record.payload.count
            } catch {
                #expect(error == .noSpace)
                refused += 1
                record.body = .drop(names)
                #expect(throws: Never.self) { try run.store.prepare(record) }
                version += 1
            }
            run.settle()
            run.store.commit(model.set, through: record.number)
            if turn % 500 == 499 {
                run = StoreRun(run.disk)
                run.settle()
                run.store.commit(model.set, through: record.number)
            }
            #expect(run.failure == nil)
            if run.failure != nil { return }
        }
        #expect(refused >= 2)
        #expect(written > 2 << 20)
        #expect(run.disk.inventory.files.count <= 20)
    }

    @Test("a flipped byte is never read as data, never hides what was acknowledged, and is healed")
    func rot() {
        var random = SeededRandom(seed: 4)
        var disk = TestDisk()
        disk.capacity = 2 << 20
        var run = StoreRun(disk, StoreRun.configuration(interval: 1 << 30))
        run.settle()
        var model = SetModel(set: SetID(rawValue: 1))
        model.epoch = Epoch(rawValue: 1)
        _ = try? run.store.adopt(model.start(model.epoch, keeping: 0))
        for _ in 0..<40 {
            let record = model.next(&random)
            #expect(throws: Never.self) { try run.store.prepare(record) }
            if random.chance(1, of: 2) {
                run.settle()
                run.store.commit(model.set, through: record.number)
            }
        }
        run.settle()
        run.now = run.now + .milliseconds(30)
        run.settle()
        var harmed = 0
        for file in run.disk.inventory.files where file.file != .superblock {
            for offset in stride(from: 0, to: file.size, by: 41) {
                var rotten = run.disk
                rotten.rot(file.file, at: offset, mask: 1 << UInt8(random.below(8)))
                var again = StoreRun(rotten, StoreRun.configuration(interval: 1 << 30))
                again.settle()
                harmed += again.store.hasRot(model.set) ? 1 : 0
                if let fault = Self.fault(&again, model) {
                    Issue.record("\(file.file) at \(offset): \(fault)")
                }
            }
        }
        #expect(harmed > 100)
    }

    /// What is wrong with a store on a rotten disk; nil if it admits and heals its damage.
    private static func fault(_ run: inout StoreRun, _ model: SetModel) -> String? {
        let set = model.set
        let last = run.store.lastPrepared(set).rawValue
        if last < model.records.count, !run.store.hasRot(set) { return "lost \(last)" }
        if run.store.epoch(set) == .none {
            return run.store.wasRebuilt || run.store.hasRot(set) || run.store.sets.isEmpty
                ? nil : "epoch lost"
        }
        var damaged = 0
        run.store.commit(set, through: RecordNumber(rawValue: last))
        if let fault = difference(&run, model, through: last, prepared: false, damaged: &damaged) {
            return fault
        }
        if damaged > 0, !run.store.hasRot(set) { return "damage is not listed" }
        // A new epoch, in which a peer sends what is missing.
        var missing = run.store.rot(set).flatMap { $0.lowerBound.rawValue...$0.upperBound.rawValue }
        do throws(StoreError) {
            let next = model.start(Epoch(rawValue: 2), keeping: UInt64(model.records.count))
            _ = try run.store.adopt(next)
            for number in missing {
                _ = try run.store.repair(set, model.records[Int(number) - 1])
            }
            for record in model.records.dropFirst(Int(last)) { _ = try run.store.prepare(record) }
        } catch { return "refused: \(error)" }
        run.settle()
        let all = UInt64(model.records.count)
        run.store.commit(set, through: RecordNumber(rawValue: all))
        missing = run.store.rot(set).flatMap { $0.lowerBound.rawValue...$0.upperBound.rawValue }
        if !missing.isEmpty || run.store.hasRot(set) { return "not healed: \(missing)" }
        damaged = 0
        if let fault = difference(&run, model, through: all, prepared: false, damaged: &damaged) {
            return "after repair: \(fault)"
        }
        return damaged == 0 ? nil : "damaged after repair"
    }

    @Test(
        "whichever operation fails first, the store stops, and a restart has all that was durable")
    func failures() {
        for failing in 1..<90 {
            var random = SeededRandom(seed: 11)
            var disk = TestDisk()
            disk.capacity = 2 << 20
            disk.failsAt = failing
            var run = StoreRun(disk)
            var model = SetModel(set: SetID(rawValue: 1))
            var logs: [(LogNumber, UInt64)] = []
            run.settle()
            if run.store.isReady {
                model.epoch = Epoch(rawValue: 1)
                _ = try? run.store.adopt(model.start(model.epoch, keeping: 0))
                for _ in 0..<120 {
                    let record = model.next(&random)
                    if let log = try? run.store.prepare(record) {
                        logs.append((log, record.number.rawValue))
                    }
                    run.settle()
                    run.store.commit(model.set, through: record.number)
                }
            }
            let isReadError = run.failure == nil
            #expect(run.failure != nil || isReadError)
            let durable = logs.last { $0.0 <= run.durable }?.1 ?? 0
            run.disk.crash(during: run.pending, &random)
            var again = StoreRun(run.disk)
            again.settle()
            #expect(again.failure == nil)
            #expect(again.store.lastPrepared(model.set).rawValue >= durable)
            again.store.commit(model.set, through: again.store.lastPrepared(model.set))
            var damaged = 0
            let fault = difference(
                &again, model, through: again.store.lastPrepared(model.set).rawValue,
                prepared: false, damaged: &damaged)
            #expect(fault == nil && damaged == 0, "effect \(failing)")
        }
    }

    @Test("where the newest checkpoint rots, the older one and the log give the same store")
    func rottenCheckpoints() {
        var random = SeededRandom(seed: 13)
        var disk = TestDisk()
        disk.capacity = 2 << 20
        var run = StoreRun(disk, StoreRun.configuration(interval: 25 << 10))
        run.settle()
        var model = SetModel(set: SetID(rawValue: 1))
        model.begin(Epoch(rawValue: 1), keeping: 0)
        _ = try? run.store.adopt(model.start(model.epoch, keeping: 0))
        for _ in 0..<260 {
            let record = model.next(&random, chunks: 2)
            #expect(throws: Never.self) { try run.store.prepare(record) }
            run.settle()
            run.store.commit(model.set, through: record.number)
        }
        run.settle()
        let files = run.disk.inventory.files.filter {
            if case .checkpoint = $0.file { true } else { false }
        }
        #expect(files.count == 2)
        for offset in stride(from: 0, to: files[0].size, by: 97) {
            for file in files where offset < file.size {
                var rotten = run.disk
                rotten.rot(file.file, at: offset, mask: 1 << UInt8(random.below(8)))
                var again = StoreRun(rotten, StoreRun.configuration(interval: 1 << 30))
                again.settle()
                #expect(!again.store.hasRot(model.set) && !again.store.wasRebuilt)
                #expect(again.store.lastPrepared(model.set).rawValue == 260)
                again.store.commit(model.set, through: RecordNumber(rawValue: 260))
                #expect(again.store.usage == run.store.usage)
                if offset % (97 * 8) == 0 {
                    var damaged = 0
                    let fault = difference(
                        &again, model, through: 260, prepared: false, damaged: &damaged)
                    #expect(fault == nil && damaged == 0)
                }
            }
        }
    }

    @Test("a clean stop leaves nothing to replay")
    func cleanStop() {
        var random = SeededRandom(seed: 12)
        var run = StoreRun(TestDisk(), StoreRun.configuration(interval: 1 << 30))
        run.settle()
        var model = SetModel(set: SetID(rawValue: 1))
        model.epoch = Epoch(rawValue: 1)
        _ = try? run.store.adopt(model.start(model.epoch, keeping: 0))
        for _ in 0..<100 { _ = try? run.store.prepare(model.next(&random)) }
        run.settle()
        run.store.commit(model.set, through: RecordNumber(rawValue: 100))
        run.take(run.store.stop())
        run.settle()
        #expect(run.isStopped)
        var again = StoreRun(run.disk)
        again.settle()
        // The commit was in no later record: only the checkpoint has it.
        #expect(again.store.committed(model.set).rawValue == 100)
        #expect(again.store.usage == run.store.usage)
        #expect(again.store.history(model.set) == run.store.history(model.set))
    }
}
