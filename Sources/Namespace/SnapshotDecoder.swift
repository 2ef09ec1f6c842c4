// The blocks of a snapshot as a state again. It takes no block on trust: whatever the bytes are, it
// throws or gives a state to which commands can be applied.
//
// Invariants:
//  1. What is derived (name hashes, nonces, orphans, drops by set, cuts in the queue, bytes of all
//     files) is made anew and never read.
//  2. Keys ascend strictly, so equal states are equal bytes in both directions.

package import Base

/// Builds a state from blocks, in their order.
package struct SnapshotDecoder: Sendable {
    private var state: Namespace?
    private var slots = 0
    private var firstFree: UInt64 = 0
    private var stage = SnapshotItem.head
    /// The slot of the directory that names belong to.
    private var directory = 0
    private var session = SessionID.none
    /// How many names lead to each slot.
    private var names: [UInt32] = [0]
    private var directories = 0
    /// Chunks of each set that have a place or wait to be dropped.
    private var chunks: [SetID: UInt32] = [:]

    /// Before the first block.
    package init() {}

    private static func wrong(_ field: StaticName, _ value: UInt64 = 0) -> DecodeError {
        .invalid(field: field, value: value)
    }

    /// Takes the next block.
    package mutating func add(_ block: ArraySlice<UInt8>) throws(DecodeError) {
        var reader = ByteReader(block)
        // Moved out and back: the tables have one owner while they change.
        var state = self.state
        self.state = nil
        while reader.remaining > 0 {
            let tag = try reader.read(UInt8.self)
            guard let item = SnapshotItem(rawValue: tag), follows(item, state != nil) else {
                throw Self.wrong("snapshot item", UInt64(tag))
            }
            stage = item
            if item == .head {
                state = try readHead(&reader)
            } else {
                try read(item, &reader, &state!)
            }
        }
        self.state = state
    }

    /// Whether the item may come now.
    private func follows(_ item: SnapshotItem, _ hasHead: Bool) -> Bool {
        switch item {
        case .head: !hasHead
        case .directory: hasHead && stage <= .name
        case .session: hasHead && stage <= .reply
        case .name: stage == .name || stage == .directory
        case .reply: stage == .reply || stage == .session
        case .operations: hasHead && stage < .operations
        default: hasHead && stage <= item
        }
    }

    private mutating func readHead(_ reader: inout ByteReader) throws(DecodeError) -> Namespace {
        let head = SnapshotHead(
            time: try reader.readTimestamp(), applied: try reader.read(),
            round: try reader.read(), master: try reader.read(),
            lastSession: try reader.read(), lastSet: try reader.read(),
            lastOrder: try reader.read(), lastScrub: try reader.read(),
            firstFree: try reader.read(), slots: try reader.read())
        guard head.slots < 1 << 40 else { throw Self.wrong("inodes", head.slots) }
        guard head.time <= Timestamp(nanoseconds: .max / 2) else { throw Self.wrong("time") }
        slots = Int(head.slots)
        firstFree = head.firstFree
        return Namespace(head)
    }

    private mutating func read(
        _ item: SnapshotItem, _ reader: inout ByteReader, _ state: inout Namespace
    ) throws(DecodeError) {
        switch item {
        case .head: break
        case .inode: try readInode(&reader, &state)
        case .directory: try readDirectory(&reader, &state)
        case .name: try readName(&reader, &state)
        case .target: try readTarget(&reader, &state)
        case .attributes: try readAttributes(&reader, &state)
        case .place: try readPlace(&reader, &state)
        case .cuts: try readCuts(&reader, &state)
        case .session: try readSession(&reader, &state)
        case .reply: try readReply(&reader, &state)
        case .holding: try readHolding(&reader, &state)
        case .server:
            guard state.servers.append(try ServerRecord(from: &reader)) else {
                throw Self.wrong("order of servers")
            }
        case .disk:
            guard state.disks.append(try DiskRecord(from: &reader)) else {
                throw Self.wrong("order of disks")
            }
        case .set: try readSet(&reader, &state)
        case .operations: try readOperations(&reader, &state)
        case .loose:
            let loose = LooseChunk(set: try reader.read(), chunk: try reader.readChunk())
            state.loose.append(loose)
            chunks[loose.set, default: 0] += 1
        case .drop: try readDrop(&reader, &state)
        case .load:
            guard state.load == nil else { throw Self.wrong("load") }
            state.take(try Load(from: &reader))
        case .loadedSet:
            let loaded = try LoadedSet(from: &reader)
            guard state.load != nil, state.setTable.contains(loaded.set),
                state.loadedSets.append(loaded)
            else { throw Self.wrong("loaded set", loaded.set.rawValue) }
            if loaded.base == .none { state.heldCount += 1 }
        }
    }

    /// The state, if it is whole.
    package consuming func finish() throws(DecodeError) -> Namespace {
        guard var state, state.inodes.lastSlot == slots else { throw .truncated }
        guard state.inodes.restore(firstFree: firstFree) else {
            throw Self.wrong("free inodes", firstFree)
        }
        guard slots >= 1, state.inodes[1].kind == .directory, state.inodes.id(1) == .root,
            directories == state.directories.count
        else { throw Self.wrong("directories", UInt64(directories)) }
        for slot in 1...slots {
            let record = state.inodes[slot]
            switch record.kind {
            case nil: break
            case .directory:
                guard UInt64(state.directory(slot).entries.count) == record.size,
                    slot == 1 || names[slot] == 1
                else {
                    throw Self.wrong("names of a directory", record.size)
                }
            default:
                guard names[slot] == record.links else {
                    throw Self.wrong("links of an inode", UInt64(record.links))
                }
                if record.links == 0, !state.orphans.contains(state.inodes.id(slot)) {
                    throw Self.wrong("orphan", UInt64(slot))
                }
            }
        }
        for (set, count) in chunks.sorted(by: { $0.key < $1.key }) {
            guard let record = state.setTable[set], record.chunks >= count else {
                throw Self.wrong("chunks of a set", set.rawValue)
            }
        }
        return state
    }
}

