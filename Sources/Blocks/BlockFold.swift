// Many extents of a block made one (D10).
// Invariants:
//  1. Every input is verified before its bytes count.
//  2. A page that comes whole from one extent keeps the checksum that its writer gave it: no byte
//     of it can change on the way without being found (D9). Only pages that are cut get a new one.

package import Base

/// Folds the extents of one block.
package enum BlockFold {
    /// One extent with the content that these make, each laid over those before it, from the first
    /// visible byte to the last; bytes between them that none has are zeros. Of `visible` bytes of
    /// each, at least one. What was compressed is compressed again; what was not is not tried.
    package static func fold(
        _ layers: [(extent: Extent, visible: Int)]
    ) throws(BlockError) -> Extent {
        guard let top = layers.last else { preconditionFailure("nothing to fold") }
        let start = layers.reduce(Limits.block) { min($0, Int($1.extent.start)) }
        let end = layers.reduce(0) { max($0, Int($1.extent.start) + $1.visible) }
        precondition(start < end, "extents without visible bytes")
        var failure: BlockError?
        let block = [UInt8](unsafeUninitializedCapacity: end) { buffer, count in
            let raw = UnsafeMutableRawBufferPointer(buffer)
            var assembler = BlockAssembler(
                into: UnsafeMutableRawBufferPointer(rebasing: raw[..<end]))
            do throws(BlockError) {
                for layer in layers { try assembler.lay(layer.extent, visible: layer.visible) }
                assembler.finish()
                count = end
            } catch {
                failure = error
                count = 0
            }
        }
        if let failure { throw failure }
        let place = ExtentPlace(
            chunk: top.extent.chunk, block: top.extent.block, start: UInt32(start),
            fileEnd: layers.reduce(0) { max($0, $1.extent.fileEnd) },
            modified: layers.reduce(top.extent.modified) { max($0, $1.extent.modified) })
        let pages = cuts(start..<end).map { page in
            kept(page, layers) ?? Checksum(of: block[page]).value
        }
        return BlockCodec.encode(
            block[start...], at: place, pages: pages,
            compressed: layers.contains { $0.extent.codec == .lz4 })
    }

    /// The parts of a range of a block that lie in one page each.
    private static func cuts(_ range: Range<Int>) -> [Range<Int>] {
        var cuts: [Range<Int>] = []
        var start = range.lowerBound
        while start < range.upperBound {
            let end = min(range.upperBound, (start / Limits.page + 1) * Limits.page)
            cuts.append(start..<end)
            start = end
        }
        return cuts
    }

    /// The checksum of a page that is as its last writer wrote it; nil if several wrote to it, or
    /// it was cut.
    private static func kept(
        _ page: Range<Int>, _ layers: [(extent: Extent, visible: Int)]
    ) -> UInt32? {
        let last = layers.last { layer in
            let start = Int(layer.extent.start)
            return start < page.upperBound && start + layer.visible > page.lowerBound
        }
        guard let last else { return nil }
        let start = Int(last.extent.start)
        guard start + last.visible >= page.upperBound else { return nil }
        let own = cuts(start..<start + Int(last.extent.length))
        return own.firstIndex(of: page).map { last.extent.pages[$0] }
    }
}
