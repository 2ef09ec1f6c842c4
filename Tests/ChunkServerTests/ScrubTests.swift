// Scrubs of three chunk servers: what is damaged, and copies that differ though none is (C18).

import Base
import ChunkServer
import Node
import Store
import Testing
import Wire

@Suite struct ChunkServerScrubTests {
    private func bytes(_ count: Int, _ seed: UInt64) -> [UInt8] {
        var random = SeededRandom(seed: seed)
        return (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) }
    }

    /// A cell with two blocks, one of them in two pieces.
    private func cell(_ count: Int = 3) throws -> (TestCell, [UInt8]) {
        var cell = TestCell(count: count)
        let data = bytes(3_000, 1)
        _ = cell.write(cell.primary, 1, [cell.extent(data), cell.extent(bytes(50, 2), start: 7)])
        _ = cell.write(cell.primary, 3, [cell.extent(bytes(900, 3), block: 20)])
        cell.run(.seconds(1))
        return (cell, data)
    }

    private func order(_ cell: inout TestCell) {
        cell.scrub.start(asRun: cell.scrub.run + 1)
        cell.run(.seconds(20))
        for server in cell.servers {
            #expect(server.report?.scrub.progress.passes == cell.scrub.run)
        }
    }

    private func content(_ cell: inout TestCell, _ index: Int) -> [UInt8]? {
        cell.read(index, allowsBackup: true)?.content(size: 3_000)
    }

    @Test("A scrub finds flipped bytes that nobody reads, and has them repaired")
    func rot() throws {
        var (cell, data) = try cell()
        order(&cell)
        for index in cell.servers.indices {
            #expect(cell.servers[index].report?.scrub.progress.found == 0)
            #expect(cell.servers[index].disk.damage(data) == 1)
            order(&cell)
            let scrub = try #require(cell.servers[index].report?.scrub)
            #expect(scrub.progress.found == 1 && scrub.progress.repaired == 1)
            #expect(scrub.damaged == 0 && scrub.progress.met == 0)
            // Nothing is left for the next pass.
            order(&cell)
            #expect(cell.servers[index].report?.scrub.progress.found == 1)
        }
        for server in cell.servers { #expect(server.report?.scrub.progress.differed == 0) }
    }

    @Test("Where a backup has other bytes with the right checksums, the majority's are written")
    func oddBackup() throws {
        var (cell, data) = try cell()
        let odd = cell.servers.indices.first { $0 != cell.primary }!
        let before = content(&cell, odd)
        #expect(cell.servers[odd].disk.forge(data, as: bytes(3_000, 9)) == 1)
        #expect(content(&cell, odd) != before)
        order(&cell)
        for index in cell.servers.indices { #expect(content(&cell, index) == before) }
        let scrub = try #require(cell.servers[cell.primary].report?.scrub)
        #expect(scrub.progress.differed == 1 && scrub.disputed == 0 && scrub.damaged == 0)
        #expect(cell.alarms.contains { $0.contains("copies differ") })
        order(&cell)
        #expect(cell.servers[cell.primary].report?.scrub.progress.differed == 1)
    }

    @Test("Where the primary is the odd one, it takes the content of the others")
    func oddPrimary() throws {
        var (cell, data) = try cell()
        let before = content(&cell, cell.primary)
        #expect(cell.servers[cell.primary].disk.forge(data, as: bytes(3_000, 9)) == 1)
        #expect(content(&cell, cell.primary) != before)
        order(&cell)
        for index in cell.servers.indices { #expect(content(&cell, index) == before) }
        let scrub = try #require(cell.servers[cell.primary].report?.scrub)
        #expect(scrub.progress.differed == 1 && scrub.disputed == 0)
        order(&cell)
        #expect(cell.servers[cell.primary].report?.scrub.progress.differed == 1)
    }

    @Test("Where nothing decides between two copies, nothing is changed and it stays told")
    func disputes() throws {
        var (cell, data) = try cell(2)
        let other = bytes(3_000, 9)
        #expect(cell.servers[cell.primary].disk.forge(data, as: other) == 1)
        let contents = cell.servers.indices.map { content(&cell, $0) }
        #expect(contents[0] != contents[1])
        order(&cell)
        order(&cell)
        #expect(cell.servers[cell.primary].report?.scrub.disputed == 1)
        #expect(cell.servers.indices.map { content(&cell, $0) } == contents)
        #expect(cell.servers[cell.primary].disk.forge(other, as: data) == 1)
        order(&cell)
        #expect(cell.servers[cell.primary].report?.scrub.disputed == 0)
    }

    @Test("Copies are compared as of one record while the set is written to")
    func underLoad() throws {
        var (cell, _) = try cell()
        cell.scrub.start(asRun: 1)
        for sequence in 10..<400 as Range<UInt64> {
            let extent = cell.extent(bytes(700, sequence), start: UInt32(sequence % 20) * 100)
            _ = cell.write(cell.primary, sequence, [extent])
            cell.run(.milliseconds(3))
        }
        cell.run(.seconds(10))
        for server in cell.servers {
            #expect(server.report?.scrub.progress.passes == 1)
            #expect(server.report?.scrub.progress.differed == 0)
        }
    }
}
