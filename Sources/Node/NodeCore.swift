// The contract between a server's pure core and the shell that runs it. The same core runs under
// the simulator (D1, T7). One loop owns one core: it takes all input there is, steps the core
// once, and carries out the effects in order (D2).
//
// Invariants:
//  1. A core withholds a message until what it promises is durable (S2): it sends it in the step
//     in which it hears of the disk's completion, never before.
//  2. A core that halts is never stepped again.

package import Base
package import Store
package import Wire

/// A connection that a client opened; never used twice in one run of a process.
package struct ConnectionID: Identifier {
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }
}

/// Whom a frame comes from or goes to.
package enum Peer: Hashable, Sendable {
    case master(MasterID)
    case server(ServerID)
    case client(ConnectionID)
}

/// Input of a core.
package enum NodeEvent: Hashable, Sendable {
    /// Always the first event: the files of the core's disk.
    case start(DiskInventory)
    case disk(DiskOperation, DiskResult)
    case frame(from: Peer, Frame)
    /// The last connection with the peer is gone; what was sent may be lost.
    case disconnected(Peer)
    /// About once a second, when something of it has changed.
    case surroundings(NodeSurroundings)
}

/// What only the shell sees and others ask about.
package struct NodeSurroundings: Hashable, Sendable {
    /// The file system of the disk's folder, and what is free there; `spare` is the core's.
    package var space: DiskSpace
    package var connections: ConnectionCounts

    /// Both fields at once.
    package init(space: DiskSpace, connections: ConnectionCounts) {
        self.space = space
        self.connections = connections
    }
}

/// What a core wants done.
package enum NodeEffect: Hashable, Sendable {
    case disk(DiskEffect)
    /// Sent at most once, maybe lost. Frames to one peer of one kind keep their order.
    case send(Peer, Frame)
    /// From now on the master or server is reached there.
    case address(Peer, PeerAddress)
    /// The core must stop: the process exits with this reason in its log (S4, S9).
    case halt(String)
    /// For the log; `isAlarm` for what an operator must see.
    case report(String, isAlarm: Bool)
}

/// The clocks as a step sees them.
package struct NodeTime: Hashable, Sendable {
    /// CLOCK_BOOTTIME.
    package var now: Instant
    /// The wall clock; only for the times of files (M14).
    package var wall: Timestamp
    /// Both clocks at once.
    package init(now: Instant, wall: Timestamp) {
        self.now = now
        self.wall = wall
    }
}

/// A core behind one function: takes what happened and gives what is wanted, and when to call it
/// again. Who makes the core makes this closure too: code of another module that is generic over
/// cores would copy the core, and look its type up, in each turn.
package typealias CoreStep = ([NodeEvent], NodeTime) -> (effects: [NodeEffect], wakeTime: Instant)

/// A server without its sockets, disk and clock.
package protocol NodeCore {
    /// Takes everything that happened since the last step; `events` may be empty: a tick.
    /// The shell steps at `wakeTime` at the latest.
    mutating func step(_ events: [NodeEvent], at time: NodeTime) -> [NodeEffect]
    /// When the core wants to be stepped although nothing happened.
    var wakeTime: Instant { get }
}

extension NodeCore {
    /// A step, and when the next one is due; without a copy of the core for the question.
    package mutating func turn(
        _ events: [NodeEvent], _ time: NodeTime
    ) -> (effects: [NodeEffect], wakeTime: Instant) {
        let effects = step(events, at: time)
        return (effects, wakeTime)
    }
}
