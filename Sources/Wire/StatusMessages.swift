// What `martlet status` shows: the leader's view of the cell.

package import Base

/// One master as the leader sees it.
package struct MasterStatus: Hashable, Sendable {
    package var id: MasterID
    package var address: PeerAddress
    package var isLeader: Bool
    /// The leader heard of it within a second.
    package var isUp: Bool
    /// Its log is damaged: it takes part but does not vote.
    package var hasRot: Bool
    /// False: a learner, which is to get a vote (M17).
    package var isVoter: Bool
    /// It runs on another disk than the one that has its vote (M18).
    package var isStranger: Bool
    /// The last slot it is known to have on disk.
    package var durable: Slot
    /// Up to here it knows the log to be chosen, and has applied it.
    package var chosen: Slot
    /// Of the leader; it does not hear those of others.
    package var connections: ConnectionCounts?
    /// The slot of its newest durable snapshot (M15); 0: it has none.
    package var snapshot: Slot
    /// The first slot of the log that it can still give to others (M16).
    package var firstKept: Slot

    /// All fields at once.
    package init(
        id: MasterID, address: PeerAddress, isLeader: Bool, isUp: Bool, hasRot: Bool,
        isVoter: Bool, isStranger: Bool, durable: Slot, chosen: Slot, snapshot: Slot,
        firstKept: Slot, connections: ConnectionCounts? = nil
    ) {
        self.id = id
        self.address = address
        self.isLeader = isLeader
        self.isUp = isUp
        self.hasRot = hasRot
        self.isVoter = isVoter
        self.isStranger = isStranger
        self.durable = durable
        self.chosen = chosen
        self.snapshot = snapshot
        self.firstKept = firstKept
        self.connections = connections
    }
}

/// What went wrong with connections to a server since its process began.
package struct ConnectionCounts: Hashable, Sendable {
    /// Frames that did not decode or were out of place; each ended its connection.
    package var badFrames: UInt64
    /// Callers that were turned away, or took too long to say who they are.
    package var refused: UInt64

    /// Both fields at once.
    package init(badFrames: UInt64 = 0, refused: UInt64 = 0) {
        self.badFrames = badFrames
        self.refused = refused
    }
    func encode(into writer: inout ByteWriter) {
        writer.write(badFrames)
        writer.write(refused)
    }
    init(from reader: inout ByteReader) throws(DecodeError) {
        badFrames = try reader.read()
        refused = try reader.read()
    }
}

/// The file system that a disk's folder is on. Several disks may be on one: then what is free
/// there is there once.
package struct DiskSpace: Hashable, Sendable {
    /// The same for all disks of a machine that share it; 0: unknown.
    package var fileSystem: UInt64
    /// Bytes that are free there now.
    package var free: UInt64
    /// Bytes that the disk has taken of it and does not use yet.
    package var spare: UInt64

    /// All fields at once.
    package init(fileSystem: UInt64 = 0, free: UInt64 = 0, spare: UInt64 = 0) {
        self.fileSystem = fileSystem
        self.free = free
        self.spare = spare
    }
    func encode(into writer: inout ByteWriter) {
        for value in [fileSystem, free, spare] { writer.write(value) }
    }
    init(from reader: inout ByteReader) throws(DecodeError) {
        fileSystem = try reader.read()
        free = try reader.read()
        spare = try reader.read()
    }
}

/// How the scrub of a disk stands (C18).
package struct ScrubReport: Hashable, Sendable {
    package var progress: ScrubProgress
    /// Records that are damaged now.
    package var damaged: UInt64
    /// Bytes that it reads in a second, while it reads.
    package var bytesPerSecond: UInt64
    /// Where some of them are, at most `Limits.damagedPlaces`.
    package var places: [DamagedPlace]

    /// All fields at once.
    package init(
        progress: ScrubProgress = ScrubProgress(), damaged: UInt64 = 0, bytesPerSecond: UInt64 = 0,
        places: [DamagedPlace] = []
    ) {
        self.progress = progress
        self.damaged = damaged
        self.bytesPerSecond = bytesPerSecond
        self.places = places
    }
    /// Records that were ever found damaged.
    package var everDamaged: UInt64 { progress.found + progress.met }
    /// Blocks whose copies differ, and nobody can tell which is right.
    package var disputed: UInt64 { max(progress.disputes, progress.disputed) }

    func encode(into writer: inout ByteWriter) {
        progress.encode(into: &writer)
        writer.write(damaged)
        writer.write(bytesPerSecond)
        writer.writeList(places) { $1.encode(into: &$0) }
    }
    init(from reader: inout ByteReader) throws(DecodeError) {
        progress = try ScrubProgress(from: &reader)
        damaged = try reader.read()
        bytesPerSecond = try reader.read()
        places = try reader.readList(bound: Limits.damagedPlaces) {
            (reader) throws(DecodeError) in try DamagedPlace(from: &reader)
        }
    }
}

