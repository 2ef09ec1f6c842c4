// A queue.
// Invariant: an element is moved at most once for each one that was removed.

/// First in, first out, with access by position; removing from the front is cheap.
package struct Fifo<Element> {
    private var items: [Element] = []
    private var head = 0

    /// An empty queue.
    package init() {}

    /// How many elements wait.
    package var count: Int { items.count - head }
    /// Whether none waits.
    package var isEmpty: Bool { head == items.count }
    /// The oldest.
    package var first: Element? { isEmpty ? nil : items[head] }

    /// The element at a position, 0 for the oldest.
    package subscript(position: Int) -> Element {
        get { items[head + position] }
        _modify { yield &items[head + position] }
    }
    /// Adds the newest.
    package mutating func append(_ element: Element) { items.append(element) }
    /// Takes the newest away.
    package mutating func removeLast() {
        precondition(!isEmpty, "an empty queue")
        items.removeLast()
    }
    /// Takes the oldest away.
    package mutating func removeFirst() -> Element {
        let element = items[head]
        head += 1
        if head >= 64, head * 2 >= items.count {
            items.removeFirst(head)
            head = 0
        }
        return element
    }
}

extension Fifo: Sendable where Element: Sendable {}

extension Fifo: Equatable where Element: Equatable {
    package static func == (left: Self, right: Self) -> Bool {
        left.items[left.head...] == right.items[right.head...]
    }
}
extension Fifo: Hashable where Element: Hashable {
    package func hash(into hasher: inout Hasher) { hasher.combine(items[head...]) }
}
