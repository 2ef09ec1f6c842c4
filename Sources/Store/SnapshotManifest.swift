// The first block of a snapshot's file (docs/FORMATS.md): what the snapshot consists of, and where
// in the log a start from it goes on. It is written last, so a snapshot is there when its manifest
// is and every block has the hash that the plan says.

package import Base

/// What a snapshot's file says of itself.
package struct SnapshotManifest: Hashable, Sendable {
    package let plan: SnapshotPlan
    /// Of the plan.
    package let mark: SnapshotMark
    /// Bytes of the user of the log, at most `noteBound`: what it was before the records behind.
    package var note: [UInt8]
    /// Where a start from this snapshot begins to read the log.
    package var start: LogStart

    static let magic: UInt32 = 0x4E53_4C4D  // MLSN
    static let version: UInt16 = 1
    static let headerSize = 64
    /// Bytes of the file that it has for itself; block n of the plan, from 0, is at (n + 1) times
    /// as much.
    static let stride = 1 << 20
    private static let noteBound = 1_024
    private static let segmentBound = 4_096

    /// All fields at once.
    package init(plan: SnapshotPlan, note: [UInt8], start: LogStart) {
        self.plan = plan
        mark = plan.mark
        self.note = note
        self.start = start
    }

    /// Header and content, padded to whole pages.
    func encode(_ identity: SegmentIdentity) -> [UInt8] {
        var content = ByteWriter(capacity: 1_024 + plan.blocks.count * 20)
        content.writeBytes(plan.bytes)
        content.writeBytes(note)
        content.write(start.position.generation)
        content.write(start.position.offset)
        content.write(start.position.number)
        content.writeList(start.segments) {
            $0.write($1.number)
            $0.write($1.generation)
        }
        var writer = ByteWriter(capacity: Self.headerSize + content.count)
        writer.write(Self.magic)
        writer.write(Self.version)
        writer.write(0 as UInt16)
        writer.write(identity.cell)
        writer.write(identity.disk)
        writer.write(plan.slot)
        writer.write(UInt32(content.count))
        writer.write(Checksum(of: content.bytes).value)
        writer.appendZeros(Self.headerSize - 4 - writer.count)
        writer.write(Checksum(of: writer.bytes).value)
        writer.append(content.bytes)
        writer.pad(to: Limits.groupAlignment)
        precondition(writer.count <= Self.stride, "a snapshot of too many blocks")
        return writer.bytes
    }

    /// Errors: checksum for a damaged or foreign one, version for another release's.
    init(decoding bytes: [UInt8], _ identity: SegmentIdentity) throws(DecodeError) {
        let header = bytes.prefix(Self.headerSize)
        guard header.count == Self.headerSize else { throw .truncated }
        var tail = ByteReader(header.suffix(4))
        var reader = ByteReader(header)
        guard try reader.read() == Self.magic,
            Checksum(of: header.dropLast(4)).value == (try tail.read())
        else { throw .checksum("snapshot") }
        let version = try reader.read(UInt16.self)
        guard version == Self.version else { throw .version("snapshot", found: UInt64(version)) }
        _ = try reader.read(UInt16.self)
        let cell = try reader.read(UInt64.self)
        let disk = try reader.read(DiskID.self)
        guard cell == identity.cell, disk == identity.disk else { throw .checksum("snapshot") }
        let slot = try reader.read(Slot.self)
        let length = Int(try reader.read(UInt32.self))
        let checksum = try reader.read(UInt32.self)
        guard length <= bytes.count - Self.headerSize else { throw .truncated }
        let content = bytes[Self.headerSize..<Self.headerSize + length]
        guard Checksum(of: content).value == checksum else { throw .checksum("snapshot") }
        var items = ByteReader(content)
        plan = try SnapshotPlan(decoding: try items.readBytes(bound: Self.stride))
        mark = plan.mark
        note = Array(try items.readBytes(bound: Self.noteBound))
        let position = LogPosition(
            generation: try items.read(), offset: try items.read(), number: try items.read())
        let segments = try items.readList(bound: Self.segmentBound) {
            (reader) throws(DecodeError) in
            LogSegment(number: try reader.read(), generation: try reader.read())
        }
        start = LogStart(position: position, segments: segments)
        try items.finish()
        guard plan.slot == slot else { throw .invalid(field: "slot", value: slot.rawValue) }
    }
}
