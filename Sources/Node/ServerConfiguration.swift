// What a server process is told when it starts.

package import Base
package import Storage
package import Transport
package import Wire

/// A master and where it is.
package struct MasterAddress: Hashable, Sendable {
    package var id: MasterID
    package var address: PeerAddress

    /// Both fields at once.
    package init(id: MasterID, address: PeerAddress) {
        self.id = id
        self.address = address
    }
}

/// What the loop of a master or of a chunk server's disk needs to know.
package struct ServerConfiguration: Sendable {
    /// The disk's folder.
    package var folder: String
    /// Bytes that may be used there; nil: what is free.
    package var capacity: UInt64?
    /// Cell, role and node.
    package var identity: PeerIdentity
    package var key: CellKey
    /// `host:port` to listen on, port 0 for any; empty for no TCP.
    package var network: String
    /// Unix socket to listen on; empty for none.
    package var socket: String
    /// All masters of the cell, this one too.
    package var masters: [MasterAddress]

    /// All fields at once.
    package init(
        folder: String, capacity: UInt64? = nil, identity: PeerIdentity, key: CellKey,
        network: String, socket: String, masters: [MasterAddress]
    ) {
        self.folder = folder
        self.capacity = capacity
        self.identity = identity
        self.key = key
        self.network = network
        self.socket = socket
        self.masters = masters
    }
}

/// Why a server did not start.
package enum NodeError: Error, Hashable, Sendable, CustomStringConvertible {
    case storage(StorageError)
    case transport(TransportError)

    /// For people.
    package var description: String {
        switch self {
        case .storage(let error): error.description
        case .transport(let error): error.description
        }
    }
}
