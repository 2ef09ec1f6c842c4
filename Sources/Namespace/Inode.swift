// The table of inodes. What few inodes have (extended attributes, targets, chunks after the
// first, cuts) is in side tables of the namespace.
//
// Invariants:
//  1. A slot's generation rises each time its inode is freed; at the last generation the slot is
//     given up. So an inode id is never reissued (S8).
//  2. Free slots are a list through their own records, last freed first: part of the state.

import Base

/// One inode: 72 bytes.
struct InodeRecord: Sendable {
    var generation: UInt32
    /// Nil: the slot is free, and `size` is the next free slot (0: none).
    var kind: FileKind?
    var mode: UInt16 = 0
    var links: UInt32 = 0
    var user: UInt32 = 0
    var group: UInt32 = 0
    /// Of a device its number, of a file its first chunk's version, of a directory its place in
    /// the table of directories.
    var auxiliary: UInt32 = 0
    /// Of a file its bytes, of a symlink the target's, of a directory its names.
    var size: UInt64 = 0
    var accessed = Timestamp.zero
    var modified = Timestamp.zero
    var changed = Timestamp.zero
    /// Of a file the set of its first chunk (0: no place), of a directory its parent's id.
    var place: UInt64 = 0
    /// How many truncations shortened the file.
    var truncation: UInt32 = 0
}

extension InodeRecord {
    /// The set of a file's first chunk.
    var firstSet: SetID? { kind == .file && place != 0 ? SetID(rawValue: place) : nil }
}

struct InodeTable: Sendable {
    private var records = Slab<InodeRecord>()
    /// The slot that the next inode gets; 0: a new one.
    private(set) var firstFree: UInt64 = 0
    /// No inode gets a lower generation: those that a loaded state knows nothing of had them.
    var leastGeneration: UInt32 = 0
    /// Inodes in use.
    private(set) var count: UInt64 = 0

    /// Slot 0 stays empty: 0 means none.
    init() { records.append(InodeRecord(generation: 0)) }

    /// Slots that were ever used, from 1 to here.
    var lastSlot: Int { records.count - 1 }

    /// The slot of an inode that is there.
    func find(_ inode: InodeID) -> Int? {
        guard inode.slot < UInt64(records.count) else { return nil }
        let slot = Int(inode.slot)
        guard records[slot].kind != nil, records[slot].generation == inode.generation else {
            return nil
        }
        return slot
    }

    subscript(slot: Int) -> InodeRecord {
        get { records[slot] }
        _modify { yield &records[slot] }
    }

    /// The id of the inode in a slot.
    func id(_ slot: Int) -> InodeID {
        InodeID(slot: UInt64(slot), generation: records[slot].generation)
    }

    /// Adds an inode, whose generation is set here.
    mutating func add(_ record: InodeRecord) -> Int {
        precondition(record.kind != nil, "an inode has a kind")
        count += 1
        guard firstFree != 0 else {
            records.append(record)
            records[records.count - 1].generation = leastGeneration
            return records.count - 1
        }
        let slot = Int(firstFree)
        let generation = max(records[slot].generation, leastGeneration)
        firstFree = records[slot].size
        records[slot] = record
        records[slot].generation = generation
        return slot
    }

    /// Puts a record of a snapshot into the next slot.
    mutating func restore(_ record: InodeRecord) {
        records.append(record)
        if record.kind != nil { count += 1 }
    }
    /// Takes the list of free slots as a snapshot has it; false if it is none.
    mutating func restore(firstFree: UInt64) -> Bool {
        self.firstFree = firstFree
        var left = UInt64(lastSlot) - count
        var slot = firstFree
        while slot != 0 {
            guard left > 0, slot < UInt64(records.count), records[Int(slot)].kind == nil else {
                return false
            }
            left -= 1
            slot = records[Int(slot)].size
        }
        return true
    }

    mutating func free(_ slot: Int) {
        let generation = records[slot].generation
        precondition(records[slot].kind != nil, "an inode is freed once")
        count -= 1
        guard generation < 1 << 24 - 1 else {
            records[slot] = InodeRecord(generation: generation)
            return
        }
        records[slot] = InodeRecord(generation: generation + 1)
        records[slot].size = firstFree
        firstFree = UInt64(slot)
    }
}
