// The log of one disk (DESIGN 3.1): records are appended in memory, and written in groups with
// one durable write each; what is appended while a group is on its way goes into the next one.
//
//   new -> readingSuperblock -> writingSuperblock -> identified -> syncing -> identifying
//       -> scanning -> ready                       (any of them) -> failed
//
// Invariants:
//  1. The incarnation is raised durably before anything else is told (S8, C10).
//  2. One group is in flight at a time, so all before a group is durable when it is written.
//  3. Numbers and generations are never reused: a generation holds the incarnation, and after a
//     torn tail the log goes on in a fresh segment, with higher numbers.
//  4. A failed write, sync or create stops the log for ever (S4).

package import Base

/// The log of a disk, as a state machine over disk effects.
package struct SegmentLog: Sendable {
    enum Phase: Hashable, Sendable {
        case new, readingSuperblock, writingSuperblock, identified, syncing, identifying,
            scanning, ready, failed
    }
    /// What an operation in flight is for.
    enum Purpose: Hashable, Sendable {
        case readSuperblock
        case createSuperblock
        /// The copies from this one on.
        case writeSuperblock(copy: Int)
        case syncSegment
        case readStart(file: UInt32)
        case searchSegment(file: UInt32, offset: Int)
        case scan(offset: Int)
        /// One page of a read that failed.
        case salvage(number: Int, page: Int)
        case createSegment(file: UInt32)
        case removeSegment(file: UInt32)
        case group
        case footer(file: UInt32)
        case prewrite(file: UInt32)
        case readFooter
    }
    /// What a segment's file is used for.
    enum FileState: Hashable, Sendable {
        case unknown, free, creating, removing
        case live(generation: UInt64)
    }
    struct File: Hashable, Sendable {
        var number: UInt32
        var state: FileState
        /// Bytes that were set aside for it; fewer than a segment has if a crash came before that.
        var size: Int
        /// It was made in this run and never used: nothing of it was written.
        var isNew = false
    }
    /// The segment that groups go to.
    struct OpenSegment: Hashable, Sendable {
        var file: UInt32
        var identity: SegmentIdentity
        var link: SegmentLink
        /// Where the next group starts.
        var offset: Int
        /// Its header was not written yet.
        var isFresh: Bool
        /// Bytes from its start that zeros or an earlier use went to.
        var written = Int.max
    }
    struct Queued: Sendable {
        var number: LogNumber
        var kind: LogRecordKind
        var header: [UInt8]
        var payload: ArraySlice<UInt8>
        var checksum: Checksum

        /// The most bytes that it takes.
        var stride: Int {
            align(length, Limits.recordAlignment) + (isDirect ? Limits.sectorGap : 0)
        }
        var length: Int { bodyStart + payload.count }
        private var bodyStart: Int { RecordFrame.size + header.count }
        /// Its payload is to start at a sector, so that the disk can take it from where it is.
        private var isDirect: Bool {
            payload.count >= Limits.largePayload && bodyStart % Limits.recordAlignment == 0
        }
        /// Where it starts in a group, when something before it ends at `end`.
        func start(after end: Int) -> Int {
            let start = align(end, Limits.recordAlignment)
            return isDirect ? align(start + bodyStart, Limits.sector) - bodyStart : start
        }
    }
    struct Group: Sendable {
        var first: LogNumber
        var last: LogNumber
        var end: Int
        var places: [LogPlace]
        /// The headers of its records, one after the other.
        var copies: [ArraySlice<UInt8>]
    }

    let configuration: LogConfiguration
    /// Identity and incarnation; nil before `.identified`.
    package internal(set) var superblock: Superblock?
    /// Every record up to this one survives the loss of power.
    package internal(set) var durable = LogNumber.none
    /// The number that the next record gets.
    package internal(set) var nextNumber = LogNumber(rawValue: 1)
    var phase = Phase.new
    var capacity: UInt64 = 0
    var operations: [DiskOperation: Purpose] = [:]
    var lastOperation: UInt64 = 0
    var pendingOperations = 0
    /// Ascending by number.
    var files: [File] = []
    /// Files that are free, or being made.
    var unused = 0
    var open: OpenSegment?
    /// Where the log ends while no segment is open.
    var end = LogPosition.start
    var segmentsThisRun: UInt64 = 0
    /// One is being made.
    var isCreating = false
    /// A create failed for want of space: until one succeeds there are the segments that there
    /// are; one is tried at this time.
    var retryAt: Instant?
    /// Segments that its user wants to exist, if there is space.
    var wanted = 0
    var queue: [Queued] = []
    var queued = 0
    var inFlight: Group?
    /// Headers of the last group's records, until a later group has copied them.
    var copies: [ArraySlice<UInt8>] = []
    /// Something durable that no later `syncedThrough` covers.
    var isUnmarked = false
    var lastGroup = Instant.zero
    var prewriting = Prewriting()
    /// nil if the open segment gets no footer.
    var footer: FooterBuilder?
    var recovery: LogRecovery?

    /// A log that was not started.
    package init(_ configuration: LogConfiguration) { self.configuration = configuration }

    /// Whether `append` is allowed.
    package var isReady: Bool { phase == .ready }
    /// Whether something is on its way to the disk, or waits for it.
    package var isWriting: Bool { inFlight != nil || !queue.isEmpty }
    /// Whether it stopped for ever (S4).
    package var hasFailed: Bool { phase == .failed }
    /// When `flush` wants to be called although nothing happened.
    package var wakeTime: Instant {
        let isIdle = phase == .ready && isUnmarked && inFlight == nil && queue.isEmpty
        let mark = isIdle ? lastGroup + Limits.markDelay : Instant(nanoseconds: .max)
        let retry = phase == .ready && canGrow ? retryAt : nil
        return min(mark, prewriteTime, retry ?? mark)
    }
    /// Where a replay that needs nothing up to `durable` may begin.
    package var position: LogPosition {
        guard let open else { return end }
        if open.isFresh { return open.link.previous }
        return LogPosition(
            generation: open.identity.generation, offset: UInt32(open.offset), number: durable)
    }
    /// Segments with content, ascending by generation.
    package var segments: [LogSegment] {
        files.compactMap { file in
            guard case .live(let generation) = file.state else { return nil }
            return LogSegment(number: file.number, generation: generation)
        }.sorted { $0.generation < $1.generation }
    }
    /// Bytes that can still be appended, with what recycled and new segments will give.
    package var room: UInt64 {
        guard let size = superblock?.segmentSize else { return 0 }
        let segments = unused - (isCreating ? 1 : 0) + max(0, segmentLimit - made)
        let rest = open.map { max(0, size - (inFlight?.end ?? $0.offset)) } ?? 0
        return UInt64(max(0, segments * (size - SegmentHeader.pageSize) + rest - queued))
    }
    /// Bytes of the segments that hold nothing.
    var spareBytes: UInt64 { UInt64(unused) * UInt64(superblock?.segmentSize ?? 0) }
    /// Bytes that the log may use in all.
    package var totalBytes: UInt64 {
        guard let size = superblock?.segmentSize else { return 0 }
        return UInt64(segmentLimit) * UInt64(size)
    }
    /// How many segments there may be.
    var segmentLimit: Int {
        guard let size = superblock?.segmentSize else { return 0 }
        return retryAt == nil ? max(made, Int(capacity / UInt64(size))) : made
    }
    /// No space is left for another segment, and the last one is half full: what it still takes is
    /// for what must go on (C20).
    package var isShort: Bool {
        guard let size = superblock?.segmentSize, phase == .ready else { return false }
        return unused == (isCreating ? 1 : 0) && (retryAt != nil || !canGrow)
            && open.map { $0.offset > size / 2 } ?? true
    }
    /// So many bytes are free on the file system: what others gave back may be used, up to a limit
    /// in all, of which the segments get a part.
    package mutating func learn(free: UInt64, limit: UInt64, percent: UInt64) {
        capacity = max(capacity, min(limit, madeBytes + free) / 100 * percent)
    }
    /// Segments that there are.
    private var made: Int { files.count - (isCreating ? 1 : 0) }
    var madeBytes: UInt64 { UInt64(made) * UInt64(superblock?.segmentSize ?? 0) }
    /// Whether more segments may be made, if there is space.
    var canGrow: Bool {
        UInt64(files.count + 1) * UInt64(superblock?.segmentSize ?? 0) <= capacity
    }
    /// Bytes of records in one group.
    var groupBytes: Int {
        min(configuration.groupBytes, (superblock?.segmentSize ?? configuration.segmentSize) / 4)
    }
    /// Bytes of record headers in one group, so that the next one can hold their copies.
    var groupHeaderBytes: Int { groupBytes / 4 }

    /// Numbers an operation of the user's own on the same disk.
    package mutating func newOperation() -> DiskOperation {
        lastOperation += 1
        return DiskOperation(rawValue: lastOperation)
    }
    /// Whether the log itself issued the operation and has not heard of it yet.
    package func owns(_ operation: DiskOperation) -> Bool { operations[operation] != nil }

    mutating func issue(_ purpose: Purpose) -> DiskOperation {
        let operation = newOperation()
        operations[operation] = purpose
        return operation
    }

    /// The place of a segment's file in `files`: with none missing, its number.
    func place(of number: UInt32) -> Int? {
        if Int(number) < files.count, files[Int(number)].number == number { return Int(number) }
        return files.firstIndex { $0.number == number }
    }

    mutating func fail(_ failure: LogFailure) -> [LogOutput] {
        phase = .failed
        operations.removeAll()
        queue.removeAll()
        recovery = nil
        return [.failed(failure)]
    }

    /// Appends a record in memory; it is durable when `.durable` names its number (S2).
    /// `header`: at most `Limits.recordHeader`. `payload`: at most `Limits.recordPayload` (and
    /// what fits into a small segment). `checksum`: of the payload, if it is known and verified.
    package mutating func append(
        kind: LogRecordKind, header: [UInt8], payload: ArraySlice<UInt8>,
        checksum: Checksum? = nil
    ) -> LogNumber {
        precondition(phase == .ready || phase == .failed, "append before the log is ready")
        precondition(header.count <= Limits.recordHeader, "record header too long")
        precondition(payload.count <= Limits.recordPayload, "record payload too long")
        let record = Queued(
            number: nextNumber, kind: kind, header: header, payload: payload,
            checksum: checksum ?? Checksum(of: payload))
        precondition(record.stride <= longestRecord, "record too long for the segment size")
        nextNumber = nextNumber.next
        if phase == .ready {
            queue.append(record)
            queued += record.stride
        }
        return record.number
    }

    /// Bytes of the longest record that fits into a segment.
    var longestRecord: Int {
        let size = superblock?.segmentSize ?? configuration.segmentSize
        let copies = max(groupHeaderBytes, RecordFrame.size + Limits.recordHeader)
        let overhead = align(RecordFrame.size + GroupHeader.size + copies, Limits.recordAlignment)
        let footer = align(FooterHeader.size + copies, Limits.groupAlignment)
        return size - SegmentHeader.pageSize - overhead - footer - Limits.groupAlignment
    }

    /// Writes the next group if none is on its way, or the mark of an idle log that is due. To be
    /// called at the end of each turn.
    package mutating func flush(now: Instant) -> [LogOutput] {
        guard phase == .ready else { return [] }
        let made = createAhead(now)
        guard inFlight == nil else { return made }
        if queue.isEmpty {
            guard isUnmarked, now >= lastGroup + Limits.markDelay else {
                return made + prewriteIfDue(now: now)
            }
        }
        let copied = copies.reduce(0) { $0 + $1.count }
        let start = align(RecordFrame.size + GroupHeader.size + copied, Limits.recordAlignment)
        var count = 0
        var end = start
        var headers = 0
        var rolls = false
        for record in queue {
            let header = RecordFrame.size + record.header.count
            let next = record.start(after: end) + record.length
            let isFull = next - start > groupBytes || headers + header > groupHeaderBytes
            // What still fits into the open segment goes there, if anything does.
            let fits = hasRoom(
                for: align(next, Limits.groupAlignment), headers: headers + header)
            if count == 0 { rolls = !fits }
            if count > 0 && (isFull || !(fits || rolls)) { break }
            count += 1
            end = next
            headers += header
        }
        let length = align(end, Limits.groupAlignment)
        var outputs = made + makeRoom(for: length, headers: headers)
        if phase == .ready, hasRoom(for: length, headers: headers) {
            outputs.append(.disk(writeGroup(count: count, start: start, length: length)))
        }
        return outputs
    }

    /// A disk operation ended. Tells what follows from it; `flush` comes at the end of the turn.
    package mutating func completed(
        _ operation: DiskOperation, _ result: DiskResult, now: Instant
    ) -> [LogOutput] {
        guard phase != .failed, let purpose = operations.removeValue(forKey: operation) else {
            return []
        }
        switch purpose {
        case .group:
            if case .failed(let why) = result {
                return fail(.disk(.segment(open?.file ?? 0), why))
            }
            return groupDone(now: now)
        case .createSegment(let file):
            return segmentCreated(file, result, now)
        case .footer(let file):
            if case .failed(let why) = result { return fail(.disk(.segment(file), why)) }
            return []
        case .prewrite(let file):
            return prewritten(file, result)
        case .removeSegment(let file):
            if case .failed(let why) = result { return fail(.disk(.segment(file), why)) }
            files.removeAll { $0.number == file }
            return []
        case .readSuperblock, .createSuperblock, .writeSuperblock:
            return superblockStep(purpose, result)
        case .syncSegment, .readStart, .searchSegment, .scan, .salvage, .readFooter:
            return recoveryStep(purpose, result, now: now)
        }
    }

    private mutating func groupDone(now: Instant) -> [LogOutput] {
        guard let group = inFlight else { preconditionFailure("a group ended twice") }
        inFlight = nil
        prewriting.logged += group.end - (open?.offset ?? group.end)
        open?.offset = group.end
        open?.isFresh = false
        copies = group.copies
        isUnmarked = !group.places.isEmpty
        lastGroup = now
        if group.places.isEmpty { return [] }
        durable = group.last
        return [.placed(group.places, first: group.first), .durable(through: group.last)]
    }
}
