// The messages by which a primary compares the copies of its set (C18).

package import Base

/// Blocks of a chunk whose content is asked for, as of one record.
package struct CompareRequest: Hashable, Sendable {
    /// Blocks of one request.
    package static let blocks = 16
    package var chunk: ChunkID
    package var first: UInt16
    /// 1 to `blocks`.
    package var count: UInt8
    /// Everything up to this record takes part, and nothing after it.
    package var number: RecordNumber

    /// All fields at once.
    package init(chunk: ChunkID, first: UInt16, count: UInt8, number: RecordNumber) {
        self.chunk = chunk
        self.first = first
        self.count = count
        self.number = number
    }
    /// The blocks.
    package var range: Range<Int> { Int(first)..<Int(first) + Int(count) }

    func encode(into writer: inout ByteWriter) {
        writer.write(chunk)
        writer.write(first)
        writer.write(count)
        writer.write(number)
    }
    init(from reader: inout ByteReader) throws(DecodeError) {
        chunk = try reader.readChunk()
        first = try reader.read()
        count = try reader.read()
        number = try reader.read()
        guard (1...Self.blocks).contains(Int(count)), range.upperBound <= Limits.blocksPerChunk
        else { throw .invalid(field: "compared blocks", value: UInt64(count)) }
    }
}

/// What a copy holds of a block.
package struct BlockDigest: Hashable, Sendable {
    /// CRC32C of the 64 KiB of content; zeros where nothing was written.
    package var content: Checksum
    /// The last record that it is made of.
    package var newest: RecordNumber

    /// Both fields at once.
    package init(content: Checksum, newest: RecordNumber) {
        self.content = content
        self.newest = newest
    }
}

/// The answer to a `CompareRequest`.
package struct CompareAnswer: Hashable, Sendable {
    package var request: CompareRequest
    /// Blocks of the whole chunk there.
    package var blocks: UInt16
    /// Of each block asked for; nil: it is damaged, or changed under the read. Empty: the copy
    /// is beyond that record.
    package var digests: [BlockDigest?]

    /// All fields at once.
    package init(request: CompareRequest, blocks: UInt16, digests: [BlockDigest?]) {
        self.request = request
        self.blocks = blocks
        self.digests = digests
    }
    func encode(into writer: inout ByteWriter) {
        request.encode(into: &writer)
        writer.write(blocks)
        writer.writeList(digests) { writer, digest in
            writer.writeOptional(digest) { writer, digest in
                writer.write(digest.content.value)
                writer.write(digest.newest)
            }
        }
    }
    init(from reader: inout ByteReader) throws(DecodeError) {
        request = try CompareRequest(from: &reader)
        blocks = try reader.read()
        digests = try reader.readList(bound: CompareRequest.blocks) {
            (reader) throws(DecodeError) in
            try reader.readOptional { (reader) throws(DecodeError) in
                BlockDigest(
                    content: Checksum(value: try reader.read()), newest: try reader.read())
            }
        }
        guard digests.isEmpty || digests.count == Int(request.count) else {
            throw .invalid(field: "digests", value: UInt64(digests.count))
        }
    }
}
