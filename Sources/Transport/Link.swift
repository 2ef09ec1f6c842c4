// One connection on its event loop: frames, handshake, deadlines.
//
//  phase        event                     next
//  waiting      connected                 handshake (the caller says hello)
//  handshake    proofs right              open; the owner hears `linkOpened`
//  handshake    2 s passed                closed
//  any          bad frame, refusal        leaving: tells the peer, reads nothing any more
//  leaving      0.5 s passed              closed
//  any          the socket is gone        closed; the owner hears `linkClosed`, once
//
// Invariants:
//  1. Everything here happens on the link's event loop; that is what makes it Sendable.
//  2. The owner gets frames only of a link that is open (D14), in the order they were sent.
//  3. After `linkClosed` the owner hears nothing more of the link.

import Base
import Glibc
package import NIOCore
import NIOPosix
import Synchronization
package import Wire

/// Who uses a link. All calls come on the link's event loop.
package protocol LinkOwner: AnyObject, Sendable {
    /// May refuse a caller that has proved who it is, before it counts as connected.
    func admit(_ peer: ProvenPeer) -> Refused?
    /// The handshake is over; `link.peer` is set.
    func linkOpened(_ link: Link)
    /// A frame came.
    func linkReceived(_ frame: Frame, on link: Link)
    /// The link ended, before or after it was open; what was sent may be lost.
    func linkClosed(_ link: Link, because error: TransportError)
}

/// One connection; see the table above.
package final class Link: ChannelInboundHandler, @unchecked Sendable {
    /// Raw bytes come from the socket.
    package typealias InboundIn = ByteBuffer

    private enum Phase {
        case waiting
        case calling(CallerHandshake)
        case listening(ListenerHandshake)
        case open
        case leaving
        case closed
    }
    private static let handshakeTime = TimeAmount.nanoseconds(Limits.connectTimeout.nanoseconds)
    private static let leavingTime = TimeAmount.milliseconds(500)

    /// Where everything of this link happens.
    package let eventLoop: any EventLoop
    /// The address that was dialed, or the peer's; for people.
    package let name: String
    /// Set when the link is open.
    package private(set) var peer: ProvenPeer?
    /// Bytes that were given to `send` and have not reached the kernel.
    package private(set) var unsentBytes = 0
    /// When something came last.
    package private(set) var lastRead = NIODeadline.now()
    /// Whether reading is paused, to hold the peer back.
    package private(set) var isPaused = false
    /// Of the owner's own; a number that names the link there.
    package var tag: UInt64 = 0

    private let counters: TransportCounters
    private var owner: (any LinkOwner)?
    private var phase = Phase.waiting
    private var opening: Phase
    private var context: ChannelHandlerContext?
    private let parser = FrameParser()
    private var gatherer: FrameGatherer
    private var error: TransportError?

    private init(
        _ opening: Phase, name: String, owner: any LinkOwner, counters: TransportCounters,
        on eventLoop: any EventLoop
    ) {
        self.opening = opening
        self.name = name
        self.owner = owner
        self.counters = counters
        self.eventLoop = eventLoop
        gatherer = FrameGatherer(allocator: ByteBufferAllocator())
    }
    /// The side that dialed.
    static func calling(
        _ handshake: CallerHandshake, name: String, owner: any LinkOwner,
        counters: TransportCounters, on eventLoop: any EventLoop
    ) -> Link {
        Link(.calling(handshake), name: name, owner: owner, counters: counters, on: eventLoop)
    }
    /// The side that was dialed.
    static func listening(
        _ handshake: ListenerHandshake, name: String, owner: any LinkOwner,
        counters: TransportCounters, on eventLoop: any EventLoop
    ) -> Link {
        Link(.listening(handshake), name: name, owner: owner, counters: counters, on: eventLoop)
    }

    /// Whether frames can be sent.
    package var isOpen: Bool { if case .open = phase { true } else { false } }

    /// Gathers a frame; it leaves with the next `flush`. Dropped unless the link is open.
    package func send(_ frame: Frame) {
        if isOpen { gather(frame) }
    }
    /// Sends what was gathered.
    package func flush() {
        write(gatherer.take())
        context?.flush()
    }
    /// Stops or starts reading from the peer (DESIGN 3.2, Back-pressure).
    package func pause(_ isPaused: Bool) {
        guard isPaused != self.isPaused, let context else { return }
        self.isPaused = isPaused
        // Fails only on a channel that is closed, and then nothing is read anyway.
        try? context.channel.syncOptions?.setOption(.autoRead, value: !isPaused)
    }
    /// Ends the link; the owner hears `linkClosed`.
    package func close(because error: TransportError = .closed("by this side")) {
        if self.error == nil { self.error = error }
        if let context {
            context.close(promise: nil)
        } else {
            finish()
        }
    }
    /// Tells the peer why, and ends the link.
    package func refuse(_ refusal: Refused) {
        guard let context, error == nil else { return close() }
        error = .refused(refusal.reason, refusal.text)
        phase = .leaving
        gather(refusal.frame())
        flush()
        // Closing at once would reset the connection where bytes of the peer are unread, and
        // the reset would overtake the refusal.
        context.close(mode: .output, promise: nil)
        eventLoop.scheduleTask(in: Self.leavingTime) { self.context?.close(promise: nil) }
    }

    private func gather(_ frame: Frame) {
        unsentBytes += Frame.headerSize + frame.bodyLength
        gatherer.append(frame)
    }
    private func write(_ buffers: [ByteBuffer]) {
        guard let context, let last = buffers.last else { return }
        let count = buffers.reduce(0) { $0 + $1.readableBytes }
        for buffer in buffers.dropLast() { context.write(NIOAny(buffer), promise: nil) }
        let promise = eventLoop.makePromise(of: Void.self)
        promise.futureResult.whenComplete { _ in self.unsentBytes -= count }
        context.write(NIOAny(last), promise: promise)
    }

    /// The connection could not be made.
    func failed(_ error: TransportError) {
        if self.error == nil { self.error = error }
        finish()
    }
    private func finish() {
        if case .closed = phase { return }
        phase = .closed
        context = nil
        let owner = owner
        self.owner = nil
        owner?.linkClosed(self, because: error ?? .closed("by the peer"))
    }
}

