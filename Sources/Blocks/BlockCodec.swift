// The two forms of block content: bytes in memory, and the payload of an extent (D8, D9).
// Invariants:
//  1. A payload is compressed only if that saves at least 1/8 and the range has 512 bytes.
//  2. Decoding writes exactly `extent.length` bytes, whatever the payload says, or throws.
//  3. No byte leaves a decoder before the checksum of its page proved right, and LZ4 sees no
//     payload before its own did.

package import Base
internal import CLZ4

/// Why an extent could not be decoded.
package enum BlockError: Error, Hashable, Sendable {
    /// The payload does not have the checksum of its header.
    case storedChecksum
    /// A page of the content does not have the checksum of the header.
    case pageChecksum(page: Int)
    /// The payload is no LZ4 block of the announced content length.
    case damagedPayload
    /// Lengths in the header contradict each other.
    case invalidHeader
}

/// Where content belongs, and what its writer knew of the file.
package struct ExtentPlace: Hashable, Sendable {
    package var chunk: ChunkID
    /// Which block of the chunk, below `Limits.blocksPerChunk`.
    package var block: UInt16
    /// First byte within the block.
    package var start: UInt32
    package var fileEnd: UInt64
    package var modified: Timestamp

    /// All fields at once.
    package init(
        chunk: ChunkID, block: UInt16, start: UInt32, fileEnd: UInt64, modified: Timestamp
    ) {
        self.chunk = chunk
        self.block = block
        self.start = start
        self.fileEnd = fileEnd
        self.modified = modified
    }
}

