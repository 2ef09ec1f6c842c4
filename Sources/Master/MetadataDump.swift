// The file of `martlet meta dump` (docs/FORMATS.md, section dump): a header, the plan of a
// snapshot, and its blocks. The header names the hash of the plan, the plan those of the blocks.
//
// Invariant: what `read` returns was checked as a whole; anything else is refused with the reason.

package import Base
package import Namespace

/// Why a file is no dump that can be used.
package enum DumpFault: Error, Hashable, Sendable, CustomStringConvertible {
    case foreign
    case version(UInt16)
    case truncated(String)
    case damaged(String)
    case trailing
    case unreadable(String)
    /// It can't become the first state of a cell.
    case exhausted(String)

    package var description: String {
        switch self {
        case .foreign: "it is no dump of a cell's metadata (martlet meta dump makes one)"
        case .version(let version):
            "it is a dump of format \(version); this release reads format "
                + "\(DumpHeader.version): use the release that made it"
        case .truncated(let part): "it was cut off within \(part): take another copy of it"
        case .damaged(let part): "\(part) was damaged or altered: take another copy of it"
        case .trailing: "something follows its end: it was altered; take another copy of it"
        case .unreadable(let reason): "it can't be read: \(reason)"
        case .exhausted(let reason): "it can't begin another cell: \(reason)"
        }
    }
}

/// The first bytes of a dump.
package struct DumpHeader: Hashable, Sendable {
    package var cell: CellID
    package var mark: SnapshotMark
    /// When it was made, by the clock of whoever made it.
    package var written: Timestamp
    /// Bytes of the plan, and of all blocks together.
    package var plan: UInt32
    package var blocks: UInt64

    private static let magic: UInt32 = 0x444D_4C4D  // MLMD
    static let version: UInt16 = 1
    /// Bytes of it.
    package static let size = 128

    /// For a snapshot with this plan.
    package init(cell: CellID, plan: SnapshotPlan, written: Timestamp) {
        self.cell = cell
        mark = plan.mark
        self.written = written
        self.plan = UInt32(plan.bytes.count)
        blocks = plan.blocks.reduce(0) { $0 + UInt64($1.length) }
    }
    package var bytes: [UInt8] {
        var writer = ByteWriter(capacity: Self.size)
        writer.write(Self.magic)
        writer.write(Self.version)
        writer.write(0 as UInt16)
        writer.write(cell)
        mark.encode(into: &writer)
        writer.write(written)
        writer.write(plan)
        writer.write(blocks)
        writer.appendZeros(Self.size - 4 - writer.count)
        writer.write(Checksum(of: writer.bytes).value)
        return writer.bytes
    }
    /// Reads what `bytes` wrote.
    package init(decoding bytes: [UInt8]) throws(DumpFault) {
        let part = "its header"
        var start = ByteReader(bytes[...])
        guard (try? start.read(UInt32.self)) == Self.magic else { throw .foreign }
        guard bytes.count == Self.size else { throw .truncated(part) }
        do throws(DecodeError) {
            var reader = ByteReader(bytes[...])
            _ = try reader.read(UInt32.self)
            let version = try reader.read(UInt16.self)
            _ = try reader.read(UInt16.self)
            cell = try reader.readCell()
            mark = try SnapshotMark(from: &reader)
            written = try reader.readTimestamp()
            plan = try reader.read()
            blocks = try reader.read()
            var tail = ByteReader(bytes.suffix(4))
            let isWhole = Checksum(of: bytes.dropLast(4)).value == (try tail.read())
            if version != Self.version, isWhole {
                throw DecodeError.version("dump", found: UInt64(version))
            }
            guard isWhole, plan <= Limits.snapshotBlock else { throw DecodeError.checksum("dump") }
        } catch {
            guard case .version(_, let found) = error else { throw .damaged(part) }
            throw .version(UInt16(truncatingIfNeeded: found))
        }
    }
}

/// A dump that was read and checked.
package struct MetadataDump: Sendable {
    package let header: DumpHeader
    let entry: ShortHash
    let masters: KnownMasters
    package private(set) var state: Namespace

    /// The ids of the masters that the cell had.
    package var masterIDs: [MasterID] { masters.membership.members.map(\.id) }

    /// The log's time of its last change.
    package var time: Timestamp { state.time }
    package var files: UInt64 { state.counts.files }
    package var directories: UInt64 { state.counts.directories }
    /// Of all files.
    package var bytes: UInt64 { state.counts.fileBytes }
    package var sets: Int { state.setRecords.count }

    /// Reads and checks all of a dump. `next` gives so many of the following bytes, and fewer at
    /// the end of the file only.
    package init(
        reading next: (Int) throws(DumpFault) -> [UInt8]
    ) throws(DumpFault) {
        func exactly(_ count: Int, _ part: String) throws(DumpFault) -> [UInt8] {
            let bytes = try next(count)
            guard bytes.count == count else { throw .truncated(part) }
            return bytes
        }
        header = try DumpHeader(decoding: try next(DumpHeader.size))
        let planBytes = try exactly(Int(header.plan), "its plan")
        guard ShortHash(of: planBytes) == header.mark.root,
            let plan = try? SnapshotPlan(decoding: planBytes[...]), plan.slot == header.mark.slot,
            let masters = try? KnownMasters(decoding: plan.head),
            header == DumpHeader(cell: header.cell, plan: plan, written: header.written)
        else { throw .damaged("its plan") }
        self.masters = masters
        entry = plan.entry
        var decoder = SnapshotDecoder()
        for (number, block) in plan.blocks.enumerated() {
            let part = "block \(number) of \(plan.blocks.count)"
            let bytes = try exactly(Int(block.length), part)
            guard ShortHash(of: bytes) == block.hash, (try? decoder.add(bytes[...])) != nil else {
                throw .damaged(part)
            }
        }
        guard try next(1).isEmpty else { throw .trailing }
        do throws(DecodeError) {
            state = try decoder.finish()
        } catch { throw .damaged("the state in it (\(error))") }
        guard state.applied <= plan.slot, Self.blocks(of: state) == plan.blocks else {
            throw .damaged("the state in it")
        }
    }

    /// Equal states are equal bytes.
    private static func blocks(of state: Namespace) -> [SnapshotPlan.Block] {
        var encoder = SnapshotEncoder(state)
        var blocks: [SnapshotPlan.Block] = []
        while true {
            switch encoder.advance(items: Limits.snapshotItems) {
            case .more: break
            case .block(let block):
                blocks.append(
                    SnapshotPlan.Block(length: UInt32(block.count), hash: ShortHash(of: block)))
            case .end: return blocks
            }
        }
    }

    /// Makes its state the first one of a new cell.
    package mutating func startOver() throws(DumpFault) {
        if let reason = state.startOver() { throw .exhausted(reason) }
    }
}
