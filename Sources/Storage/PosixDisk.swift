// Carries out the effects of a disk's log on a folder (Store/DiskEffects.swift has the contract).
//
// Changes wait in a lane for each file. A few threads take lanes in turn; a lane's thread carries
// out all that waits in it, with one sync for all of it, and reports. Large writes are cut into
// parts that several threads write at once. Reads have threads of their own.
//
// Invariants:
//  1. A lane is carried out by one thread at a time, in the order of issue (contract 1).
//  2. After a write, sync or create failed, nothing more is carried out and every operation fails
//     with the same failure; the file is never synced again (S4). A file that is to be made, and a
//     checkpoint, may find no space: that harms nothing that is there (C20).
//  3. Each operation is answered once.

import Base
import Glibc
package import Logging
package import Store

/// The door to one disk. Safe from any thread.
package final class PosixDisk: Sendable {
    /// Hears how an operation ended.
    package typealias Completion = @Sendable (DiskOperation, DiskResult) -> Void

    /// Threads for changes: one write of a large group each.
    private static let changeThreads = 4
    private static let readThreads = 2
    /// Operations of one lane that share a sync.
    private static let batch = 64
    /// A lone durable write up to this size needs no separate sync.
    private static let smallWrite = 64 << 10

    private enum Job {
        case lane(DiskFile, [DiskEffect])
        case part(SplitWrite)
    }
    private struct Changes {
        /// Files with changes that wait or are being carried out.
        var lanes: [DiskFile: [DiskEffect]] = [:]
        /// Files whose lane no thread has taken.
        var ready: [DiskFile] = []
        var parts: [SplitWrite] = []
        var isClosing = false
    }
    private struct Reads {
        var waiting: [DiskEffect] = []
        var isClosing = false
    }
    private struct Files {
        var open: [DiskFile: OpenFile] = [:]
        var failure: DiskFailure?
    }

    /// What was there at the start.
    package let inventory: DiskInventory
    private let folder: DiskFolder
    private let completion: Completion
    private let logger: Logger
    private let changes = Monitor(Changes())
    private let reads = Monitor(Reads())
    private let files = Monitor(Files())
    private let pool = BufferPool()
    private let threads = Monitor<[DiskThread]>([])

    /// Opens a folder, making it where it is not there. `capacity` bounds what may be used, in
    /// bytes. `completion` is called on the disk's threads, once for each operation.
    package init(
        folder path: String, capacity: UInt64? = nil, logger: Logger,
        completion: @escaping Completion
    ) throws(StorageError) {
        folder = try DiskFolder(path)
        inventory = try folder.inventory(limit: capacity)
        self.completion = completion
        self.logger = logger
        if folder.access == .cached {
            logger.notice("\(path): no O_DIRECT here; writing through the page cache")
        }
        Self.raiseFileLimit()
        threads.withLock { threads in
            for _ in 0..<Self.changeThreads { threads.append(DiskThread { self.change() }) }
            for _ in 0..<Self.readThreads { threads.append(DiskThread { self.read() }) }
        }
    }

    /// The file system that its folder is on, and the bytes that are free there now; 0: unknown.
    package var space: (fileSystem: UInt64, free: UInt64) { folder.space }

    /// Starts an operation. Operations on one file take effect in the order of the calls.
    package func perform(_ effect: DiskEffect) {
        if case .read = effect {
            reads.change { reads in
                precondition(!reads.isClosing, "a closed disk")
                reads.waiting.append(effect)
                return 1
            }
            return
        }
        let file = effect.file
        changes.change { changes in
            precondition(!changes.isClosing, "a closed disk")
            let isTaken = changes.lanes[file] != nil
            if !isTaken { changes.ready.append(file) }
            changes.lanes[file, default: []].append(effect)
            return isTaken ? 0 : 1
        }
    }
    /// Carries out what was started, then ends the threads and lets the folder go. Blocks; not
    /// for the threads that call `completion`.
    package func close() {
        changes.withLock { $0.isClosing = true }
        changes.wakeAll()
        reads.withLock { $0.isClosing = true }
        reads.wakeAll()
        let running = threads.withLock { threads in
            defer { threads = [] }
            return threads
        }
        for thread in running { thread.join() }
        files.withLock { $0.open = [:] }
        folder.release()
    }

    /// The next segments of a big disk need a descriptor each.
    private static func raiseFileLimit() {
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        var limit = rlimit()
        guard getrlimit(resource, &limit) == 0 else { return }
        limit.rlim_cur = limit.rlim_max
        // Not fatal: a disk with few segments does without.
        setrlimit(resource, &limit)
    }
}

