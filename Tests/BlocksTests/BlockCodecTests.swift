// Blocks against plain arrays, and its decoder against damaged and forged bytes.

import Base
import Blocks
import Testing

/// Content of three kinds: random, like text, zeros.
func content(_ count: Int, _ random: inout SeededRandom) -> [UInt8] {
    let kind = random.below(3)
    return (0..<count).map { index in
        switch kind {
        case 0: UInt8.random(in: 0...255, using: &random)
        case 1: UInt8(index % 7 * 13 % 251)
        default: 0
        }
    }
}

func extent(
    _ content: [UInt8], start: Int = 0, block: UInt16 = 0,
    probe: CompressionProbe = CompressionProbe()
) -> Extent {
    var probe = probe
    let place = ExtentPlace(
        chunk: ChunkID(inode: .root, index: 0, version: 0), block: block, start: UInt32(start),
        fileEnd: 0, modified: .zero)
    return BlockCodec.encode(content, at: place, probe: &probe)
}

@Suite struct BlockCodecTests {
    @Test("What is encoded comes back, for every kind of content, place and length")
    func roundTrip() throws {
        var random = SeededRandom(seed: 1)
        for _ in 0..<300 {
            let start = random.below(Limits.block)
            let length = 1 + random.below(Limits.block - start)
            let bytes = content(length, &random)
            let made = extent(bytes, start: start)
            #expect(try BlockCodec.decode(made) == bytes)
            #expect(made.payload.count <= length)
            #expect(made.codec == .raw || made.payload.count <= length - length / 8)
            #expect(made.codec == .raw || length >= BlockCodec.smallestCompressed)
            var probe = CompressionProbe()
            let place = ExtentPlace(
                chunk: made.chunk, block: 0, start: UInt32(start), fileEnd: 0, modified: .zero)
            let copied = bytes.withUnsafeBytes {
                BlockCodec.encode($0, at: place, probe: &probe)
            }
            #expect(copied == made)
        }
    }

    @Test("An extent survives the coding of its header, so its page count is the format's")
    func header() throws {
        var random = SeededRandom(seed: 2)
        for _ in 0..<100 {
            let start = random.below(Limits.block)
            let made = extent(
                content(1 + random.below(Limits.block - start), &random), start: start)
            var writer = ByteWriter()
            made.encodeHeader(into: &writer)
            var head = ByteReader(writer.bytes)
            var payload = ByteReader(made.payload)
            #expect(try Extent(from: &head, payload: &payload) == made)
        }
    }

    @Test("Page checksums are those of the content's parts in each page of the block")
    func pages() {
        var random = SeededRandom(seed: 3)
        let bytes = content(10_000, &random)
        let made = extent(bytes, start: 4_000)
        let cuts = [0, 96, 96 + 4_096, 96 + 8_192, 10_000]
        let sums = zip(cuts, cuts.dropFirst()).map { Checksum(of: bytes[$0..<$1]).value }
        #expect(made.pages == sums)
    }

    @Test("Any changed bit of the payload is an error")
    func flippedBits() {
        var random = SeededRandom(seed: 4)
        for _ in 0..<200 {
            var made = extent(content(1 + random.below(20_000), &random))
            var payload = Array(made.payload)
            payload[random.below(payload.count)] ^= UInt8(1 << random.below(8))
            made.payload = payload[...]
            #expect(throws: BlockError.storedChecksum) { try BlockCodec.decode(made) }
        }
    }

    @Test("A payload with a right checksum that is no LZ4 block of that content never decodes")
    func forgedPayloads() {
        var random = SeededRandom(seed: 5)
        for round in 0..<3_000 {
            let length = 1 + random.below(Limits.block)
            var made = extent([UInt8](repeating: 7, count: length))
            let payload: [UInt8]
            if round % 2 == 0 {
                payload = (0..<1 + random.below(300)).map { _ in
                    UInt8.random(in: 0...255, using: &random)
                }
            } else {
                var mutated = Array(made.payload)
                for _ in 0..<1 + random.below(4) {
                    mutated[random.below(mutated.count)] = .random(in: 0...255, using: &random)
                }
                payload = random.chance(1, of: 3) ? Array(mutated.prefix(round % 30)) : mutated
            }
            made.codec = .lz4
            made.payload = payload[...]
            made.stored = Checksum(of: payload)
            guard let decoded = try? BlockCodec.decode(made) else { continue }
            // Only what still is the same content may pass.
            #expect(decoded == [UInt8](repeating: 7, count: length))
        }
    }

