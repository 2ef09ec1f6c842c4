// The second half of a scrub: the primary of a set compares the copies, some blocks at a time, as
// of one committed record (C18). A member that has not committed it yet answers when it has, and
// takes nothing later into account, so copies that are alike always look alike.
//
//   all alike             on to the next blocks
//   one can't tell now    its records are damaged (C17), or the log went on: again, a little later
//   most agree            they are right: the primary writes the block anew as they have it, as a
//                         record of its own, and all are alike again
//   no majority           the copy with the highest record is right: the others lost a write
//   neither decides       nothing is changed; an operator must look: the dispute stays in the
//                         status until a later pass finds the copies alike
//
// Invariants:
//  1. What is written anew is the content as of a record after which nothing changed the chunk.
//  2. One comparison is under way at a time; one without an answer is given up.

import Base
import Node
import Replication
import Store
import Wire

/// A comparison under way.
struct Comparison: Sendable {
    var request: CompareRequest
    var set: Int
    var epoch: Epoch
    /// Of the chunk, when it began.
    var truncation: UInt32
    var answers: [(disk: DiskID, digests: [BlockDigest?])] = []
    var deadline: Instant
}

/// Where the comparison of copies is.
struct CopyScrub: Sendable {
    /// The set under way, and its chunks that are still to come.
    var set: SetID?
    var chunks: ArraySlice<ChunkID> = []
    /// The next block of the first chunk, and how many blocks any copy of it has.
    var block = 0
    var blocks = 0
    /// Tries of these blocks.
    var attempts = 0
    var open: Comparison?
}

/// Blocks whose content is being read for a comparison.
struct DigestWork: Sendable {
    var request: CompareRequest
    var set: Int
    var epoch: Epoch
    var blocks: UInt16
    var newest: [RecordNumber]
    /// Who asked; nil: this disk.
    var asker: DiskID?
}

/// A block that the primary writes anew.
struct Rewrite: Sendable {
    /// Of that block alone.
    var request: CompareRequest
    var set: Int
    var epoch: Epoch
    var truncation: UInt32
    /// The last record that it is made of here.
    var newest: RecordNumber
    /// What it is to be.
    var content: Checksum
}

extension ChunkServerCore {
    private static var comparePatience: Interval { .seconds(5) }
    private static var comparePause: Interval { .milliseconds(200) }
    private static var compareAttempts: Int { 5 }

    /// Goes on with the comparison, if it is time.
    mutating func compareCopies(_ wall: Timestamp) {
        guard store.isComparing else {
            copies = CopyScrub()
            return
        }
        if let open = copies.open {
            let replica = sets[open.set].replica
            guard open.deadline <= now || !replica.isServing || replica.promised != open.epoch
            else { return }
            compareAgain()
        }
        guard store.mayCompare(now: now) else { return }
        guard let (index, request) = nextComparison() else {
            return store.endComparison(now: now, wall: wall)
        }
        begin(request, index)
    }

    /// The same blocks again, or the next ones if that was tried often enough.
    private mutating func compareAgain() {
        copies.open = nil
        copies.attempts += 1
        if copies.attempts >= Self.compareAttempts { skipBlocks() }
        store.holdComparison(until: now + Self.comparePause)
    }

    private mutating func skipBlocks() {
        copies.block += CompareRequest.blocks
        copies.attempts = 0
    }

    /// The next blocks of a set that this disk is the serving primary of; nil at the end.
    private mutating func nextComparison() -> (Int, CompareRequest)? {
        while true {
            if let set = copies.set, let index = places[set], isComparable(sets[index].replica),
                let chunk = copies.chunks.first
            {
                copies.blocks = max(copies.blocks, store.blockCount(chunk))
                let left = copies.blocks - copies.block
                if left > 0 {
                    let request = CompareRequest(
                        chunk: chunk, first: UInt16(copies.block),
                        count: UInt8(min(left, CompareRequest.blocks)),
                        number: store.committed(set))
                    return (index, request)
                }
                copies.chunks.removeFirst()
                (copies.block, copies.blocks, copies.attempts) = (0, 0, 0)
                continue
            }
            if let set = copies.set { store.noteCompared(set) }
            let rest = sets.map(\.replica).filter {
                isComparable($0) && $0.set > store.comparedThrough
            }
            copies = CopyScrub()
            guard let next = rest.map(\.set).min() else { return nil }
            copies.set = next
            copies.chunks = store.chunks(of: next)[...]
        }
    }

    private func isComparable(_ replica: SetReplica) -> Bool {
        replica.isServing && replica.configuration?.backups.isEmpty == false
    }

