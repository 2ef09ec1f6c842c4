// A store on its disk, and a plain model of what must be in it.

import Base
import Store

/// A store on a disk in memory.
struct StoreRun {
    var store: DiskStore
    var disk: TestDisk
    var now = Instant.zero
    var pending: [DiskEffect] = []
    var durable = LogNumber.none
    var failure: LogFailure?
    var isStopped = false
    var answers: [UInt64: [StoredBlock]] = [:]
    var records: [UInt64: Record?] = [:]
    var damaged: [RecordNumber] = []
    private var lastToken: UInt64 = 0

    static func configuration(
        interval: Int = 40 << 10, cleaning percent: Int = Limits.cleaningPercent
    ) -> StoreConfiguration {
        StoreConfiguration(
            log: LogRun.configuration(), checkpointInterval: interval,
            cleaner: CleanerConfiguration(startPercent: percent),
            index: IndexConfiguration(openGroups: 2, openPages: 1))
    }

    init(_ disk: TestDisk, _ configuration: StoreConfiguration = configuration()) {
        self.disk = disk
        store = DiskStore(configuration)
        take(store.start(disk.inventory))
    }

    mutating func take(_ outputs: [StoreOutput]) {
        for output in outputs {
            switch output {
            case .disk(let effect): pending.append(effect)
            case .durable(let through): durable = through
            case .read(let token, let blocks): answers[token] = blocks
            case .record(let token, let record): records[token] = record
            case .damaged(_, _, let number): damaged.append(number)
            case .stopped: isStopped = true
            case .failed(let why): failure = why
            case .identified, .ready: break
            }
        }
    }

    mutating func step() -> Bool {
        guard !pending.isEmpty else { return false }
        let effect = pending.removeFirst()
        let result = disk.perform(effect)
        now = now + .microseconds(100)
        take(store.completed(effect.operation, result, now: now))
        take(store.flush(now: now))
        return true
    }

    mutating func settle() {
        take(store.flush(now: now))
        while step() {}
    }

    /// Reads blocks and waits for the answer.
    mutating func read(
        _ set: SetID, _ chunk: ChunkID, _ blocks: Range<Int>, through: RecordNumber? = nil
    ) -> [StoredBlock]? {
        lastToken += 1
        take(
            store.read(token: lastToken, set: set, chunk: chunk, blocks: blocks, through: through))
        settle()
        return answers.removeValue(forKey: lastToken)
    }

    /// Whether a primary would give the record a number now.
    func takes(_ record: Record) -> Bool {
        guard case .write = record.body else { return true }
        return store.hasRoom(forData: record.payload.count) && !store.isShort
    }

    mutating func load(_ set: SetID, _ number: RecordNumber) -> Record? {
        lastToken += 1
        take(store.loadRecord(token: lastToken, set: set, number: number))
        settle()
        return records.removeValue(forKey: lastToken) ?? nil
    }
}

/// What a set must hold: all its records, and the content they make.
struct SetModel {
    /// Bytes of a block that the tests use.
    static let blockBytes = 3_000
    let set: SetID
    var epoch = Epoch.none
    /// By number from 1.
    var records: [Record] = []
    /// Numbers that were durable once.
    var acknowledged: UInt64 = 0
    /// The highest number that was told to be committed.
    var committed: UInt64 = 0
    /// The records of each epoch when the next one began, in case its start is lost.
    var past: [(epoch: Epoch, records: [Record])] = []
    private var sequence: UInt64 = 0

    init(set: SetID) { self.set = set }

    /// Enters an epoch that keeps the records up to a number.
    mutating func begin(_ next: Epoch, keeping number: UInt64) {
        past.append((epoch, records))
        epoch = next
        records.removeSubrange(Int(number)...)
        acknowledged = min(acknowledged, number)
    }

    /// Goes back to the epoch that the disk knows.
    mutating func goBack(to known: Epoch) {
        while epoch > known, let before = past.popLast() {
            epoch = before.epoch
            records = before.records
        }
    }

    struct Content: Equatable {
        var truncation: UInt32 = 0
        var blocks: [Int: [UInt8]] = [:]
    }

    /// The chunks after so many records.
    func content(through last: UInt64) -> [ChunkID: Content] {
        var chunks: [ChunkID: Content] = [:]
        var dropped: Set<ChunkID> = []
        for record in records.prefix(Int(last)) {
            switch record.body {
            case .write(let extent):
                if dropped.contains(extent.chunk) { continue }
                var block =
                    chunks[extent.chunk, default: Content()].blocks[Int(extent.block)]
                    ?? Array(repeating: 0, count: Self.blockBytes)
                let start = Int(extent.start)
                block.replaceSubrange(start..<start + Int(extent.length), with: extent.payload)
                chunks[extent.chunk, default: Content()].blocks[Int(extent.block)] = block
            case .trim(let chunk, let truncation, let from):
                let known = chunks[chunk]?.truncation ?? 0
                if dropped.contains(chunk) || truncation <= known { continue }
                chunks[chunk, default: Content()].truncation = truncation
                for block in chunks[chunk]!.blocks.keys {
                    let keep = max(0, Int(from) - block * Limits.block)
                    if keep >= Self.blockBytes { continue }
                    let zeros = Array(repeating: 0 as UInt8, count: Self.blockBytes - keep)
                    chunks[chunk]!.blocks[block]!.replaceSubrange(keep..., with: zeros)
                }
            case .drop(let gone):
                for chunk in gone {
                    chunks[chunk] = nil
                    dropped.insert(chunk)
                }
            case .nothing: break
            }
        }
        return chunks
    }

