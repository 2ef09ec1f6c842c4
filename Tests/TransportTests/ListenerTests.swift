// What a listener withstands: strangers, nonsense, silence, and what is in its way.

import Base
import Glibc
import Testing
import Transport
import Wire

struct ListenerTests {
    private func connect(
        _ address: PeerAddress, cell: CellID = cell, keyByte: UInt8 = 7,
        expects: (@Sendable (PeerIdentity) -> Bool)? = nil
    ) -> TransportError? {
        let key = CellKey(bytes: [UInt8](repeating: keyByte, count: 32)).unsafelyUnwrapped
        let dialer = Dialer(identity: identity(cell: cell), key: key)
        defer { dialer.shutDown() }
        do throws(TransportError) {
            let connection = try dialer.connect(to: address, expects: expects)
            let reply = try connection.call(
                Frame(kind: .readRequest, head: [1]), timeout: .seconds(5))
            #expect(reply.head == [1])
            return nil
        } catch {
            return error
        }
    }

    @Test("A caller with another key, another cell or unwanted is refused with the reason")
    func strangers() throws {
        let server = EchoServer()
        defer { server.stop() }
        let address = try server.listen()
        let other = CellID(high: 3, low: 4)
        guard case .refused(.wrongKey, _)? = connect(address, keyByte: 8) else {
            Issue.record("wrong key accepted")
            return
        }
        #expect(connect(address, cell: other) == .refused(.otherCell, "this is cell \(cell)"))
        guard case .refused(.duplicateIdentity, _)? = connect(address, expects: { $0.node == 2 })
        else {
            Issue.record("another master in its place accepted")
            return
        }
        #expect(connect(address) == nil)
        #expect(server.counters.statistics.accepted == 4)

        let picky = EchoServer(refusal: Refused(reason: .overloaded, text: "no more"))
        defer { picky.stop() }
        let guarded = try picky.listen()
        #expect(connect(guarded) == .refused(.overloaded, "no more"))
        #expect(picky.counters.statistics.refusedHandshakes == 1)
    }

    @Test("A caller that cannot prove the key gets no further than the challenge")
    func forgedProof() throws {
        let server = EchoServer()
        defer { server.stop() }
        let address = try server.listen()
        let caller = RawCaller(port: address.port)
        let hello = Hello(identity: identity(), nonce: [UInt8](repeating: 1, count: 32))
        caller.send(hello.frame().bytes)
        caller.send(Proof(proof: Digest(sha256: [1])).frame().bytes)
        #expect(try caller.refusal()?.reason == .wrongKey)
        #expect(server.counters.statistics.refusedHandshakes == 1)
    }

    @Test("Another protocol version is refused by name, whatever the rest looks like")
    func version() throws {
        let server = EchoServer()
        defer { server.stop() }
        let address = try server.listen()
        let caller = RawCaller(port: address.port)
        caller.send(Frame(kind: .hello, head: [1, 0, 99]).bytes)
        #expect(try caller.refusal()?.reason == .version)
    }

    static let nonsense: [[UInt8]] = {
        var random = SeededRandom(seed: 5)
        let noise = (0..<4_096).map { _ in UInt8(truncatingIfNeeded: random.next()) }
        var flipped = Hello(identity: identity(), nonce: noise.prefix(32) + []).frame().bytes
        flipped[40] ^= 1
        return [
            noise,
            // Over the bounds: of a head at all, of a head before the handshake, of a payload.
            oversize(head: UInt32(Limits.frameHead) + 1, payload: 0),
            oversize(head: UInt32(Limits.handshakeHead) + 1, payload: 0),
            oversize(head: 10, payload: 1),
            flipped,
            // Requests before the handshake.
            Frame(kind: .writeRequest, head: [1]).bytes,
            Proof(proof: Digest(sha256: [])).frame().bytes,
        ]
    }()
    private static func oversize(head: UInt32, payload: UInt32) -> [UInt8] {
        var bytes = Frame(kind: .hello, head: []).header
        var writer = ByteWriter()
        writer.write(head)
        writer.write(payload)
        bytes.replaceSubrange(16..<24, with: writer.bytes)
        writer = ByteWriter()
        writer.write(Checksum(of: bytes[..<28]).value)
        bytes.replaceSubrange(28..<32, with: writer.bytes)
        return bytes
    }

