// PosixDisk on real folders.

import Base
import Glibc
import Logging
import Storage
import Store
import Synchronization
import Testing

/// A fresh folder, removed afterwards.
final class TestFolder: Sendable {
    let path = "/tmp/martlet-disk-\(getpid())-\(UInt32.random(in: 0...UInt32.max))"

    deinit {
        for name in ["segments/00000001", "segments/00000002", "segments/00000009"] {
            unlink("\(path)/\(name)")
        }
        for name in ["lock", "superblock", "checkpoint-0", "checkpoint-1"] {
            unlink("\(path)/\(name)")
        }
        rmdir("\(path)/segments")
        rmdir(path)
    }
}

/// A disk whose results a test can wait for.
final class TestDisk: Sendable {
    private let results = Mutex<[DiskOperation: [DiskResult]]>([:])
    private let order = Mutex<[DiskOperation]>([])
    private let disk = Mutex<PosixDisk?>(nil)

    init(_ folder: TestFolder, capacity: UInt64? = nil) throws(StorageError) {
        let opened = try PosixDisk(
            folder: folder.path, capacity: capacity, logger: Logger(label: "test")
        ) { [self] operation, result in
            order.withLock { $0.append(operation) }
            results.withLock { $0[operation, default: []].append(result) }
        }
        disk.withLock { $0 = opened }
    }
    var inventory: DiskInventory { disk.withLock { $0?.inventory }.unsafelyUnwrapped }
    var finished: [DiskOperation] { order.withLock { $0 } }
    func start(_ effect: DiskEffect) { disk.withLock { $0 }?.perform(effect) }
    func result(_ operation: UInt64) -> DiskResult {
        while true {
            let found = results.withLock { $0[DiskOperation(rawValue: operation)] }
            if let found {
                #expect(found.count == 1, "answered once")
                return found[0]
            }
            usleep(200)
        }
    }
    func run(_ effect: DiskEffect) -> DiskResult {
        start(effect)
        return result(effect.operation.rawValue)
    }
    func close() { disk.withLock { $0 }?.close() }
}

private func number(_ raw: UInt64) -> DiskOperation { DiskOperation(rawValue: raw) }
private func pages(_ count: Int, _ byte: UInt8) -> [UInt8] {
    [UInt8](repeating: byte, count: count * Limits.page)
}

