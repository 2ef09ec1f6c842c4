// What everything stands on: bounds that fit together, checksums, codings, names, randomness.

import Base
import Testing

@Suite struct LimitsTests {
    @Test("The sizes fit into each other")
    func sizes() {
        #expect(Limits.block % Limits.page == 0 && Limits.chunk % Limits.block == 0)
        #expect(Limits.blocksPerChunk <= Int(UInt16.max))
        #expect(Limits.fileSize % UInt64(Limits.chunk) == 0)
        // Block numbers of a file and chunk numbers fit their types.
        #expect(Limits.fileSize / UInt64(Limits.block) <= UInt64(UInt32.max))
        #expect(UInt64(Limits.chunk) <= UInt64(UInt32.max))
        // Two whole raw blocks travel in one frame, with a full head.
        #expect(Limits.frameData >= 2 * Limits.block)
        #expect(Limits.framePayload >= Limits.frameData)
        #expect(Limits.segment % Limits.groupAlignment == 0)
        #expect(Limits.groupAlignment % Limits.recordAlignment == 0)
        #expect(Limits.group <= Limits.segment && Limits.diskWrite <= Limits.group)
        #expect(Limits.recordPayload + Limits.recordHeader <= Limits.group)
        #expect(Limits.framePayload <= Limits.recordPayload)
        // A Paxos entry travels in one frame.
        #expect(Limits.entry <= Limits.frameHead)
        // So do the answers of one extend, each with attributes and cuts.
        #expect(Limits.extendedFiles * 256 <= Limits.frameHead)
    }

    @Test("The windows fit: what a client may have open, servers remember")
    func windows() {
        #expect(Limits.duplicatesPerSession >= Limits.preparedRecords)
        #expect(Limits.preparedBytes >= Limits.frameData)
        #expect(Limits.clientBudget >= Limits.preparedBytes)
        #expect(Limits.repliesPerSession > 0 && Limits.repliesPerSession <= Limits.undecidedEntries)
        #expect(Limits.chunksPerAllocation <= Int(Limits.setStored / UInt64(Limits.chunk)))
        #expect(Limits.requestsPerConnection >= Limits.duplicatesPerSession)
    }

    @Test("The times fit: nobody gives up before the other had his chances")
    func times() {
        #expect(Limits.takeOver >= Limits.masterHeartbeat * 3)
        #expect(Limits.quorumLoss > Limits.takeOver)
        #expect(Limits.sessionTerm >= Limits.sessionRenewal * 3)
        #expect(Limits.serverSilence >= Limits.serverHeartbeat * 4)
        #expect(Limits.commandDeadline > Limits.requestTimeout)
        #expect(Limits.retryFirst < Limits.retryLast)
        #expect(Limits.commitBeacon < Limits.serverHeartbeat)
    }
}

@Suite struct ChecksumTests {
    @Test("CRC32C gives the published values")
    func crcVectors() {
        #expect(Checksum(of: Array("123456789".utf8)).value == 0xE306_9283)
        // RFC 3720, B.4
        #expect(Checksum(of: [UInt8](repeating: 0, count: 32)).value == 0x8A91_36AA)
        #expect(Checksum(of: [UInt8](repeating: 0xFF, count: 32)).value == 0x62A8_AB43)
        #expect(Checksum(of: Array(0..<32)).value == 0x46DD_794E)
        #expect(Checksum(of: [UInt8]()).value == 0)
    }

    @Test("A checksum in parts is that of the whole")
    func continued() {
        var random = SeededRandom(seed: 1)
        for _ in 0..<50 {
            let bytes = (0..<random.below(3_000)).map { _ in
                UInt8.random(in: 0...255, using: &random)
            }
            let cut = random.below(bytes.count + 1)
            let whole = bytes.withUnsafeBytes { raw in
                let first = Checksum(of: UnsafeRawBufferPointer(rebasing: raw[..<cut]))
                return Checksum(of: UnsafeRawBufferPointer(rebasing: raw[cut...]), after: first)
            }
            #expect(whole == Checksum(of: bytes))
            #expect(Checksum(of: bytes[...]) == Checksum(of: bytes))
        }
    }

    private func hexadecimal(_ digest: Digest) -> String {
        digest.bytes.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
    }

