// A listener that answers every frame, and the identities that the tests of connections use.

import Base
import Glibc
import NIOCore
import NIOPosix
import Synchronization
import Transport
import Wire

let cell = CellID(high: 1, low: 2)
let key = CellKey(bytes: [UInt8](repeating: 7, count: 32)).unsafelyUnwrapped

func identity(_ role: PeerRole = .client, _ node: UInt64 = 9, cell: CellID = cell) -> PeerIdentity {
    PeerIdentity(cell: cell, role: role, node: node)
}

/// Answers a request with its own bytes. The first byte of the head may ask for more: "3" three
/// replies, "0" none, "X" closes the connection.
final class EchoServer: LinkOwner, Sendable {
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let counters = TransportCounters()
    let refusal: Refused?
    let closed = Mutex<[TransportError]>([])
    private let listener = Mutex<Listener?>(nil)

    init(refusal: Refused? = nil) { self.refusal = refusal }

    func listen(network: String = "127.0.0.1:0", socket: String = "") throws -> PeerAddress {
        let credentials = Credentials(identity: identity(.master, 1), key: key)
        let listener = try Listener.open(
            network: network, socket: socket, credentials: credentials, owner: self,
            counters: counters, on: group.next())
        self.listener.withLock { $0 = listener }
        return listener.address
    }
    func stop() {
        listener.withLock { $0?.close() }
        try? group.syncShutdownGracefully()
    }

    func admit(_ peer: ProvenPeer) -> Refused? { refusal }
    func linkOpened(_ link: Link) {}
    func linkReceived(_ frame: Frame, on link: Link) {
        switch frame.head.first.map({ Character(UnicodeScalar($0)) }) {
        case "0": return
        case "3": for _ in 0..<3 { link.send(frame) }
        case "X": link.close()
        default: link.send(frame)
        }
        link.flush()
    }
    func linkClosed(_ link: Link, because error: TransportError) {
        closed.withLock { $0.append(error) }
    }
}

/// A caller that says what it likes.
struct RawCaller: ~Copyable {
    let socket: Int32

    init(port: Int) {
        socket = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(port).bigEndian
        address.sin_addr.s_addr = in_addr_t(0x7F00_0001).bigEndian
        let result = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(socket, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        precondition(result == 0, "the listener is gone")
        var isPrompt: Int32 = 1
        setsockopt(socket, Int32(IPPROTO_TCP), TCP_NODELAY, &isPrompt, 4)
        var time = timeval(tv_sec: 5, tv_usec: 0)
        setsockopt(
            socket, SOL_SOCKET, SO_RCVTIMEO, &time, socklen_t(MemoryLayout<timeval>.size))
    }
    deinit { close(socket) }

    func send(_ bytes: [UInt8]) { Glibc.send(socket, bytes, bytes.count, Int32(MSG_NOSIGNAL)) }
    /// Sends so many bytes at a time, slowly enough that they arrive so.
    func drip(_ bytes: [UInt8], by count: Int) {
        var rest = bytes[...]
        while !rest.isEmpty {
            send(Array(rest.prefix(count)))
            rest = rest.dropFirst(count)
            usleep(100)
        }
    }
    func readFrame() throws -> Frame {
        let header = try FrameHeader(read(Frame.headerSize)[...])
        let head = read(header.headLength)
        return try header.frame(head: head, payload: read(header.payloadLength)[...])
    }
    private func read(_ count: Int) -> [UInt8] {
        // A receive of nothing waits for something.
        guard count > 0 else { return [] }
        var bytes = [UInt8](repeating: 0, count: count)
        let got = recv(socket, &bytes, count, Int32(MSG_WAITALL))
        return Array(bytes.prefix(max(0, got)))
    }
    /// Reads until the connection ends; nil when it does not within 5 s.
    func readToEnd() -> [UInt8]? {
        var all: [UInt8] = []
        var part = [UInt8](repeating: 0, count: 4_096)
        while true {
            let count = recv(socket, &part, part.count, 0)
            if count == 0 || (count < 0 && errno == ECONNRESET) { return all }
            if count < 0 { return nil }
            all += part.prefix(count)
        }
    }
    /// The refusal that ends what the listener says, if any.
    func refusal() throws -> Refused? {
        guard let bytes = readToEnd() else { return nil }
        var rest = bytes[...]
        while rest.count >= Frame.headerSize {
            let header = try FrameHeader(rest.prefix(Frame.headerSize))
            rest = rest.dropFirst(Frame.headerSize)
            let frame = try header.frame(head: Array(rest.prefix(header.headLength)), payload: [])
            rest = rest.dropFirst(header.headLength)
            if frame.kind == .refused { return try Refused(frame) }
        }
        return nil
    }
}

extension PeerAddress {
    var port: Int { network.split(separator: ":").last.flatMap { Int($0) } ?? 0 }
}

extension Frame {
    /// All its bytes as they travel.
    var bytes: [UInt8] { header + head + payload }
}

/// A fresh path for a Unix socket.
func socketPath() -> String {
    "/tmp/martlet-\(getpid())-\(UInt32.random(in: 0...UInt32.max)).socket"
}
