// Writes: of clients, and the drops and cuts that the masters order.
//
// A write is checked when it comes, and again when its turn comes: while its set reconciles, or
// has too much under way, it waits in the set's queue (DESIGN 3.2).
// Invariants:
//  1. The cuts that a request carries, and the chunk has not seen, are logged before it
//     (DESIGN 3.3, Size); each truncation of a chunk is logged once.
//  2. No space is told before a number is given (C20).
//  3. A write whose number was committed before is answered with it, never logged again (C15).
//  4. Nothing of a fenced session gets a number (C16).

import Base
import Node
import Replication
import Store
import Wire

/// A client's write that waits for its set.
struct PendingWrite: Sendable {
    var asker: Asker
    var request: WriteRequest
    /// Stored bytes.
    var size: Int
}

extension ChunkServerCore {
    mutating func takeWrite(_ frame: Frame, _ asker: Asker) {
        let refuse = { (core: inout ChunkServerCore, status: ChunkStatus, epoch: Epoch) in
            core.send(asker, WriteReply(status: status, epoch: epoch, number: .none))
        }
        guard phase == .serving else { return refuse(&self, .notServing, .none) }
        guard let request = try? WriteRequest(frame), isWellFormed(request) else {
            return refuse(&self, .invalid, .none)
        }
        guard let index = places[request.context.set] else {
            leader.isUrgent = true
            return refuse(&self, .unknownSet, .none)
        }
        let isFenced = fences.contains(request.context.session)
        if let status = isFenced ? .fenced : refusal(request.context, index) {
            return refuse(&self, status, sets[index].replica.promised)
        }
        let size = frame.payload.count
        guard queuedBytes + size <= Limits.clientBudget, admit(asker) else {
            return refuse(&self, .busy, sets[index].replica.promised)
        }
        queuedBytes += size
        sets[index].waiting.append(PendingWrite(asker: asker, request: request, size: size))
        drainable.append(index)
    }

    /// Extents of one chunk with good checksums: truncation and cuts are said once for all.
    private func isWellFormed(_ request: WriteRequest) -> Bool {
        let chunk = request.extents[0].chunk
        return request.extents.allSatisfy {
            $0.chunk == chunk && $0.codec != .lost && isSound(.write($0))
        }

            && request.context.cuts.allSatisfy { $0.size < UInt64(Limits.chunk) }
            && request.context.session != .none
    }

    /// Why the primary of a set would not take the request; nil if it may wait for its turn.
    func refusal(_ context: ChunkContext, _ index: Int) -> ChunkStatus? {
        let promised = sets[index].replica.promised
        if context.epoch < promised { return .staleEpoch }
        // The masters' order is still on its way here.
        if context.epoch > promised { return .notServing }
        return sets[index].replica.isPrimary ? nil : .notPrimary
    }

    // MARK: the queue of a set

    mutating func drainQueues() {
        drainable += cramped
        cramped = []
        while let index = drainable.popLast() {
            let reads = sets[index].afterTrim
            sets[index].afterTrim = []
            for read in reads { startRead(read.asker, read.request, index) }
            drainQueue(index)
        }
    }

    /// Has the writes whose turn has come numbered; small ones together, so that they travel to
    /// the backups in one frame.
    private mutating func drainQueue(_ index: Int) {
        var taken: [WriteDraft] = []
        var (bytes, records) = (0, 0)
        while let write = sets[index].waiting.first {
            bytes += write.size
            records += write.request.extents.count
            if bytes > Limits.frameData || records > ReplicationMessage.records {
                number(&taken, index)
                (bytes, records) = (write.size, write.request.extents.count)
            }
            let isLost = sets[index].replica.isBackup
            let takesWrites = sets[index].replica.takesWrites
            if !isLost, takesWrites, awaitsSpace(write.size, index) {
                // Meanwhile the client's credit runs out.
                if !cramped.contains(index) { cramped.append(index) }
                break
            }
            guard isLost || (takesWrites && hasCredit(index)) else {
                if takesWrites, !thirsty.contains(index) { thirsty.append(index) }
                break
            }
            _ = sets[index].waiting.removeFirst()
            queuedBytes -= write.size
            if let status = isLost ? .notPrimary : start(write, index, &taken) {
                let epoch = sets[index].replica.promised
                finish(
                    write.asker, WriteReply(status: status, epoch: epoch, number: .none))
            }
        }
        number(&taken, index)
    }

    private mutating func number(_ taken: inout [WriteDraft], _ index: Int) {
        guard !taken.isEmpty else { return }
        let writes = taken
        taken = []
        step(index, .writes(writes))
    }

    /// Whether new data waits: for the cleaner's room, for what folding gives back here or at
    /// another member, or for the word of one that was full.
    private mutating func awaitsSpace(_ bytes: Int, _ index: Int) -> Bool {
        let others = sets[index].replica.othersFill
        let isKnown = sets[index].replica.isFillFresh(now: now)
        if others != .roomy { askWhoIsFull(index) }
        if store.hasRoom(forData: bytes) {
            return store.isShort || others == .folding || (others == .full && !isKnown)
        }
        return store.fill == .folding && !(others == .full && isKnown)
    }

    private mutating func askWhoIsFull(_ index: Int) {
        sets[index].replica.askWhoIsFull(now: now)
        sets[index].deadline = sets[index].replica.deadline
    }

