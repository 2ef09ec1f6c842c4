// What users of the log of a disk give it and hear from it.

package import Base

/// What a record of a log is: 1 to 254, chosen by the user of the log.
package struct LogRecordKind: Identifier {
    package let rawValue: UInt8
    package init(rawValue: UInt8) { self.rawValue = rawValue }
    /// The header of a group; the log's own.
    static let group = LogRecordKind(rawValue: 255)
}

/// Whose disk it is. The raw coding is a byte for the case and 64 bits for the name.
package enum DiskOwner: Hashable, Sendable {
    case master(MasterID)
    case server(ServerID)
}

/// What a log is told before it starts.
package struct LogConfiguration: Hashable, Sendable {
    /// The cell it must belong to.
    package var cell: CellID
    /// Whose it must be.
    package var owner: DiskOwner
    /// The name it gets if it is new; an older disk has its name in its superblock (S8).
    package var disk: DiskID
    /// Bytes of a segment if the disk is new, a multiple of 4 KiB, 32 KiB to 2 GiB; an older
    /// disk goes on with the size in its superblock.
    package var segmentSize: Int
    /// Bytes of records in one group, at most; one record may always be longer.
    package var groupBytes: Int
    /// After `.identified` the log waits for `replay(from:)` instead of replaying everything.
    package var hasCheckpoints: Bool
    /// Whether `.replayed` records carry their payload (a copy); its checksum is tested anyway.
    package var replaysPayloads: Bool

    /// A footer tells a start the headers of a segment; it has no use for one that wants payloads.
    var hasFooters: Bool { hasCheckpoints && !replaysPayloads }
    /// A full log waits until its user's checkpoints, or others, give space back; one whose user
    /// has none stops.
    var waitsForRoom: Bool { hasCheckpoints }

    /// Sizes are those of production unless given.
    package init(
        cell: CellID, owner: DiskOwner, disk: DiskID, segmentSize: Int = Limits.segment,
        groupBytes: Int = Limits.group, hasCheckpoints: Bool = false,
        replaysPayloads: Bool = true
    ) {
        precondition(segmentSize % Limits.groupAlignment == 0, "segment size is not aligned")
        precondition((32 << 10...2 << 30).contains(segmentSize), "segment size out of range")
        self.cell = cell
        self.owner = owner
        self.disk = disk
        self.segmentSize = segmentSize
        self.groupBytes = groupBytes
        self.hasCheckpoints = hasCheckpoints
        self.replaysPayloads = replaysPayloads
    }
}

/// Where a record is on its disk, and how long it is.
package struct LogPlace: Hashable, Sendable {
    /// The number of the segment's file.
    package var segment: UInt32
    /// Of the record's fixed header in the segment.
    package var offset: UInt32
    /// Bytes of the body header.
    package var headerLength: UInt32
    /// Bytes of the payload.
    package var payloadLength: UInt32

    /// Bytes from the start of the fixed header to the end of the payload.
    package var length: Int {
        RecordFrame.size + Int(headerLength) + Int(payloadLength)
    }
}

/// A record as it was found on the disk.
package struct LogRecord: Hashable, Sendable {
    package var number: LogNumber
    package var kind: LogRecordKind
    package var place: LogPlace
    /// The body header that was given to `append`.
    package var header: [UInt8]
    /// The payload; empty if the configuration does not want it or it is damaged.
    package var payload: ArraySlice<UInt8>
}

/// Records that were durable and are damaged now: rot, never shortened away (DESIGN 3.1).
package struct LogDamage: Hashable, Sendable {
    /// All numbers that are lost.
    package var numbers: ClosedRange<LogNumber>
    /// Those of them whose header is known, in ascending order; without payload.
    package var records: [LogRecord]

    /// Nothing is lost but payloads.
    package var hasAllHeaders: Bool {
        UInt64(records.count) == numbers.upperBound.rawValue - numbers.lowerBound.rawValue + 1
    }
}

/// A place in the log between two groups.
package struct LogPosition: Hashable, Sendable {
    /// Generation of the segment; 0: before the first segment.
    package var generation: UInt64
    /// Where the next group of that segment starts or would start.
    package var offset: UInt32
    /// The last record before it.
    package var number: LogNumber

    /// All fields at once.
    package init(generation: UInt64, offset: UInt32, number: LogNumber) {
        self.generation = generation
        self.offset = offset
        self.number = number
    }
    /// Before everything.
    package static let start = LogPosition(generation: 0, offset: 0, number: .none)
}

/// A segment with content, as a checkpoint lists it.
package struct LogSegment: Hashable, Sendable {
    /// The number of its file.
    package var number: UInt32
    /// Never reused; later segments have higher ones.
    package var generation: UInt64

    /// Both fields at once.
    package init(number: UInt32, generation: UInt64) {
        self.number = number
        self.generation = generation
    }
}

/// From where a log replays, by word of a checkpoint.
package struct LogStart: Hashable, Sendable {
    /// Replay begins with the record after it.
    package var position: LogPosition
    /// Earlier segments that are still needed, ascending by generation; others may be recycled.
    package var segments: [LogSegment]

    /// Both fields at once.
    package init(position: LogPosition, segments: [LogSegment]) {
        self.position = position
        self.segments = segments
    }
}

/// Why a log refuses to start, or stopped for ever (S4).
package enum LogFailure: Error, Hashable, Sendable {
    /// Written by another release: the format and the version found (D17).
    case version(StaticName, found: UInt64)
    /// The disk belongs to another cell.
    case otherCell(CellID)
    /// The disk belongs to another server or master.
    case otherOwner(DiskOwner)
    /// Segments without any valid superblock: the disk has lost its identity (S8, M18).
    case superblockLost
    /// The disk failed to change a file (S4).
    case disk(DiskFile, DiskFailure)
    /// Every segment is in use and no more may be made.
    case full
    /// A new disk with fewer bytes than it needs for its segments.
    case tooSmall(capacity: UInt64, least: UInt64)
}

/// What a log tells its user. Effects are carried out in the order in which they come.
package enum LogOutput: Hashable, Sendable {
    case disk(DiskEffect)
    /// The superblock with the new incarnation is durable (C10).
    case identified(Superblock)
    /// During the start: a record of the log, in the order in which they were appended.
    case replayed(LogRecord)
    /// During the start, in the same order: these records are lost here.
    case damaged(LogDamage)
    /// The log was replayed; from now on `append` is allowed.
    case ready
    /// Where the records are that the next `.durable` tells of, from the lowest number on.
    case placed([LogPlace], first: LogNumber)
    /// Every record up to this one survives the loss of power (S2).
    case durable(through: LogNumber)
    /// The superblock with another name for votes is durable (M18).
    case renamed
    /// Nothing will be written any more.
    case failed(LogFailure)
}
