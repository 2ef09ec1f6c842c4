// The number of one leadership (M1).
// Invariant: a ballot is used by one leadership only: its node persists it before it says it.

package import Base

/// (configuration, round, node), in this order.
package struct Ballot: Hashable, Comparable, Sendable, CustomStringConvertible {
    /// Number of the configuration whose voters decide in it (M17).
    package let configuration: UInt32
    /// Raised by whoever wants to lead.
    package let round: UInt64
    /// Who leads in it.
    package let node: MasterID

    /// All three parts.
    package init(configuration: UInt32, round: UInt64, node: MasterID) {
        self.configuration = configuration
        self.round = round
        self.node = node
    }
    /// Below every real ballot.
    package static let none = Ballot(configuration: 0, round: 0, node: MasterID(rawValue: 0))

    /// By configuration, round, node.
    package static func < (left: Ballot, right: Ballot) -> Bool {
        (left.configuration, left.round, left.node)
            < (right.configuration, right.round, right.node)
    }
    /// `CONFIGURATION.ROUND.NODE`
    package var description: String { "\(configuration).\(round).\(node)" }

    func encode(into writer: inout ByteWriter) {
        writer.write(configuration)
        writer.write(round)
        writer.write(node)
    }
    init(from reader: inout ByteReader) throws(DecodeError) {
        configuration = try reader.read()
        round = try reader.read()
        node = try reader.read()
    }
}

/// The number of a record that the host was asked to make durable: 1, 2, 3 … in order.
package struct PaxosTicket: Identifier {
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }
}

/// The host's name for a proposal or a read; it comes back with the outcome.
package struct PaxosTag: Identifier {
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }
}
