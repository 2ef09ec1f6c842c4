// The two ends of a checkpoint: taking the index apart into blocks, and putting it together.
// Invariants:
//  1. The writer works on a copy of the index as it was when it began (copy on write).
//  2. A checkpoint whose items contradict each other is as bad as one with a wrong checksum.

import Base

/// Cuts a copy of the index into blocks, a few at a time.
struct CheckpointWriter: Sendable {
    let identity: SegmentIdentity
    let sequence: UInt64
    let file: UInt8
    let position: LogPosition
    /// Segments that nothing needs once this checkpoint is durable.
    let released: [UInt32]
    private let ledgers: [SetLedger]
    private let slots: ChunkSlots
    private var nextLedger = 0
    private var nextGroup = 0
    private var items = ByteWriter(capacity: CheckpointBlock.capacity)
    private var index: UInt32 = 0
    private var previous: UInt32 = 0
    private var sealed: [[ArraySlice<UInt8>]] = []
    private(set) var isEnded = false
    /// Writes on their way.
    var inFlight = 0
    var isSyncing = false
    /// Whether `stop` was asked for before it began.
    var isFinal = false

    init(
        identity: SegmentIdentity, sequence: UInt64, file: UInt8, position: LogPosition,
        segments: [LogSegment], released: [UInt32], ledgers: [SetLedger], chunks: ChunkTable,
        scrub: ScrubProgress
    ) {
        self.identity = identity
        self.sequence = sequence
        self.file = file
        self.position = position
        self.released = released
        self.ledgers = ledgers
        slots = chunks.slots
        add(.log(position))
        for segment in segments { add(.segment(segment)) }
        if scrub != ScrubProgress() { add(.scrub(scrub)) }
    }

    /// The next block to be written: its offset and its pieces; nil at the end.
    mutating func next() -> (offset: Int, pieces: [ArraySlice<UInt8>])? {
        while sealed.isEmpty, !isEnded {
            if nextLedger < ledgers.count {
                add(ledgers[nextLedger])
                nextLedger += 1
            } else if nextGroup < slots.groups {
                add(slots.packed(nextGroup))
                nextGroup += 1
            } else {
                seal(isLast: true)
                isEnded = true
            }
        }
        if sealed.isEmpty { return nil }
        let block = Int(index) - sealed.count
        return (block * CheckpointBlock.stride, sealed.removeFirst())
    }

    private mutating func add(_ item: CheckpointItem) {
        var writer = ByteWriter(capacity: 256)
        item.encode(into: &writer)
        makeRoom(writer.count)
        items.append(writer.bytes)
    }

    private mutating func add(_ group: ChunkGroup) {
        makeRoom(5 + group.bytes.count)
        CheckpointItem.encode(group, into: &items)
        for (place, rest) in zip(group.places, group.rests) {
            for start in stride(from: 0, to: rest.trims.count, by: CheckpointItem.trims) {
                let some = rest.trims[start...].prefix(CheckpointItem.trims)
                add(.trims(Array(some), place: place))
            }
            for page in rest.pages {
                switch page {
                case .packed(let packed): add(packed, place)
                case .open(let entries):
                    for start in stride(from: 0, to: entries.count, by: PackedPage.entries) {
                        add(PackedPage(entries[start...].prefix(PackedPage.entries)), place)
                    }
                }
            }
        }
    }
    private mutating func add(_ page: PackedPage, _ place: Int) {
        makeRoom(6 + page.bytes.count)
        CheckpointItem.encode(page, place, into: &items)
    }
    private mutating func makeRoom(_ count: Int) {
        if items.count + count > CheckpointBlock.capacity { seal(isLast: false) }
    }

    private mutating func seal(isLast: Bool) {
        let header = CheckpointBlock(
            identity: identity, sequence: sequence, index: index, isLast: isLast,
            items: items.bytes, previous: previous)
        previous = header.checksum
        index += 1
        let used = CheckpointBlock.headerSize + items.count
        let rest = align(used, Limits.groupAlignment) - used
        sealed.append(
            [header.encode()[...], items.bytes[...], Array(repeating: 0, count: rest)[...]])
        items = ByteWriter(capacity: isLast ? 0 : CheckpointBlock.capacity)
    }

    private mutating func add(_ ledger: SetLedger) {
        // Records that are not durable come from the log, or never happened.
        let durable = ledger.prepared.prefix { $0.place != nil }
        var last = ledger.last
        if durable.count < ledger.prepared.count {
            last = RecordNumber(
                rawValue: ledger.prepared[durable.count].record.number.rawValue - 1)
        }
        add(
            .set(
                ledger.set, committed: ledger.committed, last: last,
                isTailUnknown: ledger.isTailUnknown))
        for start in ledger.history { add(.epoch(start)) }
        for window in ledger.windows { add(.window(window)) }
        for entry in durable {
            if let place = entry.place { add(.prepared(entry.log, place, entry.record)) }
        }
        if !ledger.recent.isEmpty { add(.recent(ledger.recent)) }
        for gone in ledger.dropped { add(.dropped(gone)) }
        for hole in ledger.holes { add(.hole(hole)) }
        for number in ledger.rotten { add(.rotten(number)) }
    }
}

/// The index as it comes out of a checkpoint.
struct CheckpointContent: Sendable {
    private(set) var position = LogPosition.start
    private(set) var segments: [LogSegment] = []
    private(set) var ledgers: [SetLedger] = []
    private(set) var chunks: ChunkTable
    private(set) var book = SegmentBook()
    private(set) var dropped: [ChunkID: RecordNumber] = [:]
    private(set) var scrub = ScrubProgress()
    private var slots = ChunkSlots()
    /// Of the chunks in the slots (`ChunkLookup.hash`).
    private var hashes: [UInt64] = []
    /// The last group: its pages may follow.
    private var group: ChunkGroup.Draft?
    private var index: UInt32 = 0
    private var previous: UInt32 = 0
    private let configuration: IndexConfiguration

