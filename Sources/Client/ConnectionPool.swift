// Connections to chunk servers, made when they are first needed. Nothing here blocks.
//
// Invariants:
//  1. Every request ends exactly once: with its last reply or with an error.
//  2. Reads and writes have connections of their own, so that neither waits behind the other.

import Base
import Transport
import Wire

/// Asks chunk servers. Safe from any thread, event loops too.
final class ConnectionPool: Sendable {
    enum Purpose: Hashable { case reading, writing }
    typealias Receive = @Sendable (Result<Frame, TransportError>) -> Void

    private struct Key: Hashable {
        let server: ServerID
        let address: PeerAddress
        let purpose: Purpose
    }
    private enum Place {
        /// Requests that wait for it.
        case connecting([@Sendable (Result<PeerConnection, TransportError>) -> Void])
        case open(PeerConnection)
    }
    private let dialer: Dialer
    private let places = Monitor<[Key: Place]>([:])

    init(dialer: Dialer) { self.dialer = dialer }

    /// Sends a request to the server of a disk; `receive` gets each reply up to the last, or an
    /// error, on an event loop or at once.
    func start(
        _ frame: Frame, to location: DiskLocation, for purpose: Purpose, timeout: Interval,
        receive: @escaping Receive
    ) {
        let key = Key(server: location.server, address: location.address, purpose: purpose)
        let begin: @Sendable (Result<PeerConnection, TransportError>) -> Void = { result in
            switch result {
            case .success(let connection):
                connection.start(
                    frame, timeout: timeout, isLast: { ReadReply.isLast($0) }, receive: receive)
            case .failure(let error): receive(.failure(error))
            }
        }
        enum Step {
            case use(PeerConnection)
            case dial, wait
        }
        let step = places.withLock { places -> Step in
            switch places[key] {
            case .open(let connection) where connection.isOpen: return .use(connection)
            case .connecting(var waiting):
                waiting.append(begin)
                places[key] = .connecting(waiting)
                return .wait
            case .open, nil:
                places[key] = .connecting([begin])
                return .dial
            }
        }
        switch step {
        case .use(let connection): begin(.success(connection))
        case .wait: break
        case .dial: dial(key)
        }
    }

    private func dial(_ key: Key) {
        let server = key.server.rawValue
        dialer.connect(
            to: key.address, expects: { $0.role == .chunkServer && $0.node == server },
            result: { self.dialed(key, $0) })
    }

    private func dialed(_ key: Key, _ result: Result<PeerConnection, TransportError>) {
        let waiting = places.withLock { places in
            guard case .connecting(let waiting) = places[key] else {
                preconditionFailure("connected without a call")
            }
            if case .success(let connection) = result {
                places[key] = .open(connection)
            } else {
                places[key] = nil
            }
            return waiting
        }
        for begin in waiting { begin(result) }
    }

    /// Ends every connection.
    func close() {
        for place in places.withLock({ Array($0.values) }) {
            if case .open(let connection) = place { connection.close() }
        }
    }
}
