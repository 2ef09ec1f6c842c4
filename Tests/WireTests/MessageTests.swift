// Every message there and back, cut short, changed and made of random bytes.

import Base
import Testing
import Wire

/// One message of any type, by its coding.
private struct Sample {
    let frame: Frame
    /// Decodes a frame as this type and gives its frame again.
    let decode: (Frame) throws -> Frame
    let isSame: (Frame) throws -> Bool

    init<Value: Message>(_ value: Value) {
        frame = value.frame(request: 9)
        decode = { try Value($0).frame(request: 9) }
        isSame = { try Value($0) == value }
    }
}

extension Samples {
    fileprivate mutating func messages() -> [Sample] {
        handshake() + chunkMessages() + serverMessages()
            + queries().map { Sample(MetadataRequest(session: .none, query: $0)) }
            + metadataChanges().map { change in
                Sample(
                    MetadataRequest(
                        session: name(), number: name(), firstIncomplete: name(), change: change))
            } + replies().map { Sample($0) }
    }
    private mutating func handshake() -> [Sample] {
        let identity = PeerIdentity(
            cell: cell(), role: PeerRole.allCases[random.below(3)], node: number())
        let reasons = Refused.Reason.allCases
        return [
            Sample(Hello(identity: identity, instance: number(), nonce: nonce())),
            Sample(Challenge(identity: identity, nonce: nonce(), proof: digest())),
            Sample(Proof(proof: digest())), Sample(Welcome()),
            Sample(Refused(reason: reasons[random.below(reasons.count)], text: text())),
        ]
    }
    private mutating func chunkMessages() -> [Sample] {
        let statuses = ChunkStatus.allCases
        return [
            Sample(
                WriteRequest(
                    context: context(), sequence: name(), firstUnacked: name(),
                    extents: list { $0.extent() } + [extent()])),
            Sample(
                WriteReply(
                    status: statuses[random.below(statuses.count)], epoch: name(),
                    number: name())),
            Sample(
                ReadRequest(
                    context: context(), chunk: chunk(), block: UInt16(random.below(900)),
                    count: UInt16(1 + random.below(64)),
                    backupFrom: flag() ? RecordNumber(rawValue: random.next() >> 8) : nil)),
            Sample(
                ReadReply(
                    status: statuses[random.below(statuses.count)], epoch: name(),
                    number: name(), blocks: number(), isLast: flag(),
                    pieces: list {
                        let extent = $0.extent()
                        let visible = UInt32($0.random.below(Int(extent.length) + 1))
                        return Piece(extent: extent, visible: visible)
                    })),
        ]
    }
    private mutating func serverMessages() -> [Sample] {
        let cut = { (samples: inout Samples) in
            CutOrder(
                set: samples.name(), chunk: samples.chunk(), truncation: samples.number(),
                from: samples.number())
        }
        return [
            Sample(
                ServerReport(
                    server: name(), name: text(), rack: text(), address: address(),
                    disks: list { $0.disk() },
                    sets: list {
                        SetReport(
                            set: $0.name(), disk: $0.name(), epoch: $0.name(),
                            members: $0.list(4) { $0.name() },
                            prepared: $0.name(), hasRot: $0.flag(), isServing: $0.flag(),
                            stored: $0.number(), chunks: $0.number(),
                            slow: $0.list(4) {
                                SlowMember(disk: $0.name(), windows: $0.number())
                            })
                    }, dropped: list { $0.number() }, cut: list(4, cut),
                    connections: connections(), fences: number())),
            Sample(
                ServerOrders(
                    isLeader: flag(), leader: flag() ? name() : nil, wantsAllSets: flag(),
                    configurations: list { $0.view() },
                    drops: list {
                        DropOrder(
                            order: $0.number(), set: $0.name(), chunks: $0.list { $0.chunk() })
                    }, cuts: list(4, cut),
                    fences: FenceList(
                        version: number(), sessions: flag() ? list { $0.name() } : nil),
                    masters: membership())),
        ]
    }
}

@Suite struct MessageTests {
    @Test("Every message comes back from its coding as it was")
    func roundTrip() throws {
        for seed in 1...40 {
            var samples = Samples(seed: UInt64(seed))
            for sample in samples.messages() {
                #expect(try sample.isSame(sample.frame), "\(sample.frame.kind), seed \(seed)")
            }
        }
    }