    @Test("Lengths that contradict each other are refused before anything is decoded")
    func invalidHeaders() {
        let made = extent([UInt8](repeating: 1, count: 5_000))
        for change: (inout Extent) -> Void in [
            { $0.length = 0 }, { $0.length = 70_000 }, { $0.start = 65_536 }, { $0.pages = [] },
            { $0.start = 61_000 }, { $0.length = 9_000 },
        ] {
            var bad = made
            change(&bad)
            #expect(throws: BlockError.invalidHeader) { try BlockCodec.decode(bad) }
        }
        var short = made
        short.length = 4_999
        #expect(throws: BlockError.damagedPayload) { try BlockCodec.decode(short) }
        var otherPage = made
        otherPage.pages[1] ^= 1
        #expect(throws: BlockError.pageChecksum(page: 1)) { try BlockCodec.decode(otherPage) }
    }

    @Test("The probe stops after two failures and tries every 16th block")
    func probe() {
        var probe = CompressionProbe()
        for _ in 0..<2 {
            let wants = probe.wantsAttempt()
            #expect(wants)
            probe.note(saved: false)
        }
        var attempts = (0..<16).map { _ in probe.wantsAttempt() }
        #expect(attempts == [Bool](repeating: false, count: 15) + [true])
        probe.note(saved: false)
        attempts = (0..<16).map { _ in probe.wantsAttempt() }
        #expect(attempts.filter { $0 }.count == 1)
        probe.note(saved: true)
        let wants = probe.wantsAttempt()
        #expect(wants)
    }

    @Test("A block whose probe said no is raw although it would compress")
    func skipped() {
        var probe = CompressionProbe()
        probe.note(saved: false)
        probe.note(saved: false)
        #expect(extent([UInt8](repeating: 1, count: 9_000), probe: probe).codec == .raw)
        #expect(extent([UInt8](repeating: 1, count: 9_000)).codec == .lz4)
    }
}

@Suite struct BlockAssemblerTests {
    @Test("Layers give what writing them one after another into zeros gives")
    func model() throws {
        var random = SeededRandom(seed: 6)
        for _ in 0..<200 {
            let size = random.chance(1, of: 2) ? Limits.block : random.below(Limits.block + 1)
            var model = [UInt8](repeating: 0, count: Limits.block)
            var memory = [UInt8](repeating: 0xAA, count: size)
            try memory.withUnsafeMutableBytes { raw in
                var assembler = BlockAssembler(into: raw)
                for _ in 0..<random.below(6) {
                    let start = random.below(Limits.block)
                    let bytes = content(1 + random.below(Limits.block - start), &random)
                    if random.chance(1, of: 4) {
                        bytes.withUnsafeBytes { assembler.lay($0, at: start) }
                        model.replaceSubrange(start..<start + bytes.count, with: bytes)
                    } else {
                        let visible =
                            random.chance(1, of: 3)
                            ? random.below(bytes.count + 1) : bytes.count
                        try assembler.lay(extent(bytes, start: start), visible: visible)
                        model.replaceSubrange(
                            start..<start + visible, with: bytes[..<visible])
                    }
                }
                assembler.finish()
            }
            #expect(memory == Array(model[..<size]))
        }
    }

    @Test("Truncated layers are checked as a whole: a damaged invisible byte is an error")
    func invisibleDamage() {
        var made = extent([UInt8](repeating: 1, count: 6_000))
        made.pages[1] ^= 1
        var memory = [UInt8](repeating: 0, count: Limits.block)
        #expect(throws: BlockError.pageChecksum(page: 1)) {
            try memory.withUnsafeMutableBytes { raw in
                var assembler = BlockAssembler(into: raw)
                try assembler.lay(made, visible: 10)
            }
        }
    }
}
