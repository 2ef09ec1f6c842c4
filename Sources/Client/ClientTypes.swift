// What a user of the client module says and gets: the cell to connect to, options, errors, and
// the token that cancels a waiting call.

package import Base
import Synchronization
package import Wire

/// One master of a cell and how to reach it.
package struct MasterTarget: Hashable, Sendable {
    /// Nil: whoever answers there.
    package var id: MasterID?
    package var address: PeerAddress

    /// Both fields at once.
    package init(id: MasterID?, address: PeerAddress) {
        self.id = id
        self.address = address
    }
}

/// A cell to connect to: read from a CELL folder, or from a list of hosts and a key file.
package struct CellTarget: Sendable {
    package var cell: CellID
    package var key: CellKey
    package var masters: [MasterTarget]

    /// All fields at once.
    package init(cell: CellID, key: CellKey, masters: [MasterTarget]) {
        self.cell = cell
        self.key = key
        self.masters = masters
    }
}

/// How a client behaves.
package struct ClientOptions: Sendable {
    /// Names the session in the cell's status, at most 300 bytes.
    package var label: String
    /// Content bytes of blocks kept for reading.
    package var cacheBytes: Int
    /// Content bytes that were written but are not acknowledged; then writers wait.
    package var writeBufferBytes: Int
    /// Operations give up with `FileError.timedOut` after this; nil waits for ever (hard mount).
    package var deadline: Interval?

    /// Sizes in bytes; 64 MiB each unless told otherwise.
    package init(
        label: String, cacheBytes: Int = 64 << 20, writeBufferBytes: Int = 64 << 20,
        deadline: Interval? = nil
    ) {
        self.label = label
        self.cacheBytes = cacheBytes
        self.writeBufferBytes = writeBufferBytes
        self.deadline = deadline
    }
}

/// Why a cell could not be connected to.
package enum ClientError: Error, Hashable, Sendable {
    /// No master answered in time.
    case unreachable(String)
    /// A master answered and does not want this client.
    case refused(Refused.Reason, String)
    /// The masters did not open a session.
    case session(String)
}

/// Ends the wait of one call from another thread; the call throws `FileError.interrupted`.
package final class Cancellation: Sendable {
    private let state = Atomic<Bool>(false)

    /// Not cancelled yet.
    package init() {}
    /// The waiting call notices within 100 ms.
    package func cancel() { state.store(true, ordering: .releasing) }
    /// Whether `cancel` was called.
    package var isCancelled: Bool { state.load(ordering: .acquiring) }
}

/// How a file is opened.
package struct OpenOptions: Hashable, Sendable {
    package var read: Bool
    package var write: Bool
    /// Every write goes to the end of the file (O_APPEND).
    package var append: Bool
    /// The file is emptied first (O_TRUNC).
    package var truncate: Bool

    /// All fields at once.
    package init(
        read: Bool = false, write: Bool = false, append: Bool = false, truncate: Bool = false
    ) {
        self.read = read
        self.write = write
        self.append = append
        self.truncate = truncate
    }
}