    private mutating func begin(_ request: CompareRequest, _ index: Int) {
        let replica = sets[index].replica
        copies.open = Comparison(
            request: request, set: index, epoch: replica.promised,
            truncation: store.truncation(replica.set, request.chunk),
            deadline: now + Self.comparePatience)
        store.holdComparison(until: now + Self.comparePatience)
        for backup in replica.configuration?.backups ?? [] {
            send(.compare(request), to: backup, index)
        }
        digest(request, index, for: nil)
    }

    private mutating func send(_ body: ReplicationBody, to disk: DiskID, _ index: Int) {
        let replica = sets[index].replica
        send(
            ReplicationMessage(
                set: replica.set, sender: self.disk, receiver: disk, epoch: replica.promised,
                body: body), index)
    }

    // MARK: a member

    /// The primary asks; the answer waits until the record is committed here.
    mutating func takeCompare(
        _ request: CompareRequest, from sender: DiskID, _ epoch: Epoch, _ index: Int
    ) {
        let replica = sets[index].replica
        guard replica.isBackup, replica.promised == epoch, replica.adopted == epoch,
            replica.configuration?.primary == sender
        else { return }
        if store.committed(replica.set) < request.number {
            sets[index].held = (request, sender, epoch)
        } else {
            digest(request, index, for: sender)
        }
    }

    /// Every record up to this is committed; what waits for one of them is looked at on the way.
    mutating func commit(through number: RecordNumber, _ index: Int) {
        let set = sets[index].replica.set
        if let (request, sender, epoch) = sets[index].held, request.number <= number {
            sets[index].held = nil
            store.commit(set, through: request.number)
            if sets[index].replica.promised == epoch { digest(request, index, for: sender) }
        }
        store.commit(set, through: number)
    }

    /// Reads what there is, as of now: the record must be the last that is committed.
    private mutating func digest(_ request: CompareRequest, _ index: Int, for asker: DiskID?) {
        let replica = sets[index].replica
        var work = DigestWork(
            request: request, set: index, epoch: replica.promised,
            blocks: UInt16(store.blockCount(request.chunk)), newest: [], asker: asker)
        guard store.committed(replica.set) == request.number,
            mayServeReads(index, from: request.number)
        else { return finish(work, []) }
        work.newest = request.range.map { store.newest(request.chunk, $0) }
        let tag = newTag(.digest(work))
        apply(
            store.read(
                token: tag, set: replica.set, chunk: request.chunk, blocks: request.range,
                isExact: true))
    }

    mutating func finishDigest(_ work: DigestWork, _ blocks: [StoredBlock]) {
        let digests = zip(blocks, work.newest).map { block, newest in
            block.digest.map { BlockDigest(content: $0, newest: newest) }
        }
        finish(work, digests)
    }

    private mutating func finish(_ work: DigestWork, _ digests: [BlockDigest?]) {
        guard sets[work.set].replica.promised == work.epoch else { return }
        let answer = CompareAnswer(request: work.request, blocks: work.blocks, digests: digests)
        if let asker = work.asker {
            send(.compared(answer), to: asker, work.set)
        } else {
            takeCompared(answer, from: disk, work.epoch, work.set)
        }
    }

    // MARK: the verdict

    mutating func takeCompared(
        _ answer: CompareAnswer, from sender: DiskID, _ epoch: Epoch, _ index: Int
    ) {
        guard let open = copies.open, open.set == index, open.epoch == epoch,
            open.request == answer.request, !open.answers.contains(where: { $0.disk == sender }),
            let members = sets[index].replica.configuration?.members, members.contains(sender)
        else { return }
        copies.open?.answers.append((sender, answer.digests))
        copies.blocks = max(copies.blocks, Int(answer.blocks))
        guard let open = copies.open, open.answers.count == members.count else { return }
        let isClear = open.answers.allSatisfy { answer in
            !answer.digests.isEmpty && answer.digests.allSatisfy { $0 != nil }
        }
        guard isClear else { return compareAgain() }
        copies.open = nil
        for (offset, block) in open.request.range.enumerated() {
            let digests = open.answers.compactMap { answer in
                answer.digests[offset].map { (disk: answer.disk, digest: $0) }
            }
            if Set(digests.map(\.digest.content)).count > 1 { settle(open, block, digests) }
        }
        store.noteCompared(
            bytes: store.storedBytes(open.request.chunk, open.request.range), now: now)
        skipBlocks()
    }

