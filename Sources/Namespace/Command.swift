// What the masters' log holds: every change of the namespace, with everything its leader chose
// as data (time, sets, holders), so that applying it needs nothing but the state (M13).
//
// Invariants:
//  1. Whatever a command says is checked again when it is applied; the state may have changed
//     since the leader proposed it.
//  2. Identities that nobody has to know beforehand (inodes, sessions, sets, drop orders) are
//     given out when the command is applied, from counters of the state: they can't collide
//     between pipelined commands or between leaders, and are never reissued (S8).

package import Base

/// One entry of the log as the namespace sees it.
package struct Command: Hashable, Sendable {
    /// The leader's wall clock when it proposed the command; the namespace's time never goes
    /// back because of it (M14).
    package var time: Timestamp
    package var action: Action

    /// Both fields at once.
    package init(time: Timestamp, action: Action) {
        self.time = time
        self.action = action
    }

    /// What is to be done.
    package enum Action: Hashable, Sendable {
        /// A client's numbered change, executed at most once (M12). -> see `Change`
        case client(
            SessionID, number: RequestNumber, firstIncomplete: RequestNumber, Change)
        /// The same nonce gives the same session while it lives. -> session
        case openSession(nonce: UInt64, label: String)
        /// Lets time pass: sessions expire here and nowhere else (S3), and chunks that were
        /// let go since the last tick become drop orders. -> done
        case tick
        /// A new leader's first command: every session gets a full term (M14). -> done
        case begin(round: UInt64, leader: MasterID)
        /// A chunk server and its disks as they are now. -> done or conflict
        case registerServer(ServerRecord, disks: [DiskRecord])
        /// A new set in epoch 1 on these disks. -> set or conflict
        case createSet(members: [DiskID], primary: DiskID, minMembers: UInt8 = 1)
        /// Compare and set (C1): in force if its epoch follows the present one, its primary is
        /// a present member (C2), and at most one member is new, a learner that has everything
        /// (C9); `incarnations` of the members, in their order (C10). -> set or conflict
        case changeEpoch(SetConfiguration, incarnations: [Incarnation])
        /// The set takes no new chunks. -> done or conflict
        case setFull(SetID)
        /// These orders are committed on every member of their sets (S6). -> done
        case confirmDrops([UInt64])
        /// These cuts are committed on every member of their sets. -> done
        case confirmCuts([PendingCut])
        /// A set of a loaded state goes on, in an epoch far above `base`, the highest that any
        /// disk knows: in force if it was not adopted before. -> set or conflict
        case adoptSet(SetConfiguration, base: Epoch, incarnations: [Incarnation])
        /// Every master takes a snapshot of the state after this slot (M15). -> done
        case snapshot
        /// What the leader does by itself as an operator would. -> done or refused
        case operate(Operation)
    }
}

/// A client's change with what the leader adds to it. Names are those of the wire's messages.
package enum Change: Hashable, Sendable {
    /// -> created
    case create(Creation)
    /// -> entry
    case link(InodeID, parent: InodeID, name: [UInt8])
    /// `holders`: sessions that have the file open, as far as the leader knows (K13). -> done
    case unlink(parent: InodeID, name: [UInt8], holders: [SessionID])
    /// -> done
    case removeDirectory(parent: InodeID, name: [UInt8])
    /// `holders`: sessions that have the file open that is replaced. -> done
    case rename(
        parent: InodeID, name: [UInt8], newParent: InodeID, newName: [UInt8],
        flags: RenameFlags, holders: [SessionID])
    /// -> entry
    case setAttributes(InodeID, AttributeChanges)
    /// Makes the file exactly `size` long. -> opened; or retry while it has too many cuts
    case truncate(InodeID, size: UInt64)
    /// Makes files long enough, one after the other. `numbers`: what the writes behind it got in
    /// their sets. -> extended
    case extend([FileEnd], numbers: [SetNumber] = [])
    /// Gives the chunks from `first` on these places, one each; a chunk that has a place keeps
    /// it. -> layout of that range; or retry if a set can't take it
    case allocate(InodeID, first: UInt32, sets: [SetID])
    /// -> done
    case setExtendedAttribute(InodeID, name: [UInt8], value: [UInt8], flags: ExtendedFlags)
    /// -> done
    case removeExtendedAttribute(InodeID, name: [UInt8])
    /// -> orphans
    case renewSession
    /// -> done
    case releaseOrphans([InodeID])
    /// -> done
    case closeSession
    /// -> done or refused
    case operate(Operation)
}

