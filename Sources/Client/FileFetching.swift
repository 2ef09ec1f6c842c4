// Reads from the members of replica sets: many at once from the primary, and one by one from
// whoever can answer when that did not work.
//
// Invariant: `readAround` gives up only when every member has the block and all are damaged (C17),
// or its caller does.

import Base
import Blocks
import Caching
import Logging
import Transport
import Wire

extension DataPath {
    /// A fetch that takes longer is given up in favour of another member.
    private static let fetchPatience = Interval.milliseconds(500)
    /// How long one member is asked for one block.
    private static let memberPatience = Interval.seconds(1)
    /// Fetches of one file kept at a time.
    private static let fetchesPerFile = 64
    /// Blocks asked for at once where they compress well.
    private static let blocksPerRead = 16

    /// Starts to read those blocks that are nowhere here. Does not block.
    func fetch(_ blocks: [FileBlock], of node: OpenInode) {
        let started = node.state.withLock { state -> [(Fetch, ChunkContextParts)] in
            let wanted = blocks.filter { isMissing($0, state, node.inode) }
            var started: [(Fetch, ChunkContextParts)] = []
            var rest = wanted[...]
            while let first = rest.first, case .at(let place) = state.map.place(of: first.chunk) {
                var count = 1
                while count < min(rest.count, state.blocksPerRead) {
                    let block = rest[rest.startIndex + count]
                    let isNext = block.rawValue == first.rawValue + UInt32(count)
                    guard isNext, block.chunk == first.chunk else { break }
                    count += 1
                }
                rest = rest.dropFirst(count)
                started.append((state.addFetch(place, first, count), state.context(of: first)))
            }
            state.trimFetches(to: Self.fetchesPerFile)
            return started
        }
        for (fetch, context) in started { start(fetch, context, of: node) }
    }

    /// Whether a block has a place and must come from there.
    private func isMissing(
        _ block: FileBlock, _ state: OpenInode.State, _ inode: InodeID
    ) -> Bool {
        guard case .at = state.map.place(of: block.chunk) else { return false }
        return !state.fetches.contains { $0.isUsable(for: block) }
            && state.buffer.overlay(of: block).isEmpty
            && !cache.withLock { $0.has(inode, block, tag: state.tag) }
    }

    private func start(_ fetch: Fetch, _ parts: ChunkContextParts, of node: OpenInode) {
        guard let view = routes.view(of: fetch.place.set),
            let location = routes.readers(of: view).first
        else { return end(fetch.id, .failed, of: node) }
        node.state.withLock { state in
            if let index = state.fetches.firstIndex(where: { $0.id == fetch.id }) {
                state.fetches[index].disk = location.disk
            }
        }
        let request = self.request(
            fetch.place, fetch.first, fetch.count, view, parts, node)
        let replies = Monitor<[Frame]>([])
        pool.start(
            request.frame(), to: location, for: .reading, timeout: Limits.requestTimeout
        ) { result in
            guard case .success(let frame) = result else {
                return self.end(fetch.id, .failed, of: node)
            }
            let frames = replies.withLock { frames in
                frames.append(frame)
                return frames
            }
            if ReadReply.isLast(frame) { self.receive(frames, fetch.id, of: node) }
        }
    }

    /// The answer to a fetch is complete; if it ended early, the rest is asked for.
    private func receive(_ frames: [Frame], _ id: UInt64, of node: OpenInode) {
        let replies = frames.compactMap { try? ReadReply($0) }
        guard replies.count == frames.count, let last = replies.last, last.status == .done,
            last.blocks > 0
        else { return end(id, .failed, of: node) }
        let pieces = replies.flatMap(\.pieces)
        let bytes = pieces.reduce(0) { $0 + $1.extent.payload.count }
        let rest = node.state.update { state -> (Fetch, ChunkContextParts)? in
            guard let index = state.fetches.firstIndex(where: { $0.id == id }) else { return nil }
            let asked = state.fetches[index].count
            let answered = min(Int(last.blocks), asked)
            state.fetches[index].outcome = .answered(pieces)
            if answered == asked {
                if asked == state.blocksPerRead, bytes * 2 <= Limits.frameData {
                    state.blocksPerRead = min(asked * 2, Self.blocksPerRead)
                }
                return nil
            }
            state.blocksPerRead = answered
            state.fetches[index].count = answered
            let fetch = state.fetches[index]
            let first = FileBlock(rawValue: fetch.first.rawValue + UInt32(answered))
            var rest = state.addFetch(fetch.place, first, asked - answered)
            rest.poisoned = fetch.poisoned >> UInt64(answered)
            state.fetches[state.fetches.count - 1].poisoned = rest.poisoned
            state.fetches[index].taken &= (1 << UInt64(answered)) - 1
            return (rest, state.context(of: first))
        }
        if let (fetch, context) = rest { start(fetch, context, of: node) }
    }

    private func end(_ id: UInt64, _ outcome: Fetch.Outcome, of node: OpenInode) {
        node.state.update { state in
            guard let index = state.fetches.firstIndex(where: { $0.id == id }) else { return }
            state.fetches[index].outcome = outcome
        }
    }

    /// The bytes of a fetch are damaged: others are asked from now on.
    func blame(_ id: UInt64, of node: OpenInode) {
        let disk = node.state.withLock { state in
            state.fetches.first { $0.id == id }?.disk
        }
        if let disk { routes.suspect(disk, true) }
    }