    /// Takes a write whose turn has come among those to be numbered; the status if that cannot be.
    private mutating func start(
        _ write: PendingWrite, _ index: Int, _ taken: inout [WriteDraft]
    ) -> ChunkStatus? {
        let request = write.request
        let context = request.context
        let set = context.set
        let chunk = request.extents[0].chunk
        guard !isFenced(context.session, index) else { return .fenced }
        guard context.truncation >= truncation(of: chunk, index) else { return .outdated }
        guard !isLost(chunk, context) else { return .invalid }
        var drafts: [RecordDraft] = []
        var hasNew = false
        var known = RecordNumber.none
        var sequence = request.sequence
        for extent in request.extents {
            defer { sequence = sequence.next }
            let duplicate = store.duplicate(set, context.session, sequence)
            switch duplicate {
            case .known(let number) where number <= sets[index].replica.committed:
                known = max(known, number)
            case .forgotten: known = max(known, sets[index].replica.committed)
            case .known, .new:
                if duplicate == .new { hasNew = true }
                // The replica knows the ones that are under way.
                drafts.append(
                    RecordDraft(
                        session: context.session, sequence: sequence,
                        firstUnacked: request.firstUnacked, truncation: context.truncation,
                        body: .write(extent)))
            }
        }
        guard !drafts.isEmpty else {
            let epoch = sets[index].replica.promised
            finish(write.asker, WriteReply(status: .done, epoch: epoch, number: known))
            return nil
        }
        // What is under way already has its room.
        let hasRoom =
            store.hasRoom(forData: write.size) && sets[index].replica.othersFill == .roomy
        guard hasRoom || !hasNew else { return .noSpace }
        if context.cuts.contains(where: { $0.truncation > truncation(of: chunk, index) }) {
            number(&taken, index)
            logCuts(context, chunk, index)
        }
        let tag = newTag(.write(write.asker, set: index, since: now))
        taken.append(WriteDraft(tag: tag, drafts))
        return nil
    }

    /// The end of a record that this core gave to a replica.
    mutating func finishWrite(_ tag: UInt64, _ outcome: WriteOutcome) {
        switch waiters.removeValue(forKey: tag) {
        case .write(let asker, let index, let since):
            throttle.note(now - since)
            let epoch = sets[index].replica.promised
            switch outcome {
            case .committed(let number):
                finish(asker, WriteReply(status: .done, epoch: epoch, number: number))
            case .notPrimary:
                finish(asker, WriteReply(status: .notPrimary, epoch: epoch, number: .none))
            }
        case .trim(let cut, let index): finishTrim(cut, index, outcome)
        case .drop(let order):
            leader.finishDrop(order, isDone: outcome != .notPrimary)
        case .folded: endFold(outcome)
        default: break
        }
    }

    /// The masters' state was loaded from a dump since the chunk was dropped here: nothing may be
    /// acknowledged that the drop, which is remembered, would take away.
    func isLost(_ chunk: ChunkID, _ context: ChunkContext) -> Bool {
        context.truncation >= chunk.version &+ Limits.loadedTruncations && store.isDropped(chunk)
    }

    // MARK: cuts

    /// The highest truncation of a chunk that the serving primary has logged: all it did not log
    /// itself was committed before it served (C8).
    private func truncation(of chunk: ChunkID, _ index: Int) -> UInt32 {
        max(store.appliedTruncation(chunk), sets[index].trims[chunk] ?? 0)
    }

    /// Logs the cuts that the chunk has not seen.
    mutating func logCuts(_ context: ChunkContext, _ chunk: ChunkID, _ index: Int) {
        let unseen = context.cuts.sorted { $0.truncation < $1.truncation }
        for cut in unseen where cut.truncation > truncation(of: chunk, index) {
            logTrim(
                CutOrder(
                    set: context.set, chunk: chunk, truncation: cut.truncation,
                    from: UInt32(cut.size)),
                index)
        }
    }

    private mutating func logTrim(_ cut: CutOrder, _ index: Int) {
        sets[index].trims[cut.chunk] = cut.truncation
        let tag = newTag(.trim(cut, set: index))
        let draft = RecordDraft(
            session: .none, sequence: RequestNumber(rawValue: 0),
            firstUnacked: RequestNumber(rawValue: 0), truncation: cut.truncation,
            body: .trim(cut.chunk, truncation: cut.truncation, from: cut.from))
        step(index, .write(tag: tag, [draft]))
    }

    private mutating func finishTrim(
        _ cut: CutOrder, _ index: Int, _ outcome: WriteOutcome
    ) {
        if sets[index].trims[cut.chunk] == cut.truncation { sets[index].trims[cut.chunk] = nil }
        leader.finishCut(cut, isDone: outcome != .notPrimary)
        drainable.append(index)
    }

    // MARK: orders

    /// Drops chunks by order of the masters' log (S6), once the set can take it.
    mutating func carryOut(_ drop: DropOrder) {
        guard let index = places[drop.set], sets[index].replica.takesWrites,
            store.takesNumbered(data: 0), leader.beginDrop(drop.order)
        else { return }
        let tag = newTag(.drop(order: drop.order))
        let draft = RecordDraft(
            session: .none, sequence: RequestNumber(rawValue: 0),
            firstUnacked: RequestNumber(rawValue: 0), truncation: 0, body: .drop(drop.chunks))
        step(index, .write(tag: tag, [draft]))
    }

    /// Logs a cut by order of the masters, or confirms one that is committed.
    mutating func carryOut(_ cut: CutOrder) {
        guard let index = places[cut.set], sets[index].replica.takesWrites,
            store.takesNumbered(data: 0)
        else { return }
        if truncation(of: cut.chunk, index) < cut.truncation {
            logTrim(cut, index)
        } else if sets[index].trims[cut.chunk] == nil {
            leader.finishCut(cut, isDone: true)
        }
    }
}
