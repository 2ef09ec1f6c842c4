// How records and epochs change the store, alike when they happen and when they are replayed.

import Base

extension DiskStore {
    func ledgerPlace(_ set: SetID) -> Int { ledgers.place(of: set) }

    func ledgerIndex(_ set: SetID) -> Int? {
        let index = ledgerPlace(set)
        return index < ledgers.count && ledgers[index].set == set ? index : nil
    }

    func ledger(_ set: SetID) -> SetLedger? { ledgerIndex(set).map { ledgers[$0] } }

    mutating func makeLedger(_ set: SetID) -> Int {
        let index = ledgerPlace(set)
        if index == ledgers.count || ledgers[index].set != set {
            ledgers.insert(SetLedger(set: set), at: index)
        }
        return index
    }

    /// Enters an epoch: what it kills is forgotten.
    mutating func begin(_ start: EpochStart, _ index: Int) {
        if start.startsOver {
            empty(index)
        } else if start.configuration.epoch <= ledgers[index].recordEpoch {
            ledgers[index].history.append(start)
            return
        }
        let keep = start.startsOver ? .none : start.keepThrough
        let first =
            ledgers[index].prepared.firstIndex { $0.record.number > keep }
            ?? ledgers[index].prepared.count
        for entry in ledgers[index].prepared[first...] {
            if let place = entry.place { book.remove(place) }
        }
        ledgers[index].prepared.removeSubrange(first...)
        ledgers[index].last = min(ledgers[index].last, keep)
        ledgers[index].wanted = min(ledgers[index].wanted, keep)
        ledgers[index].forgetDuplicates(above: keep)
        ledgers[index].forgetDamage(above: keep)
        ledgers[index].isTailUnknown = false
        ledgers[index].history.append(start)
    }

    /// The set starts from nothing (C9).
    private mutating func empty(_ index: Int) {
        let set = ledgers[index].set
        for chunk in chunks.slots.ids(of: set) {
            chunks.remove(chunk, &ledgers[index].usage, &book)
        }
        for gone in ledgers[index].dropped { dropped[gone.chunk] = nil }
        ledgers[index].dropped = []
        ledgers[index].recent = []
        ledgers[index].history = []
        ledgers[index].committed = .none
        finders.removeAll { $0.set == set }
    }

    /// Moves what is committed and durable into the index.
    mutating func advance(_ index: Int) {
        let wanted = ledgers[index].wanted
        var count = 0
        for entry in ledgers[index].prepared {
            guard entry.record.number <= wanted, let place = entry.place else { break }
            apply(entry.record, place, index)
            book.remove(place)
            ledgers[index].recent.append(
                RecentRecord(
                    number: entry.record.number, epoch: entry.record.epoch, place: place))
            ledgers[index].committed = entry.record.number
            count += 1
        }
        ledgers[index].prepared.removeFirst(count)
        // A hole at the end is committed too; there is nothing to move.
        if ledgers[index].prepared.isEmpty {
            let through = min(wanted, ledgers[index].last)
            ledgers[index].committed = max(ledgers[index].committed, through)
        }
        let surplus = ledgers[index].recent.count - Limits.preparedRecords
        if surplus > Limits.preparedRecords { ledgers[index].recent.removeFirst(surplus) }
        for gone in ledgers[index].expireDrops() where dropped[gone.chunk] == gone.number {
            dropped[gone.chunk] = nil
        }
    }

    /// Applies a committed record to the index.
    private mutating func apply(_ record: Record, _ place: LogPlace, _ index: Int) {
        let set = record.set
        switch record.body {
        case .write(let extent):
            if dropped[extent.chunk] != nil { return }
            let entry = ExtentEntry(
                extent, number: record.number, epoch: record.epoch, place: place)
            chunks.change(extent.chunk, of: set, &ledgers[index].usage, &book) {
                chunk, usage, book in
                chunk.insert(entry, &usage, &book)
            }
            notePile(set, extent)
        case .trim(let chunk, let truncation, let from):
            if truncation <= chunks[chunk]?.truncation ?? 0 { return }
            let trim = ChunkTrim(number: record.number, truncation: truncation, from: from)
            apply(trim, to: chunk, index)
        case .drop(let gone): for chunk in gone { drop(chunk, record.number, index) }
        case .nothing: break
        }
    }

    private mutating func apply(_ trim: ChunkTrim, to chunk: ChunkID, _ index: Int) {
        if dropped[chunk] != nil { return }
        chunks.change(chunk, of: ledgers[index].set, &ledgers[index].usage, &book) {
            state, usage, book in
            state.apply(trim, &usage, &book)
        }
    }

    private mutating func drop(_ chunk: ChunkID, _ number: RecordNumber, _ index: Int) {
        chunks.remove(chunk, &ledgers[index].usage, &book)
        dropped[chunk] = number
        ledgers[index].add(DroppedChunk(chunk: chunk, number: number))
    }

