// Three chunk servers and a leader: writes, reads, deaths and returns.

import Base
import ChunkServer
import Node
import Store
import Testing
import Wire

@Suite struct ChunkServerCoreTests {
    private func bytes(_ count: Int, _ seed: UInt64 = 1) -> [UInt8] {
        var random = SeededRandom(seed: seed)
        return (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) }
    }

    @Test("What was written is on every member and is read from the primary")
    func writesAndReads() throws {
        var cell = TestCell()
        let data = bytes(3_000)
        let request = cell.write(cell.primary, 1, [cell.extent(data)])
        cell.run(.milliseconds(50))
        #expect(cell.writeReply(request)?.status == .done)
        #expect(cell.writeReply(request)?.number == RecordNumber(rawValue: 1))
        let read1 = cell.read(cell.primary)
        let reply = try #require(read1)
        #expect(reply.status == .done)
        #expect(reply.content(size: 3_000) == data)
        for index in cell.servers.indices {
            let read2 = cell.read(index, allowsBackup: true)
            let copy = try #require(read2)
            #expect(copy.content(size: 3_000) == data)
        }
        // What was never written is zeros.
        let read3 = cell.read(cell.primary, block: 7)
        #expect(read3?.pieces.isEmpty == true)
        cell.run(.seconds(1))
        for server in cell.servers {
            #expect(server.set?.prepared == RecordNumber(rawValue: 1))
            #expect(server.set?.stored == 3_000)
            #expect(server.report?.stored == 3_000)
        }
    }

    @Test("Later extents lie above earlier ones, in one reply")
    func overlays() throws {
        var cell = TestCell()
        let below = bytes(10_000, 1)
        let above = bytes(100, 2)
        _ = cell.write(
            cell.primary, 1, [cell.extent(below), cell.extent(above, start: 5_000)])
        cell.run(.milliseconds(50))
        var expected = below
        expected.replaceSubrange(5_000..<5_100, with: above)
        let read4 = cell.read(cell.primary)
        #expect(read4?.content(size: 10_000) == expected)
    }

    @Test("A reply ends where the frame is full, and says with how many blocks")
    func pagedReads() throws {
        var cell = TestCell()
        let full = Limits.frameData / Limits.block
        for block in 0...UInt16(full) + 1 {
            let data = bytes(Limits.block, UInt64(block))
            _ = cell.write(cell.primary, UInt64(block) + 1, [cell.extent(data, block: block)])
        }
        cell.run(.milliseconds(100))
        let read5 = cell.read(cell.primary, block: 1, count: UInt16(full) + 1)
        let reply = try #require(read5)
        #expect(Int(reply.blocks) == full)
        let content = reply.content(from: 1, size: full * Limits.block)
        #expect(Array(content.prefix(Limits.block)) == bytes(Limits.block, 1))
    }

    @Test("A block whose pieces exceed a frame comes in several replies")
    func manyPieces() throws {
        var cell = TestCell()
        var expected = [UInt8](repeating: 0, count: Limits.block)
        // Each one reaches beyond the one before it, so none is covered.
        for step in 0..<60 {
            let data = bytes(6_000, UInt64(step))
            expected.replaceSubrange(step * 900..<step * 900 + 6_000, with: data)
            _ = cell.write(
                cell.primary, UInt64(step) + 1, [cell.extent(data, start: UInt32(step * 900))])
        }
        cell.run(.milliseconds(200))
        let read6 = cell.read(cell.primary)
        let reply = try #require(read6)
        #expect(reply.blocks == 1)
        #expect((cell.replies[cell.lastRequest]?.count ?? 0) > 1)
        #expect(reply.content(size: Limits.block) == expected)
    }

    @Test("Writes wait while a backup is down, and go on in a new epoch when it is back")
    func backupDies() throws {
        var cell = TestCell()
        let backup = (cell.primary + 1) % 3
        cell.kill(backup)
        let data = bytes(100)
        let request = cell.write(cell.primary, 1, [cell.extent(data)])
        cell.run(.seconds(2))
        #expect(cell.writeReply(request) == nil)
        // Its lease is not renewed (C11).
        let read7 = cell.read(cell.primary)
        #expect(read7?.status == .notServing)
        cell.start(backup)
        cell.run(.seconds(2))
        #expect(cell.configuration?.epoch == Epoch(rawValue: 2))
        #expect(cell.writeReply(request)?.status == .done)
        // Sent again, it keeps its number (C15).
        let again = cell.write(cell.primary, 1, [cell.extent(data)])
        cell.run(.milliseconds(100))
        #expect(cell.writeReply(again)?.number == cell.writeReply(request)?.number)
        let read8 = cell.read(backup, allowsBackup: true)
        #expect(read8?.content(size: 100) == data)
    }

    @Test("While the primary is down its backups are read, and nothing is written")
    func primaryDies() throws {
        var cell = TestCell()
        let data = bytes(100)
        _ = cell.write(cell.primary, 1, [cell.extent(data)])
        cell.run(.milliseconds(100))
        let old = cell.primary
        cell.kill(old)
        let backup = (old + 1) % 3
        let read9 = cell.read(backup)
        #expect(read9?.status == .notPrimary)
        let read10 = cell.read(backup, allowsBackup: true)
        #expect(read10?.content(size: 100) == data)
        let request = cell.write(backup, 2, [cell.extent(data)])
        cell.run(.milliseconds(100))
        #expect(cell.writeReply(request)?.status == .notPrimary)
        cell.start(old)
        cell.run(.seconds(2))
        let next = cell.write(cell.primary, 2, [cell.extent(data)])
        cell.run(.milliseconds(100))
        #expect(cell.writeReply(next)?.status == .done)
    }

    @Test("After a restart of everything all that was answered is there")
    func everythingRestarts() throws {
        var cell = TestCell()
        var requests: [UInt64] = []
        for number in 0..<40 as Range<UInt64> {
            let extent = cell.extent(bytes(20_000, number), block: UInt16(number))
            requests.append(cell.write(cell.primary, number + 1, [extent]))
        }
        cell.run(.milliseconds(300))
        #expect(requests.allSatisfy { cell.writeReply($0)?.status == .done })
        for index in cell.servers.indices { cell.kill(index) }
        for index in cell.servers.indices { cell.start(index) }
        cell.run(.seconds(3))
        for block in 0..<40 as Range<UInt16> {
            let reply = cell.read(cell.primary, block: block)
            #expect(reply?.content(from: block, size: 20_000) == bytes(20_000, UInt64(block)))
        }
    }

    @Test("Damaged bytes are never answered; another member has them, and they are repaired")
    func damage() throws {
        var cell = TestCell()
        let data = bytes(5_000)
        _ = cell.write(cell.primary, 1, [cell.extent(data)])
        cell.run(.milliseconds(200))
        let found = cell.servers[cell.primary].disk.damage(Array(data[100..<200]))
        #expect(found == 1)
        let read11 = cell.read(cell.primary)
        #expect(read11?.status == .damaged)
        let backup = (cell.primary + 1) % 3
        let read12 = cell.read(backup, allowsBackup: true)
        #expect(read12?.content(size: 5_000) == data)
        cell.run(.seconds(2))
        let read13 = cell.read(cell.primary)
        #expect(read13?.content(size: 5_000) == data)
        #expect(cell.servers[cell.primary].set?.hasRot == false)
        #expect(
            cell.alarms.count {
                $0.contains("inode \(cell.extent(data).chunk.inode), the 65536 bytes from 0")
                    && !$0.contains("only copy")
            } == 1)
    }

    @Test("A disk whose write fails is reported, and its process ends (S4)")
    func diskFails() throws {
        var cell = TestCell()
        let backup = (cell.primary + 1) % 3
        cell.servers[backup].disk.isBroken = true
        let request = cell.write(cell.primary, 1, [cell.extent(bytes(10))])
        cell.run(.seconds(1))
        #expect(cell.halted == [backup])
        #expect(cell.servers[backup].report?.hasFailed == true)
        #expect(cell.writeReply(request) == nil)
    }
}
