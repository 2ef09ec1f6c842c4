// Takes connections on a TCP port, a Unix socket or both, and makes a link of each.
//
// Invariants:
//  1. Nothing a caller sends closes the listener, or costs more than `Limits.handshakeHead` bytes
//     before the caller has proved that it has the cell key.
//  2. A Unix socket in the way is removed only when nobody answers on it.

package import Base
import Glibc
package import NIOCore
import NIOPosix
import Synchronization
import Wire

/// An open listener. Safe from any thread.
package final class Listener: Sendable {
    /// Where it listens: the port is the real one where 0 was asked for.
    package let address: PeerAddress
    private let channels: [any Channel]

    private init(address: PeerAddress, channels: [any Channel]) {
        self.address = address
        self.channels = channels
    }

    /// Opens `network` (`host:port`) and `socket` (a path), each unless empty. Links live on
    /// `eventLoop` and belong to `owner`. Blocks; not for event loops.
    /// Error: cannotListen, which names the address.
    package static func open(
        network: String, socket: String, credentials: Credentials, owner: any LinkOwner,
        counters: TransportCounters, on eventLoop: any EventLoop
    ) throws(TransportError) -> Listener {
        let bootstrap = bootstrap(credentials, owner, counters, eventLoop)
        var channels: [any Channel] = []
        var address = PeerAddress(network: "", socket: socket, machine: Machine.bootID)
        do throws(TransportError) {
            if !network.isEmpty {
                guard let name = NetworkName(network) else {
                    throw .cannotListen(address: network, reason: "not of the form HOST:PORT")
                }
                let tcp = bootstrap.childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
                    .childChannelOption(.socketOption(.so_keepalive), value: 1)
                channels.append(
                    try wait(network, for: tcp.bind(host: name.host, port: name.port)))
                address.network = channels[0].localAddress.map(NetworkName.text) ?? network
            }
            if !socket.isEmpty {
                try clear(socket)
                channels.append(
                    try wait(socket, for: bootstrap.bind(unixDomainSocketPath: socket)))
            }
        } catch {
            for channel in channels { channel.close(promise: nil) }
            throw error
        }
        return Listener(address: address, channels: channels)
    }
    /// Takes no more connections; those that are open stay. Removes the Unix socket.
    package func close() {
        for channel in channels { channel.close(promise: nil) }
        if !address.socket.isEmpty { unlink(address.socket) }
    }

    private static func bootstrap(
        _ credentials: Credentials, _ owner: any LinkOwner, _ counters: TransportCounters,
        _ eventLoop: any EventLoop
    ) -> ServerBootstrap {
        ServerBootstrap(group: eventLoop)
            .serverChannelOption(.backlog, value: 1_024)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .serverChannelInitializer { channel in
                // Out of file descriptors: waits a second instead of spinning.
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(AcceptBackoffHandler())
                }
            }
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    guard counters.open.load(ordering: .relaxed) < Limits.connections else {
                        counters.refusedHandshakes.add(1, ordering: .relaxed)
                        throw TooManyConnections()
                    }
                    counters.accepted.add(1, ordering: .relaxed)
                    counters.open.add(1, ordering: .relaxed)
                    channel.closeFuture.whenComplete { _ in
                        counters.open.subtract(1, ordering: .relaxed)
                    }
                    let link = Link.listening(
                        ListenerHandshake(credentials),
                        name: channel.remoteAddress.map(NetworkName.text) ?? "unix",
                        owner: owner, counters: counters, on: channel.eventLoop)
                    try channel.pipeline.syncOperations.addHandler(link)
                }
            }
    }
    private static func wait(
        _ address: String, for channel: EventLoopFuture<any Channel>
    ) throws(TransportError) -> any Channel {
        do {
            return try channel.wait()
        } catch {
            throw .cannotListen(address: address, reason: describe(error))
        }
    }

    /// Removes a Unix socket that a dead process left behind.
    private static func clear(_ path: String) throws(TransportError) {
        guard path.utf8.count <= PeerAddress.socketPathBound else {
            let bound = PeerAddress.socketPathBound
            throw .cannotListen(address: path, reason: "a socket's path has \(bound) bytes at most")
        }
        var status = stat()
        guard lstat(path, &status) == 0 else { return }
        guard status.st_mode & S_IFMT == S_IFSOCK else {
            throw .cannotListen(address: path, reason: "something else is there")
        }
        guard !answers(path) else {
            throw .cannotListen(address: path, reason: "another process listens there")
        }
        unlink(path)
    }
    private static func answers(_ path: String) -> Bool {
        let socket = Glibc.socket(
            AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue), 0)
        guard socket >= 0 else { return true }
        defer { Glibc.close(socket) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let result = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(socket, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        return result == 0 || errno != ECONNREFUSED
    }
}

private struct TooManyConnections: Error {}
