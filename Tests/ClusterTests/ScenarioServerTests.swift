// Scenarios of dead, stopped and outdated chunk servers (A1 to A8, A33, A35).

import Base
import Glibc
import Testing

@Suite(.serialized) struct ScenarioServerTests {
    @Test(
        "A1: kill -9 of the primary: one short stall, and the copy is made on another server",
        .enabled(if: Scenario.isChosen("A1")))
    func primary() throws {
        try Scenario.run("A1") { scenario in
            let place = try scenario.place()
            try scenario.cell.kill(place.primary)
            try scenario.workload.progress(limit: 30)
            try scenario.expectStalls(write: 5, read: 5)
            try scenario.copies(3, without: [place.primary], limit: 60 * Scenario.slowness)
        }
    }

    @Test(
        "A2: kill -9 of a backup: one short stall, and the copy is made on another server",
        .enabled(if: Scenario.isChosen("A2")))
    func backup() throws {
        try Scenario.run("A2") { scenario in
            let victim = try scenario.place().backups[0]
            try scenario.cell.kill(victim)
            try scenario.workload.progress(limit: 30)
            try scenario.expectStalls(write: 3, read: 5)
            try scenario.copies(3, without: [victim], limit: 60 * Scenario.slowness)
        }
    }

    @Test(
        "A3: kill -9 of the primary and a backup: writes wait for a second copy, none fails",
        .enabled(if: Scenario.isChosen("A3")))
    func primaryAndBackup() throws {
        try Scenario.run("A3") { scenario in
            let place = try scenario.place()
            try scenario.cell.kill(place.primary, place.backups[0])
            try scenario.workload.progress(limit: 30 * Scenario.slowness)
            // The survivor answers reads when it is known to be alone.
            try scenario.expectStalls(write: 30, read: 30)
            let dead: Set = [place.primary, place.backups[0]]
            try scenario.copies(2, without: dead, limit: 30 * Scenario.slowness)
        }
    }

    @Test(
        "A4: kill -9 of all chunk servers: writes wait and go on after they are back",
        .enabled(if: Scenario.isChosen("A4")))
    func allServers() throws {
        try Scenario.run("A4") { scenario in
            let cell = scenario.cell
            let servers = cell.members.filter { $0.hasPrefix("chunkserver-") }
            for server in servers { Glibc.kill(try cell.pid(server), SIGSTOP) }
            for server in servers { try cell.kill(server) }
            sleep(10)
            #expect(try scenario.workload.stalls().write > 5)
            try cell.up()
            let back = now()
            try scenario.workload.progress(limit: 10 * Scenario.slowness)
            print("    A4: writes went on \(seconds(now() - back)) after the servers were up")
        }
    }

    @Test(
        "A5: kill -9 and restart of one server after another: no error, short stalls",
        .enabled(if: Scenario.isChosen("A5")))
    func restarts() throws {
        try Scenario.run("A5") { scenario in
            var random = SeededRandom(seed: UInt64(getpid()))
            for round in 0..<(Scenario.isFull ? 20 : 8) {
                let place = try scenario.place()
                let all = [place.primary] + place.backups
                try scenario.cell.kill(round % 2 == 0 ? all[0] : all[random.below(all.count)])
                try scenario.cell.up()
                try scenario.workload.progress(limit: 30)
                try scenario.expectStalls(write: 5, read: 5)
                if !Scenario.isFull || round % 5 == 4 { try scenario.cell.settled() }
            }
        }
    }

    @Test(
        "A6: SIGSTOP of the primary for 2 s: a short stall",
        .enabled(if: Scenario.isChosen("A6")))
    func shortPause() throws {
        try Scenario.run("A6") { scenario in
            let place = try scenario.place()
            try scenario.cell.signal(place.primary, SIGSTOP)
            sleep(2)
            try scenario.cell.signal(place.primary, SIGCONT)
            try scenario.workload.progress(limit: 30)
            try scenario.expectStalls(write: 4, read: 4)
        }
    }

    /// Stops a member of a cell without a spare server for a minute, and lets it go on.
    private func pause(_ scenario: Scenario, _ victim: String, stall: Double) throws {
        let before = try scenario.place()
        try scenario.cell.signal(victim, SIGSTOP)
        try scenario.workload.progress(limit: 30)
        try scenario.expectStalls(write: stall, read: 5)
        let during = try scenario.place()
        #expect(during.epoch > before.epoch)
        #expect(!([during.primary] + during.backups).contains(victim))
        sleep(Scenario.isFull ? 55 : 20)
        // What it served before it was stopped it must not serve now: the reader would see it.
        try scenario.cell.signal(victim, SIGCONT)
        try scenario.copies(3, limit: 30 * Scenario.slowness)
        #expect(try scenario.place().primary == during.primary)
        try scenario.expectStalls(write: 5, read: 5)
    }

