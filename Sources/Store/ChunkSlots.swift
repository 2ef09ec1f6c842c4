// The slots of a disk's chunks, in groups of 16.
//
// Invariants:
//  1. The order of the slots is that of their making.
//  2. No change moves more than one segment's groups.
//  3. All groups but the last one are full; a slot without a chunk is free.

import Base

/// See the head of this file.
struct ChunkSlots: Sendable {
    private enum Group: Sendable {
        /// Its memory is counted as it was before.
        case open([ChunkState?], memory: Int)
        case packed(ChunkGroup)
    }
    /// Groups that are copied together when one of them changes while a checkpoint is written.
    private static let segment = 64
    private var segments: [[Group]] = []
    /// All slots.
    private(set) var count = 0
    /// Bytes of memory that the groups take, packed.
    private(set) var memory = 0

    /// How many groups there are.
    var groups: Int { (count + ChunkGroup.size - 1) / ChunkGroup.size }

    private subscript(group number: Int) -> Group {
        get { segments[number / Self.segment][number % Self.segment] }
        set { segments[number / Self.segment][number % Self.segment] = newValue }
    }

    /// What is in the slots of a group, from its first; nil: free.
    func chunks(ofGroup number: Int) -> [ChunkState?] {
        switch self[group: number] {
        case .open(let chunks, _): chunks
        case .packed(let group): group.chunks
        }
    }
    /// A group as it is, or as it would be, packed.
    func packed(_ number: Int) -> ChunkGroup {
        switch self[group: number] {
        case .open(let chunks, _): ChunkGroup(chunks)
        case .packed(let group): group
        }
    }
    /// Calls `body` with each chunk of a set, in the order of the slots.
    func visit(_ set: SetID, _ body: (ChunkState) -> Void) {
        for number in 0..<groups {
            if case .packed(let group) = self[group: number], !group.mayHave(set) { continue }
            for case let chunk? in chunks(ofGroup: number) where chunk.set == set { body(chunk) }
        }
    }

    /// The names of a set's chunks, in the order of the slots.
    func ids(of set: SetID) -> [ChunkID] {
        var found: [ChunkID] = []
        visit(set) { found.append($0.id) }
        return found
    }
    /// Calls `body` with chunks from a slot on, until nothing is left of `left`, of which each slot
    /// takes one, and `body` more; true at the end.
    func visit(
        from slot: inout Int, _ left: inout Int, _ body: (ChunkState, inout Int) -> Void
    ) -> Bool {
        while slot < count {
            let (group, place) = slot.quotientAndRemainder(dividingBy: ChunkGroup.size)
            for chunk in chunks(ofGroup: group)[place...] {
                if left <= 0 { return false }
                left -= 1
                slot += 1
                if let chunk { body(chunk, &left) }
            }
        }
        return true
    }

    subscript(slot: Int) -> ChunkState? {
        switch self[group: slot / ChunkGroup.size] {
        case .open(let chunks, _): chunks[slot % ChunkGroup.size]
        case .packed(let group): group.chunk(slot % ChunkGroup.size)
        }
    }

    /// Whether a chunk's group is open.
    func isOpen(_ slot: Int) -> Bool {
        if case .open = self[group: slot / ChunkGroup.size] { true } else { false }
    }
    /// Changes a chunk of an open group in place; returns what `body` does.
    mutating func change<Result>(
        _ slot: Int, _ body: (inout ChunkState) -> Result
    ) -> Result? {
        change(group: slot) { chunks, place in
            guard var chunk = chunks[place] else { return nil }
            // Nothing else holds it meanwhile.
            chunks[place] = nil
            defer { chunks[place] = chunk }
            return body(&chunk)
        }
    }
    /// Puts a chunk, or none, into a slot of an open group, or behind its last.
    mutating func put(_ chunk: ChunkState?, _ slot: Int) {
        let isNew = slot == count
        if isNew { count += 1 }
        change(group: slot) { chunks, place in
            if isNew { chunks.append(chunk) } else { chunks[place] = chunk }
        }
    }
    private mutating func change<Result>(
        group slot: Int, _ body: (inout [ChunkState?], Int) -> Result
    ) -> Result {
        let number = slot / ChunkGroup.size
        guard case .open(var chunks, let memory) = self[group: number] else {
            preconditionFailure("a packed group is not changed")
        }
        self[group: number] = .open([], memory: 0)
        defer { self[group: number] = .open(chunks, memory: memory) }
        return body(&chunks, slot % ChunkGroup.size)
    }

    /// Adds a packed group; false if the last one is not full.
    mutating func append(_ group: ChunkGroup) -> Bool {
        guard count % ChunkGroup.size == 0 else { return false }
        memory += group.memory
        count += group.count
        append(Group.packed(group))
        return true
    }
    private mutating func append(_ group: Group) {
        if segments.last.map({ $0.count == Self.segment }) ?? true { segments.append([]) }
        segments[segments.count - 1].append(group)
    }

    /// Opens a group, or makes it, behind the last; false if it is open.
    mutating func open(_ number: Int) -> Bool {
        if number == groups {
            append(Group.open([], memory: 0))
            return true
        }
        guard case .packed(let group) = self[group: number] else { return false }
        self[group: number] = .open(group.chunks, memory: group.memory)
        return true
    }
    /// Packs an open group.
    mutating func pack(_ number: Int) {
        guard case .open(let chunks, let before) = self[group: number] else { return }
        let group = ChunkGroup(chunks)
        memory += group.memory - before
        self[group: number] = .packed(group)
    }
}
