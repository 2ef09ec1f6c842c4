// A connection for ordinary threads: calls by request id, many at once, over one link.
//
// Invariants:
//  1. Every request that was accepted ends exactly once: with its last reply or with an error.
//  2. A request without an answer has an unknown outcome (S7): no error here means "not done",
//     but `overloaded`, with which nothing was sent.
//  3. At most `Limits.requestsPerConnection` requests and `Limits.unsentBytes` bytes wait (S10).

package import Base
import NIOCore
import Synchronization
package import Wire

/// A connection to one peer. Safe from any thread; `close` it when it is no longer needed.
package final class PeerConnection: LinkOwner, Sendable {
    private typealias Reply = Result<Frame, TransportError>
    private enum Receiver {
        /// A thread that takes replies until it has the last.
        case waiter(Waiter<Reply>)
        case closure(
            deadline: Instant, isLast: @Sendable (Frame) -> Bool,
            receive: @Sendable (Result<Frame, TransportError>) -> Void)
    }
    private struct State {
        var receivers: [UInt64: Receiver] = [:]
        var lastRequest: UInt64 = 0
        var outbox: [Frame] = []
        var outboxBytes = 0
        /// Somebody asked the loop to send the outbox.
        var isSending = false
        /// Somebody asked the loop to look for requests that took too long.
        var isSweeping = false
        var peer: PeerIdentity?
        var end: TransportError?
    }
    private static let sweepTime = TimeAmount.milliseconds(50)

    private let eventLoop: any EventLoop
    private let state = Mutex(State())
    /// Set once, on the loop, before anything is sent.
    private let link: NIOLoopBoundBox<Link?>
    private let opened: @Sendable (Result<PeerConnection, TransportError>) -> Void

    init(
        on eventLoop: any EventLoop,
        opened: @escaping @Sendable (Result<PeerConnection, TransportError>) -> Void
    ) {
        self.eventLoop = eventLoop
        self.opened = opened
        link = NIOLoopBoundBox.makeBoxSendingValue(nil, eventLoop: eventLoop)
    }
    /// On the loop: the link that is being dialed.
    func attach(_ link: Link) {
        if state.withLock({ $0.end == nil }) { self.link.value = link }
    }

    /// Who answered; nil before the handshake is over.
    package var peer: PeerIdentity? { state.withLock { $0.peer } }
    /// Whether requests can still be made.
    package var isOpen: Bool { state.withLock { $0.end == nil && $0.peer != nil } }
    /// Why it ended; nil while it has not.
    package var end: TransportError? { state.withLock { $0.end } }

    /// Ends the connection; requests that wait fail with `closed`.
    package func close() {
        eventLoop.execute { self.link.value?.close() }
    }

    /// Sends a request and waits for its reply. The frame's request id is chosen here.
    /// `isCancelled` is asked every 100 ms at least. Not for event loops.
    /// Errors: timedOut, closed, refused, cancelled, overloaded.
    package func call(
        _ frame: Frame, timeout: Interval, isCancelled: () -> Bool = { false }
    ) throws(TransportError) -> Frame {
        var reply: Frame?
        try call(frame, timeout: timeout, isCancelled: isCancelled) { frame in
            reply = frame
            return true
        }
        guard let reply else { throw .closed("without a reply") }
        return reply
    }
    /// Sends a request and gives each reply to `receive`, on the calling thread, until it says
    /// that one was the last. Errors as `call`.
    package func call(
        _ frame: Frame, timeout: Interval, isCancelled: () -> Bool = { false },
        receive: (Frame) -> Bool
    ) throws(TransportError) {
        let waiter = Waiter<Reply>()
        let deadline = Waiter<Never>.deadline(in: timeout)
        let request = try enqueue(frame, .waiter(waiter))
        defer { state.withLock { _ = $0.receivers.removeValue(forKey: request) } }
        while true {
            let reply = try waiter.next(deadline: deadline, isCancelled: isCancelled)
            if receive(try reply.get()) { return }
        }
    }
    /// Sends a request; `receive` gets each reply on the event loop (it must not block there)
    /// until `isLast` is true of one, or an error. Where nothing was sent, it gets the error
    /// at once, on the calling thread. What is not `isUrgent` leaves with the next request, or
    /// 50 ms later. Errors as `call`, but for `cancelled`.
    package func start(
        _ frame: Frame, timeout: Interval, isUrgent: Bool = true,
        isLast: @escaping @Sendable (Frame) -> Bool = { _ in true },
        receive: @escaping @Sendable (Result<Frame, TransportError>) -> Void
    ) {
        let deadline = Waiter<Never>.deadline(in: timeout)
        do throws(TransportError) {
            _ = try enqueue(
                frame, .closure(deadline: deadline, isLast: isLast, receive: receive),
                isUrgent: isUrgent)
        } catch {
            receive(.failure(error))
        }
    }

    private func enqueue(
        _ frame: Frame, _ receiver: Receiver, isUrgent: Bool = true
    ) throws(TransportError) -> UInt64 {
        var frame = frame
        var mustSend = false
        var mustSweep = false
        let result: Result<UInt64, TransportError> = state.withLock { state in
            if let end = state.end { return .failure(end) }
            guard state.receivers.count < Limits.requestsPerConnection,
                state.outboxBytes < Limits.unsentBytes
            else { return .failure(.overloaded) }
            state.lastRequest += 1
            frame.request = state.lastRequest
            state.receivers[frame.request] = receiver
            state.outbox.append(frame)
            state.outboxBytes += frame.bodyLength
            mustSend = isUrgent && !state.isSending
            state.isSending = state.isSending || isUrgent
            if case .closure = receiver, !state.isSweeping {
                mustSweep = true
                state.isSweeping = true
            }
            return .success(frame.request)
        }
        let request = try result.get()
        if mustSend { eventLoop.execute { self.sendOutbox() } }
        if mustSweep { scheduleSweep() }
        return request
    }

    // On the loop from here on.

    private func sendOutbox() {
        guard let link = link.value else { return }
        // A peer that does not read: the rest waits in the outbox, where its bound is.
        guard link.unsentBytes < Limits.unsentBytes / 8 else {
            eventLoop.scheduleTask(in: .milliseconds(1)) { self.sendOutbox() }
            return
        }
        let frames = state.withLock { state in
            state.isSending = false
            state.outboxBytes = 0
            defer { state.outbox = [] }
            return state.outbox
        }
        for frame in frames { link.send(frame) }
        link.flush()
    }

    private func scheduleSweep() {
        eventLoop.scheduleTask(in: Self.sweepTime) { self.sweep() }
    }
    private func sweep() {
        let now = monotonicNow()
        var late: [Receiver] = []
        let goesOn = state.withLock { state in
            var goesOn = false
            for (request, receiver) in state.receivers {
                guard case .closure(let deadline, _, _) = receiver else { continue }
                if deadline <= now {
                    late.append(receiver)
                    state.receivers[request] = nil
                } else {
                    goesOn = true
                }
            }
            state.isSweeping = goesOn
            return goesOn
        }
        sendOutbox()
        for receiver in late { deliver(.failure(.timedOut), to: receiver) }
        if goesOn { scheduleSweep() }
    }

    private func deliver(_ reply: Reply, to receiver: Receiver) {
        switch receiver {
        case .waiter(let waiter): waiter.add(reply)
        case .closure(_, _, let receive): receive(reply)
        }
    }

    /// A dialed peer is judged by `expects`.
    package func admit(_ peer: ProvenPeer) -> Refused? { nil }
    /// The handshake is over.
    package func linkOpened(_ link: Link) {
        state.withLock { $0.peer = link.peer?.identity }
        opened(.success(self))
    }
    /// Gives a reply to who asked; nobody may wait for it any more.
    package func linkReceived(_ frame: Frame, on link: Link) {
        let receiver: Receiver? = state.withLock { state in
            guard let receiver = state.receivers[frame.request] else { return nil }
            if case .closure(_, let isLast, _) = receiver, isLast(frame) {
                state.receivers[frame.request] = nil
            }
            return receiver
        }
        if let receiver { deliver(.success(frame), to: receiver) }
    }
    /// Fails every request that waits.
    package func linkClosed(_ link: Link, because error: TransportError) {
        self.link.value = nil
        let (wasOpen, receivers) = state.withLock { state in
            state.end = error
            state.outbox = []
            defer { state.receivers = [:] }
            return (state.peer != nil, state.receivers)
        }
        if !wasOpen { opened(.failure(error)) }
        for (_, receiver) in receivers { deliver(.failure(error), to: receiver) }
    }
}
