// The superblock of a disk: who it is. Four copies of 4 KiB; two are written at a time, so that
// two good ones are there at any moment. Each carries a sequence; the highest valid one counts.
// Magic (first 4 bytes), version (next 2) and the CRC of the page (last 4) stay where they are in
// every version.

package import Base

/// Identity and incarnation of a disk (S8, C10).
package struct Superblock: Hashable, Sendable {
    package var cell: CellID
    package var owner: DiskOwner
    package var disk: DiskID
    /// The present run, or the last one; a restart is a new incarnation.
    package var incarnation: Incarnation
    /// Raised by every write of the superblock.
    var sequence: UInt64
    /// Bytes of a segment of its log.
    package var segmentSize: Int
    /// Under which name its master votes (M18): the disk's own, or a later one where the log was
    /// found damaged.
    package var vote: DiskID

    static let magic: UInt32 = 0x4253_4C4D  // MLSB
    static let version: UInt16 = 1
    static let copySize = 4 << 10
    static let copies = 4

    /// One copy: 4 KiB.
    func encode() -> [UInt8] {
        var writer = ByteWriter(capacity: Self.copySize)
        writer.write(Self.magic)
        writer.write(Self.version)
        switch owner {
        case .master: writer.write(1 as UInt16)
        case .server: writer.write(2 as UInt16)
        }
        writer.write(cell)
        switch owner {
        case .master(let master): writer.write(UInt64(master.rawValue))
        case .server(let server): writer.write(server)
        }
        writer.write(disk)
        writer.write(incarnation)
        writer.write(sequence)
        writer.write(UInt64(segmentSize))
        writer.write(vote == disk ? .none : vote)
        writer.appendZeros(Self.copySize - 4 - writer.count)
        writer.write(Checksum(of: writer.bytes).value)
        return writer.bytes
    }

    /// Reads one copy. Errors: checksum for a damaged one, version for another release's.
    init(decoding page: ArraySlice<UInt8>) throws(DecodeError) {
        guard page.count == Self.copySize else { throw .truncated }
        var tail = ByteReader(page.suffix(4))
        guard Checksum(of: page.dropLast(4)).value == (try tail.read()) else {
            throw .checksum("superblock")
        }
        var reader = ByteReader(page)
        guard try reader.read() == Self.magic else { throw .checksum("superblock") }
        let version = try reader.read(UInt16.self)
        guard version == Self.version else { throw .version("superblock", found: UInt64(version)) }
        let ownerKind = try reader.read(UInt16.self)
        cell = try reader.readCell()
        let name = try reader.read(UInt64.self)
        switch ownerKind {
        case 1 where name <= UInt64(UInt16.max):
            owner = .master(MasterID(rawValue: UInt16(name)))
        case 2: owner = .server(ServerID(rawValue: name))
        default: throw .invalid(field: "disk owner", value: UInt64(ownerKind))
        }
        disk = try reader.read()
        incarnation = try reader.read()
        sequence = try reader.read()
        let size = try reader.read(UInt64.self)
        guard size % UInt64(Limits.groupAlignment) == 0, (32 << 10...2 << 30).contains(size) else {
            throw .invalid(field: "segment size", value: size)
        }
        segmentSize = Int(size)
        let vote = try reader.read(DiskID.self)
        self.vote = vote == .none ? disk : vote
    }

    init(
        cell: CellID, owner: DiskOwner, disk: DiskID, incarnation: Incarnation, sequence: UInt64,
        segmentSize: Int
    ) {
        self.cell = cell
        self.owner = owner
        self.disk = disk
        self.incarnation = incarnation
        self.sequence = sequence
        self.segmentSize = segmentSize
        vote = disk
    }

    /// The newest valid copy in the bytes of the file; nil if there is none. Throws if a copy
    /// is of another version.
    package static func newest(in file: [UInt8]) throws(LogFailure) -> Superblock? {
        var best: Superblock?
        for copy in 0..<copies where (copy + 1) * copySize <= file.count {
            do throws(DecodeError) {
                let found = try Superblock(
                    decoding: file[copy * copySize..<(copy + 1) * copySize])
                if found.sequence > best?.sequence ?? 0 { best = found }
            } catch {
                if case .version(let format, let version) = error {
                    throw .version(format, found: version)
                }
            }
        }
        return best
    }

    /// Refuses the disk of another cell or owner.
    func check(_ configuration: LogConfiguration) throws(LogFailure) {
        guard cell == configuration.cell else { throw .otherCell(cell) }
        guard owner == configuration.owner else { throw .otherOwner(owner) }
    }
}
