// The way of written bytes: buffer, extents, lanes; then size and mtime (K5).
//
// Invariants:
//  1. Compression and checksums happen on the thread that writes or flushes (D8), with no lock.
//  2. Size and mtime are chosen after the data is on disk at every member (K5).
//  3. What was acknowledged under a truncation number that is no longer the file's is written
//     again under the new one: it comes after that truncation, as a whole (DESIGN 3.3).

import Base
import Blocks
import Caching
import Wire

extension DataPath {
    /// Takes bytes to write. Returns when they are buffered; waits only for room. The caller has
    /// the file's turn.
    func write(
        _ bytes: UnsafeRawBufferPointer, to node: OpenInode, at offset: UInt64,
        _ patience: Patience
    ) throws(FileError) {
        var waits: [(SetID, WriteJob)] = []
        defer { enqueue(waits, session: node.session) }
        for span in FileBlock.spans(at: offset, count: bytes.count) {
            if !budget.hasRoom(node.inode) {
                enqueue(waits, session: node.session)
                waits = []
                flushList.poke()
                try budget.waitForRoom(node.inode, patience)
            }
            let part = UnsafeRawBufferPointer(
                rebasing: bytes[span.offset..<span.offset + span.range.count])
            if span.isWhole, let jobs = try sendWhole(part, span.block, of: node, patience) {
                waits.append(jobs)
            } else {
                let modified = metadata.leaderTime()
                let isDue = node.change { state in
                    state.poison(span.block)
                    return state.buffer.write(
                        part, to: span.block, at: span.range.lowerBound, now: BootClock.now(),
                        modified: modified)
                }
                forget(span.block, of: node)
                if isDue { waits += try seal(span.block, of: node, patience) }
            }
            if waits.count >= 2 {
                enqueue(waits, session: node.session)
                waits = []
            }
        }
    }

    /// Makes an extent of a whole block straight out of the caller's memory; nil where earlier
    /// bytes of the block are on their way.
    private func sendWhole(
        _ bytes: UnsafeRawBufferPointer, _ block: FileBlock, of node: OpenInode,
        _ patience: Patience
    ) throws(FileError) -> (SetID, WriteJob)? {
        let place = try allocate(block.chunk, of: node, patience)
        let modified = metadata.leaderTime()
        let ticket = node.change { state -> Ticket? in
            let now = BootClock.now()
            guard state.buffer.claim(block, now: now, modified: modified) else { return nil }
            state.poison(block)
            return Ticket(state, place, block)
        }
        forget(block, of: node)
        guard var ticket else { return nil }
        let extent = BlockCodec.encode(bytes, at: ticket.place(from: 0), probe: &ticket.probe)
        node.change { state in
            state.buffer.launch(block, [extent])
            state.probe = ticket.probe
        }
        return (place.set, ticket.job(extent, node))
    }

    /// Makes extents of the dirty bytes of a block; none where it has none or they must wait.
    private func seal(
        _ block: FileBlock, of node: OpenInode, _ patience: Patience
    ) throws(FileError) -> [(SetID, WriteJob)] {
        let place: LayoutChunk
        do throws(FileError) {
            place = try allocate(block.chunk, of: node, patience)
        } catch {
            if error == .interrupted || error == .timedOut { throw error }
            node.change { $0.buffer.drop(block, error) }
            return []
        }
        let sealed = node.change { state -> (Ticket, [Run])? in
            guard let runs = state.buffer.seal(block) else { return nil }
            return (Ticket(state, place, block), runs)
        }
        guard case (var ticket, let runs)? = sealed else { return [] }
        let extents = runs.map { run in
            BlockCodec.encode(run.bytes, at: ticket.place(from: run.start), probe: &ticket.probe)
        }
        node.change { state in
            state.buffer.launch(block, extents)
            state.probe = ticket.probe
        }
        return extents.map { (place.set, ticket.job($0, node)) }
    }

    /// What the extents of one block have in common.
    private struct Ticket {
        let chunk: ChunkID
        let block: FileBlock
        let truncation: UInt32
        let cuts: [Cut]
        let end: UInt64
        let modified: Timestamp
        var probe: CompressionProbe

        init(_ state: OpenInode.State, _ place: LayoutChunk, _ block: FileBlock) {
            chunk = place.chunk
            self.block = block
            truncation = state.map.truncation
            cuts = state.map.cuts(of: block.chunk)
            end = state.size
            modified = state.shown.modified
            probe = state.probe
        }
        func place(from start: Int) -> ExtentPlace {
            ExtentPlace(
                chunk: chunk, block: block.blockInChunk, start: UInt32(start), fileEnd: end,
                modified: modified)
        }
        func job(_ extent: Extent, _ node: OpenInode) -> WriteJob {
            WriteJob(node: node, block: block, extent: extent, truncation: truncation, cuts: cuts)
        }
    }

    /// Gives extents to the lanes of their sets.
    private func enqueue(_ jobs: [(SetID, WriteJob)], session: ClientSession) {
        var rest = jobs[...]
        while let (set, _) = rest.first {
            let same = rest.prefix { $0.0 == set }
            lanes.add(same.map { $0.1 }, to: set, session: session)
            rest = rest.dropFirst(same.count)
        }
    }

    /// Makes extents of blocks and sends them, front to back, so that they travel together.
    func send(
        _ blocks: [FileBlock], of node: OpenInode, _ patience: Patience
    ) throws(FileError) {
        var waits: [(SetID, WriteJob)] = []
        defer { enqueue(waits, session: node.session) }
        for block in blocks.sorted() {
            waits += try seal(block, of: node, patience)
            if waits.count >= WriteRequest.extents {
                enqueue(waits, session: node.session)
                waits = []
            }
        }
    }

