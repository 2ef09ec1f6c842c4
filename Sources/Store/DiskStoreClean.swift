// The cleaner at work; see Cleaner for what it must keep.

package import Base

extension DiskStore {
    /// What was logged and moved since the process began.
    package var cleaningReport: CleaningReport { cleaner.report }

    /// Bytes of log that living records take.
    package var living: UInt64 { UInt64(book.total) }

    /// Goes on with cleaning if there is need; called at the end of each turn.
    mutating func clean(_ now: Instant) -> [StoreOutput] {
        cleaner.wake = Instant(nanoseconds: .max)
        guard phase == .ready, cleaner.part == nil, cleaner.moving <= Cleaner.window else {
            return []
        }
        while true {
            cleaner.items = cleaner.items.drop { !isMovable($0) }
            if !cleaner.items.isEmpty { return readCleaned(now) }
            if let victim = cleaner.victim {
                guard cleaner.moving == 0 else { return [] }
                finish(victim)
            }
            cleaner.isStuck = false
            let room = log.room
            guard room < cleaningStart, room + idleBytes() < cleaningStart else {
                cleaner.queue = []
                cleaner.scan = nil
                return []
            }
            if let next = cleaner.queue.popLast() {
                if book.isIdle(next.segment.number) { continue }
                cleaner.victim = next.segment
                cleaner.items = next.items[...]
            } else if let (victims, begun) = cleaner.scan {
                var scan = begun
                let isDone = advance(&scan)
                cleaner.scan = isDone ? nil : (victims, scan)
                guard isDone else {
                    cleaner.wake = now
                    return []
                }
                cleaner.queue = zip(victims, scan.found).map { (segment: $0, items: $1) }
                    .reversed()
            } else {
                let victims = chooseVictims()
                guard !victims.isEmpty else {
                    let begun = checkpoints.position?.generation ?? 0
                    cleaner.isStuck =
                        idleBytes() == 0 && checkpoints.writer == nil
                        && begun >= log.position.generation
                    return []
                }
                cleaner.scan = (victims, scan(victims.map(\.number)))
            }
        }
    }

    private mutating func finish(_ victim: LogSegment) {
        cleaner.victim = nil
        let appended = cleaner.report.appended
        let made = log.room + idleBytes() + 2 * appended
        cleaner.fruitless += 1
        if made >= cleaner.peak + UInt64(Limits.groupAlignment) {
            cleaner.peak = made
            cleaner.fruitless = 0
        }
        if cleaner.fruitless >= Cleaner.attempts {
            cleaner.restsAt = appended
            cleaner.fruitless = 0
            cleaner.peak = 0
        }
        if book.isIdle(victim.number) {
            cleaner.report.segments += 1
        } else {
            cleaner.passed.append(victim.generation)
        }
    }

    /// Bytes of segments that the next checkpoint or the one after it frees.
    mutating func idleBytes() -> UInt64 {
        let end = log.position.generation
        let key = Cleaner.IdleKey(turns: book.turns, end: end, unused: log.unused)
        if let known = cleaner.idle, known.key == key { return known.bytes }
        let idle = log.files.count { file in
            if case .live(let generation) = file.state {
                generation > 0 && generation < end && book.isIdle(file.number)
            } else {
                false
            }
        }
        let bytes = UInt64(idle) * UInt64(log.superblock?.segmentSize ?? 0)
        cleaner.idle = (key, bytes)
        return bytes
    }

