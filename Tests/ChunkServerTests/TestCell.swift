// Chunk servers in memory, with disks that answer at once, one master that leads and two that do
// not, and a network without delay. Time goes on only when nothing else is to do.

import Base
import ChunkServer
import Node
import Store
import Wire

/// A disk on which every operation is done, and durable, when it is asked for.
struct InstantDisk {
    var files: [DiskFile: [UInt8]] = [:]
    /// Every write fails from now on.
    var isBroken = false
    var capacity: UInt64 = 64 << 20

    var inventory: DiskInventory {
        let sizes = files.map { DiskFileSize(file: $0.key, size: $0.value.count) }
        return DiskInventory(
            files: sizes.sorted { $0.file < $1.file }, capacity: capacity)
    }

    mutating func perform(_ effect: DiskEffect) -> DiskResult {
        switch effect {
        case .create(_, let file, let size):
            if isBroken { return .failed(.system(errno: 5)) }
            files[file] = Array(repeating: 0, count: size)
        case .write(_, let file, let offset, let pieces, _):
            if isBroken { return .failed(.system(errno: 5)) }
            var place = offset
            for piece in pieces {
                let missing = place + piece.count - files[file, default: []].count
                if missing > 0 {
                    files[file, default: []] += Array(repeating: 0, count: missing)
                }
                files[file]?.replaceSubrange(place..<place + piece.count, with: piece)
                place += piece.count
            }
        case .sync: if isBroken { return .failed(.system(errno: 5)) }
        case .read(_, let file, let offset, let length):
            let bytes = files[file] ?? []
            let end = min(bytes.count, offset + length)
            return .bytes(offset < end ? bytes[offset..<end] : [])
        case .remove(_, let file): files[file] = nil
        }
        return .done
    }

    /// Gives the record with this payload another of the same length, with the right checksums.
    mutating func forge(_ bytes: [UInt8], as other: [UInt8]) -> Int {
        var count = 0
        for (file, content) in files {
            for start in stride(from: 0, to: content.count - bytes.count, by: 64)
            where Array(content[start..<start + 4]) == Array("MLRR".utf8) {
                let header = (8..<12).reversed().reduce(0) { $0 << 8 | Int(content[start + $1]) }
                let payload = start + 64 + header
                guard payload + bytes.count <= content.count,
                    Array(content[payload..<payload + bytes.count]) == bytes
                else { continue }
                var record = Array(content[start..<payload]) + other
                let (old, new) = (little(Checksum(of: bytes)), little(Checksum(of: other)))
                for place in 64..<64 + header - 3 where Array(record[place..<place + 4]) == old {
                    record.replaceSubrange(place..<place + 4, with: new)
                }
                record.replaceSubrange(56..<60, with: new)
                let sum = Checksum(of: Array(record[..<60] + record[64..<64 + header]))
                record.replaceSubrange(60..<64, with: little(sum))
                files[file]?.replaceSubrange(start..<start + record.count, with: record)
                count += 1
            }
        }
        return count
    }
    private func little(_ sum: Checksum) -> [UInt8] {
        (0..<4).map { UInt8(truncatingIfNeeded: sum.value >> (8 * UInt32($0))) }
    }

    /// Changes every byte sequence equal to `bytes`; tells how many there were.
    mutating func damage(_ bytes: [UInt8]) -> Int {
        var count = 0
        for (file, content) in files {
            var start = 0
            while start + bytes.count <= content.count {
                if content[start] == bytes[0], Array(content[start..<start + bytes.count]) == bytes
                {
                    files[file]?[start + bytes.count / 2] ^= 1
                    count += 1
                    start += bytes.count
                } else {
                    start += 1
                }
            }
        }
        return count
    }
}

/// See the head of this file.
struct TestCell {
    static let set = SetID(rawValue: 9)
    static let leader = MasterID(rawValue: 2)

    struct Server {
        var core: ChunkServerCore?
        var disk = InstantDisk()
        var inbox: [NodeEvent] = []
        /// The last report of its disk and set that the leader heard.
        var report: DiskReport?
        var set: SetReport?
    }
    var servers: [Server]
    var now = Instant.zero
    var configuration: SetConfiguration?
    var replies: [UInt64: [Frame]] = [:]
    var lastRequest: UInt64 = 0
    var drops: [DropOrder] = []
    var cuts: [CutOrder] = []
    var scrub = ScrubOrder()
    var fences = FenceList()
    var droppedOrders: [UInt64] = []
    var confirmedCuts: [CutOrder] = []
    var halted: [Int] = []
    var alarms: [String] = []
    let client = ConnectionID(rawValue: 1)

