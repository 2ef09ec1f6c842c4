// What an operator sees: health with its codes, explain and info, in a live cell that loses
// processes.

import Base
import Glibc
import Testing

@Suite(.serialized) struct OperatorTests {
    /// The codes of a run of `health --json`.
    private func codes(_ outcome: Outcome) -> [String] {
        outcome.output.split(separator: "\n").compactMap { line in
            guard let range = line.firstRange(of: "\"id\": \"") else { return nil }
            return String(line.suffix(from: range.upperBound).prefix { $0 != "\"" })
        }
    }
    private func health(_ cell: Cell) throws -> Outcome {
        try cell.attempt(["health", "--json", "--deadline", "5"])
    }

    @Test("health names a dead server, explain what its sets wait for; all is well when it is back")
    func server() throws {
        try Cell.with(mounted: false) { cell in
            try writeFile(cell.folder + "/data", noise(5 << 20, seed: 41))
            try cell.martlet("put", cell.folder + "/data", "/data")
            try eventually("all is well") { try health(cell).status == 0 }
            let well = try cell.attempt(["health"])
            #expect(well.output.hasPrefix("MARTLET OK\n"))
            #expect(well.output.contains("redundancy: full"))

            try cell.kill("chunkserver-2")
            var outcome = try health(cell)
            try eventually("its sets go on without it") {
                outcome = try health(cell)
                return outcome.status == 1 && codes(outcome).contains("SET_UNDER_REPLICATED")
                    && !codes(outcome).contains("SET_NOT_SERVING")
            }
            #expect(codes(outcome).contains("SERVER_DOWN"))
            #expect(outcome.output.contains("\"chunkserver-2\""))
            let text = try cell.attempt(["health"])
            #expect(text.status == 1 && text.output.hasPrefix("MARTLET WARNING: SERVER_DOWN"))
            #expect(text.output.contains("next: martlet explain "))

            let subject = try #require(outcome.output.firstRange(of: "\"set "))
            let set = String(
                outcome.output.suffix(from: subject.upperBound).prefix { $0.isNumber })
            let explained = try cell.martlet("explain", set).output
            #expect(explained.contains("2 of 3 copies"))
            #expect(explained.contains("chunkserver-2: is on a server that is down"))
            #expect(explained.contains("under way: another copy is made; waits for "))
            let json = try cell.martlet("explain", set, "--json").output
            #expect(json.contains("\"kind\": \"repair\"") && json.contains("\"waits_for\": \""))
            let dead = try cell.martlet("explain", "chunkserver-2").output
            #expect(dead.contains("down: no report"))
            #expect(try cell.attempt(["explain", "nobody"]).status == 8)
            #expect(try cell.attempt(["explain", "999999"]).status == 8)

            try cell.up()
            try eventually("all is well again", limit: 60) { try health(cell).status == 0 }
            #expect(try cell.martlet("explain", set).output.contains("it has its 3 copies"))
        }
    }

    @Test("health is critical without a majority of masters, unknown with a wrong key or option")
    func masters() throws {
        try Cell.with(mounted: false) { cell in
            let first = try cell.leader()
            let others = ["master-1", "master-2", "master-3"].filter { $0 != first }
            try cell.kill(others[0])
            try eventually("health says so") { codes(try health(cell)) == ["MASTER_DOWN"] }
            #expect(try health(cell).status == 1)
            try cell.kill(others[1])
            let outcome = try health(cell)
            #expect(outcome.status == 2 && codes(outcome) == ["NO_QUORUM"], "\(outcome.output)")
            try cell.up()
            try eventually("all is well again") { try health(cell).status == 0 }

            #expect(try cell.attempt(["health", "--jsno"]).status == 3)
            let key = readText(cell.path + "/cell.key")
            let wrong = String(repeating: "0", count: 64)
            try writeFile(cell.path + "/cell.key", Array((wrong + key.dropFirst(64)).utf8))
            #expect(try health(cell).status == 3)
            try writeFile(cell.path + "/cell.key", Array(key.utf8))
            // A stranger's bytes are no frame: they are counted.
            let leader = try cell.martlet("status").output.split(separator: "\n")
                .first { $0.contains(" leader ") }
            let port = leader.flatMap { $0.split(separator: ":").last }.map {
                $0.prefix { $0.isNumber }
            }
            let socket = "/dev/tcp/127.0.0.1/\(try #require(port))"
            try run(["bash", "-c", "printf '%0100d' 0 > \(socket)"])
            try eventually("the status tells of it") {
                let status = try cell.martlet("status", "--json").output
                return number("bad_frames", in: status) ?? 0 > 0
            }
        }
    }

    @Test("info shows every copy of every chunk; explain PATH why it is there")
    func info() throws {
        try Cell.with(["--chunkservers", "4"], mounted: false) { cell in
            // Two chunks.
            try writeFile(cell.folder + "/data", noise(65 << 20, seed: 42))
            try cell.martlet("put", cell.folder + "/data", "/data")
            try cell.settled()
            // Servers report four times a second, each at its own time: until all have.
            var json = ""
            try eventually("every copy is reported as it is") {
                json = try cell.martlet("info", "/data", "--json").output
                return !json.contains("\"current\": false")
            }
            #expect(number("size", in: json) == Double(65 << 20))
            #expect(number("chunks", in: json) == 2)
            #expect(number("fewest_copies", in: json) == 3)
            #expect(json.contains("\"primary\": true") && json.contains("\"current\": true"))
            #expect(!json.contains("\"current\": false"))
            // Random bytes do not compress.
            #expect(number("stored_estimate", in: json) ?? 0 > Double(60 << 20))
            let text = try cell.martlet("info", "/data", "/").output
            #expect(text.contains("2 of 2 chunks were written"))
            #expect(text.contains("primary") && text.contains("backup"))
            #expect(text.contains("directory, inode 1"))
            let explained = try cell.martlet("explain", "/data").output
            #expect(explained.contains("WHY HERE") && explained.contains("another server, on"))
            #expect(explained.contains("is as good a place"))
            #expect(try cell.attempt(["info", "/none"]).status == 8)

            // A drain with nowhere to go says what it waits for.
            try cell.kill("chunkserver-4")
            try cell.martlet("chunkserver", "drain", "chunkserver-1", "--detach")
            try eventually("explain names the blocker") {
                let drain = try cell.martlet("explain", "chunkserver-1").output
                return drain.contains("draining: ") && drain.contains("of them wait for a place")
            }
            let drain = try cell.attempt([
                "chunkserver", "drain", "chunkserver-1", "--patience", "2",
            ])
            #expect(drain.status == 124 && drain.errors.contains("Nothing moved for 2 s"))
            #expect(drain.errors.contains("martlet chunkserver list shows how far"))
            let outcome = try health(cell)
            #expect(codes(outcome).contains("COPYING_BLOCKED"), "\(outcome.output)")
            #expect(codes(outcome).contains("TOO_FEW_PLACES"))
        }
    }
}