// Files
extension SnapshotDecoder {
    private mutating func readInode(
        _ reader: inout ByteReader, _ state: inout Namespace
    ) throws(DecodeError) {
        let kind = try reader.read(UInt8.self)
        var record = InodeRecord(generation: try reader.read())
        if kind != 0 {
            guard let known = FileKind(rawValue: kind) else {
                throw Self.wrong("kind of an inode", UInt64(kind))
            }
            record.kind = known
        }
        record.mode = try reader.read()
        record.links = try reader.read()
        record.user = try reader.read()
        record.group = try reader.read()
        record.auxiliary = try reader.read()
        record.truncation = try reader.read()
        record.size = try reader.read()
        record.place = try reader.read()
        record.accessed = try reader.readTimestamp()
        record.modified = try reader.readTimestamp()
        record.changed = try reader.readTimestamp()
        guard record.generation < 1 << 24, state.inodes.lastSlot < slots else {
            throw Self.wrong("generation of an inode", UInt64(record.generation))
        }
        if record.kind == .directory { record.auxiliary = state.addDirectory() }
        if record.kind == .file {
            guard record.size <= Limits.fileSize else {
                throw Self.wrong("size of a file", record.size)
            }
            state.fileBytes += UInt128(record.size)
            if let set = record.firstSet { chunks[set, default: 0] += 1 }
        }
        state.inodes.restore(record)
        names.append(0)
    }

    private mutating func readDirectory(
        _ reader: inout ByteReader, _ state: inout Namespace
    ) throws(DecodeError) {
        let slot = try reader.read(UInt64.self)
        let cookie = try reader.read(UInt64.self)
        guard slot > directory, slot <= UInt64(state.inodes.lastSlot),
            state.inodes[Int(slot)].kind == .directory, cookie >= 3
        else { throw Self.wrong("directory", slot) }
        directory = Int(slot)
        directories += 1
        let place = Int(state.inodes[directory].auxiliary)
        state.directories[place] = Directory(nextCookie: cookie)
    }

