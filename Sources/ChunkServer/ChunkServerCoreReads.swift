// Reads. Who may answer, and what (DESIGN 3.2, Reads):
//
//  primary, serving       its committed state, while its backups' lease holds (C11); a read that
//                         finds none waits until it is granted
//  any copy               if the request allows it: what is committed there, when that is all
//                         that the client can know of (close-to-open); so too a primary whose
//                         backups no longer answer
//  others                 no one; the client goes elsewhere or waits
//
// Invariants:
//  1. A read that carries cuts the chunk has not seen waits until the primary has committed them.
//  2. Whether this member may answer is looked at again when the bytes are there.
//  3. Bytes whose checksum is wrong never leave (D9); their record is fetched from a peer (C17).

package import Base
import Node
import Replication
import Store
import Wire

/// A read that waits for the disk.
struct ReadUnderWay: Sendable {
    var asker: Asker
    var request: ReadRequest
    var set: Int
    /// The primary's epoch; nil at another member.
    var epoch: Epoch?
    /// Every record up to this takes part.
    var through: RecordNumber
    /// When it went to the disk.
    var since: Instant
}

extension ChunkServerCore {
    mutating func takeRead(_ frame: Frame, _ asker: Asker) {
        guard let request = try? ReadRequest(frame),
            request.context.cuts.allSatisfy({ $0.size < UInt64(Limits.chunk) })
        else {
            return send(asker, Self.refusal(.invalid, .none))
        }
        guard phase == .serving else { return send(asker, Self.refusal(.notServing, .none)) }
        guard let index = places[request.context.set] else {
            leader.isUrgent = true
            return send(asker, Self.refusal(.unknownSet, .none))
        }
        guard admit(asker) else {
            return send(asker, Self.refusal(.busy, sets[index].replica.promised))
        }
        startRead(asker, request, index)
    }

    private static func refusal(_ status: ChunkStatus, _ epoch: Epoch) -> ReadReply {
        ReadReply(
            status: status, epoch: epoch, number: .none, blocks: 0, isLast: true, pieces: [])
    }

    private mutating func refuse(_ asker: Asker, _ status: ChunkStatus, _ index: Int) {
        finish(asker, Self.refusal(status, sets[index].replica.promised))
    }

    /// An index that had to be rebuilt has lost what its checkpoint had replaced (DESIGN 3.1).
    func mayServeReads(_ index: Int, from number: RecordNumber) -> Bool {
        let replica = sets[index].replica
        return replica.mayServeReads(from: number) && !store.wasRebuilt
            && !store.hasHoles(replica.set)
    }

    /// Decides who answers: this member as the primary, as another member, or not.
    mutating func startRead(_ asker: Asker, _ request: ReadRequest, _ index: Int) {
        let context = request.context
        let seen = store.truncation(context.set, request.chunk)
        if context.truncation < seen { return refuse(asker, .outdated, index) }
        if isLost(request.chunk, context) { return refuse(asker, .damaged, index) }
        let lacksCut = context.cuts.contains { $0.truncation > seen }
        let epoch = sets[index].replica.promised
        let committed = sets[index].replica.committed
        if sets[index].replica.isServing, context.epoch == epoch {
            if lacksCut || sets[index].trims[request.chunk] != nil {
                sets[index].afterTrim.append((asker, request))
                return logCuts(context, request.chunk, index)
            }
            if sets[index].replica.hasLease(now: now) {
                sets[index].isLeaseLost = false
                sets[index].replica.keepLeaseWanted(now: now)
                return readDisk(
                    ReadUnderWay(
                        asker: asker, request: request, set: index, epoch: epoch,
                        through: committed, since: now))
            }
            guard request.backupFrom != nil, sets[index].isLeaseLost else {
                return awaitLease(asker, request, index)
            }
            step(index, .wantLease)
        }
        guard let number = request.backupFrom else {
            return refuse(asker, refusal(context, index) ?? .notServing, index)
        }
        guard mayServeReads(index, from: number) else {
            return refuse(asker, .notServing, index)
        }
        // Only the primary can log a cut. One that is prepared here is not in what is committed.
        let applied = store.appliedTruncation(request.chunk)
        guard !context.cuts.contains(where: { $0.truncation > applied }) else {
            return refuse(asker, .notPrimary, index)
        }
        readDisk(
            ReadUnderWay(
                asker: asker, request: request, set: index, epoch: nil, through: committed,
                since: now))
    }

    /// Sets that it serves as their primary, in which epoch, and whether it may answer reads (C11).
    package func served(now: Instant) -> [(set: SetID, epoch: Epoch, hasLease: Bool)] {
        sets.filter { $0.replica.isServing }.map {
            ($0.replica.set, $0.replica.promised, $0.replica.hasLease(now: now))
        }
    }

