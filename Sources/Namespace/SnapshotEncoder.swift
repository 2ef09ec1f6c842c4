// The state as the blocks of a snapshot (M15, docs/FORMATS.md): everything that is not derived, in
// one order, so that equal states give equal bytes. It is made from a value copy, a few items at a
// time: the copy shares its memory with the living state until that changes.
//
// Invariants:
//  1. An item lies within one block; a block ends before the item that does not fit.
//  2. Where blocks end depends on the items only, not on how many were asked for at a time.

import Base

/// What a snapshot says first.
struct SnapshotHead: Hashable, Sendable {
    var time: Timestamp
    var applied: Slot
    var round: UInt64
    var master: MasterID
    var lastSession: UInt64
    var lastSet: UInt64
    var lastOrder: UInt64
    var lastScrub: UInt64
    var firstFree: UInt64
    /// Slots of inodes that follow.
    var slots: UInt64
}

/// What an item of a snapshot is; they come in this order. Names follow their directory,
/// replies their session.
enum SnapshotItem: UInt8, Comparable {
    case head = 1
    case inode, directory, name, target, attributes, place, cuts, session, reply, holding
    case server, disk, set, operations, loose, drop, load, loadedSet

    static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }
}

/// Encodes a state as blocks.
package struct SnapshotEncoder: Sendable {
    /// What a call gave.
    package enum Output: Sendable {
        /// Nothing yet.
        case more
        /// The next block.
        case block([UInt8])
        /// There are no more.
        case end
    }
    private let state: Namespace
    /// What the next item is, unless there are no more of its kind.
    private var stage: SnapshotItem? = .head
    private var slot = 1
    private var cursor = TableCursor()
    /// The directory whose names, or the session whose replies, are being written.
    private var directory: Directory?
    private var replies: ArraySlice<Session.Reply> = []
    private var looseIndex = 0
    private var writer = ByteWriter()

    /// Of a state that nobody else has to keep.
    package init(_ state: Namespace) { self.state = state }

    /// Encodes at most so many items, and at most to the end of a block.
    package mutating func advance(items: Int) -> Output {
        for _ in 0..<items {
            guard stage != nil else {
                guard writer.count > 0 else { return .end }
                return .block(takeBlock(writer.count))
            }
            let start = writer.count
            encodeNext()
            if writer.count > Limits.snapshotBlock {
                precondition(start > 0, "an item is longer than a block")
                return .block(takeBlock(start))
            }
        }
        return .more
    }

    private mutating func takeBlock(_ count: Int) -> [UInt8] {
        let bytes = writer.bytes
        writer = ByteWriter(capacity: 4 << 10)
        writer.append(bytes[count...])
        return Array(bytes[..<count])
    }

    /// Writes one item, or finds that there is no more of its kind.
    private mutating func encodeNext() {
        guard let stage else { return }
        switch stage {
        case .head: encodeHead()
        case .inode: encodeInode()
        case .directory, .name: encodeNames()
        case .target:
            walk(state.targets) {
                $0.write($1.inode)
                $0.writeBytes($1.target)
            }
        case .attributes:
            walk(state.attributeLists) { writer, list in
                writer.write(list.inode)
                writer.writeList(list.items) {
                    $0.writeBytes($1.name)
                    $0.writeBytes($1.value)
                }
            }
        case .place:
            walk(state.places) {
                $0.write($1.key.inode)
                $0.write($1.key.index)
                $0.write($1.version)
                $0.write($1.set)
            }
        case .cuts:
            walk(state.cuts) {
                $0.write($1.inode)
                $0.writeList($1.cuts) { $1.encode(into: &$0) }
            }
        case .session, .reply: encodeSession()
        case .holding:
            walk(state.holdings) {
                $0.write($1.session)
                $0.write($1.inode)
            }
        case .server: walk(state.servers) { $1.encode(into: &$0) }
        case .disk: walk(state.disks) { $1.encode(into: &$0) }
        case .set:
            walk(state.setTable) { writer, set in
                set.configuration.encode(into: &writer)
                writer.writeList(set.incarnations) { $0.write($1) }
                writer.write(set.isFull)
                writer.write(set.chunks)
                writer.write(set.number)
                writer.write(set.memberLeft)
            }
        case .operations: encodeOperations()
        case .loose: encodeLoose()
        case .drop:
            walk(state.dropOrders) { writer, drop in
                writer.write(drop.order)
                writer.write(drop.set)
                writer.writeList(drop.chunks) { $0.write($1) }
            }
        case .load:
            if let load = state.load {
                begin(.load)
                load.encode(into: &writer)
            }
            leave(.load)
        case .loadedSet: walk(state.loadedSets) { $1.encode(into: &$0) }
        }
    }

    private mutating func begin(_ item: SnapshotItem) { writer.write(item.rawValue) }
    private mutating func leave(_ item: SnapshotItem) {
        cursor = TableCursor()
        stage = SnapshotItem(rawValue: item.rawValue + 1)
    }

    /// Writes the next element of a table.
    private mutating func walk<Element>(
        _ table: OrderedTable<Element>, _ encode: (inout ByteWriter, Element) -> Void
    ) {
        guard let stage else { return }
        guard let element = table.next(&cursor) else { return leave(stage) }
        begin(stage)
        encode(&writer, element)
    }

    private mutating func encodeHead() {
        begin(.head)
        writer.write(state.time)
        writer.write(state.applied)
        writer.write(state.leader.round)
        writer.write(state.leader.master)
        for counter in [
            state.lastSession, state.lastSet, state.lastOrder, state.lastScrub,
            state.inodes.firstFree, UInt64(state.inodes.lastSlot),
        ] { writer.write(counter) }
        leave(.head)
    }

    private mutating func encodeInode() {
        guard slot <= state.inodes.lastSlot else {
            slot = 1
            return leave(.inode)
        }
        let record = state.inodes[slot]
        begin(.inode)
        writer.write(record.kind?.rawValue ?? 0)
        writer.write(record.generation)
        writer.write(record.mode)
        writer.write(record.links)
        writer.write(record.user)
        writer.write(record.group)
        // Where a directory is in the table of directories is this master's own affair.
        writer.write(record.kind == .directory ? 0 : record.auxiliary)
        writer.write(record.truncation)
        writer.write(record.size)
        writer.write(record.place)
        writer.write(record.accessed)
        writer.write(record.modified)
        writer.write(record.changed)
        slot += 1
    }

    private mutating func encodeNames() {
        if let open = directory {
            guard let entry = open.entries.next(&cursor) else {
                directory = nil
                cursor = TableCursor()
                return
            }
            begin(.name)
            writer.write(entry.cookie)
            writer.write(entry.inode)
            writer.write(UInt8(entry.name.count))
            writer.append(entry.name)
            return
        }
        let end = min(slot + 64, state.inodes.lastSlot + 1)
        while slot < end, state.inodes[slot].kind != .directory { slot += 1 }
        if slot > state.inodes.lastSlot { return leave(.name) }
        guard slot < end else { return }
        let next = state.directory(slot)
        begin(.directory)
        writer.write(UInt64(slot))
        writer.write(next.nextCookie)
        directory = next
        slot += 1
    }

    private mutating func encodeSession() {
        if let reply = replies.popFirst() {
            begin(.reply)
            writer.write(reply.number)
            reply.outcome.encode(into: &writer)
            return
        }
        guard let session = state.sessions.next(&cursor) else { return leave(.reply) }
        begin(.session)
        writer.write(session.id)
        writer.write(session.nonce)
        writer.write(session.label)
        writer.write(session.deadline)
        writer.write(session.firstIncomplete)
        replies = session.replies[...]
    }

    private mutating func encodeOperations() {
        begin(.operations)
        writer.writeList(state.draining) { $0.write($1) }
        writer.writeList(state.removed) { $0.write($1) }
        writer.writeOptional(state.rebalance) { $1.encode(into: &$0) }
        state.scrub.encode(into: &writer)
        writer.writeList(state.scrubs) { writer, own in
            writer.write(own.server)
            own.order.encode(into: &writer)
        }
        writer.writeList(state.fences) { $0.write($1) }
        writer.write(state.lastFence)
        leave(.operations)
    }

    private mutating func encodeLoose() {
        guard looseIndex < state.loose.count else { return leave(.loose) }
        begin(.loose)
        writer.write(state.loose[looseIndex].set)
        writer.write(state.loose[looseIndex].chunk)
        looseIndex += 1
    }
}
