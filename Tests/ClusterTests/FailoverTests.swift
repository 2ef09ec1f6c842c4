// Servers of each role are killed with -9 again and again, while programs write and read: no call
// fails, each change happens once, every byte is right, and no call waits for long.

import Testing

@Suite(.serialized) struct FailoverTests {
    /// With the longest call that the role's death may cause, in seconds, on a machine of its own.
    @Test("Ten kills of", arguments: [("leader", 1.0), ("primary", 5.0), ("backup", 3.0)])
    func kills(role: String, target: Double) throws {
        let isLeader = role == "leader"
        try Scenario.run(
            role, servers: 4, pause: isLeader ? 1_000 : 50_000, isStorm: isLeader
        ) { scenario in
            let cell = scenario.cell
            for _ in 0..<10 {
                let victim =
                    switch role {
                    case "leader": try cell.leader()
                    case "primary": try scenario.place().primary
                    default: try scenario.place().backups[0]
                    }
                try cell.kill(victim)
                try scenario.workload.progress(limit: 30)
                let bound = 3 * target / Scenario.slowness
                try scenario.expectStalls(write: bound, read: bound)
                try cell.up()
                if !isLeader { try scenario.copies(3, limit: 60) }
                try cell.settled()
            }
        }
    }
}
