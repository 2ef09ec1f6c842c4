// The two sides of the handshake (D14) as values; Wire/Handshake.swift has the messages.
//
//  side      state       input       next        output
//  caller    hello sent  challenge   proof sent  proof
//            proof sent  welcome     done
//  listener  waiting     hello       challenged  challenge
//            challenged  proof       done        welcome
//  either    any         refused     failed
//            any         other       failed      refused {badFrame}
//
// Invariants:
//  1. A side is done only when the other has proved that it has the cell key.
//  2. The caller proves nothing to a listener that has not.

import Base
package import Wire

/// Who a connection's peer proved to be.
package struct ProvenPeer: Hashable, Sendable {
    package var identity: PeerIdentity
    /// Random for each start of its process; 0 for a listener, which does not say it.
    package var instance: UInt64
}

/// Who this process is: what it says in handshakes and how it proves it.
package struct Credentials: Sendable {
    package let identity: PeerIdentity
    /// Random for each start of a process.
    package let instance: UInt64
    package let key: CellKey

    /// The instance of this run of this process.
    package static let processInstance = UInt64.random(in: 1...UInt64.max)

    /// Credentials of this process, unless `instance` says otherwise.
    package init(
        identity: PeerIdentity, key: CellKey, instance: UInt64 = Credentials.processInstance
    ) {
        self.identity = identity
        self.key = key
        self.instance = instance
    }
}

/// What a side does after a frame.
enum HandshakeStep: Hashable {
    case send(Frame)
    /// Send this, if anything; then the connection is open.
    case done(Frame?, ProvenPeer)
    /// Tell the peer, then close.
    case refuse(Refused)
    /// The peer refused.
    case refused(Refused)
}

/// 32 bytes that were never used before.
func freshNonce() -> [UInt8] {
    var random = SystemRandomNumberGenerator()
    var writer = ByteWriter(capacity: 32)
    for _ in 0..<4 { writer.write(random.next() as UInt64) }
    return writer.bytes
}

private func misplaced(_ frame: Frame) -> HandshakeStep {
    .refuse(Refused(reason: .badFrame, text: "\(frame.kind) in a handshake"))
}

/// The side that dialed.
struct CallerHandshake {
    private let credentials: Credentials
    private let hello: Hello
    private let expects: (@Sendable (PeerIdentity) -> Bool)?
    private var proven: ProvenPeer?

    /// `expects` judges who answers, beyond the cell.
    init(
        _ credentials: Credentials, expects: (@Sendable (PeerIdentity) -> Bool)?,
        nonce: [UInt8] = freshNonce()
    ) {
        self.credentials = credentials
        self.expects = expects
        hello = Hello(
            identity: credentials.identity, instance: credentials.instance, nonce: nonce)
    }

    /// The first frame of the connection.
    var opening: Frame { hello.frame() }

    mutating func receive(_ frame: Frame) throws(DecodeError) -> HandshakeStep {
        switch frame.kind {
        case .refused:
            return .refused(try Refused(frame))
        case .challenge where proven == nil:
            return answer(try Challenge(frame))
        case .welcome:
            _ = try Welcome(frame)
            guard let proven else { return misplaced(frame) }
            return .done(nil, proven)
        default:
            return misplaced(frame)
        }
    }

    private mutating func answer(_ challenge: Challenge) -> HandshakeStep {
        let listener = challenge.identity
        guard listener.cell == credentials.identity.cell else {
            return .refuse(
                Refused(reason: .otherCell, text: "this is cell \(listener.cell)"))
        }
        let expected = credentials.key.listenerProof(
            hello: hello, listener: listener, nonce: challenge.nonce)
        guard challenge.proof == expected else {
            return .refuse(
                Refused(reason: .wrongKey, text: "the listener has another cell key"))
        }
        guard expects?(listener) ?? true else {
            return .refuse(
                Refused(
                    reason: .duplicateIdentity,
                    text: "\(listener.role) \(listener.node) answered in place of another"))
        }
        proven = ProvenPeer(identity: listener, instance: 0)
        let proof = credentials.key.callerProof(
            hello: hello, listener: listener, nonce: challenge.nonce)
        return .send(Proof(proof: proof).frame())
    }
}

/// The side that was dialed.
struct ListenerHandshake {
    private let credentials: Credentials
    private let nonce: [UInt8]
    private var hello: Hello?

    init(_ credentials: Credentials, nonce: [UInt8] = freshNonce()) {
        self.credentials = credentials
        self.nonce = nonce
    }

    /// `admit` may refuse a peer that proved who it is.
    mutating func receive(
        _ frame: Frame, admit: (ProvenPeer) -> Refused?
    ) throws(DecodeError) -> HandshakeStep {
        switch frame.kind {
        case .refused:
            return .refused(try Refused(frame))
        case .hello where hello == nil:
            return try challenge(frame)
        case .proof:
            guard let hello else { return misplaced(frame) }
            let expected = credentials.key.callerProof(
                hello: hello, listener: credentials.identity, nonce: nonce)
            guard try Proof(frame).proof == expected else {
                return .refuse(Refused(reason: .wrongKey, text: "the caller has another cell key"))
            }
            let peer = ProvenPeer(identity: hello.identity, instance: hello.instance)
            if let refusal = admit(peer) { return .refuse(refusal) }
            return .done(Welcome().frame(), peer)
        default:
            return misplaced(frame)
        }
    }

    private mutating func challenge(_ frame: Frame) throws(DecodeError) -> HandshakeStep {
        // The version comes first and is judged first: the rest may have another form.
        var reader = ByteReader(frame.head)
        let version = try reader.read(UInt16.self)
        guard version == Hello.version else {
            let text = "protocol version \(version); this release speaks \(Hello.version)"
            return .refuse(Refused(reason: .version, text: text))
        }
        let hello = try Hello(frame)
        guard hello.identity.cell == credentials.identity.cell else {
            let text = "this is cell \(credentials.identity.cell)"
            return .refuse(Refused(reason: .otherCell, text: text))
        }
        self.hello = hello
        let proof = credentials.key.listenerProof(
            hello: hello, listener: credentials.identity, nonce: nonce)
        let answer = Challenge(identity: credentials.identity, nonce: nonce, proof: proof)
        return .send(answer.frame())
    }
}
