// Talks to the masters: finds the leader, and sends each request until it has its answer.
//
// Invariants:
//  1. A change keeps its number over every try, connection and leader (M12); it is given up only
//     when its caller is cancelled or out of time, and then its outcome is unknown (S7).
//  2. A change is sent again under another session only if no try of it can have been executed.

import Base
import Caching
import Synchronization
import Transport
import Wire

/// One session at the masters (M12). Files belong to the session that opened them.
final class ClientSession: Sendable {
    let id: SessionID
    private let dead = Atomic<Bool>(false)
    /// The numbers of its changes.
    let window = Monitor(RequestWindow(bound: Limits.repliesPerSession))
    let extends = ExtendQueue()

    init(id: SessionID) { self.id = id }
    /// The masters forgot it: nothing of it is executed any more.
    var isDead: Bool { dead.load(ordering: .acquiring) }
    func die() { dead.store(true, ordering: .releasing) }
}

/// The client's side of the masters.
final class MetadataClient: Sendable {
    private struct State {
        var masters: MasterDirectory
        var connections: [MasterTarget: PeerConnection] = [:]
        /// Somebody connects to a master.
        var isConnecting = false
        var lastError: TransportError?
        var session: ClientSession?
        /// Somebody opens a session.
        var isOpening = false
        /// The leader's time, and this machine's when it came.
        var time = (leader: Timestamp.zero, local: Instant.zero)
    }
    /// While no leader is found an election is near: no long pauses.
    private static let electionPause = Interval.milliseconds(50)
    private static let searchPause = Interval.milliseconds(100)

    private static let reachTry = Interval.seconds(1)

    private let label: String
    private let dialer: Dialer
    private let state: Monitor<State>

    init(masters: [MasterTarget], label: String, dialer: Dialer) {
        state = Monitor(State(masters: MasterDirectory(masters)))
        self.label = label
        self.dialer = dialer
    }

    /// Why the last try to reach a master failed.
    var lastError: TransportError? { state.withLock { $0.lastError } }

    /// The leader's time, by its last answer and the time that went by since (DESIGN 3.4).
    func leaderTime() -> Timestamp {
        let time = state.withLock { $0.time }
        return time.leader + (BootClock.now() - time.local)
    }

    /// The session that is alive, if any.
    var liveSession: ClientSession? {
        state.withLock { state in
            guard let session = state.session, !session.isDead else { return nil }
            return session
        }
    }

    /// Finds the leader.
    func reach(_ patience: Patience) throws(FileError) {
        state.withLock { $0.lastError = nil }
        while true {
            let wait = Patience(patience.bounded(Self.reachTry))
            do throws(FileError) {
                _ = try query(.statistics, wait)
                return
            } catch {
                // Another cell or key does not get better by waiting.
                if case .refused(let reason, _)? = lastError, reason.isFinal { throw error }
                try patience.check()
            }
        }
    }

    /// Asks a question. `session` only where the leader must remember who asked.
    func query(
        _ query: MetadataQuery, session: ClientSession? = nil, _ patience: Patience
    ) throws(FileError) -> MetadataReply {
        let request = MetadataRequest(session: session?.id ?? .none, query: query)
        let (reply, _) = try exchange(request, patience)
        switch reply {
        case .sessionDead:
            session?.die()
            throw .io
        default: return reply
        }
    }

    /// Sends a question whose answer does not matter, soon, if a leader is connected.
    func post(_ query: MetadataQuery, session: ClientSession) {
        let connection = state.withLock { $0.connections[$0.masters.candidate] }
        let request = MetadataRequest(session: session.id, query: query)
        connection?.start(request.frame(), timeout: Limits.requestTimeout, isUrgent: false) { _ in }
    }

    /// Makes a change in `session`, or in the one that is alive.
    func change(
        _ change: MetadataChange, session wanted: ClientSession? = nil, _ patience: Patience
    ) throws(FileError) -> MetadataReply {
        while true {
            let session: ClientSession
            if let wanted { session = wanted } else { session = try self.session(patience) }
            if session.isDead { throw .io }
            let number = try session.window.wait(patience) { $0.take() }
            defer { session.window.update { $0.finish(number) } }
            let request = MetadataRequest(
                session: session.id, number: number,
                firstIncomplete: session.window.withLock { $0.first }, change: change)
            let (reply, isRepeated) = try exchange(request, patience)
            switch reply {
            case .sessionDead:
                session.die()
                if wanted != nil || isRepeated { throw .io }
            case .forgotten: throw .io
            default: return reply
            }
        }
    }

    /// The session that is alive; opens one if there is none.
    func session(_ patience: Patience) throws(FileError) -> ClientSession {
        let known = try state.wait(patience) { state -> ClientSession?? in
            if let session = state.session, !session.isDead { return session }
            if state.isOpening { return nil }
            state.isOpening = true
            return .some(nil)
        }
        if let known { return known }
        defer { state.update { $0.isOpening = false } }
        let change = MetadataChange.openSession(nonce: .random(in: 1 ... .max), label: label)
        let request = MetadataRequest(
            session: .none, number: RequestNumber(rawValue: 1),
            firstIncomplete: RequestNumber(rawValue: 1), change: change)
        guard case .session(let id, let time) = try exchange(request, patience).reply else {
            throw .io
        }
        let session = ClientSession(id: id)
        state.update { state in
            state.session = session
            state.time = (time, BootClock.now())
        }
        return session
    }

