// The simulated disk against its own rules: what it may lose, and what it must keep.

import Base
import Simulation
import Store
import Testing

private let file = DiskFile.segment(0)

/// A disk with one file of 64 KiB, and operations that are done at once.
private struct Bench {
    var disk: SimDisk
    private var last: UInt64 = 0

    init(seed: UInt64) {
        disk = SimDisk(capacity: 1 << 20, random: SeededRandom(seed: seed))
        _ = disk.start()
        #expect(run { .create($0, file, size: 64 << 10) } == .done)
    }
    mutating func begin(_ make: (DiskOperation) -> DiskEffect) -> DiskOperation {
        last += 1
        let effect = make(DiskOperation(rawValue: last))
        disk.issue(effect)
        return effect.operation
    }
    mutating func run(_ make: (DiskOperation) -> DiskEffect) -> DiskResult? {
        let operation = begin(make)
        return disk.complete(operation, at: .zero)
    }
    mutating func write(_ byte: UInt8, at offset: Int, count: Int, durable: Bool) -> DiskResult? {
        let bytes = [UInt8](repeating: byte, count: count)
        return run {
            .write($0, file, offset: offset, pieces: [bytes[...]], durable: durable)
        }
    }
    mutating func read(_ offset: Int, _ length: Int) -> [UInt8] {
        guard case .bytes(let bytes) = run({ .read($0, file, offset: offset, length: length) })
        else { return [] }
        return Array(bytes)
    }
}

@Test("A durable write survives the loss of power, with every write before it")
func durableWrites() {
    for seed in 0..<50 as Range<UInt64> {
        var bench = Bench(seed: seed)
        _ = bench.write(1, at: 0, count: 4_096, durable: false)
        _ = bench.write(2, at: 8_192, count: 4_096, durable: true)
        bench.disk.losePower(at: .zero)
        _ = bench.disk.start()
        #expect(bench.read(0, 1) == [1] && bench.read(8_192, 1) == [2])
    }
}

@Test("A write that was not synced is there until power is lost, then maybe in parts")
func unsyncedWrites() {
    var outcomes: Set<Int> = []
    for seed in 0..<100 as Range<UInt64> {
        var bench = Bench(seed: seed)
        _ = bench.write(1, at: 0, count: 4_096, durable: false)
        bench.disk.killProcess()
        _ = bench.disk.start()
        #expect(bench.read(0, 4_096) == [UInt8](repeating: 1, count: 4_096))
        bench.disk.losePower(at: .zero)
        _ = bench.disk.start()
        let sectors = bench.read(0, 4_096).reduce(0) { $0 + Int($1) }
        #expect(sectors % 512 == 0)
        outcomes.insert(sectors / 512)
    }
    #expect(outcomes.contains(0) && outcomes.contains(8) && outcomes.count > 4)
}

@Test("A sync covers the writes that were issued before it and no others")
func syncs() {
    var survived = 0
    for seed in 0..<50 as Range<UInt64> {
        var bench = Bench(seed: seed)
        _ = bench.write(1, at: 0, count: 512, durable: false)
        let sync = bench.begin { .sync($0, file) }
        _ = bench.write(2, at: 512, count: 512, durable: false)
        #expect(bench.disk.complete(sync, at: .zero) == .done)
        bench.disk.losePower(at: .zero)
        _ = bench.disk.start()
        #expect(bench.read(0, 1) == [1])
        survived += bench.read(512, 1) == [2] ? 1 : 0
    }
    #expect(survived > 5 && survived < 45)
}

@Test("After a failed change nothing changes until the next start (S4)")
func failures() {
    var bench = Bench(seed: 1)
    _ = bench.write(1, at: 0, count: 512, durable: true)
    bench.disk.failsNextChange = true
    #expect(bench.write(2, at: 0, count: 512, durable: true) == .failed(.system(errno: 5)))
    #expect(bench.write(3, at: 0, count: 512, durable: true) == .failed(.system(errno: 5)))
    bench.disk.losePower(at: .zero)
    _ = bench.disk.start()
    #expect(bench.write(4, at: 512, count: 512, durable: true) == .done)
    #expect(bench.read(512, 1) == [4])
}
