// The shell of a server: one event loop that owns one core, its disk and its connections (D2).
//
// A turn takes everything that arrived since the last one, steps the core once, carries out its
// effects in order, and flushes each connection once.
//
// Invariants:
//  1. The core and the connections are touched on the event loop only.
//  2. The core is stepped at its wake time at the latest, and never after it halted.
//  3. No two live processes are connected here under one identity (S8).

package import Base
package import Logging
import NIOCore
import NIOPosix
import Storage
import Store
import Synchronization
package import Transport
package import Wire

/// What the disk's threads bring, until the loop takes it.
private final class Mailbox: Sendable {
    private struct State {
        var events: [NodeEvent] = []
        var wake: (@Sendable () -> Void)?
    }
    private let state = Mutex(State())

    func add(_ event: NodeEvent) {
        let wake = state.withLock { state in
            state.events.append(event)
            return state.events.count == 1 ? state.wake : nil
        }
        wake?()
    }
    func open(_ wake: @escaping @Sendable () -> Void) { state.withLock { $0.wake = wake } }
    func take() -> [NodeEvent] {
        state.withLock { state in
            defer { state.events = [] }
            return state.events
        }
    }
}

/// A running server. `start` makes one; `stop` ends it.
package final class NodeLoop: LinkOwner, @unchecked Sendable {
    private enum LinkUse {
        case client(ConnectionID)
        /// An outbound connection has a lane.
        case node(PeerRoute, LaneName?)
    }

    /// Where it listens, the real port included.
    package private(set) var address = PeerAddress(network: "", socket: "", machine: "")
    /// What happened to its connections; safe from any thread.
    package let counters = TransportCounters()

    private let identity: PeerIdentity
    private let group: MultiThreadedEventLoopGroup
    private let eventLoop: any EventLoop
    private let dialer: Dialer
    private let disk: PosixDisk
    private let logger: Logger
    private let halted: @Sendable (String) -> Void
    private let mailbox: Mailbox
    /// Set once, as `address`, before `start` returns.
    private var listener: Listener?

    // On the loop only.
    private var core: CoreStep?
    private var wakeTime = Instant(nanoseconds: .max)
    private var inbox: [NodeEvent] = []
    private var isTurnScheduled = false
    private var isStopped = false
    private var wake: (task: Scheduled<Void>, time: Instant)?
    private var routes: [Peer: PeerRoute] = [:]
    private var uses: [UInt64: LinkUse] = [:]
    private var lastTag: UInt64 = 0
    private var clients: [ConnectionID: Link] = [:]
    private var budget = ClientBudget()
    private var unflushed: [Link] = []
    private var isHolding = false
    private var surroundings: NodeSurroundings?
    private var nextLook = Instant.zero

    /// Opens the disk's folder, listens, makes the core (on the loop, told where it listens) and
    /// runs it. `halted` is called once, on the loop, when the core gives up: the process should
    /// exit. Blocks until the core has had its first step; not for event loops.
    package static func start(
        _ configuration: ServerConfiguration, logger: Logger,
        halted: @escaping @Sendable (String) -> Void,
        makeCore: @escaping @Sendable (PeerAddress) -> sending CoreStep
    ) throws(NodeError) -> NodeLoop {
        Memory.keepFreed()
        let mailbox = Mailbox()
        let disk: PosixDisk
        do throws(StorageError) {
            disk = try PosixDisk(
                folder: configuration.folder, capacity: configuration.capacity, logger: logger
            ) { mailbox.add(.disk($0, $1)) }
        } catch {
            throw .storage(error)
        }
        let node = NodeLoop(configuration, disk, mailbox, logger, halted)
        do throws(TransportError) {
            let listener = try Listener.open(
                network: configuration.network, socket: configuration.socket,
                credentials: node.dialer.credentials, owner: node, counters: node.counters,
                on: node.eventLoop)
            node.listener = listener
            node.address = listener.address
        } catch {
            node.stop()
            throw .transport(error)
        }
        let address = node.address
        mailbox.open { node.eventLoop.execute { node.turn() } }
        let first = node.eventLoop.submit {
            node.core = makeCore(address)
            node.inbox.insert(.start(node.disk.inventory), at: 0)
            node.turn()
        }
        // It throws nothing, and the loop runs.
        try? first.wait()
        return node
    }

    private init(
        _ configuration: ServerConfiguration, _ disk: PosixDisk, _ mailbox: Mailbox,
        _ logger: Logger, _ halted: @escaping @Sendable (String) -> Void
    ) {
        self.disk = disk
        self.mailbox = mailbox
        self.logger = logger
        self.halted = halted
        identity = configuration.identity
        group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        eventLoop = group.next()
        dialer = Dialer(
            credentials: Credentials(identity: configuration.identity, key: configuration.key),
            on: eventLoop, counters: counters)
        let own = Self.peer(configuration.identity)
        for master in configuration.masters where Peer.master(master.id) != own {
            route(.master(master.id)).move(to: master.address)
        }
    }

    /// Ends connections, lets the disk finish what was started, ends all threads. Blocks; not
    /// for event loops.
    package func stop() {
        let listener = listener
        let closing = eventLoop.submit {
            self.isStopped = true
            self.wake?.task.cancel()
            listener?.close()
            for (_, route) in self.routes { route.closeAll() }
            for (_, link) in self.clients { link.close() }
        }
        // They fail only when `stop` is called twice.
        try? closing.wait()
        disk.close()
        try? group.syncShutdownGracefully()
    }
}