/// Makes extents of content and content of extents.
package enum BlockCodec {
    /// Ranges shorter than this stay raw.
    package static let smallestCompressed = 512

    /// Makes an extent of 1 to 64 KiB of content that lie within one block; copies what it keeps.
    package static func encode(
        _ content: UnsafeRawBufferPointer, at place: ExtentPlace, probe: inout CompressionProbe
    ) -> Extent {
        if let packed = compress(content, probe: &probe) {
            return extent(content, at: place, codec: .lz4, payload: packed[...])
        }
        return extent(content, at: place, codec: .raw, payload: copy(content)[...])
    }

    /// The same for content in an array, whose memory a raw extent goes on sharing.
    package static func encode(
        _ content: [UInt8], at place: ExtentPlace, probe: inout CompressionProbe
    ) -> Extent {
        content.withUnsafeBytes { raw in
            if let packed = compress(raw, probe: &probe) {
                return extent(raw, at: place, codec: .lz4, payload: packed[...])
            }
            return extent(raw, at: place, codec: .raw, payload: content[...])
        }
    }

    /// Writes the content of an extent to `destination`, which has exactly `extent.length` bytes;
    /// what was there is garbage after an error.
    package static func decode(
        _ extent: Extent, into destination: UnsafeMutableRawBufferPointer
    ) throws(BlockError) {
        precondition(destination.count == Int(extent.length), "destination of another length")
        guard extent.codec == .lz4 else {
            guard isSound(extent) else { throw .invalidHeader }
            guard extent.payload.count == destination.count else { throw .damagedPayload }
            extent.payload.withUnsafeBytes { destination.copyMemory(from: $0) }
            // Those of the pages cover every byte of the payload: one look is enough.
            do throws(BlockError) {
                try verifyPages(of: extent, content: UnsafeRawBufferPointer(destination))
            } catch {
                try verify(extent)
                throw error
            }
            return
        }
        try verify(extent)
        let decoded = extent.payload.withUnsafeBytes { payload in
            LZ4_decompress_safe(
                payload.baseAddress?.assumingMemoryBound(to: CChar.self),
                destination.baseAddress?.assumingMemoryBound(to: CChar.self),
                Int32(payload.count), Int32(destination.count))
        }
        guard Int(decoded) == destination.count else { throw .damagedPayload }
        try verifyPages(of: extent, content: UnsafeRawBufferPointer(destination))
    }

    /// The content of an extent.
    package static func decode(_ extent: Extent) throws(BlockError) -> [UInt8] {
        guard isSound(extent) else { throw .invalidHeader }
        var failure: BlockError?
        let content = [UInt8](unsafeUninitializedCapacity: Int(extent.length)) { buffer, count in
            let raw = UnsafeMutableRawBufferPointer(buffer)
            do throws(BlockError) {
                try decode(
                    extent,
                    into: UnsafeMutableRawBufferPointer(rebasing: raw[..<Int(extent.length)]))
                count = Int(extent.length)
            } catch {
                failure = error
                count = 0
            }
        }
        if let failure { throw failure }
        return content
    }

    /// Checks the lengths of the header and the checksum of the payload.
    package static func verify(_ extent: Extent) throws(BlockError) {
        guard isSound(extent) else { throw .invalidHeader }
        guard extent.payload.withUnsafeBytes({ Checksum(of: $0) }) == extent.stored else {
            throw .storedChecksum
        }
    }

    private static func isSound(_ extent: Extent) -> Bool {
        extent.length > 0 && extent.start < Limits.block
            && extent.length <= UInt32(Limits.block) - extent.start
            && extent.payload.count <= Limits.block
            && extent.pages.count
                == Extent.pageCount(start: extent.start, length: extent.length)
    }

    private static func verifyPages(
        of extent: Extent, content: UnsafeRawBufferPointer
    ) throws(BlockError) {
        var offset = 0
        for (index, sum) in extent.pages.enumerated() {
            let end = pageEnd(after: offset, start: Int(extent.start), count: content.count)
            let page = UnsafeRawBufferPointer(rebasing: content[offset..<end])
            guard Checksum(of: page).value == sum else { throw .pageChecksum(page: index) }
            offset = end
        }
    }

    /// Where, in content that starts at `start` of its block, the page of `offset` ends.
    private static func pageEnd(after offset: Int, start: Int, count: Int) -> Int {
        min(count, ((start + offset) / Limits.page + 1) * Limits.page - start)
    }

    /// An extent of content whose page checksums are known.
    static func encode(
        _ content: ArraySlice<UInt8>, at place: ExtentPlace, pages: [UInt32], compressed: Bool
    ) -> Extent {
        var probe = CompressionProbe()
        let packed =
            compressed ? content.withUnsafeBytes { compress($0, probe: &probe) } : nil
        let payload = packed.map { $0[...] } ?? content
        return Extent(
            chunk: place.chunk, block: place.block, start: place.start,
            length: UInt32(content.count), codec: packed == nil ? .raw : .lz4,
            stored: Checksum(of: payload), pages: pages, fileEnd: place.fileEnd,
            modified: place.modified, payload: payload)
    }

    private static func extent(
        _ content: UnsafeRawBufferPointer, at place: ExtentPlace, codec: Codec,
        payload: ArraySlice<UInt8>
    ) -> Extent {
        let length = UInt32(content.count)
        precondition(
            length > 0 && length <= UInt32(Limits.block) - place.start, "not within a block")
        var pages: [UInt32] = []
        pages.reserveCapacity(Extent.pageCount(start: place.start, length: length))
        var offset = 0
        while offset < content.count {
            let end = pageEnd(after: offset, start: Int(place.start), count: content.count)
            pages.append(
                Checksum(of: UnsafeRawBufferPointer(rebasing: content[offset..<end])).value)
            offset = end
        }
        return Extent(
            chunk: place.chunk, block: place.block, start: place.start, length: length,
            codec: codec, stored: payload.withUnsafeBytes { Checksum(of: $0) }, pages: pages,
            fileEnd: place.fileEnd, modified: place.modified, payload: payload)
    }

    /// The content as an LZ4 block, or nil where that is not tried or saves too little.
    private static func compress(
        _ content: UnsafeRawBufferPointer, probe: inout CompressionProbe
    ) -> [UInt8]? {
        guard content.count >= smallestCompressed, probe.wantsAttempt() else { return nil }
        // LZ4 gives up by itself where the result does not fit in 7/8.
        let bound = content.count - content.count / 8
        let packed = withUnsafeTemporaryAllocation(byteCount: bound, alignment: 16) { scratch in
            let count = LZ4_compress_default(
                content.baseAddress?.assumingMemoryBound(to: CChar.self),
                scratch.baseAddress?.assumingMemoryBound(to: CChar.self),
                Int32(content.count), Int32(bound))
            return count > 0
                ? copy(UnsafeRawBufferPointer(rebasing: scratch[..<Int(count)])) : nil
        }
        probe.note(saved: packed != nil)
        return packed
    }

    private static func copy(_ bytes: UnsafeRawBufferPointer) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: bytes.count) { buffer, count in
            UnsafeMutableRawBufferPointer(buffer).copyMemory(from: bytes)
            count = bytes.count
        }
    }
}
