// The map of the cell: every set, its copies as their disks report them, and what the leader is
// doing about it. What `explain`, `health`, `fsck`, `rebalance` and `can-stop` are made of.

package import Base

/// A copy of a set as its disk reported it, whether it is a member or not.
package struct CopyStatus: Hashable, Sendable {
    package var disk: DiskID
    /// The last epoch that began there.
    package var epoch: Epoch
    /// The last record on that disk.
    package var prepared: RecordNumber
    /// Stored bytes of live extents.
    package var stored: UInt64
    package var chunks: UInt32
    /// Damaged records.
    package var hasRot: Bool
    /// It was a member in that epoch, not a learner: it had all that was acknowledged then.
    package var wasMember: Bool

    /// All fields at once.
    package init(
        disk: DiskID, epoch: Epoch, prepared: RecordNumber, stored: UInt64, chunks: UInt32,
        hasRot: Bool, wasMember: Bool
    ) {
        self.disk = disk
        self.epoch = epoch
        self.prepared = prepared
        self.stored = stored
        self.chunks = chunks
        self.hasRot = hasRot
        self.wasMember = wasMember
    }
}

/// What the leader wants for a set (C19), and what it waits for.
package struct TaskStatus: Hashable, Sendable {
    /// Why a copy is made.
    package enum Kind: UInt8, Hashable, Sendable {
        /// The set has fewer members than the goal.
        case repair = 1
        /// A member is on a server that is drained.
        case drain = 2
        /// A plan says so.
        case move = 3
    }
    package var kind: Kind
    /// The copy that goes.
    package var from: DiskID?
    /// The disk that is filled, or is to be.
    package var to: DiskID?
    /// Of the records, how many the learner has; 0 to 100.
    package var percent: UInt8
    /// Why it does not go on; empty: it does. At most 300 bytes.
    package var waits: String

    /// All fields at once.
    package init(kind: Kind, from: DiskID?, to: DiskID?, percent: UInt8, waits: String) {
        self.kind = kind
        self.from = from
        self.to = to
        self.percent = percent
        self.waits = waits
    }
}

/// A set as the leader sees it.
package struct SetStatus: Hashable, Sendable {
    package var configuration: SetConfiguration
    /// It takes no new chunks.
    package var isFull: Bool
    /// Its primary serves this epoch.
    package var isServing: Bool
    /// A disk knows a higher epoch than the masters: nothing is done with it (C10).
    package var isFrozen: Bool
    /// It is as a dump says, and does not go on yet: why. At most 300 bytes; empty: it does.
    package var held: String
    /// A member left it a short time ago: what disks have of it is kept (C14).
    package var keepsTrash: Bool
    /// Chunks of files that are placed here, or not yet dropped.
    package var chunks: UInt32
    /// Of every disk that reports one, by disk.
    package var copies: [CopyStatus]
    package var task: TaskStatus?

    /// All fields at once.
    package init(
        configuration: SetConfiguration, isFull: Bool, isServing: Bool, isFrozen: Bool,
        held: String = "", keepsTrash: Bool, chunks: UInt32, copies: [CopyStatus], task: TaskStatus?
    ) {
        self.configuration = configuration
        self.isFull = isFull
        self.isServing = isServing
        self.isFrozen = isFrozen
        self.held = held
        self.keepsTrash = keepsTrash
        self.chunks = chunks
        self.copies = copies
        self.task = task
    }
    /// The set.
    package var id: SetID { configuration.set }
    /// Stored bytes of one copy: the largest that a member reports.
    package var stored: UInt64 {
        copies.filter { configuration.members.contains($0.disk) }.map(\.stored).max() ?? 0
    }

    func encode(into writer: inout ByteWriter) {
        configuration.encode(into: &writer)
        for flag in [isFull, isServing, isFrozen, keepsTrash] { writer.write(flag) }
        writer.write(held)
        writer.write(chunks)
        writer.writeList(copies) { writer, copy in
            writer.write(copy.disk)
            writer.write(copy.epoch)
            writer.write(copy.prepared)
            writer.write(copy.stored)
            writer.write(copy.chunks)
            writer.write(copy.hasRot)
            writer.write(copy.wasMember)
        }
        writer.writeOptional(task) { writer, task in
            writer.write(task.kind.rawValue)
            writer.writeOptional(task.from) { $0.write($1) }
            writer.writeOptional(task.to) { $0.write($1) }
            writer.write(task.percent)
            writer.write(task.waits)
        }
    }
    init(from reader: inout ByteReader) throws(DecodeError) {
        configuration = try SetConfiguration(from: &reader)
        isFull = try reader.readBool()
        isServing = try reader.readBool()
        isFrozen = try reader.readBool()
        keepsTrash = try reader.readBool()
        held = try reader.readString(bound: 300)
        chunks = try reader.read()
        copies = try reader.readList(bound: 4_096) { (reader) throws(DecodeError) in
            CopyStatus(
                disk: try reader.read(), epoch: try reader.read(), prepared: try reader.read(),
                stored: try reader.read(), chunks: try reader.read(),
                hasRot: try reader.readBool(), wasMember: try reader.readBool())
        }
        task = try reader.readOptional { (reader) throws(DecodeError) in
            let value = try reader.read(UInt8.self)
            guard let kind = TaskStatus.Kind(rawValue: value) else {
                throw .invalid(field: "task", value: UInt64(value))
            }
            return TaskStatus(
                kind: kind,
                from: try reader.readOptional { (reader) throws(DecodeError) in
                    try reader.read()
                },
                to: try reader.readOptional { (reader) throws(DecodeError) in
                    try reader.read()
                },
                percent: try reader.read(), waits: try reader.readString(bound: 300))
        }
    }
}