    /// Waits for a fetch; nil where it failed, took too long or is no more.
    func take(
        _ id: UInt64, _ block: FileBlock, of node: OpenInode, _ patience: Patience
    ) throws(FileError) -> [Piece]? {
        enum End {
            case pieces([Piece])
            case failed
            case late(DiskID?)
        }
        let end = try node.state.wait(patience) { state -> End? in
            guard let index = state.fetches.firstIndex(where: { $0.id == id }),
                state.fetches[index].bit(of: block) != nil
            else { return .failed }
            switch state.fetches[index].outcome {
            case .answered(let pieces): return .pieces(pieces)
            case .failed:
                state.fetches.remove(at: index)
                return .failed
            case .pending:
                let age = BootClock.now() - state.fetches[index].started
                guard age > Self.fetchPatience else { return nil }
                return .late(state.fetches.remove(at: index).disk)
            }
        }
        switch end {
        case .pieces(let pieces): return pieces
        case .failed: return nil
        case .late(let disk):
            if let disk { routes.suspect(disk, true) }
            return nil
        }
    }
}

// One block, from whoever has it.
extension DataPath {
    enum Answer {
        case content([UInt8])
        /// Damaged there, or on the way.
        case damaged
        case outdated
        /// The set is elsewhere, or in another epoch.
        case moved
        case unavailable
        case silent
    }

    /// The content of one block as far as the file goes; nil if the file changed, so that the
    /// block must be looked for again. Errors: io (all members are damaged), interrupted, timedOut.
    func readAround(
        _ block: FileBlock, of node: OpenInode, _ patience: Patience
    ) throws(FileError) -> [UInt8]? {
        var retry = RetryPolicy(deadline: patience.deadline)
        while true {
            try patience.check()
            if node.session.isDead { throw .io }
            guard case .at(let place) = try locate(block.chunk, of: node, patience) else {
                return nil
            }
            if let view = routes.view(of: place.set) {
                var damaged = 0
                for location in routes.readers(of: view) {
                    switch try ask(location, view, place, block, node, patience) {
                    case .content(let content): return content
                    case .damaged: damaged += 1
                    case .outdated:
                        try learnLayout(of: node, first: 0, count: 1, patience)
                        // The chunk server can hear of a truncation before the masters say so.
                        try patience.pause(Limits.retryFirst)
                        return nil
                    case .moved, .unavailable, .silent: break
                    }
                }
                if damaged == view.locations.count { throw .io }
            }
            guard let pause = retry.next(now: BootClock.now()) else { throw .timedOut }
            try patience.pause(pause)
            // A leader that does not answer is no reason not to ask the same members again.
            do throws(FileError) {
                try routes.refresh([place.set], Patience(patience.bounded(Self.memberPatience)))
            } catch {
                Self.log.debug("no news of set \(place.set): \(error)")
            }
        }
    }

    func ask(
        _ location: DiskLocation, _ view: SetView, _ place: LayoutChunk, _ block: FileBlock,
        _ node: OpenInode, _ patience: Patience
    ) throws(FileError) -> Answer {
        let (parts, size) = node.state.withLock { ($0.context(of: block), $0.size) }
        let request = self.request(place, block, 1, view, parts, node)
        let answer = Monitor<(frames: [Frame], isDone: Bool)>(([], false))
        let timeout = patience.bounded(Self.memberPatience)
        pool.start(
            request.frame(), to: location, for: .reading, timeout: timeout
        ) { result in
            answer.update { answer in
                if case .success(let frame) = result {
                    answer.frames.append(frame)
                    answer.isDone = ReadReply.isLast(frame)
                } else {
                    answer = ([], true)
                }
            }
        }
        let frames = try answer.wait(patience) { $0.isDone ? $0.frames : nil }
        let replies = frames.compactMap { try? ReadReply($0) }
        guard let last = replies.last, replies.count == frames.count else {
            routes.suspect(location.disk, true)
            return .silent
        }
        let content =
            last.status == .done
            ? assemble(replies.flatMap(\.pieces), block, size: size, of: node) : nil
        let isDamaged = last.status == .damaged || (last.status == .done && content == nil)
        routes.suspect(location.disk, isDamaged)
        switch last.status {
        case .done: return content.map { .content($0) } ?? .damaged
        case .damaged: return .damaged
        case .outdated: return .outdated
        case .notPrimary, .staleEpoch, .unknownSet: return .moved
        case .notServing, .busy, .noSpace, .invalid: return .unavailable
        case .fenced:
            node.session.die()
            throw .io
        }
    }

    private func request(
        _ place: LayoutChunk, _ first: FileBlock, _ count: Int, _ view: SetView,
        _ parts: ChunkContextParts, _ node: OpenInode
    ) -> ReadRequest {
        ReadRequest(
            context: ChunkContext(
                set: place.set, epoch: view.configuration.epoch, session: node.session.id,
                truncation: parts.truncation, cuts: parts.cuts),
            chunk: place.chunk, block: first.blockInChunk, count: UInt16(count),
            backupFrom: routes.number(of: place.set))
    }
}

/// What a chunk request says of its file.
struct ChunkContextParts {
    let truncation: UInt32
    let cuts: [Cut]
}

extension OpenInode.State {
    func context(of block: FileBlock) -> ChunkContextParts {
        ChunkContextParts(truncation: map.truncation, cuts: map.cuts(of: block.chunk))
    }
    mutating func addFetch(_ place: LayoutChunk, _ first: FileBlock, _ count: Int) -> Fetch {
        lastFetch += 1
        let fetch = Fetch(
            id: lastFetch, place: place, first: first, count: count, started: BootClock.now())
        fetches.append(fetch)
        return fetch
    }
    /// Forgets the oldest fetches that nobody came for.
    mutating func trimFetches(to bound: Int) {
        if fetches.count > bound { fetches.removeFirst(fetches.count - bound) }
    }
}
