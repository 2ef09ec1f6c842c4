// Reading: from the index to the disk and back, with every record checked against what the index
// says of it (S5).
// Invariants:
//  1. Bytes are given out only under a record header that names disk, segment generation, place,
//     set, epoch and number as the index does, and with the right checksum.
//  2. A record that is not what the index says is damage only if the index still says so: its
//     segment may have been recycled under a slow read, which is then planned again.

package import Base

/// A record that a read needs.
struct ReadItem: Hashable, Sendable {
    var number: RecordNumber
    var epoch: Epoch
    var place: LogPlace
    /// Of an extent: content bytes that are visible.
    var visible: UInt32
    /// The block it belongs to, counted from the first of the read.
    var slot: Int
    /// Its place in the block's pile.
    var order: Int
}

/// A read on its way.
struct ReadJob: Sendable {
    enum Purpose: Hashable, Sendable {
        case blocks(ChunkID, Range<Int>, through: RecordNumber?)
        case record(RecordNumber)
    }
    var token: UInt64
    var set: SetID
    var purpose: Purpose
    var waiting = 0
    var attempts = 0
    var isStale = false
    /// For each block its pieces.
    var pieces: [[StoredPiece?]] = []
    var isDamaged: [Bool] = []
    var record: Record?

    /// Where in a file an item is; nil: it was read by its number.
    func place(of item: ReadItem) -> DamagedPlace? {
        guard case .blocks(let chunk, let blocks, _) = purpose else { return nil }
        return DamagedPlace(chunk: chunk, block: UInt16(blocks.lowerBound + item.slot))
    }
}

/// The reads of a store.
struct ReadTable: Sendable {
    /// One disk read and the records in it.
    struct Part: Sendable {
        var job: UInt64
        var segment: UInt32
        var offset: Int
        var items: [ReadItem]
    }
    /// Bytes between two records that are read rather than skipped.
    static let gap = 16 << 10
    /// Times that a read is planned again when its segments were recycled under it.
    static let attempts = 8

    var jobs: [UInt64: ReadJob] = [:]
    var parts: [DiskOperation: Part] = [:]
    var lastJob: UInt64 = 0

    func owns(_ operation: DiskOperation) -> Bool { parts[operation] != nil }
}

extension DiskStore {
    /// Reads blocks of a chunk; the answer is `.read` with the token, at once or later. With
    /// `through`, prepared records up to that number count as committed. `isExact`: as of now, or
    /// damaged; without it, a read whose records were written elsewhere meanwhile starts again.
    package mutating func read(
        token: UInt64, set: SetID, chunk: ChunkID, blocks: Range<Int>,
        through: RecordNumber? = nil, isExact: Bool = false
    ) -> [StoreOutput] {
        start(
            ReadJob(
                token: token, set: set, purpose: .blocks(chunk, blocks, through: through),
                attempts: isExact ? ReadTable.attempts : 0))
    }

    /// Reads a whole record, prepared or committed; the answer is `.record` with the token.
    package mutating func loadRecord(
        token: UInt64, set: SetID, number: RecordNumber
    ) -> [StoreOutput] {
        let ledger = ledger(set)
        if let entry = ledger?.prepared(number), entry.place == nil {
            return [.record(token: token, entry.record)]
        }
        if ledger?.isDamaged(number) == true,
            let known = awaited[awaitedHead...].last(where: {
                $0.set == set && $0.number == number && $0.moved == 0
            }), let record = known.again
        {
            // It takes the place of the damaged one as soon as it is durable.
            return [.record(token: token, record)]
        }
        return start(ReadJob(token: token, set: set, purpose: .record(number)))
    }

    private mutating func start(_ new: ReadJob) -> [StoreOutput] {
        var job = new
        let items = plan(&job)
        if items.isEmpty { return [finish(job)] }
        reads.lastJob += 1
        let id = reads.lastJob
        var outputs: [StoreOutput] = []
        for part in Self.parts(of: items, job: id) {
            let operation = log.newOperation()
            let end = part.items.reduce(0) { max($0, Int($1.place.offset) + $1.place.length) }
            outputs.append(
                .disk(
                    .read(
                        operation, .segment(part.segment), offset: part.offset,
                        length: end - part.offset)))
            reads.parts[operation] = part
            job.waiting += 1
        }
        reads.jobs[id] = job
        return outputs
    }

