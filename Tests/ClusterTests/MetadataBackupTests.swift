// Backups of the metadata: a dump under load, and a cell that starts from it after all masters are
// lost, while its chunk servers know more (A34).

import Base
import Glibc
import Testing

@Suite(.serialized) struct MetadataBackupTests {
    @Test(
        "A34: all masters from an old dump: what it has is read, nothing is deleted, ids are new",
        .enabled(if: Scenario.isChosen("A34")))
    func restore() throws {
        try Cell.with(["--chunkservers", "4"], repairDelay: 10) { cell in
            var tree = TreeMaker(seed: 34, root: cell.mount + "/tree")
            try tree.make(files: 120, large: 3)
            try run(["cp", "-a", cell.mount + "/tree", cell.folder + "/tree"])
            try writeFile(cell.mount + "/changed", noise(300_000, seed: 1), sync: true)
            let file = cell.folder + "/dump"
            try dumpUnderStorm(cell, file)
            try goOn(cell)
            let stored = try storedBytes(cell)
            let masters = ["master-1", "master-2", "master-3"]
            _ = try cell.attempt(["umount", cell.mount])
            for master in masters { try cell.kill(master) }
            for master in masters { try run(["rm", "-r", "\(cell.path)/\(master)/disk"]) }
            try expectRefusals(cell, file)
            try cell.martlet("meta", "load", file)
            try expectRefused(cell, ["meta", "load", file], "holds a master already")
            try cell.up()
            let held = try cell.attempt(["health"])
            #expect(held.status == 2 && held.output.contains("SETS_HELD"), "\(held.output)")
            #expect(held.output.contains("martlet meta adopt"))
            #expect(try storedBytes(cell) >= stored)
            try expectHeldWithoutOne(cell)
            try cell.martlet("meta", "adopt", "--deadline", "90")
            try cell.settled()
            try expectContent(cell, stored)
            // All of it again after everything was started anew.
            _ = try cell.attempt(["umount", cell.mount])
            for member in cell.members where member != "mount" { try cell.kill(member) }
            try cell.up()
            try cell.settled()
            try expectContent(cell, stored)
        }
    }

    /// A dump of a cell in which names change all the time.
    private func dumpUnderStorm(_ cell: Cell, _ file: String) throws {
        let loop = """
            i=0; while :; do echo $i > storm-$i; mv storm-$i moved-$i; ln moved-$i link-$i
            i=$((i+1)); done
            """
        let storm = try Running(["sh", "-c", "cd \(cell.mount) && \(loop)"])
        try eventually("the storm blows") {
            access(cell.mount + "/link-20", F_OK) == 0
        }
        try cell.martlet("meta", "dump", file)
        storm.signal(SIGKILL)
        _ = try storm.wait(limit: 10)
        #expect(access(cell.mount + "/moved-20", F_OK) == 0)
        let facts = try cell.martlet("meta", "verify", file, "--json").output
        #expect(number("files", in: facts)! > 140 && number("sets", in: facts)! > 0)
        #expect(try cell.martlet("meta", "verify", file).output.contains("is whole"))
        try expectRefused(cell, ["meta", "dump", file], "exists already")
        try cell.martlet("meta", "dump", file + "-2")
        try cell.martlet("meta", "dump", file + "-2", "--force")
        #expect(names(in: cell.folder).allSatisfy { !$0.hasSuffix(".new") })
    }

    /// The cell goes on after the dump: new, changed and removed files, and new epochs.
    private func goOn(_ cell: Cell) throws {
        for index in 0..<30 {
            try writeFile(cell.mount + "/after-\(index)", noise(50_000, seed: UInt64(index)))
        }
        try writeFile(cell.mount + "/changed", noise(300_000, seed: 2), sync: true)
        unlink(cell.mount + "/moved-3")
        try cell.kill("chunkserver-1")
        try writeFile(cell.mount + "/after", noise(500_000, seed: 3), sync: true)
        try cell.up()
        try cell.settled()
        sync()
    }

    private func storedBytes(_ cell: Cell) throws -> Int {
        let json = try cell.martlet("chunkserver", "list", "--json").output
        return json.split(separator: "\n").compactMap { line in
            line.contains("\"stored\":") ? number("stored", in: line).map { Int($0) } : nil
        }.reduce(0, +)
    }

    private func expectRefused(_ cell: Cell, _ words: [String], _ reason: String) throws {
        let outcome = try cell.attempt(words)
        #expect(outcome.status == 9, "\(words): \(outcome.errors)")
        #expect(outcome.errors.contains(reason), "\(words): \(outcome.errors)")
        #expect(outcome.output == "")
    }

    private func expectRefusals(_ cell: Cell, _ file: String) throws {
        var bytes = readBytes(file)
        try writeFile(file + "-cut", Array(bytes.dropLast(100)))
        try expectRefused(cell, ["meta", "load", file + "-cut"], "was cut off within block")
        try expectRefused(cell, ["meta", "verify", file + "-cut"], "was cut off within block")
        bytes[bytes.count / 2] ^= 4
        try writeFile(file + "-bad", bytes)
        try expectRefused(cell, ["meta", "load", file + "-bad"], "damaged or altered")
        let (key, folder) = (cell.folder + "/other.key", cell.folder + "/other")
        try cell.martlet("init", "--masters", "127.0.0.1", "--key", key)
        try expectRefused(
            cell,
            [
                "meta", "load", file, "--dir", folder, "--id", "1", "--peers", "1=127.0.0.1:1",
                "--key", key,
            ], "is of cell")
        #expect(access(folder, F_OK) != 0 && access(cell.path + "/master-1/disk", F_OK) != 0)
    }

    /// While one chunk server is down, nothing is adopted.
    private func expectHeldWithoutOne(_ cell: Cell) throws {
        try cell.kill("chunkserver-2")
        let waiting = try cell.attempt(["meta", "adopt", "--deadline", "4"])
        #expect(waiting.status == 3, "\(waiting.errors)")
        #expect(waiting.errors.contains("chunkserver-2 has not reported"), "\(waiting.errors)")
        try cell.up()
    }

    private func expectContent(_ cell: Cell, _ stored: Int) throws {
        try cell.up(["--mount", cell.mount])
        #expect(TreeComparison.differences(cell.folder + "/tree", cell.mount + "/tree") == [])
        #expect(readText(cell.mount + "/moved-20") == "20\n")
        // It was cut to nothing after the dump, so its chunk was dropped, or will be: the old
        // content or an error, and nothing else.
        let changed = cell.mount + "/changed"
        if readBytes(changed) != noise(300_000, seed: 1) {
            let errors = try Running(["cat", changed]).wait().errors
            #expect(errors.contains("Input/output error"), "\(errors)")
        }
        #expect(access(cell.mount + "/after", F_OK) != 0)
        for index in 0..<40 {
            let path = cell.mount + "/new-\(index)-\(now())"
            try writeFile(path, noise(60_000, seed: 99 + UInt64(index)), sync: true)
            #expect(readBytes(path) == noise(60_000, seed: 99 + UInt64(index)))
        }
        let health = try cell.attempt(["health"])
        #expect(!health.output.contains("SETS_HELD"), "\(health.output)")
        #expect(try storedBytes(cell) >= stored)
        let logs = cell.members.map { readText("\(cell.path)/\($0)/log") }.joined()
        #expect(!logs.contains("halted") && !logs.contains("Fatal error"))
    }
}
