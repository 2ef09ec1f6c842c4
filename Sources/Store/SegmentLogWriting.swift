// The writing half of the log: groups, and the segments they go to.
// Invariants:
//  1. A group lies in one segment and is one durable write; its last page is never rewritten.
//  2. A fresh segment's header page goes out in one write with its first group.
//  3. A segment is written again only after `release`, under a new generation.

import Base

extension SegmentLog {
    /// Payloads below this are copied among the headers: fewer pieces for the disk.
    static var inlinePayload: Int { 4 << 10 }

    /// Whether a group with so many bytes of record headers fits, with the footer behind it.
    func hasRoom(for length: Int, headers: Int) -> Bool {
        guard let open, let size = superblock?.segmentSize else { return false }
        return open.offset + length + (footer?.length(with: headers) ?? 0) <= size
    }

    /// Rolls to the next segment where the open one is too full. Without a segment to roll to it
    /// makes one, and the group waits; on a full disk, until its user's checkpoints free one.
    mutating func makeRoom(for length: Int, headers: Int) -> [LogOutput] {
        if hasRoom(for: length, headers: headers) { return [] }
        let previous = position
        if let file = files.firstIndex(where: { $0.state == .free }) {
            guard let superblock else { preconditionFailure("a log without identity") }
            let outputs = closeSegment()
            footer = configuration.hasFooters ? FooterBuilder() : nil
            segmentsThisRun += 1
            let generation = superblock.incarnation.rawValue << 24 | segmentsThisRun
            files[file].state = .live(generation: generation)
            unused -= 1
            open = OpenSegment(
                file: files[file].number,
                identity: SegmentIdentity(
                    cell: superblock.cell, disk: superblock.disk, generation: generation),
                link: SegmentLink(first: queue.first?.number ?? nextNumber, previous: previous),
                offset: SegmentHeader.pageSize, isFresh: true,
                written: files[file].isNew ? 0 : .max)
            files[file].isNew = false
            return outputs
        }
        if files.contains(where: { $0.state == .creating || $0.state == .removing }) { return [] }
        if files.count < segmentLimit { return [createSegment()] }
        return configuration.waitsForRoom ? [] : fail(.full)
    }

    /// Makes the next segment while the open one still has room, and those that are wanted; after
    /// a refusal one from time to time.
    mutating func createAhead(_ now: Instant) -> [LogOutput] {
        guard let size = superblock?.segmentSize, canGrow, !isCreating else { return [] }
        let isHalfFull = open.map { $0.offset > size / 2 } ?? false
        let isWanted = isHalfFull && unused == 0 || open != nil && files.count < wanted
        let isDue = retryAt.map { $0 <= now } ?? isWanted
        return isDue ? [createSegment()] : []
    }

    private mutating func createSegment() -> LogOutput {
        guard let size = superblock?.segmentSize else { preconditionFailure("no identity") }
        // The lowest number that is not in use; `files` is ascending.
        var number: UInt32 = 0
        for file in files where file.number == number { number += 1 }
        let place = files.firstIndex { $0.number > number } ?? files.count
        files.insert(File(number: number, state: .creating, size: size), at: place)
        unused += 1
        isCreating = true
        return .disk(
            .create(issue(.createSegment(file: number)), .segment(number), size: size))
    }

    /// After a create that found no space, the next is tried so much later.
    private static var retryPause: Interval { .seconds(1) }

    mutating func segmentCreated(
        _ number: UInt32, _ result: DiskResult, _ now: Instant
    ) -> [LogOutput] {
        guard let index = place(of: number) else {
            preconditionFailure("an unknown segment was made")
        }
        isCreating = false
        switch result {
        case .done, .bytes:
            files[index].state = .free
            files[index].isNew = true
            retryAt = nil
        case .failed(.noSpace):
            // Others filled the file system: go on with what there is (C20).
            files.remove(at: index)
            unused -= 1
            retryAt = now + Self.retryPause
        case .failed(let why): return fail(.disk(.segment(number), why))
        }
        return []
    }

    /// Nothing in these segments is needed any more, by word of a durable checkpoint: they are
    /// recycled, or removed where there are plenty.
    package mutating func release(_ segments: [UInt32]) -> [LogOutput] {
        var outputs: [LogOutput] = []
        for number in segments {
            guard phase == .ready, number != open?.file,
                let index = place(of: number), case .live = files[index].state
            else { continue }
            if spareBytes < 2 << 30 {
                files[index].state = .free
                unused += 1
            } else {
                outputs.append(removeSegment(index))
            }
        }
        return outputs
    }

