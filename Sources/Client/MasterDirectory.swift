// Which masters a client knows, and which of them it believes to lead. It begins with those it was
// told of; any master that answers tells of the others (M17).
//
// Invariant: those it was told of stay, behind the ones that it learned of: the word of a master
// that fell behind, or an address that can't be reached from here, never leaves it without any.

package import Base
import Transport
package import Wire

/// The masters that a client tries.
struct MasterDirectory {
    private let told: [MasterTarget]
    private var targets: [MasterTarget]
    private var membership = Membership.none
    private var index = 0

    init(_ told: [MasterTarget]) {
        self.told = told
        targets = told
    }

    /// The one believed to lead.
    var candidate: MasterTarget { targets[index] }

    /// Another one is tried: this one, or the next.
    mutating func turn(to id: MasterID?) {
        let known = id.flatMap { id in targets.firstIndex { $0.id == id } }
        index = known ?? (index + 1) % targets.count
    }

    /// A master says who they are.
    mutating func learn(_ news: Membership) {
        guard news.number >= membership.number, news != membership else { return }
        membership = news
        let current = candidate
        let voters = news.voters.map { voter in
            // The way that it was told of is known to work from here.
            told.first { $0.id == voter.id && $0.address.network == voter.address.network }
                ?? MasterTarget(id: voter.id, address: voter.address)
        }
        targets = voters + told.filter { !voters.contains($0) }
        index = targets.firstIndex(of: current) ?? 0
    }
}

extension Dialer {
    /// A client of a cell, under a name of its own.
    package convenience init(clientOf cell: CellID, _ key: CellKey) {
        self.init(
            identity: PeerIdentity(cell: cell, role: .client, node: .random(in: 1 ... .max)),
            key: key)
    }
}

extension MasterTarget {
    /// Whether this is who answered.
    func isMeant(by identity: PeerIdentity) -> Bool {
        identity.role == .master && (id.map { UInt64($0.rawValue) == identity.node } ?? true)
    }

    /// Asks this very master what it knows, whether it leads or not.
    package func ask(_ cell: CellID, _ key: CellKey) throws(ClientError) -> MastersView {
        let dialer = Dialer(clientOf: cell, key)
        defer { dialer.shutDown() }
        let target = self
        let reply: MetadataReply?
        do throws(TransportError) {
            let connection = try dialer.connect(
                to: address, expects: { target.isMeant(by: $0) })
            defer { connection.close() }
            let request = MetadataRequest(session: .none, query: .masters)
            let frame = try connection.call(request.frame(), timeout: Limits.requestTimeout)
            reply = try? MetadataReply(frame)
        } catch {
            if case .refused(let reason, let text) = error { throw .refused(reason, text) }
            throw .unreachable("\(error)")
        }
        guard case .masters(let view)? = reply else {
            throw .unreachable("\(address.network) does not answer as a master")
        }
        return view
    }
}
