// The input and output of `SetReplica`.

package import Base

/// What a replica's disk held when its process started.
package struct RestoredReplica: Hashable, Sendable {
    /// The epoch starts that are durable, by ascending epoch; empty for a set that is new here.
    package var starts: [EpochStart]
    /// The highest epoch of those records; above the last start's only where damage took that
    /// epoch's start from the disk.
    package var recordEpoch: Epoch
    /// The last record that was on the disk and is alive, damaged or not.
    package var prepared: RecordNumber
    /// The last record known to be committed.
    package var committed: RecordNumber
    /// Records that are damaged, ascending.
    package var damaged: [RecordNumber]

    /// All fields at once.
    package init(
        starts: [EpochStart], prepared: RecordNumber, committed: RecordNumber,
        damaged: [RecordNumber], recordEpoch: Epoch = .none
    ) {
        self.starts = starts
        self.recordEpoch = recordEpoch
        self.prepared = prepared
        self.committed = committed
        self.damaged = damaged
    }
}

/// A record that has no number yet.
package struct RecordDraft: Hashable, Sendable {
    package var session: SessionID
    package var sequence: RequestNumber
    package var firstUnacked: RequestNumber
    package var truncation: UInt32
    package var body: RecordBody

    /// All fields at once; see `Record`.
    package init(
        session: SessionID, sequence: RequestNumber, firstUnacked: RequestNumber,
        truncation: UInt32, body: RecordBody
    ) {
        self.session = session
        self.sequence = sequence
        self.firstUnacked = firstUnacked
        self.truncation = truncation
        self.body = body
    }
    /// Stored bytes that it brings.
    var bytes: Int {
        if case .write(let extent) = body { extent.payload.count } else { 0 }
    }
}

/// Records that are answered together: when the last of them is committed, or when the replica is
/// no longer the primary.
package struct WriteDraft: Hashable, Sendable {
    /// Names the write in its answer.
    package var tag: UInt64
    package var records: [RecordDraft]

    /// Both fields at once.
    package init(tag: UInt64, _ records: [RecordDraft]) {
        self.tag = tag
        self.records = records
    }
}

/// Input of a replica.
package enum ReplicaEvent: Hashable, Sendable {
    /// By order of the masters (C1); an older one than the known one is ignored.
    case configure(SetConfiguration)
    /// Writes to be numbered, in order, and sent together; only while `takesWrites`.
    case writes([WriteDraft])
    /// From the peer that the message names; the host checked that it is that peer.
    case message(ReplicationMessage)
    /// Everything in the disk's log up to this is durable.
    case durable(through: LogNumber)
    /// The answer to `load`.
    case loaded(RecordNumber, LoadResult)
    /// The bytes of a record turned out to be damaged.
    case damaged(RecordNumber)
    /// The last connection with the disk's server broke: what was sent may be lost.
    case lost(DiskID)
    /// By order of the masters: this disk is to be filled, and to become a member (C9). Ignored
    /// in another epoch, and while another learner counts.
    case fill(Epoch, learner: DiskID)
    /// By order of the masters: every member has the set in this epoch, and this disk is none of
    /// them; what it has is emptied (C14). Ignored by a member, and once it heard of a later epoch.
    case discard(SetConfiguration)
    /// A read waits for the primary's lease (C11).
    case wantLease
    /// The disk of a backup has no space for data, and blocks of the set that want folding.
    case wantFold
    /// Time has passed.
    case tick
}

extension ReplicaEvent {
    /// A write alone.
    package static func write(tag: UInt64, _ records: [RecordDraft]) -> ReplicaEvent {
        .writes([WriteDraft(tag: tag, records)])
    }
}

/// What a replica wants done, in this order.
package enum ReplicaEffect: Hashable, Sendable {
    /// Goes to the disk's log; the host calls `placed` for each append, in order.
    case appendEpoch(EpochStart)
    case append(Record)
    /// Every record up to this is committed.
    case commit(through: RecordNumber)
    /// Sent at most once, to `receiver`.
    case send(ReplicationMessage)
    /// Reads the live record of a number; answered with `loaded`.
    case load(RecordNumber)
    /// The end of a write.
    case answer(tag: UInt64, WriteOutcome)
    /// A damaged record came from a peer: it replaces what the disk has. `nothing` as the body
    /// means that later records replaced it everywhere.
    case repaired(Record)
    /// Nobody can give this damaged record, and the epoch accepts that: what is left of it takes
    /// its place, without its bytes (decision 0020).
    case givenUp(RecordNumber)
    /// Something that an operator must see.
    case alarm(String)
}

/// How a write ended at this replica.
package enum WriteOutcome: Hashable, Sendable {
    /// On the disk of every member (C5); the number of its last record.
    case committed(RecordNumber)
    /// This replica is not the primary any more, or it has too few members. The write may or may
    /// not happen; the writer sends it again with the same sequence (S7, C15).
    case notPrimary
}
