// The cell as its leader sees it at one moment: the only input of every placement decision.
//
// Invariant: the tables are sorted by id, each id once; members of sets need not be known.

package import Base

/// Servers, disks and open sets, with their use and load.
package struct ClusterView: Hashable, Sendable {
    /// A chunk server, or of one with several disks one of them.
    package struct Server: Hashable, Sendable {
        package var id: ServerID
        /// Its machine: servers with the same host fail together.
        package var host: String
        /// Its rack; empty: unknown.
        package var rack: String
        /// Whether the leader heard of it within `Limits.serverSilence`.
        package var isUp: Bool
        /// Its copies are to go elsewhere.
        package var isDraining: Bool

        /// All fields at once.
        package init(
            id: ServerID, host: String, rack: String, isUp: Bool, isDraining: Bool = false
        ) {
            self.id = id
            self.host = host
            self.rack = rack
            self.isUp = isUp
            self.isDraining = isDraining
        }
        /// Its process, as a name: the same for all disks of one.
        var unit: String { "\(id.unit)" }
    }

    /// A disk of a server.
    package struct Disk: Hashable, Sendable {
        package var id: DiskID
        package var server: ServerID
        /// Bytes that may be used there.
        package var capacity: UInt64
        /// Bytes that are used.
        package var used: UInt64
        /// Bytes read and written in the last second.
        package var recentBytes: UInt64
        /// Requests that wait there.
        package var queue: UInt32
        /// How long it takes until something is durable there, in microseconds, averaged.
        package var flushTime: UInt32
        /// It delayed writes too long, lately (C21).
        package var isGray: Bool
        /// A write or flush failed there (S4).
        package var hasFailed: Bool

        /// All fields at once.
        package init(
            id: DiskID, server: ServerID, capacity: UInt64, used: UInt64,
            recentBytes: UInt64 = 0, queue: UInt32 = 0, flushTime: UInt32 = 0,
            isGray: Bool = false, hasFailed: Bool = false
        ) {
            self.id = id
            self.server = server
            self.capacity = capacity
            self.used = used
            self.recentBytes = recentBytes
            self.queue = queue
            self.flushTime = flushTime
            self.isGray = isGray
            self.hasFailed = hasFailed
        }
        /// Bytes that are free.
        package var free: UInt64 { capacity > used ? capacity - used : 0 }
        /// Of the capacity, 0 to 100; a disk without capacity is full.
        package var usedPercent: Int {
            guard capacity > used else { return 100 }
            return Int(UInt128(used) * 100 / UInt128(capacity))
        }
        /// Loads in steps of twice as much, so that noise decides nothing.
        package var loadClass: Int {
            let bytes = UInt64.bitWidth - (recentBytes >> 20).leadingZeroBitCount
            let waiting = UInt32.bitWidth - (queue >> 2).leadingZeroBitCount
            return max(bytes, waiting, delayClass)
        }
        /// Of the flush time, in the same steps; 0 below a millisecond.
        package var delayClass: Int { UInt32.bitWidth - (flushTime >> 10).leadingZeroBitCount }
    }

    /// A set that takes new chunks.
    package struct OpenSet: Hashable, Sendable {
        package var set: SetID
        package var members: [DiskID]
        package var primary: DiskID
        /// Stored bytes of live extents.
        package var stored: UInt64
        /// Bytes read and written in the last second.
        package var recentBytes: UInt64

        /// All fields at once.
        package init(
            set: SetID, members: [DiskID], primary: DiskID, stored: UInt64, recentBytes: UInt64
        ) {
            self.set = set
            self.members = members
            self.primary = primary
            self.stored = stored
            self.recentBytes = recentBytes
        }
    }

    /// In ascending order of ids.
    package let servers: [Server]
    package let disks: [Disk]
    package let sets: [OpenSet]
    /// A disk whose delay is of a higher class is much slower than most.
    package let slowestUsual: Int

    /// Tables in any order, each id once.
    package init(servers: [Server], disks: [Disk], sets: [OpenSet]) {
        self.servers = servers.sorted { $0.id < $1.id }
        self.disks = disks.sorted { $0.id < $1.id }
        self.sets = sets.sorted { $0.set < $1.set }
        let delays = disks.lazy.filter { !$0.hasFailed }.map(\.delayClass).sorted()
        let middle = delays.isEmpty ? 0 : delays[(delays.count - 1) / 2]
        slowestUsual = max(middle, Self.quickClass) + 2
        precondition(Self.isStrict(self.servers, \.id), "a server is in the view once")
        precondition(Self.isStrict(self.disks, \.id), "a disk is in the view once")
        precondition(Self.isStrict(self.sets, \.set), "a set is in the view once")
    }

    /// Of disks that nobody calls slow: up to 8 ms.
    private static let quickClass = 3

    private static func isStrict<Item, Key: Comparable>(
        _ items: [Item], _ key: (Item) -> Key
    ) -> Bool {
        zip(items, items.dropFirst()).allSatisfy { key($0) < key($1) }
    }

    private static func find<Item, Key: Comparable>(
        _ items: [Item], _ wanted: Key, _ key: (Item) -> Key
    ) -> Item? {
        var low = 0
        var high = items.count
        while low < high {
            let middle = (low + high) / 2
            if key(items[middle]) < wanted { low = middle + 1 } else { high = middle }
        }
        return low < items.count && key(items[low]) == wanted ? items[low] : nil
    }

    /// The disk, if it is known.
    package func disk(_ id: DiskID) -> Disk? { Self.find(disks, id, \.id) }
    /// The server, if it is known.
    package func server(_ id: ServerID) -> Server? { Self.find(servers, id, \.id) }

    /// Why nothing new may be placed on a disk.
    package enum Obstacle: String, Hashable, Sendable {
        case unknown = "is not known"
        case serverIsDown = "is on a server that is down"
        case hasFailed = "has failed"
        case isGray = "was too slow lately"
        case isDraining = "is on a server that is drained"
        /// Over 95 %: the rest is for deletes, epochs and repairs (C20).
        case isFull = "is full"
    }

    /// What speaks against the disk; nil: it may be used.
    package func obstacle(_ id: DiskID) -> Obstacle? {
        guard let disk = disk(id), let server = server(disk.server) else { return .unknown }
        return obstacle(disk, server)
    }

    func obstacle(_ disk: Disk, _ server: Server) -> Obstacle? {
        if !server.isUp { return .serverIsDown }
        if disk.hasFailed { return .hasFailed }
        if disk.isGray { return .isGray }
        if server.isDraining { return .isDraining }
        let bound = UInt128(disk.capacity) * UInt128(100 - Limits.reservePercent)
        return UInt128(disk.used) * 100 > bound || disk.free == 0 ? .isFull : nil
    }
}