// Turns.
extension NodeLoop {
    private func add(_ event: NodeEvent) {
        inbox.append(event)
        guard !isTurnScheduled else { return }
        isTurnScheduled = true
        eventLoop.execute { self.turn() }
    }

    private func turn() {
        isTurnScheduled = false
        guard !isStopped, let core else { return }
        let fromDisk = mailbox.take()
        if inbox.isEmpty {
            inbox = fromDisk
        } else {
            inbox.append(contentsOf: fromDisk)
        }
        let time = NodeTime.current
        lookAround(time.now)
        let events = inbox
        inbox = []
        let (effects, wakeTime) = core(events, time)
        self.wakeTime = wakeTime
        for effect in effects where !isStopped { carryOut(effect) }
        for link in unflushed { link.flush() }
        unflushed.removeAll(keepingCapacity: true)
        budget.age(at: time.now)
        if isHolding || budget.isOver { holdBack() }
        scheduleWake(from: time.now)
    }

    /// Tells the core what it can't see.
    private func lookAround(_ now: Instant) {
        guard now >= nextLook else { return }
        nextLook = now + .seconds(1)
        let (counts, space) = (counters.statistics, disk.space)
        let seen = NodeSurroundings(
            space: DiskSpace(fileSystem: space.fileSystem, free: space.free),
            connections: ConnectionCounts(
                badFrames: counts.badFrames, refused: counts.refusedHandshakes))
        guard seen != surroundings else { return }
        surroundings = seen
        inbox.append(.surroundings(seen))
    }

    private func carryOut(_ effect: NodeEffect) {
        switch effect {
        case .disk(let effect):
            disk.perform(effect)
        case .send(let peer, let frame):
            send(frame, to: peer)
        case .address(let peer, let address):
            if peer != Self.peer(identity) { route(peer).move(to: address) }
        case .halt(let reason):
            logger.critical("stopping: \(reason)")
            isStopped = true
            halted(reason)
        case .report(let text, let isAlarm):
            logger.log(level: isAlarm ? .error : .info, "\(text)")
        }
    }

    /// A wake that comes too early only asks again, so that a later wake time costs nothing.
    private func scheduleWake(from now: Instant) {
        guard !isStopped else { return }
        let time = wakeTime
        if let wake {
            if wake.time <= time { return }
            wake.task.cancel()
        }
        let delay = max(time - now, .zero)
        let task = eventLoop.scheduleTask(in: .nanoseconds(delay.nanoseconds)) {
            self.wake = nil
            let now = NodeTime.current.now
            if self.wakeTime > now {
                self.scheduleWake(from: now)
            } else {
                self.turn()
            }
        }
        wake = (task, time)
    }
}

// Sending.
extension NodeLoop {
    private func send(_ frame: Frame, to peer: Peer) {
        let link: Link?
        switch peer {
        case .client(let connection):
            budget.answer(frame.request, of: connection)
            guard let client = clients[connection] else { return }
            link = PeerRoute.give(frame, to: client)
            if client.unsentBytes > Self.unreadReplies { hold(client) }
        case .master, .server:
            link = route(peer).send(frame)
        }
        guard let link, !unflushed.contains(where: { $0 === link }) else { return }
        unflushed.append(link)
    }

