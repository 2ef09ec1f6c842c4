// Scenarios of dead and stopped masters, and of their disks, during a storm of changes of names
// (A14 to A16, A28 to A32), and of disks that are full (A36).

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
        "A30: rot in the middle of the logs of two of three masters: they help each other",
        .enabled(if: Scenario.isChosen("A30")))
    func rotOnMost() throws {
        try Scenario.run("A30", servers: 3, pause: 1_000, isStorm: true) { scenario in
            let cell = scenario.cell
            let leader = try cell.leader()
            _ = try follower(cell)
            try scenario.workload.progress(syncs: 40, limit: 30)
            let before = try configuration(cell)
            let masters = ["master-1", "master-2", "master-3"]
            try cell.kill(masters[0], masters[1], masters[2])
            let lost = masters.filter { $0 != leader }
            for (index, master) in lost.enumerated() {
                let folder = "\(cell.path)/\(master)/disk/segments"
                try damageEntry(of: try newestSegment(in: folder), at: Double(index + 1) / 3)
            }
            try cell.up()
            try scenario.workload.progress(syncs: 10, limit: 30)
            for master in lost {
                let log = readText("\(cell.path)/\(master)/log")
                #expect(log.contains("asks the other masters for 1 entries of its log"))
                #expect(log.contains("its log is whole again"))
                #expect(!log.contains("begins again"))
            }
            try showVote(lost[0], scenario)
            #expect(try configuration(cell) == before)
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

    @Test(
        "A29: the last group of a stopped master's log is torn: it is cut off, and nobody asks why",
        .enabled(if: Scenario.isChosen("A29")))
    func torn() throws {
        try Scenario.run("A29", servers: 3, pause: 1_000, isStorm: true) { scenario in
            let lost = try follower(scenario.cell)
            try scenario.workload.progress(syncs: 40, limit: 30)
            try scenario.cell.kill(lost)
            let folder = "\(scenario.cell.path)/\(lost)/disk/segments"
            let torn = try newestSegment(in: folder)
            let last = try tearLastGroup(of: torn)
            try votesOn(lost, scenario)
            let next = try newestSegment(in: folder)
            #expect(next.number(at: 56, bytes: 8) == torn.generation)
            #expect(next.number(at: 68, bytes: 8) < last, "the log goes on before it")
            #expect(!readText("\(scenario.cell.path)/\(lost)/log").contains("lost records"))
        }
    }

    @Test(
        "A31: the newest snapshot of a master is corrupt: it starts from the older one and the log",
        .enabled(if: Scenario.isChosen("A31")))
    func snapshot() throws {
        let options = ["--snapshot-entries", "500"]
        try Scenario.run("A31", servers: 3, options: options, pause: 1_000, isStorm: true) {
            scenario in
            let cell = scenario.cell
            let lost = try follower(cell)
            let (disk, log) = ("\(cell.path)/\(lost)/disk", "\(cell.path)/\(lost)/log")
            func written() -> Int {
                readText(log).split(separator: "\n").count { $0.contains(": snapshot of slot") }
            }
            // It is killed right after one: the next one must not have begun.
            try eventually("two snapshots", limit: 60) { written() >= 2 }
            let count = written()
            try eventually("another snapshot", limit: 60) { written() > count }
            try cell.kill(lost)
            let files = try ["checkpoint-0", "checkpoint-1"].map {
                try DiskContent("\(disk)/\($0)", magic: "MLSN")
            }
            let newest = try #require(
                files.max { $0.number(at: 24, bytes: 8) < $1.number(at: 24, bytes: 8) })
            try newest.overwrite(at: (1 << 20) + 100, [0xA5, 0x5A, 0xA5, 0x5A])
            try votesOn(lost, scenario)
            #expect(readText(log).contains("is damaged: the other one is used"))
        }
    }

    @Test(
        "A36: the disk of one master is full: no error; of all: ENOSPC for changes, reads go on",
        .enabled(if: Scenario.isChosen("A36")))
    func full() throws {
        try Cell.with { cell in
            let masters = ["master-1", "master-2", "master-3"]
            let (file, content) = (cell.mount + "/file", noise(4 << 20, seed: 36))
            try writeFile(file, content, sync: true)
            try cell.makeSmall(masters, mebibytes: 96)
            let script = """
                from os import setxattr
                from sys import argv, exit
                try:
                    for _ in range(int(argv[2])): setxattr(argv[1], "user.a", bytes(16 << 10))
                except OSError as error: exit(error.errno)
                """
            /// Long changes until one fails; the errno, 0 for none.
            func change(_ count: Int) throws -> Int32 {
                try Running(["python3", "-c", script, file, "\(count)"]).wait().status
            }
            let first = try cell.leader()
            try cell.fillDisk(of: first)
            #expect(try change(1_000) == 0)
            #expect(try cell.leader() != first)
            for master in masters where master != first { try cell.fillDisk(of: master) }
            #expect(try change(10_000) == ENOSPC)
            #expect(mkdir(cell.mount + "/folder", 0o755) == -1 && errno == ENOSPC)
            // One starts without any space, and takes part all the same.
            try cell.kill(try cell.leader())
            try cell.up()
            try run(["sh", "-c", "echo 3 >/proc/sys/vm/drop_caches"])
            #expect(readBytes(file) == content)
            #expect(names(in: cell.mount) == ["file"])
            #expect(try change(1) == ENOSPC)
            for master in masters { try cell.fillDisk(of: master, false) }
            try eventually("changes go on") { try change(1) == 0 }
            #expect(try change(200) == 0)
            #expect(try cell.attempt(["fsck"]).status == 0)
            let report = try cell.martlet("health").output
            #expect(!report.contains("_DOWN"), "\(report)")
        }
    }

    @Test(
        "A39: the wall clock of each master in turn is an hour off: no stall, no way back",
        .enabled(if: Scenario.isChosen("A39")))
    func wallClocks() throws {
        try Scenario.run("A39", servers: 3, options: ["--wall-error"], pause: 20_000) { scenario in
            let cell = scenario.cell
            // It stays open: where its session expires, it takes no more.
            let file = open(cell.mount + "/open", O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
            defer { close(file) }
            // Written bytes have the time by what their client heard last, names by the log.
            var latest: [Int64] = [0, 0]
            func look(_ made: String) throws {
                let bytes = Array(made.utf8)
                guard pwrite(file, bytes, bytes.count, 0) == bytes.count, fsync(file) == 0,
                    mkdir(made, 0o755) == 0
                else { throw TestFailure("\(made): errno \(errno)") }
                var (written, folder) = (stat(), stat())
                guard fstat(file, &written) == 0, stat(made, &folder) == 0 else {
                    throw TestFailure("\(made): errno \(errno)")
                }
                for (kind, time) in [written.st_mtim, folder.st_mtim].enumerated() {
                    let next = Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
                    #expect(next >= latest[kind], "\(made): back by \(latest[kind] - next) ns")
                    latest[kind] = next
                }
            }
            let start = time(nil)
            for master in ["master-1", "master-2", "master-3"] {
                let clock = "\(cell.path)/\(master)/wall-error"
                try writeFile(clock, Array("3600".utf8))
                if try cell.leader() != master {
                    try cell.martlet("master", "transfer", String(master.suffix(1)))
                }
                for error in [3_600, -3_600] {
                    try writeFile(clock, Array("\(error)".utf8))
                    for number in 0..<20 {
                        try look("\(cell.mount)/\(master)-\(error)-\(number)")
                        usleep(100_000)
                    }
                    try scenario.workload.progress(syncs: 10, limit: 30)
                    try scenario.expectStalls(write: 1, read: 1)
                }
                unlink(clock)
            }
            #expect(latest[1] / 1_000_000_000 > Int64(start) + 3_000, "no clock was wrong")
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
        let before = try configuration(cell)
        try cell.up()
        try eventually("\(lost) votes from its disk as it is now") {
            try configuration(cell) > before
                && !cell.martlet("master", "list").output.contains("other disk")
        }
        try showVote(lost, scenario)
    }

    private func configuration(_ cell: Cell) throws -> Double {
        number("configuration", in: try cell.martlet("master", "list", "--json").output) ?? 0
    }

    /// Starts it, and shows that its vote counts as before.
    private func votesOn(_ lost: String, _ scenario: Scenario) throws {
        let before = try configuration(scenario.cell)
        try scenario.cell.up()
        try showVote(lost, scenario)
        #expect(try configuration(scenario.cell) == before)
    }

    /// All went on without a stall, and goes on without another one.
    private func showVote(_ lost: String, _ scenario: Scenario) throws {
        let cell = scenario.cell
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
        let segment = try newestSegment(in: folder)
        let middle = segment.end / 2
        guard middle > 32 << 10 else { throw TestFailure("\(folder): next to no log") }
        let damaged = segment.bytes[middle..<(middle + (16 << 10))].map { $0 ^ 0x10 }
        try segment.overwrite(at: middle, damaged)
    }

    /// Flips a byte of what one entry says.
    private func damageEntry(of segment: DiskContent, at part: Double) throws {
        let start = Int(Double(segment.end) * part) / 64 * 64
        let record = stride(from: start, to: segment.end, by: 64).first { record in
            segment.bytes[record..<(record + 6)] == [0x4D, 0x4C, 0x52, 0x52, 1, 1]
                && segment.number(at: record + 24, bytes: 8) == segment.generation
                && segment.bytes[record + 64] == 2
        }
        guard let record else { throw TestFailure("\(segment.path): no entry") }
        let payload = record + 64 + Int(segment.number(at: record + 8, bytes: 4))
        try segment.overwrite(at: payload, [segment.bytes[payload] ^ 0x10])
    }

    private func newestSegment(in folder: String) throws -> DiskContent {
        let all = names(in: folder).compactMap {
            try? DiskContent("\(folder)/\($0)", magic: "MLSG")
        }
        guard let newest = all.max(by: { $0.generation < $1.generation }) else {
            throw TestFailure("no log in \(folder)")
        }
        return newest
    }

    /// As if the power had failed in the middle of the last group with records; the number of its
    /// last one.
    private func tearLastGroup(of segment: DiskContent) throws -> UInt64 {
        let pages = stride(from: segment.end / 4_096 * 4_096, to: 0, by: -4_096)
        let last = pages.first { page in
            segment.bytes[page..<(page + 6)] == [0x4D, 0x4C, 0x52, 0x52, 1, 255]
                && segment.number(at: page + 24, bytes: 8) == segment.generation
                && segment.number(at: page + 68, bytes: 4) > 0
        }
        guard let last else { throw TestFailure("\(segment.path): no group") }
        let length = Int(segment.number(at: last + 64, bytes: 4))
        let group = segment.bytes[last..<(last + length)]
        let middle = ((group.lastIndex { $0 != 0 } ?? last) + last) / 2
        try segment.overwrite(
            at: middle, [UInt8](repeating: 0, count: segment.end + 1 - middle))
        let count = segment.number(at: last + 68, bytes: 4)
        return segment.number(at: last + 16, bytes: 8) + count - 1
    }
}

/// A file of a disk as docs/FORMATS.md has it.
private struct DiskContent {
    let path: String
    let bytes: [UInt8]

    init(_ path: String, magic: String) throws {
        self.path = path
        bytes = readBytes(path)
        guard bytes.starts(with: magic.utf8) else { throw TestFailure("\(path): no \(magic)") }
    }

    func number(at offset: Int, bytes count: Int) -> UInt64 {
        bytes[offset..<(offset + count)].reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
    /// Of a segment.
    var generation: UInt64 { number(at: 32, bytes: 8) }
    /// Its last byte that is not zero.
    var end: Int { bytes.lastIndex { $0 != 0 } ?? 0 }

    func overwrite(at offset: Int, _ content: [UInt8]) throws {
        let file = open(path, O_WRONLY | O_CLOEXEC)
        defer { close(file) }
        guard pwrite(file, content, content.count, off_t(offset)) == content.count,
            fsync(file) == 0
        else { throw TestFailure("\(path): errno \(errno)") }
    }
}
