// What happened to the connections of a process, counted for logs and status.

import Synchronization

/// Counts at one moment, since the start of the process.
package struct TransportStatistics: Hashable, Sendable {
    /// Frames that did not decode, were out of place, or were cut off by the connection's end;
    /// each ended its connection.
    package var badFrames: UInt64
    /// Handshakes that this side refused, or that took too long.
    package var refusedHandshakes: UInt64
    /// Connections that were accepted by a listener, before their handshake.
    package var accepted: UInt64
    /// Accepted connections that are open now.
    package var open: UInt64
}

/// The counters of a process or of one listener; safe from any thread.
package final class TransportCounters: Sendable {
    let badFrames = Atomic<UInt64>(0)
    let refusedHandshakes = Atomic<UInt64>(0)
    let accepted = Atomic<UInt64>(0)
    let open = Atomic<UInt64>(0)

    /// All zero.
    package init() {}

    /// The counts now.
    package var statistics: TransportStatistics {
        TransportStatistics(
            badFrames: badFrames.load(ordering: .relaxed),
            refusedHandshakes: refusedHandshakes.load(ordering: .relaxed),
            accepted: accepted.load(ordering: .relaxed),
            open: open.load(ordering: .relaxed))
    }
}
