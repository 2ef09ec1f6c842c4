// explore: explores a replica set, or the masters' Paxos, in a scope of choice, and prints what it
// found.
//
//   explore masters [--leaderships N] [--proposals N] [--reads N] [--restarts N]
//           [--losses N] [--duplicates N] [--slow-disks] [--led] [--replaces] [--limit STATES]
//   explore [--changes N] [--writes N] [--retries N] [--restarts N] [--silences N]
//           [--min-members N] [--members N] [--slow-disks] [--leases] [--alone]
//           [--limit STATES]
//
// A broken invariant is printed with a shortest trace, and the exit code is 1; wrong usage is 2.

import Base
import Exploration
@preconcurrency import Glibc

/// What the command line asks for; nil if it makes no sense.
private func parse(_ words: [String]) -> (scope: Scope, limit: Int)? {
    var scope = Scope()
    var limit = Int.max
    var rest = words[...]
    while let word = rest.popFirst() {
        switch word {
        case "--slow-disks": scope.syncsAtOnce = false
        case "--leases": scope.hasLeases = true
        case "--alone": scope.beginsAlone = true
        default:
            guard let value = rest.popFirst().flatMap({ UInt32($0) }) else { return nil }
            switch word {
            case "--changes": scope.changes = Int(value)
            case "--writes" where (1...7).contains(value): scope.writes = Int(value)
            case "--retries": scope.retries = Int(value)
            case "--restarts": scope.restarts = Int(value)
            case "--silences": scope.silences = Int(value)
            case "--min-members": scope.minMembers = UInt8(clamping: value)
            case "--members" where (1...Limits.members).contains(Int(value)):
                scope.members = Int(value)
            case "--limit": limit = Int(value)
            default: return nil
            }
        }
    }
    return (scope, limit)
}

/// The same of the masters.
private func parseMasters(_ words: ArraySlice<String>) -> (scope: PaxosScope, limit: Int)? {
    let flags: [String: WritableKeyPath<PaxosScope, Bool>] = [
        "--slow-disks": \.hasSlowDisks, "--led": \.beginsLed, "--replaces": \.replaces,
    ]
    var scope = PaxosScope()
    var limit = Int.max
    var rest = words
    while let word = rest.popFirst() {
        if let flag = flags[word] {
            scope[keyPath: flag] = true
            continue
        }
        guard let value = rest.popFirst().flatMap({ Int($0) }), value >= 0 else { return nil }
        switch word {
        case "--leaderships": scope.leaderships = value
        case "--proposals": scope.proposals = value
        case "--reads": scope.reads = value
        case "--restarts": scope.restarts = value
        case "--losses": scope.losses = value
        case "--duplicates": scope.duplicates = value
        case "--limit": limit = value
        default: return nil
        }
    }
    return (scope, limit)
}

@main
enum Program {
    static func main() {
        setvbuf(stdout, nil, _IOLBF, 0)
        let words = CommandLine.arguments.dropFirst()
        if words.first == "masters" {
            guard let (scope, limit) = parseMasters(words.dropFirst()) else { usage() }
            run(PaxosModel(scope), limit)
        } else {
            guard let (scope, limit) = parse(Array(words)) else { usage() }
            run(ReplicaModel(scope), limit)
        }
    }

    private static func usage() -> Never {
        print("usage: explore [masters] [--restarts N] …; see the head of its source")
        exit(2)
    }

    private static func run(_ model: some Explorable, _ limit: Int) -> Never {
        let clock = ContinuousClock()
        let start = clock.now
        var explorer = Explorer(model)
        let findings = explorer.run(limit: limit) { level in
            print("depth \(level.depth): \(level.states) states, \(clock.now - start)")
        }
        print(explorer.model.size)
        print(findings.text)
        exit(findings.fault == nil ? 0 : 1)
    }
}
