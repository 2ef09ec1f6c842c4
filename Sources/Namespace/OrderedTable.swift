// A sorted table: an array of sorted leaves. Small, ordered, and cheap to copy: a copy shares
// every leaf until one side changes it, which is what a snapshot needs (DESIGN 3.3).
//
// Invariants:
//  1. Keys ascend strictly, within a leaf and from leaf to leaf; `first` is above all keys of the
//     leaves before and not above any key of its own.
//  2. No leaf is empty or above `leafCapacity`.

/// An element of an `OrderedTable`.
protocol Keyed {
    associatedtype Key: Comparable & Sendable
    /// Its place in the order; one element for each key.
    var key: Key { get }
}

private let leafCapacity = 64

/// A place in a table that nobody changes meanwhile.
struct TableCursor: Sendable {
    var leaf = 0
    var index = 0
}

struct OrderedTable<Element: Keyed & Sendable>: Sequence, Sendable {
    fileprivate struct Leaf: Sendable {
        /// Beside the elements, so that finding a leaf touches one array only.
        var first: Element.Key
        var elements: [Element]

        func lowerBound(_ key: Element.Key) -> Int {
            var low = 0
            var high = elements.count
            while low < high {
                let middle = (low + high) / 2
                if elements[middle].key < key { low = middle + 1 } else { high = middle }
            }
            return low
        }
    }
    private var leaves: [Leaf] = []
    private(set) var count = 0

    var isEmpty: Bool { count == 0 }

    /// The leaf that has the key, if any has; the first one for keys before all.
    private func leafIndex(_ key: Element.Key) -> Int {
        var low = 0
        var high = leaves.count
        while low < high {
            let middle = (low + high) / 2
            if leaves[middle].first <= key { low = middle + 1 } else { high = middle }
        }
        return Swift.max(0, low - 1)
    }

    private func place(_ key: Element.Key) -> (leaf: Int, index: Int)? {
        let found = cursor(from: key)
        guard found.leaf < leaves.count,
            leaves[found.leaf].elements[found.index].key == key
        else { return nil }
        return (found.leaf, found.index)
    }

    /// The element with the key.
    subscript(key: Element.Key) -> Element? {
        guard let place = place(key) else { return nil }
        return leaves[place.leaf].elements[place.index]
    }

    func contains(_ key: Element.Key) -> Bool { place(key) != nil }

    /// Adds the element, or puts it in the place of the one with its key.
    mutating func insert(_ element: Element) {
        let key = element.key
        guard !leaves.isEmpty else {
            leaves.append(Leaf(first: key, elements: [element]))
            count = 1
            return
        }
        var leaf = leafIndex(key)
        var index = leaves[leaf].lowerBound(key)
        if index < leaves[leaf].elements.count, leaves[leaf].elements[index].key == key {
            leaves[leaf].elements[index] = element
            return
        }
        count += 1
        if leaves[leaf].elements.count == leafCapacity {
            if leaf == leaves.count - 1, index == leafCapacity {
                // Ascending keys fill their leaves.
                leaves.append(Leaf(first: key, elements: [element]))
                return
            }
            split(leaf)
            if index > leafCapacity / 2 {
                leaf += 1
                index -= leafCapacity / 2
            }
        }
        leaves[leaf].elements.insert(element, at: index)
        if index == 0 { leaves[leaf].first = key }
    }

    private mutating func split(_ leaf: Int) {
        let upper = Array(leaves[leaf].elements[(leafCapacity / 2)...])
        leaves[leaf].elements = Array(leaves[leaf].elements[..<(leafCapacity / 2)])
        leaves.insert(Leaf(first: upper[0].key, elements: upper), at: leaf + 1)
    }

    /// Takes the element with the key out.
    @discardableResult mutating func remove(_ key: Element.Key) -> Element? {
        guard let (leaf, index) = place(key) else { return nil }
        let removed = leaves[leaf].elements.remove(at: index)
        count -= 1
        if leaves[leaf].elements.isEmpty {
            leaves.remove(at: leaf)
        } else {
            let next = leaf + 1
            if next < leaves.count,
                leaves[leaf].elements.count + leaves[next].elements.count <= leafCapacity / 2
            {
                leaves[leaf].elements += leaves[next].elements
                leaves.remove(at: next)
            }
        }
        return removed
    }

    /// Changes the element with the key in place, but not its key; nil if there is none.
    @discardableResult mutating func update<Result>(
        _ key: Element.Key, _ change: (inout Element) -> Result
    ) -> Result? {
        guard let (leaf, index) = place(key) else { return nil }
        return change(&leaves[leaf].elements[index])
    }

    var last: Element? { leaves.last?.elements.last }

    /// The elements from a key on, in order.
    struct Elements: Sequence, IteratorProtocol {
        fileprivate let table: OrderedTable
        fileprivate var cursor: TableCursor

        mutating func next() -> Element? { table.next(&cursor) }
    }

    /// The element at a place that a walk came to, which moves on; nil at the end.
    func next(_ cursor: inout TableCursor) -> Element? {
        guard cursor.leaf < leaves.count else { return nil }
        defer {
            cursor.index += 1
            if cursor.index == leaves[cursor.leaf].elements.count {
                cursor = TableCursor(leaf: cursor.leaf + 1)
            }
        }
        return leaves[cursor.leaf].elements[cursor.index]
    }

    /// Adds an element whose key is above all others; false if it is not.
    mutating func append(_ element: Element) -> Bool {
        if let last, element.key <= last.key { return false }
        insert(element)
        return true
    }

    /// The place of the first element whose key is not below.
    func cursor(from key: Element.Key) -> TableCursor {
        guard !leaves.isEmpty else { return TableCursor() }
        let leaf = leafIndex(key)
        let index = leaves[leaf].lowerBound(key)
        return index < leaves[leaf].elements.count
            ? TableCursor(leaf: leaf, index: index) : TableCursor(leaf: leaf + 1)
    }

    func makeIterator() -> Elements { Elements(table: self, cursor: TableCursor()) }

    func elements(from key: Element.Key) -> Elements {
        Elements(table: self, cursor: cursor(from: key))
    }
}
