// The start of the log: identity, then sync, then read, then replay (DESIGN 3.1).
// Invariants:
//  1. Every segment is synced before it is read: nothing is believed that a power cut could
//     still take away.
//  2. A segment whose header is lost is searched before it counts as free.
//  3. Of the segments only those count that the newest one's chain of predecessors names, or that
//     the checkpoint lists: the rest of a torn roll is recycled.

package import Base

/// What a start knows so far.
struct LogRecovery: Sendable {
    /// A segment's file as it was found.
    struct Candidate: Hashable, Sendable {
        var file: UInt32
        var generation: UInt64
        /// Where it is in the chain, unless all headers that say so are lost.
        var link: SegmentLink?
    }
    var start: LogStart?
    var waiting = 0
    var candidates: [Candidate] = []
    /// Files without a header that must be searched from end to end.
    var suspects: [UInt32] = []
    var best: Candidate?
    /// Files that gave read errors and no header.
    var unreadable: [UInt32] = []
    var hadReadError = false
    /// To be scanned, ascending by generation.
    var chain: [Candidate] = []
    var index = 0
    var scanner: SegmentScanner?
    var sequencer: Sequencer
    /// Next offset to be read, and to be given to the scanner; and where the segment ends.
    var readOffset = 0
    var feedOffset = 0
    var scanEnd = 0
    /// What was read of the segment's footer.
    var footer: [UInt8] = []
    var arrived: [Int: [UInt8]] = [:]
    /// Reads that failed and are tried again page by page, by number.
    var salvages: [Int: Salvage] = [:]
    var lastSalvage = 0

    /// See `salvages`; what stays unreadable is left as zeros.
    struct Salvage: Sendable {
        var purpose: SegmentLog.Purpose
        var bytes: [UInt8]
        /// Pages without an answer.
        var missing: Int
    }
}

extension SegmentLog {
    /// Reads in flight while a segment is scanned.
    static var scanDepth: Int { 4 }
    /// Bytes at the front of a segment that tell what it is.
    static var startBytes: Int { 32 << 10 }

    /// Starts the log of a disk with these files: reads its superblock or makes one.
    package mutating func start(_ inventory: DiskInventory) -> [LogOutput] {
        precondition(phase == .new, "a log starts once")
        capacity = inventory.capacity
        for file in inventory.files {
            if case .segment(let number) = file.file {
                files.append(File(number: number, state: .unknown, size: file.size))
            }
        }
        let size = Superblock.copies * Superblock.copySize
        if inventory.files.contains(where: { $0.file == .superblock }) {
            phase = .readingSuperblock
            return [.disk(.read(issue(.readSuperblock), .superblock, offset: 0, length: size))]
        }
        guard files.isEmpty else { return fail(.superblockLost) }
        phase = .writingSuperblock
        return [.disk(.create(issue(.createSuperblock), .superblock, size: size))]
    }

    mutating func superblockStep(_ purpose: Purpose, _ result: DiskResult) -> [LogOutput] {
        if case .failed(let why) = result { return fail(.disk(.superblock, why)) }
        switch (purpose, result) {
        case (.readSuperblock, .bytes(let bytes)):
            do throws(LogFailure) {
                superblock = try Superblock.newest(in: Array(bytes))
                try superblock?.check(configuration)
            } catch { return fail(error) }
            // A first start that was cut short leaves a file without content and no segments.
            guard superblock != nil || files.isEmpty else { return fail(.superblockLost) }
            return [writeSuperblock()]
        case (.createSuperblock, _): return [writeSuperblock()]
        case (.writeSuperblock(copy: 0), _): return [writeCopies(from: Superblock.copies / 2)]
        case (.writeSuperblock, _) where phase == .ready: return [.renamed]
        case (.writeSuperblock, _):
            guard let superblock else { preconditionFailure("no superblock") }
            phase = .identified
            let replay = configuration.hasCheckpoints ? [] : replay(from: nil)
            return [.identified(superblock)] + replay
        default: preconditionFailure("a read without bytes")
        }
    }

    private mutating func writeSuperblock() -> LogOutput {
        phase = .writingSuperblock
        var block =
            superblock
            ?? Superblock(
                cell: configuration.cell, owner: configuration.owner, disk: configuration.disk,
                incarnation: Incarnation(rawValue: 0), sequence: 0,
                segmentSize: configuration.segmentSize)
        // The name of a new disk is drawn at each start.
        block.incarnation = block.incarnation.next(salt: configuration.disk.rawValue)
        block.sequence += 1
        superblock = block
        return writeCopies(from: 0)
    }

