// Every bound in the system (S10) and how they relate; BaseTests check the relations.

/// The bounds of sizes, counts and times. Sizes in bytes.
package enum Limits {
    // Files
    /// The unit that is summed: content CRCs are per page.
    package static let page = 4 << 10
    /// The unit of compression; a record lies within one block.
    package static let block = 64 << 10
    /// The unit of placement.
    package static let chunk = 64 << 20
    /// Blocks of a chunk.
    package static let blocksPerChunk = chunk / block
    /// The largest file: 16 TiB (its layout has 262,144 chunks).
    package static let fileSize: UInt64 = 16 << 40
    /// A name in a directory.
    package static let nameLength = 255
    /// The target of a symbolic link.
    package static let symlinkTarget = 4_095
    /// Hard links of one file.
    package static let links: UInt32 = 65_000
    /// The name of an extended attribute.
    package static let attributeName = 255
    /// The value of an extended attribute.
    package static let attributeValue = 64 << 10
    /// All names and values of the extended attributes of one inode.
    package static let attributesPerInode = 64 << 10
    /// Unconfirmed cuts of one file; then Truncate waits.
    package static let cuts = 4
    /// Chunks that one request allocates.
    package static let chunksPerAllocation = 16

    // Replica sets
    /// Members of a set.
    package static let members = 9
    /// Stored bytes after which a set takes no new chunks: 4 GiB.
    package static let setStored: UInt64 = 4 << 30
    /// Chunks after which a set takes no new ones.
    package static let setChunks = 1 << 20
    /// Files of which one extend tells.
    package static let extendedFiles = 64
    /// Sets whose numbers one extend announces.
    package static let setNumbers = 4_096
    /// Open sets the leader keeps per disk.
    package static let openSetsPerDisk = 4
    /// Records prepared but not committed in one set (C4).
    package static let preparedRecords = 1_024
    /// Bytes prepared but not committed in one set and by one client (C4).
    package static let preparedBytes = 16 << 20
    /// Remembered writes of one session in one set (C15).
    package static let duplicatesPerSession = 1_024
    /// Bytes of prepares without an answer from one disk to one other server (DESIGN 3.2).
    package static let prepareCredit = 32 << 20
    /// A message between replicas that may have been lost is sent again after this.
    package static let replicaRetry = Interval.milliseconds(200)
    /// Beacons to a member that does not answer come no rarer than this.
    package static let silentBeacon = Interval.milliseconds(500)
    /// A damaged record is asked for again after this.
    package static let repairRetry = Interval.milliseconds(500)
    /// A primary's lease on its backups, counted from when it asked (C11).
    package static let lease = Interval.seconds(2)
    /// What a backup grants, counted from when it was asked: it serves as the primary only after
    /// that (C11).
    package static let grant = Interval.seconds(3)
    /// Without a read for so long a primary lets its lease run out.
    package static let leaseIdle = Interval.seconds(2)
    /// A lease is asked for again after this.
    package static let leaseBeacon = Interval.milliseconds(250)
    /// A member that owes its primary an answer for so long is said to be silent (C7).
    package static let memberSilence = Interval.seconds(1)
    /// A member that takes longer than this until a record is on its disk delays writes (C21).
    package static let slowAnswer = Interval.seconds(1)
    /// The slowest answer is looked for in windows of this length.
    package static let slowWindow = Interval.milliseconds(1_500)
    /// So many slow windows in a row make a disk gray.
    package static let slowWindows = 3
    /// A gray disk gets nothing new for so long; twice as long when it was gray before, up to so
    /// many times.
    package static let grayPause = Interval.seconds(60)
    package static let grayDoublings = 6
    /// Records of one set that are loaded, fetched or repaired at once.
    package static let recordLoads = 16
    /// Peers' requests for records of one set that wait for the disk.
    package static let recordFetches = 64

    // Frames
    /// Block bytes in one frame.
    package static let frameData = 256 << 10
    /// Payload of a frame: block bytes with record headers.
    package static let framePayload = 264 << 10
    /// Stored bytes of this size and more are not copied, neither to or from a socket nor to the
    /// disk.
    package static let largePayload = 16 << 10
    /// Head of a frame: the coded message without its payload.
    package static let frameHead = 1 << 20
    /// Client bytes a server holds before it stops reading from clients.
    package static let clientBudget = 256 << 20
    /// Requests of one connection without an answer.
    package static let requestsPerConnection = 4_096
    /// Connections a listener holds; more are refused.
    package static let connections = 4_096
    /// Bytes that wait to be sent to one peer; what comes on top is dropped or refused.
    package static let unsentBytes = 64 << 20
    /// Head of a frame before the handshake is over.
    package static let handshakeHead = 4 << 10

    // The log of a disk
    /// A segment.
    package static let segment = 256 << 20
    /// Records start at multiples of it.
    package static let recordAlignment = 64
    /// What a disk writes at least: large payloads start at multiples of it, in memory and in a
    /// segment, so that they go from the one to the other without a copy.
    package static let sector = 512
    /// Groups start at multiples of it.
    package static let groupAlignment = 4 << 10
    /// Bytes of records in one group.
    package static let group = 4 << 20
    /// One write to the disk.
    package static let diskWrite = 1 << 20
    /// The body header of a record (all but the log's own 64 bytes and the payload).
    package static let recordHeader = 4 << 10
    /// The payload of a record.
    package static let recordPayload = 1 << 20
    /// An idle log marks its last group as synced after this.
    package static let markDelay = Interval.milliseconds(20)
    /// Bytes of memory that the index of a disk may take (decision 0021).
    package static let indexMemory = 1 << 30
    /// Within it a scrub reads everything on a disk once (C18): 14 days.
    package static let scrubPeriod = Interval.seconds(14 * 86_400)
    /// Bytes that a scrub reads in a second, at most.
    package static let scrubRate: UInt64 = 20 << 20
    /// Zeros that a log keeps written ahead of itself.
    package static let prewritten = 32 << 20
    /// Between two writes of them, of `diskWrite` bytes; a log that fills as much meanwhile
    /// goes without.
    package static let prewritePause = Interval.milliseconds(20)
    /// Damaged records of a disk that one report names.
    package static let damagedPlaces = 16
    /// A disk on which so many records were ever found damaged is drained (decision 0016).
    package static let wornRecords: UInt64 = 100
    /// The cleaner works while less than this part of a disk can be appended to, in percent.
    package static let cleaningPercent = 3
    /// A block is folded that has more runs than this: extents that don't touch (D10).
    package static let foldRuns = 8
    /// Or more extents.
    package static let foldRecords = 64
    /// Or more than this, and they cover the whole block.
    package static let foldFull = 4
    /// Segments that a new disk of a chunk server has room for: with fewer the cleaner has none to
    /// work with.
    package static let leastSegments = 6
    /// Part of a disk that only deletes, epochs and repairs may use, in percent (C20).
    package static let reservePercent = 5
    /// A disk that is fuller is worth a warning, in percent.
    package static let nearlyFullPercent = 85

    // Masters
    /// Undecided entries (M19).
    package static let undecidedEntries = 1_024
    /// Undecided bytes (M19).
    package static let undecidedBytes = 64 << 20
    /// Commands of one entry and their bytes (M7).
    package static let entry = 256 << 10
    /// Bodies of entries in one message between masters.
    package static let paxosPage = 512 << 10
    /// Bytes on their way to one follower that it has not acknowledged.
    package static let paxosInFlight = 4 << 20
    /// Bytes of one block of a snapshot: it lies in 1 MiB of its file, behind a header.
    package static let snapshotBlock = (1 << 20) - 64
    /// Items of a snapshot that one turn encodes: well below a millisecond.
    package static let snapshotItems = 1_024
    /// A leader calls for a snapshot after so many entries (M15) …
    package static let snapshotEntries: UInt64 = 100_000
    /// … or so many bytes of them, and as many as the last snapshot had, but not more than
    /// `snapshotMost`.
    package static let snapshotBytes: UInt64 = 64 << 20
    /// Bytes of entries after which a leader calls for a snapshot, however large that is.
    package static let snapshotMost: UInt64 = 256 << 20
    /// A page of a snapshot that was asked of another master, and did not come within this, is
    /// asked of the next.
    package static let snapshotRetry = Interval.milliseconds(500)
    /// Waiting reads of a leader (S10).
    package static let waitingReads = 16_384
    /// Masters of a cell, a learner included.
    package static let masters = 15
    /// A learner becomes a voter when it lacks no more slots than this (M17).
    package static let learnerLag: UInt64 = 1_000
    /// A voter that follows on another disk than the one with its vote gets it back after this.
    package static let strangerDelay = Interval.seconds(2)
    /// A leader whose own disk takes longer for a flush hands over (S11).
    package static let sickFlush = Interval.milliseconds(500)
    /// Heartbeats between masters (M8).
    package static let masterHeartbeat = Interval.milliseconds(100)
    /// Silence after which a master may take over, plus jitter.
    package static let takeOver = Interval.milliseconds(400)
    /// A leader without a quorum for this long stops answering (M9).
    package static let quorumLoss = Interval.seconds(1)
    /// A session's term in the log's time (M14).
    package static let sessionTerm = Interval.seconds(30)
    /// A client renews its session this often, so that it outlives 20 s without a network.
    package static let sessionRenewal = Interval.seconds(6)
    /// Sessions of a cell.
    package static let sessions = 16_384
    /// Remembered replies of one session (M12).
    package static let repliesPerSession = 512
    /// Names in one readdir reply.
    package static let directoryPage = 1_024

    // Chunk servers
    /// Between reports of a chunk server to the leader.
    package static let serverHeartbeat = Interval.milliseconds(250)
    /// A chunk server unheard of for this long counts as down.
    package static let serverSilence = Interval.seconds(2)
    /// A primary tells its backups what is committed at least this often while records are open.
    package static let commitBeacon = Interval.milliseconds(20)
    /// A member that is down for so long leaves its sets (C7).
    package static let eviction = Interval.seconds(1)
    /// After a change of leader, and at its start, the cell gets so long before members leave.
    package static let evictionGrace = Interval.seconds(10)
    /// A set gets another member when it lacked one for so long (C19).
    package static let repairDelay = Interval.seconds(60)
    /// Learners that one disk feeds or is, at a time (C19).
    package static let fillsPerDisk = 2
    /// Bytes that a disk copies to learners in a second: at first, at least, at most (C19).
    package static let copyRateFirst: UInt64 = 32 << 20
    package static let copyRateLeast: UInt64 = 2 << 20
    package static let copyRateMost: UInt64 = 1 << 30
    /// While a disk copies, the 99th percentile of its clients' requests may be so many times what
    /// it is otherwise, or what it is on a disk that is quick, whichever is more.
    package static let copySlowdown: Int64 = 2
    package static let quickRequest = Interval.milliseconds(2)
    /// It is looked at this often.
    package static let copyWindow = Interval.milliseconds(500)
    /// What a disk has of a set that it left by a failure is emptied after this (C14): 24 hours.
    package static let trashTime = Interval.seconds(86_400)
    /// Sooner on a disk that is fuller than this, in percent.
    package static let trashPressure = 80
    /// Expired sessions that are kept from writing (C16); the oldest are forgotten first.
    package static let fences = 4_096
    /// Moves of one plan.
    package static let rebalanceMoves = 1_024
    /// Sets in one page of the map of the cell.
    package static let mappedSets = 1_024
    /// Sets in one report.
    package static let reportedSets = 4_096

    // A state that was loaded from a dump (docs/decisions/0014): how far ahead of it ids go on
    package static let loadedIDs: UInt64 = 1 << 32
    package static let loadedEpochs: UInt64 = 1 << 20
    package static let loadedTruncations: UInt32 = 1 << 26
    package static let loadedGenerations: UInt32 = 1 << 18
    package static let loadedConfigurations: UInt32 = 1 << 16
    /// How often a state and its descendants may be loaded.
    package static let loads: UInt32 = 60

    // Clients
    /// A request without an answer is sent again after this.
    package static let requestTimeout = Interval.seconds(2)
    /// A command-line request gives up after this (exit 6), unless it is told otherwise.
    package static let commandDeadline = Interval.seconds(30)
    /// Time between two tries, at the start.
    package static let retryFirst = Interval.milliseconds(10)
    /// Time between two tries, at the most.
    package static let retryLast = Interval.seconds(1)
    /// Connection and handshake.
    package static let connectTimeout = Interval.seconds(2)
    /// A TCP connection on which nothing arrives at the peer for so long is given up. By itself
    /// the kernel sends again ever later, and finds a healed network only long after.
    package static let unheardTime = Interval.seconds(5)
}
