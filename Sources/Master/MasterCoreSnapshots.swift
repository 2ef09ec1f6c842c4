// Snapshots of the namespace (M15, M16): taken where the log says so, a little in each turn from a
// value copy; loaded at the start. MasterCoreTransfer.swift gets those of other masters.
//
//   state      event                        next
//   (none)     a `snapshot` command applied making: encodes and writes blocks
//   making     all blocks encoded, and the  finishing: the manifest is written
//              carried records durable
//   finishing  durable                      (none): log and memory up to the one before are let go
//
// Invariants:
//  1. The copy is of the state right after its slot; what the acceptor knew then, and the entries
//     above the slot, are in the manifest and in records behind its position.
//  2. A damaged master writes none.

package import Base
import Consensus
import Namespace
import Node
import Store
import Wire

/// What a master knows of its snapshots.
struct SnapshotState: Sendable {
    /// A snapshot that is being written.
    struct Making: Sendable {
        var slot: Slot
        var entry: ShortHash
        var head: [UInt8]
        var note: [UInt8]
        var position: LogPosition
        /// The records that a start from it needs are durable with this one.
        var carried: LogNumber
        /// Nil when everything is encoded.
        var encoder: SnapshotEncoder?
    }
    var files = SnapshotFiles()
    /// At the start: what the blocks gave so far, and what the acceptor begins with.
    var decoder = SnapshotDecoder()
    var base = PaxosBase.none
    /// Of the log, applied since the last `snapshot` command.
    var entries: UInt64 = 0
    var bytes: UInt64 = 0
    /// The state after a `snapshot` command that was applied in this turn.
    var due: (slot: Slot, state: Namespace, masters: KnownMasters)?
    var making: Making?
    var fetch: SnapshotFetch?
    /// Since when others have let go of log that this master lacks.
    var behindSince: Instant?
    /// Pages that are being read for others.
    var serving: [DiskOperation: ServedPage] = [:]
    var nextCheck = Instant.zero
    /// The slot of the last alarm about another hash.
    var alarmed = Slot.none

    /// Bytes of the newest snapshot.
    var size: UInt64 {
        files.manifests.first?.plan.blocks.reduce(0) { $0 + UInt64($1.length) } ?? 0
    }
}

extension MasterCore {
    /// The durable snapshots, the newest first.
    package var snapshots: [SnapshotMark] { snapshot.files.manifests.map(\.mark) }

    // MARK: Start

    mutating func startSnapshots() {
        guard let inventory else { preconditionFailure("a start without a disk") }
        self.inventory = nil
        space.limit = inventory.limit
        take(snapshot.files.start(inventory, &log))
    }

    mutating func take(_ outputs: [SnapshotOutput]) {
        for output in outputs where !isHalted {
            switch output {
            case .disk(let effect): carryOut(effect)
            case .loading(let manifest): load(manifest)
            case .block(let block):
                do throws(DecodeError) { try snapshot.decoder.add(block[...]) } catch { reject() }
            case .loaded: finishLoading()
            case .none:
                snapshot.base = .none
                carryOut(log.replay(from: nil))
            case .damaged(let file):
                report("the snapshot in \(file) is damaged: the other one is used", isAlarm: true)
            case .written(let manifest): written(manifest)
            case .full:
                report("the disk has no space for a snapshot", isAlarm: true)
                snapshot.making = nil
                snapshot.fetch = nil
            case .page(let operation, let bytes): servePage(operation, bytes)
            case .failed(let failure): halt("the log failed: \(failure)")
            }
        }
    }

    private mutating func reject() {
        snapshot.decoder = SnapshotDecoder()
        snapshot.base = .none
        masters = KnownMasters(configuration)
        take(snapshot.files.reject(&log))
    }

    private mutating func load(_ manifest: SnapshotManifest) {
        snapshot.decoder = SnapshotDecoder()
        var reader = ByteReader(manifest.note)
        do throws(DecodeError) {
            snapshot.base = try PaxosBase(from: &reader)
            try reader.finish()
            masters = try KnownMasters(decoding: manifest.plan.head)
        } catch { reject() }
    }

    private mutating func finishLoading() {
        let decoder = snapshot.decoder
        snapshot.decoder = SnapshotDecoder()
        do throws(DecodeError) {
            namespace = try decoder.finish()
        } catch { return reject() }
        guard let manifest = snapshot.files.manifests.first else { return }
        carryOut(log.replay(from: manifest.start))
    }

    // MARK: Taking

    /// Whether a leader should call for one.
    var isSnapshotDue: Bool {
        let bytes = max(configuration.snapshotBytes, min(snapshot.size, Limits.snapshotMost))
        return snapshot.entries >= configuration.snapshotEntries || snapshot.bytes >= bytes
    }

