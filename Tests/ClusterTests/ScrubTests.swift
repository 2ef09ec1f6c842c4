// Scrub, verify and fsck of a live cell.

import Base
import Glibc
import Testing

@Suite(.serialized) struct ScrubTests {
    @Test("Bytes flipped at rest are found and repaired by a scrub; verify and fsck are clean")
    func scrub() throws {
        try Cell.with(mounted: false) { cell in
            let data = noise(6 << 20, seed: 31)
            try writeFile(cell.folder + "/data", data)
            try cell.martlet("mkdir", "/tree")
            try cell.martlet("put", cell.folder + "/data", "/tree/data")
            #expect(try cell.martlet("verify", "/").output.contains("all sound and alike"))
            #expect(try cell.attempt(["fsck"]).status == 0)

            var flipped = 0
            for name in names(in: "\(cell.path)/chunkserver-2/disk/segments") {
                let path = "\(cell.path)/chunkserver-2/disk/segments/\(name)"
                let content = readBytes(path)
                for offset in stride(from: 100_000, to: data.count, by: 1 << 20) {
                    let piece = Array(data[offset..<(offset + 32)])
                    guard let found = content.firstRange(of: piece)?.lowerBound else { continue }
                    let file = open(path, O_RDWR | O_CLOEXEC)
                    defer { close(file) }
                    var byte = content[found] ^ 0x10
                    #expect(pwrite(file, &byte, 1, off_t(found)) == 1)
                    flipped += 1
                }
            }
            #expect(flipped >= 5)
            try cell.martlet("scrub", "start")
            try eventually("the scrub has found and repaired it", limit: 60) {
                let status = try cell.martlet("scrub", "status", "--json").output
                return number("found", in: status) == Double(flipped)
                    && number("repaired", in: status) == Double(flipped)
                    && number("damaged", in: status) == 0
                    && !status.contains("\"state\": \"running\"")
                    && !status.contains("\"state\": \"comparing\"")
            }
            let verified = try cell.attempt(["verify", "/tree", "--json"])
            #expect(verified.status == 0)
            #expect(number("copies", in: verified.output) == Double(3 * data.count / (64 << 10)))
            let status = try cell.martlet("scrub", "status").output
            #expect(status.contains("everything at rest was written or verified after"))

            // A pause holds through a restart of everything.
            try cell.martlet("scrub", "pause", "chunkserver-1")
            try eventually("it is paused") {
                try cell.martlet("scrub", "status").output.contains("paused")
            }
            for name in cell.members { try cell.kill(name) }
            try cell.up()
            #expect(try cell.martlet("scrub", "status").output.contains("paused"))
            #expect(try cell.attempt(["scrub", "start", "nobody"]).status == 8)
        }
    }

    @Test("verify names what is damaged and ends with 4; fsck reports a server that lost its disk")
    func findings() throws {
        try Cell.with(["--chunkservers", "3"], mounted: false) { cell in
            let data = noise(1 << 20, seed: 32)
            try writeFile(cell.folder + "/data", data)
            try cell.martlet("put", cell.folder + "/data", "/data")
            for name in names(in: "\(cell.path)/chunkserver-3/disk/segments") {
                let path = "\(cell.path)/chunkserver-3/disk/segments/\(name)"
                let piece = Array(data[70_000..<70_032])
                guard let found = readBytes(path).firstRange(of: piece)?.lowerBound else {
                    continue
                }
                let file = open(path, O_RDWR | O_CLOEXEC)
                defer { close(file) }
                var byte = piece[0] ^ 1
                #expect(pwrite(file, &byte, 1, off_t(found)) == 1)
            }
            let verified = try cell.attempt(["verify", "/data"])
            #expect(verified.status == 4)
            #expect(verified.output.contains("chunkserver-3: damaged"))
            try eventually("it is repaired") { try cell.attempt(["verify", "/data"]).status == 0 }

            #expect(try cell.attempt(["fsck"]).status == 0)
            try cell.kill("chunkserver-3")
            try run(["rm", "-rf", "\(cell.path)/chunkserver-3/disk"])
            try cell.up()
            try eventually("fsck reports it") {
                let outcome = try cell.attempt(["fsck", "--json"])
                return outcome.status == 4
                    && (outcome.output.contains("\"under\"")
                        || outcome.output.contains("\"unavailable\""))
            }
            #expect(try cell.attempt(["fsck", "--wait", "x"]).status == 16)
        }
    }

