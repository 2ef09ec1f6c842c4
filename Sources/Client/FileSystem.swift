// The file system as Mount and the command line use it. All calls block the calling thread, which
// must be an ordinary one; they are safe from many threads.
//
// Invariants:
//  1. No call waits for another file's data: nothing is locked while a call waits.
//  2. Every call but `close` ends with `interrupted` soon after its cancellation, unless it ends
//     by itself, and with `timedOut` at the client's deadline, if there is one.

package import Base
import Caching
import Logging
import Synchronization
import Transport
package import Wire

/// A cell, connected to.
package final class FileSystem: Sendable {
    /// How long `close` tries to bring unsafe bytes into safety.
    private static let closingTime = Interval.seconds(30)

    let metadata: MetadataClient
    let data: DataPath
    let table = OpenTable()
    private let dialer: Dialer
    private let options: ClientOptions
    private let threads = ClientThreads()
    private let isStarted = Atomic<Bool>(false)

    /// Nothing is connected before `connect`.
    package init(target: CellTarget, options: ClientOptions) {
        precondition(!target.masters.isEmpty, "a cell without masters")
        dialer = Dialer(clientOf: target.cell, target.key)
        metadata = MetadataClient(
            masters: target.masters, label: options.label, dialer: dialer)
        data = DataPath(metadata: metadata, dialer: dialer, options: options)
        self.options = options
    }

    /// Finds the leader. Must succeed before anything else is called, and may be tried again.
    package func connect() throws(ClientError) {
        start()
        let patience = Patience(options.deadline ?? Limits.commandDeadline)
        do throws(FileError) {
            _ = try metadata.reach(patience)
        } catch {
            switch metadata.lastError {
            case .refused(let reason, let text)?: throw .refused(reason, text)
            case let reason?: throw .unreachable("\(reason)")
            case nil: throw .unreachable("no master leads: a majority must be up")
            }
        }
    }

    private func start() {
        guard !isStarted.exchange(true, ordering: .acquiringAndReleasing) else { return }
        Memory.keepFreed()
        threads.start { [data, table, metadata] in
            data.flushInBackground { table.release($0, metadata) }
        }
        threads.start { [lanes = data.lanes] in lanes.tend() }
        threads.start { [self] in
            var suspects: [InodeID] = []
            var isRenewed = true
            while threads.pause(isRenewed ? Limits.sessionRenewal : Limits.retryLast) {
                isRenewed = renew(&suspects)
                Memory.giveBack()
            }
        }
    }

    /// Keeps the session alive. Unlinked files that the leader takes for open here, twice in a
    /// row, and that are not: the leader may free them (K13). False: it was not renewed.
    private func renew(_ suspects: inout [InodeID]) -> Bool {
        // A master that does not answer now is asked again the next time.
        try? metadata.refresh(Patience(Limits.requestTimeout))
        guard let session = metadata.liveSession else { return true }
        do throws(FileError) {
            let orphans = try metadata.renew(session, Patience(Limits.sessionRenewal))
                .filter { !table.isOpen($0) }
            let released = orphans.filter(suspects.contains)
            suspects = orphans.filter { !released.contains($0) }
            if !released.isEmpty {
                let patience = Patience(Limits.sessionRenewal)
                _ = try metadata.change(.releaseOrphans(released), session: session, patience)
            }
            return true
        } catch {
            DataPath.log.warning("the session was not renewed: \(error)")
            return false
        }
    }

    /// Brings all unsafe bytes into safety, within 30 s, and ends the session and all threads.
    package func close() {
        let patience = Patience(options.deadline ?? Self.closingTime)
        for node in data.flushList.nodes {
            do throws(FileError) {
                try data.settle(node, patience)
            } catch {
                DataPath.log.error("inode \(node.inode): written data is lost: \(error)")
            }
        }
        if let session = metadata.liveSession {
            // Without an answer the session expires by itself.
            _ = try? metadata.change(
                .closeSession, session: session, Patience(Limits.requestTimeout))
        }
        data.flushList.close()
        data.lanes.close()
        threads.close()
        data.pool.close()
        metadata.close()
        dialer.shutDown()
    }

    func patience(_ cancellation: Cancellation?) -> Patience {
        Patience(
            deadline: options.deadline.map { BootClock.now() + $0 }, cancellation: cancellation)
    }

    /// The state of the cell, as the leader sees it.
    package func status(_ cancellation: Cancellation? = nil) throws(FileError) -> CellStatus {
        let reply = try metadata.query(.status, patience(cancellation))
        guard case .status(let status) = reply else { throw .io }
        return status
    }
    /// Capacity and use.
    package func statistics(
        _ cancellation: Cancellation? = nil
    ) throws(FileError) -> CellStatistics {
        let reply = try metadata.query(.statistics, patience(cancellation))
        guard case .statistics(let statistics) = reply else { throw .io }
        return statistics
    }
    /// Where sets are.
    package func sets(
        _ ids: [SetID], _ cancellation: Cancellation? = nil
    ) throws(FileError) -> [SetView] {
        guard case .sets(let views) = try metadata.query(.sets(ids), patience(cancellation))
        else { throw .io }
        return views
    }
}

/// The files that are open here.
final class OpenTable: Sendable {
    private let nodes = Monitor<[InodeID: OpenInode]>([:])

    func isOpen(_ inode: InodeID) -> Bool { nodes.withLock { $0[inode] != nil } }
    func node(_ inode: InodeID) -> OpenInode? { nodes.withLock { $0[inode] } }

    /// Counts one more handle of a file; `make` is called if it has none in a live session.
    func open(
        _ inode: InodeID, session: ClientSession, make: () -> OpenInode
    ) -> (node: OpenInode, isNew: Bool) {
        nodes.withLock { nodes in
            if let node = nodes[inode], node.session === session {
                node.state.withLock { $0.users += 1 }
                return (node, false)
            }
            let node = make()
            node.state.withLock { $0.users = 1 }
            nodes[inode] = node
            return (node, true)
        }
    }
    /// One handle less.
    func close(_ node: OpenInode, _ metadata: MetadataClient) {
        nodes.withLock { _ in node.state.withLock { $0.users -= 1 } }
        release(node, metadata)
    }
    /// Forgets a file without handles and unsafe bytes, and tells the leader.
    func release(_ node: OpenInode, _ metadata: MetadataClient) {
        let opens = nodes.withLock { nodes -> Int in
            node.state.withLock { state -> Int in
                guard state.users == 0, state.buffer.isClean else { return 0 }
                defer { state.opens = 0 }
                if nodes[node.inode] === node { nodes[node.inode] = nil }
                return state.opens
            }
        }
        for _ in 0..<opens { metadata.post(.close(node.inode), session: node.session) }
    }
}
