// What is going to happen, in the order of virtual time; what happens at the same time happens in
// the order in which it was planned, so a seed replays bit for bit.

import Base

/// A binary heap of planned events.
struct EventQueue<Event> {
    private struct Entry {
        var time: Instant
        var sequence: UInt64
        var event: Event
        func isBefore(_ other: Entry) -> Bool {
            (time, sequence) < (other.time, other.sequence)
        }
    }
    private var heap: [Entry] = []
    private var planned: UInt64 = 0

    /// When the next event happens.
    var nextTime: Instant? { heap.first?.time }

    /// Plans an event.
    mutating func plan(_ event: Event, at time: Instant) {
        planned += 1
        heap.append(Entry(time: time, sequence: planned, event: event))
        var child = heap.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard heap[child].isBefore(heap[parent]) else { break }
            heap.swapAt(child, parent)
            child = parent
        }
    }

    /// Takes the next event.
    mutating func next() -> (time: Instant, event: Event)? {
        guard let first = heap.first else { return nil }
        let last = heap.removeLast()
        guard !heap.isEmpty else { return (first.time, first.event) }
        heap[0] = last
        var parent = 0
        while true {
            var child = 2 * parent + 1
            guard child < heap.count else { break }
            if child + 1 < heap.count, heap[child + 1].isBefore(heap[child]) { child += 1 }
            guard heap[child].isBefore(heap[parent]) else { break }
            heap.swapAt(child, parent)
            parent = child
        }
        return (first.time, first.event)
    }
}