    private func route(_ peer: Peer) -> PeerRoute {
        if let route = routes[peer] { return route }
        let route = PeerRoute(peer: peer) { [unowned self] address, lane in
            let link = dialer.dial(address, owner: self) { Self.peer($0) == peer }
            use(link, .node(self.route(peer), lane))
            return link
        }
        routes[peer] = route
        return route
    }
    private func use(_ link: Link, _ use: LinkUse) {
        lastTag += 1
        link.tag = lastTag
        uses[lastTag] = use
    }
    /// Nil for a client, which has no name that lasts.
    private static func peer(_ identity: PeerIdentity) -> Peer? {
        switch identity.role {
        case .client: nil
        case .master: UInt16(exactly: identity.node).map { .master(MasterID(rawValue: $0)) }
        case .chunkServer: .server(ServerID(rawValue: identity.node))
        }
    }
}

// Back-pressure: only clients are ever held back (DESIGN 3.2).
extension NodeLoop {
    /// Bytes of replies that a client has not read; then it gets to ask no more.
    private static var unreadReplies: Int { Limits.unsentBytes / 4 }

    private func hold(_ link: Link) {
        isHolding = true
        link.pause(true)
    }
    /// Looks again at who must wait.
    private func holdBack() {
        isHolding = false
        for (connection, link) in clients {
            let mustWait =
                budget.isOver || budget.isOver(connection)
                || link.unsentBytes > Self.unreadReplies
            if mustWait { isHolding = true }
            link.pause(mustWait)
        }
    }
}

// What the connections say.
extension NodeLoop {
    /// After so long without a word a connection does not stand in the way of another process
    /// with its identity: its own may have lost its power.
    private static var silence: TimeAmount { .seconds(3) }

    /// Refuses a second process with one identity, and this process's own.
    package func admit(_ caller: ProvenPeer) -> Refused? {
        guard caller.identity.role != .client else { return nil }
        let name = "\(caller.identity.role) \(caller.identity.node)"
        guard caller.identity != identity, let peer = Self.peer(caller.identity) else {
            logger.error("refused: a second process says that it is \(name)")
            return Refused(reason: .duplicateIdentity, text: "\(name) is another process")
        }
        for link in route(peer).inbound where link.peer?.instance != caller.instance {
            guard NIODeadline.now() - link.lastRead > Self.silence else {
                logger.error("refused: a second process says that it is \(name)")
                return Refused(
                    reason: .duplicateIdentity, text: "\(name) is connected from another process")
            }
            link.close(because: .closed("silent, and its process is back"))
        }
        return nil
    }

    /// Gives the connection its use.
    package func linkOpened(_ link: Link) {
        guard let identity = link.peer?.identity else { return }
        if case .node(let route, let lane)? = uses[link.tag] {
            route.opened(link, lane: lane)
        } else if let peer = Self.peer(identity) {
            let route = route(peer)
            use(link, .node(route, nil))
            route.opened(link, lane: nil)
        } else {
            let connection = ConnectionID(rawValue: lastTag + 1)
            use(link, .client(connection))
            clients[connection] = link
        }
    }

    /// An event for the next turn.
    package func linkReceived(_ frame: Frame, on link: Link) {
        switch uses[link.tag] {
        case .client(let connection):
            budget.add(frame, from: connection)
            if budget.isOver(connection) || budget.isOver { hold(link) }
            add(.frame(from: .client(connection), frame))
        case .node(let route, _):
            add(.frame(from: route.peer, frame))
        case nil:
            preconditionFailure("a frame of a link that is not in use")
        }
    }

    /// Tells the core of a peer's last connection.
    package func linkClosed(_ link: Link, because error: TransportError) {
        switch uses.removeValue(forKey: link.tag) {
        case .client(let connection):
            clients[connection] = nil
            budget.remove(connection)
            add(.disconnected(.client(connection)))
        case .node(let route, let lane):
            if let lane, route.isFirstFailure(of: lane) {
                logger.info("\(lane) connection to \(route.peer) at \(link.name): \(error)")
            }
            if route.closed(link, lane: lane) { add(.disconnected(route.peer)) }
        case nil:
            // A caller that never got through the handshake.
            logger.info("connection from \(link.name): \(error)")
        }
    }
}