    @Test("SHA-256 and HMAC give the published values")
    func digests() {
        #expect(
            hexadecimal(Digest(sha256: Array("abc".utf8)))
                == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        // RFC 4231, case 2
        let mac = Digest(
            hmacOf: Array("what do ya want for nothing?".utf8), key: Array("Jefe".utf8))
        #expect(
            hexadecimal(mac) == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
        #expect(Digest(bytes: mac.bytes) == mac)
        #expect(Digest(bytes: mac.bytes.dropLast()) == nil)
        var other = mac.bytes
        other[31] ^= 1
        #expect(Digest(bytes: other) != mac)
    }
}

@Suite struct CodingTests {
    @Test("What a writer wrote, a reader reads, and nothing is left")
    func roundTrip() throws {
        var random = SeededRandom(seed: 1)
        for _ in 0..<100 {
            let number = random.next()
            let bytes = (0..<random.below(50)).map { _ in UInt8(random.below(256)) }
            let chunk = ChunkID(
                inode: InodeID(rawValue: number), index: UInt32(random.below(1 << 20)),
                version: 3)
            var writer = ByteWriter()
            writer.write(number)
            writer.write(Int16(-7))
            writer.write(true)
            writer.writeBytes(bytes)
            writer.write("Schwalbe ü")
            writer.write(chunk)
            writer.write(Timestamp(nanoseconds: -5))
            writer.writeList([1, 2, 3] as [UInt32]) { $0.write($1) }
            writer.writeOptional(nil as UInt8?) { $0.write($1) }
            writer.writeOptional(9 as UInt8) { $0.write($1) }
            var reader = ByteReader(writer.bytes)
            #expect(try reader.read(UInt64.self) == number)
            #expect(try reader.read(Int16.self) == -7)
            #expect(try reader.readBool())
            #expect(try Array(reader.readBytes(bound: 50)) == bytes)
            #expect(try reader.readString(bound: 20) == "Schwalbe ü")
            #expect(try reader.readChunk() == chunk)
            #expect(try reader.readTimestamp() == Timestamp(nanoseconds: -5))
            let list = try reader.readList(bound: 3) { (reader) throws(DecodeError) in
                try reader.read(UInt32.self)
            }
            #expect(list == [1, 2, 3])
            let none = try reader.readOptional { (reader) throws(DecodeError) in
                try reader.read(UInt8.self)
            }
            let nine = try reader.readOptional { (reader) throws(DecodeError) in
                try reader.read(UInt8.self)
            }
            #expect(none == nil && nine == 9)
            try reader.finish()
        }
    }

    @Test("Integers are little endian, and a patch replaces four bytes")
    func bytes() {
        var writer = ByteWriter()
        writer.write(0x0102_0304 as UInt32)
        writer.write(5 as UInt8)
        writer.pad(to: 8)
        writer.patch(0xFF, at: 0)
        #expect(writer.bytes == [0xFF, 0, 0, 0, 5, 0, 0, 0])
    }

    @Test("A reader refuses what is not there, out of bounds, no bool, no UTF-8, or left over")
    func refusals() {
        var short = ByteReader([1, 2, 3])
        #expect(throws: DecodeError.truncated) { try short.read(UInt32.self) }
        var long = ByteReader([9, 0, 0, 0, 1])
        #expect(throws: DecodeError.oversize(count: 9, bound: 8)) {
            try long.readBytes(bound: 8)
        }
        var missing = ByteReader([9, 0, 0, 0, 1])
        #expect(throws: DecodeError.truncated) { try missing.readBytes(bound: 9) }
        var bool = ByteReader([2])
        #expect(throws: DecodeError.invalid(field: "bool", value: 2)) { try bool.readBool() }
        var text = ByteReader([1, 0, 0, 0, 0xFF])
        #expect(throws: DecodeError.invalid(field: "UTF-8", value: 1)) {
            try text.readString(bound: 4)
        }
        #expect(throws: DecodeError.trailing(count: 2)) { try ByteReader([1, 2]).finish() }
    }

    @Test("An integer takes as few bytes as it needs; more, or more than 64 bits, are refused")
    func varints() throws {
        var values: [UInt64] = [0, .max]
        for bit in 1..<64 as Range<UInt64> { values += [1 << bit, 1 << bit - 1] }
        var writer = ByteWriter()
        var length = 0
        for value in values {
            writer.writeVarint(value)
            length += max(1, (64 - value.leadingZeroBitCount + 6) / 7)
        }
        #expect(writer.count == length)
        var reader = ByteReader(writer.bytes)
        for value in values { #expect(try reader.readVarint() == value) }
        #expect(reader.remaining == 0)
        let top = Array(repeating: 0xFF as UInt8, count: 9)
        for bad in [[], [0x80], [0x80, 0], top, top + [2], top + [0x81, 0]] as [[UInt8]] {
            var reader = ByteReader(bad)
            #expect(throws: DecodeError.self) { try reader.readVarint() }
        }
    }

    @Test("A reader of a slice reads the slice, not the array below it")
    func slices() throws {
        let all: [UInt8] = [9, 9, 1, 2, 9]
        var reader = ByteReader(all[2..<4])
        #expect(reader.remaining == 2)
        #expect(try Array(reader.take(2)) == [1, 2])
        #expect(throws: DecodeError.truncated) { try reader.take(1) }
    }
}