    @Test("The last copy, damaged, goes on when an operator accepts the loss; only that is lost")
    func acceptedLoss() throws {
        try Cell.with(["--chunkservers", "3"], repairDelay: 5) { cell in
            let data = noise(3 << 20, seed: 33)
            let path = cell.mount + "/data"
            try writeFile(path, data)
            let servers = (1...3).map { "chunkserver-\($0)" }
            try cell.kill(servers[0], servers[1], servers[2])
            for server in servers.dropFirst() {
                try run(["rm", "-rf", "\(cell.path)/\(server)/disk"])
            }
            // A byte of the second block.
            let place = try #require(
                names(in: "\(cell.path)/chunkserver-1/disk/segments").lazy.compactMap { name in
                    let path = "\(cell.path)/chunkserver-1/disk/segments/\(name)"
                    return readBytes(path).firstRange(of: data[70_000..<70_032]).map {
                        (path, $0.lowerBound)
                    }
                }.first)
            let file = open(place.0, O_RDWR | O_CLOEXEC)
            defer { close(file) }
            var byte = data[70_000] ^ 1
            try #require(pwrite(file, &byte, 1, off_t(place.1)) == 1)
            // The set does not serve, but everything runs.
            let start = try cell.attempt(
                ["up", cell.path, "--deadline", "3"] + cell.delays, limit: 90)
            #expect(start.status == 3)

            var set = ""
            try eventually("fsck names the command", limit: 60) {
                let found = try cell.attempt(["fsck"])
                let words = found.output.split(whereSeparator: \.isWhitespace)
                guard let index = words.firstIndex(of: "accept-loss") else { return false }
                set = String(words[index + 1])
                return found.status == 4
            }
            #expect(try cell.martlet("explain", set).output.contains("accept-loss \(set)"))
            let plan = try cell.attempt(["set", "accept-loss", set])
            #expect(plan.status == 9 && plan.output.contains("goes on with: chunkserver-1"))
            #expect(try cell.attempt(["set", "accept-loss", "999", "--yes"]).status == 8)
            #expect(try cell.attempt(["fsck"]).status == 4)
            try cell.martlet("set", "accept-loss", set, "--yes")
            try eventually("it has all copies again", limit: 120) {
                try cell.attempt(["fsck"]).status == 0
            }
            // Nothing is left to accept.
            #expect(try cell.attempt(["set", "accept-loss", set, "--yes"]).status == 9)

            let block = 64 << 10
            for number in 0..<data.count / block {
                let content = open(path, O_RDONLY | O_CLOEXEC)
                defer { close(content) }
                var found = [UInt8](repeating: 0, count: block)
                let count = pread(content, &found, block, off_t(number * block))
                if number == 1 {
                    #expect(count == -1 && errno == EIO)
                } else {
                    #expect(found == Array(data[number * block..<(number + 1) * block]))
                }
            }
            #expect(try cell.attempt(["verify", "/data"]).status == 4)
            let fresh = noise(block, seed: 34)
            let mounted = open(path, O_RDWR | O_CLOEXEC)
            #expect(pwrite(mounted, fresh, block, off_t(block)) == block)
            #expect(fsync(mounted) == 0)
            close(mounted)
            #expect(readBytes(path) == data[..<block] + fresh + data[(2 * block)...])
            #expect(try cell.attempt(["verify", "/data"]).status == 0)
        }
    }
}