    /// Gives the log another name for votes (M18): `.renamed` follows when it is durable.
    package mutating func rename(_ vote: DiskID) -> LogOutput {
        precondition(phase == .ready && superblock != nil, "a name for a log that is not known")
        superblock?.vote = vote
        superblock?.sequence += 1
        return writeCopies(from: 0)
    }

    private mutating func writeCopies(from copy: Int) -> LogOutput {
        guard let page = superblock?.encode() else { preconditionFailure("no superblock") }
        return .disk(
            .write(
                issue(.writeSuperblock(copy: copy)), .superblock,
                offset: copy * Superblock.copySize,
                pieces: Array(repeating: page[...], count: Superblock.copies / 2), durable: true))
    }

    /// Begins to replay, after `.identified`, if the configuration has checkpoints. nil: all.
    package mutating func replay(from start: LogStart?) -> [LogOutput] {
        precondition(phase == .identified, "replay out of order")
        let position = start?.position ?? .start
        end = position
        recovery = LogRecovery(start: start, sequencer: Sequencer(after: position.number))
        recovery?.waiting = files.count
        phase = .syncing
        if files.isEmpty { return planReplay(now: .zero) }
        return files.map { .disk(.sync(issue(.syncSegment), .segment($0.number))) }
    }

    mutating func recoveryStep(
        _ purpose: Purpose, _ result: DiskResult, now: Instant
    ) -> [LogOutput] {
        var bytes = Array(result.content)
        if case .failed = result, let reads = salvage(purpose) { return reads }
        switch purpose {
        case .syncSegment:
            if case .failed(let why) = result { return fail(.disk(.segment(0), why)) }
            return synced()
        case .readStart(let file): return identify(file, bytes, now: now)
        case .searchSegment(let file, let offset):
            return search(file, offset: offset, bytes, now: now)
        case .salvage(let number, let page):
            return salvaged(number, page: page, bytes, now: now)
        case .readFooter: return footerRead(bytes, now: now)
        case .scan(let offset):
            // A failed or short read is damage like any other (S4).
            let length = min(Limits.diskWrite, (recovery?.scanEnd ?? offset) - offset)
            bytes.append(contentsOf: repeatElement(0, count: max(0, length - bytes.count)))
            recovery?.arrived[offset] = bytes
            return scan(now: now)
        default: preconditionFailure("not a step of the start")
        }
    }

    /// One bad sector fails a whole read: it costs its page only if every page is read by itself.
    private mutating func salvage(_ purpose: Purpose) -> [LogOutput]? {
        guard var recovery else { return nil }
        let file: UInt32
        let first: Int
        let length: Int
        switch purpose {
        case .searchSegment(let segment, let offset):
            (file, first, length) = (segment, offset, Limits.diskWrite)
            recovery.hadReadError = true
        case .scan(let offset):
            file = recovery.chain[recovery.index].file
            (first, length) = (offset, min(Limits.diskWrite, recovery.scanEnd - offset))
        default: return nil
        }
        recovery.lastSalvage += 1
        let number = recovery.lastSalvage
        let page = Limits.groupAlignment
        let pages = Array(stride(from: 0, to: length, by: page))
        recovery.salvages[number] = LogRecovery.Salvage(
            purpose: purpose, bytes: [UInt8](repeating: 0, count: length), missing: pages.count)
        self.recovery = recovery
        return pages.map { start in
            .disk(
                .read(
                    issue(.salvage(number: number, page: start)), .segment(file),
                    offset: first + start, length: min(page, length - start)))
        }
    }

    private mutating func salvaged(
        _ number: Int, page: Int, _ bytes: [UInt8], now: Instant
    ) -> [LogOutput] {
        guard var salvage = recovery?.salvages.removeValue(forKey: number) else { return [] }
        salvage.bytes.replaceSubrange(page..<page + bytes.count, with: bytes)
        salvage.missing -= 1
        if salvage.missing == 0 {
            return recoveryStep(salvage.purpose, .bytes(salvage.bytes[...]), now: now)
        }
        recovery?.salvages[number] = salvage
        return []
    }

    private mutating func synced() -> [LogOutput] {
        recovery?.waiting -= 1
        guard recovery?.waiting == 0 else { return [] }
        phase = .identifying
        recovery?.waiting = files.count
        return files.map {
            .disk(
                .read(
                    issue(.readStart(file: $0.number)), .segment($0.number), offset: 0,
                    length: Self.startBytes))
        }
    }

    // Which segment is in which file

    private func identity(_ generation: UInt64) -> SegmentIdentity {
        guard let superblock else { preconditionFailure("no superblock") }
        return SegmentIdentity(
            cell: superblock.cell, disk: superblock.disk, generation: generation)
    }