    @Test(
        "A7: SIGSTOP of the primary for 60 s: another takes over; woken, it serves nothing old",
        .enabled(if: Scenario.isChosen("A7")))
    func longPauseOfPrimary() throws {
        try Scenario.run("A7", servers: 3) { scenario in
            try pause(scenario, try scenario.place().primary, stall: 5)
        }
    }

    @Test(
        "A8: SIGSTOP of a backup for 60 s: it is evicted, comes back and is filled again",
        .enabled(if: Scenario.isChosen("A8")))
    func longPauseOfBackup() throws {
        try Scenario.run("A8", servers: 3) { scenario in
            try pause(scenario, try scenario.place().backups[0], stall: 3)
        }
    }

    @Test(
        "A33: an old image of a chunk server's disk: never served, nothing deleted elsewhere",
        .enabled(if: Scenario.isChosen("A33")), arguments: Scenario.isFull ? [0, 2] : [0])
    func oldImage(restarts: Int) throws {
        // As often as it was restarted since, the image is behind: with none, the next start of
        // the image has the number of the run before it.
        try Scenario.run("A33", servers: 3) { scenario in
            let cell = scenario.cell
            let victim = try scenario.place().primary
            let disk = "\(cell.path)/\(victim)/disk"
            let image = "\(cell.path)/\(victim)/image"
            try cell.kill(victim)
            try run(["cp", "-a", disk, image])
            for _ in 0..<(1 + restarts) {
                try cell.up()
                try cell.settled()
                try scenario.copies(3, limit: 60)
                try scenario.workload.progress(syncs: 10, limit: 60)
                try cell.kill(victim)
                try scenario.workload.progress(limit: 30)
            }
            try run(["rm", "-rf", disk])
            try run(["mv", image, disk])
            // `up` would wait for a server that is refused.
            _ = try cell.attempt(["up", cell.path, "--deadline", "10"])
            func health() throws -> String { try cell.attempt(["health"]).output }
            try eventually("health tells that it is refused") {
                try health().contains("SERVER_REFUSED: \(victim)")
            }
            #expect(try cell.martlet("chunkserver", "list").output.contains(" refused "))
            try scenario.workload.progress(syncs: 20, reads: 20, limit: 60)
            let place = try scenario.place()
            #expect(!([place.primary] + place.backups).contains(victim))
            // It stays away until it gets an empty disk; the old one is forgotten then.
            if cell.members.contains(victim) { try cell.kill(victim) }
            try run(["rm", "-rf", disk])
            try cell.up()
            try scenario.copies(3, limit: 60 * Scenario.slowness)
            try eventually("the old disk is forgotten, and health is good", limit: 60) {
                let list = try cell.martlet("chunkserver", "list").output
                return try !list.contains(" lost ") && health().hasPrefix("MARTLET OK")
            }
        }
    }

    @Test(
        "A35: with full chunk servers writes fail with ENOSPC, never silently; deleting helps",
        .enabled(if: Scenario.isChosen("A35")))
    func fullDisks() throws {
        let options = ["--chunkservers", "4", "--capacity", "160MiB", "--segment-size", "4MiB"]
        try Cell.with(options, repairDelay: 10) { cell in
            var written = 0
            var code: Int32 = 0
            while code == 0, written < 100 {
                do {
                    try writeFile(
                        "\(cell.mount)/fill-\(written)", noise(4 << 20, seed: UInt64(written)),
                        sync: true)
                    written += 1
                } catch { code = "\(error)".contains("errno \(ENOSPC)") ? ENOSPC : -1 }
            }
            #expect(code == ENOSPC)
            // Three copies on four disks of 160 MiB are 213 MiB at most; logs keep room ahead.
            #expect(written * 4 > 213 / 2)
            for number in 0..<written {
                let content = readBytes("\(cell.mount)/fill-\(number)")
                #expect(content == noise(4 << 20, seed: UInt64(number)), "fill-\(number)")
            }
            for name in names(in: cell.mount) { #expect(unlink("\(cell.mount)/\(name)") == 0) }
            try eventually("there is room again", limit: 60) {
                (try? writeFile(cell.mount + "/again", noise(8 << 20, seed: 1), sync: true)) != nil
            }
        }
    }
}