    mutating func removeSegment(_ index: Int) -> LogOutput {
        let number = files[index].number
        files[index].state = .removing
        return .disk(.remove(issue(.removeSegment(file: number)), .segment(number)))
    }

    /// Makes one write of the first `count` records of the queue, with the group header. `start`:
    /// where the records begin in the group. `length`: of the group.
    mutating func writeGroup(count: Int, start: Int, length: Int) -> DiskEffect {
        guard let segment = open else { preconditionFailure("no open segment") }
        let first = queue.first?.number ?? nextNumber
        var writer = ByteWriter(capacity: start + count * 640 + SegmentHeader.pageSize)
        let offset = segment.isFresh ? 0 : segment.offset
        if segment.isFresh {
            let header = SegmentHeader(
                number: segment.file, identity: segment.identity,
                size: superblock?.segmentSize ?? 0, link: segment.link)
            writer.append(header.encode())
        }
        encodeGroupHeader(count: count, first: first, length: length, into: &writer)
        var group = Group(
            first: first, last: durable, end: segment.offset + length, places: [], copies: [])
        group.places.reserveCapacity(count)
        var headers: [Range<Int>] = []
        // Payloads that stay where they are, and where in `writer` they belong.
        var outside: [(at: Int, payload: ArraySlice<UInt8>)] = []
        var outsideBytes = 0
        for record in queue[..<count] {
            let end = writer.count + outsideBytes
            writer.appendZeros(record.start(after: end) - end)
            let place = offset + writer.count + outsideBytes
            let from = writer.count
            encode(record, offset: place, identity: segment.identity, into: &writer)
            headers.append(from..<writer.count)
            group.places.append(
                LogPlace(
                    segment: segment.file, offset: UInt32(place),
                    headerLength: UInt32(record.header.count),
                    payloadLength: UInt32(record.payload.count)))
            if record.payload.count < Self.inlinePayload {
                writer.append(record.payload)
            } else {
                outside.append((writer.count, record.payload))
                outsideBytes += record.payload.count
            }
            group.last = record.number
        }
        let whole = segment.offset - offset + length
        writer.appendZeros(whole - writer.count - outsideBytes)
        let bytes = writer.bytes
        group.copies = headers.map { bytes[$0] }
        footer?.add(group.copies)
        if footer?.length(with: 0) == 0 { footer = nil }
        queue.removeFirst(count)
        queued = queue.reduce(0) { $0 + $1.stride }
        inFlight = group
        return .write(
            issue(.group), .segment(segment.file), offset: offset,
            pieces: Self.pieces(of: bytes, with: outside), durable: true)
    }

    private func encodeGroupHeader(
        count: Int, first: LogNumber, length: Int, into writer: inout ByteWriter
    ) {
        guard let segment = open else { preconditionFailure("no open segment") }
        var copied = ByteWriter(capacity: copies.reduce(0) { $0 + $1.count })
        for copy in copies { copied.append(copy) }
        let header = GroupHeader(
            length: length, count: count, syncedThrough: durable, copies: copies.count,
            link: segment.link)
        encode(
            Queued(
                number: first, kind: .group, header: header.encode(), payload: copied.bytes[...],
                checksum: Checksum(of: copied.bytes)),
            offset: segment.offset, identity: segment.identity, into: &writer)
        writer.append(copied.bytes)
        writer.pad(to: Limits.recordAlignment)
    }

    private func encode(
        _ record: Queued, offset: Int, identity: SegmentIdentity, into writer: inout ByteWriter
    ) {
        let frame = RecordFrame(
            kind: record.kind, headerLength: record.header.count,
            payloadLength: record.payload.count, number: record.number, identity: identity,
            offset: offset, payloadChecksum: record.checksum)
        frame.encode(record.header, into: &writer)
    }

    /// The headers with the payloads between them.
    private static func pieces(
        of bytes: [UInt8], with outside: [(at: Int, payload: ArraySlice<UInt8>)]
    ) -> [ArraySlice<UInt8>] {
        var pieces: [ArraySlice<UInt8>] = []
        pieces.reserveCapacity(outside.count * 2 + 1)
        var from = 0
        for (at, payload) in outside {
            pieces.append(bytes[from..<at])
            pieces.append(payload)
            from = at
        }
        if from < bytes.count { pieces.append(bytes[from...]) }
        return pieces
    }
}
