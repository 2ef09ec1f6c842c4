// When the index is written down, and how it is found again at the start.
//
//   start:  read both heads -> load the newer -> (bad: load the older) -> replay from its position
//   later:  create the file if needed -> write the blocks -> sync -> recycle segments
//
// Invariants:
//  1. The newest durable checkpoint is never overwritten: the two files take turns.
//  2. A segment is recycled when nothing live is in it, this checkpoint is durable, and the one
//     before it replays nothing of the segment either (it may be needed when this one rots).

import Base

/// What the store knows of its checkpoints.
struct CheckpointState: Sendable {
    enum Purpose: Hashable, Sendable {
        case readHead(UInt8)
        case readBlock(UInt8, offset: Int)
        case create, write, sync
    }
    /// A checkpoint found at the start.
    struct Head: Hashable, Sendable {
        var file: UInt8
        var sequence: UInt64
    }
    var operations: [DiskOperation: Purpose] = [:]
    /// Files that exist.
    var files: [UInt8] = []
    /// The index of this run began with a checkpoint.
    var isLoaded = false
    var sequence: UInt64 = 0
    var nextFile: UInt8 = 0
    /// Where the newest durable one lets a replay begin.
    var position: LogPosition?
    /// Bytes of log since then.
    var bytes = 0
    var isStopping = false
    var writer: CheckpointWriter?
    /// The file system had no space for the last one: the next is not begun before `wake`.
    var isRefused = false
    var wake = Instant(nanoseconds: .max)
    // At the start
    var waiting = 0
    /// Not tried yet, the oldest first.
    var heads: [Head] = []
    var loading: Head?
    var content: CheckpointContent?
    /// Of the next block that is to be taken, and to be read.
    var offset = 0
    var readOffset = 0
    /// Blocks that were read, by offset.
    var arrived: [Int: [UInt8]] = [:]
}

extension DiskStore {
    /// Blocks of a checkpoint that are on their way together, to the disk or from it.
    static var blocksInFlight: Int { 2 }
    private static var refusedPause: Interval { .seconds(1) }

    private var checkpointIdentity: SegmentIdentity {
        guard let superblock = log.superblock else { preconditionFailure("no superblock") }
        return SegmentIdentity(cell: superblock.cell, disk: superblock.disk, generation: 0)
    }

    private mutating func issue(_ purpose: CheckpointState.Purpose) -> DiskOperation {
        let operation = log.newOperation()
        checkpoints.operations[operation] = purpose
        return operation
    }

    mutating func checkpointCompleted(
        _ operation: DiskOperation, _ result: DiskResult
    ) -> [StoreOutput] {
        guard let purpose = checkpoints.operations.removeValue(forKey: operation) else {
            return []
        }
        let bytes = Array(result.content)
        switch purpose {
        case .readHead(let file): return headRead(file, bytes)
        case .readBlock(let file, let offset):
            guard file == checkpoints.loading?.file else { return [] }
            checkpoints.arrived[offset] = bytes
            return loadBlocks()
        case .create, .write, .sync:
            if case .failed(let why) = result {
                guard why == .noSpace else {
                    return fail(.disk(.checkpoint(checkpoints.writer?.file ?? 0), why))
                }
                checkpoints.isRefused = true
                if purpose == .create { checkpoints.files.removeLast() }
            }
            if purpose == .sync, !checkpoints.isRefused { return checkpointDone() }
            if purpose != .sync { checkpoints.writer?.inFlight -= 1 }
            return checkpoints.isRefused ? giveUp() : writeBlocks()
        }
    }

    /// Others filled the file system: the checkpoint before this one stays (C20).
    private mutating func giveUp() -> [StoreOutput] {
        guard let writer = checkpoints.writer, writer.inFlight == 0 else { return [] }
        checkpoints.writer = nil
        checkpoints.bytes = configuration.checkpointInterval
        if !writer.isFinal { return [] }
        checkpoints.isStopping = false
        return [.stopped]
    }

    // Start

    mutating func loadCheckpoint() -> [StoreOutput] {
        phase = .loading
        checkpoints.waiting = checkpoints.files.count
        if checkpoints.files.isEmpty { return loadNext() }
        return checkpoints.files.map {
            .disk(
                .read(
                    issue(.readHead($0)), .checkpoint($0), offset: 0,
                    length: CheckpointBlock.headerSize))
        }
    }

    private mutating func headRead(_ file: UInt8, _ bytes: [UInt8]) -> [StoreOutput] {
        do throws(DecodeError) {
            let header = try CheckpointBlock(decoding: bytes[...])
            if header.identity == checkpointIdentity {
                checkpoints.heads.append(.init(file: file, sequence: header.sequence))
                checkpoints.sequence = max(checkpoints.sequence, header.sequence)
            }
        } catch .version(let format, let found) {
            return fail(.version(format, found: found))
        } catch {}
        checkpoints.waiting -= 1
        guard checkpoints.waiting == 0 else { return [] }
        checkpoints.heads.sort { $0.sequence < $1.sequence }
        return loadNext()
    }

    /// Tries the newest checkpoint that was not tried; without any, the whole log is replayed.
    private mutating func loadNext() -> [StoreOutput] {
        checkpoints.content = CheckpointContent(configuration.index)
        checkpoints.arrived = [:]
        checkpoints.offset = 0
        checkpoints.readOffset = 0
        checkpoints.loading = checkpoints.heads.popLast()
        guard checkpoints.loading != nil else {
            phase = .replaying
            return take(log.replay(from: nil))
        }
        return loadBlocks()
    }