    @Test("The test vectors of docs/FORMATS.md hold")
    func vectors() {
        let request = MetadataRequest(session: .none, query: .attributes(.root))
        let numbers = [UInt8](repeating: 0, count: 24)
        #expect(request.frame().head == numbers + [2, 1, 0, 0, 0, 0, 0, 0, 0])
        #expect(MetadataReply.failed(.notFound).frame().head == [1, 2, 0])
        var attributes = ByteWriter()
        Attributes(inode: .root, kind: .file, mode: 0).encode(into: &attributes)
        #expect(attributes.count == 64)
    }

    @Test("A message of another kind, cut short or with a byte too many is refused")
    func wrongLength() {
        var samples = Samples(seed: 77)
        for sample in samples.messages() {
            var other = sample.frame
            other.kind = sample.frame.kind == .paxos ? .report : .paxos
            #expect(throws: DecodeError.self) { try sample.decode(other) }
            var long = sample.frame
            long.head.append(0)
            #expect(throws: DecodeError.self) { try sample.decode(long) }
            var longer = sample.frame
            longer.payload.append(0)
            #expect(throws: DecodeError.self) { try sample.decode(longer) }
            for length in 0..<min(sample.frame.head.count, 60) {
                var short = sample.frame
                short.head.removeLast(short.head.count - length)
                #expect(throws: DecodeError.self) { try sample.decode(short) }
            }
            if !sample.frame.payload.isEmpty {
                var short = sample.frame
                short.payload.removeLast()
                #expect(throws: DecodeError.self) { try sample.decode(short) }
            }
        }
    }

    @Test("Changed and random bytes never stop the process; what decodes codes itself alike")
    func fuzz() throws {
        for seed in 1...60 {
            var samples = Samples(seed: UInt64(1_000 + seed))
            for sample in samples.messages() {
                for round in 0..<12 {
                    var frame = sample.frame
                    if round == 0 {
                        frame.head = samples.bytes(200)
                    } else {
                        for _ in 0..<1 + samples.random.below(3) where !frame.head.isEmpty {
                            let place = samples.random.below(frame.head.count)
                            frame.head[place] = samples.number()
                        }
                    }
                    guard let again = try? sample.decode(frame) else { continue }
                    #expect(try sample.decode(again) == again)
                }
            }
        }
    }

    @Test("Lengths far beyond the message are refused before memory is set aside for them")
    func hugeCounts() {
        var writer = ByteWriter()
        writer.write(10 as UInt8)
        for _ in 0..<6 { writer.write(UInt32.max) }
        let frame = Frame(kind: .metadataReply, head: writer.bytes)
        #expect(throws: DecodeError.self) { try MetadataReply(frame) }
    }

    @Test("The last reply of a read is known without decoding it")
    func lastReply() {
        for isLast in [true, false] {
            let reply = ReadReply(
                status: .done, epoch: Epoch(rawValue: 0x0101), number: .none, blocks: 0x0101,
                isLast: isLast, pieces: [])
            #expect(ReadReply.isLast(reply.frame()) == isLast)
        }
        #expect(ReadReply.isLast(Frame(kind: .readReply, head: [1])))
        #expect(ReadReply.isLast(Frame(kind: .metadataReply, head: [])))
    }

    @Test("A proof holds for one key, one side, one cell and one pair of nonces")
    func proofs() throws {
        var samples = Samples(seed: 5)
        let key = try #require(CellKey(bytes: samples.nonce()))
        let other = try #require(CellKey(bytes: samples.nonce()))
        #expect(CellKey(bytes: [1, 2, 3]) == nil)
        let identity = PeerIdentity(cell: samples.cell(), role: .client, node: 1)
        let listener = PeerIdentity(cell: identity.cell, role: .master, node: 2)
        let hello = Hello(identity: identity, nonce: samples.nonce())
        let nonce = samples.nonce()
        let proof = key.callerProof(hello: hello, listener: listener, nonce: nonce)
        #expect(proof == key.callerProof(hello: hello, listener: listener, nonce: nonce))
        #expect(proof != other.callerProof(hello: hello, listener: listener, nonce: nonce))
        #expect(proof != key.listenerProof(hello: hello, listener: listener, nonce: nonce))
        #expect(proof != key.callerProof(hello: hello, listener: identity, nonce: nonce))
        #expect(
            proof
                != key.callerProof(hello: hello, listener: listener, nonce: samples.nonce()))
        var changed = hello
        changed.nonce = samples.nonce()
        #expect(proof != key.callerProof(hello: changed, listener: listener, nonce: nonce))
    }
}
