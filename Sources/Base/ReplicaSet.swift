// Where data is: sets, their members, and which chunks of a file are in which set.

/// The members of a replica set in one epoch (C1).
package struct SetConfiguration: Hashable, Sendable {
    package var set: SetID
    package var epoch: Epoch
    /// One of `members`.
    package var primary: DiskID
    /// In ascending order; 1 to `Limits.members`.
    package var members: [DiskID]
    /// With fewer members than this nothing is written (C5).
    package var minMembers: UInt8
    /// What is damaged on every member is given up, by an operator's word (decision 0020).
    package var acceptsLoss = false

    /// All fields at once; no loss is accepted.
    package init(
        set: SetID, epoch: Epoch, primary: DiskID, members: [DiskID], minMembers: UInt8 = 1
    ) {
        self.set = set
        self.epoch = epoch
        self.primary = primary
        self.members = members
        self.minMembers = minMembers
    }
    /// The members but the primary, in ascending order.
    package var backups: [DiskID] { members.filter { $0 != primary } }

    /// In the byte of `minMembers`: it accepts loss.
    private static let lossFlag: UInt8 = 0x80

    /// Set, epoch, primary, members, minMembers with the flag of an accepted loss.
    package func encode(into writer: inout ByteWriter) {
        writer.write(set)
        writer.write(epoch)
        writer.write(primary)
        writer.writeList(members) { $0.write($1) }
        writer.write(minMembers | (acceptsLoss ? Self.lossFlag : 0))
    }
    /// Reads what `encode` wrote; a primary that is no member is an error.
    package init(from reader: inout ByteReader) throws(DecodeError) {
        set = try reader.read()
        epoch = try reader.read()
        primary = try reader.read()
        members = try reader.readList(bound: Limits.members) { (reader) throws(DecodeError) in
            try reader.read(DiskID.self)
        }
        let last = try reader.read(UInt8.self)
        minMembers = last & ~Self.lossFlag
        acceptsLoss = last & Self.lossFlag != 0
        guard members.contains(primary) else {
            throw .invalid(field: "primary", value: primary.rawValue)
        }
    }
}

/// A member that delays the writes of a set (C21), as its primary sees it.
package struct SlowMember: Hashable, Sendable {
    package var disk: DiskID
    /// Windows in a row in which an answer took longer than `Limits.slowAnswer`.
    package var windows: UInt8

    /// Both fields at once.
    package init(disk: DiskID, windows: UInt8) {
        self.disk = disk
        self.windows = windows
    }
}

/// How to reach a process.
package struct PeerAddress: Hashable, Sendable {
    /// `host:port`; empty where it listens on a Unix socket only.
    package var network: String
    /// Path of a Unix socket; empty where there is none.
    package var socket: String
    /// Boot id of its machine: the Unix socket is for peers with the same one.
    package var machine: String

    /// All fields at once.
    package init(network: String, socket: String, machine: String) {
        self.network = network
        self.socket = socket
        self.machine = machine
    }
    /// Three texts.
    package func encode(into writer: inout ByteWriter) {
        writer.write(network)
        writer.write(socket)
        writer.write(machine)
    }
    /// Reads what `encode` wrote.
    package init(from reader: inout ByteReader) throws(DecodeError) {
        network = try reader.readString(bound: 300)
        socket = try reader.readString(bound: 108)
        machine = try reader.readString(bound: 64)
    }
}

/// A disk, its server, and how to reach it.
package struct DiskLocation: Hashable, Sendable {
    package var disk: DiskID
    package var server: ServerID
    package var address: PeerAddress
    /// Whether the leader heard of its server within `Limits.serverSilence`.
    package var isUp: Bool

    /// All fields at once.
    package init(disk: DiskID, server: ServerID, address: PeerAddress, isUp: Bool) {
        self.disk = disk
        self.server = server
        self.address = address
        self.isUp = isUp
    }
    /// Disk, server, address, up.
    package func encode(into writer: inout ByteWriter) {
        writer.write(disk)
        writer.write(server)
        address.encode(into: &writer)
        writer.write(isUp)
    }
    /// Reads what `encode` wrote.
    package init(from reader: inout ByteReader) throws(DecodeError) {
        disk = try reader.read()
        server = try reader.read()
        address = try PeerAddress(from: &reader)
        isUp = try reader.readBool()
    }
}

