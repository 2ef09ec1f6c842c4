// The handshake: both sides prove that they have the cell key before anything else is said (D14).
//
//   caller                                   listener
//     hello {version, cell, role, node, instance, nonce a}  ──►
//     ◄──  challenge {cell, role, node, nonce b, HMAC(key, "listener" a b …)}
//     proof {HMAC(key, "caller" a b …)}           ──►
//     ◄──  welcome            or, at any time, refused {reason}
//
// Invariants:
//  1. Nonces are 32 random bytes, never used twice.
//  2. Each proof covers both nonces, the cell, and who both sides say they are.

package import Base

/// What a process is to its peer.
package enum PeerRole: UInt8, Hashable, Sendable, CaseIterable {
    case client = 1
    case master = 2
    case chunkServer = 3
}

/// Who one side says it is.
package struct PeerIdentity: Hashable, Sendable {
    package var cell: CellID
    package var role: PeerRole
    /// MasterID, ServerID, or a client's random number.
    package var node: UInt64

    /// All fields at once.
    package init(cell: CellID, role: PeerRole, node: UInt64) {
        self.cell = cell
        self.role = role
        self.node = node
    }
    fileprivate func encode(into writer: inout ByteWriter) {
        writer.write(cell)
        writer.write(role.rawValue)
        writer.write(node)
    }
    fileprivate init(from reader: inout ByteReader) throws(DecodeError) {
        cell = try reader.readCell()
        let value = try reader.read(UInt8.self)
        guard let role = PeerRole(rawValue: value) else {
            throw .invalid(field: "role", value: UInt64(value))
        }
        self.role = role
        node = try reader.read()
    }
}

/// The first message of a connection, by who called.
package struct Hello: Message {
    package static let kind = FrameKind.hello
    /// 2: acknowledgements of chunk servers tell of strain, and sets can accept a loss.
    package static let version: UInt16 = 2
    package var version: UInt16
    package var identity: PeerIdentity
    /// Random for each start of a process: tells two processes with one identity apart.
    package var instance: UInt64
    /// 32 random bytes.
    package var nonce: [UInt8]

    /// All fields at once, in this release's version.
    package init(identity: PeerIdentity, instance: UInt64 = 0, nonce: [UInt8]) {
        version = Self.version
        self.identity = identity
        self.instance = instance
        self.nonce = nonce
    }
    package func encode(into writer: inout ByteWriter) {
        writer.write(version)
        identity.encode(into: &writer)
        writer.write(instance)
        writer.append(nonce)
    }
    package init(from reader: inout ByteReader, payload: inout ByteReader) throws(DecodeError) {
        version = try reader.read()
        identity = try PeerIdentity(from: &reader)
        instance = try reader.read()
        nonce = Array(try reader.take(32))
    }
}

/// The answer to a hello: the listener's own proof, and its nonce for the caller's.
package struct Challenge: Message {
    package static let kind = FrameKind.challenge
    package var identity: PeerIdentity
    /// 32 random bytes.
    package var nonce: [UInt8]
    package var proof: Digest

    /// All fields at once.
    package init(identity: PeerIdentity, nonce: [UInt8], proof: Digest) {
        self.identity = identity
        self.nonce = nonce
        self.proof = proof
    }
    package func encode(into writer: inout ByteWriter) {
        identity.encode(into: &writer)
        writer.append(nonce)
        writer.append(proof.bytes)
    }
    package init(from reader: inout ByteReader, payload: inout ByteReader) throws(DecodeError) {
        identity = try PeerIdentity(from: &reader)
        nonce = Array(try reader.take(32))
        guard let proof = Digest(bytes: try reader.take(32)) else { throw .truncated }
        self.proof = proof
    }
}

/// The caller's proof.
package struct Proof: Message {
    package static let kind = FrameKind.proof
    package var proof: Digest

    /// Wraps the proof.
    package init(proof: Digest) { self.proof = proof }
    package func encode(into writer: inout ByteWriter) { writer.append(proof.bytes) }
    package init(from reader: inout ByteReader, payload: inout ByteReader) throws(DecodeError) {
        guard let proof = Digest(bytes: try reader.take(32)) else { throw .truncated }
        self.proof = proof
    }
}

/// The listener accepts: requests may follow.
package struct Welcome: Message {
    package static let kind = FrameKind.welcome
    /// Nothing to say.
    package init() {}
    package func encode(into writer: inout ByteWriter) {}
    package init(from reader: inout ByteReader, payload: inout ByteReader) throws(DecodeError) {}
}

/// The last message of a connection that was not accepted.
package struct Refused: Message {
    package static let kind = FrameKind.refused
    /// Why.
    package enum Reason: UInt8, Sendable, CaseIterable {
        case version = 1
        case otherCell = 2
        case wrongKey = 3
        case overloaded = 4
        case badFrame = 5
        /// Another process with this identity is connected, or it is the listener's own.
        case duplicateIdentity = 6
    }
    package var reason: Reason
    /// For people.
    package var text: String

    /// Both fields at once.
    package init(reason: Reason, text: String) {
        self.reason = reason
        self.text = text
    }
    package func encode(into writer: inout ByteWriter) {
        writer.write(reason.rawValue)
        writer.write(text)
    }
    package init(from reader: inout ByteReader, payload: inout ByteReader) throws(DecodeError) {
        let value = try reader.read(UInt8.self)
        guard let reason = Reason(rawValue: value) else {
            throw .invalid(field: "refusal", value: UInt64(value))
        }
        self.reason = reason
        text = try reader.readString(bound: 1_000)
    }
}

/// The key of a cell and the proofs made with it.
package struct CellKey: Hashable, Sendable {
    private let bytes: [UInt8]

    /// The 32 bytes of a key; nil for any other count.
    package init?(bytes: [UInt8]) {
        guard bytes.count == 32 else { return nil }
        self.bytes = bytes
    }
    /// 64 hexadecimal digits, as in a key file; nil for anything else.
    package init?(hexadecimal text: some StringProtocol) {
        let digits = Array(text)
        guard digits.count == 64 else { return nil }
        self.init(
            bytes: stride(from: 0, to: 64, by: 2).compactMap {
                UInt8(String(digits[$0...($0 + 1)]), radix: 16)
            })
    }
    /// The proof that the listener has the key.
    package func listenerProof(hello: Hello, listener: PeerIdentity, nonce: [UInt8]) -> Digest {
        proof("martlet listener", hello, listener, nonce)
    }
    /// The proof that the caller has the key.
    package func callerProof(hello: Hello, listener: PeerIdentity, nonce: [UInt8]) -> Digest {
        proof("martlet caller", hello, listener, nonce)
    }
    private func proof(
        _ label: String, _ hello: Hello, _ listener: PeerIdentity, _ nonce: [UInt8]
    ) -> Digest {
        var writer = ByteWriter(capacity: 192)
        writer.write(label)
        hello.encode(into: &writer)
        listener.encode(into: &writer)
        writer.append(nonce)
        return Digest(hmacOf: writer.bytes, key: bytes)
    }
}