    private mutating func readName(
        _ reader: inout ByteReader, _ state: inout Namespace
    ) throws(DecodeError) {
        let cookie = try reader.read(UInt64.self)
        let inode = try reader.read(InodeID.self)
        let length = try reader.read(UInt8.self)
        let name = Array(try reader.take(Int(length)))
        guard nameFault(name) == nil, let slot = state.inodes.find(inode), inode != .root else {
            throw Self.wrong("name", cookie)
        }
        names[slot] += 1
        let isDirectory = state.inodes[slot].kind == .directory
        let parent = state.inodes.id(directory).rawValue
        guard !isDirectory || names[slot] == 1 && state.inodes[slot].place == parent else {
            throw Self.wrong("name of a directory", cookie)
        }
        let entry = Dentry(cookie: cookie, inode: inode, name: name)
        let place = Int(state.inodes[directory].auxiliary)
        guard state.directories[place].restore(entry) else {
            throw Self.wrong("order of names", cookie)
        }
    }

    private mutating func readTarget(
        _ reader: inout ByteReader, _ state: inout Namespace
    ) throws(DecodeError) {
        let inode = try reader.read(InodeID.self)
        let target = Array(try reader.readBytes(bound: Limits.symlinkTarget))
        guard let slot = state.inodes.find(inode), state.inodes[slot].kind == .symlink,
            state.targets.append(SymlinkTarget(inode: inode, target: target))
        else { throw Self.wrong("target", inode.rawValue) }
    }

    private mutating func readAttributes(
        _ reader: inout ByteReader, _ state: inout Namespace
    ) throws(DecodeError) {
        let inode = try reader.read(InodeID.self)
        let items = try reader.readList(bound: Limits.attributesPerInode) {
            (reader) throws(DecodeError) in
            AttributeList.Item(
                name: Array(try reader.readBytes(bound: Limits.attributeName)),
                value: Array(try reader.readBytes(bound: Limits.attributeValue)))
        }
        let isSorted = zip(items, items.dropFirst()).allSatisfy {
            $0.name.lexicographicallyPrecedes($1.name)
        }
        guard state.inodes.find(inode) != nil, isSorted, !items.isEmpty,
            state.attributeLists.append(AttributeList(inode: inode, items: items))
        else { throw Self.wrong("attributes", inode.rawValue) }
    }

    private mutating func readPlace(
        _ reader: inout ByteReader, _ state: inout Namespace
    ) throws(DecodeError) {
        let key = ChunkPlace.Key(inode: try reader.read(), index: try reader.read())
        let place = ChunkPlace(key: key, version: try reader.read(), set: try reader.read())
        guard let slot = state.inodes.find(key.inode), state.inodes[slot].kind == .file,
            key.index > 0, state.places.append(place)
        else { throw Self.wrong("place", key.inode.rawValue) }
        chunks[place.set, default: 0] += 1
    }

    private mutating func readCuts(
        _ reader: inout ByteReader, _ state: inout Namespace
    ) throws(DecodeError) {
        let inode = try reader.read(InodeID.self)
        let cuts = try reader.readList(bound: Limits.cuts) { (reader) throws(DecodeError) in
            try Cut(from: &reader)
        }
        let isSorted = zip(cuts, cuts.dropFirst()).allSatisfy { $0.size < $1.size }
        guard let slot = state.inodes.find(inode), state.inodes[slot].kind == .file, isSorted,
            !cuts.isEmpty, state.cuts.append(FileCuts(inode: inode, cuts: cuts))
        else { throw Self.wrong("cuts", inode.rawValue) }
        for cut in cuts {
            guard cut.size < Limits.fileSize, let place = state.cutChunk(slot, cut.size) else {
                throw Self.wrong("cut", inode.rawValue)
            }
            state.cutOrders.insert(state.pending(cut, place))
        }
    }
}

