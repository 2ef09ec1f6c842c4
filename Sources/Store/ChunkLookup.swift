// Where a disk's chunks are in its table, by their names: 9 to 18 bytes each.
//
// Invariants:
//  1. The lookup is never iterated (T2).
//  2. No change moves more than one shard.

package import Base

/// Finds the slots of chunks, whose names are kept elsewhere: hash tables with linear probing,
/// each filled to seven eighths at the most.
package struct ChunkLookup: Sendable {
    private struct Shard: Sendable {
        /// A power of two of them: the lower half of the hash, above the slot + 1; 0: empty.
        var cells: [UInt64] = []
        var count = 0

        static func cell(_ hash: UInt64, _ slot: Int) -> UInt64 { hash << 32 | UInt64(slot + 1) }
        static func slot(_ cell: UInt64) -> Int { Int(cell & 0xFFFF_FFFF) - 1 }

        /// Where the run of cells begins in which a hash can be.
        func home(_ hash: UInt64) -> Int { Int(hash & 0xFFFF_FFFF) & (cells.count - 1) }
        func next(_ cell: Int) -> Int { (cell + 1) & (cells.count - 1) }

        func find(_ hash: UInt64, _ isThere: (Int) -> Bool) -> Int? {
            if count == 0 { return nil }
            var place = home(hash)
            while cells[place] != 0 {
                let slot = Self.slot(cells[place])
                if cells[place] >> 32 == hash & 0xFFFF_FFFF, isThere(slot) { return slot }
                place = next(place)
            }
            return nil
        }
        /// Makes room in an empty one.
        mutating func reserve(_ count: Int) {
            if count == 0 { return }
            var size = 8
            while size / 8 * 7 < count { size *= 2 }
            cells = Array(repeating: 0, count: size)
        }
        /// Takes a cell that `arrange` puts where it belongs.
        mutating func gather(_ cell: UInt64) {
            cells[count] = cell
            count += 1
        }
        /// False if two of the cells are the same.
        mutating func arrange(_ areSame: (UInt64, UInt64) -> Bool) -> Bool {
            let all = Array(cells[..<count])
            for place in all.indices { cells[place] = 0 }
            for cell in all {
                var place = home(cell >> 32)
                while cells[place] != 0 {
                    if areSame(cells[place], cell) { return false }
                    place = next(place)
                }
                cells[place] = cell
            }
            return true
        }
        mutating func insert(_ hash: UInt64, _ slot: Int) {
            if count >= cells.count / 8 * 7 { grow() }
            count += 1
            put(Self.cell(hash, slot))
        }
        private mutating func put(_ cell: UInt64) {
            var place = home(cell >> 32)
            while cells[place] != 0 { place = next(place) }
            cells[place] = cell
        }
        private mutating func grow() {
            let old = cells
            cells = Array(repeating: 0, count: max(8, old.count * 2))
            for cell in old where cell != 0 { put(cell) }
        }
        mutating func remove(_ hash: UInt64, _ slot: Int) {
            var gap = home(hash)
            let cell = Self.cell(hash, slot)
            while cells[gap] != cell {
                precondition(cells[gap] != 0, "a chunk is removed once")
                gap = next(gap)
            }
            count -= 1
            // What lies behind the gap moves into it, unless that is before its home.
            var place = next(gap)
            while cells[place] != 0 {
                let distance = (place - home(cells[place] >> 32)) & (cells.count - 1)
                if distance >= (place - gap) & (cells.count - 1) {
                    cells[gap] = cells[place]
                    gap = place
                }
                place = next(place)
            }
            cells[gap] = 0
        }
    }
    private static let shardBits = 8
    private var shards = Array(repeating: Shard(), count: 1 << shardBits)

    /// Without any chunk.
    package init() {}

    /// Of chunks in their slots, by the hashes of their names; 0: the slot is free. nil if one is
    /// there twice, as `areSame` says of two slots.
    package init?(_ hashes: [UInt64], _ areSame: (Int, Int) -> Bool) {
        // Shard by shard, so that each is filled while it is in the processor's cache.
        var counts = Array(repeating: 0, count: shards.count)
        for hash in hashes where hash != 0 { counts[Self.shard(hash)] += 1 }
        for shard in shards.indices { shards[shard].reserve(counts[shard]) }
        for (slot, hash) in hashes.enumerated() where hash != 0 {
            shards[Self.shard(hash)].gather(Shard.cell(hash, slot))
        }
        for shard in shards.indices {
            let areAll = shards[shard].arrange { left, right in
                left >> 32 == right >> 32 && areSame(Shard.slot(left), Shard.slot(right))
            }
            if !areAll { return nil }
        }
    }

    /// The same in every process (T1), never 0.
    package static func hash(_ chunk: ChunkID) -> UInt64 {
        var mixed = chunk.inode.rawValue &* 0x9E37_79B9_7F4A_7C15
        mixed ^= UInt64(chunk.index) << 32 | UInt64(chunk.version)
        mixed = (mixed ^ mixed >> 30) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
        return max(1, mixed ^ mixed >> 31)
    }
    private static func shard(_ hash: UInt64) -> Int { Int(hash >> (64 - shardBits)) }

    /// The slot of a chunk; `isThere` tells whether it is in that slot.
    package func find(_ chunk: ChunkID, _ isThere: (Int) -> Bool) -> Int? {
        let hash = Self.hash(chunk)
        return shards[Self.shard(hash)].find(hash, isThere)
    }
    /// Adds a chunk that is not there.
    package mutating func insert(_ chunk: ChunkID, _ slot: Int) {
        precondition(slot < Int(UInt32.max), "too many chunks")
        let hash = Self.hash(chunk)
        shards[Self.shard(hash)].insert(hash, slot)
    }
    /// Takes out a chunk that is there, in this slot.
    package mutating func remove(_ chunk: ChunkID, _ slot: Int) {
        let hash = Self.hash(chunk)
        shards[Self.shard(hash)].remove(hash, slot)
    }
}
