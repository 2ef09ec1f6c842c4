// What the log of a disk took in, and what was written again to keep it usable.

/// Counted since the process began. Sizes in bytes of log.
package struct CleaningReport: Hashable, Sendable {
    /// New records.
    package var appended: UInt64 = 0
    /// Living records that the cleaner wrote again.
    package var moved: UInt64 = 0
    /// Segments that it emptied.
    package var segments: UInt64 = 0
    /// Blocks whose many extents were written again as one, by the primary of their set; these
    /// are new records too.
    package var folded: UInt64 = 0

    /// Nothing was done.
    package init() {}
    package func encode(into writer: inout ByteWriter) {
        for value in [appended, moved, segments, folded] { writer.write(value) }
    }
    package init(from reader: inout ByteReader) throws(DecodeError) {
        appended = try reader.read()
        moved = try reader.read()
        segments = try reader.read()
        folded = try reader.read()
    }
}
