// The bytes of frames and of the handshake, as docs/FORMATS.md gives them.

import Base
import Testing
import Transport
import Wire

/// Hexadecimal digits of bytes; spaces between them are for people.
private func bytes(_ hexadecimal: String) -> [UInt8] {
    var digits = hexadecimal.filter { !$0.isWhitespace }[...]
    var bytes: [UInt8] = []
    while !digits.isEmpty {
        bytes.append(UInt8(digits.prefix(2), radix: 16).unsafelyUnwrapped)
        digits = digits.dropFirst(2)
    }
    return bytes
}

struct FormatTests {
    private let caller = PeerIdentity(
        cell: CellID(high: 0x0011_2233_4455_6677, low: 0x8899_AABB_CCDD_EEFF), role: .client,
        node: 5)
    private let listener = PeerIdentity(
        cell: CellID(high: 0x0011_2233_4455_6677, low: 0x8899_AABB_CCDD_EEFF), role: .master,
        node: 1)
    private let key = CellKey(bytes: Array(0..<32)).unsafelyUnwrapped
    private var hello: Hello {
        Hello(
            identity: caller, instance: 0x0102_0304_0506_0708,
            nonce: [UInt8](repeating: 0xAA, count: 32))
    }
    private let nonce = [UInt8](repeating: 0xBB, count: 32)

    @Test("A frame has these bytes, and is read back from them")
    func frame() throws {
        let frame = Frame(kind: .writeRequest, request: 7, head: [1, 2, 3], payload: [9, 8])
        let coded = bytes(
            """
            4d525446 01 00 2000 0700000000000000 03000000 02000000 1ef230f1 ed7dc177
            010203 0908
            """)
        #expect(frame.bytes == coded)
        let header = try FrameHeader(coded[..<32])
        #expect(try header.frame(head: [1, 2, 3], payload: [9, 8]) == frame)
        #expect(
            Welcome().frame().bytes
                == bytes("4d525446 01 00 0400 0000000000000000 00000000 00000000 00000000 af1654ec")
        )
    }

    @Test("The messages of the handshake have these bytes, and are read back from them")
    func handshake() throws {
        let cell = "7766554433221100 ffeeddccbbaa9988"
        let coded = bytes(
            "0200 \(cell) 01 0500000000000000 0807060504030201"
                + String(repeating: "aa", count: 32))
        #expect(hello.frame().head == coded)
        #expect(try Hello(Frame(kind: .hello, head: coded)) == hello)

        let listenerProof = key.listenerProof(hello: hello, listener: listener, nonce: nonce)
        let challenge = Challenge(identity: listener, nonce: nonce, proof: listenerProof)
        let codedChallenge = bytes(
            "\(cell) 02 0100000000000000" + String(repeating: "bb", count: 32)
                + "6fe24c28ed418d795317f8171bccdb3ede5bfd869673d24ff74d1573f6666888")
        #expect(challenge.frame().head == codedChallenge)
        #expect(try Challenge(Frame(kind: .challenge, head: codedChallenge)) == challenge)

        let callerProof = key.callerProof(hello: hello, listener: listener, nonce: nonce)
        let codedProof = bytes("b6386b7e1148d44b5541a210ced48e701d97216636aff8db37b9500618541c5d")
        #expect(Proof(proof: callerProof).frame().head == codedProof)
        #expect(try Proof(Frame(kind: .proof, head: codedProof)).proof == callerProof)

        let refused = Refused(reason: .wrongKey, text: "no")
        let codedRefused = bytes("03 02000000 6e6f")
        #expect(refused.frame().head == codedRefused)
        #expect(try Refused(Frame(kind: .refused, head: codedRefused)) == refused)
    }

    @Test("What a listener proof covers is put together as documented")
    func proofInput() {
        var writer = ByteWriter()
        writer.write("martlet listener")
        hello.encode(into: &writer)
        writer.write(listener.cell)
        writer.write(listener.role.rawValue)
        writer.write(listener.node)
        writer.append(nonce)
        #expect(
            Digest(hmacOf: writer.bytes, key: Array(0..<32))
                == key.listenerProof(hello: hello, listener: listener, nonce: nonce))
    }
}
