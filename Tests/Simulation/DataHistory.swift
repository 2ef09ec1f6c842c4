// What the data clients of a run know together: the files, what was written, and where it is.

import Base
import Wire

/// A chunk that clients write to, and what is known of its set.
struct SharedChunk {
    var inode: InodeID
    var chunk: ChunkID
    var set: SetID
    /// The client that made its file, and that may delete it.
    var owner: Int
    var name: [UInt8]
}

/// A block of a chunk.
struct BlockPlace: Hashable {
    var chunk: ChunkID
    var block: UInt16
}

/// What all data clients of a run share.
final class DataHistory {
    var check = PageCheck()
    var chunks: [SharedChunk] = []
    var names: [InodeID: [UInt8]] = [:]
    /// The newest view of each set that a master told.
    var views: [SetID: SetView] = [:]
    /// What was acknowledged or read has numbers up to these: as an open would tell.
    var numbers: [SetID: RecordNumber] = [:]
    var lastStamp: UInt64 = 0
    var acknowledged = 0
    /// The epochs of each set in which something was acknowledged.
    var epochs: [SetID: [Epoch]] = [:]
    var reads = 0
    /// Of files that were cut, as an open would tell.
    var cuts: [ChunkID: (truncation: UInt32, cuts: [Cut])] = [:]
    /// Chunks of deleted files: whoever still asks for them gets anything.
    var gone: Set<ChunkID> = []
    /// Blocks with bytes that no copy has any more, by an operator's word.
    var lost: Set<BlockPlace> = []
    var lostReads = 0
    /// Sets whose writes found no space since something was acknowledged.
    var refusals: [SetID] = []

    func note(_ set: SetID, _ number: RecordNumber) {
        numbers[set] = max(numbers[set] ?? .none, number)
    }

    func acknowledge(_ set: SetID, _ reply: WriteReply) {
        acknowledged += 1
        refusals = []
        note(set, reply.number)
        if epochs[set]?.last != reply.epoch { epochs[set, default: []].append(reply.epoch) }
    }

    func learn(_ view: SetView) { views.learn(view) }
}

extension [SetID: SetView] {
    /// The view with the higher epoch stays.
    mutating func learn(_ view: SetView) {
        let set = view.configuration.set
        if let known = self[set], known.configuration.epoch > view.configuration.epoch { return }
        self[set] = view
    }
}

/// Cells: 512 bytes each, the first 16 of a block.
enum Cell {
    static let size = 512
    static let count = 16
    static let blocks = 3
}
