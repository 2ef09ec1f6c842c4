// Reading a segment back: finding records in its bytes, and telling rot from a torn tail.
//
// Verdict (DESIGN 3.1): `synced` is the highest number that any valid header promises to have
// been durable. A missing or bad record at or below it is rot: reported, never shortened away.
// The first one above it is where the log was torn: it and all after it never happened.
// Invariants:
//  1. Records come out in the order of their numbers, each at most once.
//  2. A record above a gap is held back until the gap is known to be rot.

import Base

/// Finds the records of one segment in bytes that are fed to it in order.
struct SegmentScanner {
    enum Found {
        /// A group header, with the copies of the previous group's record headers.
        case group(LogNumber, GroupHeader, copies: [LogRecord])
        /// A record; its payload is empty and `isIntact` false if its checksum is wrong.
        case record(LogRecord, isIntact: Bool)
    }

    let segment: UInt32
    let identity: SegmentIdentity
    let segmentSize: Int
    let copiesPayloads: Bool
    /// The end of the last valid thing, rounded up to the next group's start.
    private(set) var end: Int
    private var buffer: [UInt8] = []
    /// Offset in the segment of the first byte in the buffer.
    private var base: Int
    private var position: Int

    init(
        segment: UInt32, identity: SegmentIdentity, segmentSize: Int, from offset: Int,
        copiesPayloads: Bool
    ) {
        self.segment = segment
        self.identity = identity
        self.segmentSize = segmentSize
        self.copiesPayloads = copiesPayloads
        base = offset
        position = offset
        end = offset
    }

    /// Takes the next bytes of the segment; missing ones must be given as zeros.
    mutating func feed(_ bytes: [UInt8]) {
        if position >= base + buffer.count {
            base += buffer.count
            buffer = bytes
        } else {
            buffer.removeFirst(position - base)
            base = position
            buffer.append(contentsOf: bytes)
        }
    }

    /// The next find, or nil when more bytes are needed (or the segment ends).
    mutating func next() -> Found? {
        while skipToMagic() {
            let start = position - base
            guard let frame = RecordFrame(decoding: buffer[start...]),
                frame.identity == identity, Int(frame.offset) == position,
                frame.fits(segmentSize: segmentSize)
            else {
                position += Limits.recordAlignment
                continue
            }
            let header = start + RecordFrame.size + Int(frame.headerLength)
            guard header <= buffer.count else { return nil }
            guard frame.isIntact(buffer[start..<header]) else {
                position += Limits.recordAlignment
                continue
            }
            let whole = header + Int(frame.payloadLength)
            guard whole <= buffer.count else { return nil }
            position += frame.stride
            end = max(end, align(position, Limits.groupAlignment))
            return found(frame, header: start + RecordFrame.size..<header, payload: header..<whole)
        }
        return nil
    }

    /// Moves to the next place where a fixed header may be; false if there is none in the buffer.
    private mutating func skipToMagic() -> Bool {
        let from = position - base
        let found = buffer.withUnsafeBytes { raw -> Int? in
            var index = from
            while index + RecordFrame.size <= raw.count {
                let word = raw.loadUnaligned(fromByteOffset: index, as: UInt32.self)
                if UInt32(littleEndian: word) == RecordFrame.magic { return index }
                index += Limits.recordAlignment
            }
            position = base + index
            return nil
        }
        guard let found else { return false }
        position = base + found
        return true
    }

    private func found(_ frame: RecordFrame, header: Range<Int>, payload: Range<Int>) -> Found {
        let isIntact = Checksum(of: buffer[payload]) == frame.payloadChecksum
        if frame.kind == .group, let group = try? GroupHeader(decoding: buffer[header]) {
            return .group(frame.number, group, copies: isIntact ? copies(in: buffer[payload]) : [])
        }
        var record = LogRecord(frame, segment: segment, header: Array(buffer[header]))
        if isIntact && copiesPayloads { record.payload = Array(buffer[payload])[...] }
        return .record(record, isIntact: isIntact)
    }

    /// The record headers in the payload of a group header.
    func copies(in payload: ArraySlice<UInt8>) -> [LogRecord] {
        var copies: [LogRecord] = []
        var rest = payload
        while let frame = RecordFrame(decoding: rest), frame.isIntact(rest) {
            let end = rest.startIndex + RecordFrame.size + Int(frame.headerLength)
            let header = rest[(rest.startIndex + RecordFrame.size)..<end]
            // Copies may be of the last group of the segment before; its file is not known here,
            // so the place of such a record is left to `Sequencer`.
            var record = LogRecord(frame, segment: segment, header: Array(header))
            if frame.identity.generation != identity.generation { record.place.segment = .max }
            copies.append(record)
            rest = rest[end...]
        }
        return copies
    }
}