/// What a disk says of itself in each report.
package struct DiskReport: Hashable, Sendable {
    package var disk: DiskID
    package var incarnation: Incarnation
    /// Bytes that Martlet may use there.
    package var capacity: UInt64
    /// Bytes in segments that are not free.
    package var used: UInt64
    /// Stored (compressed) bytes of live extents.
    package var stored: UInt64
    /// Content bytes of live extents.
    package var logical: UInt64
    /// Bytes written and read in the last second: recent load.
    package var recentBytes: UInt64
    /// Requests that wait for the disk or a set there, averaged.
    package var queue: UInt32
    /// How long it takes until what was appended is durable, in microseconds, averaged.
    package var flushTime: UInt32
    /// A write or flush failed: the disk is out of service until a restart (S4).
    package var hasFailed: Bool
    package var scrub: ScrubReport
    package var space: DiskSpace
    package var cleaning: CleaningReport

    /// All fields at once.
    package init(
        disk: DiskID, incarnation: Incarnation, capacity: UInt64, used: UInt64, stored: UInt64,
        logical: UInt64, recentBytes: UInt64, queue: UInt32 = 0, flushTime: UInt32 = 0,
        hasFailed: Bool, scrub: ScrubReport = ScrubReport(), space: DiskSpace = DiskSpace(),
        cleaning: CleaningReport = CleaningReport()
    ) {
        self.disk = disk
        self.incarnation = incarnation
        self.capacity = capacity
        self.used = used
        self.stored = stored
        self.logical = logical
        self.recentBytes = recentBytes
        self.queue = queue
        self.flushTime = flushTime
        self.hasFailed = hasFailed
        self.scrub = scrub
        self.space = space
        self.cleaning = cleaning
    }
    package func encode(into writer: inout ByteWriter) {
        writer.write(disk)
        writer.write(incarnation)
        for value in [capacity, used, stored, logical, recentBytes] { writer.write(value) }
        writer.write(queue)
        writer.write(flushTime)
        writer.write(hasFailed)
        scrub.encode(into: &writer)
        space.encode(into: &writer)
        cleaning.encode(into: &writer)
    }
    package init(from reader: inout ByteReader) throws(DecodeError) {
        disk = try reader.read()
        incarnation = try reader.read()
        capacity = try reader.read()
        used = try reader.read()
        stored = try reader.read()
        logical = try reader.read()
        recentBytes = try reader.read()
        queue = try reader.read()
        flushTime = try reader.read()
        hasFailed = try reader.readBool()
        scrub = try ScrubReport(from: &reader)
        space = try DiskSpace(from: &reader)
        cleaning = try CleaningReport(from: &reader)
    }
}

/// One chunk server as the leader sees it.
package struct ServerStatus: Hashable, Sendable {
    package var id: ServerID
    /// The folder name or host that it calls itself by.
    package var name: String
    package var rack: String
    package var address: PeerAddress
    package var isUp: Bool
    /// Its disk is older than the masters know it, or a copy of one: nothing of it is used (S8).
    package var isRefused: Bool
    package var disks: [DiskReport]
    /// Disks that the masters know, and that it does not report any more.
    package var lost: [DiskID]
    package var connections: ConnectionCounts

    /// All fields at once.
    package init(
        id: ServerID, name: String, rack: String, address: PeerAddress, isUp: Bool,
        isRefused: Bool = false, disks: [DiskReport], lost: [DiskID] = [],
        connections: ConnectionCounts = ConnectionCounts()
    ) {
        self.id = id
        self.name = name
        self.rack = rack
        self.address = address
        self.isUp = isUp
        self.isRefused = isRefused
        self.disks = disks
        self.lost = lost
        self.connections = connections
    }
}

/// Counts of replica sets by what they lack.
package struct SetCounts: Hashable, Sendable {
    package var total: UInt64
    /// Every member is up and serves.
    package var healthy: UInt64
    /// A member is down or reconciling: writes wait.
    package var waiting: UInt64
    /// Fewer members than the goal.
    package var underReplicated: UInt64

    /// All fields at once.
    package init(total: UInt64, healthy: UInt64, waiting: UInt64, underReplicated: UInt64) {
        self.total = total
        self.healthy = healthy
        self.waiting = waiting
        self.underReplicated = underReplicated
    }
}