// The threads.
extension PosixDisk {
    private func read() {
        while true {
            let effect: DiskEffect?? = reads.wait { reads in
                if !reads.waiting.isEmpty { return .some(reads.waiting.removeFirst()) }
                return reads.isClosing ? .some(nil) : nil
            }
            guard case .read(let operation, let file, let offset, let length)? = effect ?? nil
            else { return }
            completion(operation, read(file, offset, length))
        }
    }
    private func read(_ file: DiskFile, _ offset: Int, _ length: Int) -> DiskResult {
        switch open(file, create: false) {
        case .success(let open): open.read(at: offset, length: length)
        case .failure(let failure): .failed(failure)
        }
    }

    private func change() {
        while true {
            let job: Job?? = changes.wait { changes in
                if let part = changes.parts.popLast() { return .some(.part(part)) }
                if !changes.ready.isEmpty { return .some(Self.takeLane(&changes)) }
                // A lane that is being carried out may still ask for help with its parts.
                return changes.isClosing && changes.lanes.isEmpty ? .some(nil) : nil
            }
            switch job ?? nil {
            case .part(let part):
                part.help(pool)
            case .lane(let file, let effects):
                carryOut(effects, on: file)
                release(file)
            case nil:
                return
            }
        }
    }
    private static func takeLane(_ changes: inout Changes) -> Job {
        let file = changes.ready.removeFirst()
        guard let lane = changes.lanes[file] else { preconditionFailure("a ready lane is empty") }
        changes.lanes[file] = Array(lane.dropFirst(batch))
        return .lane(file, Array(lane.prefix(batch)))
    }
    private func release(_ file: DiskFile) {
        // This thread looks for a lane next, so that nobody else needs to be woken for it.
        let isClosing = changes.withLock { changes in
            if changes.lanes[file]?.isEmpty ?? true {
                changes.lanes[file] = nil
            } else {
                changes.ready.append(file)
            }
            return changes.isClosing
        }
        if isClosing { changes.wakeAll() }
    }
}

// The operations.
extension PosixDisk {
    private func carryOut(_ effects: [DiskEffect], on file: DiskFile) {
        /// Operations that are done with the next sync.
        var unsynced: [DiskOperation] = []
        for effect in effects {
            switch effect {
            case .create(let operation, _, let size):
                sync(file, &unsynced)
                finish([operation], create(file, size: size), "create", file, mayBeFull: true)
            case .write(let operation, _, let offset, let pieces, let durable):
                let alone = effects.count == 1 && durable
                let result = write(file, offset: offset, pieces: pieces, alone: alone)
                if case .success(let isDurable) = result, durable, !isDurable {
                    unsynced.append(operation)
                } else {
                    var mayBeFull = false
                    if case .checkpoint = file { mayBeFull = true }
                    finish(
                        [operation], result.map { _ in }, "write", file, mayBeFull: mayBeFull)
                }
            case .sync(let operation, _):
                unsynced.append(operation)
            case .remove(let operation, _):
                sync(file, &unsynced)
                remove(operation, file)
            case .read:
                preconditionFailure("a read in a lane")
            }
        }
        sync(file, &unsynced)
    }

