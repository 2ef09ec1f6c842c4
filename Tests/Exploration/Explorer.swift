// Small-scope exhaustive exploration: every state that a model can reach, breadth first, so that
// the trace to the first broken invariant is a shortest one.
//
// A state that was seen is remembered by a digest of 128 bits. Two of ten million states share one
// with a probability of 10^-25; then one of them would not be explored.
//
// Invariants:
//  1. A state is expanded once; what is found depends on nothing but the model.

import Base

/// What can be explored.
package protocol Explorable {
    associatedtype State
    associatedtype Action

    /// Where it begins.
    mutating func start() -> State
    /// Equal states have equal digests, and others different ones.
    func digest(of state: State) -> UInt128
    /// Which invariant the state breaks, if any.
    func fault(of state: State) -> String?
    /// Everything that can happen next. A fault is one of the step itself.
    mutating func expand(_ state: State, _ found: (Action, State, String?) -> Void)
    /// An action as a reader sees it.
    func describe(_ action: Action) -> String
    /// How much it met, for a reader.
    var size: String { get }
}

/// What an exploration found.
package struct Findings: Sendable {
    /// Different states that were seen.
    package var states = 0
    package var transitions = 0
    /// Actions from the start to the last state.
    package var depth = 0
    /// Every state that can be reached was seen.
    package var isComplete = false
    /// The broken invariant.
    package var fault: String?
    /// The actions that lead there.
    package var trace: [String] = []

    /// One line, and the trace below it.
    package var text: String {
        let size = "\(states) states, \(transitions) transitions, depth \(depth)"
        guard let fault else { return (isComplete ? "complete: " : "not complete: ") + size }
        let steps = trace.enumerated().map { "  \($0.offset + 1). \($0.element)\n" }.joined()
        return "broken in \(trace.count) steps after \(states) states: \(fault)\n\(steps)"
    }
}

/// See the head of this file.
package struct Explorer<Model: Explorable> {
    package private(set) var model: Model
    private var seen = DigestSet()
    /// By state, in the order in which they were found: where it came from.
    private var parents: [UInt32] = []
    private var actions: [Model.Action] = []

    /// Explores nothing yet.
    package init(_ model: Model) { self.model = model }

    /// Explores until everything was seen, an invariant broke, or `limit` states were seen.
    package mutating func run(
        limit: Int = .max, level: (Findings) -> Void = { _ in }
    ) -> Findings {
        var findings = Findings()
        let first = model.start()
        findings.fault = model.fault(of: first)
        _ = seen.insert(model.digest(of: first))
        findings.states = 1
        var frontier = [first]
        // State `base + i` is `frontier[i]`; the start is state 0.
        var base = 0
        while !frontier.isEmpty, findings.fault == nil {
            var next: [Model.State] = []
            for (position, state) in frontier.enumerated() {
                if findings.fault != nil || findings.states >= limit { break }
                visit(state, base + position, &next, &findings)
            }
            level(findings)
            if findings.states >= limit { return findings }
            base += frontier.count
            if !next.isEmpty { findings.depth += 1 }
            frontier = next
        }
        findings.isComplete = findings.fault == nil
        return findings
    }

    private mutating func visit(
        _ state: Model.State, _ number: Int, _ next: inout [Model.State],
        _ findings: inout Findings
    ) {
        var found: [(Model.Action, Model.State, String?)] = []
        model.expand(state) { found.append(($0, $1, $2)) }
        for (action, successor, fault) in found where findings.fault == nil {
            findings.transitions += 1
            let isNew = seen.insert(model.digest(of: successor))
            guard isNew || fault != nil else { continue }
            findings.states += isNew ? 1 : 0
            parents.append(UInt32(number))
            actions.append(action)
            next.append(successor)
            findings.fault = fault ?? model.fault(of: successor)
            if findings.fault != nil { findings.trace = trace(to: parents.count) }
        }
    }

    private func trace(to last: Int) -> [String] {
        var steps: [String] = []
        var number = last
        while number > 0 {
            steps.append(model.describe(actions[number - 1]))
            number = Int(parents[number - 1])
        }
        return steps.reversed()
    }
}

/// Digests, in one table with open addressing. Zero marks a free place.
struct DigestSet {
    private var places: [UInt128] = Array(repeating: 0, count: 1 << 16)
    private var count = 0

    /// False if it was there.
    mutating func insert(_ digest: UInt128) -> Bool {
        if count * 3 > places.count * 2 { grow() }
        let place = place(of: max(digest, 1), in: places)
        guard places[place] == 0 else { return false }
        places[place] = max(digest, 1)
        count += 1
        return true
    }
    private func place(of digest: UInt128, in places: [UInt128]) -> Int {
        var place = Int(truncatingIfNeeded: digest >> 64) & (places.count - 1)
        while places[place] != 0, places[place] != digest {
            place = (place + 1) & (places.count - 1)
        }
        return place
    }
    private mutating func grow() {
        var larger: [UInt128] = Array(repeating: 0, count: places.count * 2)
        for digest in places where digest != 0 { larger[place(of: digest, in: larger)] = digest }
        places = larger
    }
}
