// A master as a process: its core on a loop with a disk and sockets (D2).

package import Base
package import Logging
package import Node

/// A running master.
package final class MasterServer: Sendable {
    private let loop: NodeLoop

    private init(_ loop: NodeLoop) { self.loop = loop }

    /// Opens its folder, listens, and joins its cell. `halted` is called once, with the reason,
    /// when it must not go on: the process should exit. Blocks until the core had its first step.
    /// `wallError`: by how much its wall clock is to be wrong, in tests.
    package static func start(
        _ server: ServerConfiguration, _ master: MasterConfiguration, logger: Logger,
        wallError: (@Sendable () -> Interval)? = nil,
        halted: @escaping @Sendable (String) -> Void
    ) throws(NodeError) -> MasterServer {
        let loop = try NodeLoop.start(server, logger: logger, halted: halted) { _ in
            var core = MasterCore(master)
            guard let wallError else { return { core.turn($0, $1) } }
            return { events, time in
                let wall = time.wall + wallError()
                return core.turn(events, NodeTime(now: time.now, wall: wall))
            }
        }
        return MasterServer(loop)
    }

    /// Where it listens, the real port included.
    package var address: PeerAddress { loop.address }

    /// Ends connections and threads; what was acknowledged is on the disk. Blocks.
    package func stop() { loop.stop() }
}
