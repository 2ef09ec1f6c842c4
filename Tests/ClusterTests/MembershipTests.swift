// The masters of a cell change while programs write: added, replaced, killed, removed (M17, M18).

import Base
import Glibc
import Testing

@Suite(.serialized) struct MembershipTests {
    @Test("masters are added, wiped and replaced, killed and removed under load; nothing is lost")
    func changes() throws {
        try Cell.with { cell in
            let tree = cell.folder + "/tree"
            var maker = TreeMaker(seed: 21, root: tree)
            try maker.make(files: 300, large: 4)
            try cell.martlet("put", "-r", tree, "/tree")
            mkdir(cell.mount + "/load", 0o755)
            let load = try Load(cell)

            try eventually("every vote has a disk") { try configuration(cell) >= 2 }
            let added = try cell.martlet("master", "add")
            #expect(added.output.contains("master 4 has a vote"))
            #expect(try voters(cell) == 4)

            // A master that lost its disk has no vote under its old name; its place is given to
            // another one.
            let lost = try cell.leader() == "master-1" ? "master-2" : "master-1"
            try cell.kill(lost)
            try run(["rm", "-r", "\(cell.path)/\(lost)/disk"])
            try cell.up()
            try eventually("it is known to be another disk") {
                try list(cell).contains("\"state\": \"other disk\"")
            }
            let id = String(lost.suffix(1))
            let replaced = try cell.martlet("master", "replace", id, "--detach")
            #expect(replaced.output.contains("master 5 takes its place: martlet master list"))
            try eventually("master \(id) is replaced") {
                try voters(cell) == 4 && !list(cell).contains("\"state\": \"other disk\"")
            }
            // Nobody waited to end it.
            try cell.martlet("master", "remove", id)
            #expect(!cell.members.contains(lost))
            #expect(cell.members.contains("master-5"))

            let killed = try cell.leader()
            try cell.kill(killed)
            try eventually("another leads") { try cell.leader() != killed }
            try cell.up()
            let leading = try cell.leader()
            try cell.martlet("master", "remove", String(leading.suffix(1)))
            #expect(try voters(cell) == 3)
            #expect(try cell.leader() != leading)
            let before = try cell.leader()
            try cell.martlet("master", "transfer")
            #expect(try cell.leader() != before)

            try load.end()
            try cell.martlet("get", "-r", "/tree", cell.folder + "/got")
            #expect(TreeComparison.differences(tree, cell.folder + "/got") == [])
            // All of it is there again from disks and cell.json alone.
            try cell.martlet("down", cell.path)
            try cell.up()
            try cell.martlet("get", "-r", "/tree", cell.folder + "/again")
            #expect(TreeComparison.differences(tree, cell.folder + "/again") == [])
            try load.check()
            #expect(try voters(cell) == 3)
        }
    }

    @Test("what can't be done with masters is refused, says why, and changes nothing")
    func refusals() throws {
        try Cell.with(mounted: false) { cell in
            try eventually("every vote has a disk") { try configuration(cell) >= 2 }
            let before = try configuration(cell)
            func refused(_ words: [String], _ status: Int32, _ reason: String) throws {
                let outcome = try cell.attempt(["master"] + words + ["--deadline", "10"])
                #expect(outcome.status == status, "\(words): \(outcome.errors)")
                #expect(outcome.errors.contains(reason), "\(words): \(outcome.errors)")
            }
            try refused(["remove", "1"], 9, "fewer than 3 masters")
            try refused(["remove", "9"], 8, "there is no master 9")
            try refused(["replace", "9"], 8, "there is no master 9")
            try refused(["transfer", "9"], 8, "there is no master 9")
            let leader = String(try cell.leader().suffix(1))
            try refused(["transfer", leader], 9, "leads already")
            try refused(["add", "4=127.0.0.1:1"], 6, "can't be added")
            try refused(["add", "nonsense"], 2, "ID=HOST:PORT")

            // A master of another cell, and one that is no newcomer.
            let key = cell.folder + "/other.key"
            try run([Cell.program, "init", "--masters", "127.0.0.1:9999", "--key", key])
            let stranger = try newcomer(cell, 4, port: 27_461, key: key, ["--join"])
            try refused(["add", "4=127.0.0.1:27461"], 7, "can't be added")
            let founder = try newcomer(
                cell, 5, port: 27_462, key: cell.path + "/cell.key",
                ["--peers", "5=127.0.0.1:27462"])
            try refused(["add", "5=127.0.0.1:27462"], 9, "is not new")
            for running in [stranger, founder] { running.signal(SIGKILL) }

            #expect(try configuration(cell) == before && voters(cell) == 3)
            #expect(cell.members.filter { $0.hasPrefix("master-") }.count == 3)
            // Who knows one master finds the leader, whichever it is.
            let addresses = try list(cell).split(separator: "\"").map(String.init).filter {
                $0.hasPrefix("127.0.0.1:")
            }
            #expect(addresses.count == 3)
            for address in addresses {
                try run([
                    Cell.program, "status", "--cell", address, "--key", cell.path + "/cell.key",
                ])
            }
        }
    }

    private func newcomer(
        _ cell: Cell, _ id: Int, port: Int, key: String, _ options: [String]
    ) throws -> Running {
        let peers = options.contains("--peers") ? [] : ["--peers", "\(id)=127.0.0.1:\(port)"]
        let running = try cell.start(
            [
                "master", "serve", "--dir", "\(cell.folder)/new-\(id)", "--id", "\(id)",
                "--listen", "127.0.0.1:\(port)", "--key", key, "--segment-size", "8MiB",
            ] + peers + options)
        try eventually("master \(id) listens") {
            try Running(["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/\(port)"]).wait().status == 0
        }
        return running
    }

    private func list(_ cell: Cell) throws -> String {
        try cell.martlet("master", "list", "--json").output
    }
    private func configuration(_ cell: Cell) throws -> Int {
        Int(number("configuration", in: try list(cell)) ?? 0)
    }
    private func voters(_ cell: Cell) throws -> Int {
        try list(cell).split(separator: "\n").count { $0.contains("\"voter\": true") }
    }
}

/// A program that makes files and notes which of them were synced.
private final class Load {
    private let cell: Cell
    private let writer: Running
    private var acknowledged: String { cell.folder + "/acknowledged" }
    private var stop: String { cell.folder + "/stop" }

    init(_ cell: Cell) throws {
        self.cell = cell
        let script = """
            n=0
            while [ ! -e "$2" ]; do
              n=$((n+1))
              echo "content $n" > "$0/f$n" && sync "$0/f$n" && echo $n >> "$1" || exit 1
            done
            """
        let folder = cell.folder
        writer = try Running([
            "bash", "-c", script, cell.mount + "/load", folder + "/acknowledged", folder + "/stop",
        ])
    }

    /// No write failed, and every one that was synced is there.
    func end() throws {
        try writeFile(stop, [])
        let outcome = try writer.wait(limit: 60)
        #expect(outcome.status == 0, "\(outcome.errors)")
        try check()
    }
    func check() throws {
        let numbers = readText(acknowledged).split(separator: "\n")
        #expect(numbers.count > 10)
        for number in numbers {
            #expect(readText("\(cell.mount)/load/f\(number)") == "content \(number)\n")
        }
    }
}
