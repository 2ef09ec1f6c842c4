// kill -9 of everything in turn: what was promised holds.

import Base
import Glibc
import Testing

@Suite(.serialized) struct FaultTests {
    @Test("with one chunk server killed, reads and writes go on; with two, writes wait for one")
    func chunkServer() throws {
        try Cell.with { cell in
            let data = noise(96 << 20, seed: 11)
            try writeFile(cell.folder + "/data", data)
            try cell.martlet("put", cell.folder + "/data", "/data")
            try cell.martlet("put", cell.folder + "/owner", "/other")
            let get = try cell.start(["get", "/data", cell.folder + "/got"])
            usleep(100_000)
            try cell.kill("chunkserver-2")
            #expect(try get.wait().status == 0)
            #expect(firstDifference(cell.folder + "/data", cell.folder + "/got") == nil)

            // Another one: something else is the primary. The writer sees a stall, no error (C7).
            try cell.up()
            try cell.kill("chunkserver-1")
            #expect(try overwrite("\(cell.mount)/data", block: 1).wait(limit: 30).status == 0)
            unlink(cell.folder + "/got")
            try cell.martlet("get", "/data", cell.folder + "/got")

            // Every set that lost its member has reconciled; then another one goes.
            try cell.settled()
            // One copy is left: a write waits, and whoever waits can be killed (C2, C5).
            try cell.kill("chunkserver-3")
            let stalled = try overwrite("\(cell.mount)/data", block: 2)
            // Another file: the kernel lets nobody else into one whose fsync waits.
            let killed = try overwrite("\(cell.mount)/other", block: 0)
            sleep(2)
            #expect(stalled.isRunning)
            killed.signal(SIGKILL)
            _ = try killed.wait(limit: 10)
            try cell.martlet("get", "/data", cell.folder + "/got2")
            try cell.up()
            #expect(try stalled.wait(limit: 60).status == 0)
            let read = readBytes(cell.mount + "/data")
            #expect(read.count == data.count)
            var wanted = data
            wanted.replaceSubrange((1 << 16)..<(3 << 16), with: repeatElement(0, count: 2 << 16))
            #expect(read == wanted)
        }
    }

    /// Puts zeros over a block of 64 KiB and syncs it.
    private func overwrite(_ path: String, block: Int) throws -> Running {
        try Running([
            "dd", "if=/dev/zero", "of=\(path)", "bs=64k", "count=1", "seek=\(block)",
            "conv=notrunc,fsync",
        ])
    }

    @Test("with the leader killed half way through a put, each operation happens once")
    func leader() throws {
        try Cell.with(mounted: false) { cell in
            let tree = cell.folder + "/tree"
            var maker = TreeMaker(seed: 12, root: tree)
            try maker.make(files: 800, large: 6)
            let put = try cell.start(["put", "-r", tree, "/put"])
            try eventually("put has begun") {
                try cell.attempt(["ls", "/put"]).output.contains("file-")
            }
            try cell.kill(try cell.leader())
            let begin = now()
            try cell.martlet("ls", "/put")
            #expect(now() - begin < 5)
            #expect(try put.wait().status == 0)
            try cell.martlet("get", "-r", "/put", cell.folder + "/got")
            #expect(TreeComparison.differences(tree, cell.folder + "/got") == [])
            try cell.up()
            #expect(number("leader", in: try cell.martlet("status", "--json").output) != nil)
        }
    }

    @Test("after kill -9 of everything at once, all that was synced is there")
    func everything() throws {
        try Cell.with { cell in
            var wanted: [String: [UInt8]] = [:]
            for number in 0..<40 {
                let name = "file-\(number)"
                wanted[name] = noise(1 + number * 7_001, seed: UInt64(number))
                try writeFile("\(cell.mount)/\(name)", wanted[name]!, sync: true)
            }
            #expect(mkdir(cell.mount + "/directory", 0o755) == 0)
            #expect(rename(cell.mount + "/file-1", cell.mount + "/directory/renamed") == 0)
            // A file that is being written when it happens.
            let writer = try Running([
                "dd", "if=/dev/zero", "of=\(cell.mount)/tail", "bs=1M", "count=400",
            ])
            usleep(300_000)
            for name in cell.members { Glibc.kill(try cell.pid(name), SIGKILL) }
            writer.signal(SIGKILL)
            _ = try writer.wait(limit: 20)
            try cell.up()
            for (name, content) in wanted {
                let path = name == "file-1" ? "/directory/renamed" : "/" + name
                #expect(readBytes(cell.mount + path) == content, "\(name)")
            }
            #expect(readBytes(cell.mount + "/tail").allSatisfy { $0 == 0 })
            try writeFile(cell.mount + "/new", [1, 2, 3], sync: true)
            #expect(readBytes(cell.mount + "/new") == [1, 2, 3])
        }
    }