/// A page of the map.
package struct SetMap: Hashable, Sendable {
    /// Ascending, at most `Limits.mappedSets`.
    package var sets: [SetStatus]
    /// No set follows.
    package var isLast: Bool

    /// Both fields at once.
    package init(sets: [SetStatus], isLast: Bool) {
        self.sets = sets
        self.isLast = isLast
    }
    func encode(into writer: inout ByteWriter) {
        writer.writeList(sets) { $1.encode(into: &$0) }
        writer.write(isLast)
    }
    init(from reader: inout ByteReader) throws(DecodeError) {
        sets = try reader.readList(bound: Limits.mappedSets) { (reader) throws(DecodeError) in
            try SetStatus(from: &reader)
        }
        isLast = try reader.readBool()
    }
}

/// What operators have asked for, and what copying is under way.
package struct CellOperations: Hashable, Sendable {
    package var draining: [ServerID]
    /// The last plan, open or ended.
    package var rebalance: Rebalance?
    /// Sets that disks have and the masters don't know: kept, nothing is deleted (C10).
    package var unknownSets: [SetID]
    /// Stored bytes that are to be copied until every set has as many copies as it should.
    package var repairBytes: UInt64
    /// Bytes that were copied in the last second, averaged over the last ones; 0: none.
    package var copyRate: UInt64

    /// All fields at once.
    package init(
        draining: [ServerID], rebalance: Rebalance?, unknownSets: [SetID], repairBytes: UInt64,
        copyRate: UInt64
    ) {
        self.draining = draining
        self.rebalance = rebalance
        self.unknownSets = unknownSets
        self.repairBytes = repairBytes
        self.copyRate = copyRate
    }
    func encode(into writer: inout ByteWriter) {
        writer.writeList(draining) { $0.write($1) }
        writer.writeOptional(rebalance) { $1.encode(into: &$0) }
        writer.writeList(unknownSets) { $0.write($1) }
        writer.write(repairBytes)
        writer.write(copyRate)
    }
    init(from reader: inout ByteReader) throws(DecodeError) {
        draining = try reader.readList(bound: 4_096) { (reader) throws(DecodeError) in
            try reader.read()
        }
        rebalance = try reader.readOptional { (reader) throws(DecodeError) in
            try Rebalance(from: &reader)
        }
        unknownSets = try reader.readList(bound: 4_096) { (reader) throws(DecodeError) in
            try reader.read()
        }
        repairBytes = try reader.read()
        copyRate = try reader.read()
    }
}