    init(count: Int = 3, capacity: UInt64 = 64 << 20) {
        servers = Array(repeating: Server(), count: count)
        for index in servers.indices {
            servers[index].disk.capacity = capacity
            start(index)
        }
        run(.milliseconds(500))
        raiseEpoch()
        run(.milliseconds(500))
    }

    func disk(_ index: Int) -> DiskID { DiskID(rawValue: UInt64(index) + 101) }
    func server(_ index: Int) -> ServerID { ServerID(rawValue: UInt64(index) + 1) }
    func index(_ server: ServerID) -> Int { Int(server.rawValue) - 1 }
    var primary: Int { Int((configuration?.primary.rawValue ?? 101) - 101) }

    // MARK: processes

    mutating func start(_ index: Int) {
        servers[index].core = ChunkServerCore(
            ChunkServerConfiguration(
                cell: CellID(high: 1, low: 2), server: server(index), disk: disk(index),
                name: "chunkserver-\(index + 1)", rack: "",
                address: PeerAddress(network: "127.0.0.1:\(7421 + index)", socket: "", machine: ""),
                masters: [1, 2, 3].map { MasterID(rawValue: $0) }, segmentSize: 1 << 20))
        servers[index].inbox = [.start(servers[index].disk.inventory)]
    }

    mutating func kill(_ index: Int) {
        servers[index].core = nil
        servers[index].inbox = []
        for other in servers.indices where servers[other].core != nil {
            servers[other].inbox.append(.disconnected(.server(server(index))))
        }
    }

    // MARK: time

    /// Steps whoever has something to do, for so long.
    mutating func run(_ time: Interval) {
        let end = now + time
        var steps = 0
        while true {
            var isIdle = true
            for index in servers.indices {
                guard let core = servers[index].core else { continue }
                guard !servers[index].inbox.isEmpty || core.wakeTime <= now else { continue }
                isIdle = false
                step(index)
            }
            steps += 1
            precondition(steps < 1_000_000, "the cell does not come to rest")
            guard isIdle else { continue }
            let next = servers.compactMap { $0.core?.wakeTime }.min() ?? end
            guard next < end else { break }
            now = max(now, next)
        }
        now = end
    }

    private mutating func step(_ index: Int) {
        let events = servers[index].inbox
        servers[index].inbox = []
        let time = NodeTime(now: now, wall: .zero)
        guard let effects = servers[index].core?.step(events, at: time) else { return }
        for effect in effects where servers[index].core != nil {
            switch effect {
            case .disk(let effect):
                let result = servers[index].disk.perform(effect)
                servers[index].inbox.append(.disk(effect.operation, result))
            case .send(.master(let master), let frame): tell(master, frame, from: index)
            case .send(.server(let other), let frame):
                if servers[self.index(other)].core != nil {
                    servers[self.index(other)].inbox.append(
                        .frame(from: .server(server(index)), frame))
                }
            case .send(.client, let frame): replies[frame.request, default: []].append(frame)
            case .address: break
            case .halt:
                halted.append(index)
                servers[index].core = nil
            case .report(let text, let isAlarm): if isAlarm { alarms.append(text) }
            }
        }
    }
}

extension TestCell {
    // MARK: the masters

    /// A new epoch with the member that is furthest and sound as its primary.
    mutating func raiseEpoch() {
        let candidates = servers.indices.filter {
            servers[$0].core != nil && servers[$0].set?.hasRot != true
        }
        let best = candidates.max { left, right in
            let one = servers[left].set
            let two = servers[right].set
            return (one?.epoch ?? .none, one?.prepared ?? .none)
                < (two?.epoch ?? .none, two?.prepared ?? .none)
        }
        configuration = SetConfiguration(
            set: Self.set, epoch: configuration?.epoch.next ?? Epoch(rawValue: 1),
            primary: disk(best ?? 0), members: servers.indices.map(disk))
    }