extension LogRecord {
    /// A record without its payload.
    init(_ frame: RecordFrame, segment: UInt32, header: [UInt8]) {
        number = frame.number
        kind = frame.kind
        place = LogPlace(
            segment: segment, offset: frame.offset, headerLength: frame.headerLength,
            payloadLength: frame.payloadLength)
        self.header = header
        payload = []
    }
}

/// Puts the finds in order and passes the verdict on what is missing.
struct Sequencer {
    /// What the replay tells, in order.
    enum Verdict {
        case good(LogRecord)
        case rot(LogDamage)
    }

    /// The next number that is to come.
    private(set) var expected: LogNumber
    /// All up to this one were durable once.
    private(set) var synced: LogNumber
    /// The highest number that any header tells of, valid or not.
    private(set) var highest: LogNumber
    /// What came out and was not taken yet.
    var verdicts: [Verdict] = []
    private var held: [(record: LogRecord, isIntact: Bool)] = []
    private var copies: [LogRecord] = []
    /// Numbers above it were cut off the segment that is being read.
    private var limit: LogNumber?
    /// The file of the segment that is being read.
    private var segment: UInt32 = .max
    /// The segment that was begun, of which nothing was found yet.
    private var next: (segment: UInt32, link: SegmentLink?, limit: LogNumber?)?

    /// Expects the record after `number`, which was durable.
    init(after number: LogNumber) {
        expected = number.next
        synced = number
        highest = number
    }

    /// Whether something above all that is good was begun and is not whole.
    var isTorn: Bool { !held.isEmpty || highest >= expected }

    /// Goes on with another segment. `limit`: its last number, if a later segment names it.
    mutating func begin(segment: UInt32, link: SegmentLink?, limit: LogNumber?) {
        enter()
        next = (segment, link, limit)
    }

    /// A group header was found.
    mutating func group(_ first: LogNumber, _ header: GroupHeader, copies: [LogRecord]) {
        // The copies of a segment's first group are of the last group of the segment before.
        if next != nil { self.copies = copies }
        enter()
        if let limit, first > limit { return }
        self.copies = copies
        synced = max(synced, header.syncedThrough)
        if header.count > 0 {
            let last = LogNumber(rawValue: first.rawValue + UInt64(header.count) - 1)
            highest = max(highest, last)
        }
        settle()
    }

    /// A record was found.
    mutating func record(_ record: LogRecord, isIntact: Bool) {
        enter()
        let number = record.number
        if let limit, number > limit { return }
        guard number >= expected, number > held.last?.record.number ?? .none else { return }
        highest = max(highest, number)
        if held.isEmpty, number == expected, isIntact {
            verdicts.append(.good(record))
            expected = expected.next
        } else {
            held.append((record, isIntact))
        }
    }

    /// The log ends here: what can be decided is.
    mutating func finish() {
        enter()
        finishSegment()
    }

    /// Leaves the last segment for the one that was begun.
    private mutating func enter() {
        guard let (segment, link, limit) = next else { return }
        next = nil
        finishSegment()
        if let link {
            // Numbers that neither segment has were in one that is lost.
            synced = max(synced, link.previous.number)
            settle()
            held.removeAll()
            if expected <= link.previous.number { lose(through: link.previous.number) }
            expected = max(expected, link.first)
            highest = LogNumber(rawValue: expected.rawValue - 1)
        }
        self.segment = segment
        self.limit = limit
        if let limit { synced = max(synced, limit) }
    }

    /// What is at or below the mark and was not found is rot.
    private mutating func finishSegment() {
        settle()
        if held.isEmpty, expected <= synced { lose(through: synced) }
        copies = []
    }

    private mutating func settle() {
        var taken = 0
        for (record, isIntact) in held {
            if record.number > expected {
                let before = LogNumber(rawValue: record.number.rawValue - 1)
                if min(before, synced) >= expected { lose(through: min(before, synced)) }
                if record.number > expected { break }
            }
            if isIntact {
                verdicts.append(.good(record))
            } else if record.number <= synced {
                verdicts.append(
                    .rot(LogDamage(numbers: record.number...record.number, records: [record])))
            } else {
                break
            }
            expected = expected.next
            taken += 1
        }
        held.removeFirst(taken)
    }

    /// The expected records up to `last` are rotten.
    private mutating func lose(through last: LogNumber) {
        let known = copies.filter { (expected...last).contains($0.number) }.map { copy in
            var record = copy
            if record.place.segment == .max { record.place.segment = segment }
            return record
        }
        verdicts.append(.rot(LogDamage(numbers: expected...last, records: known)))
        expected = last.next
    }
}