    @Test("Nonsense closes its connection, is counted, and harms nobody", arguments: nonsense)
    func badFrames(bytes: [UInt8]) throws {
        let server = EchoServer()
        defer { server.stop() }
        let address = try server.listen()
        let caller = RawCaller(port: address.port)
        caller.send(bytes)
        #expect(try caller.refusal()?.reason == .badFrame)
        #expect(server.counters.statistics.badFrames == 1)
        #expect(connect(address) == nil)
    }

    @Test("A caller that stops in the middle of its hello is closed after two seconds")
    func slowCaller() throws {
        let server = EchoServer()
        defer { server.stop() }
        let address = try server.listen()
        let caller = RawCaller(port: address.port)
        let hello = Hello(identity: identity(), nonce: [UInt8](repeating: 1, count: 32))
        caller.send(Array(hello.frame().bytes.dropLast()))
        #expect(caller.readToEnd() == [])
        #expect(server.counters.statistics.refusedHandshakes == 1)
        #expect(connect(address) == nil)
    }

    @Test("A frame that is cut off by the end of its connection is counted")
    func cutOff() throws {
        let server = EchoServer()
        defer { server.stop() }
        let address = try server.listen()
        for length in [1, 31, 40] {
            let caller = RawCaller(port: address.port)
            let hello = Hello(identity: identity(), nonce: [UInt8](repeating: 1, count: 32))
            caller.send(Array(hello.frame().bytes.prefix(length)))
            shutdown(caller.socket, Int32(SHUT_WR))
            #expect(caller.readToEnd() == [])
        }
        // Counted when the listener sees the end, which may be after its caller does.
        for _ in 0..<5_000 where server.counters.statistics.badFrames < 3 { usleep(1_000) }
        #expect(server.counters.statistics.badFrames == 3)
    }

    @Test("A handshake and a frame that come in small parts are understood")
    func drips() throws {
        let server = EchoServer()
        defer { server.stop() }
        let caller = RawCaller(port: try server.listen().port)
        let hello = Hello(identity: identity(), nonce: [UInt8](repeating: 1, count: 32))
        caller.drip(hello.frame().bytes, by: 9)
        let challenge = try Challenge(try caller.readFrame())
        let proof = key.callerProof(
            hello: hello, listener: challenge.identity, nonce: challenge.nonce)
        caller.drip(Proof(proof: proof).frame().bytes, by: 7)
        #expect(try caller.readFrame().kind == .welcome)
        let frame = Frame(
            kind: .writeRequest, request: 3, head: Array(0..<100), payload: Array(0..<200)[...])
        caller.drip(frame.bytes + frame.bytes, by: 33)
        #expect(try caller.readFrame().bytes == frame.bytes)
        #expect(try caller.readFrame().bytes == frame.bytes)
    }

    @Test("An address that is taken is an error that names it")
    func taken() throws {
        let first = EchoServer()
        defer { first.stop() }
        let path = socketPath()
        let address = try first.listen(socket: path)
        #expect(address.port != 0)
        let second = EchoServer()
        defer { second.stop() }
        #expect(
            throws: TransportError.cannotListen(
                address: address.network, reason: "Address already in use")
        ) { try second.listen(network: address.network) }
        #expect(
            throws: TransportError.cannotListen(
                address: path, reason: "another process listens there")
        ) { try second.listen(socket: path) }
        #expect(throws: TransportError.self) { try second.listen(network: "127.0.0.1") }
        let long = "/tmp/" + String(repeating: "x", count: 110)
        #expect(throws: TransportError.self) { try second.listen(socket: long) }
    }

    @Test("A Unix socket that a dead process left is replaced; anything else is left alone")
    func staleSocket() throws {
        let path = socketPath()
        let dead = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                #expect(bind(dead, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) == 0)
            }
        }
        close(dead)
        let server = EchoServer()
        let bound = try server.listen(network: "", socket: path)
        #expect(bound.usableSocket == path)
        #expect(connect(bound) == nil)
        server.stop()
        #expect(access(path, F_OK) != 0)

        let file = fopen(path, "w")
        fclose(file)
        defer { unlink(path) }
        let other = EchoServer()
        defer { other.stop() }
        #expect(
            throws: TransportError.cannotListen(address: path, reason: "something else is there")
        ) { try other.listen(network: "", socket: path) }
        #expect(access(path, F_OK) == 0)
    }
}
