// Makes the folder of a disk by running a store on files with holes.

import Base
import Glibc
import Store

/// See the head of this file.
struct IndexMaker {
    /// Bytes at the front of a segment that a start reads.
    private static let front = 32 << 10
    /// Records that are logged in one turn.
    private static let batch = 48

    private let folder: String
    private let block: Int
    private let file: Int
    private let payload: ArraySlice<UInt8>
    private let checksum: Checksum
    private let pages: [UInt32]
    private var store = DiskStore(StoreStart.configuration)
    private var files: [DiskFile: Int32] = [:]
    private var pending: [DiskEffect] = []
    private var isStopped = false
    /// Everything is written.
    private var isWhole = false
    private var number = RecordNumber.none
    private var set = SetID(rawValue: 0)

    init(_ folder: String, block: Int, file: Int) {
        self.folder = folder
        self.block = block
        self.file = file
        var random = SeededRandom(seed: 1)
        let bytes = (0..<block).map { _ in UInt8(truncatingIfNeeded: random.next()) }
        payload = bytes[...]
        checksum = Checksum(of: bytes)
        pages = stride(from: 0, to: block, by: Limits.page).map {
            Checksum(of: bytes[$0..<min($0 + Limits.page, block)]).value
        }
    }

    /// Removes what `make` made.
    static func remove(_ folder: String) {
        for name in names(folder + "/segments") { unlink("\(folder)/segments/\(name)") }
        rmdir(folder + "/segments")
        for name in names(folder) { unlink("\(folder)/\(name)") }
        rmdir(folder)
    }
    private static func names(_ folder: String) -> [String] {
        guard let directory = opendir(folder) else { return [] }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != "." && name != ".." { names.append(name) }
        }
        return names
    }

    mutating func make(stored: Int, tail: Int) {
        guard mkdir(folder, 0o700) == 0, mkdir(folder + "/segments", 0o700) == 0 else {
            fatalError("\(folder): \(String(cString: strerror(errno)))")
        }
        take(
            store.start(
                DiskInventory(files: [], capacity: UInt64(stored) / 2 * 3 + 8 << 30)))
        settle()
        log(stored - tail)
        take(store.stop())
        settle()
        precondition(isStopped)
        isWhole = true
        log(tail)
        for descriptor in files.values {
            fsync(descriptor)
            close(descriptor)
        }
    }

    /// Logs so many bytes of new files.
    private mutating func log(_ bytes: Int) {
        var left = bytes / block
        let perFile = file / block
        while left > 0 {
            let count = min(left, perFile)
            if set.rawValue == 0 || store.usage(set).stored >= Limits.setStored { nextSet() }
            let chunk = ChunkID(
                inode: InodeID(rawValue: set.rawValue << 32 | number.rawValue), index: 0,
                version: 0)
            for first in stride(from: 0, to: count, by: Self.batch) {
                for index in first..<min(count, first + Self.batch) { write(chunk, index) }
                settle()
                store.commit(set, through: number)
            }
            left -= count
        }
        settle()
    }

    private mutating func nextSet() {
        set = SetID(rawValue: set.rawValue + 1)
        number = .none
        let configuration = SetConfiguration(
            set: set, epoch: Epoch(rawValue: 1), primary: DiskID(rawValue: 4),
            members: [DiskID(rawValue: 4)])
        guard
            (try? store.adopt(EpochStart(configuration: configuration, keepThrough: .none))) != nil
        else { fatalError("a set was refused") }
    }

    private mutating func write(_ chunk: ChunkID, _ index: Int) {
        number = number.next
        let record = Record(
            set: set, epoch: Epoch(rawValue: 1), number: number, session: SessionID(rawValue: 9),
            sequence: RequestNumber(rawValue: number.rawValue),
            firstUnacked: RequestNumber(rawValue: number.rawValue), truncation: 0,
            body: .write(
                Extent(
                    chunk: chunk, block: UInt16(index), start: 0,
                    length: UInt32(block), codec: .raw, stored: checksum, pages: pages,
                    fileEnd: 0, modified: .zero, payload: payload)))
        guard (try? store.prepare(record)) != nil else { fatalError("a record was refused") }
    }

    // MARK: the disk

    private mutating func take(_ outputs: [StoreOutput]) {
        for output in outputs {
            switch output {
            case .disk(let effect): pending.append(effect)
            case .failed(let failure): fatalError("\(failure)")
            case .stopped: isStopped = true
            default: break
            }
        }
    }
    /// No time passes: the log is never idle.
    private mutating func settle() {
        take(store.flush(now: .zero))
        while !pending.isEmpty {
            let effects = pending
            pending = []
            for effect in effects {
                take(store.completed(effect.operation, perform(effect), now: .zero))
            }
            take(store.flush(now: .zero))
        }
    }

    private mutating func perform(_ effect: DiskEffect) -> DiskResult {
        switch effect {
        case .create(_, let file, let size): ftruncate(descriptor(file), size)
        case .write(_, let file, let offset, let pieces, let isDurable):
            var end = Int.max
            // Groups only: footers are not durable.
            if case .segment = file, isDurable, !isWhole { end = Self.front }
            write(pieces, to: descriptor(file), from: offset, end: end)
        case .read(_, let file, let offset, let length):
            var bytes = [UInt8](repeating: 0, count: length)
            let count = pread(descriptor(file), &bytes, length, off_t(offset))
            return .bytes(bytes.prefix(max(0, count)))
        case .sync, .remove: break
        }
        return .done
    }

    private func write(_ pieces: [ArraySlice<UInt8>], to file: Int32, from: Int, end: Int) {
        var offset = from
        for piece in pieces where offset < end {
            piece.withUnsafeBytes { bytes in
                let count = min(bytes.count, end - offset)
                precondition(pwrite(file, bytes.baseAddress, count, off_t(offset)) == count)
            }
            offset += piece.count
        }
    }

    private mutating func descriptor(_ file: DiskFile) -> Int32 {
        if let known = files[file] { return known }
        let path: String
        switch file {
        case .superblock: path = folder + "/superblock"
        case .checkpoint(let number): path = "\(folder)/checkpoint-\(number)"
        case .segment(let number):
            let digits = String(number)
            path = folder + "/segments/" + String(repeating: "0", count: 8 - digits.count) + digits
        }
        let new = open(path, O_RDWR | O_CREAT, 0o600)
        precondition(new >= 0, "\(path): \(String(cString: strerror(errno)))")
        files[file] = new
        return new
    }
}