    private mutating func identify(
        _ file: UInt32, _ bytes: [UInt8], now: Instant
    ) -> [LogOutput] {
        let page = SegmentHeader.pageSize
        do throws(DecodeError) {
            let header = try SegmentHeader(decoding: bytes.prefix(page))
            let generation = header.identity.generation
            if header.identity == identity(generation), header.number == file {
                recovery?.candidates.append(
                    .init(file: file, generation: generation, link: header.link))
            } else {
                recovery?.suspects.append(file)
            }
        } catch .version(let format, let found) {
            return fail(.version(format, found: found))
        } catch {
            // Zeros were never written; anything else may be a segment with a rotten header.
            if !bytes.allSatisfy({ $0 == 0 }) || bytes.isEmpty {
                recovery?.suspects.append(file)
            }
        }
        recovery?.waiting -= 1
        return recovery?.waiting == 0 ? searchNext(now: now) : []
    }

    private mutating func searchNext(now: Instant) -> [LogOutput] {
        if let best = recovery?.best { recovery?.candidates.append(best) }
        recovery?.best = nil
        guard let file = recovery?.suspects.popLast() else { return planReplay(now: now) }
        return [searchRead(file, offset: 0)]
    }

    private mutating func searchRead(_ file: UInt32, offset: Int) -> LogOutput {
        let operation = issue(.searchSegment(file: file, offset: offset))
        return .disk(
            .read(operation, .segment(file), offset: offset, length: Limits.diskWrite))
    }

    /// Looks for the newest valid header anywhere in a segment.
    private mutating func search(
        _ file: UInt32, offset: Int, _ bytes: [UInt8], now: Instant
    ) -> [LogOutput] {
        for start in stride(from: 0, to: bytes.count, by: Limits.recordAlignment) {
            guard let frame = RecordFrame(decoding: bytes[start...]),
                frame.identity == identity(frame.identity.generation),
                Int(frame.offset) == offset + start, frame.isIntact(bytes[start...])
            else { continue }
            let generation = frame.identity.generation
            let best = recovery?.best
            if generation < best?.generation ?? 0 { continue }
            var link = generation == best?.generation ? best?.link : nil
            if frame.kind == .group {
                let body = start + RecordFrame.size
                let header = try? GroupHeader(
                    decoding: bytes[body..<body + Int(frame.headerLength)])
                link = header?.link ?? link
            }
            recovery?.best = .init(file: file, generation: generation, link: link)
        }
        let next = offset + Limits.diskWrite
        guard next < superblock?.segmentSize ?? 0 else {
            let isUnreadable = recovery?.best == nil && recovery?.hadReadError == true
            if isUnreadable { recovery?.unreadable.append(file) }
            recovery?.hadReadError = false
            return searchNext(now: now)
        }
        return [searchRead(file, offset: next)]
    }

    // Replay

    private mutating func planReplay(now: Instant) -> [LogOutput] {
        guard var recovery else { return [] }
        let all = recovery.candidates.sorted { $0.generation < $1.generation }
        let position = recovery.start?.position ?? .start
        for candidate in all {
            let isSkipped = all.contains {
                $0.generation > candidate.generation
                    && $0.link?.previous.generation ?? .max < candidate.generation
            }
            if candidate.generation < position.generation {
                let segment = LogSegment(
                    number: candidate.file, generation: candidate.generation)
                if recovery.start?.segments.contains(segment) ?? false { keep(candidate) }
            } else if !isSkipped {
                recovery.chain.append(candidate)
                keep(candidate)
            }
        }
        for index in files.indices where files[index].state == .unknown {
            let number = files[index].number
            let listed = recovery.start?.segments.first { $0.number == number }
            // What cannot be read is never overwritten.
            let isKept = listed != nil || recovery.unreadable.contains(number)
            files[index].state = isKept ? .live(generation: listed?.generation ?? 0) : .free
        }
        // A crash came while it was made: a write to it could still find no space.
        var outputs: [LogOutput] = []
        for index in files.indices
        where files[index].state == .free && files[index].size < superblock?.segmentSize ?? 0 {
            outputs.append(removeSegment(index))
        }
        unused = files.count { $0.state == .free }
        if !recovery.unreadable.isEmpty {
            let lost = position.number.next
            outputs.append(.damaged(LogDamage(numbers: lost...lost, records: [])))
        }
        if position.generation > 0, recovery.chain.first?.generation != position.generation {
            // The segment that the checkpoint goes on in is lost, and what followed with it.
            let lost = position.number.next
            outputs.append(.damaged(LogDamage(numbers: lost...lost, records: [])))
        }
        phase = .scanning
        self.recovery = recovery
        return outputs + beginScan(now: now)
    }