    /// Copies of a block differ, and the checksums of all are right.
    private mutating func settle(
        _ open: Comparison, _ block: Int, _ digests: [(disk: DiskID, digest: BlockDigest)]
    ) {
        let replica = sets[open.set].replica
        func count(_ content: Checksum) -> Int { digests.count { $0.digest.content == content } }
        let newest = digests.map(\.digest.newest).max() ?? .none
        // Where one has the bytes they are not lost.
        let known = digests.filter { $0.digest.content != StoredBlock.lostDigest }
        let last = known.filter { $0.digest.newest == newest }
        var right = known.first { count($0.digest.content) * 2 > digests.count }
        if right == nil, Set(last.map(\.digest.content)).count == 1 { right = last.first }
        let own = digests.first { $0.disk == disk }?.digest
        let odd = digests.filter { $0.digest.content != right?.digest.content }.map(\.disk)
        let verdict =
            right == nil
            ? "nobody can tell which is right"
            : "it is written anew as most, or the last records, have it"
        alarm(
            "set \(replica.set) chunk \(open.request.chunk) block \(block): copies differ at "
                + "record \(open.request.number), on disks "
                + odd.map { "\($0)" }.joined(separator: ", ") + ": " + verdict)
        store.noteDifference(isDisputed: right == nil)
        guard let own, let right else { return }
        var request = open.request
        (request.first, request.count) = (UInt16(block), 1)
        let rewrite = Rewrite(
            request: request, set: open.set, epoch: open.epoch, truncation: open.truncation,
            newest: own.newest, content: right.digest.content)
        if own.content == right.digest.content {
            read(request, for: .rewrite(rewrite), replica.set)
        } else {
            rewrites = rewrites.suffix(CompareRequest.blocks - 1) + [rewrite]
            send(.copy(request), to: right.disk, open.set)
        }
    }

    private mutating func read(_ request: CompareRequest, for waiter: Waiter, _ set: SetID) {
        let tag = newTag(waiter)
        apply(
            store.read(
                token: tag, set: set, chunk: request.chunk, blocks: request.range, isExact: true))
    }

    /// The primary wants the content of a block; it sees by its sum whether it is still the same.
    mutating func takeCopy(
        _ request: CompareRequest, from sender: DiskID, _ epoch: Epoch, _ index: Int
    ) {
        let replica = sets[index].replica
        guard replica.isBackup, replica.promised == epoch, replica.adopted == epoch,
            replica.configuration?.primary == sender, request.count == 1
        else { return }
        read(
            request, for: .copy(request, set: index, primary: sender, epoch: epoch), replica.set)
    }

    mutating func finishCopy(
        _ request: CompareRequest, _ blocks: [StoredBlock], to primary: DiskID, _ epoch: Epoch,
        _ index: Int
    ) {
        guard sets[index].replica.promised == epoch,
            let extent = blocks.first.flatMap({ Self.whole(request, $0) })
        else { return }
        send(.copied(request, extent), to: primary, index)
    }

    mutating func takeCopied(
        _ request: CompareRequest, _ extent: Extent, _ epoch: Epoch, _ index: Int
    ) {
        guard
            let place = rewrites.firstIndex(where: {
                $0.request == request && $0.set == index && $0.epoch == epoch
            })
        else { return }
        write(rewrites.remove(at: place), extent)
    }

    /// The block as one extent; nil if it is damaged.
    static func whole(_ request: CompareRequest, _ block: StoredBlock) -> Extent? {
        guard case .pieces(let pieces) = block, let content = block.content else { return nil }
        return Extent(
            chunk: request.chunk, block: request.first, start: 0, length: UInt32(content.count),
            codec: .raw, stored: Checksum(of: content),
            pages: stride(from: 0, to: content.count, by: Limits.page).map {
                Checksum(of: content[$0..<$0 + Limits.page]).value
            },
            fileEnd: pieces.map(\.extent.fileEnd).max() ?? 0,
            modified: pieces.map(\.extent.modified).max() ?? .zero, payload: content[...])
    }

    /// Writes a block anew, unless anything changed the chunk since; then the next pass sees it.
    mutating func write(_ rewrite: Rewrite, _ extent: Extent?) {
        let replica = sets[rewrite.set].replica
        let (chunk, block) = (rewrite.request.chunk, Int(rewrite.request.first))
        guard let extent, replica.takesWrites, replica.promised == rewrite.epoch,
            extent.chunk == chunk, Int(extent.block) == block, extent.stored == rewrite.content,
            extent.codec == .raw, Int(extent.length) == Limits.block,
            store.hasRoom(forData: Limits.framePayload), !store.isShort,
            replica.othersFill == .roomy, !store.isChanging(replica.set, chunk),
            store.newest(chunk, block) == rewrite.newest,
            store.truncation(replica.set, chunk) == rewrite.truncation
        else { return }
        let draft = RecordDraft(
            session: .none, sequence: RequestNumber(rawValue: 0),
            firstUnacked: RequestNumber(rawValue: 0), truncation: rewrite.truncation,
            body: .write(extent))
        step(rewrite.set, .write(tag: newTag(.rewritten), [draft]))
    }
}
