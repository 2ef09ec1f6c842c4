// What a chunk server refuses, cuts, drops and confirms.

import Base
import ChunkServer
import Node
import Store
import Testing
import Wire

@Suite struct ChunkServerRequestTests {
    private let data = [UInt8](repeating: 7, count: 1_000)

    private func status(_ cell: inout TestCell, _ request: UInt64) -> ChunkStatus? {
        cell.run(.milliseconds(100))
        return cell.writeReply(request)?.status
    }

    @Test("Wrong set, epoch, checksum and session are told apart")
    func refusals() throws {
        var cell = TestCell()
        var context = cell.context()
        context.set = SetID(rawValue: 77)
        let unknown = cell.write(cell.primary, 1, [cell.extent(data)], context)
        let status1 = status(&cell, unknown)
        #expect(status1 == .unknownSet)
        let old = cell.write(
            cell.primary, 1, [cell.extent(data)], cell.context(epoch: Epoch.none))
        let status2 = status(&cell, old)
        #expect(status2 == .staleEpoch)
        let ahead = cell.write(
            cell.primary, 1, [cell.extent(data)], cell.context(epoch: Epoch(rawValue: 9)))
        let status3 = status(&cell, ahead)
        #expect(status3 == .notServing)
        var extent = cell.extent(data)
        extent.stored = Checksum(value: 1)
        let wrong = cell.write(cell.primary, 1, [extent])
        let status4 = status(&cell, wrong)
        #expect(status4 == .invalid)
        context = cell.context()
        context.session = .none
        let nobody = cell.write(cell.primary, 1, [cell.extent(data)], context)
        let status5 = status(&cell, nobody)
        #expect(status5 == .invalid)
        let garbage = cell.lastRequest + 1
        cell.lastRequest = garbage
        cell.servers[cell.primary].inbox.append(
            .frame(
                from: .client(cell.client),
                Frame(kind: .writeRequest, request: garbage, head: [1, 2, 3])))
        let status6 = status(&cell, garbage)
        #expect(status6 == .invalid)
    }

    @Test("A cut that the primary has not seen is logged before the write that carries it")
    func cutBeforeWrite() throws {
        var cell = TestCell()
        _ = cell.write(cell.primary, 1, [cell.extent(data)])
        cell.run(.milliseconds(100))
        let context = cell.context(truncation: 1, cuts: [Cut(truncation: 1, size: 400)])
        // Two in a row carry the same cut: the second must not cut the first.
        let first = cell.write(
            cell.primary, 2, [cell.extent([9, 9], start: 600)], context)
        let second = cell.write(
            cell.primary, 3, [cell.extent([8, 8], start: 700)], context)
        let status7 = status(&cell, first)
        #expect(status7 == .done)
        let status8 = status(&cell, second)
        #expect(status8 == .done)
        var expected = Array(data[..<400]) + [UInt8](repeating: 0, count: 600)
        expected.replaceSubrange(600..<602, with: [9, 9])
        expected.replaceSubrange(700..<702, with: [8, 8])
        let reply = cell.read(cell.primary, context)
        #expect(reply?.content(size: 1_000) == expected)
        let late = cell.write(cell.primary, 4, [cell.extent(data)])
        let status9 = status(&cell, late)
        #expect(status9 == .outdated)
        let read10 = cell.read(cell.primary)
        #expect(read10?.status == .outdated)
    }

    @Test("A read that carries a cut sees it; a backup that lacks it sends the reader away")
    func cutBeforeRead() throws {
        var cell = TestCell()
        _ = cell.write(cell.primary, 1, [cell.extent(data)])
        cell.run(.milliseconds(100))
        let context = cell.context(truncation: 1, cuts: [Cut(truncation: 1, size: 400)])
        let backup = (cell.primary + 1) % 3
        let read11 = cell.read(backup, allowsBackup: true, context)
        #expect(read11?.status == .notPrimary)
        let expected = Array(data[..<400]) + [UInt8](repeating: 0, count: 600)
        let read12 = cell.read(cell.primary, context)
        #expect(read12?.content(size: 1_000) == expected)
        let copy = cell.read(backup, allowsBackup: true, context)
        #expect(copy?.content(size: 1_000) == expected)
    }

    @Test("Ordered cuts and drops are carried out once and confirmed when they are committed")
    func orders() throws {
        var cell = TestCell()
        _ = cell.write(cell.primary, 1, [cell.extent(data), cell.extent(data, block: 1)])
        _ = cell.write(cell.primary, 3, [cell.extent(data, chunk: 1)])
        cell.run(.milliseconds(100))
        let chunk = cell.extent(data).chunk
        cell.cuts = [CutOrder(set: TestCell.set, chunk: chunk, truncation: 1, from: 10)]
        cell.drops = [
            DropOrder(order: 5, set: TestCell.set, chunks: [cell.extent(data, chunk: 1).chunk])
        ]
        cell.run(.seconds(1))
        #expect(cell.confirmedCuts == cell.cuts)
        #expect(cell.droppedOrders == [5])
        // Masters that were loaded from a dump may still know the chunk (decision 0014).
        let loaded = cell.context(truncation: Limits.loadedTruncations)
        let lost = cell.write(cell.primary, 8, [cell.extent(data, chunk: 1)], loaded)
        let status8 = status(&cell, lost)
        #expect(status8 == .invalid)
        let read8 = cell.read(cell.primary, chunk: 1, loaded)
        #expect(read8?.status == .damaged)
        let context = cell.context(truncation: 1)
        let read13 = cell.read(cell.primary, context)
        #expect(read13?.pieces.first?.visible == 10)
        let read14 = cell.read(cell.primary, block: 1, context)
        #expect(read14?.pieces.isEmpty == true)
        cell.run(.seconds(1))
        for server in cell.servers { #expect(server.set?.stored == 1_000) }
        // Two writes, one more, a trim and a drop: nothing was logged twice.
        let next = cell.write(cell.primary, 9, [cell.extent(data, block: 3)], context)
        let status15 = status(&cell, next)
        #expect(status15 == .done)
        #expect(cell.writeReply(next)?.number == RecordNumber(rawValue: 6))
    }

    @Test("A full disk refuses writes with noSpace before they have a number; drops go on")
    func fullDisk() throws {
        var cell = TestCell(capacity: 8 << 20)
        var sequence: UInt64 = 0
        var refused: UInt64?
        while refused == nil, sequence < 400 {
            sequence += 1
            let block = [UInt8](repeating: UInt8(sequence % 251), count: Limits.block)
            let extent = cell.extent(
                block, chunk: 1 + UInt32(sequence) / 1_000, block: UInt16(sequence))
            let request = cell.write(cell.primary, sequence, [extent])
            if status(&cell, request) == .noSpace { refused = request }
        }
        #expect(refused != nil)
        #expect(sequence > 30)
        #expect(cell.halted.isEmpty)
        cell.drops = [
            DropOrder(order: 1, set: TestCell.set, chunks: [cell.extent(data, chunk: 1).chunk])
        ]
        cell.run(.seconds(1))
        #expect(cell.droppedOrders == [1])
        #expect(cell.halted.isEmpty)
    }

    @Test("A connection may have a bounded number of requests open (S10)")
    func boundedRequests() throws {
        var cell = TestCell()
        cell.kill((cell.primary + 1) % 3)
        var last: UInt64 = 0
        for sequence in 1...UInt64(Limits.requestsPerConnection) + 1 {
            last = cell.write(cell.primary, sequence, [cell.extent([1])])
        }
        let status16 = status(&cell, last)
        #expect(status16 == .busy)
        #expect(cell.writeReply(last - 1) == nil)
    }
}