/// A new inode and its first name.
package struct Creation: Hashable, Sendable {
    package var parent: InodeID
    package var name: [UInt8]
    package var kind: FileKind
    /// 12 bits.
    package var mode: UInt16
    package var user: UInt32
    /// Replaced by the parent's group where the parent is set-gid.
    package var group: UInt32
    /// Of a device file, else ignored.
    package var device: UInt32
    /// Of a symlink, else empty.
    package var target: [UInt8]
    /// Where a file's first chunk goes; nil or a set that can't take it: no place yet.
    package var set: SetID?

    /// All fields at once.
    package init(
        parent: InodeID, name: [UInt8], kind: FileKind, mode: UInt16, user: UInt32 = 0,
        group: UInt32 = 0, device: UInt32 = 0, target: [UInt8] = [], set: SetID? = nil
    ) {
        self.parent = parent
        self.name = name
        self.kind = kind
        self.mode = mode
        self.user = user
        self.group = group
        self.device = device
        self.target = target
        self.set = set
    }
}

/// What a command did. The leader turns it into a reply.
package enum Outcome: Hashable, Sendable {
    /// Refused; nothing changed.
    case failed(FileError)
    /// Not now; nothing changed and the number is not used up.
    case retry
    /// The session is unknown or expired: nothing was executed (M12).
    case sessionDead
    /// The number is below the session's first incomplete one: nothing was executed (M12).
    case forgotten
    /// The servers' side of the state is not as the command assumes: nothing changed.
    case conflict
    /// An operator's change was refused; nothing changed.
    case refused(Refusal)
    case done
    case entry(Attributes)
    /// The layout covers the first chunk; like all layouts of outcomes it has no `sets`: see
    /// `Namespace.resolve`.
    case created(Attributes, Layout)
    /// The layout covers the first `Limits.chunksPerAllocation` chunks.
    case opened(Attributes, Layout)
    case layout(Layout)
    /// For each file what became of it.
    case extended([FileEndOutcome])
    case session(SessionID, time: Timestamp)
    case orphans([InodeID], time: Timestamp)
    case set(SetConfiguration)
}

/// A chunk server as the log knows it.
package struct ServerRecord: Hashable, Sendable, Keyed {
    package var id: ServerID
    /// The folder name or host that it calls itself by.
    package var name: String
    package var rack: String
    package var address: PeerAddress

    /// All fields at once.
    package init(id: ServerID, name: String, rack: String, address: PeerAddress) {
        self.id = id
        self.name = name
        self.rack = rack
        self.address = address
    }
    var key: ServerID { id }
}

/// A disk as the log knows it; its load and whether it is up are the leader's soft state.
package struct DiskRecord: Hashable, Sendable, Keyed {
    package var id: DiskID
    package var server: ServerID
    package var incarnation: Incarnation
    /// Bytes.
    package var capacity: UInt64

    /// All fields at once.
    package init(id: DiskID, server: ServerID, incarnation: Incarnation, capacity: UInt64) {
        self.id = id
        self.server = server
        self.incarnation = incarnation
        self.capacity = capacity
    }
    var key: DiskID { id }
}

/// A replica set as the log knows it.
package struct SetRecord: Hashable, Sendable, Keyed {
    package var configuration: SetConfiguration
    /// Of the members, in their order, when this epoch began (C10).
    package var incarnations: [Incarnation]
    /// It takes no new chunks.
    package var isFull: Bool
    /// Chunks that are placed here or not yet dropped.
    package var chunks: UInt32
    /// The highest record that a file's size was announced with; see `SetView`.
    package var number = RecordNumber.none
    /// When a member last left without another in its place: what it has may be needed (C14).
    /// Zero: none ever did.
    package var memberLeft = Timestamp.zero

    var key: SetID { configuration.set }
}

/// Chunks to be dropped from a set; `order` numbers the drops of the whole cell (S6).
package struct PendingDrop: Hashable, Sendable, Keyed {
    package var order: UInt64
    package var set: SetID
    /// 1 to `Record.chunksPerDrop`, in ascending order.
    package var chunks: [ChunkID]

    var key: UInt64 { order }
}

/// A cut that the members of a set have not all confirmed (DESIGN 3.3, Size).
package struct PendingCut: Hashable, Sendable, Keyed {
    package var set: SetID
    package var chunk: ChunkID
    package var truncation: UInt32
    /// Offset in the chunk from which bytes are gone.
    package var from: UInt32

    /// All fields at once.
    package init(set: SetID, chunk: ChunkID, truncation: UInt32, from: UInt32) {
        self.set = set
        self.chunk = chunk
        self.truncation = truncation
        self.from = from
    }

    struct Key: Comparable, Sendable {
        var set: SetID
        var chunk: ChunkID
        var truncation: UInt32
        static func < (left: Key, right: Key) -> Bool {
            (left.set, left.chunk, left.truncation)
                < (right.set, right.chunk, right.truncation)
        }
    }
    var key: Key { Key(set: set, chunk: chunk, truncation: truncation) }
}
