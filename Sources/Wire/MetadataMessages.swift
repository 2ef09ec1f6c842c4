// What clients ask the masters. Reads need no session; mutations are numbered and happen once
// (M12).

package import Base

/// A question that changes nothing; answered by the leader after a read index (M10).
package enum MetadataQuery: Hashable, Sendable {
    /// -> entry
    case lookup(parent: InodeID, name: [UInt8])
    /// -> attributes
    case attributes(InodeID)
    /// -> bytes: the target
    case readLink(InodeID)
    /// -> directory: names after `cookie` (0: from the start), at most `limit`
    case readDirectory(InodeID, after: UInt64, limit: UInt32, withAttributes: Bool)
    /// -> bytes: the value
    case extendedAttribute(InodeID, name: [UInt8])
    /// -> names
    case extendedAttributes(InodeID)
    /// -> layout of `count` chunks from `first`
    case layout(InodeID, first: UInt32, count: UInt32)
    /// -> opened; the leader remembers that the session has the file open (K13)
    case open(InodeID)
    /// -> done; one open less
    case close(InodeID)
    /// -> sets: where they are now
    case sets([SetID])
    /// -> statistics
    case statistics
    /// -> status
    case status
    /// -> map: of sets after this one, and what is done about them
    case map(after: SetID)
    /// -> operations
    case operations
    /// -> masters; any master answers, as far as it knows
    case masters
    /// -> done: it is under way, and `masters` tells how it ends; or refused
    case order(MasterOrder)
    /// -> snapshot: the newest, of this slot or a later one; `retry` while it is being written
    case snapshot(since: Slot)
    /// -> part: bytes of it from `offset` on; `stale` if the leader does not have it
    case part(SnapshotMark, SnapshotPart, offset: UInt32)
}

/// A change; it goes through the Paxos log.
package enum MetadataChange: Hashable, Sendable {
    /// -> created. A file gets the place of its first chunk at once. `target`: of a symlink.
    /// An existing name is an error; the inode counts as open by the session if `open`.
    case create(
        parent: InodeID, name: [UInt8], kind: FileKind, mode: UInt16, user: UInt32, group: UInt32,
        device: UInt32, target: [UInt8], open: Bool)
    /// -> attributes
    case link(InodeID, parent: InodeID, name: [UInt8])
    /// -> done
    case unlink(parent: InodeID, name: [UInt8])
    /// -> done
    case removeDirectory(parent: InodeID, name: [UInt8])
    /// -> done
    case rename(
        parent: InodeID, name: [UInt8], newParent: InodeID, newName: [UInt8], flags: RenameFlags)
    /// -> attributes
    case setAttributes(InodeID, AttributeChanges)
    /// Makes the file exactly `size` long. -> opened: attributes, and the new layout's cuts
    case truncate(InodeID, size: UInt64)
    /// Makes files long enough, one after the other: at most `Limits.extendedFiles`.
    /// `numbers`: what writes of this client got in their sets and no extend named yet.
    /// -> extended
    case extend([FileEnd], numbers: [SetNumber] = [])
    /// Gives places to chunks `first ..< first + count` that have none. -> layout
    case allocate(InodeID, first: UInt32, count: UInt32)
    /// -> done
    case setExtendedAttribute(InodeID, name: [UInt8], value: [UInt8], flags: ExtendedFlags)
    /// -> done
    case removeExtendedAttribute(InodeID, name: [UInt8])
    /// -> session. `request` of the frame's numbering is ignored; `nonce` makes retries one.
    case openSession(nonce: UInt64, label: String)
    /// -> orphans: unlinked files that the session is said to hold open
    case renewSession
    /// -> done; the session holds these unlinked files no longer
    case releaseOrphans([InodeID])
    /// -> done
    case closeSession
    /// -> done, or refused
    case operate(Operation)
}

/// A client's request to the masters.
package struct MetadataRequest: Message {
    package static let kind = FrameKind.metadataRequest
    /// A question or a change.
    package enum Body: Hashable, Sendable {
        case query(MetadataQuery)
        case change(MetadataChange)
    }
    /// `.none` is allowed for queries and openSession.
    package var session: SessionID
    /// The change's number; 0 for queries.
    package var number: RequestNumber
    /// The session's oldest change without an answer (M12).
    package var firstIncomplete: RequestNumber
    package var body: Body

    /// A question.
    package init(session: SessionID, query: MetadataQuery) {
        self.session = session
        number = RequestNumber(rawValue: 0)
        firstIncomplete = RequestNumber(rawValue: 0)
        body = .query(query)
    }
    /// A change.
    package init(
        session: SessionID, number: RequestNumber, firstIncomplete: RequestNumber,
        change: MetadataChange
    ) {
        self.session = session
        self.number = number
        self.firstIncomplete = firstIncomplete
        body = .change(change)
    }
}

/// Capacity and use of the cell, for statfs. Bytes are as one copy sees them.
package struct CellStatistics: Hashable, Sendable {
    package var capacity: UInt64
    package var free: UInt64
    package var files: UInt64

    /// All fields at once.
    package init(capacity: UInt64, free: UInt64, files: UInt64) {
        self.capacity = capacity
        self.free = free
        self.files = files
    }
}

/// The masters' answer.
package enum MetadataReply: Message {
    package static let kind = FrameKind.metadataReply
    /// The operation was refused; nothing changed.
    case failed(FileError)
    /// Ask this one, if it is known; and who the masters are (M17).
    case notLeader(MasterID?, Membership)
    /// The leader can't answer just now: same request, same number, a little later.
    case retry
    /// The session is unknown or expired: nothing of it is executed any more (M12).
    case sessionDead
    /// The change's number is below the session's `firstIncomplete`: dropped (M12).
    case forgotten
    case done
    case entry(Attributes)
    case created(Attributes, Layout)
    case opened(Attributes, Layout)
    case layout(Layout)
    /// For each file what became of it.
    case extended([FileEndOutcome])
    case bytes([UInt8])
    case names([[UInt8]])
    /// `atEnd`: no name follows the last one.
    case directory([DirectoryEntry], atEnd: Bool)
    case sets([SetView])
    case statistics(CellStatistics)
    /// The new session, and the leader's time.
    case session(SessionID, time: Timestamp)
    case orphans([InodeID], time: Timestamp)
    case status(CellStatus)
    case map(SetMap)
    case operations(CellOperations)
    /// An operator's change was refused; nothing changed.
    case refused(Refusal)
    case masters(MastersView)
    case snapshot(SnapshotMark)
    /// Bytes of a part of a snapshot that has `length` of them.
    case part(length: UInt32, [UInt8])
}

/// What one master knows of all of them.
package struct MastersView: Hashable, Sendable {
    /// Who says so.
    package var id: MasterID
    package var membership: Membership
    package var leader: MasterID?
    /// The end of its log; 0: it has nothing yet.
    package var end: Slot

    /// All fields at once.
    package init(id: MasterID, membership: Membership, leader: MasterID?, end: Slot) {
        self.id = id
        self.membership = membership
        self.leader = leader
        self.end = end
    }
    func encode(into writer: inout ByteWriter) {
        writer.write(id)
        membership.encode(into: &writer)
        writer.writeOptional(leader) { $0.write($1) }
        writer.write(end)
    }
    init(from reader: inout ByteReader) throws(DecodeError) {
        id = try reader.read()
        membership = try Membership(from: &reader)
        leader = try reader.readOptional { (reader) throws(DecodeError) in try reader.read() }
        end = try reader.read()
    }
}
