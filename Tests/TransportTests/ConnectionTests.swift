// Calls over real sockets.

import Base
import Glibc
import Synchronization
import Testing
import Transport
import Wire

/// A server and a connection to it, for the time of one test.
private func withEcho(
    socket: Bool = false, _ body: (PeerConnection, EchoServer) throws -> Void
) throws {
    let server = EchoServer()
    defer { server.stop() }
    let path = socketPath()
    var address = try server.listen(
        network: socket ? "" : "127.0.0.1:0", socket: socket ? path : "")
    if socket { address.network = "" }
    let dialer = Dialer(identity: identity(), key: key)
    defer { dialer.shutDown() }
    let connection = try dialer.connect(to: address)
    #expect(connection.peer == identity(.master, 1))
    try body(connection, server)
}

private let request = Frame(kind: .readRequest, head: [1, 2, 3])
private let bigRequest = Frame(
    kind: .writeRequest, head: [UInt8](repeating: 5, count: 300),
    payload: (0..<Limits.framePayload).map { UInt8(truncatingIfNeeded: $0 &* 31) }[...])

struct ConnectionTests {
    @Test("Small and largest frames come back whole", arguments: [false, true])
    func roundTrip(socket: Bool) throws {
        try withEcho(socket: socket) { connection, _ in
            let largestHead = Frame(
                kind: .readReply, head: [UInt8](repeating: 1, count: Limits.frameHead))
            for frame in [request, bigRequest, largestHead, request] {
                let reply = try connection.call(frame, timeout: .seconds(10))
                #expect(reply.kind == frame.kind)
                #expect(reply.head == frame.head)
                #expect(reply.payload == frame.payload)
            }
        }
    }

    @Test("Ten thousand calls in flight each get their own answer")
    func pipelined() throws {
        try withEcho { connection, _ in
            let total = 10_000
            let answered = Mutex((right: 0, wrong: 0, failed: 0))
            for index in 0..<total {
                var writer = ByteWriter()
                writer.write(UInt32(index) << 8)
                let frame = Frame(kind: .readRequest, head: writer.bytes)
                let head = frame.head
                while answered.withLock({ index - $0.right - $0.wrong - $0.failed > 2_000 }) {
                    usleep(200)
                }
                connection.start(frame, timeout: .seconds(30)) { result in
                    answered.withLock { answered in
                        switch result {
                        case .success(let reply) where reply.head == head: answered.right += 1
                        case .success: answered.wrong += 1
                        case .failure: answered.failed += 1
                        }
                    }
                }
            }
            var last = Frame(kind: .readRequest, head: [1])
            last = try connection.call(last, timeout: .seconds(30))
            #expect(answered.withLock { [$0.right, $0.wrong, $0.failed] } == [total, 0, 0])
        }
    }

    @Test("Calls from many threads do not mix")
    func manyThreads() async throws {
        let server = EchoServer()
        defer { server.stop() }
        let address = try server.listen()
        let dialer = Dialer(identity: identity(), key: key)
        defer { dialer.shutDown() }
        let connection = try dialer.connect(to: address)
        try await withThrowingTaskGroup(of: Bool.self) { group in
            for thread in 0..<4 as Range<UInt8> {
                group.addTask {
                    for round in 0..<200 as Range<UInt8> {
                        let frame = Frame(kind: .readRequest, head: [1, thread, round])
                        let reply = try connection.call(frame, timeout: .seconds(10))
                        guard reply.head == frame.head else { return false }
                    }
                    return true
                }
            }
            for try await isRight in group { #expect(isRight) }
        }
    }

    @Test("A request with several replies gets all of them, in either form")
    func streaming() throws {
        try withEcho { connection, _ in
            let three = Frame(kind: .readRequest, head: Array("3".utf8))
            var count = 0
            try connection.call(three, timeout: .seconds(5)) { _ in
                count += 1
                return count == 3
            }
            #expect(count == 3)
            let replies = Mutex(0)
            connection.start(
                three, timeout: .seconds(5), isLast: { _ in replies.withLock { $0 } == 2 }
            ) { _ in
                replies.withLock { $0 += 1 }
            }
            _ = try connection.call(request, timeout: .seconds(5))
            #expect(replies.withLock { $0 } == 3)
        }
    }

    @Test("A call without an answer times out, in either form, and the connection lives on")
    func timeout() throws {
        try withEcho { connection, _ in
            let silent = Frame(kind: .readRequest, head: Array("0".utf8))
            #expect(throws: TransportError.timedOut) {
                try connection.call(silent, timeout: .milliseconds(50))
            }
            let result = Mutex<Result<Frame, TransportError>?>(nil)
            connection.start(silent, timeout: .milliseconds(50)) { reply in
                result.withLock { $0 = reply }
            }
            while result.withLock({ $0 == nil }) { usleep(1_000) }
            #expect(result.withLock { $0 } == .failure(.timedOut))
            let reply = try connection.call(request, timeout: .seconds(5))
            #expect(reply.head == request.head)
        }
    }

    @Test("A cancelled call returns long before its deadline")
    func cancellation() throws {
        try withEcho { connection, _ in
            let silent = Frame(kind: .readRequest, head: Array("0".utf8))
            var questions = 0
            #expect(throws: TransportError.cancelled) {
                try connection.call(
                    silent, timeout: .seconds(60),
                    isCancelled: {
                        questions += 1
                        return questions == 2
                    })
            }
        }
    }

    @Test("When the connection ends, every call that waits fails, and so do later ones")
    func closing() throws {
        try withEcho { connection, _ in
            let silent = Frame(kind: .readRequest, head: Array("0".utf8))
            let failures = Mutex(0)
            for _ in 0..<10 {
                connection.start(silent, timeout: .seconds(60)) { result in
                    if case .failure(.closed) = result { failures.withLock { $0 += 1 } }
                }
            }
            let end = Frame(kind: .readRequest, head: Array("X".utf8))
            #expect(throws: TransportError.closed("by the peer")) {
                try connection.call(end, timeout: .seconds(5))
            }
            while failures.withLock({ $0 < 10 }) { usleep(1_000) }
            #expect(!connection.isOpen)
            #expect(throws: TransportError.closed("by the peer")) {
                try connection.call(request, timeout: .seconds(5))
            }
        }
    }

    @Test("More requests than the bound are refused, and none is lost for it")
    func bound() throws {
        try withEcho { connection, _ in
            let silent = Frame(kind: .readRequest, head: Array("0".utf8))
            let refused = Mutex(0)
            for _ in 0...Limits.requestsPerConnection {
                connection.start(silent, timeout: .milliseconds(300)) { result in
                    if result == .failure(.overloaded) { refused.withLock { $0 += 1 } }
                }
            }
            #expect(refused.withLock { $0 } == 1)
            while (try? connection.call(request, timeout: .seconds(5))) == nil { usleep(10_000) }
        }
    }

    @Test("An address where nobody listens is unreachable, and says so")
    func unreachable() throws {
        let server = EchoServer()
        let address = try server.listen()
        server.stop()
        let dialer = Dialer(identity: identity(), key: key)
        defer { dialer.shutDown() }
        let reason = "Connection refused"
        #expect(
            throws: TransportError.unreachable(address: address.network, reason: reason)
        ) {
            try dialer.connect(to: address)
        }
        let nonsense = PeerAddress(network: "nonsense", socket: "", machine: "")
        #expect(throws: TransportError.self) { try dialer.connect(to: nonsense) }
    }
}
