// The explorer itself, and every state of a replica set in several small scopes.

import Base
import Exploration
import Testing

/// Two jugs of 3 and 5 litres; the fault is to have 4 litres.
private struct Jugs: Explorable {
    let wanted: Int?

    func start() -> [Int] { [0, 0] }
    func digest(of state: [Int]) -> UInt128 { UInt128(state[0] * 10 + state[1] + 1) }
    func fault(of state: [Int]) -> String? {
        wanted.map(state.contains) == true ? "measured" : nil
    }
    func describe(_ action: String) -> String { action }

    func expand(_ state: [Int], _ found: (String, [Int], String?) -> Void) {
        let sizes = [3, 5]
        for jug in 0..<2 {
            let other = 1 - jug
            var next = state
            next[jug] = sizes[jug]
            found("fill \(sizes[jug])", next, nil)
            next[jug] = 0
            found("empty \(sizes[jug])", next, nil)
            let moved = min(state[jug], sizes[other] - state[other])
            next[jug] = state[jug] - moved
            next[other] += moved
            found("pour \(sizes[jug])", next, nil)
        }
    }
}

@Suite struct ExplorerTests {
    @Test("Every state is seen once, whatever leads there")
    func complete() {
        var explorer = Explorer(Jugs(wanted: nil))
        let findings = explorer.run()
        #expect(findings.isComplete && findings.fault == nil)
        #expect(findings.states == 16 && findings.transitions == 16 * 6)
    }

    @Test("A broken invariant comes with a shortest trace")
    func trace() {
        var explorer = Explorer(Jugs(wanted: 4))
        let findings = explorer.run()
        #expect(findings.fault == "measured" && !findings.isComplete)
        #expect(
            findings.trace == ["fill 5", "pour 5", "empty 3", "pour 5", "fill 5", "pour 5"])
    }

    @Test("A limit ends it, and it says so")
    func limit() {
        var explorer = Explorer(Jugs(wanted: nil))
        let findings = explorer.run(limit: 5)
        #expect(!findings.isComplete && findings.fault == nil)
    }
}

@Suite(.serialized) struct ReplicaScopeTests {
    /// Every state of the scope, or as many as the limit allows; prints how many there were.
    private func explore(
        _ name: String, atLeast floor: Int, limit: Int = .max, _ adjust: (inout Scope) -> Void
    ) {
        var scope = Scope()
        adjust(&scope)
        var explorer = Explorer(ReplicaModel(scope))
        let findings = explorer.run(limit: limit)
        print("explored \(name): \(findings.text); \(explorer.model.size)")
        #expect(findings.fault == nil, "\(findings.text)")
        #expect(findings.isComplete || limit < .max)
        // A model in which little can happen proves little.
        #expect(findings.states >= floor)
    }
}
