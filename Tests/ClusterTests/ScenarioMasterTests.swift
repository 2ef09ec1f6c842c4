// Scenarios of dead and stopped masters during a storm of changes of names (A14 to A16).

import Base
import Glibc
import Testing

@Suite(.serialized) struct ScenarioMasterTests {
    @Test(
        "A14: kill -9 of the leader during a storm: a short stall, each change happens once",
        .enabled(if: Scenario.isChosen("A14")))
    func leader() throws {
        try Scenario.run("A14", servers: 3, pause: 1_000, isStorm: true) { scenario in
            for _ in 0..<(Scenario.isFull ? 10 : 4) {
                try scenario.cell.kill(try scenario.cell.leader())
                try scenario.workload.progress(syncs: 10, limit: 30)
                try scenario.expectStalls(write: 3, read: 3)
                try scenario.cell.up()
                try scenario.workload.progress(syncs: 10, limit: 30)
            }
        }
    }

    @Test(
        "A15: SIGSTOP of the leader for 10 s: another leads; woken, it answers nothing old",
        .enabled(if: Scenario.isChosen("A15")))
    func pause() throws {
        try Scenario.run("A15", servers: 3, pause: 1_000, isStorm: true) { scenario in
            let leader = try scenario.cell.leader()
            try scenario.cell.signal(leader, SIGSTOP)
            try scenario.workload.progress(syncs: 10, limit: 30)
            try scenario.expectStalls(write: 3, read: 3)
            sleep(8)
            try scenario.cell.signal(leader, SIGCONT)
            try scenario.workload.progress(syncs: 40, reads: 40, limit: 30)
            try scenario.expectStalls(write: 3, read: 3)
        }
    }

    @Test(
        "A16: kill -9 of two of three masters: changes wait, and go on when one is back",
        .enabled(if: Scenario.isChosen("A16")))
    func majority() throws {
        try Scenario.run("A16", servers: 3, pause: 1_000, isStorm: true) { scenario in
            let leader = try scenario.cell.leader()
            let other = leader == "master-1" ? "master-2" : "master-1"
            try scenario.cell.kill(leader, other)
            sleep(5)
            #expect(try scenario.workload.stalls().write > 4)
            try scenario.cell.up()
            let back = now()
            try scenario.workload.progress(limit: 10 * Scenario.slowness)
            print("    A16: changes went on \(seconds(now() - back)) after the masters were up")
        }
    }
}
