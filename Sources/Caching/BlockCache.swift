// Blocks that were read, kept for the next read of them, in the memory they may use.
// Invariants:
//  1. The bytes held, with a fixed share for each entry, never exceed the bound.
//  2. A block comes back only under the tag it was put in with: whoever opens a file that was
//     changed since has another tag (close-to-open).
//  3. When room is needed, the block that was not used for the longest time goes first.

package import Base

/// The state of a file in which its blocks were read.
package struct CacheTag: Hashable, Sendable {
    package var truncation: UInt32
    package var size: UInt64
    package var modified: Timestamp
    package var changed: Timestamp

    /// The tag of a file as the masters describe it.
    package init(truncation: UInt32, attributes: Attributes) {
        self.truncation = truncation
        size = attributes.size
        modified = attributes.modified
        changed = attributes.changed
    }
}

/// Least recently used blocks leave first.
package struct BlockCache: Sendable {
    /// What an entry costs beside its bytes.
    package static let overhead = 192

    private struct Key: Hashable, Sendable {
        let inode: InodeID
        let block: FileBlock
    }
    /// A place in `slots`; entries form a ring from the newest to the oldest through slot 0.
    private struct Slot: Sendable {
        var key: Key
        var tag: CacheTag
        var content: [UInt8]
        var newer: Int
        var older: Int
    }

    private let bound: Int
    /// Bytes held, overhead included.
    package private(set) var used = 0
    private var places: [Key: Int] = [:]
    private var slots: [Slot]
    private var free: [Int] = []

    /// Holds at most `bound` bytes; 0 keeps nothing.
    package init(bound: Int) {
        self.bound = bound
        let nowhere = Key(inode: InodeID(rawValue: 0), block: FileBlock(rawValue: 0))
        let attributes = Attributes(inode: InodeID(rawValue: 0), kind: .file, mode: 0)
        let tag = CacheTag(truncation: 0, attributes: attributes)
        slots = [Slot(key: nowhere, tag: tag, content: [], newer: 0, older: 0)]
    }

    /// How many blocks it has.
    package var count: Int { places.count }

    /// The content of a block from its start; bytes beyond its end are zeros. Counts as a use.
    package mutating func find(
        _ inode: InodeID, _ block: FileBlock, tag: CacheTag
    ) -> [UInt8]? {
        guard let place = places[Key(inode: inode, block: block)] else { return nil }
        guard slots[place].tag == tag else {
            remove(inode, block)
            return nil
        }
        unlink(place)
        linkNewest(place)
        return slots[place].content
    }

    /// Whether `find` would give it; no use of it.
    package func has(_ inode: InodeID, _ block: FileBlock, tag: CacheTag) -> Bool {
        places[Key(inode: inode, block: block)].map { slots[$0].tag == tag } ?? false
    }

    /// Keeps a block, in place of what it had of it.
    package mutating func insert(
        _ inode: InodeID, _ block: FileBlock, tag: CacheTag, content: [UInt8]
    ) {
        remove(inode, block)
        let cost = content.count + Self.overhead
        guard cost <= bound else { return }
        while used + cost > bound {
            let oldest = slots[slots[0].newer].key
            remove(oldest.inode, oldest.block)
        }
        let key = Key(inode: inode, block: block)
        let slot = Slot(key: key, tag: tag, content: content, newer: 0, older: 0)
        let place: Int
        if let reused = free.popLast() {
            place = reused
            slots[place] = slot
        } else {
            place = slots.count
            slots.append(slot)
        }
        places[key] = place
        used += cost
        linkNewest(place)
    }

    /// Forgets a block, because it is written to.
    package mutating func remove(_ inode: InodeID, _ block: FileBlock) {
        guard let place = places.removeValue(forKey: Key(inode: inode, block: block)) else {
            return
        }
        used -= slots[place].content.count + Self.overhead
        slots[place].content = []
        unlink(place)
        free.append(place)
    }

    // Slot 0 stands between the newest (its `older`) and the oldest (its `newer`).
    private mutating func linkNewest(_ place: Int) {
        let second = slots[0].older
        slots[place].newer = 0
        slots[place].older = second
        slots[second].newer = place
        slots[0].older = place
    }
    private mutating func unlink(_ place: Int) {
        let (newer, older) = (slots[place].newer, slots[place].older)
        slots[newer].older = older
        slots[older].newer = newer
    }
}
