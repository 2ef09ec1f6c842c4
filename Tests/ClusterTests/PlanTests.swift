// Plans, drains and removals that must not be carried out: refused with the reason, and nothing
// changed (proof 6). Disks in a wrong place are in DiskTests.

import Base
import Glibc
import Testing

@Suite(.serialized) struct PlanTests {
    /// A plan's text with its digest made again.
    private func sealed(_ lines: [Substring]) throws -> String {
        let text = lines.dropLast().joined(separator: "\n") + "\n"
        let script = "printf %s \"$1\" | sha256sum | cut -c1-64"
        let digest = try run(["sh", "-c", script, "sh", text]).output
        return text + "digest \(digest)"
    }

    /// A plan's first move with a word replaced.
    private func altered(_ lines: [Substring], word: Int, _ new: String) throws -> String {
        var lines = lines
        let index = try #require(lines.firstIndex { $0.hasPrefix("move ") })
        var words = lines[index].split(separator: " ")
        words[word] = Substring(new)
        lines[index] = Substring(words.joined(separator: " "))
        return try sealed(lines)
    }

    @Test("a plan of another cell, an altered, a senseless and an old one are refused")
    func plans() throws {
        try Cell.with(["--capacity", "512MiB"], mounted: false) { cell in
            // Many files, so that many sets have something.
            for number in 0..<12 {
                let file = "\(cell.folder)/data-\(number)"
                try writeFile(file, noise(4 << 20, seed: 61))
                try cell.martlet("put", file, "/data-\(number)")
            }
            try cell.up(["--chunkservers", "4"])
            try cell.settled()
            let plan = cell.folder + "/plan"
            try cell.martlet("rebalance", "plan", "-o", plan, "--threshold", "1")
            let text = readText(plan)
            let lines = text.split(separator: "\n")
            let move = try #require(lines.first { $0.hasPrefix("move ") }).split(separator: " ")
            #expect(try sealed(lines) == text)
            let other = String(lines[1].dropLast()) + (lines[1].hasSuffix("0") ? "1" : "0")
            let foreign = try sealed([lines[0], Substring(other)] + lines[2...])
            let before = try cell.martlet("info", "/data-0").output
            let cases: [(String, String)] = [
                (text.replacing(" \(move[2]) ", with: " 77 "), "was altered or cut"),
                (String(text.dropLast(20)), "was altered or cut"),
                (lines.dropLast().joined(separator: "\n"), "was altered or cut"),
                (foreign, "is a plan of cell"),
                (try altered(lines, word: 1, "999999"), "set 999999"),
                (try altered(lines, word: 4, "12345"), "set \(move[1])"),
                (try altered(lines, word: 4, String(move[3])), "set \(move[1])"),
                (try altered(lines, word: 2, "77"), "set \(move[1])"),
            ]
            for (content, words) in cases {
                try writeFile(cell.folder + "/bad", Array(content.utf8))
                let outcome = try cell.attempt(["rebalance", "apply", cell.folder + "/bad"])
                #expect(outcome.status == 9 && outcome.errors.contains(words), "\(outcome.errors)")
            }
            #expect(try cell.attempt(["rebalance", "apply", cell.path + "/cell.json"]).status == 1)
            #expect(try cell.martlet("info", "/data-0").output == before)
            // A set goes on to another epoch when a member restarts.
            try cell.kill("chunkserver-1", "chunkserver-2", "chunkserver-3")
            try cell.up()
            let old = try cell.attempt(["rebalance", "apply", plan])
            #expect(old.status == 9 && old.errors.contains("set "), "\(old.errors)")
            let status = try cell.martlet("rebalance", "status").output
            #expect(status.contains("no plan was ever applied"))
        }
    }

    @Test("the last servers are not drained, and what holds a copy is not removed")
    func drains() throws {
        try Cell.with(["--chunkservers", "4"], mounted: false) { cell in
            try writeFile(cell.folder + "/data", noise(1 << 20, seed: 62))
            try cell.martlet("put", cell.folder + "/data", "/data")
            func refused(_ words: String..., because text: String, status: Int32 = 9) throws {
                let outcome = try cell.attempt(words)
                #expect(
                    outcome.status == status && outcome.errors.contains(text),
                    "\(words): \(outcome.errors)")
            }
            try refused("chunkserver", "drain", "nobody", because: "chunkserver-1", status: 8)
            try refused("chunkserver", "remove", "12345", because: "chunkserver-1", status: 8)
            try refused("scrub", "start", "nobody", because: "nobody", status: 8)
            try cell.martlet("chunkserver", "drain", "chunkserver-1")
            // Goal 3: of three that are left none may go.
            try refused("chunkserver", "drain", "chunkserver-2", because: "3", status: 9)
            let list = try cell.martlet("chunkserver", "list").output
            #expect(list.split(separator: "\n").count { $0.contains(" drain") } == 1, "\(list)")
            try refused("chunkserver", "remove", "chunkserver-2", because: "copy")
            // The only copy that is there, of a server that is down.
            try cell.kill("chunkserver-2")
            try refused("chunkserver", "remove", "chunkserver-2", because: "copy")
            try cell.martlet("chunkserver", "remove", "chunkserver-1")
            #expect(try !cell.martlet("chunkserver", "list").output.contains("chunkserver-1"))
            try cell.martlet("get", "/data", cell.folder + "/got")
            #expect(firstDifference(cell.folder + "/data", cell.folder + "/got") == nil)
        }
    }
}
