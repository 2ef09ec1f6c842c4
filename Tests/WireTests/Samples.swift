// Random values of everything that messages are made of.

import Base
import Wire

/// Random values of everything that messages are made of.
struct Samples {
    var random: SeededRandom

    init(seed: UInt64) { random = SeededRandom(seed: seed) }

    mutating func number<Value: FixedWidthInteger & UnsignedInteger>() -> Value {
        // Small values, and those with all bits in use.
        random.chance(1, of: 3) ? Value(random.below(4)) : .random(in: 0 ... .max, using: &random)
    }
    mutating func name<Name: Identifier>() -> Name { Name(rawValue: number()) }
    mutating func flag() -> Bool { random.chance(1, of: 2) }
    mutating func bytes(_ bound: Int = 40) -> [UInt8] {
        (0..<random.below(bound + 1)).map { _ in number() }
    }
    mutating func text() -> String {
        String((0..<random.below(12)).map { _ in random.chance(1, of: 5) ? "ü" : "x" })
    }
    mutating func list<Item>(_ bound: Int = 4, _ each: (inout Samples) -> Item) -> [Item] {
        (0..<random.below(bound + 1)).map { _ in each(&self) }
    }
    mutating func time() -> Timestamp {
        Timestamp(nanoseconds: .random(in: .min ... .max, using: &random))
    }
    mutating func chunk() -> ChunkID {
        ChunkID(inode: name(), index: number(), version: number())
    }
    mutating func digest() -> Digest { Digest(sha256: bytes()) }
    mutating func nonce() -> [UInt8] { (0..<32).map { _ in number() } }
    mutating func cell() -> CellID { CellID(high: number(), low: number()) }
    mutating func address() -> PeerAddress {
        PeerAddress(network: text(), socket: text(), machine: text())
    }

    mutating func membership() -> Membership {
        var membership = Membership(
            founders: (1...3).map { id in
                MasterMember(
                    id: MasterID(rawValue: id), address: address(),
                    disk: DiskID(rawValue: UInt64(random.below(2))))
            })
        let place = PeerAddress(network: "new:1", socket: "", machine: "")
        let added = try? membership.adding(
            MasterID(rawValue: 9), at: place, replacing: flag() ? MasterID(rawValue: 2) : nil)
        if flag(), let added { membership = added }
        return flag() ? membership.renewed() : membership
    }
    mutating func attributes() -> Attributes {
        Attributes(
            inode: name(), kind: FileKind.allCases[random.below(FileKind.allCases.count)],
            mode: number(), links: number(), user: number(), group: number(), device: number(),
            size: number(), accessed: time(), modified: time(), changed: time())
    }
    mutating func changes() -> AttributeChanges {
        var changes = AttributeChanges()
        if flag() { changes.mode = number() }
        if flag() { changes.user = number() }
        if flag() { changes.group = number() }
        if flag() { changes.accessed = flag() ? .now : .at(time()) }
        if flag() { changes.modified = flag() ? .now : .at(time()) }
        return changes
    }
    mutating func entry() -> DirectoryEntry {
        DirectoryEntry(
            cookie: number(), name: bytes(255), inode: name(), kind: .file,
            attributes: flag() ? attributes() : nil)
    }
    mutating func configuration() -> SetConfiguration {
        var members = list(Limits.members - 1) { $0.name() as DiskID }
        members.append(name())
        return SetConfiguration(
            set: name(), epoch: name(), primary: members[random.below(members.count)],
            members: members)
    }
    mutating func view() -> SetView {
        SetView(
            configuration: configuration(),
            locations: list {
                DiskLocation(
                    disk: $0.name(), server: $0.name(), address: $0.address(), isUp: $0.flag())
            })
    }
    mutating func cuts() -> [Cut] {
        list(Limits.cuts) { Cut(truncation: $0.number(), size: $0.number()) }
    }
    mutating func layout() -> Layout {
        Layout(
            inode: name(), truncation: number(), cuts: cuts(),
            chunks: list { LayoutChunk(chunk: $0.chunk(), set: $0.name()) },
            sets: list { $0.view() })
    }
    mutating func extent() -> Extent {
        let start = random.below(Limits.block)
        let length = 1 + random.below(min(Limits.block - start, 9_000))
        let isRaw = flag()
        let payload = (0..<(isRaw ? length : 1 + random.below(200))).map { _ in number() as UInt8 }
        return Extent(
            chunk: chunk(), block: UInt16(random.below(Limits.blocksPerChunk)),
            start: UInt32(start), length: UInt32(length), codec: isRaw ? .raw : .lz4,
            stored: Checksum(of: payload),
            pages: (0..<Extent.pageCount(start: UInt32(start), length: UInt32(length))).map { _ in
                number()
            }, fileEnd: number(), modified: time(), payload: payload[...])
    }
    mutating func context() -> ChunkContext {
        var context = ChunkContext(
            set: name(), epoch: name(), session: name(), truncation: number(), cuts: cuts())
        context.token = bytes(64)
        context.sessionEpoch = number()
        return context
    }
    mutating func scrub() -> ScrubReport {
        var progress = ScrubProgress()
        progress.order = ScrubOrder(run: number(), isPaused: flag())
        progress.isUrgent = flag()
        progress.isRunning = flag()
        progress.began = time()
        progress.cursor = number()
        progress.through = number()
        progress.verified = number()
        progress.passes = number()
        progress.since = time()
        progress.found = number()
        progress.met = number()
        progress.repaired = number()
        progress.differed = number()
        progress.disputes = number()
        progress.disputed = number()
        progress.isComparing = flag()
        progress.compared = name()
        return ScrubReport(
            progress: progress, damaged: number(), bytesPerSecond: number(),
            places: list { DamagedPlace(chunk: $0.chunk(), block: $0.number()) })
    }
    mutating func connections() -> ConnectionCounts {
        ConnectionCounts(badFrames: number(), refused: number())
    }
    mutating func disk() -> DiskReport {
        DiskReport(
            disk: name(), incarnation: name(), capacity: number(), used: number(),
            stored: number(), logical: number(), recentBytes: number(), queue: number(),
            flushTime: number(), hasFailed: flag(), scrub: scrub(),
            space: DiskSpace(fileSystem: number(), free: number(), spare: number()),
            cleaning: cleaning())
    }
    mutating func cleaning() -> CleaningReport {
        var report = CleaningReport()
        report.appended = number()
        report.moved = number()
        report.segments = number()
        report.folded = number()
        return report
    }
}