@Suite struct IdentifierTests {
    @Test("An inode id is its generation above its slot")
    func inodes() {
        let inode = InodeID(slot: 1 << 40 - 1, generation: 0xFF_FFFF)
        #expect(inode.rawValue == .max)
        #expect(inode.slot == 1 << 40 - 1 && inode.generation == 0xFF_FFFF)
        #expect(InodeID.root.rawValue == 1)
    }

    @Test("A cell id is 32 hexadecimal digits, leading zeros too")
    func cells() {
        let cell = CellID(high: 0xAB, low: 0xFFFF_0000_0000_0001)
        #expect(cell.description == "00000000000000abffff000000000001")
        #expect(CellID(hexadecimal: cell.description) == cell)
        #expect(CellID(hexadecimal: "12") == nil)
        #expect(CellID(hexadecimal: String(repeating: "g", count: 32)) == nil)
    }

    @Test("Chunks are ordered by file, place, version")
    func chunks() {
        func chunk(_ inode: UInt64, _ index: UInt32, _ version: UInt32) -> ChunkID {
            ChunkID(inode: InodeID(rawValue: inode), index: index, version: version)
        }
        let ordered = [chunk(1, 0, 5), chunk(1, 1, 0), chunk(1, 1, 2), chunk(2, 0, 0)]
        #expect(ordered.reversed().sorted() == ordered)
        #expect(Epoch.none.next > .none && RecordNumber.none.next.rawValue == 1)
    }

    @Test("The errno of each error is Linux's")
    func errors() {
        #expect(FileError.notFound.errno == 2 && FileError.exists.errno == 17)
        #expect(FileError.noSpace.errno == 28 && FileError.stale.errno == 116)
        #expect(Set(FileError.allCases.map(\.rawValue)).count == FileError.allCases.count)
    }
}

@Suite struct SeededRandomTests {
    @Test("One seed gives one sequence, a fork another, and equal states go on alike")
    func sequences() {
        var one = SeededRandom(seed: 42)
        var two = SeededRandom(seed: 42)
        let values = (0..<4).map { _ in one.next() }
        #expect(values == (0..<4).map { _ in two.next() })
        #expect(one == two)
        var fork = one.fork()
        let (forked, next) = (fork.next(), one.next())
        #expect(forked != next && one != two)
        var other = SeededRandom(seed: 43)
        let first = other.next()
        #expect(first != values[0])
    }

    @Test("Draws stay below their bound and reach all of it")
    func bounds() {
        var random = SeededRandom(seed: 1)
        var seen: Set<Int> = []
        for _ in 0..<200 { seen.insert(random.below(7)) }
        #expect(seen == Set(0..<7))
    }
}

@Suite struct TimeTests {
    @Test("Times and intervals add up")
    func arithmetic() {
        let start = Instant(nanoseconds: 5)
        #expect(start + .microseconds(2) - start == Interval(nanoseconds: 2_000))
        #expect(Interval.seconds(1) == .milliseconds(500) * 2)
        #expect(Interval.seconds(1) / 4 == .milliseconds(250))
        #expect(Timestamp.zero + .seconds(1) - .zero == .seconds(1))
        #expect(Interval.milliseconds(1_500).seconds == 1.5)
    }
}