    /// The same without blocks of zeros, which are as good as none.
    func visible(through last: UInt64) -> [ChunkID: Content] {
        content(through: last).mapValues { content in
            var content = content
            content.blocks = content.blocks.filter { $0.value.contains { $0 != 0 } }
            return content
        }
    }

    /// Whether the last record has an effect that the index must tell of; without one it is gone
    /// with its segment.
    func leavesMore(_ record: Record) -> Bool {
        switch record.body {
        case .write(let extent): content(through: record.number.rawValue)[extent.chunk] != nil
        case .trim(let chunk, let truncation, _):
            content(through: record.number.rawValue)[chunk]?.truncation == truncation
                && content(through: record.number.rawValue - 1)[chunk]?.truncation != truncation
        case .drop: true
        case .nothing: false
        }
    }

    /// The next record, of random kind.
    mutating func next(_ random: inout SeededRandom, chunks: Int = 4) -> Record {
        let number = RecordNumber(rawValue: UInt64(records.count) + 1)
        let chunk = ChunkID(
            inode: InodeID(rawValue: set.rawValue << 8 | UInt64(random.below(chunks))), index: 0,
            version: UInt32(records.count / 60))
        var body = RecordBody.nothing
        switch random.below(12) {
        case 0:
            body = .trim(
                chunk, truncation: UInt32(1 + random.below(20)),
                from: UInt32(random.below(3) * Limits.block + random.below(Self.blockBytes)))
        case 1: body = .drop([chunk])
        case 2: break
        default: body = .write(Self.extent(chunk, &random))
        }
        sequence += 2
        let record = Record(
            set: set, epoch: epoch, number: number, session: SessionID(rawValue: 5),
            sequence: RequestNumber(rawValue: sequence),
            firstUnacked: RequestNumber(rawValue: max(60, sequence) - 60),
            truncation: 0, body: body)
        records.append(record)
        return record
    }

    static func extent(_ chunk: ChunkID, _ random: inout SeededRandom) -> Extent {
        let start = random.below(blockBytes - 1)
        let length = 1 + random.below(blockBytes - start)
        let payload = (0..<length).map { _ in UInt8.random(in: 1...255, using: &random) }
        return Extent(
            chunk: chunk, block: UInt16(random.below(3)), start: UInt32(start),
            length: UInt32(length), codec: .raw, stored: Checksum(of: payload), pages: [0],
            fileEnd: 0, modified: .zero, payload: payload[...])
    }

    func start(_ epoch: Epoch, keeping number: UInt64) -> EpochStart {
        EpochStart(
            configuration: SetConfiguration(
                set: set, epoch: epoch, primary: LogRun.disk, members: [LogRun.disk]),
            keepThrough: RecordNumber(rawValue: number))
    }
}

/// The bytes that pieces make; nil if they are damaged.
func bytes(of block: StoredBlock) -> [UInt8]? {
    guard case .pieces(let pieces) = block else { return nil }
    var bytes = [UInt8](repeating: 0, count: SetModel.blockBytes)
    for piece in pieces {
        let start = Int(piece.extent.start)
        let visible = piece.extent.payload.prefix(Int(piece.visible))
        bytes.replaceSubrange(start..<start + visible.count, with: visible)
    }
    return bytes
}

/// What differs between the store's set and the model after `through` records; nil if nothing.
/// Damaged blocks are counted, not compared.
func difference(
    _ run: inout StoreRun, _ model: SetModel, through: UInt64, prepared: Bool, damaged: inout Int
) -> String? {
    let content = model.content(through: through)
    var names: Set<ChunkID> = Set(content.keys)
    for record in model.records {
        if case .write(let extent) = record.body { names.insert(extent.chunk) }
    }
    let zeros = [UInt8](repeating: 0, count: SetModel.blockBytes)
    for chunk in names.sorted() {
        let blocks = run.read(
            model.set, chunk, 0..<3,
            through: prepared ? RecordNumber(rawValue: through) : nil)
        guard let blocks, blocks.count == 3 else { return "no answer for \(chunk)" }
        for (index, block) in blocks.enumerated() {
            guard let found = bytes(of: block) else {
                damaged += 1
                continue
            }
            if found != content[chunk]?.blocks[index] ?? zeros {
                return "\(chunk) block \(index) through \(through)"
            }
        }
    }
    if !prepared, damaged == 0, Int(run.store.usage(model.set).chunks) != content.count {
        return "\(run.store.usage(model.set).chunks) chunks, not \(content.count)"
    }
    return nil
}
