// The names of a directory by their cookies, packed: a leaf has up to 64 names one after the other
// and 16 bytes beside each, so a name of 20 bytes costs 36 and not 88. As in `OrderedTable`, a
// copy shares every leaf until one side changes it.
//
// Invariants:
//  1. Cookies ascend strictly, within a leaf and from leaf to leaf. A leaf's cookies are counted
//     from `base`, which is not above any of them and above all of the leaves before.
//  2. No leaf is empty or above `leafCapacity`, so its names are below 64 KiB.

import Base

private let leafCapacity = 64

struct DentryTable: Sequence, Sendable {
    private struct Packed: Sendable {
        var inode: InodeID
        /// The cookie is the leaf's base and this.
        var offset: UInt32
        /// Where the name ends in the leaf's names.
        var end: UInt16
    }
    private struct Leaf: Sendable {
        var base: UInt64
        var entries: [Packed] = []
        var names: [UInt8] = []

        func nameRange(_ index: Int) -> Range<Int> {
            (index == 0 ? 0 : Int(entries[index - 1].end))..<Int(entries[index].end)
        }
        func entry(_ index: Int) -> Dentry {
            Dentry(
                cookie: base + UInt64(entries[index].offset), inode: entries[index].inode,
                name: Array(names[nameRange(index)]))
        }
        /// The first entry whose cookie is not below.
        func lowerBound(_ cookie: UInt64) -> Int {
            // Where no name was removed, the cookie says where it is.
            let guess = cookie &- base
            if guess < entries.count, entries[Int(guess)].offset == guess { return Int(guess) }
            var low = 0
            var high = entries.count
            while low < high {
                let middle = (low + high) / 2
                if base + UInt64(entries[middle].offset) < cookie {
                    low = middle + 1
                } else {
                    high = middle
                }
            }
            return low
        }
        mutating func append(_ cookie: UInt64, _ inode: InodeID, _ name: some Collection<UInt8>) {
            names.append(contentsOf: name)
            entries.append(
                Packed(inode: inode, offset: UInt32(cookie - base), end: UInt16(names.count)))
        }
        mutating func remove(_ index: Int) {
            let range = nameRange(index)
            names.removeSubrange(range)
            entries.remove(at: index)
            for later in index..<entries.count { entries[later].end -= UInt16(range.count) }
        }
    }
    private var leaves: [Leaf] = []
    private(set) var count = 0

    /// The leaf that has the cookie, if any has; the first one for cookies before all.
    private func leafIndex(_ cookie: UInt64) -> Int {
        // Where no name was removed, leaves are full.
        if let first = leaves.first, cookie >= first.base {
            let guess = Int((cookie - first.base) / UInt64(leafCapacity))
            let next = guess + 1
            if guess < leaves.count, leaves[guess].base <= cookie,
                next == leaves.count || leaves[next].base > cookie
            {
                return guess
            }
        }
        var low = 0
        var high = leaves.count
        while low < high {
            let middle = (low + high) / 2
            if leaves[middle].base <= cookie { low = middle + 1 } else { high = middle }
        }
        return Swift.max(0, low - 1)
    }

    /// The place of the first cookie that is not below.
    private func place(_ cookie: UInt64) -> TableCursor {
        guard !leaves.isEmpty else { return TableCursor() }
        let leaf = leafIndex(cookie)
        let index = leaves[leaf].lowerBound(cookie)
        return index < leaves[leaf].entries.count
            ? TableCursor(leaf: leaf, index: index) : TableCursor(leaf: leaf + 1)
    }

    /// The place of this cookie.
    private func exactPlace(_ cookie: UInt64) -> TableCursor? {
        let found = place(cookie)
        guard found.leaf < leaves.count,
            leaves[found.leaf].base + UInt64(leaves[found.leaf].entries[found.index].offset)
                == cookie
        else { return nil }
        return found
    }

    private var lastCookie: UInt64? {
        leaves.last.map { $0.base + UInt64($0.entries[$0.entries.count - 1].offset) }
    }

    /// The inode that the cookie's name leads to, if it has this name.
    func inode(_ cookie: UInt64, named name: [UInt8]) -> InodeID? {
        guard let place = exactPlace(cookie) else { return nil }
        let range = leaves[place.leaf].nameRange(place.index)
        guard range.count == name.count, leaves[place.leaf].names[range].elementsEqual(name)
        else { return nil }
        return leaves[place.leaf].entries[place.index].inode
    }

    /// Adds a name whose cookie is above all others; false if it is not.
    mutating func append(_ cookie: UInt64, _ inode: InodeID, _ name: [UInt8]) -> Bool {
        if let lastCookie, cookie <= lastCookie { return false }
        count += 1
        if let last = leaves.indices.last, leaves[last].entries.count < leafCapacity,
            cookie - leaves[last].base <= UInt64(UInt32.max)
        {
            leaves[last].append(cookie, inode, name)
            return true
        }
        if let last = leaves.indices.last {
            // It gets no more names: without room to grow.
            leaves[last].names = leaves[last].names.map { $0 }
        }
        var leaf = Leaf(base: cookie)
        leaf.append(cookie, inode, name)
        leaves.append(leaf)
        return true
    }

    /// Takes out the name of a cookie that is there.
    mutating func remove(_ cookie: UInt64) {
        guard let (leaf, index) = exactPlace(cookie).map({ ($0.leaf, $0.index) }) else {
            preconditionFailure("a name is removed once")
        }
        leaves[leaf].remove(index)
        count -= 1
        if leaves[leaf].entries.isEmpty {
            leaves.remove(at: leaf)
        } else if leaf + 1 < leaves.count {
            joinNext(leaf)
        }
    }

    /// Puts the names of two leaves that are nearly empty into one.
    private mutating func joinNext(_ leaf: Int) {
        let next = leaves[leaf + 1]
        let end = next.base + UInt64(next.entries[next.entries.count - 1].offset)
        guard leaves[leaf].entries.count + next.entries.count <= leafCapacity / 2,
            end - leaves[leaf].base <= UInt64(UInt32.max)
        else { return }
        for index in next.entries.indices {
            leaves[leaf].append(
                next.base + UInt64(next.entries[index].offset), next.entries[index].inode,
                next.names[next.nameRange(index)])
        }
        leaves.remove(at: leaf + 1)
    }

    /// The name of a cookie that is there leads to another inode.
    mutating func replace(_ cookie: UInt64, with inode: InodeID) {
        guard let place = exactPlace(cookie) else {
            preconditionFailure("a name that is replaced is there")
        }
        leaves[place.leaf].entries[place.index].inode = inode
    }

    /// The entry at a place that a walk came to, which moves on; nil at the end.
    func next(_ cursor: inout TableCursor) -> Dentry? {
        guard cursor.leaf < leaves.count else { return nil }
        defer {
            cursor.index += 1
            if cursor.index == leaves[cursor.leaf].entries.count {
                cursor = TableCursor(leaf: cursor.leaf + 1)
            }
        }
        return leaves[cursor.leaf].entry(cursor.index)
    }

    /// The entries from a cookie on, in order.
    struct Elements: Sequence, IteratorProtocol {
        fileprivate let table: DentryTable
        fileprivate var cursor: TableCursor

        mutating func next() -> Dentry? { table.next(&cursor) }
    }
    func elements(from cookie: UInt64) -> Elements { Elements(table: self, cursor: place(cookie)) }
    func makeIterator() -> Elements { elements(from: 0) }
}
