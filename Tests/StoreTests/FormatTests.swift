// The formats of the disk: a vector for each field (docs/FORMATS.md), and fuzz of every decoder.

import Base
import Store
import Testing

/// `00ff 12…` as bytes.
func hexadecimal(_ text: String) -> [UInt8] {
    let digits = text.filter { !$0.isWhitespace }.map { UInt8($0.hexDigitValue!) }
    return stride(from: 0, to: digits.count, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
}

func little(_ value: UInt32) -> [UInt8] {
    (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
}

/// The bytes with their CRC32C behind them.
private func summed(_ bytes: [UInt8]) -> [UInt8] { bytes + little(Checksum(of: bytes).value) }

func zeros(_ count: Int) -> [UInt8] { Array(repeating: 0, count: count) }

struct FormatTests {
    private static let folded = "ffffffffffffffff"

    @Test("superblock, segment header, group header and record have their documented bytes")
    func vectors() throws {
        var run = LogRun()
        run.settle()
        _ = run.append(9, [0xAA, 0xBB], [1, 2, 3])
        run.idle()
        let superblock = try #require(run.disk.files[.superblock])
        let page = summed(
            hexadecimal(
                """
                4d4c5342 0100 0200 efcdab8967452301 1032547698badcfe 0700000000000000
                5cd1000000000000 5cd1010000000000 0100000000000000 0000010000000000
                """) + zeros(4_092 - 64))
        #expect(superblock == page + page + page + page)

        let segment = try #require(run.disk.files[.segment(0)])
        let header = summed(
            hexadecimal(
                """
                4d4c5347 0100 0000 \(Self.folded) 5cd1000000000000 00000000 00000000
                0100005cd1010000 0000010000000000
                0100000000000000 0000000000000000 00000000 0000000000000000
                """) + zeros(4_092 - 76))
        #expect(Array(segment[0..<4_096]) == header)

        let group = frame(
            "ff", header: 48, payload: 0, number: "01", offset: "00100000",
            checksum: [],
            body: hexadecimal(
                """
                00100000 01000000 0000000000000000 00000000
                0100000000000000 0000000000000000 00000000 0000000000000000
                """))
        #expect(Array(segment[4_096..<4_208]) == group)
        let record = frame(
            "09", header: 2, payload: 3, number: "01", offset: "80100000", checksum: [1, 2, 3],
            body: [0xAA, 0xBB])
        #expect(Array(segment[4_224..<4_290]) == record)
        #expect(Array(segment[4_290..<4_293]) == [1, 2, 3])
        #expect(Array(segment[4_293..<8_192]) == zeros(8_192 - 4_293))

        // The mark of the idle log has a copy of the record's header.
        let mark = frame(
            "ff", header: 48, payload: 66, number: "02", offset: "00200000", checksum: record,
            body: hexadecimal(
                """
                00100000 00000000 0100000000000000 01000000
                0100000000000000 0000000000000000 00000000 0000000000000000
                """))
        #expect(Array(segment[8_192..<8_304]) == mark)
        #expect(Array(segment[8_304..<8_370]) == record)
    }

    /// The fixed header of a record and its body header.
    private func frame(
        _ kind: String, header: UInt32, payload: UInt32, number: String, offset: String,
        checksum: [UInt8], body: [UInt8]
    ) -> [UInt8] {
        let fixed =
            hexadecimal("4d4c5252 01 \(kind) 0000") + little(header) + little(payload)
            + hexadecimal("\(number)00000000000000 0100005cd1010000 \(offset) 00000000")
            + hexadecimal("\(Self.folded) 5cd1000000000000")
            + little(Checksum(of: checksum).value)
        return fixed + little(Checksum(of: fixed + body).value) + body
    }

    @Test("another version, cell or owner is refused with its name, and so is a lost superblock")
    func refusals() {
        var run = LogRun()
        run.settle()
        _ = run.append(1, [], [1])
        run.idle()
        func failure(
            _ change: (inout TestDisk) -> Void, _ configuration: LogConfiguration? = nil
        ) -> LogFailure? {
            var disk = run.disk
            change(&disk)
            var again = LogRun(disk, configuration ?? LogRun.configuration())
            again.settle()
            return again.failure
        }
        var page = Array(run.disk.files[.superblock]![0..<4_092])
        page[4] = 2
        #expect(
            failure { $0.replace(.superblock, 0, summed(page)) }
                == .version("superblock", found: 2))
        var header = Array(run.disk.files[.segment(0)]![0..<4_092])
        header[4] = 7
        #expect(
            failure { $0.replace(.segment(0), 0, summed(header)) }
                == .version("segment header", found: 7))
        var other = LogRun.configuration()
        other.cell = CellID(high: 1, low: 2)
        #expect(failure({ _ in }, other) == .otherCell(LogRun.cell))
        other = LogRun.configuration()
        other.owner = .master(MasterID(rawValue: 7))
        #expect(failure({ _ in }, other) == .otherOwner(LogRun.owner))
        #expect(failure { $0.replace(.superblock, 0, zeros(16_384)) } == .superblockLost)
        #expect(
            failure { _ = $0.perform(.remove(DiskOperation(rawValue: 0), .superblock)) }
                == .superblockLost)
        // Two copies are enough.
        #expect(failure { $0.replace(.superblock, 0, zeros(8_192)) } == nil)
    }

    @Test("records of an earlier use of a segment are no records")
    func recycledSegments() {
        var run = LogRun()
        run.settle()
        for number in 0..<40 { _ = run.append(1, [UInt8(number)], zeros(6_000)) }
        run.settle()
        let segments = run.log.segments
        #expect(segments.count >= 4)
        run.take(run.log.release([segments[0].number]))
        let old = run.disk.files[.segment(segments[0].number)]!
        while run.log.segments.last?.number != segments[0].number {
            _ = run.append(2, [], zeros(9_000))
            run.settle()
        }
        run.idle()
        #expect(run.disk.files[.segment(segments[0].number)]!.suffix(20_000) == old.suffix(20_000))
        let start = LogStart(
            position: LogPosition(
                generation: segments[1].generation, offset: 4_096, number: firstNumber(run, 1)),
            segments: [])
        var configuration = LogRun.configuration()
        configuration.hasCheckpoints = true
        var again = LogRun(run.disk, configuration)
        again.settle()
        again.take(again.log.replay(from: start))
        again.settle()
        #expect(again.damaged.isEmpty)
        let numbers = again.replayed.map(\.number.rawValue)
        #expect(numbers == Array(numbers.first!...run.durable.rawValue))
        #expect(again.durable == .none && again.log.durable == run.durable)
    }

    /// The number before the first of the segment at an index of the log.
    private func firstNumber(_ run: LogRun, _ index: Int) -> LogNumber {
        let file = run.disk.files[.segment(run.log.segments[0].number)]!
        var reader = ByteReader(file[48..<56])
        return LogNumber(rawValue: try! reader.read(UInt64.self) - 1)
    }

    @Test("random and mutated files never stop a start with a trap")
    func fuzzFiles() {
        var random = SeededRandom(seed: 77)
        var run = StoreRun(TestDisk(), StoreRun.configuration(interval: 20 << 10))
        run.settle()
        var model = SetModel(set: SetID(rawValue: 1))
        model.begin(Epoch(rawValue: 1), keeping: 0)
        _ = try? run.store.adopt(model.start(model.epoch, keeping: 0))
        for _ in 0..<60 {
            _ = try? run.store.prepare(model.next(&random))
            run.settle()
        }
        for _ in 0..<400 {
            var disk = run.disk
            for file in disk.inventory.files where random.chance(2, of: 3) {
                if file.file == .superblock { continue }
                for _ in 0..<1 + random.below(30) {
                    disk.rot(
                        file.file, at: random.below(file.size),
                        mask: UInt8.random(in: 1...255, using: &random))
                }
            }
            var again = StoreRun(disk)
            again.settle()
            _ = again.read(model.set, model.next(&random).chunk, 0..<3)
            model.records.removeLast()
        }
    }

    @Test("records and checkpoints with right checksums and wrong content are survived")
    func fuzzContents() {
        var random = SeededRandom(seed: 78)
        for _ in 0..<300 {
            var run = LogRun()
            run.settle()
            for _ in 0..<6 {
                var record = ByteWriter()
                let draft = SetModel.sample(&random)
                record.write(random.next() >> UInt64(random.below(64)))
                draft.encodeHeader(into: &record)
                var header = record.bytes
                for _ in 0..<random.below(4) {
                    header[random.below(header.count)] = UInt8.random(in: 0...255, using: &random)
                }
                if random.chance(1, of: 4) { header = Array(header.shuffled(using: &random)) }
                _ = run.append(UInt8(1 + random.below(3)), header, Array(draft.payload))
            }
            run.idle()
            let items = Self.items(&random)
            run.disk.add(.checkpoint(0), Self.block(items) + zeros(4_096))
            var store = StoreRun(run.disk)
            store.settle()
            #expect(store.failure == nil)
            #expect(store.store.isReady)
            for set in store.store.sets.prefix(3) {
                let chunk = ChunkID(inode: InodeID(rawValue: 1), index: 0, version: 0)
                _ = store.read(set, chunk, 0..<3)
            }
        }
    }

    /// Items of a checkpoint, most of them plausible.
    private static func items(_ random: inout SeededRandom) -> [UInt8] {
        var writer = ByteWriter()
        for _ in 0..<random.below(8) {
            writer.write(UInt8(random.below(18)))
            for _ in 0..<random.below(12) { writer.write(UInt32(random.below(4))) }
        }
        return writer.bytes
    }

    /// The only block of a checkpoint.
    static func block(_ items: [UInt8]) -> [UInt8] {
        let header =
            hexadecimal("4d4c4350 0300 0100 \(folded) 5cd1000000000000 0100000000000000 00000000")
            + little(UInt32(items.count)) + little(0) + little(Checksum(of: items).value)
        return summed(header + zeros(60 - header.count)) + items
    }

    @Test("a closed segment is replayed from its footer, which has its documented bytes")
    func footers() throws {
        var random = SeededRandom(seed: 21)
        var run = StoreRun(TestDisk(), StoreRun.configuration(interval: 1 << 30))
        run.settle()
        var model = SetModel(set: SetID(rawValue: 3))
        model.begin(Epoch(rawValue: 1), keeping: 0)
        _ = try run.store.adopt(model.start(model.epoch, keeping: 0))
        for _ in 0..<200 {
            _ = try run.store.prepare(model.next(&random))
            run.settle()
        }
        let first = try #require(run.disk.files[.segment(0)])
        let second = try #require(run.disk.files[.segment(1)])
        var link = ByteReader(second[64..<68])
        let offset = Int(try link.read(UInt32.self))
        var fields = ByteReader(first[(offset + 36)..<(offset + 48)])
        let length = Int(try fields.read(UInt32.self))
        let count = try fields.read(UInt32.self)
        let headers = Array(first[(offset + 64)..<(offset + 64 + length)])
        let head =
            hexadecimal("4d4c5346 0100 0000 \(Self.folded) 5cd1000000000000 0100005cd1010000")
            + little(UInt32(offset)) + little(UInt32(length)) + little(count)
            + little(Checksum(of: headers).value) + zeros(12)
        #expect(Array(first[offset..<(offset + 64)]) == summed(head))
        #expect(headers.starts(with: hexadecimal("4d4c5252 01 02 0000")))
        #expect(count > 10)

        let before = run.disk.bytesRead
        var again = StoreRun(run.disk)
        again.settle()
        let segments = run.disk.inventory.files.count - 1
        // The front of each segment, a read for each footer, and one segment in full.
        #expect(segments > 5)
        let read = again.disk.bytesRead - before
        #expect(read < segments * ((32 << 10) + (1 << 20)) + (128 << 10))
        #expect(again.store.lastPrepared(model.set) == run.store.lastPrepared(model.set))
        again.store.commit(model.set, through: RecordNumber(rawValue: 200))
        var damaged = 0
        #expect(
            difference(&again, model, through: 200, prepared: false, damaged: &damaged) == nil)
        #expect(damaged == 0)
    }

    @Test("a checkpoint's block has its documented bytes")
    func checkpointVector() throws {
        var run = StoreRun(TestDisk())
        run.settle()
        let set = SetModel(set: SetID(rawValue: 3))
        _ = try run.store.adopt(set.start(Epoch(rawValue: 1), keeping: 0))
        run.settle()
        run.take(run.store.stop())
        run.settle()
        #expect(run.isStopped)
        let items = hexadecimal(
            """
            01 0100005cd1010000 00200000 0100000000000000
            02 00000000 0100005cd1010000
            03 0300000000000000 0000000000000000 0000000000000000 00
            04 0300000000000000 0100000000000000 5cd1000000000000
            01000000 5cd1000000000000 01 0000000000000000 00
            """)
        let block = Self.block(items)
        let file = try #require(run.disk.files[.checkpoint(0)])
        #expect(Array(file.prefix(block.count)) == block)
    }
}

extension Record {
    /// The chunk it writes, or any.
    var chunk: ChunkID {
        if case .write(let extent) = body { return extent.chunk }
        return ChunkID(inode: .root, index: 0, version: 0)
    }
}

extension SetModel {
    /// A record of a new set.
    static func sample(_ random: inout SeededRandom) -> Record {
        var model = SetModel(set: SetID(rawValue: UInt64(random.below(3))))
        model.epoch = Epoch(rawValue: 1)
        for _ in 0..<random.below(3) { _ = model.next(&random) }
        return model.next(&random)
    }
}
