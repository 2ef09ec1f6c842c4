// All chunks of a disk. A disk of small files has millions of them with one extent each: such a
// chunk takes about 40 bytes, a third of them where it is looked up (decision 0021).
//
//   ChunkLookup: chunk -> slot     ChunkSlots: slot -> chunk, in groups of 16, packed or open
//
// Invariant: groups that are open, and pages that were opened to be changed, are in their ring.

import Base

/// All chunks of a disk.
struct ChunkTable: Sendable {
    private(set) var slots = ChunkSlots()
    private var free: [UInt32] = []
    private var lookup = ChunkLookup()
    private var openGroups: Ring<Int>
    private var openPages: Ring<OpenPage>
    private struct OpenPage: Sendable {
        var slot: UInt32
        var page: UInt8
    }

    /// Bytes of memory that what is there needs, about; without what is open.
    var memory: Int { slots.memory + (slots.count - free.count) * Self.lookupBytes }
    /// Of one chunk where it is looked up: a cell in a table that is half to almost full.
    private static let lookupBytes = 14

    init(_ configuration: IndexConfiguration) {
        openGroups = Ring(configuration.openGroups)
        openPages = Ring(configuration.openPages)
    }
    /// Of packed slots, and the hashes of what is in them, 0 in a free one; nil if a chunk is in
    /// two of them.
    init?(_ slots: ChunkSlots, _ hashes: [UInt64], _ configuration: IndexConfiguration) {
        self.init(configuration)
        let areSame = { slots[$0]?.id == slots[$1]?.id }
        guard let lookup = ChunkLookup(hashes, areSame) else { return nil }
        self.slots = slots
        self.lookup = lookup
        for slot in hashes.indices where hashes[slot] == 0 { free.append(UInt32(slot)) }
    }

    private func slot(_ chunk: ChunkID) -> Int? {
        lookup.find(chunk) { slots[$0]?.id == chunk }
    }
    subscript(chunk: ChunkID) -> ChunkState? {
        // A packed one is unpacked once for the look and the answer.
        var found: ChunkState?
        let slot = lookup.find(chunk) { slot in
            found = slots[slot]
            return found?.id == chunk
        }
        return slot == nil ? nil : found
    }

    /// Puts a chunk into a free slot, or behind the last one.
    private mutating func add(_ chunk: ChunkID, of set: SetID) -> Int {
        let slot = free.popLast().map { Int($0) } ?? slots.count
        open(slot)
        slots.put(ChunkState(id: chunk, set: set), slot)
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
        open(slot)
        let opened = slots.change(slot) { state in
            let before = state.opened
            body(&state, &usage, &book)
            return state.opened & ~before
        }
        note(opened ?? 0, slot)
    }

    mutating func remove(
        _ chunk: ChunkID, _ usage: inout StoreUsage, _ book: inout SegmentBook
    ) {
        guard let slot = slot(chunk) else { return }
        open(slot)
        _ = slots.change(slot) { $0.clear(&usage, &book) }
        slots.put(nil, slot)
        lookup.remove(chunk, slot)
        free.append(UInt32(slot))
        usage.chunks -= 1
    }

    /// Opens a slot's group, and packs the one that was opened first where there are too many.
    private mutating func open(_ slot: Int) {
        let group = slot / ChunkGroup.size
        guard slots.open(group), let oldest = openGroups.add(group) else { return }
        slots.pack(oldest)
    }
    /// Pages of a chunk were opened: packs those that were opened first.
    private mutating func note(_ opened: UInt32, _ slot: Int) {
        var left = opened
        while left != 0 {
            let page = UInt8(left.trailingZeroBitCount)
            left &= left - 1
            guard let oldest = openPages.add(OpenPage(slot: UInt32(slot), page: page)) else {
                continue
            }
            // With its group it was packed already.
            guard slots.isOpen(Int(oldest.slot)) else { continue }
            _ = slots.change(Int(oldest.slot)) { $0.pack(Int(oldest.page)) }
        }
    }
}

/// So many things: the next one takes the place of the oldest.
private struct Ring<Element: Sendable>: Sendable {
    private var elements: [Element] = []
    private var oldest = 0
    private let bound: Int

    init(_ bound: Int) { self.bound = bound }

    /// Adds one; what had its place.
    mutating func add(_ element: Element) -> Element? {
        if elements.count < bound {
            elements.append(element)
            return nil
        }
        defer {
            elements[oldest] = element
            oldest = (oldest + 1) % bound
        }
        return elements[oldest]
    }
}
