// Bad input: a clear message, an exit code, and nothing changed.

import Base
import Glibc
import Testing

@Suite(.serialized) struct BadInputTests {
    @Test("bad commands are refused with the exit code and the words that help")
    func commands() throws {
        try Cell.with(mounted: false) { cell in
            let name = String(repeating: "n", count: 256)
            let cases: [([String], Int32, String)] = [
                (["statsu"], 2, "Did you mean 'status'?"),
                (["master", "sreve"], 2, "Did you mean 'serve'?"),
                (["status", "--jsno"], 2, "--json"),
                (["put", "/x"], 2, "LOCAL"),
                (["up", cell.folder + "/new", "--masters", "2"], 2, "--masters"),
                (["up", cell.folder + "/new", "--segment-size", "1x"], 2, "--segment-size"),
                (["up", cell.path, "--goal", "2"], 2, "--goal"),
                (["up", cell.path, "--chunkservers", "1"], 2, "chunk servers"),
                (["up", cell.folder], 9, "not a cell"),
                (["down", cell.folder, "--destroy"], 8, "not a cell"),
                (["status", "--cell", cell.folder], 8, "not a cell"),
                (["status", "--cell", "127.0.0.1:1"], 2, "--key"),
                (["ls", "relative"], 2, "absolute"),
                (["ls", "/none"], 8, "/none"),
                (["cat", "/"], 1, "/"),
                (["mkdir", "/" + name], 1, "255"),
                (["rm", "/"], 9, "/"),
                (["get", "/none", cell.folder + "/x"], 8, "none"),
                (["put", cell.folder + "/none", "/x"], 8, "none"),
                (["put", cell.path, "/x"], 1, "-r"),
                (["mount", cell.path, cell.folder + "/none"], 8, "none"),
                (["mount", cell.path, cell.folder, "-o", "cach=1MiB"], 2, "Did you mean 'cache'?"),
                (["umount", cell.folder], 8, "no Martlet"),
            ]
            let before = try cell.martlet("status", "--json").output
            for (words, status, text) in cases {
                let outcome = try cell.attempt(words)
                #expect(outcome.status == status, "\(words): \(outcome.errors)")
                #expect(outcome.errors.contains(text), "\(words): \(outcome.errors)")
                #expect(outcome.output == "", "\(words)")
            }
            #expect(access(cell.folder + "/new", F_OK) != 0)
            let after = try cell.martlet("status", "--json").output
            #expect(number("files", in: before) == number("files", in: after))
            #expect(number("directories", in: before) == number("directories", in: after))
        }
    }

    @Test("a wrong key, another format, no masters and a port in use are told apart")
    func cells() throws {
        try Cell.with(mounted: false) { cell in
            let key = readText(cell.path + "/cell.key")
            let wrong = String(repeating: "0", count: 64)
            try writeFile(cell.path + "/cell.key", Array((wrong + key.dropFirst(64)).utf8))
            let denied = try cell.attempt(["ls", "/", "--deadline", "5"])
            #expect(denied.status == 7, "\(denied.errors)")
            #expect(denied.errors.contains("key"))
            try writeFile(cell.path + "/cell.key", Array(key.utf8))

            let description = readText(cell.path + "/cell.json")
            let other = description.replacing("\"format\": 1", with: "\"format\": 99")
            try writeFile(cell.path + "/cell.json", Array(other.utf8))
            for words in [["ls", "/"], ["up", cell.path], ["down", cell.path, "--destroy"]] {
                let refused = try cell.attempt(words)
                #expect(refused.status == 9, "\(words): \(refused.errors)")
                #expect(refused.errors.contains("format 99"))
            }
            try writeFile(cell.path + "/cell.json", Array(description.utf8))
            #expect(try cell.attempt(["ls", "/"]).status == 0)

            try cell.martlet("down", cell.path)
            let begin = now()
            let none = try cell.attempt(["ls", "/", "--deadline", "2"])
            #expect(none.status == 6, "\(none.errors)")
            #expect(now() - begin < 4)

            let port = Int(firstNumber("127.0.0.1:", in: description))
            let squatter = try Running([
                "python3", "-c",
                "import socket, time; s = socket.create_server(('127.0.0.1', \(port))); "
                    + "time.sleep(60)",
            ])
            defer { squatter.signal(SIGKILL) }
            usleep(300_000)
            let inUse = try cell.attempt(["up", cell.path])
            #expect(inUse.status == 1, "\(inUse.errors)")
            #expect(inUse.errors.contains("in use"), "\(inUse.errors)")
            #expect(cell.members == [])
        }
    }

    /// The first number after a text in JSON.
    private func firstNumber(_ text: String, in json: String) -> Double {
        let range = json.firstRange(of: text)!
        return Double(json[range.upperBound...].prefix { $0.isNumber })!
    }

    @Test("random, truncated and oversize frames close the connection and nothing else")
    func frames() throws {
        try Cell.with(mounted: false) { cell in
            let description = readText(cell.path + "/cell.json")
            let ports = description.split(separator: "127.0.0.1:").dropFirst()
                .compactMap { Int($0.prefix { $0.isNumber }) }
            #expect(ports.count == 6)
            var random = SeededRandom(seed: 31)
            for port in ports {
                for _ in 0..<20 {
                    let count = 1 + random.below(5_000)
                    try send(noise(count, seed: random.next()), to: port)
                }
            }
            let before = cell.members
            try cell.martlet("mkdir", "/alive")
            let status = try cell.martlet("status", "--json").output
            #expect(!status.contains("\"up\": false"))
            #expect(cell.members == before)
        }
    }

    private func send(_ bytes: [UInt8], to port: Int) throws {
        let socket = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(socket) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(UInt16(port).bigEndian)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        let connected = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(socket, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard connected == 0 else { throw TestFailure("port \(port): errno \(errno)") }
        _ = bytes.withUnsafeBytes {
            Glibc.send(socket, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
        }
    }

    @Test("on a full cell writes fail with ENOSPC, and deleting makes room")
    func full() throws {
        try Cell.with(["--capacity", "96MiB", "--segment-size", "4MiB"], mounted: true) { cell in
            var code: Int32 = 0
            var written = 0
            while code == 0, written < 60 {
                do {
                    try writeFile(
                        "\(cell.mount)/fill-\(written)", noise(4 << 20, seed: UInt64(written)),
                        sync: true)
                    written += 1
                } catch {
                    code = "\(error)".contains("errno \(ENOSPC)") ? ENOSPC : -1
                }
            }
            #expect(code == ENOSPC)
            #expect(written > 5)
            for number in 0..<written { #expect(unlink("\(cell.mount)/fill-\(number)") == 0) }
            try eventually("there is room again", limit: 40) {
                (try? writeFile(cell.mount + "/again", noise(2 << 20, seed: 1), sync: true)) != nil
            }
        }
    }

    @Test("a second process with a master's identity, or on its data, does not come up")
    func twoMasters() throws {
        try Cell.with(mounted: false) { cell in
            let description = readText(cell.path + "/cell.json")
            let ports = description.split(separator: "127.0.0.1:").dropFirst().prefix(3)
                .map { "127.0.0.1:\($0.prefix { $0.isNumber })" }
            let peers = ports.enumerated().map { "\($0.offset + 1)=\($0.element)" }.joined(
                separator: ",")
            let same = try cell.attempt([
                "master", "serve", "--id", "1", "--dir", cell.path + "/master-1", "--listen",
                "127.0.0.1:0", "--peers", peers, "--key", cell.path + "/cell.key",
            ])
            #expect(same.status == 1, "\(same.errors)")
            try cell.martlet("mkdir", "/alive")
        }
    }
}