    /// Takes the blocks that arrived, in order, and asks for more.
    private mutating func loadBlocks() -> [StoreOutput] {
        guard let head = checkpoints.loading else { return [] }
        var outputs: [StoreOutput] = []
        let identity = checkpointIdentity
        repeat {
            let window = Self.blocksInFlight * CheckpointBlock.stride
            while checkpoints.readOffset < checkpoints.offset + window {
                let offset = checkpoints.readOffset
                outputs.append(
                    .disk(
                        .read(
                            issue(.readBlock(head.file, offset: offset)), .checkpoint(head.file),
                            offset: offset, length: CheckpointBlock.stride)))
                checkpoints.readOffset += CheckpointBlock.stride
            }
            guard let bytes = checkpoints.arrived.removeValue(forKey: checkpoints.offset) else {
                return outputs
            }
            do throws(DecodeError) {
                let isLast = try checkpoints.content?.add(
                    block: bytes, identity: identity, sequence: head.sequence)
                if isLast == true { return outputs + install(head) }
            } catch { return outputs + loadNext() }
            checkpoints.offset += CheckpointBlock.stride
        } while true
    }

    private mutating func install(_ head: CheckpointState.Head) -> [StoreOutput] {
        guard let content = checkpoints.content else { preconditionFailure("nothing was loaded") }
        checkpoints.content = nil
        checkpoints.loading = nil
        checkpoints.arrived = [:]
        ledgers = content.ledgers
        chunks = content.chunks
        book = content.book
        dropped = content.dropped
        scrubber.progress = content.scrub
        checkpoints.isLoaded = true
        checkpoints.nextFile = 1 - head.file
        checkpoints.position = content.position
        phase = .replaying
        return take(
            log.replay(from: LogStart(position: content.position, segments: content.segments)))
    }

    // Writing

    /// Writes the index down, so that the next start is quick. `.stopped` tells when it is.
    package mutating func stop() -> [StoreOutput] {
        checkpoints.isStopping = true
        return checkpointIfDue()
    }

    /// In a turn, which has a time, one that was refused is tried again after a while.
    mutating func checkpointIfDue(_ now: Instant? = nil) -> [StoreOutput] {
        guard phase == .ready, checkpoints.writer == nil else { return [] }
        if checkpoints.isRefused, let now {
            if checkpoints.wake == Instant(nanoseconds: .max) {
                checkpoints.wake = now + Self.refusedPause
            } else if checkpoints.wake <= now {
                checkpoints.wake = Instant(nanoseconds: .max)
                checkpoints.isRefused = false
            }
        }
        if checkpoints.isRefused { return [] }
        let isDue =
            checkpoints.isStopping || checkpoints.bytes >= configuration.checkpointInterval
            || givesRoom()
        return isDue ? beginCheckpoint() : []
    }

    /// Whether the cleaner needs a checkpoint: to free many segments at once, or what there is,
    /// or to have more segments to choose from.
    private mutating func givesRoom() -> Bool {
        guard log.room < cleaningStart else { return false }
        let idle = idleBytes()
        let segment = UInt64(log.superblock?.segmentSize ?? 0)
        let isUrgent = log.room < urgentRoom
        if idle >= max(segment, min(segment * 64, log.totalBytes / 64)) { return true }
        let isAhead = log.position.generation > checkpoints.position?.generation ?? 0
        return isUrgent && (idle > 0 || (isAhead && cleaner.victim == nil))
    }

    private mutating func beginCheckpoint() -> [StoreOutput] {
        let position = log.position
        let before = min(position.generation, checkpoints.position?.generation ?? 0)
        let segments = log.segments
        let released = segments.filter {
            $0.generation > 0 && $0.generation < before && book.isIdle($0.number)
        }
        checkpoints.sequence += 1
        checkpoints.bytes = 0
        let file = checkpoints.nextFile
        checkpoints.writer = CheckpointWriter(
            identity: checkpointIdentity, sequence: checkpoints.sequence, file: file,
            position: position, segments: segments.filter { !released.contains($0) },
            released: released.map(\.number), ledgers: ledgers, chunks: chunks,
            scrub: scrubber.progress)
        checkpoints.writer?.isFinal = checkpoints.isStopping
        if checkpoints.files.contains(file) { return writeBlocks() }
        checkpoints.files.append(file)
        checkpoints.writer?.inFlight = 1
        return [
            .disk(.create(issue(.create), .checkpoint(file), size: Limits.groupAlignment))
        ]
    }

    private mutating func writeBlocks() -> [StoreOutput] {
        var outputs: [StoreOutput] = []
        guard var writer = checkpoints.writer else { return [] }
        checkpoints.writer = nil
        while writer.inFlight < Self.blocksInFlight, let block = writer.next() {
            writer.inFlight += 1
            outputs.append(
                .disk(
                    .write(
                        issue(.write), .checkpoint(writer.file), offset: block.offset,
                        pieces: block.pieces, durable: false)))
        }
        if writer.inFlight == 0, !writer.isSyncing {
            writer.isSyncing = true
            outputs.append(.disk(.sync(issue(.sync), .checkpoint(writer.file))))
        }
        checkpoints.writer = writer
        return outputs
    }

    private mutating func checkpointDone() -> [StoreOutput] {
        guard let writer = checkpoints.writer else { return [] }
        checkpoints.writer = nil
        checkpoints.position = writer.position
        checkpoints.nextFile = 1 - writer.file
        cleaner.passed = []
        finders = []
        cleaner.idle = nil
        if folds.isIncomplete { beginLook() }
        var outputs = take(log.release(writer.released))
        if writer.isFinal {
            checkpoints.isStopping = false
            outputs.append(.stopped)
        }
        return outputs + checkpointIfDue()
    }
}