    /// Keeps the session alive; returns the unlinked files it is said to hold open.
    func renew(_ session: ClientSession, _ patience: Patience) throws(FileError) -> [InodeID] {
        let reply = try change(.renewSession, session: session, patience)
        guard case .orphans(let inodes, let time) = reply else { return [] }
        state.withLock { $0.time = (time, BootClock.now()) }
        return inodes
    }

    /// Asks who the masters are, so that they are found when those known so far are gone (M17).
    func refresh(_ patience: Patience) throws(FileError) {
        guard case .masters(let view) = try query(.masters, patience) else { return }
        state.update { $0.masters.learn(view.membership) }
    }

    /// Ends every connection.
    func close() {
        for connection in state.withLock({ Array($0.connections.values) }) { connection.close() }
    }
}

// Finding the leader.
extension MetadataClient {
    /// Sends a request until it has an answer from a leader. `isRepeated`: a try before the last
    /// may have been executed.
    private func exchange(
        _ request: MetadataRequest, _ patience: Patience
    ) throws(FileError) -> (reply: MetadataReply, isRepeated: Bool) {
        let frame = request.frame()
        var retry = RetryPolicy(deadline: patience.deadline)
        var isRepeated = false
        while true {
            try patience.check()
            let (master, connection) = try connect(patience, &retry)
            let reply: MetadataReply
            do throws(TransportError) {
                let answer = try connection.call(
                    frame, timeout: patience.bounded(Limits.requestTimeout),
                    isCancelled: { patience.isCancelled })
                reply = try Self.decode(answer)
            } catch {
                if error == .cancelled { throw .interrupted }
                if error != .overloaded { isRepeated = true }
                if case .closed = error { connection.close() }
                fail(master, error)
                try pause(&retry, patience, atMost: Self.searchPause)
                continue
            }
            switch reply {
            case .notLeader(let leader, let membership):
                follow(leader, membership, from: master)
                try patience.pause(leader == nil ? Self.electionPause : Limits.retryFirst)
            case .retry, .failed(.busy): try pause(&retry, patience)
            case .failed(let error): throw error
            default: return (reply, isRepeated)
            }
        }
    }

    private static func decode(_ frame: Frame) throws(TransportError) -> MetadataReply {
        do throws(DecodeError) {
            return try MetadataReply(frame)
        } catch {
            throw .closed("an answer that does not decode: \(error)")
        }
    }

    private func pause(
        _ retry: inout RetryPolicy, _ patience: Patience, atMost bound: Interval = Limits.retryLast
    ) throws(FileError) {
        guard let pause = retry.next(now: BootClock.now()) else { throw .timedOut }
        try patience.pause(min(pause, bound))
    }

    /// A connection to the master believed to lead.
    private func connect(
        _ patience: Patience, _ retry: inout RetryPolicy
    ) throws(FileError) -> (MasterTarget, PeerConnection) {
        while true {
            let (master, open) = try state.wait(patience) {
                state -> (MasterTarget, PeerConnection?)? in
                let master = state.masters.candidate
                if let connection = state.connections[master] {
                    if connection.isOpen { return (master, connection) }
                    state.connections[master] = nil
                }
                if state.isConnecting { return nil }
                state.isConnecting = true
                return (master, nil)
            }
            if let open { return (master, open) }
            defer { state.update { $0.isConnecting = false } }
            do throws(TransportError) {
                let connection = try dialer.connect(
                    to: master.address,
                    expects: { master.isMeant(by: $0) },
                    isCancelled: { patience.isCancelled })
                state.update { $0.connections[master] = connection }
                return (master, connection)
            } catch {
                if error == .cancelled { throw .interrupted }
                fail(master, error)
            }
            try pause(&retry, patience, atMost: Self.searchPause)
        }
    }

    /// A master did not answer: the next one may lead.
    private func fail(_ master: MasterTarget, _ error: TransportError) {
        state.update { state in
            state.lastError = error
            if state.masters.candidate == master { state.masters.turn(to: nil) }
        }
    }
    /// A master does not lead; it may know who does, and who the masters are.
    private func follow(
        _ leader: MasterID?, _ membership: Membership, from master: MasterTarget
    ) {
        state.update { state in
            let isAsked = state.masters.candidate == master
            state.masters.learn(membership)
            if isAsked { state.masters.turn(to: leader) }
        }
    }
}

extension Refused.Reason {
    /// Whether the same caller would be refused again.
    fileprivate var isFinal: Bool {
        switch self {
        case .version, .otherCell, .wrongKey: true
        case .overloaded, .badFrame, .duplicateIdentity: false
        }
    }
}
