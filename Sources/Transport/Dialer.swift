// Connections to peers: by Unix socket on the same machine, else by TCP (D3).

package import Base
package import NIOCore
import NIOPosix
package import Wire

/// Opens connections under one identity. Safe from any thread.
package final class Dialer: Sendable {
    /// Who dials.
    package let credentials: Credentials
    /// What happened to its connections.
    package let counters: TransportCounters
    /// The loop of the connections that `connect` makes.
    package let eventLoop: any EventLoop
    private let ownGroup: MultiThreadedEventLoopGroup?

    /// A dialer with an event loop, and a thread for it, of its own; end it with `shutDown`.
    package convenience init(identity: PeerIdentity, key: CellKey) {
        self.init(credentials: Credentials(identity: identity, key: key))
    }
    /// A dialer with an event loop, and a thread for it, of its own; end it with `shutDown`.
    package convenience init(credentials: Credentials) {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        self.init(
            credentials: credentials, on: group.next(), counters: TransportCounters(),
            ownGroup: group)
    }
    /// A dialer on somebody's event loop.
    package convenience init(
        credentials: Credentials, on eventLoop: any EventLoop, counters: TransportCounters
    ) {
        self.init(credentials: credentials, on: eventLoop, counters: counters, ownGroup: nil)
    }
    private init(
        credentials: Credentials, on eventLoop: any EventLoop, counters: TransportCounters,
        ownGroup: MultiThreadedEventLoopGroup?
    ) {
        self.credentials = credentials
        self.eventLoop = eventLoop
        self.counters = counters
        self.ownGroup = ownGroup
    }
    /// Ends the dialer's own thread and every connection on it. Blocks; not for event loops.
    package func shutDown() {
        // Fails only when it is called twice.
        try? ownGroup?.syncShutdownGracefully()
    }

    /// Starts a connection on this dialer's loop, on which it must be called. The owner hears
    /// `linkOpened` or `linkClosed`. `expects` judges who answers, beyond the cell.
    package func dial(
        _ address: PeerAddress, owner: any LinkOwner,
        expects: (@Sendable (PeerIdentity) -> Bool)? = nil
    ) -> Link {
        eventLoop.preconditionInEventLoop()
        let link = Link.calling(
            CallerHandshake(credentials, expects: expects), name: address.display, owner: owner,
            counters: counters, on: eventLoop)
        let bootstrap = ClientBootstrap(group: eventLoop)
            .connectTimeout(.nanoseconds(Limits.connectTimeout.nanoseconds))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(link)
                }
            }
        let eventLoop = eventLoop
        start(bootstrap, address).whenFailure { error in
            let reason = describe(error)
            // Never before the caller has its link.
            eventLoop.execute {
                link.failed(.unreachable(address: address.display, reason: reason))
            }
        }
        return link
    }
    private func start(
        _ bootstrap: ClientBootstrap, _ address: PeerAddress
    ) -> EventLoopFuture<any Channel> {
        if let socket = address.usableSocket {
            return bootstrap.connect(unixDomainSocketPath: socket)
        }
        guard let name = NetworkName(address.network) else {
            return eventLoop.makeFailedFuture(BadAddress())
        }
        let network =
            bootstrap
            .channelOption(.tcpOption(.tcp_nodelay), value: 1)
            .channelOption(.socketOption(.so_keepalive), value: 1)
        // No thread is needed to resolve a plain address.
        if let plain = try? SocketAddress(ipAddress: name.host, port: name.port) {
            return network.connect(to: plain)
        }
        return network.connect(host: name.host, port: name.port)
    }

    /// Connects and waits for it, at most `Limits.connectTimeout` for the connection and as much
    /// for the handshake. Not for event loops. Errors: unreachable, refused, timedOut.
    package func connect(
        to address: PeerAddress, expects: (@Sendable (PeerIdentity) -> Bool)? = nil,
        isCancelled: () -> Bool = { false }
    ) throws(TransportError) -> PeerConnection {
        let waiter = Waiter<Result<PeerConnection, TransportError>>()
        connect(to: address, expects: expects) { waiter.add($0) }
        // Both parts have a deadline of their own; this one is for a resolver that hangs.
        let deadline = Waiter<Never>.deadline(in: Limits.connectTimeout * 3)
        do throws(TransportError) {
            return try waiter.next(deadline: deadline, isCancelled: isCancelled).get()
        } catch {
            waiter.abandon { late in if case .success(let connection) = late { connection.close() }
            }
            throw error
        }
    }
    /// Connects and tells the result on the event loop.
    package func connect(
        to address: PeerAddress, expects: (@Sendable (PeerIdentity) -> Bool)? = nil,
        result: @escaping @Sendable (Result<PeerConnection, TransportError>) -> Void
    ) {
        let connection = PeerConnection(on: eventLoop, opened: result)
        eventLoop.execute {
            connection.attach(self.dial(address, owner: connection, expects: expects))
        }
    }
}

private struct BadAddress: Error, CustomStringConvertible {
    var description: String { "not an address of the form HOST:PORT" }
}
