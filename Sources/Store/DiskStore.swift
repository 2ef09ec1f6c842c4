// The chunk data of one disk: its log, and the index that tells where everything is (DESIGN 3.1).
// The replication record is the stored data (D7): the store appends it once, lists it as prepared,
// and when it is committed its place goes into the index.
//
//   new -> identifying -> loading (a checkpoint) -> replaying -> ready        (any) -> failed
//
// Invariants:
//  1. A record counts as durable only when its log number is (S2); reads see nothing else.
//  2. A record (e, n) is dead iff a later epoch has keepThrough < n; dead records never come back.
//  3. Space is freed only when what supersedes it is committed, and two checkpoints without it
//     are durable, so that either of them can be the start of a replay.
//  4. Damage is kept in the ledger of its set until the record is repaired, or dead (C17).

package import Base

/// The store of one disk of a chunk server, as a state machine over disk effects.
package struct DiskStore: Sendable {
    enum Phase: Hashable, Sendable { case new, identifying, loading, replaying, ready, failed }

    /// A record on its way to the disk.
    struct Awaited: Sendable {
        var log: LogNumber
        var set: SetID
        var number: RecordNumber
        /// It was logged before, and is damaged there, or moved by the cleaner: its new place is
        /// taken when it is durable.
        var again: Record?
        /// Bytes that the cleaner moved.
        var moved = 0
    }

    static let recordKind = LogRecordKind(rawValue: 1)
    static let epochKind = LogRecordKind(rawValue: 2)

    let configuration: StoreConfiguration
    var log: SegmentLog
    /// What the operator gave it, whatever the file system has.
    private var limit = UInt64.max
    var phase = Phase.new
    /// Ascending by set.
    var ledgers: [SetLedger] = []
    var chunks: ChunkTable
    var book = SegmentBook()
    /// Chunks in the ledgers' `dropped`.
    var dropped: [ChunkID: RecordNumber] = [:]
    /// In the order of the log.
    var awaited: [Awaited] = []
    var awaitedHead = 0
    var reads = ReadTable()
    var checkpoints = CheckpointState()
    var scrubber: Scrubber
    var cleaner = Cleaner()
    var folds = FoldQueue()
    /// Of the sets whose records are being loaded, the last one used at the end.
    var finders: [RecordFinder] = []
    var hasUnknownDamage = false
    /// Where damaged records are in their files: at most `Limits.damagedPlaces` of them.
    var damage: [(set: SetID, number: RecordNumber, place: DamagedPlace)] = []
    /// Nothing of this disk can be trusted before its sets have reconciled: its index was lost,
    /// and with it a part of the log that the index had replaced (DESIGN 3.1).
    package internal(set) var wasRebuilt = false

    /// A store that was not started.
    package init(_ configuration: StoreConfiguration) {
        self.configuration = configuration
        log = SegmentLog(configuration.log)
        scrubber = Scrubber(configuration.scrub)
        chunks = ChunkTable(configuration.index)
    }

    // What is there

    /// Identity and incarnation; nil before `.identified`.
    package var superblock: Superblock? { log.superblock }
    /// Whether records may be prepared and read.
    package var isReady: Bool { phase == .ready }
    /// Whether it stopped for ever (S4).
    package var hasFailed: Bool { phase == .failed }
    /// When `flush` wants to be called although nothing happened.
    package var wakeTime: Instant {
        min(log.wakeTime, cleaner.wake, checkpoints.wake, folds.wake, folds.hopeEnds)
    }
    /// Every set with an epoch or a record here, ascending.
    package var sets: [SetID] { ledgers.map(\.set) }
    /// Bytes that Martlet may use on the disk.
    package var capacity: UInt64 { log.totalBytes }
    /// Bytes in segments that are free, or are being made.
    package var spare: UInt64 { log.spareBytes }
    /// What all sets hold.
    package var usage: StoreUsage { ledgers.reduce(StoreUsage()) { $0 + $1.usage } }

    /// What one set holds.
    package func usage(_ set: SetID) -> StoreUsage { ledger(set)?.usage ?? StoreUsage() }
    /// The highest epoch that was adopted; it is durable when its log number is.
    package func epoch(_ set: SetID) -> Epoch { ledger(set)?.epoch ?? .none }
    /// Every epoch start that was adopted, ascending.
    package func history(_ set: SetID) -> [EpochStart] { ledger(set)?.history ?? [] }
    /// The highest epoch of the records that the start found; see `SetLedger`.
    package func recordEpoch(_ set: SetID) -> Epoch { ledger(set)?.recordEpoch ?? .none }
    /// The last record in the index.
    package func committed(_ set: SetID) -> RecordNumber { ledger(set)?.committed ?? .none }
    /// The last record that is alive here, damaged or not, durable or on its way.
    package func lastPrepared(_ set: SetID) -> RecordNumber { ledger(set)?.last ?? .none }
    /// Numbers of damaged records, ascending; those of records not known at all included.
    package func rot(_ set: SetID) -> [ClosedRange<RecordNumber>] {
        guard let ledger = ledger(set) else { return [] }
        return (ledger.holes + ledger.rotten.map { $0...$0 }).sorted {
            $0.lowerBound < $1.lowerBound
        }
    }
    /// Whether the set must not become primary here: it has damaged records, or records after the
    /// last may be lost, which the next epoch start will tell.
    package func hasRot(_ set: SetID) -> Bool {
        ledger(set).map { !$0.holes.isEmpty || !$0.rotten.isEmpty || $0.isTailUnknown } ?? false
    }
    /// What the set knows of a client's request (C15).
    package func duplicate(
        _ set: SetID, _ session: SessionID, _ sequence: RequestNumber
    ) -> Duplicate {
        // In place: a copy of the ledger for each extent costs more than the look.
        ledgerIndex(set).map { ledgers[$0].duplicate(session, sequence) } ?? .new
    }
    /// The highest truncation number whose trim of the chunk is logged here; 0 if none is.
    package func truncation(_ set: SetID, _ chunk: ChunkID) -> UInt32 {
        var highest = chunks[chunk]?.truncation ?? 0
        for entry in ledger(set)?.prepared ?? [] {
            if case .trim(chunk, let truncation, _) = entry.record.body {
                highest = max(highest, truncation)
            }
        }
        return highest
    }
    /// Whether the chunk was dropped here, not long ago.
    package func isDropped(_ chunk: ChunkID) -> Bool { dropped[chunk] != nil }
    /// The highest truncation number whose committed trim of the chunk was applied; 0 if none was.
    package func appliedTruncation(_ chunk: ChunkID) -> UInt32 { chunks[chunk]?.truncation ?? 0 }
    /// Records of the set are lost of which nothing is known: any block may be too old.
    package func hasHoles(_ set: SetID) -> Bool { ledger(set)?.holes.isEmpty == false }

    // Changes

    /// Logs the start of an epoch; records that it kills are forgotten at once. An epoch that is
    /// known already is not logged again. Throws `committed` if it would take back what is
    /// committed, unless it starts over (C9), and `wrongEpoch` for a second start of an epoch
    /// that keeps something else.
    package mutating func adopt(_ start: EpochStart) throws(StoreError) -> LogNumber {
        let index = makeLedger(start.configuration.set)
        if start.configuration.epoch <= ledgers[index].epoch {
            guard ledgers[index].history.contains(start) else {
                throw .wrongEpoch(current: ledgers[index].epoch)
            }
            return LogNumber(rawValue: log.nextNumber.rawValue - 1)
        }
        let isNew = start.configuration.epoch > ledgers[index].recordEpoch
        if isNew, !start.startsOver, start.keepThrough < ledgers[index].committed {
            throw .committed(through: ledgers[index].committed)
        }
        begin(start, index)
        var writer = ByteWriter(capacity: 96)
        start.encode(into: &writer)
        return append(Self.epochKind, writer.bytes, [], nil)
    }

    /// Logs a record, with the number after the last of its set, or one that is missing. Its
    /// payload was summed when it came here (D9). One that is there already is not logged again.
    /// Whether there is room is to be asked before the record gets its number (C20).
    package mutating func prepare(_ record: Record) throws(StoreError) -> LogNumber {
        let index = try check(record)
        let last = ledgers[index].last
        if record.number <= last, !ledgers[index].isHole(record.number) {
            return try known(record, index)
        }
        if record.number <= last { return try repair(record.set, record) }
        guard record.number == last.next else { throw .outOfOrder(expected: last.next) }
        let before = log.queued
        let number = append(record, committed: ledgers[index].committed)
        cleaner.report.appended += UInt64(log.queued - before)
        awaited.append(Awaited(log: number, set: record.set, number: record.number))
        ledgers[index].prepared.append(PreparedRecord(record: record, log: number, place: nil))
        ledgers[index].last = record.number
        ledgers[index].note(record)
        return number
    }

    /// Logs a record again that is damaged here, as a peer has it; `nothing` as its body means
    /// that later records replaced it everywhere. The damage is gone when it is durable (C17).
    package mutating func repair(_ set: SetID, _ record: Record) throws(StoreError) -> LogNumber {
        let index = try check(record)
        precondition(record.set == set, "a repair of another set")
        guard record.number <= ledgers[index].last else {
            throw .outOfOrder(expected: ledgers[index].last.next)
        }
        let number = append(record, committed: ledgers[index].committed)
        awaited.append(
            Awaited(log: number, set: record.set, number: record.number, again: record))
        return number
    }

    /// Everything up to this record is committed: it moves into the index, as far as it is
    /// durable here; the rest follows.
    package mutating func commit(_ set: SetID, through number: RecordNumber) {
        guard let index = ledgerIndex(set) else { return }
        ledgers[index].wanted = max(ledgers[index].wanted, number)
        advance(index)
    }

    private func check(_ record: Record) throws(StoreError) -> Int {
        guard let index = ledgerIndex(record.set) else { throw .unknownSet }
        let current = ledgers[index].epoch
        guard record.epoch <= current else { throw .wrongEpoch(current: current) }
        if ledgers[index].isDead(record.epoch, record.number) { throw .dead }
        return index
    }

    /// The log number of a record that is here already.
    private func known(_ record: Record, _ index: Int) throws(StoreError) -> LogNumber {
        if let entry = ledgers[index].prepared(record.number) {
            guard entry.record.epoch == record.epoch else { throw .conflict }
            return entry.log
        }
        return log.durable
    }

    mutating func append(_ record: Record, committed: RecordNumber) -> LogNumber {
        var writer = ByteWriter(capacity: 256)
        writer.write(committed)
        record.encodeHeader(into: &writer)
        if record.payload.count >= Limits.largePayload { writer.pad(to: Limits.recordAlignment) }
        var checksum: Checksum?
        if case .write(let extent) = record.body { checksum = extent.stored }
        return append(Self.recordKind, writer.bytes, record.payload, checksum)
    }

    mutating func append(
        _ kind: LogRecordKind, _ header: [UInt8], _ payload: ArraySlice<UInt8>,
        _ checksum: Checksum?
    ) -> LogNumber {
        checkpoints.bytes += RecordFrame.size + header.count + payload.count
        return log.append(kind: kind, header: header, payload: payload, checksum: checksum)
    }

    // The disk

    /// Starts the store of a disk with these files.
    package mutating func start(_ inventory: DiskInventory) -> [StoreOutput] {
        precondition(phase == .new, "a store starts once")
        phase = .identifying
        checkpoints.files = inventory.files.compactMap { file in
            if case .checkpoint(let number) = file.file { return number }
            return nil
        }
        let least = UInt64(configuration.log.segmentSize * Limits.leastSegments) / 97 * 100 + 100
        // One that is in use goes on, whatever others left of it.
        if inventory.files.isEmpty, inventory.capacity < least {
            return fail(.tooSmall(capacity: inventory.capacity, least: least))
        }
        // Two checkpoints have to find room beside the segments.
        let share = DiskInventory(
            files: inventory.files, capacity: inventory.capacity / 100 * Self.percent)
        limit = inventory.limit
        return take(log.start(share))
    }

    /// Of the disk, what the segments may take.
    private static let percent: UInt64 = 97

    /// So many bytes are free on the file system: what others gave back may be used.
    package mutating func learn(free: UInt64) {
        guard phase == .ready else { return }
        log.learn(free: free, limit: limit, percent: Self.percent)
    }

    /// A disk operation ended. Tells what follows from it; `flush` comes at the end of the turn.
    package mutating func completed(
        _ operation: DiskOperation, _ result: DiskResult, now: Instant
    ) -> [StoreOutput] {
        if log.owns(operation) { return take(log.completed(operation, result, now: now)) }
        if phase == .failed { return [] }
        if reads.owns(operation) { return readCompleted(operation, result) }
        if scrubber.part?.operation == operation { return scrubbed(result) }
        if cleaner.part?.operation == operation { return cleaned(result) }
        return checkpointCompleted(operation, result)
    }

    /// Writes what was appended; to be called at the end of each turn.
    package mutating func flush(now: Instant) -> [StoreOutput] {
        log.wanted = wantedSegments
        let outputs = take(log.flush(now: now)) + clean(now) + checkpointIfDue(now)
        watchSpace(now)
        folds.wake = findFolds(now)
        return outputs
    }

    mutating func take(_ outputs: [LogOutput]) -> [StoreOutput] {
        var taken: [StoreOutput] = []
        taken.reserveCapacity(outputs.count)
        for output in outputs {
            switch output {
            case .disk(let effect): taken.append(.disk(effect))
            case .identified(let superblock):
                taken.append(.identified(superblock))
                taken += loadCheckpoint()
            case .replayed(let record): replay(record, isIntact: true)
            case .damaged(let damage): replay(damage)
            case .renamed: break
            case .ready:
                endReplay()
                taken.append(.ready)
            case .placed(let places, let first): placed(places, first)
            case .durable(let through): taken.append(.durable(through: through))
            case .failed(let why): taken += fail(why)
            }
        }
        return taken
    }

    mutating func fail(_ failure: LogFailure) -> [StoreOutput] {
        if phase == .failed { return [] }
        phase = .failed
        return [.failed(failure)]
    }

    /// A group is durable: its records have places.
    private mutating func placed(_ places: [LogPlace], _ first: LogNumber) {
        let end = first.rawValue + UInt64(places.count)
        while awaitedHead < awaited.count, awaited[awaitedHead].log.rawValue < end {
            let entry = awaited[awaitedHead]
            awaitedHead += 1
            let place = places[Int(entry.log.rawValue - first.rawValue)]
            guard let index = ledgerIndex(entry.set) else { continue }
            if let record = entry.again {
                cleaner.moving -= entry.moved
                applyRepair(record, entry.log, place, index)
                continue
            }
            // It may have died since, and its number been used again.
            let position = ledgers[index].place(entry.number)
            guard position < ledgers[index].prepared.count,
                ledgers[index].prepared[position].log == entry.log
            else { continue }
            ledgers[index].prepared[position].place = place
            ledgers[index].prepared[position].record.dropPayload()
            book.add(place)
            if ledgers[index].wanted >= entry.number { advance(index) }
        }
        if awaitedHead == awaited.count {
            awaited.removeAll(keepingCapacity: true)
            awaitedHead = 0
        } else if awaitedHead > 4_096 {
            awaited.removeFirst(awaitedHead)
            awaitedHead = 0
        }
    }
}

extension Record {
    /// Lets go of the stored bytes, which are on the disk.
    mutating func dropPayload() {
        guard case .write(var extent) = body else { return }
        extent.payload = []
        body = .write(extent)
    }
}
