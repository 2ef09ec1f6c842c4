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
}
