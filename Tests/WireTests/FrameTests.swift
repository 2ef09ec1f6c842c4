// The frame's header, bit by bit.

import Base
import Testing
import Wire

@Suite struct FrameTests {
    private func header(
        magic: UInt32 = 0x4654_524D, version: UInt8 = 1, flags: UInt8 = 0, kind: UInt16 = 16,
        head: UInt32 = 0, payload: UInt32 = 0
    ) -> [UInt8] {
        var writer = ByteWriter()
        writer.write(magic)
        writer.write(version)
        writer.write(flags)
        writer.write(kind)
        writer.write(7 as UInt64)
        writer.write(head)
        writer.write(payload)
        writer.write(0 as UInt32)
        writer.write(Checksum(of: writer.bytes).value)
        return writer.bytes
    }

    @Test("The header's bytes are those of docs/FORMATS.md")
    func vector() throws {
        let frame = Frame(
            kind: .readReply, request: 0x0102_0304_0506_0708, head: [1, 2, 3], payload: [9, 9])
        let bytes = frame.header
        #expect(bytes.count == Frame.headerSize)
        #expect(Array(bytes[0..<4]) == Array("MRTF".utf8))
        #expect(Array(bytes[4..<8]) == [1, 0, 35, 0])
        #expect(Array(bytes[8..<16]) == [8, 7, 6, 5, 4, 3, 2, 1])
        #expect(Array(bytes[16..<24]) == [3, 0, 0, 0, 2, 0, 0, 0])
        var sums = ByteWriter()
        sums.write(Checksum(of: [1, 2, 3]).value)
        sums.write(Checksum(of: Array(bytes[0..<28])).value)
        #expect(Array(bytes[24..<32]) == sums.bytes)
        let header = try FrameHeader(bytes[...])
        #expect(header.headLength == 3 && header.payloadLength == 2)
        #expect(try header.frame(head: [1, 2, 3], payload: [9, 9]) == frame)
        #expect(throws: DecodeError.checksum("frame head")) {
            try header.frame(head: [1, 2, 4], payload: [9, 9])
        }
    }

    @Test("Any changed bit of a header is an error")
    func flippedBits() {
        let bytes = Frame(kind: .hello, request: 5, head: [1], payload: []).header
        for bit in 0..<bytes.count * 8 {
            var changed = bytes
            changed[bit / 8] ^= UInt8(1 << (bit % 8))
            #expect(throws: DecodeError.self) { try FrameHeader(changed[...]) }
        }
    }

    @Test("Well summed headers with a value out of bounds are refused by that value")
    func bounds() {
        func check(_ bytes: [UInt8], _ error: DecodeError) {
            #expect(throws: error) { try FrameHeader(bytes[...]) }
        }
        check(header(magic: 1), .version("frame magic", found: 1))
        check(header(version: 2), .version("frame", found: 2))
        check(header(flags: 1), .invalid(field: "frame flags", value: 1))
        check(header(kind: 999), .invalid(field: "frame kind", value: 999))
        let head = Limits.frameHead + 1
        check(header(head: UInt32(head)), .oversize(count: head, bound: Limits.frameHead))
        let payload = Limits.framePayload + 1
        check(
            header(payload: UInt32(payload)),
            .oversize(count: payload, bound: Limits.framePayload))
        check(Array(header().prefix(31)), .truncated)
        check(header() + [0], .trailing(count: 1))
    }

    @Test("Random bytes are no header")
    func fuzz() {
        var samples = Samples(seed: 1)
        for _ in 0..<2_000 {
            let bytes = samples.bytes(64)
            #expect(throws: DecodeError.self) { try FrameHeader(bytes[...]) }
        }
    }
}
