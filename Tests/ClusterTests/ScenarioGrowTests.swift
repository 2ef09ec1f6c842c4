// A cell that grows and shrinks while programs write and read and its servers die (proof 5).

import Base
import Glibc
import Testing

@Suite(.serialized) struct ScenarioGrowTests {
    /// Kills servers at random, several times, and starts them again.
    private func kill(
        _ times: Int, of count: Int, in scenario: Scenario, _ random: inout SeededRandom
    ) throws {
        for _ in 0..<times {
            usleep(UInt32(200_000 + random.below(800_000)))
            try scenario.cell.kill("chunkserver-\(1 + random.below(count))")
            try scenario.cell.up()
            try scenario.workload.progress(limit: 60)
        }
    }

    /// Applies a plan; one that a dead server made stale is made again.
    private func rebalance(_ cell: Cell) throws {
        try eventually("a plan is applied", limit: 60) {
            let plan = cell.folder + "/plan"
            try cell.martlet("rebalance", "plan", "-o", plan, "--threshold", "1")
            #expect(!readText(plan).split(separator: "\n").filter { $0.hasPrefix("move") }.isEmpty)
            return try cell.attempt(["rebalance", "apply", plan, "--detach"]).status == 0
        }
    }

    private func state(_ server: String, _ cell: Cell) throws -> String {
        let list = try cell.martlet("chunkserver", "list").output
        return list.split(separator: "\n").first { $0.hasPrefix(server + " ") }.map(String.init)
            ?? ""
    }

    @Test(
        "A41: a server is drained and removed: never fewer than three copies, and not before",
        .enabled(if: Scenario.isChosen("A41")))
    func replace() throws {
        try Scenario.run("A41") { scenario in
            let cell = scenario.cell
            let victim = try scenario.place().primary
            try cell.martlet("chunkserver", "drain", victim, "--detach")
            try eventually("\(victim) is drained", limit: 120) {
                #expect(try scenario.place().backups.count == 2)
                if try state(victim, cell).contains(" drained ") { return true }
                let outcome = try cell.attempt(["chunkserver", "remove", victim])
                // It may have been drained in between.
                if outcome.status == 0 { return try state(victim, cell).isEmpty }
                #expect(outcome.status == 9 && outcome.errors.contains("copy"))
                return false
            }
            try scenario.expectStalls(write: 3, read: 3)
            try cell.kill(victim)
            if try !state(victim, cell).isEmpty {
                try cell.martlet("chunkserver", "remove", victim)
            }
            scenario.isShrunk = true
            try scenario.workload.progress(limit: 30)
            try scenario.copies(3, without: [victim], limit: 60)
        }
    }

    @Test(
        "GROW: from 3 servers to 6 to 4 under load, with kill -9: every byte stays",
        .enabled(if: Scenario.isChosen("GROW")))
    func grow() throws {
        try Scenario.run("GROW", servers: 3, options: ["--capacity", "2GiB"]) { scenario in
            let cell = scenario.cell
            var random = SeededRandom(seed: UInt64(getpid()))
            let files = (0..<8).map { "\(cell.mount)/file-\($0)" }
            for (number, file) in files.enumerated() {
                try writeFile(file, noise(16 << 20, seed: UInt64(70 + number)), sync: true)
            }
            let sums = try run(["sha256sum"] + files).output

            try cell.up(["--chunkservers", "6"])
            try rebalance(cell)
            try kill(Scenario.isFull ? 8 : 4, of: 6, in: scenario, &random)
            try eventually("the plan is finished", limit: 120) {
                try cell.martlet("rebalance", "status", "--json").output.contains("\"finished\"")
            }
            // The page cache of the mount would hide what is stored.
            try run(["sh", "-c", "echo 1 >/proc/sys/vm/drop_caches"])
            #expect(try run(["sha256sum"] + files, limit: 120).output == sums)

            let leaving = ["chunkserver-2", "chunkserver-5"]
            for server in leaving {
                try cell.martlet("chunkserver", "drain", server, "--detach")
                #expect(try cell.attempt(["chunkserver", "remove", server]).status == 9)
            }
            try kill(Scenario.isFull ? 8 : 4, of: 6, in: scenario, &random)
            try eventually("two servers are drained", limit: 180) {
                try leaving.allSatisfy { try state($0, cell).contains(" drained ") }
            }
            for server in leaving {
                try cell.kill(server)
                try cell.martlet("chunkserver", "remove", server)
            }
            scenario.isShrunk = true
            try scenario.workload.progress(limit: 60)
            let place = try scenario.place()
            #expect(Set(leaving).isDisjoint(with: [place.primary] + place.backups))
            try run(["sh", "-c", "echo 1 >/proc/sys/vm/drop_caches"])
            #expect(try run(["sha256sum"] + files, limit: 120).output == sums)
        }
    }
}
