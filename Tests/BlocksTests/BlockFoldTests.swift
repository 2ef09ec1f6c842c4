// Folding against plain arrays: nothing changes but the number of extents.

import Base
import Blocks
import Testing

@Suite struct BlockFoldTests {
    /// Some layers over each other, of which a part may be truncated away, and what they make.
    private static func pile(
        _ random: inout SeededRandom
    ) -> (layers: [(extent: Extent, visible: Int)], block: [UInt8]) {
        var block = [UInt8](repeating: 0, count: Limits.block)
        var layers: [(extent: Extent, visible: Int)] = []
        for _ in 0..<1 + random.below(12) {
            let isWhole = random.chance(1, of: 6)
            // Now and then on the borders of pages, as clients write.
            let unit = random.chance(1, of: 2) ? Limits.page : 1
            let start = isWhole ? 0 : random.below(Limits.block / unit) * unit
            let units = 1 + random.below((Limits.block - start) / unit)
            let bytes = content(isWhole ? Limits.block : units * unit, &random)
            let visible = random.chance(1, of: 4) ? 1 + random.below(bytes.count) : bytes.count
            layers.append((extent(bytes, start: start, block: 9), visible))
            block.replaceSubrange(start..<start + visible, with: bytes[..<visible])
        }
        return (layers, block)
    }

    @Test("The extent of many has their content, from the first visible byte to the last")
    func model() throws {
        var random = SeededRandom(seed: 7)
        var kept = 0
        for _ in 0..<400 {
            let (layers, block) = Self.pile(&random)
            let folded = try BlockFold.fold(layers)
            let start = layers.map { Int($0.extent.start) }.min() ?? 0
            let end = layers.map { Int($0.extent.start) + $0.visible }.max() ?? 0
            #expect(Int(folded.start) == start && Int(folded.length) == end - start)
            #expect(folded.chunk == layers[0].extent.chunk && folded.block == 9)
            #expect(try BlockCodec.decode(folded) == Array(block[start..<end]))
            let isPacked = layers.contains { $0.extent.codec == .lz4 }
            #expect(isPacked || folded.codec == .raw)
            if let last = layers.last, last.visible == Limits.block {
                #expect(folded.pages == last.extent.pages)
                kept += 1
            }
        }
        #expect(kept > 10)
    }

    @Test("A damaged layer is an error, wherever it lies")
    func damage() throws {
        var random = SeededRandom(seed: 8)
        for _ in 0..<200 {
            var (layers, _) = Self.pile(&random)
            let index = random.below(layers.count)
            var payload = Array(layers[index].extent.payload)
            payload[random.below(payload.count)] ^= 1
            layers[index].extent.payload = payload[...]
            #expect(throws: BlockError.storedChecksum) { try BlockFold.fold(layers) }
        }
    }
}