    /// A record that was damaged or missing is on the disk again.
    mutating func applyRepair(
        _ record: Record, _ log: LogNumber, _ place: LogPlace, _ index: Int
    ) {
        guard !ledgers[index].isDead(record.epoch, record.number),
            record.number <= ledgers[index].last
        else { return }
        let wasHole = ledgers[index].isHole(record.number)
        if phase == .ready, wasHole || ledgers[index].rotten.contains(record.number) {
            scrubber.progress.repaired += 1
            scrubber.isUnsaved = true
        }
        defer { ledgers[index].heal(record.number) }
        var bare = record
        bare.dropPayload()
        let recent = ledgers[index].recent.firstIndex(notBelow: { $0.number < record.number })
        if recent < ledgers[index].recent.count,
            ledgers[index].recent[recent].number == record.number
        {
            ledgers[index].recent[recent].place = place
        }
        if record.number <= ledgers[index].committed {
            if wasHole {
                finders.removeAll { $0.set == record.set }
                applyLate(bare, place, index)
            } else {
                move(bare, place, index)
            }
            return
        }
        let position = ledgers[index].place(record.number)
        let entry = PreparedRecord(record: bare, log: log, place: place)
        book.add(place)
        let isThere =
            position < ledgers[index].prepared.count
            && ledgers[index].prepared[position].record.number == record.number
        if isThere {
            if let old = ledgers[index].prepared[position].place { book.remove(old) }
            ledgers[index].prepared[position] = entry
        } else {
            ledgers[index].prepared.insert(entry, at: position)
            ledgers[index].note(bare)
        }
        advance(index)
    }

    /// A record whose effect is in the index already has a new place.
    private mutating func move(_ record: Record, _ place: LogPlace, _ index: Int) {
        guard case .write(let extent) = record.body else {
            if case .nothing = record.body { forgetExtent(record.number, index) }
            return
        }
        let entries = chunks[extent.chunk]?.entries(Int(extent.block)) ?? []
        guard entries.contains(where: { $0.number == record.number }) else { return }
        applyLate(record, place, index)
    }

    /// Applies a committed record under those that came after it.
    private mutating func applyLate(_ record: Record, _ place: LogPlace, _ index: Int) {
        let number = record.number
        switch record.body {
        case .write(let extent):
            if dropped[extent.chunk] != nil { return }
            var entry = ExtentEntry(
                extent, number: number, epoch: record.epoch, place: place)
            for trim in chunks[extent.chunk]?.trims ?? [] where trim.number > number {
                guard entry.clip(to: Int(trim.from)) else { return }
            }
            chunks.change(extent.chunk, of: record.set, &ledgers[index].usage, &book) {
                chunk, usage, book in
                chunk.insert(entry, &usage, &book)
            }
        case .trim(let chunk, let truncation, let from):
            let before = (chunks[chunk]?.trims ?? []).prefix { $0.number < number }
            if before.contains(where: { $0.truncation >= truncation }) { return }
            let trim = ChunkTrim(number: number, truncation: truncation, from: from)
            apply(trim, to: chunk, index)
        case .drop(let gone):
            for chunk in gone where dropped[chunk] == nil { drop(chunk, number, index) }
        case .nothing: break
        }
    }

    /// Takes the extent of a record out of the index: later records replaced it elsewhere.
    private mutating func forgetExtent(_ number: RecordNumber, _ index: Int) {
        guard let (chunk, entry) = findExtent(number, ledgers[index].set) else { return }
        chunks.change(chunk, of: ledgers[index].set, &ledgers[index].usage, &book) {
            state, usage, book in
            state.remove(number, of: entry.block, &usage, &book)
        }
    }

    // Replay

    /// A record of the log, in the order in which it was appended. One that is not intact has a
    /// header and no payload.
    mutating func replay(_ record: LogRecord, isIntact: Bool) {
        checkpoints.bytes += record.place.length
        var reader = ByteReader(record.header)
        do throws(DecodeError) {
            switch record.kind {
            case Self.epochKind:
                let start = try EpochStart(from: &reader)
                let index = makeLedger(start.configuration.set)
                if start.configuration.epoch > ledgers[index].epoch { begin(start, index) }
            case Self.recordKind:
                let committed = try reader.read(RecordNumber.self)
                var length = 0
                let found = try Record(headerFrom: &reader, storedLength: &length)
                guard found.number.rawValue < Limits.logNumbers else {
                    throw .invalid(field: "record number", value: found.number.rawValue)
                }
                replay(found, record, committed: committed, isIntact: isIntact)
            case Self.scrubKind: scrubber.progress = try ScrubProgress(from: &reader)
            default: break
            }
        } catch { hasUnknownDamage = true }
    }

    private mutating func replay(
        _ record: Record, _ entry: LogRecord, committed: RecordNumber, isIntact: Bool
    ) {
        let index = makeLedger(record.set)
        if ledgers[index].isDead(record.epoch, record.number) { return }
        ledgers[index].recordEpoch = max(ledgers[index].recordEpoch, record.epoch)
        if record.number <= ledgers[index].last {
            // It was written again, after damage or by a primary that resent it.
            if isIntact { applyRepair(record, entry.number, entry.place, index) }
        } else {
            let next = ledgers[index].last.next
            if record.number > next {
                let before = RecordNumber(rawValue: record.number.rawValue - 1)
                ledgers[index].addHole(next...before)
            }
            ledgers[index].prepared.append(
                PreparedRecord(record: record, log: entry.number, place: entry.place))
            book.add(entry.place)
            ledgers[index].last = record.number
            ledgers[index].note(record)
            if case .write = record.body, !isIntact { ledgers[index].addRotten(record.number) }
        }
        ledgers[index].wanted = max(
            ledgers[index].wanted, min(committed, ledgers[index].last))
        advance(index)
    }

    mutating func replay(_ damage: LogDamage) {
        for record in damage.records { replay(record, isIntact: false) }
        let lost = damage.numbers.upperBound.rawValue - damage.numbers.lowerBound.rawValue
        if lost + 1 > UInt64(damage.records.count) { hasUnknownDamage = true }
        if !checkpoints.isLoaded, damage.numbers.lowerBound.rawValue == 1 { wasRebuilt = true }
    }

    mutating func endReplay() {
        phase = .ready
        beginLook()
        if hasUnknownDamage {
            for index in ledgers.indices { ledgers[index].isTailUnknown = true }
        }
    }
}
