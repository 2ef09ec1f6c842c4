// The names of things. Each is a type of its own, so that no bare integer crosses a module.
// Invariant: an identity is never reissued (S8).

/// A name made of one unsigned integer.
package protocol Identifier: RawRepresentable, Hashable, Comparable, Sendable,
    CustomStringConvertible
where RawValue: FixedWidthInteger & UnsignedInteger & Sendable {
    /// Makes the name of any value; none is invalid by itself.
    init(rawValue: RawValue)
}

extension Identifier {
    /// The names are ordered as their integers.
    @inlinable package static func < (left: Self, right: Self) -> Bool {
        left.rawValue < right.rawValue
    }
    /// The integer in decimal.
    package var description: String { String(rawValue) }
}

/// One installation of Martlet: 128 random bits, made by `init` or `up`.
package struct CellID: Hashable, Sendable, CustomStringConvertible {
    /// The upper 64 bits.
    package let high: UInt64
    /// The lower 64 bits.
    package let low: UInt64
    /// Makes the name of its two halves.
    package init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }
    /// Reads 32 hexadecimal digits; nil for anything else.
    package init?(hexadecimal text: some StringProtocol) {
        guard text.utf8.count == 32, let high = UInt64(text.prefix(16), radix: 16),
            let low = UInt64(text.suffix(16), radix: 16)
        else { return nil }
        self.init(high: high, low: low)
    }
    /// 32 lower-case hexadecimal digits.
    package var description: String {
        let digits = [high, low].map { value in
            let text = String(value, radix: 16)
            return String(repeating: "0", count: 16 - text.count) + text
        }
        return digits.joined()
    }
}

/// A master, 1 to 65,535; named by the operator, unique in its cell.
package struct MasterID: Identifier {
    package let rawValue: UInt16
    package init(rawValue: UInt16) { self.rawValue = rawValue }
}

/// A disk of a chunk server, as others reach it: each disk has a loop, an address and an id of its
/// own (docs/decisions/0005). The lower 58 bits name the server process: random, made at its first
/// start, kept in its folder; its disks differ in the upper six.
package struct ServerID: Identifier {
    /// Disks of one process.
    package static let disks = 64
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }

    /// The same for all disks of one process: they end together.
    package var unit: UInt64 { rawValue & (1 << 58 - 1) }
    /// The id of one of the disks of the process whose first one has this id.
    package func disk(_ number: Int) -> ServerID {
        precondition((0..<Self.disks).contains(number), "a server has 64 disks at most")
        return ServerID(rawValue: rawValue ^ UInt64(number) << 58)
    }
    /// Which disk of this process another id is; nil: it is another process's.
    package func number(of other: ServerID) -> Int? {
        unit == other.unit ? Int((rawValue ^ other.rawValue) >> 58) : nil
    }
}

/// A disk of a chunk server or of a master: random, in its superblock. Members of a replica set
/// are disks.
package struct DiskID: Identifier {
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }
}

/// A run of a disk; a restart is a new one (C10). How many times the disk has been started, above
/// 16 bits that differ from run to run: so a run of an old image of a disk is known from one of
/// the disk, also where both were started as often (S8).
package struct Incarnation: Identifier {
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }

    /// How many times the disk has been started; 0: an earlier release did, and only counted.
    private var starts: UInt64 { rawValue >> 16 }
    /// The run that begins now; `salt`: a number that other runs don't have.
    package func next(salt: UInt64) -> Incarnation {
        Incarnation(rawValue: (starts + 1) << 16 | salt & 0xFFFF)
    }
    /// Whether it is a later run of the same disk.
    package func follows(_ other: Incarnation) -> Bool {
        self > other && (starts > other.starts || starts == 0)
    }
}

/// A replica set: one primary and its backups for up to 4 GiB of stored data.
package struct SetID: Identifier {
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }
}

/// The configuration number of a replica set; raised only through the Paxos log (C1).
package struct Epoch: Identifier {
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }
    /// Before the first configuration.
    package static let none = Epoch(rawValue: 0)
    /// The epoch after this one.
    package var next: Epoch { Epoch(rawValue: rawValue + 1) }
}

/// A record's number in its replica set: 1, 2, 3 … without gaps (C4). 0: nothing yet.
package struct RecordNumber: Identifier {
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }
    /// Before the first record.
    package static let none = RecordNumber(rawValue: 0)
    /// The number after this one.
    package var next: RecordNumber { RecordNumber(rawValue: rawValue + 1) }
}

/// An inode: generation (24 bit) above slot (40 bit); never reissued. The root is slot 1.
package struct InodeID: Identifier {
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }
    /// Joins a slot (below 2^40) and its generation (below 2^24).
    package init(slot: UInt64, generation: UInt32) {
        precondition(slot < 1 << 40 && generation < 1 << 24, "inode id out of range")
        rawValue = UInt64(generation) << 40 | slot
    }
    /// The place in the inode table.
    package var slot: UInt64 { rawValue & (1 << 40 - 1) }
    /// How many inodes had this slot before.
    package var generation: UInt32 { UInt32(rawValue >> 40) }
    /// The root directory of a cell.
    package static let root = InodeID(slot: 1, generation: 0)
}

/// 64 MiB of one file. `version` is raised when a truncation drops the chunk and it is written
/// again; clones will use it too (D17).
package struct ChunkID: Hashable, Comparable, Sendable, CustomStringConvertible {
    /// The file.
    package let inode: InodeID
    /// Which 64 MiB of the file, from 0.
    package let index: UInt32
    /// Which content of that place.
    package let version: UInt32
    /// Joins the three parts.
    package init(inode: InodeID, index: UInt32, version: UInt32) {
        self.inode = inode
        self.index = index
        self.version = version
    }
    /// By file, then place, then version.
    package static func < (left: ChunkID, right: ChunkID) -> Bool {
        (left.inode, left.index, left.version) < (right.inode, right.index, right.version)
    }
    /// `INODE/INDEX.VERSION`
    package var description: String { "\(inode)/\(index).\(version)" }
}

/// A client's session, registered through the log (M12).
package struct SessionID: Identifier {
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }
    /// No session: requests that change nothing need none.
    package static let none = SessionID(rawValue: 0)
}

/// The number of one request of a session; a retry keeps its number (M12, C15).
package struct RequestNumber: Identifier {
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }
    /// The number after this one.
    package var next: RequestNumber { RequestNumber(rawValue: rawValue + 1) }
}

/// A place in the Paxos log: 1, 2, 3 … without gaps. 0: before the first.
package struct Slot: Identifier {
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }
    /// Before the first entry.
    package static let none = Slot(rawValue: 0)
    /// The slot after this one.
    package var next: Slot { Slot(rawValue: rawValue + 1) }
}

/// The number of a record in the log of one disk: 1, 2, 3 …; never reused (DESIGN 3.1).
package struct LogNumber: Identifier {
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }
    /// Before the first record.
    package static let none = LogNumber(rawValue: 0)
    /// The number after this one.
    package var next: LogNumber { LogNumber(rawValue: rawValue + 1) }
}