    private func forget(_ block: FileBlock, of node: OpenInode) {
        cache.withLock { $0.remove(node.inode, block) }
    }
}

// Flushing.
extension DataPath {
    private enum Step {
        case send([FileBlock])
        case restore
        case arrived
    }

    /// Everything written before the call is on disk at every member when it returns, and the
    /// size and mtime are chosen; or it is lost, and noted as an error of the file (K6).
    /// `dataOnly`: if the masters know a size that covers it all, the mtime follows by itself
    /// within about a second (fdatasync).
    func settle(
        _ node: OpenInode, dataOnly: Bool = false, _ patience: Patience
    ) throws(FileError) {
        while true {
            if node.session.isDead { return node.change { $0.buffer.abandon(.io) } }
            let (last, blocks) = node.change { state in
                let last = state.buffer.tick
                return (last, state.buffer.demand(through: last))
            }
            let hasArrived = try node.session.extends.expecting { () throws(FileError) in
                try send(blocks, of: node, patience)
                return try arrive(node, through: last, patience)
            }
            guard hasArrived else { continue }
            if dataOnly, node.state.withLock({ $0.isSizeKnown }) { return }
            if try extend(node, patience) { return }
        }
    }

    /// Waits until the writes up to a number are answered; false if some must be done again.
    private func arrive(
        _ node: OpenInode, through last: UInt64, _ patience: Patience
    ) throws(FileError) -> Bool {
        while true {
            let step = try node.state.wait(patience) { state -> Step? in
                let ready = state.buffer.takeReady()
                if !ready.isEmpty { return .send(ready) }
                if state.buffer.isStranded, !state.buffer.hasOpenFlights { return .restore }
                return state.buffer.isPending(through: last) ? nil : .arrived
            }
            switch step {
            case .send(let blocks): try send(blocks, of: node, patience)
            case .restore:
                try restore(node, patience)
                return false
            case .arrived: return true
            }
        }
    }

    /// Has size and mtime chosen for what is acknowledged; false if it must be written again.
    func extend(_ node: OpenInode, _ patience: Patience) throws(FileError) -> Bool {
        let plan = try node.state.wait(patience) { state -> (Settlement?, UInt32)? in
            guard !state.isExtending else { return nil }
            state.isExtending = true
            return (state.buffer.settlement, state.map.truncation)
        }
        defer { node.state.update { $0.isExtending = false } }
        guard let settlement = plan.0 else { return true }
        let end = FileEnd(
            inode: node.inode, end: settlement.end, truncation: plan.1,
            modified: settlement.modified)
        let session = node.session
        let outcome: FileEndOutcome
        do throws(FileError) {
            outcome = try session.extends.tell(end, patience) { files throws(FileError) in
                try extend(files, session, patience)
            }
        } catch {
            if error == .interrupted || error == .timedOut { throw error }
            outcome = .failed(error)
        }
        switch outcome {
        case .done(let attributes):
            node.change { state in
                state.adopt(attributes, isOwn: true)
                state.buffer.settle(settlement, now: BootClock.now())
            }
            return true
        case .failed(let error):
            // The masters refuse it for good: the bytes will never count.
            node.change { state in
                state.buffer.fail(error)
                state.buffer.settle(settlement, now: BootClock.now())
            }
            return true
        case .outdated(let attributes, let layout):
            node.state.update { state in
                state.adopt(attributes, layout, first: 0, count: 0)
                state.buffer.overtake()
            }
            try restoreWhenLanded(node, patience)
            return false
        }
    }

    private func extend(
        _ files: [FileEnd], _ session: ClientSession, _ patience: Patience
    ) throws(FileError) -> [FileEndOutcome] {
        // What is settled was acknowledged, so its numbers are among these.
        let numbers = routes.toAnnounce()
        let change = MetadataChange.extend(files, numbers: numbers)
        let reply = try metadata.change(change, session: session, patience)
        guard case .extended(let outcomes) = reply, outcomes.count == files.count else {
            throw .io
        }
        routes.announced(numbers)
        return outcomes
    }

    /// The file was truncated by somebody else: learns its state and makes dirty again what was
    /// refused or could be lost.
    func restore(_ node: OpenInode, _ patience: Patience) throws(FileError) {
        // An Extend under way settles what it names before anything is written again.
        try node.state.wait(patience) { state -> Void? in
            guard !state.isExtending else { return nil }
            state.isExtending = true
            return ()
        }
        defer { node.state.update { $0.isExtending = false } }
        guard node.state.withLock({ $0.buffer.isStranded }) else { return }
        let before = node.state.withLock { $0.map.truncation }
        let attributes = try metadata.query(.attributes(node.inode), patience)
        if case .entry(let attributes) = attributes {
            node.state.update { $0.adopt(attributes, isOwn: false) }
        }
        try learnLayout(of: node, first: 0, count: 1, patience)
        if node.state.withLock({ $0.map.truncation }) == before {
            // The chunk server heard of it first.
            try patience.pause(Limits.retryFirst * 5)
        }
        try restoreWhenLanded(node, patience)
    }

    /// Called with `isExtending` set.
    private func restoreWhenLanded(
        _ node: OpenInode, _ patience: Patience
    ) throws(FileError) {
        // Nothing is sealed while the buffer is stranded, so this ends.
        try node.state.wait(patience) { $0.buffer.hasOpenFlights ? nil : () }
        node.change { state in
            state.buffer.restore(now: BootClock.now()) { try? BlockCodec.decode($0) }
        }
    }
}
