// Scenarios of disks that lose what was not synced, fail, rot or are slow (A19 to A27, A37, A38).

import Base
import Glibc
import Testing

@Suite(.serialized) struct ScenarioDiskTests {
    /// Power is lost several times, each time with other remains of what was not synced.
    private func cutPower(
        _ name: String, rounds: Int, serviceUp: Double? = nil,
        _ members: (Scenario) throws -> [String]
    ) throws {
        try Scenario.run(name, pause: 20_000) { scenario in
            let cell = scenario.cell
            let victims = try members(scenario)
            try cell.makeLossy(victims)
            var random = SeededRandom(seed: UInt64(getpid()))
            for round in 0..<rounds {
                try scenario.workload.progress(limit: 60)
                usleep(UInt32(random.below(1_000_000)))
                try cell.cutPower(of: victims, seed: round == 0 ? 0 : 1 + random.below(1 << 30))
                let dark = now()
                try cell.up()
                let up = now() - dark
                try scenario.workload.progress(limit: 60)
                print("    \(name): up after \(seconds(up)), writes after \(seconds(now() - dark))")
                if let serviceUp { #expect(now() - dark < serviceUp * Scenario.slowness) }
            }
        }
    }

    @Test(
        "A19: all servers lose their power and what they had not synced: all that was synced stays",
        .enabled(if: Scenario.isChosen("A19")))
    func power() throws {
        try cutPower("A19", rounds: 3, serviceUp: 15) {
            $0.cell.members.filter { $0 != "mount" }
        }
    }

    @Test("A20: the same at 50 random moments", .enabled(if: Scenario.isChosen("A20")))
    func powerAtManyMoments() throws {
        try cutPower("A20", rounds: 50, serviceUp: 15) {
            $0.cell.members.filter { $0 != "mount" }
        }
    }

    @Test(
        "A21: one chunk server loses its power and what it had not synced, others go on",
        .enabled(if: Scenario.isChosen("A21")))
    func powerOfOne() throws {
        try cutPower("A21", rounds: Scenario.isFull ? 10 : 3) { [try $0.place().primary] }
    }

    @Test(
        "A22: a write or flush of a chunk server fails once: its disk stops, copies are made",
        .enabled(if: Scenario.isChosen("A22")),
        arguments: Scenario.isFull ? ["sync 2 5", "write 2 5", "write 2 28"] : ["sync 2 5"])
    func failedFlush(failure: String) throws {
        try Scenario.run("A22") { scenario in
            let cell = scenario.cell
            let victim = try scenario.place().primary
            try cell.makeLossy([victim])
            try cell.settled()
            let pid = try cell.pid(victim)
            scenario.workload.resetStalls()
            try cell.tellDisk(of: victim, "fail \(failure)")
            scenario.halted = [victim]
            try eventually("\(victim) has stopped") { Cell.startTime(pid).isEmpty }
            try scenario.workload.progress(limit: 30)
            try scenario.expectStalls(write: 5, read: 5)
            try scenario.copies(3, without: [victim], limit: 60 * Scenario.slowness)
            let log = readText("\(cell.path)/\(victim)/log")
            #expect(log.contains("the disk stops"))
        }
    }

    @Test(
        "A24: a device that has no room for what was promised: a write fails, or a flush once",
        .enabled(if: Scenario.isChosen("A24")), arguments: [false, true])
    func lyingDevice(isCached: Bool) throws {
        if access("/dev/loop-control", R_OK | W_OK) != 0 {
            try Test.cancel("A24: /dev/loop-control: errno \(errno)")
        }
        try Scenario.run("A24") { scenario in
            let cell = scenario.cell
            let victim = try scenario.place().primary
            // Without the page cache a write fails; with it the flush does, and the next would not.
            try cell.makeOverbooked(victim, isCached: isCached)
            if isCached { try cell.tellDisk(of: victim, "deep 1") }
            try cell.settled()
            try scenario.copies(3, limit: 60)
            let pid = try cell.pid(victim)
            scenario.workload.resetStalls()
            try cell.fill(victim + "/device")
            scenario.halted = [victim]
            // It may be in no set that is written to: some file is in one that it is in.
            try eventually("\(victim) has stopped", limit: 60) {
                try writeFile(cell.mount + "/more", noise(1 << 20, seed: 24), sync: true)
                unlink(cell.mount + "/more")
                return Cell.startTime(pid).isEmpty
            }
            try scenario.workload.progress(limit: 30)
            try scenario.expectStalls(write: 5, read: 5)
            try scenario.copies(3, without: [victim], limit: 60 * Scenario.slowness)
            let log = readText("\(cell.path)/\(victim)/log")
            #expect(log.split(separator: "\n").count { $0.contains("the disk stops") } == 1)
            print(log.split(separator: "\n").filter { $0.contains("the disk stops") }.joined())
            // The device takes everything now, and says so; what it lost, it lost.
            try cell.fill(victim + "/device", false)
            for name in names(in: "\(cell.path)/\(victim)/disk/segments") {
                try run(["sync", "\(cell.path)/\(victim)/disk/segments/\(name)"])
            }
            try run(["sh", "-c", "echo 1 >/proc/sys/vm/drop_caches"])
        }
    }

    @Test(
        "A23: a flush of the leading master fails once: it stops, others go on, and it comes back",
        .enabled(if: Scenario.isChosen("A23")))
    func failedFlushOfMaster() throws {
        try Scenario.run("A23", servers: 3, pause: 1_000, isStorm: true) { scenario in
            let cell = scenario.cell
            let victim = try cell.leader()
            try cell.makeLossy([victim])
            for turn in 1...2 {
                // The second time as a follower, or where it leads again, as the leader.
                let pid = try cell.pid(victim)
                scenario.workload.resetStalls()
                try cell.tellDisk(of: victim, "fail \(turn == 1 ? "sync" : "write") 2 5")
                scenario.halted = [victim]
                try eventually("\(victim) has stopped") { Cell.startTime(pid).isEmpty }
                try scenario.workload.progress(syncs: 20, limit: 30)
                try scenario.expectStalls(write: 3, read: 3)
                try cell.up()
                try scenario.workload.progress(syncs: 20, limit: 30)
            }
        }
    }

    @Test(
        "A25: one page of a hundred of a replica rots: nobody reads it, and its disk is emptied",
        .enabled(if: Scenario.isChosen("A25")))
    func rot() throws {
        try Scenario.run("A25") { scenario in
            let cell = scenario.cell
            try cell.makeLossy(cell.members.filter { $0.hasPrefix("chunkserver") })
            // Enough that a hundredth of it is too much for a good disk.
            for file in 0..<32 as Range<UInt64> {
                try writeFile("\(cell.mount)/\(file)", noise(4 << 20, seed: file), sync: true)
            }
            try scenario.copies(3, limit: 60)
            let victim = try scenario.place().primary
            try cell.tellDisk(of: victim, "rot 100 \(getpid())")
            try scenario.workload.progress(syncs: 10, reads: 10, limit: 60)
            try scenario.expectStalls(write: 5, read: 5)
            try cell.martlet("scrub", "start")
            var status = ""
            do {
                try eventually("the scrub has found and repaired it", limit: 150) {
                    status = try cell.martlet("scrub", "status", "--json").output
                    let found = ["found", "met"].compactMap { number($0, in: status) }
                    return number("damaged", in: status) == 0 && found.reduce(0, +) > 0
                        && !status.contains("\"state\": \"running\"")
                        && !status.contains("\"state\": \"comparing\"")
                }
            } catch { throw TestFailure("\(error)\n\(status)") }
            let found = ["found", "met"].compactMap { number($0, in: status) }.reduce(0, +)
            print("    A25: \(Int(found)) damaged records found or met")
            try eventually("\(victim) is drained", limit: 60 * Scenario.slowness) {
                let list = try cell.martlet("chunkserver", "list").output
                return list.split(separator: "\n").contains {
                    $0.hasPrefix(victim + " ") && $0.contains(" drained ")
                }
            }
            let health = try cell.attempt(["health"]).output
            #expect(health.contains("on \(victim) were found damaged"))
            for file in 0..<32 as Range<UInt64> {
                #expect(readBytes("\(cell.mount)/\(file)") == noise(4 << 20, seed: file))
            }
        }
    }

    @Test(
        "A26: pages of the only copy rot: EIO for those, all else is read, health tells",
        .enabled(if: Scenario.isChosen("A26")))
    func rotOfTheLast() throws {
        try Cell.with(["--chunkservers", "1", "--goal", "1"]) { cell in
            let content = noise(16 << 20, seed: 26)
            try writeFile(cell.folder + "/local", content)
            try writeFile(cell.mount + "/file", content, sync: true)
            try cell.makeLossy(["chunkserver-1"])
            // Finds the blocks that can't be read; the others must be right.
            let script = """
                from os import O_RDONLY, close, open, path, pread
                from sys import argv
                size, lost = 64 << 10, []
                for offset in range(0, path.getsize(argv[1]), size):
                    files = [open(name, O_RDONLY) for name in argv[1:3]]
                    right = pread(files[0], size, offset)
                    try: assert pread(files[1], size, offset) == right
                    except OSError as error:
                        assert error.errno == 5
                        lost.append(offset)
                    for file in files: close(file)
                print(*lost)
                """
            func lost() throws -> [Int] {
                try run(["sh", "-c", "echo 1 >/proc/sys/vm/drop_caches"])
                let files = [cell.folder + "/local", cell.mount + "/file"]
                let output = try run(["python3", "-c", script] + files, limit: 60).output
                return output.split(whereSeparator: \.isWhitespace).compactMap { Int($0) }
            }
            #expect(try lost() == [])
            try cell.tellDisk(of: "chunkserver-1", "rot 100 26")
            let places = try lost()
            print("    A26: \(places.count) of \(content.count >> 16) blocks can't be read")
            #expect(places.count > 0 && places.count < 128)
            try cell.martlet("scrub", "start")
            try eventually("health tells which file, and where") {
                let health = try cell.attempt(["health"]).output
                return health.contains("DAMAGED_RECORDS")
                    && places.contains {
                        health.contains("/file, \(Limits.block) bytes from \($0) ")
                    }
            }
            #expect(readText("\(cell.path)/chunkserver-1/log").contains("the only copy"))
            #expect(try cell.attempt(["verify", "/"]).status == 4)
            // It was the cable: the bits are right again.
            try cell.tellDisk(of: "chunkserver-1", "rot 0 0")
            #expect(try lost() == [])
        }
    }

    @Test(
        "A27: a disk says that it wrote and did not: found when it is read, the others' copy wins",
        .enabled(if: Scenario.isChosen("A27")),
        arguments: Scenario.isFull ? [false, true] : [false])
    func lostWrite(ofPrimary: Bool) throws {
        try Scenario.run("A27") { scenario in
            let cell = scenario.cell
            let place = try scenario.place()
            let victim = ofPrimary ? place.primary : place.backups[0]
            try cell.makeLossy([victim])
            try cell.settled()
            for _ in 0..<5 {
                try cell.tellDisk(of: victim, "fail write 3 0")
                try scenario.workload.progress(limit: 60)
            }
            try cell.martlet("scrub", "start")
            try scenario.workload.progress(syncs: 10, reads: 10, limit: 60)
            try scenario.expectStalls(write: 5, read: 5)
            // And as what is found at a start.
            try cell.tellDisk(of: victim, "fail write 3 0")
            try scenario.workload.progress(limit: 60)
            try cell.kill(victim)
            try cell.up()
            try scenario.workload.progress(limit: 60)
        }
    }

    @Test(
        "A37: the disk of a backup writes 1 MB/s: it leaves, and the others are fast again",
        .enabled(if: Scenario.isChosen("A37")))
    func slow() throws {
        try Scenario.run("A37", pause: 0) { scenario in
            let cell = scenario.cell
            try cell.makeLossy(cell.members.filter { $0.hasPrefix("chunkserver") })
            try cell.settled()
            try scenario.copies(3, limit: 60)
            let victim = try scenario.place().backups[0]
            let epoch = try scenario.place().epoch
            try cell.tellDisk(of: victim, "rate 1000000")
            let begin = now()
            try eventually("\(victim) has left", limit: 10 * Scenario.slowness) {
                let place = try scenario.place()
                return place.epoch > epoch && !place.backups.contains(victim)
            }
            print("    A37: gone after \(seconds(now() - begin))")
            try scenario.workload.progress(limit: 60)
            scenario.workload.resetStalls()
            try scenario.workload.progress(syncs: 10, limit: 60)
            try scenario.expectStalls(write: 1, read: 5)
            try cell.tellDisk(of: victim, "rate 0")
        }
    }

    @Test(
        "A38: flushes of the leading master take 5 s: it hands over",
        .enabled(if: Scenario.isChosen("A38")))
    func stuckLeader() throws {
        try Scenario.run("A38", servers: 3, pause: 1_000, isStorm: true) { scenario in
            let cell = scenario.cell
            try cell.makeLossy(["master-1", "master-2", "master-3"])
            let victim = try cell.leader()
            scenario.workload.resetStalls()
            try cell.tellDisk(of: victim, "delay sync 5000")
            try scenario.workload.progress(syncs: 40, reads: 40, limit: 30)
            try scenario.expectStalls(write: 2, read: 2)
            #expect(try cell.leader() != victim)
            try cell.tellDisk(of: victim, "delay sync 0")
            try scenario.workload.progress(syncs: 40, reads: 40, limit: 30)
        }
    }
}
