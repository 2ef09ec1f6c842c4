// How much of the model is explored.

import Base

/// Bounds of an exploration; each bounds how often something happens in one run.
package struct Scope: Sendable {
    /// Epoch changes after the first epoch.
    package var changes = 3
    /// Writes of clients, which are all alike.
    package var writes = 2
    /// How often a client sends a write again.
    package var retries = 0
    /// Processes that end and begin again.
    package var restarts = 0
    /// How often a primary believes a member silent and asks its learner again.
    package var silences = 0
    /// Every append is durable at once; otherwise that is an action of its own, and a restart
    /// loses any end of what was not durable.
    package var syncsAtOnce = true
    /// Primaries ask for leases and wait for older ones (C11); time can pass beyond all of them.
    package var hasLeases = false
    /// With fewer members nothing is written (C5).
    package var minMembers: UInt8 = 1
    package var members = 3
    /// It begins later: the first primary has numbered a write, and nobody has heard of it when
    /// the masters make the second disk the only member, which serves. Counts as one change.
    package var beginsAlone = false

    /// The defaults.
    package init() {}

    let set = SetID(rawValue: 1)
    var disks: [DiskID] { (1...members).map { DiskID(rawValue: UInt64($0)) } }
}
