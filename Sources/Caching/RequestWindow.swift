// The numbers of requests that must happen once: a session's changes (M12), and its writes to one
// replica set (C15).
// Invariants:
//  1. Numbers are given once, in ascending order, without gaps.
//  2. `first` is the oldest number without an answer; it never goes back.
//  3. Never more than `bound` numbers from `first` on, so the other side remembers all of them.

package import Base

/// Gives numbers and knows the oldest one without an answer.
package struct RequestWindow: Hashable, Sendable {
    private let bound: Int
    /// The oldest number without an answer; the next to be given if all have one.
    package private(set) var first = RequestNumber(rawValue: 1)
    /// For each number from `first` on that was given: whether it has its answer. A ring.
    private var answered: [Bool]
    private var head = 0
    private var count = 0

    /// At most `bound` numbers from the oldest unanswered one on.
    package init(bound: Int) {
        precondition(bound > 0, "a window without numbers")
        self.bound = bound
        answered = Array(repeating: false, count: bound)
    }
    /// Numbers that can be taken now.
    package var room: Int { bound - count }
    /// Whether every number given has its answer.
    package var isIdle: Bool { count == 0 }

    /// Gives `count` consecutive numbers and returns the first; nil if there is no room.
    package mutating func take(_ wanted: Int = 1) -> RequestNumber? {
        guard wanted <= room else { return nil }
        let number = RequestNumber(rawValue: first.rawValue + UInt64(count))
        for index in count..<count + wanted { answered[(head + index) % bound] = false }
        count += wanted
        return number
    }
    /// Notes that a number given has its answer, or that nobody waits for one any more.
    package mutating func finish(_ number: RequestNumber) {
        precondition(number >= first, "a number that was answered before")
        let index = Int(number.rawValue - first.rawValue)
        precondition(index < count, "a number that was never given")
        precondition(!answered[(head + index) % bound], "a number answered twice")
        answered[(head + index) % bound] = true
        while count > 0, answered[head] {
            head = (head + 1) % bound
            count -= 1
            first = first.next
        }
    }
}