// Sessions and sets
extension SnapshotDecoder {
    private mutating func readSession(
        _ reader: inout ByteReader, _ state: inout Namespace
    ) throws(DecodeError) {
        var new = Session(
            id: try reader.read(), nonce: try reader.read(),
            label: try reader.readString(bound: 4_096), deadline: try reader.readTimestamp())
        new.firstIncomplete = try reader.read()
        guard new.id.rawValue <= state.lastSession, !state.nonces.contains(new.nonce),
            state.sessions.append(new)
        else { throw Self.wrong("session", new.id.rawValue) }
        state.nonces.insert(SessionNonce(nonce: new.nonce, session: new.id))
        session = new.id
    }

    private mutating func readReply(
        _ reader: inout ByteReader, _ state: inout Namespace
    ) throws(DecodeError) {
        let reply = Session.Reply(
            number: try reader.read(), outcome: try Outcome(from: &reader))
        let isRight = state.sessions.update(session) { session in
            let before = session.replies.last?.number
            guard reply.number >= session.firstIncomplete, before ?? reply.number <= reply.number,
                before != reply.number, session.replies.count < Limits.repliesPerSession
            else { return false }
            session.replies.append(reply)
            return true
        }
        guard isRight == true else { throw Self.wrong("reply", reply.number.rawValue) }
    }

    private mutating func readHolding(
        _ reader: inout ByteReader, _ state: inout Namespace
    ) throws(DecodeError) {
        let holding = Holding(session: try reader.read(), inode: try reader.read())
        guard state.sessions.contains(holding.session),
            let slot = state.inodes.find(holding.inode), state.inodes[slot].links == 0,
            state.inodes[slot].kind != .directory, state.holdings.append(holding)
        else { throw Self.wrong("holding", holding.inode.rawValue) }
        if state.orphans.update(holding.inode, { $0.holders += 1 }) == nil {
            state.orphans.insert(Orphan(inode: holding.inode, holders: 1))
        }
    }

    private mutating func readSet(
        _ reader: inout ByteReader, _ state: inout Namespace
    ) throws(DecodeError) {
        var record = SetRecord(
            configuration: try SetConfiguration(from: &reader),
            incarnations: try reader.readList(bound: Limits.members) {
                (reader) throws(DecodeError) in try reader.read()
            }, isFull: try reader.readBool(), chunks: try reader.read(),
            number: try reader.read())
        record.memberLeft = try reader.readTimestamp()
        guard record.key.rawValue <= state.lastSet, state.setTable.append(record) else {
            throw Self.wrong("set", record.key.rawValue)
        }
    }

    private mutating func readDrop(
        _ reader: inout ByteReader, _ state: inout Namespace
    ) throws(DecodeError) {
        let drop = PendingDrop(
            order: try reader.read(), set: try reader.read(),
            chunks: try reader.readList(bound: Record.chunksPerDrop) {
                (reader) throws(DecodeError) in try reader.readChunk()
            })
        guard drop.order <= state.lastOrder, state.dropOrders.append(drop) else {
            throw Self.wrong("drop", drop.order)
        }
        state.dropsBySet.insert(SetDrop(set: drop.set, order: drop.order))
        chunks[drop.set, default: 0] += UInt32(drop.chunks.count)
    }

    private mutating func readOperations(
        _ reader: inout ByteReader, _ state: inout Namespace
    ) throws(DecodeError) {
        func readServers(_ reader: inout ByteReader) throws(DecodeError) -> [ServerID] {
            try reader.readList(bound: 4_096) { (reader) throws(DecodeError) in
                try reader.read()
            }
        }
        state.draining = try readServers(&reader)
        state.removed = try readServers(&reader)
        state.rebalance = try reader.readOptional { (reader) throws(DecodeError) in
            try Rebalance(from: &reader)
        }
        state.scrub = try ScrubOrder(from: &reader)
        state.scrubs = try reader.readList(bound: 4_096) { (reader) throws(DecodeError) in
            ServerScrub(server: try reader.read(), order: try ScrubOrder(from: &reader))
        }
        state.fences = try reader.readList(bound: Limits.fences) { (reader) throws(DecodeError) in
            try reader.read()
        }
        state.lastFence = try reader.read()
    }
}