    /// A leader calls for the next one in time.
    mutating func callForSnapshot() {
        guard lead?.isCallingSnapshot == false, isSnapshotDue, !snapshot.files.isWriting,
            snapshot.due == nil
        else { return }
        lead?.isCallingSnapshot = true
        submit(.snapshot, for: .snapshot)
    }

    /// An entry was applied; with a `snapshot` command in it, if so.
    mutating func noteApplied(_ slot: Slot, bytes: Int, isSnapshot: Bool) {
        snapshot.entries += 1
        snapshot.bytes += UInt64(bytes)
        guard isSnapshot else { return }
        snapshot.entries = 0
        snapshot.bytes = 0
        // One that joins knows no founders before the log names masters: its snapshot would differ
        // from the others' (masters seed 2004897).
        guard !snapshot.files.isWriting, snapshot.fetch == nil, paxos?.hasRot == false,
            masters.membership != .none
        else { return }
        snapshot.due = (slot, namespace, masters)
    }

    /// Goes on with what is being written: at most `Limits.snapshotItems` items in a turn.
    mutating func makeSnapshot() {
        beginSnapshot()
        guard var making = snapshot.making else { return }
        if var encoder = making.encoder, snapshot.files.hasRoom {
            // Out of the state and back: the encoder has one owner while it changes.
            making.encoder = nil
            snapshot.making = nil
            switch encoder.advance(items: Limits.snapshotItems) {
            case .more: making.encoder = encoder
            case .block(let block):
                making.encoder = encoder
                take(snapshot.files.add(block, &log))
            case .end: break
            }
            snapshot.making = making
        }
        guard making.encoder == nil, log.durable >= making.carried || !log.isWriting else { return }
        snapshot.making = nil
        let plan = snapshot.files.plan(
            slot: making.slot, entry: making.entry, head: making.head)
        take(
            snapshot.files.finish(
                plan, note: making.note, position: making.position, &log))
    }

    private mutating func beginSnapshot() {
        guard let due = snapshot.due, let paxos else { return }
        snapshot.due = nil
        let base = paxos.base(at: due.slot)
        var note = ByteWriter(capacity: 64)
        base.encode(into: &note)
        var position = log.position
        position.number = LogNumber(rawValue: log.nextNumber.rawValue - 1)
        let carried = self.paxos?.carry(above: due.slot) ?? []
        carryOut(carried)
        snapshot.making = SnapshotState.Making(
            slot: due.slot, entry: base.hash.short, head: due.masters.bytes,
            note: note.bytes, position: position,
            carried: LogNumber(rawValue: log.nextNumber.rawValue - 1),
            encoder: SnapshotEncoder(due.state))
        take(snapshot.files.begin(&log))
    }

    /// Whether a turn would bring the writing forward.
    var wantsSnapshotTurn: Bool { snapshot.making?.encoder != nil && snapshot.files.hasRoom }

    private mutating func written(_ manifest: SnapshotManifest) {
        if snapshot.fetch != nil { return install(manifest) }
        report("snapshot of slot \(manifest.plan.slot): \(manifest.plan.blocks.count) blocks")
        tellSnapshots()
    }
    /// The others hear of the snapshots with the next heartbeat.
    mutating func tellSnapshots() {
        let marks = snapshots
        paxos?.snapshots = marks
    }

    /// Lets entries go that two durable snapshots have, a few in each turn (M16).
    mutating func forgetEntries() {
        guard snapshot.files.manifests.count == 2 else { return }
        paxos?.forget(through: snapshot.files.manifests[1].plan.slot)
    }

    // MARK: The others

    /// Looks now and then at what snapshots the others have.
    mutating func lookAtOthers() {
        guard time.now >= snapshot.nextCheck, paxos?.hasRot == false else { return }
        snapshot.nextCheck = time.now + Limits.masterHeartbeat
        compareSnapshots()
        if !isHalted, snapshot.fetch == nil { beginFetch() }
    }

    /// Masters whose snapshot of the same slot has another hash have another state: whoever most
    /// of them contradict stops (M15).
    private mutating func compareSnapshots() {
        guard let peers = paxos?.peers(now: time.now) else { return }
        for own in snapshots {
            let others = peers.compactMap { peer in
                peer.snapshots.first { $0.slot == own.slot && $0.root != own.root }?.root
            }
            for root in others {
                if others.count(where: { $0 == root }) >= masters.membership.quorum {
                    return halt(
                        "the snapshot of slot \(own.slot) differs from that of most masters: the "
                            + "state of this one is wrong; its disk must not be used again")
                }
            }
            if !others.isEmpty, snapshot.alarmed < own.slot {
                snapshot.alarmed = own.slot
                report(
                    "another master has another snapshot of slot \(own.slot): one of them is "
                        + "wrong", isAlarm: true)
            }
        }
    }
}