    /// What the job has to read, by the index as it is now.
    private mutating func plan(_ job: inout ReadJob) -> [ReadItem] {
        job.isStale = false
        job.waiting = 0
        switch job.purpose {
        case .record(let number):
            return recordItem(job.set, number).map { [$0] } ?? []
        case .blocks(let chunk, let blocks, let through):
            job.isDamaged = Array(repeating: false, count: blocks.count)
            job.pieces = Array(repeating: [], count: blocks.count)
            guard let ledger = ledger(job.set) else { return [] }
            let isLost = ledger.isTailUnknown || !ledger.holes.isEmpty
            if isLost {
                job.isDamaged = Array(repeating: true, count: blocks.count)
                return []
            }
            var items: [ReadItem] = []
            let piles = self.piles(ledger, chunk, blocks, through)
            for (slot, pile) in piles.enumerated() {
                job.pieces[slot] = Array(repeating: nil, count: pile.count)
                for (order, entry) in pile.enumerated() {
                    items.append(
                        ReadItem(
                            number: entry.number, epoch: entry.epoch, place: entry.place,
                            visible: entry.visible, slot: slot, order: order))
                }
            }
            return items
        }
    }

    private mutating func recordItem(_ set: SetID, _ number: RecordNumber) -> ReadItem? {
        guard let ledger = ledger(set) else { return nil }
        func item(_ epoch: Epoch, _ place: LogPlace) -> ReadItem {
            ReadItem(
                number: number, epoch: epoch, place: place, visible: 0, slot: 0, order: 0)
        }
        if let entry = ledger.prepared(number) {
            return entry.place.map { item(entry.record.epoch, $0) }
        }
        let recent = ledger.recent.firstIndex(notBelow: { $0.number < number })
        if recent < ledger.recent.count, ledger.recent[recent].number == number {
            return item(ledger.recent[recent].epoch, ledger.recent[recent].place)
        }
        return findExtent(number, set).map { item($0.entry.epoch, $0.entry.place) }
    }

    /// The extents of each block, with the prepared records up to `through` laid over them.
    private func piles(
        _ ledger: SetLedger, _ chunk: ChunkID, _ blocks: Range<Int>, _ through: RecordNumber?
    ) -> [[ExtentEntry]] {
        let state = chunks[chunk].flatMap { $0.set == ledger.set ? $0 : nil }
        var piles = blocks.map { Array(state?.entries($0) ?? []) }
        guard let through, through > ledger.committed, dropped[chunk] == nil else { return piles }
        var known = state?.truncation ?? 0
        for entry in ledger.prepared where entry.record.number <= through {
            switch entry.record.body {
            case .write(let extent):
                guard extent.chunk == chunk, blocks.contains(Int(extent.block)),
                    let place = entry.place
                else { continue }
                let over = ExtentEntry(
                    extent, number: entry.record.number, epoch: entry.record.epoch, place: place)
                let slot = Int(extent.block) - blocks.lowerBound
                piles[slot].removeAll { over.covers($0) }
                piles[slot].append(over)
            case .trim(chunk, let truncation, let from):
                if truncation <= known { continue }
                known = truncation
                for slot in piles.indices {
                    piles[slot] = piles[slot].compactMap { extent in
                        var clipped = extent
                        return clipped.clip(to: Int(from)) ? clipped : nil
                    }
                }
            case .drop(let gone):
                // Nothing that is written after it counts.
                if gone.contains(chunk) { return blocks.map { _ in [] } }
            case .trim, .nothing: continue
            }
        }
        return piles
    }

    /// Joins neighbours on the disk into reads of up to 1 MiB.
    private static func parts(of items: [ReadItem], job: UInt64) -> [ReadTable.Part] {
        let sorted = items.sorted {
            ($0.place.segment, $0.place.offset) < ($1.place.segment, $1.place.offset)
        }
        var parts: [ReadTable.Part] = []
        var end = 0
        for item in sorted {
            let offset = Int(item.place.offset)
            let itemEnd = offset + item.place.length
            if let last = parts.last, last.segment == item.place.segment,
                offset <= end + ReadTable.gap, itemEnd - last.offset <= Limits.diskWrite
            {
                parts[parts.count - 1].items.append(item)
                end = max(end, itemEnd)
            } else {
                parts.append(
                    ReadTable.Part(
                        job: job, segment: item.place.segment, offset: offset, items: [item]))
                end = itemEnd
            }
        }
        return parts
    }