// What the channel says.
extension Link {
    /// Called by SwiftNIO.
    package func handlerAdded(context: ChannelHandlerContext) { self.context = context }
    /// Called by SwiftNIO.
    package func handlerRemoved(context: ChannelHandlerContext) { finish() }

    /// Called by SwiftNIO.
    package func channelActive(context: ChannelHandlerContext) {
        guard case .waiting = phase, error == nil else { return close() }
        phase = opening
        prepareSocket(context.channel)
        if case .calling(let handshake) = phase { reply(handshake.opening) }
        eventLoop.scheduleTask(in: Self.handshakeTime) { self.endSlowHandshake() }
        context.fireChannelActive()
    }
    /// Room for several frames of block bytes, so that each wake-up moves as much as it can: by
    /// default a Unix socket holds less than two. They are read where the parser wants them.
    private func prepareSocket(_ channel: any Channel) {
        guard let options = channel.syncOptions else { return }
        let isLocal = [channel.localAddress, channel.remoteAddress].contains {
            $0?.protocol == .unix
        }
        // All fail only on a channel that is closed. The kernel sizes TCP's buffers itself.
        if isLocal {
            try? options.setOption(.socketOption(.so_sndbuf), value: Self.socketBytes)
        } else {
            try? options.setOption(.tcpOption(Self.userTimeout), value: Self.unheardTime)
        }
        try? options.setOption(.recvAllocator, value: parser)
        try? options.setOption(.maxMessagesPerRead, value: Self.readsPerTurn)
    }
    private static var socketBytes: SocketOptionValue { 1 << 20 }
    private static let userTimeout = NIOBSDSocket.Option(rawValue: TCP_USER_TIMEOUT)
    private static let unheardTime = SocketOptionValue(
        Limits.unheardTime.nanoseconds / 1_000_000)
    private static var readsPerTurn: UInt { 16 }

    /// Called by SwiftNIO.
    package func channelInactive(context: ChannelHandlerContext) {
        if error == nil, parser.isInFrame { counters.badFrames.add(1, ordering: .relaxed) }
        finish()
        context.fireChannelInactive()
    }
    /// Called by SwiftNIO.
    package func errorCaught(context: ChannelHandlerContext, error: any Error) {
        close(because: .closed(describe(error)))
    }

    /// Called by SwiftNIO.
    package func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var buffer = unwrapInboundIn(data)
        lastRead = .now()
        do throws(DecodeError) {
            while isListening, let frame = try parser.next(&buffer) { try receive(frame) }
        } catch {
            counters.badFrames.add(1, ordering: .relaxed)
            refuse(Refused(reason: .badFrame, text: "\(error)"))
        }
    }

    private var isListening: Bool {
        switch phase {
        case .calling, .listening, .open: true
        case .waiting, .leaving, .closed: false
        }
    }

    private func receive(_ frame: Frame) throws(DecodeError) {
        switch phase {
        case .calling(var handshake):
            let step = try handshake.receive(frame)
            phase = .calling(handshake)
            follow(step)
        case .listening(var handshake):
            let step = try handshake.receive(frame) { owner?.admit($0) }
            phase = .listening(handshake)
            follow(step)
        case .open:
            switch frame.kind {
            case .hello, .challenge, .proof, .welcome:
                throw .invalid(field: "frame kind", value: UInt64(frame.kind.rawValue))
            case .refused:
                let refusal = try Refused(frame)
                close(because: .refused(refusal.reason, refusal.text))
            default:
                owner?.linkReceived(frame, on: self)
            }
        case .waiting, .leaving, .closed:
            break
        }
    }

    private func follow(_ step: HandshakeStep) {
        switch step {
        case .send(let frame):
            reply(frame)
        case .done(let frame, let peer):
            if let frame { reply(frame) }
            self.peer = peer
            parser.headBound = Limits.frameHead
            phase = .open
            owner?.linkOpened(self)
        case .refuse(let refusal):
            counters.refusedHandshakes.add(1, ordering: .relaxed)
            if refusal.reason == .badFrame { counters.badFrames.add(1, ordering: .relaxed) }
            refuse(refusal)
        case .refused(let refusal):
            close(because: .refused(refusal.reason, refusal.text))
        }
    }
    private func reply(_ frame: Frame) {
        gather(frame)
        flush()
    }

    private func endSlowHandshake() {
        switch phase {
        case .calling, .listening:
            counters.refusedHandshakes.add(1, ordering: .relaxed)
            close(because: .timedOut)
        case .waiting, .open, .leaving, .closed:
            break
        }
    }
}

/// What the system said, for people.
func describe(_ error: any Error) -> String {
    switch error {
    case let error as IOError: String(cString: strerror(error.errnoCode))
    case let error as NIOConnectionError:
        error.connectionErrors.first.map { describe($0.error) } ?? "no address of \(error.host)"
    case ChannelError.connectTimeout: "no answer"
    default: "\(error)"
    }
}
