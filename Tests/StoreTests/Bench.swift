import Base
import Store
import Testing
struct Bench {
    @Test func bench() {
        let clock = ContinuousClock()
        var store = DiskStore(StoreConfiguration(log: LogConfiguration(cell: LogRun.cell, owner: LogRun.owner, disk: LogRun.disk), checkpointInterval: 1 << 30))
        var pending: [DiskEffect] = []
        let t = Instant.zero
        func take(_ o: [StoreOutput]) { for x in o { if case .disk(let e) = x { pending.append(e) } } }
        func settle() {
            take(store.flush(now: t))
            while !pending.isEmpty { let e = pending.removeFirst(); take(store.completed(e.operation, .done, now: t)); take(store.flush(now: t)) }
        }
        take(store.start(DiskInventory(files: [], capacity: 64 << 30)))
        settle()
        let set = SetID(rawValue: 1)
        _ = try! store.adopt(EpochStart(configuration: SetConfiguration(set: set, epoch: Epoch(rawValue: 1), primary: LogRun.disk, members: [LogRun.disk]), keepThrough: .none))
        settle()
        var n: UInt64 = 0
        var random = SeededRandom(seed: 1)
        func run(_ name: String, _ count: Int, _ size: Int, _ random_: Bool) {
            let payload = [UInt8](repeating: 7, count: size)
            let crc = Checksum(of: payload)
            let d = clock.measure {
                for i in 0..<count {
                    n += 1
                    let position = random_ ? random.below(1 << 18) * 4096 : i * size
                    let e = Extent(chunk: ChunkID(inode: .root, index: UInt32(position / Limits.chunk), version: 0), block: UInt16(position % Limits.chunk / Limits.block), start: UInt32(position % Limits.block), length: UInt32(size), codec: .raw, stored: crc, pages: Array(repeating: 1, count: Extent.pageCount(start: UInt32(position % Limits.block), length: UInt32(size))), fileEnd: 0, modified: .zero, payload: payload[...])
                    _ = try! store.prepare(Record(set: set, epoch: Epoch(rawValue: 1), number: RecordNumber(rawValue: n), session: SessionID(rawValue: 1), sequence: RequestNumber(rawValue: n), firstUnacked: RequestNumber(rawValue: max(n, 64) - 63), truncation: 0, body: .write(e)))
                    if i % 16 == 15 { settle(); store.commit(set, through: RecordNumber(rawValue: n)) }
                }
                settle()
            }
            print(name, count, d, d / count)
        }
        run("64K seq", 16_000, 65_536, false)
        run("4K random", 300_000, 4_096, true)
        run("4K seq", 100_000, 4_096, false)
    }
}