    mutating func readCompleted(
        _ operation: DiskOperation, _ result: DiskResult
    ) -> [StoreOutput] {
        guard let part = reads.parts.removeValue(forKey: operation),
            var job = reads.jobs.removeValue(forKey: part.job)
        else { return [] }
        var outputs: [StoreOutput] = []
        for item in part.items {
            let stored = result.part(item.place, of: part.offset)
            if let record = verify(item, of: job.set, stored) {
                if case .blocks = job.purpose {
                    guard case .write(let extent) = record.body else { continue }
                    job.pieces[item.slot][item.order] = StoredPiece(
                        extent: extent, visible: item.visible)
                } else {
                    job.record = record
                }
            } else if isListed(item, of: job) {
                job.mark(item)
                outputs.append(damaged(job.set, item, job.place(of: item), \.met))
            } else if !isGone(item, of: job) {
                job.isStale = true
            }
        }
        job.waiting -= 1
        if job.waiting > 0 {
            reads.jobs[part.job] = job
            return outputs
        }
        if job.isStale, job.attempts < ReadTable.attempts {
            if case .blocks = job.purpose { job.attempts += 1 }
            return outputs + start(job)
        }
        return outputs + [finish(job)]
    }

    private mutating func finish(_ job: ReadJob) -> StoreOutput {
        if case .record(let number) = job.purpose {
            return .record(token: job.token, job.record ?? remnant(number, job.set))
        }
        let blocks = job.pieces.indices.map { slot -> StoredBlock in
            let pieces = job.pieces[slot].compactMap { $0 }
            let isWhole = pieces.count == job.pieces[slot].count && !job.isDamaged[slot]
            guard isWhole else { return .damaged }
            guard pieces.contains(where: \.layer.isLost) else { return .pieces(pieces) }
            return pieces.map(\.layer).showLoss
                ? .lost : .pieces(pieces.filter { !$0.layer.isLost })
        }
        return .read(token: job.token, blocks)
    }

    /// The record in these bytes, if it is the wanted one and intact (S5).
    func verify(
        _ item: ReadItem, of set: SetID, _ bytes: ArraySlice<UInt8>
    ) -> Record? {
        guard let found = log.decode(bytes, at: item.place) else { return nil }
        var reader = ByteReader(found.header)
        var payload = ByteReader(found.payload)
        guard (try? reader.read(RecordNumber.self)) != nil,
            let record = try? Record(from: &reader, payload: &payload), record.set == set,
            record.epoch == item.epoch, record.number == item.number
        else { return nil }
        return record
    }

    /// Whether it is a record that was overwritten since, whose segment nobody needed.
    private mutating func isGone(_ item: ReadItem, of job: ReadJob) -> Bool {
        guard case .record(let number) = job.purpose else { return false }
        return findExtent(number, job.set) == nil && ledger(job.set)?.prepared(number) == nil
    }

    /// Whether the index or the ledger still puts the record there.
    private mutating func isListed(_ item: ReadItem, of job: ReadJob) -> Bool {
        var probe = job
        if case .record(let number) = job.purpose {
            // A record in `recent` is there only as long as nobody needs its segment.
            let isPinned =
                ledger(job.set)?.prepared(number) != nil || findExtent(number, job.set) != nil
            return isPinned && recordItem(job.set, number)?.place == item.place
        }
        return plan(&probe).contains { $0.number == item.number && $0.place == item.place }
    }
}

extension ReadJob {
    mutating func mark(_ item: ReadItem) {
        if case .blocks = purpose { isDamaged[item.slot] = true }
    }
}

extension DiskResult {
    /// The bytes of a record, of those that were read from `offset` of its segment on; as far as
    /// they are there.
    func part(_ place: LogPlace, of offset: Int) -> ArraySlice<UInt8> {
        content.dropFirst(Int(place.offset) - offset).prefix(place.length)
    }
}

extension SegmentLog {
    /// The record at a place, from its bytes; nil if it is not the one that was written there, or
    /// is damaged. Its payload shares the memory of `bytes`.
    func decode(_ bytes: ArraySlice<UInt8>, at place: LogPlace) -> LogRecord? {
        guard let superblock, let frame = RecordFrame(decoding: bytes),
            let file = self.place(of: place.segment),
            case .live(let generation) = files[file].state, bytes.count == place.length
        else { return nil }
        let identity = SegmentIdentity(
            cell: superblock.cell, disk: superblock.disk, generation: generation)
        guard frame.identity == identity, frame.offset == place.offset,
            frame.headerLength == place.headerLength,
            frame.payloadLength == place.payloadLength, frame.isIntact(bytes)
        else { return nil }
        let header = bytes.startIndex + RecordFrame.size
        let payload = header + Int(frame.headerLength)
        guard Checksum(of: bytes[payload...]) == frame.payloadChecksum else { return nil }
        var record = LogRecord(
            frame, segment: place.segment, header: Array(bytes[header..<payload]))
        record.payload = bytes[payload...]
        return record
    }
}
