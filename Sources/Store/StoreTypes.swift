// What users of `DiskStore` give it and hear from it.

package import Base

/// What a store is told before it starts.
package struct StoreConfiguration: Hashable, Sendable {
    /// Of its log; `hasCheckpoints` is set and `replaysPayloads` cleared by the store.
    package var log: LogConfiguration
    /// Bytes of log after which the index is written down.
    package var checkpointInterval: Int
    package var scrub: ScrubConfiguration
    package var cleaner: CleanerConfiguration
    package var index: IndexConfiguration

    /// All fields at once.
    package init(
        log: LogConfiguration, checkpointInterval: Int = 1 << 30,
        scrub: ScrubConfiguration = ScrubConfiguration(),
        cleaner: CleanerConfiguration = CleanerConfiguration(),
        index: IndexConfiguration = IndexConfiguration()
    ) {
        self.log = log
        self.log.hasCheckpoints = true
        self.log.replaysPayloads = false
        self.checkpointInterval = checkpointInterval
        self.scrub = scrub
        self.cleaner = cleaner
        self.index = index
    }
}

/// How much memory the index of a disk may take (decision 0021).
package struct IndexConfiguration: Hashable, Sendable {
    /// Bytes at which the disk counts as full: it takes no new data.
    package var memory: Int
    /// Groups of 16 chunks that are unpacked at one time, and pages of 32 blocks, at least 1.
    package var openGroups: Int
    package var openPages: Int

    /// All fields at once.
    package init(
        memory: Int = Limits.indexMemory, openGroups: Int = 256, openPages: Int = 2_048
    ) {
        precondition(memory > 0 && openGroups > 0 && openPages > 0, "an index without memory")
        self.memory = memory
        self.openGroups = openGroups
        self.openPages = openPages
    }
}

/// Why a store refuses a record; nothing was logged.
package enum StoreError: Error, Hashable, Sendable {
    /// No epoch of this set was ever adopted here.
    case unknownSet
    /// The record's epoch is later than any that was adopted, or an epoch is older (C3).
    case wrongEpoch(current: Epoch)
    /// A later epoch has killed the record (DESIGN 3.1).
    case dead
    /// The number is not the one after the last (C4).
    case outOfOrder(expected: RecordNumber)
    /// Another record has this number.
    case conflict
    /// An epoch would take back what is committed.
    case committed(through: RecordNumber)
}

/// An extent as a reader gets it, to be laid over what came before it.
package struct StoredPiece: Hashable, Sendable {
    package var extent: Extent
    /// Content bytes, from the extent's start, that were not truncated away since.
    package var visible: UInt32
}

/// One block of a read.
package enum StoredBlock: Hashable, Sendable {
    /// In the order in which they lie over each other. Empty: zeros.
    case pieces([StoredPiece])
    /// Something of it is damaged here: another member has it (C17).
    case damaged
    /// Something of it was given up: no member has it (decision 0020).
    case lost
}

/// What the store knows of a client's request number (C15).
package enum Duplicate: Hashable, Sendable {
    /// Not seen yet.
    case new
    /// It is this record.
    case known(RecordNumber)
    /// The session has said that it needs no answer to it any more.
    case forgotten
}

/// How much a set, or a disk, holds.
package struct StoreUsage: Hashable, Sendable {
    /// Stored bytes of live extents.
    package var stored: UInt64 = 0
    /// Content bytes of live extents.
    package var logical: UInt64 = 0
    package var chunks: UInt32 = 0

    static func + (left: StoreUsage, right: StoreUsage) -> StoreUsage {
        StoreUsage(
            stored: left.stored + right.stored, logical: left.logical + right.logical,
            chunks: left.chunks + right.chunks)
    }
}

/// What a store tells its user. Effects are carried out in the order in which they come.
package enum StoreOutput: Hashable, Sendable {
    case disk(DiskEffect)
    /// The superblock with the new incarnation is durable (C10).
    case identified(Superblock)
    /// The index is there again; records may be prepared and read.
    case ready
    /// Every log number up to this one survives the loss of power (S2).
    case durable(through: LogNumber)
    /// The answer to `read`: one for each block, from the first.
    case read(token: UInt64, [StoredBlock])
    /// The answer to `loadRecord`; nil if later records replaced it or its bytes are damaged.
    case record(token: UInt64, Record?)
    /// The bytes of this record are damaged: fetch it from a peer and `repair` it (C17).
    case damaged(SetID, Epoch, RecordNumber)
    /// After `stop`: the index is written down; the process may end.
    case stopped
    /// Nothing will be written any more (S4).
    case failed(LogFailure)
}