/// A set with the places of its members, as clients and servers get it.
package struct SetView: Hashable, Sendable {
    package var configuration: SetConfiguration
    /// One for each member, in the same order.
    package var locations: [DiskLocation]
    /// What was written to the set and made known with a file's size has numbers up to this: a
    /// backup that has it committed may answer (DESIGN 3.2, Reads).
    package var number: RecordNumber

    /// All fields at once.
    package init(
        configuration: SetConfiguration, locations: [DiskLocation],
        number: RecordNumber = .none
    ) {
        self.configuration = configuration
        self.locations = locations
        self.number = number
    }
    /// Configuration, locations, number.
    package func encode(into writer: inout ByteWriter) {
        configuration.encode(into: &writer)
        writer.writeList(locations) { $1.encode(into: &$0) }
        writer.write(number)
    }
    /// Reads what `encode` wrote.
    package init(from reader: inout ByteReader) throws(DecodeError) {
        configuration = try SetConfiguration(from: &reader)
        locations = try reader.readList(bound: Limits.members) { (reader) throws(DecodeError) in
            try DiskLocation(from: &reader)
        }
        number = try reader.read()
    }
}

/// A record of a set, by its number.
package struct SetNumber: Hashable, Sendable {
    package var set: SetID
    package var number: RecordNumber

    /// Both fields at once.
    package init(set: SetID, number: RecordNumber) {
        self.set = set
        self.number = number
    }
    /// Set, number.
    package func encode(into writer: inout ByteWriter) {
        writer.write(set)
        writer.write(number)
    }
    /// Reads what `encode` wrote.
    package init(from reader: inout ByteReader) throws(DecodeError) {
        set = try reader.read()
        number = try reader.read()
    }
}

/// A truncation that went through the middle of a chunk and is not confirmed by its primary yet.
package struct Cut: Hashable, Sendable {
    /// The file's truncation number that it made.
    package var truncation: UInt32
    /// The file's size after it: bytes from here on are gone.
    package var size: UInt64

    /// Both fields at once.
    package init(truncation: UInt32, size: UInt64) {
        self.truncation = truncation
        self.size = size
    }
    /// Truncation, size.
    package func encode(into writer: inout ByteWriter) {
        writer.write(truncation)
        writer.write(size)
    }
    /// Reads what `encode` wrote.
    package init(from reader: inout ByteReader) throws(DecodeError) {
        truncation = try reader.read()
        size = try reader.read()
    }
}

/// One chunk of a file that has a place.
package struct LayoutChunk: Hashable, Sendable {
    package var chunk: ChunkID
    package var set: SetID

    /// Both fields at once.
    package init(chunk: ChunkID, set: SetID) {
        self.chunk = chunk
        self.set = set
    }
    /// Chunk, set.
    package func encode(into writer: inout ByteWriter) {
        writer.write(chunk)
        writer.write(set)
    }
    /// Reads what `encode` wrote.
    package init(from reader: inout ByteReader) throws(DecodeError) {
        chunk = try reader.readChunk()
        set = try reader.read()
    }
}

/// Where a range of a file's chunks is. Chunks that are not listed were never written.
package struct Layout: Hashable, Sendable {
    package var inode: InodeID
    /// How many truncations shortened the file; rides on every chunk request.
    package var truncation: UInt32
    /// At most `Limits.cuts`.
    package var cuts: [Cut]
    /// By ascending index.
    package var chunks: [LayoutChunk]
    /// Every set named in `chunks`.
    package var sets: [SetView]

    /// All fields at once.
    package init(
        inode: InodeID, truncation: UInt32, cuts: [Cut], chunks: [LayoutChunk], sets: [SetView]
    ) {
        self.inode = inode
        self.truncation = truncation
        self.cuts = cuts
        self.chunks = chunks
        self.sets = sets
    }
    /// All fields in order.
    package func encode(into writer: inout ByteWriter) {
        writer.write(inode)
        writer.write(truncation)
        writer.writeList(cuts) { $1.encode(into: &$0) }
        writer.writeList(chunks) { $1.encode(into: &$0) }
        writer.writeList(sets) { $1.encode(into: &$0) }
    }
    /// Reads what `encode` wrote.
    package init(from reader: inout ByteReader) throws(DecodeError) {
        inode = try reader.read()
        truncation = try reader.read()
        cuts = try reader.readList(bound: Limits.cuts) { (reader) throws(DecodeError) in
            try Cut(from: &reader)
        }
        chunks = try reader.readList(bound: 4_096) { (reader) throws(DecodeError) in
            try LayoutChunk(from: &reader)
        }
        sets = try reader.readList(bound: 4_096) { (reader) throws(DecodeError) in
            try SetView(from: &reader)
        }
    }
}

/// What a disk can take beside what it has (C20). The raw coding is a byte.
package enum DiskFill: UInt8, Hashable, Comparable, Sendable {
    case roomy = 0
    /// No data now: it waits for the folding of blocks.
    case folding = 1
    /// No data.
    case full = 2

    package static func < (left: DiskFill, right: DiskFill) -> Bool {
        left.rawValue < right.rawValue
    }
    /// Reads the raw coding.
    package init(from reader: inout ByteReader) throws(DecodeError) {
        let raw = try reader.read(UInt8.self)
        guard let fill = DiskFill(rawValue: raw) else {
            throw .invalid(field: "fill of a disk", value: UInt64(raw))
        }
        self = fill
    }
}
