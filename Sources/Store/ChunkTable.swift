// All chunks of a disk, packed. A disk of small files has millions of them with one extent each:
// such a chunk takes 72 bytes, and 9 to 18 where it is looked up.
//
//   ChunkLookup: chunk -> slot        ChunkSlots: slot -> chunk, in segments of 1,024
//
// Invariants:
//  1. The order of the slots is that of their making; the lookup is never iterated (T2).
//  2. A chunk's hash is the same in every process (T1).
//  3. No change moves more than one segment's chunks, or one shard of the lookup.

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

    /// Of the chunks in the first `count` slots, all of them in use; nil if one is there twice.
    package init?(_ count: Int, _ chunk: (Int) -> ChunkID) {
        // Shard by shard, so that each is filled while it is in the processor's cache.
        var counts = Array(repeating: 0, count: shards.count)
        for slot in 0..<count { counts[Self.shard(Self.hash(chunk(slot)))] += 1 }
        for shard in shards.indices { shards[shard].reserve(counts[shard]) }
        for slot in 0..<count {
            let hash = Self.hash(chunk(slot))
            shards[Self.shard(hash)].gather(Shard.cell(hash, slot))
        }
        for shard in shards.indices {
            let areAll = shards[shard].arrange { left, right in
                left >> 32 == right >> 32 && chunk(Shard.slot(left)) == chunk(Shard.slot(right))
            }
            if !areAll { return nil }
        }
    }

    private static func hash(_ chunk: ChunkID) -> UInt64 {
        var mixed = chunk.inode.rawValue &* 0x9E37_79B9_7F4A_7C15
        mixed ^= UInt64(chunk.index) << 32 | UInt64(chunk.version)
        mixed = (mixed ^ mixed >> 30) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
        return mixed ^ mixed >> 31
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

/// A chunk in its slot: 72 bytes.
private struct PackedChunk: Sendable {
    static let free: Int16 = -2
    static let none: Int16 = -1
    var id: ChunkID
    var set: SetID
    var truncation: UInt32 = 0
    /// The place in the segment of what a small file does not have; or none, or the slot is free.
    var rest = Self.none
    /// Its pages may be open, and it is among those that are packed in their turn.
    var isOpen = false
    /// If it is the only one.
    var extent = ExtentEntry()
}

/// The slots with a chunk, and free ones.
struct ChunkSlots: RandomAccessCollection, Sendable {
    private struct Rest: Sendable {
        var trims: [ChunkTrim] = []
        var pages: [IndexPage] = []
    }
    private struct Segment: Sendable {
        static let size = 1_024
        var chunks: [PackedChunk] = []
        private var rests: [Rest] = []
        private var freeRests: [Int16] = []

        func chunk(_ index: Int) -> ChunkState? {
            let packed = chunks[index]
            if packed.rest == PackedChunk.free { return nil }
            var state = ChunkState(id: packed.id, set: packed.set)
            state.truncation = packed.truncation
            let rest = packed.rest < 0 ? Rest() : rests[Int(packed.rest)]
            state.trims = rest.trims
            if !packed.extent.isNone {
                state.form = .one(packed.extent)
            } else if !rest.pages.isEmpty {
                state.form = .many(rest.pages)
            }
            return state
        }

        /// Packs a chunk again that was changed.
        mutating func replace(_ index: Int, _ state: ChunkState) {
            var rest = Rest(trims: state.trims)
            chunks[index].truncation = state.truncation
            chunks[index].extent = ExtentEntry()
            switch state.form {
            case .none: break
            case .one(let extent): chunks[index].extent = extent
            case .many(let pages): rest.pages = pages
            }
            let place = chunks[index].rest
            if rest.trims.isEmpty, rest.pages.isEmpty {
                if place >= 0 { freeRests.append(place) }
                chunks[index].rest = PackedChunk.none
            } else if place >= 0 {
                rests[Int(place)] = rest
            } else if let free = freeRests.popLast() {
                rests[Int(free)] = rest
                chunks[index].rest = free
            } else {
                chunks[index].rest = Int16(rests.count)
                rests.append(rest)
            }
        }
        /// Notes that a chunk is among those that are packed in their turn, or no more; false if
        /// that was known, or it has no pages.
        mutating func note(_ index: Int, isOpen: Bool) -> Bool {
            let packed = chunks[index]
            let hasPages = packed.rest >= 0 && !rests[Int(packed.rest)].pages.isEmpty
            if packed.isOpen == isOpen || isOpen && !hasPages { return false }
            chunks[index].isOpen = isOpen
            return true
        }
        /// Lets go of what is about to be changed in place.
        mutating func release(_ index: Int) {
            if chunks[index].rest >= 0 { rests[Int(chunks[index].rest)] = Rest() }
        }
    }
    private var segments: [Segment] = []
    private(set) var endIndex = 0
    var startIndex: Int { 0 }
    /// Bytes of memory that pages take.
    private(set) var pageBytes = 0

    subscript(slot: Int) -> ChunkState? {
        segments[slot / Segment.size].chunk(slot % Segment.size)
    }
    /// What is, or was, in a slot.
    func id(_ slot: Int) -> ChunkID {
        segments[slot / Segment.size].chunks[slot % Segment.size].id
    }
    mutating func change(
        _ slot: Int, _ usage: inout StoreUsage, _ book: inout SegmentBook,
        _ body: (inout ChunkState, inout StoreUsage, inout SegmentBook) -> Void
    ) {
        let (segment, index) = (slot / Segment.size, slot % Segment.size)
        guard var state = segments[segment].chunk(index) else { return }
        segments[segment].release(index)
        body(&state, &usage, &book)
        segments[segment].replace(index, state)
        pageBytes += state.grown
    }
    /// True if the chunk has pages, and is from now on among those that are packed in their turn.
    fileprivate mutating func open(_ slot: Int) -> Bool {
        segments[slot / Segment.size].note(slot % Segment.size, isOpen: true)
    }
    /// Packs the pages of a chunk.
    fileprivate mutating func pack(_ slot: Int) {
        let (segment, index) = (slot / Segment.size, slot % Segment.size)
        _ = segments[segment].note(index, isOpen: false)
        guard var state = segments[segment].chunk(index) else { return }
        segments[segment].release(index)
        state.pack()
        segments[segment].replace(index, state)
        pageBytes += state.grown
    }

    /// Adds a chunk behind the last one.
    mutating func append(
        _ chunk: ChunkID, of set: SetID, truncation: UInt32 = 0, _ extent: ExtentEntry = .init()
    ) {
        let (segment, index) = (endIndex / Segment.size, endIndex % Segment.size)
        if index == 0 {
            segments.append(Segment())
            // The only segment of a small disk grows as it fills.
            if segment > 0 { segments[segment].chunks.reserveCapacity(Segment.size) }
        }
        segments[segment].chunks.append(
            PackedChunk(id: chunk, set: set, truncation: truncation, extent: extent))
        endIndex += 1
    }
    fileprivate mutating func use(_ slot: Int, for chunk: ChunkID, of set: SetID) {
        segments[slot / Segment.size].chunks[slot % Segment.size] = PackedChunk(
            id: chunk, set: set)
    }
    /// Frees the slot of a chunk that has nothing any more.
    fileprivate mutating func free(_ slot: Int) {
        segments[slot / Segment.size].chunks[slot % Segment.size].rest = PackedChunk.free
    }
}

/// All chunks of a disk.
struct ChunkTable: Sendable {
    private(set) var slots = ChunkSlots()
    private var free: [UInt32] = []
    private var lookup = ChunkLookup()
    /// Slots of chunks whose pages are open, a ring: the next one takes the place of the oldest.
    private var open: [UInt32] = []
    private var oldest = 0
    /// So many chunks may have open pages.
    private let openChunks: Int

    /// Bytes of memory that what is there needs, about.
    var memory: Int { (slots.count - free.count) * Self.chunkBytes + slots.pageBytes }
    /// Of one chunk: its slot, and where it is looked up.
    private static let chunkBytes = MemoryLayout<PackedChunk>.stride + 16

    init(openChunks: Int) { self.openChunks = openChunks }
    /// Of slots of which none is free; nil if they have a chunk twice.
    init?(_ slots: ChunkSlots, openChunks: Int) {
        guard let lookup = ChunkLookup(slots.count, { slots.id($0) }) else { return nil }
        self.openChunks = openChunks
        self.slots = slots
        self.lookup = lookup
    }

    private func slot(_ chunk: ChunkID) -> Int? {
        lookup.find(chunk) { slots.id($0) == chunk }
    }
    subscript(chunk: ChunkID) -> ChunkState? { slot(chunk).flatMap { slots[$0] } }

    private mutating func add(_ chunk: ChunkID, of set: SetID) -> Int {
        let slot: Int
        if let known = free.popLast() {
            slot = Int(known)
            slots.use(slot, for: chunk, of: set)
        } else {
            slot = slots.count
            slots.append(chunk, of: set)
        }
        lookup.insert(chunk, slot)
        return slot
    }

    /// Changes a chunk in place, making it first where it is missing.
    mutating func change(
        _ chunk: ChunkID, of set: SetID, _ usage: inout StoreUsage, _ book: inout SegmentBook,
        _ body: (inout ChunkState, inout StoreUsage, inout SegmentBook) -> Void
    ) {
        let known = slot(chunk)
        if known == nil { usage.chunks += 1 }
        let slot = known ?? add(chunk, of: set)
        slots.change(slot, &usage, &book, body)
        if slots.open(slot) { noteOpen(slot) }
    }

    private mutating func noteOpen(_ slot: Int) {
        if open.count < openChunks { return open.append(UInt32(slot)) }
        slots.pack(Int(open[oldest]))
        open[oldest] = UInt32(slot)
        oldest = (oldest + 1) % openChunks
    }

    mutating func remove(
        _ chunk: ChunkID, _ usage: inout StoreUsage, _ book: inout SegmentBook
    ) {
        guard let slot = slot(chunk) else { return }
        slots.change(slot, &usage, &book) { $0.clear(&$1, &$2) }
        slots.free(slot)
        lookup.remove(chunk, slot)
        free.append(UInt32(slot))
        usage.chunks -= 1
    }
}
