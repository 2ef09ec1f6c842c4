// Stats as a program asks that does not wait for one answer before the next question: some are
// under way on each connection all the time, and no thread waits for any of them.

import Base
import Client
@preconcurrency import Glibc
import Synchronization
import Transport
import Wire

final class PipelinedStats: Sendable {
    private struct State {
        var latencies: [Duration] = []
        var underWay = 0
    }
    private let state = Mutex(State())
    private let files: [InodeID]
    private let end: ContinuousClock.Instant

    private init(_ files: [InodeID], _ length: Duration) {
        self.files = files
        end = ContinuousClock.now + length
    }

    /// Asks the leader of a cell for the attributes of each file again and again, one question for
    /// each file under way, spread over so many connections.
    static func run(
        _ target: CellTarget, _ files: [InodeID], connections: Int, for length: Duration
    ) throws -> Latencies {
        let leader = try leader(of: target)
        let dialer = Dialer(clientOf: target.cell, target.key)
        defer { dialer.shutDown() }
        let open = try (0..<connections).map { _ in try dialer.connect(to: leader.address) }
        let stats = PipelinedStats(files, length)
        let begin = ContinuousClock.now
        for index in files.indices { stats.ask(index, open[index % connections]) }
        repeat { usleep(1_000) } while stats.state.withLock { $0.underWay > 0 }
        let seconds = (ContinuousClock.now - begin) / .seconds(1)
        return Latencies(sorted: stats.state.withLock { $0.latencies.sorted() }, seconds: seconds)
    }

    private static func leader(of target: CellTarget) throws -> MasterTarget {
        for master in target.masters {
            let view = try master.ask(target.cell, target.key)
            if view.leader == view.id { return master }
        }
        fatalError("no master leads")
    }

    private func ask(_ index: Int, _ connection: PeerConnection) {
        state.withLock { $0.underWay += 1 }
        let request = MetadataRequest(session: .none, query: .attributes(files[index]))
        let start = ContinuousClock.now
        connection.start(request.frame(), timeout: Limits.requestTimeout) { result in
            let now = ContinuousClock.now
            guard case .success(let frame) = result,
                case .entry(let attributes)? = try? MetadataReply(frame),
                attributes.inode == self.files[index]
            else { fatalError("a stat failed: \(result)") }
            if now < self.end { self.ask(index, connection) }
            self.state.withLock { state in
                state.latencies.append(now - start)
                state.underWay -= 1
            }
        }
    }
}
