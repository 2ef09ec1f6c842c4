// Sessions that expired write no more (C16).

import Base
import ChunkServer
import Testing
import Wire

@Suite struct FenceTests {
    private let data = [UInt8](repeating: 7, count: 1_000)
    private let session = SessionID(rawValue: 3)

    private func status(
        _ cell: inout TestCell, _ sequence: UInt64, _ session: SessionID
    ) -> ChunkStatus? {
        var context = cell.context()
        context.session = session
        let request = cell.write(cell.primary, sequence, [cell.extent(data)], context)
        cell.run(.milliseconds(300))
        return cell.writeReply(request)?.status
    }

    @Test("A fenced session is refused, also by a new primary whose masters have forgotten it")
    func refusal() throws {
        var cell = TestCell()
        var got = status(&cell, 1, session)
        #expect(got == .done)
        cell.fences = FenceList(version: 1, sessions: [session])
        cell.run(.seconds(1))
        got = status(&cell, 2, session)
        #expect(got == .fenced)
        // What was answered before is not answered again either.
        got = status(&cell, 1, session)
        #expect(got == .fenced)
        got = status(&cell, 1, SessionID(rawValue: 4))
        #expect(got == .done)
        // Every copy has it in its log.
        cell.fences = FenceList()
        for index in cell.servers.indices {
            cell.kill(index)
            cell.start(index)
        }
        cell.run(.seconds(5))
        got = status(&cell, 2, session)
        #expect(got == .fenced)
        got = status(&cell, 2, SessionID(rawValue: 4))
        #expect(got == .done)
    }

    @Test("A session that never wrote to the set is refused too, and costs no record there")
    func unknown() throws {
        var cell = TestCell()
        var got = status(&cell, 1, session)
        #expect(got == .done)
        let before = try #require(cell.servers[cell.primary].set?.prepared)
        cell.fences = FenceList(version: 1, sessions: [SessionID(rawValue: 9)])
        cell.run(.seconds(1))
        got = status(&cell, 1, SessionID(rawValue: 9))
        #expect(got == .fenced)
        #expect(cell.servers[cell.primary].set?.prepared == before)
    }

    @Test("A server without the list that its masters have becomes the primary of nothing")
    func listFirst() throws {
        var cell = TestCell()
        cell.fences = FenceList(version: 5)
        cell.raiseEpoch()
        cell.run(.seconds(2))
        #expect(cell.servers.allSatisfy { $0.set?.epoch != cell.configuration?.epoch })
        cell.fences = FenceList(version: 5, sessions: [session])
        cell.run(.seconds(2))
        let got = status(&cell, 1, session)
        #expect(got == .fenced)
        #expect(cell.servers[cell.primary].set?.epoch == cell.configuration?.epoch)
    }
}
