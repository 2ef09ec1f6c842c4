// Seeds of every scenario, run by the program `simulate` in processes of its own, one for each
// core: a failed precondition ends one of them and not the tests. MARTLET_SIMULATE names the
// program; otherwise it is beside this one.

import Foundation
import Testing

/// Runs the program and gives what it printed.
private func simulate(_ arguments: [String]) async throws -> (output: String, status: Int32) {
    let named = ProcessInfo.processInfo.environment["MARTLET_SIMULATE"]
    let beside = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent()
    let process = Process()
    process.executableURL =
        named.map { URL(fileURLWithPath: $0) } ?? beside.appendingPathComponent("simulate")
    process.arguments = arguments
    // Swift's own report of a crash takes long and says less than the seed.
    process.environment = ["SWIFT_BACKTRACE": "enable=no"]
    let pipe = Pipe()
    process.standardOutput = pipe
    process.standardError = pipe
    try process.run()
    let data = try pipe.fileHandleForReading.readToEnd() ?? Data()
    process.waitUntilExit()
    return (String(decoding: data, as: UTF8.self), process.terminationStatus)
}

/// Runs seeds on two cores; they must all pass and reach what `probes` names.
private func expectNoFailure(
    _ scenario: String, from first: Int, count: Int, probes: [String]
) async throws {
    let half = count / 2
    let results = try await withThrowingTaskGroup(of: (output: String, status: Int32).self) {
        group in
        for start in [first, first + half] {
            group.addTask {
                try await simulate([
                    "--scenario", scenario, "--seed", "\(start)", "--count", "\(half)", "--quiet",
                ])
            }
        }
        var all: [(output: String, status: Int32)] = []
        for try await result in group { all.append(result) }
        return all
    }
    let output = results.map(\.output).joined()
    #expect(results.allSatisfy { $0.status == 0 }, "\(output)")
    for probe in probes { #expect(output.contains(probe), "no seed reached \(probe)") }
}

@Suite(.serialized) struct SeedTests {
    @Test("The log of a disk loses nothing that was durable, whatever is cut or damaged")
    func log() async throws {
        try await expectNoFailure("log", from: 1, count: 400, probes: ["log-restarted"])
    }

    @Test("Masters keep one log and answer from it, once, under any faults")
    func masters() async throws {
        try await expectNoFailure(
            "masters", from: 100_000, count: 400,
            probes: [
                "leader-changed", "master-restarted", "master-disk-broke", "master-rotten",
                "snapshot-taken", "snapshot-loaded", "snapshot-came", "master-added",
                "master-removed", "leader-removed-itself", "master-transfer-ordered",
                "wiped-master-replaced", "learner-with-snapshot-promoted",
                "wiped-master-voted-again", "damage-left-behind",
                "entry-mended", "entries-mended-on-two",
            ])
    }

    @Test("Replica sets lose nothing they acknowledged and show nothing older, under any faults")
    func replicas() async throws {
        try await expectNoFailure(
            "replicas", from: 200_000, count: 400,
            probes: [
                "write-acknowledged", "second-epoch", "restarted", "disk-broke", "scrub-passed",
                "scrub-found", "scrub-repaired", "copies-compared", "members-lost",
                "went-on-alone", "clocks-went-wild", "loss-accepted", "read-lost",
                "former-copy-taken",
            ])
    }

    @Test(
        "Seeds that found something once",
        arguments: [
            ("masters", 583), ("masters", 2_004_545), ("masters", 2_004_897), ("full", 600_139),
            ("replicas", 3_000_076),
        ])
    func once(_ scenario: String, _ seed: Int) async throws {
        let result = try await simulate(["--scenario", scenario, "--seed", "\(seed)"])
        #expect(result.status == 0, "\(result.output)")
    }

    @Test("A member whose disk becomes very slow is replaced within seconds (C21)")
    func gray() async throws {
        try await expectNoFailure(
            "gray", from: 1, count: 8, probes: ["backup-evicted", "primary-moved"])
    }

    @Test("Full disks refuse only what has no space, and take deletes and new data again (C20)")
    func full() async throws {
        try await expectNoFailure(
            "full", from: 1, count: 24, probes: ["disks-filled", "block-folded", "segment-cleaned"])
    }

    /// Each process has hash seeds of its own.
    @Test(
        "A twentieth of the seeds gives the same events in another process",
        arguments: ["log", "masters", "replicas"])
    func determinism(scenario: String) async throws {
        let words = ["--scenario", scenario, "--seed", "300001", "--count", "20"]
        let first = try await simulate(words)
        let second = try await simulate(words)
        #expect(first.output == second.output)
        #expect(first.output.split(separator: "\n").count { $0.contains("digest=") } == 20)
    }

    @Test("Wrong usage is told and ends with 2")
    func usage() async throws {
        let result = try await simulate(["--sed", "7"])
        #expect(result.status == 2 && result.output.contains("usage"))
    }
}