    /// The segments with the best of what one gives, how long it will stay so, and what it costs;
    /// in need, those that give the most. They lie before the newest checkpoint, so that the next
    /// one frees them.
    private func chooseVictims() -> [LogSegment] {
        let size = log.superblock?.segmentSize ?? 0
        if cleaner.restsAt == cleaner.report.appended { return [] }
        let isUrgent = log.room < urgentRoom
        let least = isUrgent ? max(size / 64, paddingBytes) : max(size / 8, 2 * paddingBytes)
        let room = Int(log.room)
        let end = min(log.position.generation, checkpoints.position?.generation ?? 0)
        let segments = log.segments
        var best: [(segment: LogSegment, score: Int)] = []
        for (index, segment) in segments.enumerated() {
            guard segment.generation > 0, segment.generation < end,
                !book.isIdle(segment.number), !cleaner.passed.contains(segment.generation)
            else { continue }
            let live = book.liveBytes(segment.number)
            // One that can't be emptied into what is left would only take it.
            guard live + least <= size, live + paddingBytes <= room else { continue }
            // Segments that were opened after it.
            let age = min(segments.count - index, 1 << 16)
            let score = isUrgent ? size - live : (size - live) * age * 1_024 / (size + live)
            let place = best.firstIndex(notBelow: { $0.score >= score })
            best.insert((segment, score), at: place)
            if best.count > Cleaner.victims { best.removeLast() }
        }
        return best.map(\.segment)
    }

    /// Whether the record lives there, and is not known to be damaged.
    private func isMovable(_ item: ScrubItem) -> Bool {
        guard let ledger = ledger(item.set), !ledger.rotten.contains(item.item.number) else {
            return false
        }
        if let entry = ledger.prepared(item.item.number) { return entry.place == item.item.place }
        guard item.item.number <= ledger.committed, let chunk = item.chunk.flatMap({ chunks[$0] })
        else { return false }
        return chunk.entries(item.block).contains {
            $0.number == item.item.number && $0.place == item.item.place
        }
    }

    /// Reads the next records that lie close together, when it is time.
    private mutating func readCleaned(_ now: Instant) -> [StoreOutput] {
        let isUrgent = log.room < urgentRoom
        let isBusy = !reads.jobs.isEmpty || log.isWriting
        if !isUrgent, now < cleaner.due || (isBusy && now - cleaner.due < Cleaner.patience) {
            cleaner.wake = now < cleaner.due ? cleaner.due : cleaner.due + Cleaner.patience
            return []
        }
        let (run, range) = Self.nextRun(of: cleaner.items)
        // What does not fit into the last room stays; another segment may have less of it.
        let moved = run.reduce(2 * Limits.groupAlignment) { $0 + $1.item.place.footprint }
        guard log.room > UInt64(moved) else {
            cleaner.items = []
            return clean(now)
        }
        cleaner.items = cleaner.items.dropFirst(run.count)
        let operation = log.newOperation()
        cleaner.part = Cleaner.Part(operation: operation, offset: range.lowerBound, items: run)
        let pause = Int64(range.count) * 1_000_000_000 / Int64(Cleaner.rate)
        cleaner.due = now + Interval(nanoseconds: pause)
        let segment = run[run.startIndex].item.place.segment
        return [
            .disk(
                .read(
                    operation, .segment(segment), offset: range.lowerBound, length: range.count))
        ]
    }

    /// What a cleaner's read found is appended again.
    mutating func cleaned(_ result: DiskResult) -> [StoreOutput] {
        guard let part = cleaner.part else { return [] }
        cleaner.part = nil
        var outputs: [StoreOutput] = []
        for item in part.items where isMovable(item) {
            let stored = result.part(item.item.place, of: part.offset)
            if let record = verify(item.item, of: item.set, stored) {
                move(record)
            } else {
                outputs.append(damaged(item.set, item.item, item.damagedPlace, \.found))
            }
        }
        return outputs
    }

    private mutating func move(_ record: Record) {
        guard let index = ledgerIndex(record.set) else { return }
        let before = log.queued
        let number = append(record, committed: ledgers[index].committed)
        let bytes = log.queued - before
        var bare = record
        bare.dropPayload()
        awaited.append(
            Awaited(
                log: number, set: record.set, number: record.number, again: bare, moved: bytes))
        cleaner.moving += bytes
        cleaner.report.moved += UInt64(bytes)
    }
}
