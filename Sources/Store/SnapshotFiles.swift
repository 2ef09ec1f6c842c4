// The snapshots of a log's user on its disk (M15, M16): two files that take turns.
//
//   start:  read both manifests -> read the blocks of the newer -> (bad: of the older) -> loaded
//   later:  write the blocks as they come -> write the manifest -> sync -> written
//
// Invariants:
//  1. The newest durable snapshot is never overwritten while the next one is written.
//  2. A block counts when it has the hash that its plan says, a manifest when its checksum is
//     right: whatever else is in the file is of another snapshot.
//  3. A segment of the log is released when two durable snapshots begin to read behind it: either
//     may be the start of a replay.

package import Base

/// What the snapshots tell their user.
package enum SnapshotOutput: Sendable {
    case disk(DiskEffect)
    /// The blocks of a snapshot follow; what came before of another is void.
    case loading(SnapshotManifest)
    case block([UInt8])
    /// All blocks came.
    case loaded
    /// There is no snapshot, or none that is whole.
    case none(wasThere: Bool)
    /// The file of a snapshot is damaged.
    case damaged(DiskFile)
    /// The snapshot that was finished is durable.
    case written(SnapshotManifest)
    /// The file system has no space for the snapshot that was being written: it is void.
    case full
    /// A read that was asked for; empty if it failed.
    case page(DiskOperation, [UInt8])
    case failed(LogFailure)
}

