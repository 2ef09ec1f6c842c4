// simulate: runs seeds of a scenario, and replays one with its trace.
//
//   simulate [--scenario log|masters|replicas|full|gray] [--seed N] [--count K] [--quiet] [--stop]
//            [--trace [--from SECONDS]]
//
// --quiet prints failures and sums only; --stop ends with the first failure.
// Prints a digest of each run's stream of events. A failure prints one block, and the exit code
// is 1; wrong usage is 2.

import Base
@preconcurrency import Glibc
import Simulation

/// What the command line asks for.
struct Arguments {
    var scenarios = [ScenarioName.masters, .replicas]
    var seed: UInt64 = 1
    var count: UInt64 = 1
    var traces = false
    var from = 0.0
    var isQuiet = false
    /// Ends with the first failure.
    var stops = false

    init?(_ words: [String]) {
        var rest = words[...]
        while let word = rest.popFirst() {
            switch word {
            case "--trace": traces = true
            case "--quiet": isQuiet = true
            case "--stop": stops = true
            case "--scenario":
                guard let name = rest.popFirst().flatMap(ScenarioName.init) else { return nil }
                scenarios = [name]
            case "--seed":
                guard let value = rest.popFirst().flatMap({ UInt64($0) }) else { return nil }
                seed = value
            case "--count":
                guard let value = rest.popFirst().flatMap({ UInt64($0) }) else { return nil }
                count = value
            case "--from":
                guard let value = rest.popFirst().flatMap({ Double($0) }) else { return nil }
                from = value
            default: return nil
            }
        }
    }
}

/// What a failed precondition prints; written by a signal handler, so it is ready beforehand.
nonisolated(unsafe) private var trapReport: [UInt8] = []

private func runAll(_ arguments: Arguments) -> Int32 {
    var failures = 0
    var probes: Set<String> = []
    for scenario in arguments.scenarios {
        var events = 0
        for seed in arguments.seed..<arguments.seed + arguments.count {
            trapReport = Array(
                """
                SIM FAIL seed=\(seed) scenario=\(scenario.rawValue) check=precondition
                  replay: tools/run simulate --scenario \(scenario.rawValue) --seed \(seed) --trace

                """.utf8)
            let from = Instant(nanoseconds: Int64(arguments.from * 1e9))
            let result = simulate(
                scenario, seed: seed, traces: arguments.traces, tracesFrom: from)
            events += result.events
            probes.formUnion(result.probes)
            if result.failure != nil {
                print(result.report)
                failures += 1
                if arguments.stops { return 1 }
            } else if !arguments.isQuiet {
                print(
                    "\(scenario.rawValue) seed=\(seed) digest=\(String(result.digest, radix: 16))",
                    "events=\(result.events) t=\(result.end.text)")
            }
        }
        if arguments.count > 1 {
            print("\(scenario.rawValue): \(arguments.count) seeds, \(events) events")
        }
    }
    if arguments.count > 1 {
        print("\(failures) failures; reached: \(probes.sorted().joined(separator: " "))")
    }
    return failures == 0 ? 0 : 1
}

@main
enum Program {
    static func main() {
        setvbuf(stdout, nil, _IOLBF, 0)
        guard let arguments = Arguments(Array(CommandLine.arguments.dropFirst())) else {
            print("usage: simulate [--scenario NAME] [--seed N] [--count K] [--trace]")
            exit(2)
        }
        for signal in [SIGILL, SIGTRAP, SIGSEGV] {
            Glibc.signal(signal) { _ in
                trapReport.withUnsafeBytes { _ = write(STDOUT_FILENO, $0.baseAddress, $0.count) }
                _exit(1)
            }
        }
        exit(runAll(arguments))
    }
}