struct DiskTests {
    @Test("What was written is read back at any offset, also after a restart")
    func readBack() throws {
        let folder = TestFolder()
        let segment = DiskFile.segment(1)
        // Pieces that do not end at pages; together larger than one write.
        var random = SeededRandom(seed: 1)
        let content = (0..<(5 << 20)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
        let cuts = [0, 10, 70_000, 1 << 20, (3 << 20) + 5, content.count]
        let pieces = zip(cuts, cuts.dropFirst()).map { content[$0..<$1] }
        var disk = try TestDisk(folder)
        #expect(disk.inventory.files == [])
        #expect(disk.run(.create(number(1), segment, size: 8 << 20)) == .done)
        let write = DiskEffect.write(
            number(2), segment, offset: 4_096, pieces: pieces, durable: true)
        #expect(disk.run(write) == .done)
        disk.close()

        disk = try TestDisk(folder)
        defer { disk.close() }
        #expect(disk.inventory.files == [DiskFileSize(file: segment, size: 8 << 20)])
        var operation: UInt64 = 10
        for (offset, length) in [(0, 4_096), (4_096, content.count), (5_000, 70_000), (4_097, 1)] {
            operation += 1
            let expected = (offset..<offset + length).map { position in
                position < 4_096 ? 0 : content[position - 4_096]
            }
            let result = disk.run(
                .read(number(operation), segment, offset: offset, length: length))
            #expect(result == .bytes(expected[...]), "\(length) bytes at \(offset)")
        }
        let end = disk.run(.read(number(20), segment, offset: (8 << 20) - 10, length: 100))
        #expect(end == .bytes([UInt8](repeating: 0, count: 10)[...]))
        let beyond = disk.run(.read(number(21), segment, offset: 9 << 20, length: 100))
        #expect(beyond == .bytes([]))
    }

    @Test("Pieces are written whole, whether they lie at sectors in memory and in the file or not")
    func vectors() throws {
        let folder = TestFolder()
        let segment = DiskFile.segment(1)
        let disk = try TestDisk(folder)
        defer { disk.close() }
        #expect(disk.run(.create(number(1), segment, size: 8 << 20)) == .done)
        var random = SeededRandom(seed: 3)
        let source = (0..<(1 << 20)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
        let base = source.withUnsafeBytes { Int(bitPattern: $0.baseAddress) }
        for round in 0..<60 as Range<UInt64> {
            var pieces: [ArraySlice<UInt8>] = []
            var length = 0
            let whole = (1 + random.below(round % 2 == 0 ? 700 : 200)) * Limits.page
            while length < whole {
                let count = min(
                    whole - length, [64, 512, 3_000, 16 << 10, 65_536, 70_001][random.below(6)])
                // Often as the file has it, by sectors; else anywhere.
                var from = random.below(source.count - count - 1_024)
                if random.chance(3, of: 4) { from += (length - from - base) & (Limits.sector - 1) }
                pieces.append(source[from..<from + count])
                length += count
            }
            let offset = random.below(64) * Limits.page
            let write = DiskEffect.write(
                number(10 + 2 * round), segment, offset: offset, pieces: pieces,
                durable: random.chance(1, of: 2))
            #expect(disk.run(write) == .done)
            let read = disk.run(
                .read(number(11 + 2 * round), segment, offset: offset, length: length))
            #expect(read == .bytes(Array(pieces.joined())[...]), "round \(round)")
        }
    }

    @Test("Changes of one file take effect and are reported in the order of issue")
    func order() throws {
        let folder = TestFolder()
        let disk = try TestDisk(folder)
        defer { disk.close() }
        let segment = DiskFile.segment(9)
        disk.start(.create(number(1), segment, size: 1 << 20))
        for index in 2...200 as ClosedRange<UInt64> {
            let bytes = pages(1, UInt8(index))[...]
            disk.start(
                .write(
                    number(index), segment, offset: 0, pieces: [bytes], durable: index % 3 == 0))
        }
        disk.start(.sync(number(201), segment))
        #expect(disk.result(201) == .done)
        #expect(disk.run(.read(number(300), segment, offset: 7, length: 1)) == .bytes([200]))
        // Durable ones among themselves; others may be done before them.
        let durable = disk.finished.map(\.rawValue).filter { $0 % 3 == 0 && $0 <= 200 }
        #expect(durable == durable.sorted())
        #expect(disk.finished.count == 202)
    }

    @Test("Superblock and checkpoints grow, are replaced, and removed")
    func smallFiles() throws {
        let folder = TestFolder()
        let disk = try TestDisk(folder)
        defer { disk.close() }
        let text = Array("superblock".utf8)
        let write = DiskEffect.write(
            number(1), .superblock, offset: 0, pieces: [text[...]], durable: true)
        #expect(disk.run(write) == .done)
        #expect(
            disk.run(.read(number(2), .superblock, offset: 5, length: 99))
                == .bytes(Array("block".utf8)[...]))
        #expect(disk.run(.create(number(3), .superblock, size: 3)) == .done)
        #expect(
            disk.run(.read(number(4), .superblock, offset: 0, length: 99)) == .bytes([0, 0, 0]))
        let checkpoint = DiskFile.checkpoint(1)
        #expect(disk.run(.create(number(5), checkpoint, size: 100)) == .done)
        #expect(disk.run(.remove(number(6), checkpoint)) == .done)
        #expect(disk.run(.remove(number(7), checkpoint)) == .done)
        #expect(
            disk.run(.read(number(8), checkpoint, offset: 0, length: 1))
                == .failed(.system(errno: ENOENT)))
        #expect(disk.run(.sync(number(9), .superblock)) == .done)
    }

    @Test("A folder is open once; the error names who has it")
    func lock() throws {
        let folder = TestFolder()
        let disk = try TestDisk(folder)
        #expect(
            throws: StorageError.inUse(path: folder.path + "/lock", process: getpid())
        ) { try TestDisk(folder) }
        disk.close()
    }

    @Test("A folder that cannot be made is an error with path and errno")
    func noFolder() {
        let path = "/proc/martlet"
        #expect(throws: StorageError.system(call: "mkdir", path: path, errno: ENOENT)) {
            try PosixDisk(folder: path, logger: Logger(label: "test")) { _, _ in }
        }
    }

    @Test("After a failed change nothing more is carried out, on any file (S4)")
    func failure() throws {
        let folder = TestFolder()
        let disk = try TestDisk(folder)
        defer { disk.close() }
        #expect(disk.run(.create(number(1), .segment(1), size: 4_096)) == .done)
        // There is nothing to be synced: the disk's own state is wrong.
        let failed = DiskResult.failed(.system(errno: ENOENT))
        #expect(disk.run(.sync(number(2), .segment(2))) == failed)
        let write = DiskEffect.write(
            number(3), .segment(1), offset: 0, pieces: [pages(1, 1)[...]], durable: true)
        #expect(disk.run(write) == failed)
        #expect(disk.run(.create(number(4), .superblock, size: 1)) == failed)
        #expect(disk.run(.remove(number(5), .segment(1))) == failed)
        #expect(access(folder.path + "/superblock", F_OK) != 0)
        #expect(access(folder.path + "/segments/00000001", F_OK) == 0)
    }

    @Test("A write to a full device is noSpace, and the last change but for a checkpoint (S4, C20)")
    func full() throws {
        let folder = TestFolder()
        let disk = try TestDisk(folder)
        defer { disk.close() }
        #expect(symlink("/dev/full", folder.path + "/checkpoint-0") == 0)
        let bytes = pages(1, 1)[...]
        let write = DiskEffect.write(
            number(1), .checkpoint(0), offset: 0, pieces: [bytes], durable: false)
        #expect(disk.run(write) == .failed(.noSpace))
        #expect(disk.run(.create(number(4), .segment(1), size: 4_096)) == .done)
        #expect(symlink("/dev/full", folder.path + "/superblock") == 0)
        let last = DiskEffect.write(
            number(5), .superblock, offset: 0, pieces: [bytes], durable: false)
        #expect(disk.run(last) == .failed(.noSpace))
        #expect(disk.run(.create(number(2), .segment(2), size: 1)) == .failed(.noSpace))
        #expect(
            disk.run(.read(number(3), .superblock, offset: 0, length: 1)) == .failed(.noSpace))
    }

    @Test("Too much space asked for fails")
    func noSpace() throws {
        let folder = TestFolder()
        let disk = try TestDisk(folder)
        defer { disk.close() }
        let result = disk.run(.create(number(1), .segment(1), size: 1 << 50))
        #expect(result == .failed(.noSpace) || result == .failed(.system(errno: EFBIG)))
        #expect(access(folder.path + "/segments/00000001", F_OK) != 0)
    }

    @Test("Capacity is what is free and what is used, or the limit")
    func capacity() throws {
        let folder = TestFolder()
        let disk = try TestDisk(folder, capacity: 1 << 20)
        #expect(disk.inventory.capacity == 1 << 20)
        #expect(disk.run(.create(number(1), .segment(1), size: 1 << 20)) == .done)
        disk.close()
        let whole = try TestDisk(folder)
        #expect(whole.inventory.capacity > 1 << 20)
        whole.close()
    }

    @Test("What was started before the close is carried out")
    func close() throws {
        let folder = TestFolder()
        let disk = try TestDisk(folder)
        disk.start(.create(number(1), .segment(1), size: 16 << 20))
        for index in 2...9 as ClosedRange<UInt64> {
            let bytes = pages(512, UInt8(index))[...]
            let offset = Int(index - 2) * bytes.count
            disk.start(
                .write(
                    number(index), .segment(1), offset: offset, pieces: [bytes], durable: true))
        }
        disk.close()
        #expect(disk.finished.count == 9)
        for index in 1...9 as ClosedRange<UInt64> { #expect(disk.result(index) == .done) }
    }
}
