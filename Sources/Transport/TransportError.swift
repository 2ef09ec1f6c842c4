// Why a connection, or a call over it, came to nothing.

package import Wire

/// Why a connection, or a call over it, came to nothing.
package enum TransportError: Error, Hashable, Sendable, CustomStringConvertible {
    /// Nobody answers there: the address and what the system said.
    case unreachable(address: String, reason: String)
    /// An address that cannot be listened on: taken, or not this machine's.
    case cannotListen(address: String, reason: String)
    /// The peer, or this side of it, ended the handshake.
    case refused(Refused.Reason, String)
    /// No answer in time. Whether the request took effect is unknown (S7).
    case timedOut
    /// The connection ended before the answer came. The outcome is unknown (S7).
    case closed(String)
    /// The caller did not want to wait any longer. The outcome is unknown (S7).
    case cancelled
    /// `Limits.requestsPerConnection` requests wait already; nothing was sent (S10).
    case overloaded

    /// For people.
    package var description: String {
        switch self {
        case .unreachable(let address, let reason): "cannot reach \(address): \(reason)"
        case .cannotListen(let address, let reason): "cannot listen on \(address): \(reason)"
        case .refused(let reason, let text): "refused (\(reason)): \(text)"
        case .timedOut: "no answer in time"
        case .closed(let reason): "connection closed: \(reason)"
        case .cancelled: "cancelled"
        case .overloaded: "too many requests wait on this connection"
        }
    }
}