/// The state of the cell.
package struct CellStatus: Hashable, Sendable {
    package var cell: CellID
    package var goal: UInt8
    /// Of the leader's ballot: the number of the masters' configuration (M17), and the round.
    package var configuration: UInt32
    package var round: UInt64
    package var chosen: Slot
    package var applied: Slot
    package var masters: [MasterStatus]
    package var servers: [ServerStatus]
    package var sets: SetCounts
    package var files: UInt64
    package var directories: UInt64
    package var sessions: UInt64
    /// Sum of the sizes of all files.
    package var fileBytes: UInt64

    /// All fields at once.
    package init(
        cell: CellID, goal: UInt8, configuration: UInt32, round: UInt64, chosen: Slot,
        applied: Slot,
        masters: [MasterStatus], servers: [ServerStatus], sets: SetCounts, files: UInt64,
        directories: UInt64, sessions: UInt64, fileBytes: UInt64
    ) {
        self.cell = cell
        self.goal = goal
        self.configuration = configuration
        self.round = round
        self.chosen = chosen
        self.applied = applied
        self.masters = masters
        self.servers = servers
        self.sets = sets
        self.files = files
        self.directories = directories
        self.sessions = sessions
        self.fileBytes = fileBytes
    }

    package func encode(into writer: inout ByteWriter) {
        writer.write(cell)
        writer.write(goal)
        writer.write(configuration)
        writer.write(round)
        writer.write(chosen)
        writer.write(applied)
        writer.writeList(masters) { writer, master in
            writer.write(master.id)
            master.address.encode(into: &writer)
            for flag in [
                master.isLeader, master.isUp, master.hasRot, master.isVoter, master.isStranger,
            ] { writer.write(flag) }
            for slot in [master.durable, master.chosen, master.snapshot, master.firstKept] {
                writer.write(slot)
            }
            writer.writeOptional(master.connections) { $1.encode(into: &$0) }
        }
        writer.writeList(servers) { writer, server in
            writer.write(server.id)
            writer.write(server.name)
            writer.write(server.rack)
            server.address.encode(into: &writer)
            writer.write(server.isUp)
            writer.write(server.isRefused)
            writer.writeList(server.disks) { $1.encode(into: &$0) }
            writer.writeList(server.lost) { $0.write($1) }
            server.connections.encode(into: &writer)
        }
        for count in [sets.total, sets.healthy, sets.waiting, sets.underReplicated] {
            writer.write(count)
        }
        for count in [files, directories, sessions, fileBytes] { writer.write(count) }
    }
    package init(from reader: inout ByteReader) throws(DecodeError) {
        cell = try reader.readCell()
        goal = try reader.read()
        configuration = try reader.read()
        round = try reader.read()
        chosen = try reader.read()
        applied = try reader.read()
        masters = try reader.readList(bound: 64) { (reader) throws(DecodeError) in
            MasterStatus(
                id: try reader.read(), address: try PeerAddress(from: &reader),
                isLeader: try reader.readBool(), isUp: try reader.readBool(),
                hasRot: try reader.readBool(), isVoter: try reader.readBool(),
                isStranger: try reader.readBool(), durable: try reader.read(),
                chosen: try reader.read(), snapshot: try reader.read(),
                firstKept: try reader.read(),
                connections: try reader.readOptional { (reader) throws(DecodeError) in
                    try ConnectionCounts(from: &reader)
                })
        }
        servers = try reader.readList(bound: 4_096) { (reader) throws(DecodeError) in
            ServerStatus(
                id: try reader.read(), name: try reader.readString(bound: 300),
                rack: try reader.readString(bound: 300),
                address: try PeerAddress(from: &reader), isUp: try reader.readBool(),
                isRefused: try reader.readBool(),
                disks: try reader.readList(bound: 64) { (reader) throws(DecodeError) in
                    try DiskReport(from: &reader)
                },
                lost: try reader.readList(bound: 4_096) { (reader) throws(DecodeError) in
                    try reader.read()
                }, connections: try ConnectionCounts(from: &reader))
        }
        sets = SetCounts(
            total: try reader.read(), healthy: try reader.read(), waiting: try reader.read(),
            underReplicated: try reader.read())
        files = try reader.read()
        directories = try reader.read()
        sessions = try reader.read()
        fileBytes = try reader.read()
    }
}
