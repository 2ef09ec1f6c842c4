// Sends extents to the primaries of their sets: one lane for each set and session, and in it a
// queue for each chunk.
//
// A request on its way:
//
//  state     event                                 next
//  flying    done                                  gone, its extents are answered
//  flying    outdated, no space, fenced, invalid   gone, its extents are answered so
//  flying    not primary, stale epoch, unknown     waiting, for the set's new place
//  flying    not serving, busy, no answer          waiting, longer each time, for ever (hard mount)
//  waiting   its time came                         flying, with the same numbers (C15); not while
//                                                  its primary is down and another is to come
//
// Invariants:
//  1. A request keeps its sequence numbers over every try.
//  2. At most `Limits.preparedBytes` of a lane fly, and no more numbers than a server remembers.
//  3. Nothing here compresses, sums blocks or blocks an event loop.

import Base
import Caching
import Logging
import Transport
import Wire

/// An extent on its way, and what its primary must know of the file.
struct WriteJob: Sendable {
    let node: OpenInode
    let block: FileBlock
    var extent: Extent
    let truncation: UInt32
    let cuts: [Cut]
}

/// All lanes of a client.
final class WriteLanes: Sendable {
    private struct Key: Hashable, Sendable {
        let session: SessionID
        let set: SetID
    }
    private struct Request: Sendable {
        let key: Key
        let session: ClientSession
        let jobs: [WriteJob]
        let sequence: RequestNumber
        let bytes: Int
        var retry = RetryPolicy(deadline: nil)
        /// Tries that have failed.
        var failures = 0
        /// How long the next try may take. The second no longer than the first: its set may be
        /// about to move.
        var timeout: Interval {
            let doublings = Int64(min(max(failures, 1) - 1, 4))
            return min(Limits.requestTimeout * (1 << doublings), WriteLanes.longestTry)
        }
        /// The set has moved, or its primary is gone.
        var needsRoute = false
    }
    /// What waits for one chunk, and how many requests are on their way there.
    private struct ChunkQueue {
        var jobs: [WriteJob] = []
        var bytes = 0
        var flying = 0
        /// It is in the lane's `ready`.
        var isReady = false
        /// A frame that is not full waits while others fly, so that small extents travel together.
        var hasFrame: Bool {
            if flying == 0 { return !jobs.isEmpty }
            return bytes >= Limits.frameData || jobs.count >= WriteRequest.extents
        }
        /// How many of them go together, since truncation and cuts are said once for all.
        var frame: (count: Int, bytes: Int) {
            var frame = (count: 0, bytes: 0)
            for job in jobs.prefix(WriteRequest.extents) {
                let bytes = frame.bytes + job.extent.payload.count
                guard job.truncation == jobs[0].truncation,
                    frame.count == 0 || bytes <= Limits.frameData
                else { break }
                frame = (frame.count + 1, bytes)
            }
            return frame
        }
        mutating func takeFrame(_ count: Int, bytes: Int) -> [WriteJob] {
            defer { jobs.removeFirst(count) }
            self.bytes -= bytes
            flying += 1
            isReady = false
            return Array(jobs.prefix(count))
        }
    }
    private struct Lane {
        let session: ClientSession
        var window = RequestWindow(bound: Limits.duplicatesPerSession)
        var chunks: [ChunkID: ChunkQueue] = [:]
        /// Chunks with a frame to send, in turn.
        var ready: [ChunkID] = []
        var flyingBytes = 0

        mutating func change<T>(_ chunk: ChunkID, _ body: (inout ChunkQueue) -> T) -> T {
            var queue = chunks.removeValue(forKey: chunk) ?? ChunkQueue()
            defer { if queue.flying > 0 || !queue.jobs.isEmpty { chunks[chunk] = queue } }
            let result = body(&queue)
            if queue.hasFrame, !queue.isReady {
                queue.isReady = true
                ready.append(chunk)
            }
            return result
        }
    }
    private struct State {
        var lanes: [Key: Lane] = [:]
        var waiting: [(due: Instant, request: Request)] = []
        var isClosed = false
    }
    /// The longest time for one try: the primary may hold a write while a backup is down.
    private static let longestTry = Interval.seconds(16)
    private static let log = Logger(label: "martlet.client")

    private let routes: SetRoutes
    private let pool: ConnectionPool
    private let state = Monitor(State())

    init(routes: SetRoutes, pool: ConnectionPool) {
        self.routes = routes
        self.pool = pool
    }

    /// Queues extents of one set and sends what is worth a frame. Does not block.
    func add(_ jobs: [WriteJob], to set: SetID, session: ClientSession) {
        let key = Key(session: session.id, set: set)
        let requests = state.withLock { state in
            var lane = state.lanes.removeValue(forKey: key) ?? Lane(session: session)
            for job in jobs {
                lane.change(job.extent.chunk) { queue in
                    queue.jobs.append(job)
                    queue.bytes += job.extent.payload.count
                }
            }
            defer { state.lanes[key] = lane }
            return Self.take(from: &lane, key)
        }
        for request in requests { send(request) }
    }

    /// Forms requests of what may fly now.
    private static func take(from lane: inout Lane, _ key: Key) -> [Request] {
        var requests: [Request] = []
        while let chunk = lane.ready.first, let request = next(chunk, from: &lane, key) {
            requests.append(request)
        }
        return requests
    }

