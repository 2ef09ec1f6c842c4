// The explorer itself, and every state of a replica set, and of the masters' Paxos, in several
// small scopes.

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
    var size: String { "2 jugs" }

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

/// Every state of the model, or as many as the limit allows; prints how many there were.
private func explore(_ name: String, _ model: some Explorable, _ floor: Int, _ limit: Int) {
    var explorer = Explorer(model)
    let findings = explorer.run(limit: limit)
    print("explored \(name): \(findings.text); \(explorer.model.size)")
    #expect(findings.fault == nil, "\(findings.text)")
    #expect(findings.isComplete || limit < .max)
    // A model in which little can happen proves little.
    #expect(findings.states >= floor)
}

private func explore(
    _ name: String, atLeast floor: Int, limit: Int = .max, _ adjust: (inout Scope) -> Void
) {
    var scope = Scope()
    adjust(&scope)
    explore(name, ReplicaModel(scope), floor, limit)
}

@Suite(.serialized) struct ReplicaScopeTests {
    @Test("One epoch change, two writes: nothing acknowledged is lost (C3-C6, C8)")
    func change() {
        explore("one change", atLeast: 250_000) {
            $0.changes = 1
            $0.writes = 2
        }
    }

    @Test("One epoch change, a restart, a write sent again: one record (C10, C15)")
    func restart() {
        explore("a restart", atLeast: 450_000) {
            $0.changes = 1
            $0.writes = 1
            $0.retries = 1
            $0.restarts = 1
        }
    }

    @Test("The last survivor of a set goes on alone: it commits, and acknowledges nothing (C5)")
    func survivor() {
        explore("a survivor", atLeast: 200_000) {
            $0.changes = 1
            $0.writes = 2
            $0.minMembers = 2
        }
    }

    @Test("A disk that left comes back, and late messages reach it (C9)")
    func learner() {
        explore("a learner", atLeast: 200_000) {
            $0.changes = 2
            $0.writes = 2
            $0.beginsAlone = true
        }
    }

    @Test("A read under a lease sees all that was acknowledged (C11)")
    func leases() {
        explore("leases", atLeast: 280_000) {
            $0.changes = 1
            $0.writes = 1
            $0.hasLeases = true
        }
    }

    @Test("A disk that takes its time, and a restart that loses what was under way (S2)")
    func slowDisks() {
        explore("slow disks", atLeast: 400_000, limit: 400_000) {
            $0.changes = 1
            $0.writes = 1
            $0.restarts = 1
            $0.syncsAtOnce = false
        }
    }

    @Test("Two epoch changes of all members, as far as the time allows (C9)")
    func readmission() {
        explore("two changes", atLeast: 1_000_000, limit: 1_000_000) {
            $0.changes = 2
            $0.writes = 1
        }
    }
}

private func explore(
    _ name: String, atLeast floor: Int, limit: Int = .max, _ adjust: (inout PaxosScope) -> Void
) {
    var scope = PaxosScope()
    scope.restarts = 0
    adjust(&scope)
    explore(name, PaxosModel(scope), floor, limit)
}

@Suite(.serialized) struct PaxosScopeTests {
    @Test("Two masters want to lead at once, one process ends: nothing is chosen twice (M2-M5)")
    func elections() {
        explore("elections", atLeast: 100_000, limit: 400_000) {
            $0.proposals = 1
            $0.restarts = 1
        }
    }

    @Test("Another leader takes over two changes that are under way (M2-M5)")
    func takeOver() {
        explore("a take-over", atLeast: 130_000) {
            $0.beginsLed = true
            $0.proposals = 2
        }
    }

    @Test("Two take-overs one after the other (M2-M5)")
    func takeOvers() {
        explore("two take-overs", atLeast: 400_000, limit: 400_000) {
            $0.beginsLed = true
            $0.leaderships = 3
            $0.proposals = 1
        }
    }

    @Test("Messages that arrive twice, and a process that ends (M20)")
    func duplicates() {
        explore("duplicates", atLeast: 200_000, limit: 400_000) {
            $0.beginsLed = true
            $0.proposals = 1
            $0.restarts = 1
            $0.duplicates = 1
        }
    }

    @Test("A restart loses what was under way to the disk; what was told stays (S2)")
    func slowDisks() {
        explore("slow disks of masters", atLeast: 400_000, limit: 400_000) {
            $0.beginsLed = true
            $0.proposals = 1
            $0.restarts = 1
            $0.duplicates = 1
            $0.hasSlowDisks = true
        }
    }

    @Test("A disk has lost what an entry says: its master asks, and tells of nothing less (S2)")
    func losses() {
        explore("a damaged entry", atLeast: 350_000) {
            $0.beginsLed = true
            $0.proposals = 1
            $0.restarts = 1
            $0.losses = 1
        }
    }

    @Test("Another master takes over while the fourth gets the vote of the third (M17)")
    func replacement() {
        explore("a replacement", atLeast: 300_000, limit: 300_000) {
            $0.beginsLed = true
            $0.proposals = 0
            $0.replaces = true
        }
    }

    @Test("A read while another leader takes over is not stale (M10)")
    func reads() {
        explore("reads of masters", atLeast: 50_000) {
            $0.beginsLed = true
            $0.proposals = 1
            $0.reads = 1
        }
    }
}