    private mutating func tell(_ master: MasterID, _ frame: Frame, from index: Int) {
        var orders = ServerOrders(
            isLeader: master == Self.leader, leader: nil, wantsAllSets: false, configurations: [],
            drops: [], cuts: [], scrub: scrub, fences: fences)
        if master == Self.leader, let report = try? ServerReport(frame) {
            take(report, from: index, &orders)
        }
        servers[index].inbox.append(
            .frame(from: .master(master), orders.frame(request: frame.request)))
    }

    private mutating func take(
        _ report: ServerReport, from index: Int, _ orders: inout ServerOrders
    ) {
        let run = servers[index].report?.incarnation
        servers[index].report = report.disks[0]
        for set in report.sets { servers[index].set = set }
        for order in report.dropped where !droppedOrders.contains(order) {
            droppedOrders.append(order)
        }
        confirmedCuts += report.cut
        if let run, run != report.disks[0].incarnation, configuration != nil { raiseEpoch() }
        if let configuration, servers[index].set?.epoch ?? .none < configuration.epoch {
            let locations = servers.indices.map {
                DiskLocation(
                    disk: disk($0), server: server($0),
                    address: PeerAddress(network: "", socket: "", machine: ""),
                    isUp: servers[$0].core != nil)
            }
            orders.configurations = [SetView(configuration: configuration, locations: locations)]
        }
        orders.drops = drops.filter { !droppedOrders.contains($0.order) }
        orders.cuts = cuts.filter { !confirmedCuts.contains($0) }
    }

    // MARK: a client

    /// A write of one extent of raw bytes.
    func extent(
        _ bytes: [UInt8], chunk: UInt32 = 0, block: UInt16 = 0, start: UInt32 = 0
    ) -> Extent {
        let pages = Extent.pageCount(start: start, length: UInt32(bytes.count))
        return Extent(
            chunk: ChunkID(inode: InodeID(rawValue: 5), index: chunk, version: 0), block: block,
            start: start, length: UInt32(bytes.count), codec: .raw, stored: Checksum(of: bytes),
            pages: Array(repeating: 0, count: pages), fileEnd: 0, modified: .zero,
            payload: bytes[...])
    }

    func context(truncation: UInt32 = 0, cuts: [Cut] = [], epoch: Epoch? = nil) -> ChunkContext {
        ChunkContext(
            set: Self.set, epoch: epoch ?? configuration?.epoch ?? .none,
            session: SessionID(rawValue: 3), truncation: truncation, cuts: cuts)
    }

    /// Sends a request; the replies come while time goes on.
    mutating func ask(_ index: Int, _ message: some Message) -> UInt64 {
        lastRequest += 1
        servers[index].inbox.append(
            .frame(from: .client(client), message.frame(request: lastRequest)))
        return lastRequest
    }

    mutating func write(
        _ index: Int, _ sequence: UInt64, _ extents: [Extent], _ context: ChunkContext? = nil
    ) -> UInt64 {
        ask(
            index,
            WriteRequest(
                context: context ?? self.context(), sequence: RequestNumber(rawValue: sequence),
                firstUnacked: RequestNumber(rawValue: 1), extents: extents))
    }

    func writeReply(_ request: UInt64) -> WriteReply? {
        replies[request]?.last.flatMap { try? WriteReply($0) }
    }

    /// Asks for a block and runs until it is answered.
    mutating func read(
        _ index: Int, block: UInt16 = 0, count: UInt16 = 1, chunk: UInt32 = 0,
        allowsBackup: Bool = false, from: RecordNumber = .none,
        _ context: ChunkContext? = nil
    ) -> ReadReply? {
        let request = ask(
            index,
            ReadRequest(
                context: context ?? self.context(),
                chunk: ChunkID(inode: InodeID(rawValue: 5), index: chunk, version: 0),
                block: block, count: count, backupFrom: allowsBackup ? from : nil))
        run(.milliseconds(900))
        let replies = replies[request]?.compactMap { try? ReadReply($0) } ?? []
        guard var last = replies.last, last.isLast else { return nil }
        last.pieces = replies.flatMap(\.pieces)
        return last
    }
}

extension ReadReply {
    /// The bytes of the blocks from the first, `size` in all.
    func content(from first: UInt16 = 0, size: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: size)
        for piece in pieces {
            let extent = piece.extent
            let place = Int(extent.block - first) * Limits.block + Int(extent.start)
            for offset in 0..<min(Int(piece.visible), size - place) {
                bytes[place + offset] = extent.payload[extent.payload.startIndex + offset]
            }
        }
        return bytes
    }
}