    /// One request: extents of one chunk. Nil while too much flies.
    private static func next(_ chunk: ChunkID, from lane: inout Lane, _ key: Key) -> Request? {
        guard let (count, bytes) = lane.chunks[chunk]?.frame else { return nil }
        let fits = lane.flyingBytes == 0 || lane.flyingBytes + bytes <= Limits.preparedBytes
        guard fits, let sequence = lane.window.take(count) else { return nil }
        lane.flyingBytes += bytes
        lane.ready.removeFirst()
        let jobs = lane.change(chunk) { $0.takeFrame(count, bytes: bytes) }
        return Request(
            key: key, session: lane.session, jobs: jobs, sequence: sequence, bytes: bytes)
    }

    private func send(_ request: Request) {
        if request.session.isDead { return finish(request, .failed(.io)) }
        guard let view = routes.view(of: request.key.set),
            let primary = SetRoutes.primary(of: view)
        else { return wait(request, needsRoute: true) }
        // Who waits here for an answer hears late of the member that takes its place.
        guard primary.isUp || !view.locations.contains(where: \.isUp) else {
            return wait(request, needsRoute: true, hasFailed: false)
        }
        let first = request.jobs[0]
        let oldest = state.withLock { $0.lanes[request.key]?.window.first ?? request.sequence }
        let message = WriteRequest(
            context: ChunkContext(
                set: request.key.set, epoch: view.configuration.epoch,
                session: request.session.id, truncation: first.truncation, cuts: first.cuts),
            sequence: request.sequence, firstUnacked: oldest,
            extents: request.jobs.map(\.extent))
        pool.start(message.frame(), to: primary, for: .writing, timeout: request.timeout) {
            self.receive($0, to: request)
        }
    }

    private func receive(_ result: Result<Frame, TransportError>, to request: Request) {
        guard case .success(let frame) = result, let reply = try? WriteReply(frame) else {
            if case .failure(.overloaded) = result { return wait(request, needsRoute: false) }
            return wait(request, needsRoute: true)
        }
        switch reply.status {
        case .done:
            routes.note(request.key.set, reply.number)
            finish(request, .done)
        case .outdated: finish(request, .outdated)
        case .noSpace: finish(request, .failed(.noSpace))
        case .fenced:
            request.session.die()
            finish(request, .failed(.io))
        case .invalid:
            Self.log.error("set \(request.key.set): a write was refused as invalid")
            finish(request, .failed(.io))
        case .notPrimary, .staleEpoch, .unknownSet: wait(request, needsRoute: true)
        case .notServing, .busy, .damaged: wait(request, needsRoute: reply.status != .busy)
        }
    }

    private func finish(_ request: Request, _ outcome: ExtentOutcome) {
        let more = state.withLock { state -> [Request] in
            guard var lane = state.lanes.removeValue(forKey: request.key) else { return [] }
            defer { state.lanes[request.key] = lane }
            var number = request.sequence
            for _ in request.jobs {
                lane.window.finish(number)
                number = number.next
            }
            lane.flyingBytes -= request.bytes
            lane.change(request.jobs[0].extent.chunk) { $0.flying -= 1 }
            return Self.take(from: &lane, request.key)
        }
        // The next frames leave before the files hear of this one: the wire never idles.
        for request in more { send(request) }
        for job in request.jobs { job.node.answer(job.block, outcome) }
    }

    private func wait(_ request: Request, needsRoute: Bool, hasFailed: Bool = true) {
        var request = request
        request.needsRoute = needsRoute
        if hasFailed { request.failures += 1 }
        let now = BootClock.now()
        let pause = request.retry.next(now: now) ?? Limits.retryLast
        state.update { state in
            if !state.isClosed { state.waiting.append((now + pause, request)) }
        }
    }

    /// Sends again what waits for its time, until `close`. For a thread of its own.
    func tend() {
        enum Turn {
            case closed, look
            case due([Request])
        }
        var isIdle = true
        while true {
            let turn = state.wait(atMost: isIdle ? Limits.retryLast : Limits.retryFirst) {
                state -> Turn? in
                if state.isClosed { return .closed }
                let now = BootClock.now()
                let due = state.waiting.filter { $0.due <= now }.map(\.request)
                if due.isEmpty { return isIdle && !state.waiting.isEmpty ? .look : nil }
                state.waiting.removeAll { $0.due <= now }
                return .due(due)
            }
            switch turn {
            case .closed: return
            case .look: isIdle = false
            case .due(let requests): retry(requests)
            case nil: isIdle = state.withLock { $0.waiting.isEmpty }
            }
        }
    }
    private func retry(_ requests: [Request]) {
        let moved = Set(requests.filter(\.needsRoute).map(\.key.set)).sorted()
        // A leader that does not answer is no reason not to try the old place again.
        if !moved.isEmpty { try? routes.refresh(moved, Patience(Limits.requestTimeout)) }
        for request in requests { send(request) }
    }
    /// Ends `tend`; what waits is dropped.
    func close() {
        state.update { state in
            state.isClosed = true
            state.waiting = []
        }
    }
}
