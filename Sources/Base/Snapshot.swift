// How masters name a snapshot of their state, and what it consists of (M15, M16).

/// The first 128 bits of a SHA-256.
package struct ShortHash: Hashable, Sendable, CustomStringConvertible {
    package let high: UInt64
    package let low: UInt64

    /// Both halves.
    package init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }
    /// Of bytes.
    package init(of bytes: [UInt8]) {
        var reader = ByteReader(Digest(sha256: bytes).bytes)
        guard let hash = try? ShortHash(from: &reader) else { preconditionFailure("digest") }
        self = hash
    }
    /// Both halves, the upper first.
    package func encode(into writer: inout ByteWriter) {
        writer.write(high)
        writer.write(low)
    }
    /// Reads what `encode` wrote.
    package init(from reader: inout ByteReader) throws(DecodeError) {
        high = try reader.read()
        low = try reader.read()
    }
    /// 32 hexadecimal digits.
    package var description: String { CellID(high: high, low: low).description }
}

/// A snapshot: equal marks mean equal bytes.
package struct SnapshotMark: Hashable, Sendable {
    /// The last slot whose entry is in it.
    package var slot: Slot
    /// The hash of its plan.
    package var root: ShortHash

    /// Both fields at once.
    package init(slot: Slot, root: ShortHash) {
        self.slot = slot
        self.root = root
    }
    /// Slot, root.
    package func encode(into writer: inout ByteWriter) {
        writer.write(slot)
        root.encode(into: &writer)
    }
    /// Reads what `encode` wrote.
    package init(from reader: inout ByteReader) throws(DecodeError) {
        slot = try reader.read()
        root = try ShortHash(from: &reader)
    }
}

/// What a snapshot consists of; its hash is the root.
package struct SnapshotPlan: Hashable, Sendable {
    /// A block of the state.
    package struct Block: Hashable, Sendable {
        package var length: UInt32
        package var hash: ShortHash
        /// Both fields at once.
        package init(length: UInt32, hash: ShortHash) {
            self.length = length
            self.hash = hash
        }
    }
    package var slot: Slot
    /// The hash of the log up to the slot.
    package var entry: ShortHash
    /// What whoever wrote it says of the state beside the blocks, at most `headBound` bytes.
    package var head: [UInt8]
    package var blocks: [Block]

    /// Blocks of the largest plan: it fits in one block itself.
    package static let blockBound = 50_000
    private static let version: UInt16 = 2
    private static let headBound = 8 << 10

    /// All fields at once.
    package init(slot: Slot, entry: ShortHash, head: [UInt8] = [], blocks: [Block] = []) {
        self.slot = slot
        self.entry = entry
        self.head = head
        self.blocks = blocks
    }
    /// The coded plan.
    package var bytes: [UInt8] {
        var writer = ByteWriter(capacity: 32 + blocks.count * 20)
        writer.write(Self.version)
        writer.write(slot)
        entry.encode(into: &writer)
        writer.writeBytes(head)
        writer.writeList(blocks) {
            $0.write($1.length)
            $1.hash.encode(into: &$0)
        }
        return writer.bytes
    }
    /// Slot and root.
    package var mark: SnapshotMark { SnapshotMark(slot: slot, root: ShortHash(of: bytes)) }

    /// Reads a coded plan, and nothing else.
    package init(decoding bytes: ArraySlice<UInt8>) throws(DecodeError) {
        var reader = ByteReader(bytes)
        let version = try reader.read(UInt16.self)
        guard version == Self.version else { throw .version("snapshot", found: UInt64(version)) }
        slot = try reader.read()
        entry = try ShortHash(from: &reader)
        head = Array(try reader.readBytes(bound: Self.headBound))
        blocks = try reader.readList(bound: Self.blockBound) { (reader) throws(DecodeError) in
            Block(length: try reader.read(), hash: try ShortHash(from: &reader))
        }
        guard blocks.allSatisfy({ (1...UInt32(Limits.snapshotBlock)).contains($0.length) }) else {
            throw .invalid(field: "length of a block", value: slot.rawValue)
        }
        try reader.finish()
    }
}