    @Test("a stale mount is cleared; SIGTERM ends a mount that is in use")
    func mounts() throws {
        try Cell.with { cell in
            try writeFile(cell.mount + "/file", [7], sync: true)
            try cell.kill("mount")
            var status = stat()
            #expect(stat(cell.mount, &status) == -1)
            #expect([ENOTCONN, ECONNABORTED].contains(errno))
            try cell.up()
            #expect(readBytes(cell.mount + "/file") == [7])

            // In use: an open file with unsynced bytes, and a process inside.
            let inside = try Running(["sh", "-c", "cd \(cell.mount) && exec sleep 60"])
            let file = open(cell.mount + "/busy", O_WRONLY | O_CREAT | O_CLOEXEC, 0o644)
            #expect(write(file, "abc", 3) == 3)
            let pid = try cell.pid("mount")
            let start = Cell.startTime(pid)
            Glibc.kill(pid, SIGTERM)
            try eventually("the mount has ended", limit: 20) { Cell.startTime(pid) != start }
            close(file)
            inside.signal(SIGKILL)
            try cell.up()
            #expect(readBytes(cell.mount + "/busy") == Array("abc".utf8))
        }
    }

    @Test("flipped bytes of one replica are never seen by a reader")
    func rot() throws {
        try Cell.with(mounted: false) { cell in
            let data = noise(24 << 20, seed: 13)
            try writeFile(cell.folder + "/data", data)
            try cell.martlet("put", cell.folder + "/data", "/data")
            var flipped = 0
            for name in ["chunkserver-1", "chunkserver-2", "chunkserver-3"] {
                let count = try flip(
                    data, in: "\(cell.path)/\(name)/disk/segments", stride: 3 << 20)
                flipped += count
                #expect(count > 0, "the data is on \(name)")
                for _ in 0..<2 {
                    unlink(cell.folder + "/got")
                    try cell.martlet("get", "/data", cell.folder + "/got")
                    #expect(firstDifference(cell.folder + "/data", cell.folder + "/got") == nil)
                }
                // The same bytes flipped again are as they were.
                #expect(
                    try flip(
                        data, in: "\(cell.path)/\(name)/disk/segments", stride: 3 << 20, back: true)
                        == count)
            }
            #expect(flipped >= 12)
        }
    }

    /// Finds pieces of the data in the files of a disk and flips a bit in each.
    private func flip(
        _ data: [UInt8], in folder: String, stride step: Int, back: Bool = false
    ) throws -> Int {
        var count = 0
        for name in names(in: folder) {
            let path = "\(folder)/\(name)"
            let content = readBytes(path)
            guard content.count >= 1 << 20 else { continue }
            let file = open(path, O_RDWR | O_CLOEXEC)
            defer { close(file) }
            for offset in Swift.stride(from: 100_000, to: data.count, by: step) {
                var piece = Array(data[offset..<(offset + 32)])
                if back { piece[0] ^= 0x10 }
                let found = find(piece, in: content)
                guard let found else { continue }
                var byte = content[found] ^ 0x10
                guard pwrite(file, &byte, 1, off_t(found)) == 1 else {
                    throw TestFailure("\(path): errno \(errno)")
                }
                count += 1
            }
            fsync(file)
        }
        return count
    }

    /// Where the piece is; the first byte is looked for by memchr.
    private func find(_ piece: [UInt8], in content: [UInt8]) -> Int? {
        content.withUnsafeBytes { bytes in
            var start = 0
            while start + piece.count <= bytes.count,
                let hit = memchr(
                    bytes.baseAddress! + start, Int32(piece[0]),
                    bytes.count - start - piece.count + 1)
            {
                let offset = UnsafeRawPointer(hit) - bytes.baseAddress!
                if memcmp(hit, piece, piece.count) == 0 { return offset }
                start = offset + 1
            }
            return nil
        }
    }
}