    private func finish(
        _ operations: [DiskOperation], _ result: Result<Void, DiskFailure>, _ call: String,
        _ file: DiskFile, mayBeFull: Bool = false
    ) {
        if case .failure(let failure) = result {
            if failure == .noSpace && mayBeFull {
                logger.error("\(call) of \(folder.path(of: file)): the file system is full")
            } else {
                fail(failure, call, file)
            }
        }
        for operation in operations {
            switch result {
            case .success: completion(operation, .done)
            case .failure(let failure): completion(operation, .failed(failure))
            }
        }
    }
    private func fail(_ failure: DiskFailure, _ call: String, _ file: DiskFile) {
        let isFirst = files.withLock { files in
            defer { files.failure = files.failure ?? failure }
            return files.failure == nil
        }
        guard isFirst else { return }
        logger.critical("\(call) of \(folder.path(of: file)) failed: \(failure); the disk stops")
    }

    private func create(_ file: DiskFile, size: Int) -> Result<Void, DiskFailure> {
        open(file, create: true).flatMap { open in
            let failure = open.reset(size: size)
            if failure != 0 {
                // A part of a file would be taken for one at the next start.
                files.withLock { _ = $0.open.removeValue(forKey: file) }
                unlink(folder.path(of: file))
            }
            return result(failure != 0 ? failure : open.sync(folder: folder.folder(of: file)))
        }
    }
    /// Success tells whether the write is durable already.
    private func write(
        _ file: DiskFile, offset: Int, pieces: [ArraySlice<UInt8>], alone: Bool
    ) -> Result<Bool, DiskFailure> {
        open(file, create: true).flatMap { open in
            let length = pieces.reduce(0) { $0 + $1.count }
            guard length > Limits.diskWrite else {
                let isDurable =
                    alone && length <= Self.smallWrite && !open.isDirty && !open.isNew
                if !isDurable { open.markDirty() }
                let failure = open.write(
                    pieces, from: 0, length: length, at: offset, durable: isDurable, pool: pool)
                return result(failure).map { isDurable }
            }
            open.markDirty()
            let split = SplitWrite(open, offset: offset, pieces: pieces, length: length)
            let helpers = min(split.count, Self.changeThreads) - 1
            changes.change { changes in
                for _ in 0..<helpers { changes.parts.append(split) }
                return helpers
            }
            return result(split.finish(pool)).map { false }
        }
    }
    private func sync(_ file: DiskFile, _ operations: inout [DiskOperation]) {
        guard !operations.isEmpty else { return }
        let outcome = open(file, create: false).flatMap { open in
            result(open.sync(folder: folder.folder(of: file)))
        }
        finish(operations, outcome, "sync", file)
        operations = []
    }
    private func remove(_ operation: DiskOperation, _ file: DiskFile) {
        if let failure = files.withLock({ $0.failure }) {
            return completion(operation, .failed(failure))
        }
        files.withLock { _ = $0.open.removeValue(forKey: file) }
        let isGone = unlink(folder.path(of: file)) == 0 || errno == ENOENT
        guard isGone, fsync(folder.folder(of: file).number) == 0 else {
            return completion(operation, .failed(.system(errno: errno)))
        }
        completion(operation, .done)
    }

    private func open(_ file: DiskFile, create: Bool) -> Result<OpenFile, DiskFailure> {
        files.withLock { files in
            if let failure = files.failure { return .failure(failure) }
            if let open = files.open[file] { return .success(open) }
            var access = DiskAccess.cached
            if case .segment = file { access = folder.access }
            do throws(StorageError) {
                let open = try OpenFile(
                    folder.path(of: file), access, create: create)
                files.open[file] = open
                return .success(open)
            } catch {
                guard case .system(_, _, let number) = error else {
                    preconditionFailure("only system calls open files")
                }
                return .failure(DiskFailure(number))
            }
        }
    }
    private func result(_ number: Int32) -> Result<Void, DiskFailure> {
        number == 0 ? .success(()) : .failure(DiskFailure(number))
    }
}

extension DiskFailure {
    fileprivate init(_ number: Int32) {
        self = number == ENOSPC || number == EDQUOT ? .noSpace : .system(errno: number)
    }
}

extension DiskEffect {
    fileprivate var file: DiskFile {
        switch self {
        case .create(_, let file, _), .write(_, let file, _, _, _), .sync(_, let file),
            .read(_, let file, _, _), .remove(_, let file):
            file
        }
    }
}
