// One run of one seed: what the program and the tests call.

package import Base

/// What is simulated.
package enum ScenarioName: String, CaseIterable, Sendable {
    /// The log of one disk under loss of power and damage.
    case log
    /// A group of masters with clients.
    case masters
    /// Chunk servers with their masters and clients.
    case replicas
    /// The same on disks that get full.
    case full
    /// A disk that becomes very slow.
    case gray
}

/// How a run ended.
package struct RunResult: Sendable {
    package var scenario: ScenarioName
    package var seed: UInt64
    /// Of the whole stream of events.
    package var digest: UInt64
    package var events: Int
    package var end: Instant
    package var failure: Failure?
    /// Names of rare things that this run reached.
    package var probes: [String]

    /// The block that a failure prints.
    package var report: String {
        guard let failure else { return "" }
        return """
            SIM FAIL seed=\(seed) scenario=\(scenario.rawValue) check=\(failure.check) \
            t=\(failure.time.text) event=\(failure.event)
              \(failure.detail)
              replay: tools/run simulate --scenario \(scenario.rawValue) --seed \(seed) --trace
            """
    }
}

extension Instant {
    /// Seconds with microseconds, of virtual time.
    package var text: String {
        let micros = nanoseconds / 1_000
        return "\(micros / 1_000_000).\(String(1_000_000 + micros % 1_000_000).dropFirst())s"
    }
}

/// A seed of a scenario, ready to run.
protocol Scenario: AnyObject {
    var world: World { get }
    /// Runs everything; failures are in the world.
    func run()
    var probes: [String] { get }
}

/// Runs one seed. `traces`: prints each event from `tracesFrom` on.
package func simulate(
    _ scenario: ScenarioName, seed: UInt64, traces: Bool = false, tracesFrom: Instant = .zero
) -> RunResult {
    var random = SeededRandom(seed: seed)
    let run: any Scenario =
        switch scenario {
        case .log: LogScenario(random: &random)
        case .masters: MastersScenario(random: &random)
        case .replicas: ReplicasScenario(isFull: false, random: &random)
        case .full: ReplicasScenario(isFull: true, random: &random)
        case .gray: GrayScenario(random: &random)
        }
    run.world.traces = traces
    run.world.tracesFrom = tracesFrom
    run.run()
    defer { run.world.end() }
    return RunResult(
        scenario: scenario, seed: seed, digest: run.world.digest, events: run.world.events,
        end: run.world.now, failure: run.world.failure, probes: run.probes)
}