/// The two files and what is in them.
package struct SnapshotFiles: Sendable {
    private enum Step: Hashable, Sendable { case create, block, manifest, sync }
    private enum Purpose: Hashable, Sendable {
        case readManifest(UInt8)
        case readBlock(UInt8, Int)
        /// Of the writer with this number.
        case write(Step, Int)
        case page
    }
    /// A snapshot in a file.
    private struct Kept: Sendable {
        var file: UInt8
        var manifest: SnapshotManifest
    }
    private struct Writer: Sendable {
        var number: Int
        var file: UInt8
        var blocks: [SnapshotPlan.Block] = []
        var inFlight = 0
        var manifest: SnapshotManifest?
        var released: [UInt32] = []
    }
    private var identity = SegmentIdentity(
        cell: CellID(high: 0, low: 0), disk: DiskID(rawValue: 0), generation: 0)
    private var operations: [DiskOperation: Purpose] = [:]
    private var files: [UInt8] = []
    /// Durable and whole, the newest first.
    private var kept: [Kept] = []
    private var writer: Writer?
    private var writers = 0
    // At the start
    private var waiting = 0
    /// Not tried yet, the oldest first.
    private var found: [Kept] = []
    private var wasThere = false
    private var loading: Kept?
    private var nextBlock = 0

    /// Before the start.
    package init() {}

    /// The durable snapshots, the newest first.
    package var manifests: [SnapshotManifest] { kept.map(\.manifest) }
    /// A snapshot is being written.
    package var isWriting: Bool { writer != nil }
    /// Another block may be written now.
    package var hasRoom: Bool {
        writer.map { $0.inFlight < 2 && $0.manifest == nil } ?? false
    }
    /// Whether the operation was issued here and has not ended.
    package func owns(_ operation: DiskOperation) -> Bool { operations[operation] != nil }

    private mutating func issue(_ purpose: Purpose, _ log: inout SegmentLog) -> DiskOperation {
        let operation = log.newOperation()
        operations[operation] = purpose
        return operation
    }

    // MARK: Start

    /// Looks for the newest snapshot, once the log is identified.
    package mutating func start(
        _ inventory: DiskInventory, _ log: inout SegmentLog
    ) -> [SnapshotOutput] {
        guard let superblock = log.superblock else { preconditionFailure("no superblock") }
        identity = SegmentIdentity(cell: superblock.cell, disk: superblock.disk, generation: 0)
        for file in inventory.files {
            if case .checkpoint(let number) = file.file { files.append(number) }
        }
        waiting = files.count
        if files.isEmpty { return [.none(wasThere: false)] }
        var outputs: [SnapshotOutput] = []
        for file in files {
            outputs.append(
                .disk(
                    .read(
                        issue(.readManifest(file), &log), .checkpoint(file), offset: 0,
                        length: SnapshotManifest.stride)))
        }
        return outputs
    }

    private mutating func manifestRead(
        _ file: UInt8, _ bytes: [UInt8], _ log: inout SegmentLog
    ) -> [SnapshotOutput] {
        do throws(DecodeError) {
            let manifest = try SnapshotManifest(decoding: bytes, identity)
            found.append(Kept(file: file, manifest: manifest))
        } catch .version(let format, let found) {
            return [.failed(.version(format, found: found))]
        } catch {
            // Zeros: the first one was never finished.
            wasThere = wasThere || bytes.isEmpty || !bytes.allSatisfy { $0 == 0 }
        }
        waiting -= 1
        guard waiting == 0 else { return [] }
        found.sort { $0.manifest.plan.slot < $1.manifest.plan.slot }
        return loadNext(&log)
    }

    private mutating func loadNext(_ log: inout SegmentLog) -> [SnapshotOutput] {
        loading = found.popLast()
        nextBlock = 0
        guard let loading else { return [.none(wasThere: wasThere)] }
        return [.loading(loading.manifest)] + loadBlock(&log)
    }

    private mutating func loadBlock(_ log: inout SegmentLog) -> [SnapshotOutput] {
        guard let loading else { return [] }
        guard nextBlock < loading.manifest.plan.blocks.count else {
            kept = [loading]
            self.loading = nil
            return [.loaded]
        }
        let length = Int(loading.manifest.plan.blocks[nextBlock].length)
        return [
            .disk(
                .read(
                    issue(.readBlock(loading.file, nextBlock), &log), .checkpoint(loading.file),
                    offset: (nextBlock + 1) * SnapshotManifest.stride, length: length))
        ]
    }

    private mutating func blockRead(
        _ file: UInt8, _ index: Int, _ bytes: [UInt8], _ log: inout SegmentLog
    ) -> [SnapshotOutput] {
        guard let loading, loading.file == file, index == nextBlock else { return [] }
        let block = loading.manifest.plan.blocks[nextBlock]
        guard bytes.count == Int(block.length), ShortHash(of: bytes) == block.hash else {
            return reject(&log)
        }
        nextBlock += 1
        return [.block(bytes)] + loadBlock(&log)
    }

    /// The snapshot that is being loaded is no good: tries the other.
    package mutating func reject(_ log: inout SegmentLog) -> [SnapshotOutput] {
        guard let bad = loading ?? kept.first else { return [] }
        kept = []
        wasThere = true
        return [.damaged(.checkpoint(bad.file))] + loadNext(&log)
    }

    // MARK: Writing

    /// Begins to write a snapshot into the file that has not the newest one.
    package mutating func begin(_ log: inout SegmentLog) -> [SnapshotOutput] {
        precondition(writer == nil, "one snapshot is written at a time")
        let file: UInt8 = kept.first?.file == 0 ? 1 : 0
        // From now on there is nothing whole in it.
        kept.removeAll { $0.file == file }
        writers += 1
        writer = Writer(number: writers, file: file)
        if files.contains(file) { return [] }
        files.append(file)
        writer?.inFlight = 1
        return [
            .disk(
                .create(
                    issue(.write(.create, writers), &log), .checkpoint(file),
                    size: Limits.groupAlignment))
        ]
    }

    /// Writes the next block.
    package mutating func add(_ block: [UInt8], _ log: inout SegmentLog) -> [SnapshotOutput] {
        guard let open = writer else { preconditionFailure("no snapshot is being written") }
        writer?.blocks.append(
            SnapshotPlan.Block(length: UInt32(block.count), hash: ShortHash(of: block)))
        writer?.inFlight += 1
        let rest = block.count % Limits.groupAlignment
        let padding = [UInt8](repeating: 0, count: rest == 0 ? 0 : Limits.groupAlignment - rest)
        return [
            .disk(
                .write(
                    issue(.write(.block, open.number), &log), .checkpoint(open.file),
                    offset: (open.blocks.count + 1) * SnapshotManifest.stride,
                    pieces: [block[...], padding[...]].filter { !$0.isEmpty }, durable: false))
        ]
    }

    /// The blocks that were added, as a plan.
    package func plan(slot: Slot, entry: ShortHash, head: [UInt8]) -> SnapshotPlan {
        SnapshotPlan(slot: slot, entry: entry, head: head, blocks: writer?.blocks ?? [])
    }

    /// All blocks were added. A start from this snapshot reads the log from `position` on; what
    /// it needs of the log must be durable there.
    package mutating func finish(
        _ plan: SnapshotPlan, note: [UInt8], position: LogPosition, _ log: inout SegmentLog
    ) -> [SnapshotOutput] {
        let generations = kept.map(\.manifest.start.position.generation) + [position.generation]
        let before = kept.isEmpty ? 0 : generations.min() ?? 0
        let released = log.segments.filter { $0.generation > 0 && $0.generation < before }
        let segments = log.segments.filter { $0.generation >= before }
        writer?.released = released.map(\.number)
        writer?.manifest = SnapshotManifest(
            plan: plan, note: note, start: LogStart(position: position, segments: segments))
        return writeManifest(&log)
    }

    /// Gives up what is being written.
    package mutating func abandon() {
        if let file = writer?.file { kept.removeAll { $0.file == file } }
        writer = nil
    }

    private mutating func giveUp(at step: Step) -> [SnapshotOutput] {
        // A file for which there was no room is not there.
        if step == .create, let file = writer?.file { files.removeAll { $0 == file } }
        abandon()
        return [.full]
    }

    private mutating func writeManifest(_ log: inout SegmentLog) -> [SnapshotOutput] {
        guard let open = writer, open.inFlight == 0, let manifest = open.manifest else {
            return []
        }
        writer?.inFlight = 2
        let file = DiskFile.checkpoint(open.file)
        return [
            .disk(
                .write(
                    issue(.write(.manifest, open.number), &log), file, offset: 0,
                    pieces: [manifest.encode(identity)[...]], durable: false)),
            .disk(.sync(issue(.write(.sync, open.number), &log), file)),
        ]
    }

    private mutating func synced(_ log: inout SegmentLog) -> [SnapshotOutput] {
        guard let done = writer, let manifest = done.manifest else { return [] }
        writer = nil
        kept.insert(Kept(file: done.file, manifest: manifest), at: 0)
        let effects = log.release(done.released).compactMap { output -> SnapshotOutput? in
            if case .disk(let effect) = output { .disk(effect) } else { nil }
        }
        return effects + [.written(manifest)]
    }

    // MARK: Reading

    /// Reads bytes of a block of a kept snapshot; nil if it is not there (any more).
    package mutating func read(
        _ mark: SnapshotMark, block: Int, offset: Int, length: Int, _ log: inout SegmentLog
    ) -> DiskEffect? {
        guard let source = kept.first(where: { $0.manifest.mark == mark }),
            block < source.manifest.plan.blocks.count,
            offset < Int(source.manifest.plan.blocks[block].length)
        else { return nil }
        let rest = Int(source.manifest.plan.blocks[block].length) - offset
        return .read(
            issue(.page, &log), .checkpoint(source.file),
            offset: (block + 1) * SnapshotManifest.stride + offset, length: min(length, rest))
    }

    /// A disk operation ended.
    package mutating func completed(
        _ operation: DiskOperation, _ result: DiskResult, _ log: inout SegmentLog
    ) -> [SnapshotOutput] {
        guard let purpose = operations.removeValue(forKey: operation) else { return [] }
        let bytes = Array(result.content)
        switch purpose {
        case .readManifest(let file): return manifestRead(file, bytes, &log)
        case .readBlock(let file, let index): return blockRead(file, index, bytes, &log)
        case .page: return [.page(operation, bytes)]
        case .write(let step, let number):
            let isCurrent = number == writer?.number
            if case .failed(let why) = result {
                guard why == .noSpace, step != .sync else {
                    return [.failed(.disk(.checkpoint(writer?.file ?? 0), why))]
                }
                return isCurrent ? giveUp(at: step) : []
            }
            guard isCurrent else { return [] }
            if step == .sync { return synced(&log) }
            writer?.inFlight -= 1
            return step == .manifest ? [] : writeManifest(&log)
        }
    }
}