    private mutating func keep(_ candidate: LogRecovery.Candidate) {
        if let index = place(of: candidate.file) {
            files[index].state = .live(generation: candidate.generation)
        }
    }

    /// Begins with the segment at `index` of the chain, or ends the replay.
    mutating func beginScan(now: Instant) -> [LogOutput] {
        guard var recovery, let size = superblock?.segmentSize else { return [] }
        guard recovery.index < recovery.chain.count else {
            self.recovery = recovery
            return endReplay(now: now)
        }
        let candidate = recovery.chain[recovery.index]
        let next = recovery.chain.dropFirst(recovery.index + 1).first?.link
        let isNamed = next?.previous.generation == candidate.generation
        let position = recovery.start?.position ?? .start
        let isFirst = candidate.generation == position.generation
        let offset = isFirst ? Int(position.offset) : SegmentHeader.pageSize
        recovery.scanner = SegmentScanner(
            segment: candidate.file, identity: identity(candidate.generation), segmentSize: size,
            from: offset, copiesPayloads: configuration.replaysPayloads)
        recovery.sequencer.begin(
            segment: candidate.file, link: isFirst ? nil : candidate.link,
            limit: isNamed ? next?.previous.number : nil)
        recovery.readOffset = offset
        recovery.feedOffset = offset
        recovery.scanEnd = isNamed ? min(size, Int(next?.previous.offset ?? 0)) : size
        recovery.arrived = [:]
        recovery.footer = []
        self.recovery = recovery
        let hasFooter = isNamed && configuration.hasFooters && recovery.scanEnd < size
        return hasFooter ? [readFooter()] : scan(now: now)
    }

    /// Takes the bytes that arrived, in order, and asks for more.
    mutating func scan(now: Instant) -> [LogOutput] {
        guard var recovery, var scanner = recovery.scanner else { return [] }
        self.recovery = nil
        recovery.scanner = nil
        while let bytes = recovery.arrived.removeValue(forKey: recovery.feedOffset) {
            scanner.feed(bytes)
            recovery.feedOffset += bytes.count
            while let found = scanner.next() {
                switch found {
                case .group(let first, let header, let copies):
                    recovery.sequencer.group(first, header, copies: copies)
                case .record(let record, let isIntact):
                    recovery.sequencer.record(record, isIntact: isIntact)
                }
            }
        }
        var outputs = Self.take(&recovery.sequencer)
        let isDone = recovery.feedOffset >= recovery.scanEnd
        let file = recovery.chain[recovery.index].file
        recovery.scanner = scanner
        if isDone { recovery.index += 1 }
        self.recovery = recovery
        if isDone { return outputs + beginScan(now: now) }
        let window = Self.scanDepth * Limits.diskWrite
        while recovery.readOffset < min(recovery.scanEnd, recovery.feedOffset + window) {
            let length = min(Limits.diskWrite, recovery.scanEnd - recovery.readOffset)
            let operation = issue(.scan(offset: recovery.readOffset))
            outputs.append(
                .disk(
                    .read(
                        operation, .segment(file), offset: recovery.readOffset, length: length)))
            recovery.readOffset += length
        }
        self.recovery = recovery
        return outputs
    }

    static func take(_ sequencer: inout Sequencer) -> [LogOutput] {
        let outputs = sequencer.verdicts.map { verdict -> LogOutput in
            switch verdict {
            case .good(let record): .replayed(record)
            case .rot(let damage): .damaged(damage)
            }
        }
        sequencer.verdicts.removeAll()
        return outputs
    }

    private mutating func endReplay(now: Instant) -> [LogOutput] {
        guard var recovery else { return [] }
        recovery.sequencer.finish()
        let outputs = Self.take(&recovery.sequencer)
        let sequencer = recovery.sequencer
        durable = LogNumber(rawValue: sequencer.expected.rawValue - 1)
        nextNumber = sequencer.expected
        if let last = recovery.chain.last, let scanner = recovery.scanner {
            end = LogPosition(
                generation: last.generation, offset: UInt32(scanner.end), number: durable)
            if let link = last.link, !sequencer.isTorn {
                open = OpenSegment(
                    file: last.file, identity: identity(last.generation), link: link,
                    offset: scanner.end, isFresh: false)
            } else {
                // No number of a group that may have been torn away comes again; the most that
                // one group and the queue behind it can have used is far below this.
                nextNumber = LogNumber(rawValue: sequencer.highest.rawValue + (1 << 20))
            }
            isUnmarked = true
        }
        lastGroup = now
        phase = .ready
        self.recovery = nil
        return outputs + [.ready]
    }
}
