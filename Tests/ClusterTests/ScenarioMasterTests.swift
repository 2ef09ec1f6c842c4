// Scenarios of dead and stopped masters, and of their disks, during a storm of changes of names
// (A14 to A16, A28, A32).

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

    @Test(
        "A28: rot in the log of a stopped master: it says so, gets the log and votes again",
        .enabled(if: Scenario.isChosen("A28")))
    func rot() throws {
        try Scenario.run("A28", servers: 3, pause: 1_000, isStorm: true) { scenario in
            let lost = try follower(scenario.cell)
            try scenario.workload.progress(syncs: 40, limit: 30)
            try scenario.cell.kill(lost)
            try damageLog(in: "\(scenario.cell.path)/\(lost)/disk/segments")
            try votesAgain(lost, scenario)
            #expect(readText("\(scenario.cell.path)/\(lost)/log").contains("the log lost records"))
        }
    }

    @Test(
        "A32: a master starts on an empty disk: no vote at first, then one for the new disk",
        .enabled(if: Scenario.isChosen("A32")))
    func wiped() throws {
        try Scenario.run("A32", servers: 3, pause: 1_000, isStorm: true) { scenario in
            let lost = try follower(scenario.cell)
            try scenario.cell.kill(lost)
            try run(["rm", "-r", "\(scenario.cell.path)/\(lost)/disk"])
            try votesAgain(lost, scenario)
            #expect(readText("\(scenario.cell.path)/\(lost)/log").contains("this is not the disk"))
        }
    }

    private func follower(_ cell: Cell) throws -> String {
        try eventually("every vote has a disk") {
            try number("configuration", in: cell.martlet("master", "list", "--json").output)! >= 2
        }
        return try cell.leader() == "master-1" ? "master-2" : "master-1"
    }

    /// Starts it, without a stall, and shows that its vote counts: another one is killed.
    private func votesAgain(_ lost: String, _ scenario: Scenario) throws {
        let cell = scenario.cell
        func configuration() throws -> Double {
            number("configuration", in: try cell.martlet("master", "list", "--json").output) ?? 0
        }
        let before = try configuration()
        try cell.up()
        try eventually("\(lost) votes from its disk as it is now") {
            try configuration() > before
                && !cell.martlet("master", "list").output.contains("other disk")
        }
        try scenario.workload.progress(syncs: 10, limit: 30)
        try scenario.expectStalls(write: 2, read: 2)
        let third = ["master-1", "master-2", "master-3"].first {
            $0 != lost && $0 != (try? cell.leader())
        }
        try cell.kill(third!)
        try scenario.workload.progress(syncs: 10, limit: 30)
        try cell.up()
        try scenario.workload.progress(syncs: 10, limit: 30)
        try scenario.expectStalls(write: 3, read: 3)
    }

    /// Flips bytes in the middle of what is written of the log.
    private func damageLog(in folder: String) throws {
        for name in names(in: folder) {
            let path = "\(folder)/\(name)"
            let content = readBytes(path)
            guard let last = content.lastIndex(where: { $0 != 0 }), last > 64 << 10 else {
                continue
            }
            let file = open(path, O_RDWR | O_CLOEXEC)
            defer { close(file) }
            for offset in stride(from: last / 2, to: last / 2 + (16 << 10), by: 64) {
                var byte = content[offset] ^ 0x10
                guard pwrite(file, &byte, 1, off_t(offset)) == 1 else {
                    throw TestFailure("\(path): errno \(errno)")
                }
            }
            fsync(file)
            return
        }
        throw TestFailure("no log in \(folder)")
    }
}