    /// Reads that wait for the lease of their set's primary: on, or away if it took too long.
    mutating func wakeReads(_ index: Int) {
        guard !sets[index].afterLease.isEmpty else { return }
        let hasLease = sets[index].replica.hasLease(now: now)
        guard hasLease || !sets[index].replica.isServing || sets[index].leasePatience <= now
        else { return }
        let reads = sets[index].afterLease
        sets[index].afterLease = []
        sets[index].isLeaseLost = !hasLease
        for read in reads {
            if hasLease || read.request.backupFrom != nil {
                startRead(read.asker, read.request, index)
            } else {
                refuse(read.asker, .notServing, index)
            }
        }
    }

    private mutating func awaitLease(_ asker: Asker, _ request: ReadRequest, _ index: Int) {
        if sets[index].afterLease.isEmpty { sets[index].leasePatience = now + Self.leasePatience }
        sets[index].afterLease.append((asker, request))
        step(index, .wantLease)
    }
    /// So long a read waits for a lease; then it gets what any copy may give, or is refused.
    private static var leasePatience: Interval { .milliseconds(500) }

    /// The blocks that one reply can hold if they are well compressed.
    private func blocks(of request: ReadRequest) -> Range<Int> {
        let first = Int(request.block)
        return first..<first + min(Int(request.count), Self.blocksPerRead)
    }
    private static var blocksPerRead: Int { 16 }

    private mutating func readDisk(_ read: ReadUnderWay) {
        let request = read.request
        let tag = newTag(.read(read))
        apply(
            store.read(
                token: tag, set: request.context.set, chunk: request.chunk,
                blocks: blocks(of: request),
                through: read.epoch == nil ? read.through : nil))
    }

    /// The bytes are there, or are damaged.
    mutating func finishRead(_ tag: UInt64, _ blocks: [StoredBlock]) {
        let read: ReadUnderWay
        switch waiters.removeValue(forKey: tag) {
        case .read(let waiting): read = waiting
        case .digest(let work): return finishDigest(work, blocks)
        case .rewrite(let rewrite):
            let extent = blocks.first.flatMap { Self.whole(rewrite.request, $0) }
            return write(rewrite, extent)
        case .fold(let basis, let set, let epoch): return finishFold(basis, set, epoch, blocks)
        case .copy(let request, let set, let primary, let epoch):
            return finishCopy(request, blocks, to: primary, epoch, set)
        default: return
        }
        if let epoch = read.epoch {
            // Tested after the data was read (C11).
            let replica = sets[read.set].replica
            guard replica.isServing, replica.promised == epoch else {
                return refuse(read.asker, .notServing, read.set)
            }
            guard replica.hasLease(now: now) else {
                return awaitLease(read.asker, read.request, read.set)
            }
        } else {
            guard mayServeReads(read.set, from: read.request.backupFrom ?? .none) else {
                return refuse(read.asker, .notServing, read.set)
            }
        }
        reply(read, blocks)
    }

    /// As many whole blocks as fit one frame; the first block in several frames where it must.
    private mutating func reply(_ read: ReadUnderWay, _ blocks: [StoredBlock]) {
        var pieces: [Piece] = []
        var size = 0
        var answered: UInt16 = 0
        for block in blocks {
            guard case .pieces(let stored) = block else { break }
            let more = stored.reduce(0) { $0 + $1.extent.payload.count }
            let fits =
                size + more <= Limits.framePayload && pieces.count + stored.count <= Self.pieces
            guard fits || answered == 0 else { break }
            size += more
            answered += 1
            pieces += stored.map { Piece(extent: $0.extent, visible: $0.visible) }
            if !fits { break }
        }
        recent.add(size, now: now)
        throttle.note(now - read.since)
        let epoch = sets[read.set].replica.promised
        guard answered > 0 else { return refuse(read.asker, .damaged, read.set) }
        var rest = pieces[...]
        while true {
            let page = takePage(&rest)
            let reply = ReadReply(
                status: .done, epoch: epoch, number: read.through, blocks: answered,
                isLast: rest.isEmpty, pieces: page)
            if rest.isEmpty { return finish(read.asker, reply) }
            send(read.asker, reply)
        }
    }

    /// Pieces in one reply.
    private static var pieces: Int { 1_024 }

    /// Takes the pieces of one frame from the front.
    private func takePage(_ rest: inout ArraySlice<Piece>) -> [Piece] {
        var size = 0
        let page = rest.prefix(Self.pieces).prefix { piece in
            size += piece.extent.payload.count
            return size <= Limits.framePayload
        }
        rest = rest.dropFirst(page.count)
        return Array(page)
    }
}