// Metadata messages: every case of every kind.
extension Samples {
    mutating func queries() -> [MetadataQuery] {
        [
            .lookup(parent: name(), name: bytes()), .attributes(name()), .readLink(name()),
            .readDirectory(name(), after: number(), limit: number(), withAttributes: flag()),
            .extendedAttribute(name(), name: bytes()), .extendedAttributes(name()),
            .layout(name(), first: number(), count: number()), .open(name()), .close(name()),
            .sets(list { $0.name() }), .statistics, .status, .masters,
            .order(.add(name(), address(), replacing: flag() ? name() : nil)),
            .order(.remove(name())), .order(.transfer(flag() ? name() : nil)),
            .snapshot(since: name()), .part(mark(), name(), offset: number()),
        ]
    }
    mutating func metadataChanges() -> [MetadataChange] {
        [
            .create(
                parent: name(), name: bytes(), kind: .symlink, mode: number(), user: number(),
                group: number(), device: number(), target: bytes(), open: flag()),
            .link(name(), parent: name(), name: bytes()),
            .unlink(parent: name(), name: bytes()),
            .removeDirectory(parent: name(), name: bytes()),
            .rename(
                parent: name(), name: bytes(), newParent: name(), newName: bytes(),
                flags: RenameFlags(rawValue: number())),
            .setAttributes(name(), changes()), .truncate(name(), size: number()),
            .extend(
                list {
                    FileEnd(
                        inode: $0.name(), end: $0.number(), truncation: $0.number(),
                        modified: $0.time())
                }, numbers: list { SetNumber(set: $0.name(), number: $0.name()) }),
            .allocate(name(), first: number(), count: number()),
            .setExtendedAttribute(
                name(), name: bytes(), value: bytes(), flags: ExtendedFlags(rawValue: number())),
            .removeExtendedAttribute(name(), name: bytes()),
            .openSession(nonce: number(), label: text()), .renewSession,
            .releaseOrphans(list { $0.name() }), .closeSession,
        ]
    }
    mutating func replies() -> [MetadataReply] {
        let errors = FileError.allCases
        return [
            .failed(errors[random.below(errors.count)]),
            .notLeader(flag() ? name() : nil, membership()), .retry,
            .sessionDead, .forgotten, .done, .entry(attributes()),
            .created(attributes(), layout()), .opened(attributes(), layout()), .layout(layout()),
            .extended(
                list { samples in
                    switch samples.random.below(3) {
                    case 0: .done(samples.attributes())
                    case 1: .outdated(samples.attributes(), samples.layout())
                    default: .failed(errors[samples.random.below(errors.count)])
                    }
                }), .bytes(bytes()), .names(list { $0.bytes() }),
            .directory(list { $0.entry() }, atEnd: flag()), .sets(list { $0.view() }),
            .statistics(CellStatistics(capacity: number(), free: number(), files: number())),
            .session(name(), time: time()), .orphans(list { $0.name() }, time: time()),
            .status(status()), .refused(Refusal(.changeOpen, number())),
            .masters(
                MastersView(
                    id: name(), membership: membership(), leader: flag() ? name() : nil,
                    end: name())),
            .snapshot(mark()), .part(length: number(), bytes()),
        ]
    }
    mutating func mark() -> SnapshotMark {
        SnapshotMark(slot: name(), root: ShortHash(high: number(), low: number()))
    }
    mutating func status() -> CellStatus {
        CellStatus(
            cell: cell(), goal: number(), configuration: number(), round: number(), chosen: name(),
            applied: name(),
            masters: list {
                MasterStatus(
                    id: $0.name(), address: $0.address(), isLeader: $0.flag(), isUp: $0.flag(),
                    hasRot: $0.flag(), isVoter: $0.flag(), isStranger: $0.flag(),
                    durable: $0.name(), chosen: $0.name(), snapshot: $0.name(),
                    firstKept: $0.name(),
                    connections: $0.flag() ? $0.connections() : nil)
            },
            servers: list {
                ServerStatus(
                    id: $0.name(), name: $0.text(), rack: $0.text(), address: $0.address(),
                    isUp: $0.flag(), isRefused: $0.flag(), disks: $0.list { $0.disk() },
                    lost: $0.list { $0.name() },
                    connections: $0.connections())
            },
            sets: SetCounts(
                total: number(), healthy: number(), waiting: number(), underReplicated: number()),
            files: number(), directories: number(), sessions: number(), fileBytes: number())
    }
}
