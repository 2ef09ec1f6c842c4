// Where in a file: blocks counted from the file's start.

import Base

/// A block of a file: 64 KiB from `rawValue` * 64 KiB on.
package struct FileBlock: Identifier {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }

    /// The block that has the byte at `offset`, which must be below `Limits.fileSize`.
    package init(at offset: UInt64) {
        precondition(offset < Limits.fileSize, "beyond the largest file")
        rawValue = UInt32(offset / UInt64(Limits.block))
    }
    /// A block of a chunk.
    package init(chunk index: UInt32, block: UInt16) {
        rawValue = index * UInt32(Limits.blocksPerChunk) + UInt32(block)
    }
    /// Its first byte in the file.
    package var offset: UInt64 { UInt64(rawValue) * UInt64(Limits.block) }
    /// Which chunk of the file it lies in.
    package var chunk: UInt32 { rawValue / UInt32(Limits.blocksPerChunk) }
    /// Which block of that chunk it is.
    package var blockInChunk: UInt16 { UInt16(rawValue % UInt32(Limits.blocksPerChunk)) }
    /// The block after this one.
    package var next: FileBlock { FileBlock(rawValue: rawValue + 1) }
}

/// The part of one block that a range of a file touches.
package struct BlockSpan: Hashable, Sendable {
    package let block: FileBlock
    /// Bytes within the block.
    package let range: Range<Int>
    /// Where the part begins in the caller's bytes.
    package let offset: Int

    /// Whether it is the whole block.
    package var isWhole: Bool { range.count == Limits.block }
}

extension FileBlock {
    /// Cuts `count` bytes from `offset` on into parts of blocks, front to back.
    package static func spans(at offset: UInt64, count: Int) -> [BlockSpan] {
        var spans: [BlockSpan] = []
        spans.reserveCapacity(count / Limits.block + 2)
        var done = 0
        while done < count {
            let position = offset + UInt64(done)
            let start = Int(position % UInt64(Limits.block))
            let length = min(Limits.block - start, count - done)
            spans.append(
                BlockSpan(
                    block: FileBlock(at: position), range: start..<start + length, offset: done))
            done += length
        }
        return spans
    }
}
