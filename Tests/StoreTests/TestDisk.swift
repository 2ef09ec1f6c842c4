// A disk in memory that loses or tears what was not synced, and the loop that runs a log on it.

import Base
import Store

/// Files in memory. What was not made durable is lost sector by sector in a crash.
struct TestDisk {
    static let sector = 512
    /// As reads see it.
    private(set) var files: [DiskFile: [UInt8]] = [:]
    /// Writes since the last sync, in order.
    private var unsynced: [DiskFile: [(offset: Int, bytes: [UInt8])]] = [:]
    private var durable: [DiskFile: [UInt8]] = [:]
    var capacity: UInt64 = 64 << 20
    /// Every write is durable at once: quick, and not to be crashed.
    var isSafe = false
    /// The file system has no space for checkpoints; how often it said so.
    var refusesCheckpoints = false
    /// Or for segments beside the first few.
    var refusesSegments = false
    private(set) var refused = 0
    /// The operation with this number fails, counted from 1.
    var failsAt = 0
    private var performed = 0
    /// Bytes that reads asked for.
    private(set) var bytesRead = 0

    var inventory: DiskInventory {
        DiskInventory(
            files: files.keys.sorted().map { DiskFileSize(file: $0, size: files[$0]!.count) },
            capacity: capacity)
    }

    mutating func perform(_ effect: DiskEffect) -> DiskResult {
        performed += 1
        if performed == failsAt { return .failed(.system(errno: 5)) }
        if refusesCheckpoints, case .write(_, .checkpoint, _, _, _) = effect {
            refused += 1
            return .failed(.noSpace)
        }
        if refusesSegments, case .create(_, .segment, _) = effect, files.count > 8 {
            return .failed(.noSpace)
        }
        switch effect {
        case .create(_, let file, let size):
            files[file] = Array(repeating: 0, count: size)
            if !isSafe { durable[file] = files[file] }
        case .write(_, let file, let offset, let pieces, let isDurable):
            if isSafe {
                var place = offset
                for piece in pieces {
                    Self.put(piece, at: place, in: &files[file, default: []])
                    place += piece.count
                }
            } else {
                write(file, offset, Array(pieces.joined()))
                if isDurable { sync(file) }
            }
        case .sync(_, let file): if !isSafe { sync(file) }
        case .read(_, let file, let offset, let length):
            bytesRead += length
            guard let bytes = files[file], offset < bytes.count else { return .bytes([]) }
            return .bytes(bytes[offset..<min(bytes.count, offset + length)])
        case .remove(_, let file):
            files[file] = nil
            durable[file] = nil
            unsynced[file] = nil
        }
        return .done
    }

    private static func put(
        _ bytes: some Collection<UInt8>, at offset: Int, in file: inout [UInt8]
    ) {
        let end = offset + bytes.count
        if file.count < end { file += Array(repeating: 0, count: end - file.count) }
        file.replaceSubrange(offset..<end, with: bytes)
    }

    private mutating func write(_ file: DiskFile, _ offset: Int, _ bytes: [UInt8]) {
        Self.put(bytes, at: offset, in: &files[file, default: []])
        unsynced[file, default: []].append((offset, bytes))
    }

    private mutating func sync(_ file: DiskFile) {
        unsynced[file] = nil
        durable[file] = files[file]
    }

    /// Cuts the power while these effects are on their way.
    mutating func crash(during effects: [DiskEffect], _ random: inout SeededRandom) {
        for effect in effects {
            guard case .write(_, let file, let offset, let pieces, _) = effect else { continue }
            if random.chance(1, of: 3) { continue }
            write(file, offset, Array(pieces.joined()))
        }
        for file in unsynced.keys.sorted() {
            let odds = random.below(5)
            for (offset, bytes) in unsynced[file]! {
                for start in stride(from: 0, to: bytes.count, by: Self.sector)
                where random.chance(odds, of: 4) {
                    let sector = Array(bytes[start..<min(start + Self.sector, bytes.count)])
                    Self.put(sector, at: offset + start, in: &durable[file, default: []])
                }
            }
        }
        unsynced = [:]
        files = durable
        performed = 0
        failsAt = 0
    }

    /// The process dies, the machine does not: whole writes of those on their way may happen.
    mutating func kill(during effects: [DiskEffect], _ random: inout SeededRandom) {
        for effect in effects {
            if case .read = effect { continue }
            if random.chance(1, of: 2) { break }
            _ = perform(effect)
        }
        performed = 0
        failsAt = 0
    }

    /// Overwrites a part of a file, durably.
    mutating func replace(_ file: DiskFile, _ offset: Int, _ bytes: [UInt8]) {
        Self.put(bytes, at: offset, in: &files[file]!)
        durable[file] = files[file]
    }

    /// Adds a file, durably.
    mutating func add(_ file: DiskFile, _ bytes: [UInt8]) {
        files[file] = bytes
        durable[file] = bytes
    }

    /// Changes one byte of a file.
    mutating func rot(_ file: DiskFile, at offset: Int, mask: UInt8) {
        files[file]![offset] ^= mask
        durable[file]![offset] ^= mask
    }
}

/// A log on its disk.
struct LogRun {
    var log: SegmentLog
    var disk: TestDisk
    var now = Instant.zero
    /// Effects that were not carried out yet.
    var pending: [DiskEffect] = []
    var replayed: [LogRecord] = []
    var damaged: [LogDamage] = []
    var durable = LogNumber.none
    var failure: LogFailure?
    var superblock: Superblock?
    var placed: [LogPlace] = []

    static let cell = CellID(high: 0x0123_4567_89AB_CDEF, low: 0xFEDC_BA98_7654_3210)
    static let owner = DiskOwner.server(ServerID(rawValue: 7))
    static let disk = DiskID(rawValue: 0xD15C)

    static func configuration(segmentSize: Int = 64 << 10) -> LogConfiguration {
        LogConfiguration(
            cell: cell, owner: owner, disk: disk, segmentSize: segmentSize)
    }

    init(_ disk: TestDisk = TestDisk(), _ configuration: LogConfiguration = configuration()) {
        self.disk = disk
        log = SegmentLog(configuration)
        take(log.start(disk.inventory))
    }

    mutating func take(_ outputs: [LogOutput]) {
        for output in outputs {
            switch output {
            case .disk(let effect): pending.append(effect)
            case .replayed(let record): replayed.append(record)
            case .damaged(let damage): damaged.append(damage)
            case .durable(let through): durable = through
            case .failed(let why): failure = why
            case .identified(let block): superblock = block
            case .placed(let places, _): placed += places
            case .ready, .renamed: break
            }
        }
    }

    /// Carries out one effect; false if there is none.
    mutating func step() -> Bool {
        guard !pending.isEmpty else { return false }
        let effect = pending.removeFirst()
        let result = disk.perform(effect)
        now = now + .microseconds(100)
        take(log.completed(effect.operation, result, now: now))
        take(log.flush(now: now))
        return true
    }

    /// Runs until nothing is left to do.
    mutating func settle() {
        take(log.flush(now: now))
        while step() {}
    }

    /// Lets the mark of an idle log be written.
    mutating func idle() {
        settle()
        now = now + .milliseconds(25)
        settle()
    }

    mutating func append(_ kind: UInt8, _ header: [UInt8], _ payload: [UInt8]) -> LogNumber {
        log.append(kind: LogRecordKind(rawValue: kind), header: header, payload: payload[...])
    }

    /// The log again on the same disk.
    func restarted() -> LogRun {
        var next = LogRun(disk)
        next.settle()
        return next
    }
}
