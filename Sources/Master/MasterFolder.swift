// The folder of a master of a cell that starts from a dump: an empty log, and the state as its
// first snapshot. A start goes on from it as from any other; it promised and accepted nothing.
//
//   identified ─► blocks, one after the other ─► manifest ─► done
//
// Invariant: until it is done there is no snapshot in the folder.

package import Base
import Consensus
package import Logging
import Namespace
package import Node
import Storage
package import Store

/// What carries the making of a folder on, as a state machine over disk effects.
package struct MasterFolder: Sendable {
    private var log: SegmentLog
    private var files = SnapshotFiles()
    private var encoder: SnapshotEncoder
    private let inventory: DiskInventory
    private let masters: KnownMasters
    private let slot: Slot
    private let entry: ShortHash
    private var hasBegun = false
    private var isEncoded = false
    /// The snapshot is durable.
    package private(set) var isDone = false
    package private(set) var failure: String?

    /// Of a dump that has started over. `disk` is a new name; the masters are all of the new cell.
    package init(
        _ dump: MetadataDump, id: MasterID, masters: [MasterAddress], disk: DiskID,
        segmentSize: Int, inventory: DiskInventory
    ) {
        log = SegmentLog(
            LogConfiguration(
                cell: dump.header.cell, owner: .master(id), disk: disk, segmentSize: segmentSize,
                hasCheckpoints: true))
        encoder = SnapshotEncoder(dump.state)
        self.inventory = inventory
        self.masters = dump.masters.loaded(by: masters, dump.header.mark.slot, dump.entry)
        slot = dump.header.mark.slot
        entry = dump.entry
    }

    /// The first effects.
    package mutating func start() -> [DiskEffect] { take(log.start(inventory)) }

    /// A disk operation ended: what comes next.
    package mutating func completed(
        _ operation: DiskOperation, _ result: DiskResult
    ) -> [DiskEffect] {
        if case .failed(let why) = result, failure == nil { failure = "\(why)" }
        guard failure == nil, !isDone else { return [] }
        let effects =
            files.owns(operation)
            ? take(files.completed(operation, result, &log))
            : take(log.completed(operation, result, now: .zero))
        return effects + goOn()
    }

    private mutating func take(_ outputs: [LogOutput]) -> [DiskEffect] {
        var effects: [DiskEffect] = []
        for output in outputs {
            switch output {
            case .disk(let effect): effects.append(effect)
            case .identified: effects += take(files.start(inventory, &log))
            case .ready: effects += take(files.begin(&log))
            case .failed(let why): failure = "\(why)"
            case .replayed, .damaged: failure = "the folder was in use"
            case .placed, .durable, .renamed: break
            }
        }
        return effects
    }

    private mutating func take(_ outputs: [SnapshotOutput]) -> [DiskEffect] {
        var effects: [DiskEffect] = []
        for output in outputs {
            switch output {
            case .disk(let effect): effects.append(effect)
            case .none: effects += take(log.replay(from: nil))
            case .written: isDone = true
            case .failed(let why): failure = "\(why)"
            case .full: failure = "the file system has no space for it"
            case .loading, .block, .loaded, .damaged, .page: failure = "the folder was in use"
            }
        }
        return effects
    }

    /// Gives the disk more, if it can take more.
    private mutating func goOn() -> [DiskEffect] {
        var effects: [DiskEffect] = []
        while !isEncoded, files.hasRoom, failure == nil {
            switch encoder.advance(items: Limits.snapshotItems) {
            case .more: break
            case .block(let block): effects += take(files.add(block, &log))
            case .end:
                isEncoded = true
                let base = PaxosBase.loaded(slot, EntryHash(entry), masters.started)
                var note = ByteWriter(capacity: 64)
                base.encode(into: &note)
                let plan = files.plan(slot: slot, entry: entry, head: masters.bytes)
                effects += take(
                    files.finish(plan, note: note.bytes, position: log.position, &log))
            }
        }
        return effects
    }

    /// Makes a folder on this machine; what is there already is used up. Blocks.
    package static func make(
        at path: String, _ dump: MetadataDump, id: MasterID, masters: [MasterAddress],
        disk name: DiskID, segmentSize: Int, logger: Logger
    ) throws(NodeError) {
        let ended = Monitor<[(DiskOperation, DiskResult)]>([])
        do throws(StorageError) {
            let disk = try PosixDisk(folder: path, logger: logger) { operation, result in
                ended.change { waiting in
                    waiting.append((operation, result))
                    return 1
                }
            }
            defer { disk.close() }
            var folder = MasterFolder(
                dump, id: id, masters: masters, disk: name, segmentSize: segmentSize,
                inventory: disk.inventory)
            var open = 0
            var effects = folder.start()
            while true {
                for effect in effects { disk.perform(effect) }
                open += effects.count
                guard open > 0 else { break }
                let (operation, result) = ended.wait { $0.isEmpty ? nil : $0.removeFirst() }
                open -= 1
                effects = folder.completed(operation, result)
            }
            guard folder.isDone else {
                throw StorageError.system(call: folder.failure ?? "write", path: path, errno: 5)
            }
        } catch { throw .storage(error) }
    }
}
