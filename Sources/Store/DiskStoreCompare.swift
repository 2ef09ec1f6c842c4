// What a store gives to the comparison of copies, the second half of a scrub (C18). Copies are
// compared by content: what is stored may differ from copy to copy.

package import Base
import Blocks

extension StoredBlock {
    /// By which copies of it are compared: the sum of its content, or of nothing where it is lost;
    /// nil if it can't be told.
    package var digest: Checksum? {
        self == .lost ? Self.lostDigest : content.map { Checksum(of: $0) }
    }
    /// Of a lost block.
    package static let lostDigest = Checksum(value: 0)
    /// The content of the whole block, zeros where nothing was written; nil if it can't be told.
    package var content: [UInt8]? {
        guard case .pieces(let pieces) = self else { return nil }
        var bytes = [UInt8](repeating: 0, count: Limits.block)
        for piece in pieces {
            let extent = piece.extent
            var layer = Array(extent.payload)
            if extent.codec != .raw {
                guard let plain = try? BlockCodec.decode(extent) else { return nil }
                layer = plain
            }
            let start = Int(extent.start)
            let visible = layer.prefix(Int(piece.visible))
            bytes.replaceSubrange(start..<start + visible.count, with: visible)
        }
        return bytes
    }
}

extension DiskStore {
    /// Every segment was read in the pass under way; the copies are to be compared.
    package var isComparing: Bool {
        phase == .ready && scrubber.progress.isRunning && scrubber.progress.isComparing
    }
    /// Sets up to this one are compared.
    package var comparedThrough: SetID { scrubber.progress.compared }

    /// Whether the next comparison is to begin.
    package func mayCompare(now: Instant) -> Bool {
        isComparing && scrubber.isDue(now, isBusy: !reads.jobs.isEmpty || log.isWriting)
    }
    /// The next comparison is not due before.
    package mutating func holdComparison(until due: Instant) { scrubber.due = due }
    /// So many stored bytes were compared.
    package mutating func noteCompared(bytes: Int, now: Instant) {
        scrubber.pace(read: bytes, stored: bytes, of: scrubbedBytes, now)
    }
    /// A set is done.
    package mutating func noteCompared(_ set: SetID) {
        scrubber.progress.compared = set
        scrubber.isUnsaved = true
    }
    /// All are; the pass is over.
    package mutating func endComparison(now: Instant, wall: Timestamp) {
        scrubber.end(now, wall)
    }
    /// Copies of a block differ. `isDisputed`: nobody can tell which one is right.
    package mutating func noteDifference(isDisputed: Bool) {
        scrubber.progress.differed += 1
        if isDisputed { scrubber.progress.disputes += 1 }
        scrubber.isUnsaved = true
    }

    /// The chunks of a set, ascending. Slow.
    package func chunks(of set: SetID) -> [ChunkID] {
        chunks.slots.ids(of: set).sorted()
    }
    /// Blocks of a chunk from the first to the last with anything in it.
    package func blockCount(_ chunk: ChunkID) -> Int {
        chunks[chunk]?.pages.last?.entries.last.map { Int($0.block) + 1 } ?? 0
    }
    /// Stored bytes of blocks of a chunk.
    package func storedBytes(_ chunk: ChunkID, _ blocks: Range<Int>) -> Int {
        guard let state = chunks[chunk] else { return 0 }
        return blocks.reduce(0) { sum, block in
            state.entries(block).reduce(sum) { $0 + Int($1.stored) }
        }
    }
    /// The last committed record that a block is made of; `.none` without any.
    package func newest(_ chunk: ChunkID, _ block: Int) -> RecordNumber {
        chunks[chunk]?.entries(block).last?.number ?? .none
    }
    /// Whether a record that is not committed changes the chunk.
    package func isChanging(_ set: SetID, _ chunk: ChunkID) -> Bool {
        ledger(set)?.prepared.contains { entry in
            switch entry.record.body {
            case .write(let extent): extent.chunk == chunk
            case .trim(let trimmed, _, _): trimmed == chunk
            case .drop(let gone): gone.contains(chunk)
            case .nothing: false
            }
        } ?? false
    }
}
