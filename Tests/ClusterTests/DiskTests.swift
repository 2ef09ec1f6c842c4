// Chunk servers with several disks: each disk fails, is drained and is recognised by itself.

import Base
import Glibc
import Testing

@Suite(.serialized) struct DiskTests {
    /// The state of a server or disk in `chunkserver list`.
    private func state(_ name: String, _ cell: Cell) throws -> String {
        let list = try cell.martlet("chunkserver", "list").output
        let row = list.split(separator: "\n").first { $0.hasPrefix(name + " ") }
        return row.map(String.init) ?? ""
    }

    @Test("A disk that fails stops alone: its server goes on, the data stays, health names it")
    func failure() throws {
        try Cell.with(["--disks", "2"], mounted: false) { cell in
            try eventually("all six disks are up") {
                try cell.martlet("chunkserver", "list", "--json").output
                    .split(separator: "\n").count { $0.contains("\"up\": true") } == 6
            }
            let first = noise(8 << 20, seed: 51)
            try writeFile(cell.folder + "/first", first)
            try cell.martlet("put", cell.folder + "/first", "/first")
            // No set has two copies on one server.
            try eventually("fsck is clean") { try cell.attempt(["fsck"]).status == 0 }

            // The next segment can't be made there.
            let disk = cell.path + "/chunkserver-1/disk-2"
            #expect(rename(disk + "/segments", disk + "/gone") == 0)
            let pid = try cell.pid("chunkserver-1")
            let start = Cell.startTime(pid)
            try writeFile(cell.folder + "/more", noise(32 << 20, seed: 52))
            // Placement decides what goes there and when: until its segments are full.
            var files = 0
            while try state("chunkserver-1/2", cell).contains(" up "), files < 12 {
                try cell.martlet("put", cell.folder + "/more", "/more-\(files)")
                files += 1
            }
            try eventually("health names the disk") {
                let outcome = try cell.attempt(["health", "--json"])
                return outcome.status == 1 && outcome.output.contains("DISK_FAILED")
                    && outcome.output.contains("chunkserver-1/2")
            }
            #expect(Cell.startTime(pid) == start, "the process goes on")
            #expect(try state("chunkserver-1/1", cell).contains(" up "))
            #expect(try !state("chunkserver-1/2", cell).contains(" up "))
            for (put, name) in [("first", "first")] + (0..<files).map({ ("more", "more-\($0)") }) {
                try cell.martlet("get", "/" + name, "\(cell.folder)/got-\(name)")
                let got = "\(cell.folder)/got-\(name)"
                #expect(firstDifference("\(cell.folder)/\(put)", got) == nil)
            }

            // Put right, it is there again with the next start.
            #expect(rename(disk + "/gone", disk + "/segments") == 0)
            try cell.kill("chunkserver-1")
            try cell.up()
            // Sets that have no copy there wait for the repair delay.
            try eventually("all is well", limit: 120) {
                try cell.attempt(["health"]).status == 0
            }
            #expect(try state("chunkserver-1/2", cell).contains(" up "))
        }
    }

    @Test("NAME is all disks of a server, NAME/2 one; up keeps the number of disks")
    func names() throws {
        try Cell.with(["--disks", "2", "--chunkservers", "2"], mounted: false) { cell in
            try eventually("all four disks are up") {
                try cell.martlet("chunkserver", "list", "--json").output
                    .split(separator: "\n").count { $0.contains("\"up\": true") } == 4
            }
            try cell.martlet("chunkserver", "drain", "chunkserver-1", "--detach")
            for name in ["chunkserver-1/1", "chunkserver-1/2"] {
                #expect(try state(name, cell).contains("drain"), "\(name)")
            }
            try cell.martlet("chunkserver", "undrain", "chunkserver-1/1")
            #expect(try !state("chunkserver-1/1", cell).contains("drain"))
            #expect(try state("chunkserver-1/2", cell).contains("drain"))
            #expect(try cell.attempt(["chunkserver", "drain", "chunkserver"]).status == 8)
            let other = try cell.attempt(["up", cell.path, "--disks", "3"])
            #expect(other.status == 2 && other.errors.contains("--disks"))
            try cell.up(["--chunkservers", "3"])
            try eventually("the new one has two disks too") {
                try state("chunkserver-3/2", cell).contains(" up ")
            }
        }
    }

    @Test("A disk of another server, and a copy of a disk, are refused and left as they are")
    func strangers() throws {
        try Cell.with(mounted: false) { cell in
            try writeFile(cell.folder + "/data", noise(1 << 20, seed: 53))
            try cell.martlet("put", cell.folder + "/data", "/data")
            try cell.martlet("down", cell.path)
            let (own, other) = (cell.path + "/chunkserver-1", cell.path + "/chunkserver-2/disk")
            try run(["cp", "-a", own + "/disk", cell.folder + "/copy"])
            let cases: [([String], String)] = [
                (["--disk", other], "of chunk server"),
                (["--disk", own + "/disk", "--disk", other], "of chunk server"),
                (["--disk", cell.path + "/master-1/disk"], "of master 1"),
                (["--disk", own + "/disk", "--disk", cell.folder + "/copy"], "the same disk"),
            ]
            let folders = [own + "/disk", other, cell.folder + "/copy"]
            let before = folders.map { readBytes($0 + "/superblock") }
            for (disks, words) in cases {
                let outcome = try cell.attempt(
                    [
                        "chunkserver", "serve", "--dir", own, "--listen", "127.0.0.1:0",
                        "--key", cell.path + "/cell.key", "--masters", "1=127.0.0.1:1",
                    ] + disks)
                #expect(outcome.status == 9 && outcome.errors.contains(words), "\(outcome.errors)")
            }
            #expect(folders.map { readBytes($0 + "/superblock") } == before)
            #expect(before.allSatisfy { $0.count == 16_384 })
            try cell.up()
            try cell.martlet("get", "/data", cell.folder + "/got")
            #expect(firstDifference(cell.folder + "/data", cell.folder + "/got") == nil)
        }
    }
}
