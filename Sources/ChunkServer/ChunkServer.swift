// One disk of a chunk server: its core, on a loop of `Node` of its own. A process runs one for
// each of its disks; they share nothing (D2).

package import Base
package import Logging
package import Node
import Storage
package import Store
import Transport
import Wire

/// A disk that is served. `start` makes one; `stop` ends it.
package final class ChunkServer: Sendable {
    /// What a chunk server is told beside what every server is.
    package struct Options: Sendable {
        /// What it calls itself in `status`.
        package var name: String
        package var rack: String
        /// The disk's name if it is new: random, never used before (S8).
        package var newDisk: DiskID
        /// Bytes of a segment of the log, if the disk is new.
        package var segmentSize: Int
        package var scrub: ScrubConfiguration
        package var index: IndexConfiguration

        /// All fields at once.
        package init(
            name: String, rack: String, newDisk: DiskID, segmentSize: Int,
            scrub: ScrubConfiguration = ScrubConfiguration(),
            index: IndexConfiguration = IndexConfiguration()
        ) {
            self.name = name
            self.rack = rack
            self.newDisk = newDisk
            self.segmentSize = segmentSize
            self.scrub = scrub
            self.index = index
        }
    }

    private let loop: NodeLoop

    /// Opens the disk's folder, listens, and serves. `halted` is called once, on another thread,
    /// when the core gives up: it should be stopped, though its last messages may still go out.
    /// Blocks until it listens; not for event loops. Throws what keeps it from listening or from
    /// opening the folder.
    package init(
        _ server: ServerConfiguration, _ options: Options, logger: Logger,
        halted: @escaping @Sendable (String) -> Void
    ) throws(NodeError) {
        loop = try NodeLoop.start(server, logger: logger, halted: halted) { address in
            var core = ChunkServerCore(
                ChunkServerConfiguration(
                    cell: server.identity.cell, server: ServerID(rawValue: server.identity.node),
                    disk: options.newDisk, name: options.name, rack: options.rack,
                    address: address, masters: server.masters.map(\.id),
                    segmentSize: options.segmentSize, scrub: options.scrub,
                    index: options.index))
            return { core.turn($0, $1) }
        }
    }

    /// Where it listens, the real port included.
    package var address: PeerAddress { loop.address }

    /// Ends connections and threads; what was started on the disk is finished. Blocks.
    package func stop() { loop.stop() }
}