    init(_ configuration: IndexConfiguration) {
        self.configuration = configuration
        chunks = ChunkTable(configuration)
    }

    /// Takes the next block; true if it was the last. Throws if it does not belong here.
    mutating func add(
        block: [UInt8], identity: SegmentIdentity, sequence: UInt64
    ) throws(DecodeError) -> Bool {
        let header = try CheckpointBlock(decoding: block.prefix(CheckpointBlock.headerSize))
        let items = block.dropFirst(CheckpointBlock.headerSize).prefix(Int(header.length))
        guard header.identity == identity, header.sequence == sequence, header.index == index,
            header.previous == previous, items.count == Int(header.length),
            Checksum(of: items).value == header.checksum
        else { throw .checksum("checkpoint") }
        index += 1
        previous = header.checksum
        var reader = ByteReader(items)
        while reader.remaining > 0 {
            try add(CheckpointItem(try reader.read(), from: &reader))
        }
        guard header.isLast else { return false }
        try endGroup()
        forgetUnwritten()
        guard let chunks = ChunkTable(slots, hashes, configuration) else {
            throw .invalid(field: "chunks", value: 0)
        }
        self.chunks = chunks
        return true
    }

    /// Duplicates of records that were not durable when the checkpoint was made.
    private mutating func forgetUnwritten() {
        for index in ledgers.indices {
            ledgers[index].wanted = ledgers[index].committed
            ledgers[index].forgetDuplicates(above: ledgers[index].last)
        }
    }

    private func ledgerIndex(_ set: SetID) throws(DecodeError) -> Int {
        let index = ledgers.place(of: set)
        guard index < ledgers.count, ledgers[index].set == set else {
            throw .invalid(field: "chunk's set", value: set.rawValue)
        }
        return index
    }

    /// Takes a group; what is in pages comes with them.
    private mutating func begin(_ draft: ChunkGroup.Draft) throws(DecodeError) {
        try endGroup()
        // Most are of one set.
        var ledger = 0
        for chunk in draft.chunks {
            hashes.append(chunk.map { ChunkLookup.hash($0.id) } ?? 0)
            guard let chunk else { continue }
            if ledger >= ledgers.count || ledgers[ledger].set != chunk.set {
                ledger = try ledgerIndex(chunk.set)
            }
            ledgers[ledger].usage.chunks += 1
            chunk.visit { ledgers[ledger].usage.count($0, &book) }
        }
        group = draft
    }
    /// The last group has all its pages.
    private mutating func endGroup() throws(DecodeError) {
        guard let draft = group else { return }
        guard let whole = draft.group, slots.append(whole) else {
            throw .invalid(field: "group of chunks", value: UInt64(slots.groups))
        }
        group = nil
    }

    private mutating func add(_ item: CheckpointItem) throws(DecodeError) {
        switch item {
        case .log(let found):
            guard found.number.rawValue < Limits.logNumbers else {
                throw .invalid(field: "log number", value: found.number.rawValue)
            }
            position = found
        case .segment(let segment): segments.append(segment)
        case .scrub(let progress): scrub = progress
        case .set(let set, let committed, let last, let isTailUnknown):
            guard set > ledgers.last?.set ?? SetID(rawValue: 0) || ledgers.isEmpty else {
                throw .invalid(field: "set order", value: set.rawValue)
            }
            guard committed <= last, last.rawValue < Limits.logNumbers else {
                throw .invalid(field: "committed", value: committed.rawValue)
            }
            var ledger = SetLedger(set: set)
            ledger.committed = committed
            ledger.last = last
            ledger.isTailUnknown = isTailUnknown
            ledgers.append(ledger)
        case .group(let draft): try begin(draft)
        case .page(let page, let entries, let place):
            guard let set = try group?.add(page, entries, place) else {
                throw .invalid(field: "page", value: UInt64(place))
            }
            let ledger = try ledgerIndex(set)
            for entry in entries { ledgers[ledger].usage.count(entry, &book) }
        case .trims(let trims, let place):
            guard group != nil else { throw .invalid(field: "trims", value: UInt64(place)) }
            try group?.add(trims, place)
        default: try addToSet(item)
        }
    }

    private mutating func addToSet(_ item: CheckpointItem) throws(DecodeError) {
        guard let set = ledgers.indices.last else { throw .invalid(field: "set item", value: 0) }
        switch item {
        case .epoch(let start): ledgers[set].history.append(start)
        case .window(let window): ledgers[set].windows.append(window)
        case .prepared(let log, let place, let record):
            let after = ledgers[set].prepared.last?.record.number ?? ledgers[set].committed
            guard record.number > after, record.number <= ledgers[set].last,
                record.set == ledgers[set].set
            else { throw .invalid(field: "prepared", value: record.number.rawValue) }
            ledgers[set].recordEpoch = max(ledgers[set].recordEpoch, record.epoch)
            ledgers[set].prepared.append(
                PreparedRecord(record: record, log: log, place: place))
            book.add(place)
        case .dropped(let gone):
            ledgers[set].dropped.append(gone)
            dropped[gone.chunk] = gone.number
        case .hole(let range): ledgers[set].holes.append(range)
        case .recent(let records):
            ledgers[set].recent = records
            for record in records {
                ledgers[set].recordEpoch = max(ledgers[set].recordEpoch, record.epoch)
            }
        case .rotten(let number): ledgers[set].rotten.append(number)
        case .log, .segment, .set, .group, .page, .trims, .scrub: break
        }
    }
}
