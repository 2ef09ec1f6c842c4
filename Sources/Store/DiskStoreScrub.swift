// The scrub of a store: reads every record that the index needs, segment by segment, and checks
// it as a read does (C18). So it finds rot, writes that went elsewhere or were lost (the index
// names a place where the record is not), and the damage of whatever was written over it.
//
// Invariants:
//  1. What it finds goes the way of damage that a read finds: the ledger, then a peer (C17).
//  2. Its progress is in the log and in every checkpoint.

package import Base

extension DiskStore {
    static let scrubKind = LogRecordKind(rawValue: 3)

    /// How far the scrub is.
    package var scrubProgress: ScrubProgress { scrubber.progress }

    /// Bytes that it reads in a second, while it reads.
    package var scrubRate: UInt64 { scrubber.rate(scrubbedBytes) }
    /// What a pass reads, at the most: everything, and once more where copies are compared.
    var scrubbedBytes: UInt64 { usage.stored * 2 }
    /// Records that are damaged now.
    package var damaged: UInt64 {
        ledgers.reduce(0) { sum, ledger in
            ledger.holes.reduce(sum + UInt64(ledger.rotten.count)) { sum, hole in
                sum + hole.upperBound.rawValue - hole.lowerBound.rawValue + 1
            }
        }
    }

    /// Where a damaged record is in its file, if that is known.
    package func damagedPlace(_ set: SetID, _ number: RecordNumber) -> DamagedPlace? {
        damage.first { $0.set == set && $0.number == number }?.place
    }
    /// Where damage is now, as far as it was met since the start: some of the places.
    package var damagedPlaces: [DamagedPlace] {
        presentDamage.map(\.place)
    }
    /// What of `damage` nothing has repaired.
    private var presentDamage: [(set: SetID, number: RecordNumber, place: DamagedPlace)] {
        damage.filter { ledger($0.set)?.rotten.contains($0.number) ?? false }
    }

    /// When `scrub` wants to be called although nothing happened.
    package func scrubTime(_ now: Instant) -> Instant {
        phase == .ready ? scrubber.wakeTime(now) : Instant(nanoseconds: .max)
    }

    /// Takes what operators order.
    package mutating func scrub(_ order: ScrubOrder, now: Instant) {
        if phase == .ready { scrubber.obey(order, now) }
    }

    /// Reads on if it is time; to be called in each turn, before `flush`.
    package mutating func scrub(now: Instant, wall: Timestamp) -> [StoreOutput] {
        guard phase == .ready else { return [] }
        if scrubber.due == nil { scrubber.plan(now, wall) }
        defer { saveScrub(now) }
        guard !scrubber.progress.isComparing,
            scrubber.isDue(now, isBusy: !reads.jobs.isEmpty || log.isWriting)
        else { return [] }
        if !scrubber.progress.isRunning {
            scrubber.begin(wall, through: log.position.generation)
        }
        while true {
            if var scan = scrubber.scan {
                let isDone = advance(&scan)
                scrubber.scan = isDone ? nil : scan
                guard isDone else { return [] }
                scrubber.items = scan.found[0][...]
            }
            scrubber.items = scrubber.items.drop { !isListed($0) }
            if !scrubber.items.isEmpty { return [readScrubbed(now)] }
            guard beginSegment() else {
                scrubber.progress.isComparing = true
                scrubber.isUnsaved = true
                return []
            }
        }
    }

    /// Leaves the segment that is done for the next one with anything in it; false at the end.
    private mutating func beginSegment() -> Bool {
        if let done = scrubber.segment {
            scrubber.progress.cursor = done.generation
            scrubber.isUnsaved = true
        }
        let progress = scrubber.progress
        scrubber.segment = log.segments.first {
            $0.generation > progress.cursor && $0.generation <= progress.through
                && !book.isIdle($0.number)
        }
        guard let segment = scrubber.segment else { return false }
        scrubber.scan = scan([segment.number])
        return true
    }

    /// Whether the index still needs the record there, and it is not known to be damaged.
    private func isListed(_ item: ScrubItem) -> Bool {
        guard let ledger = ledger(item.set), !ledger.rotten.contains(item.item.number) else {
            return false
        }
        if ledger.prepared(item.item.number)?.place == item.item.place { return true }
        guard let chunk = item.chunk.flatMap({ chunks[$0] }) else { return false }
        return chunk.entries(item.block).contains {
            $0.number == item.item.number && $0.place == item.item.place
        }
    }

    /// Reads the next records that lie close together.
    private mutating func readScrubbed(_ now: Instant) -> StoreOutput {
        let (run, range) = Self.nextRun(of: scrubber.items)
        let segment = run[run.startIndex].item.place.segment
        scrubber.items = scrubber.items.dropFirst(run.count)
        let operation = log.newOperation()
        scrubber.part = Scrubber.Part(operation: operation, offset: range.lowerBound, items: run)
        let stored = run.reduce(0) { $0 + Int($1.item.place.payloadLength) }
        scrubber.progress.verified += UInt64(stored)
        scrubber.pace(read: range.count, stored: stored, of: scrubbedBytes, now)
        return .disk(
            .read(operation, .segment(segment), offset: range.lowerBound, length: range.count))
    }

    /// The first items that lie so close together that one read gets them, and what it reads.
    static func nextRun(
        of items: ArraySlice<ScrubItem>
    ) -> (run: ArraySlice<ScrubItem>, range: Range<Int>) {
        let offset = Int(items[items.startIndex].item.place.offset)
        var end = offset
        let run = items.prefix { item in
            let start = Int(item.item.place.offset)
            let itemEnd = start + item.item.place.length
            let isNear =
                start <= end + ReadTable.gap && itemEnd <= offset + Limits.diskWrite
            guard isNear || start == offset else { return false }
            end = max(end, itemEnd)
            return true
        }
        return (run, offset..<end)
    }

    mutating func scrubbed(_ result: DiskResult) -> [StoreOutput] {
        guard let part = scrubber.part else { return [] }
        scrubber.part = nil
        var outputs: [StoreOutput] = []
        for item in part.items where isListed(item) {
            let stored = result.part(item.item.place, of: part.offset)
            if verify(item.item, of: item.set, stored) != nil { continue }
            outputs.append(damaged(item.set, item.item, item.damagedPlace, \.found))
        }
        return outputs
    }

    /// The record is not what the index says; counted once, as found or as met.
    mutating func damaged(
        _ set: SetID, _ item: ReadItem, _ place: DamagedPlace?,
        _ count: WritableKeyPath<ScrubProgress, UInt64>
    ) -> StoreOutput {
        if let place, damagedPlace(set, item.number) == nil {
            damage = presentDamage
            if damage.count < Limits.damagedPlaces { damage.append((set, item.number, place)) }
        }
        if let index = ledgerIndex(set), !ledgers[index].rotten.contains(item.number) {
            ledgers[index].addRotten(item.number)
            scrubber.progress[keyPath: count] += 1
            scrubber.isUnsaved = true
        }
        return .damaged(set, item.epoch, item.number)
    }

    /// Logs the progress, unless that would take room that something else needs.
    private mutating func saveScrub(_ now: Instant) {
        guard scrubber.isUnsaved, scrubber.savedAt.map({ now - $0 >= Scrubber.savePause }) ?? true
        else { return }
        scrubber.savedAt = now
        guard hasSpace(Limits.groupAlignment), !isShort else { return }
        scrubber.isUnsaved = false
        var writer = ByteWriter(capacity: 128)
        scrubber.progress.encode(into: &writer)
        _ = append(Self.scrubKind, writer.bytes, [], nil)
    }
}
