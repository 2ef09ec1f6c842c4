// A master that fell behind what the others still have of the log gets a snapshot from them
// (M16). It is not tied to a leader: what is in a snapshot was chosen.
//
//   state     event                              next
//   (none)    others let go of what it lacks     fetching: asks one master after the other
//   fetching  all blocks came, each verified     frozen, unless it leads or has caught up: obeys
//                                                nobody until the disk has everything
//   frozen    the log is durable                 entries that follow the snapshot are written
//                                                again, behind where a start from it reads
//   frozen    these are durable                  the manifest is written
//   frozen    the manifest is durable            (none): the snapshot is its state
//
// Invariants:
//  1. Only a snapshot above all that was applied is installed; the ballot of the log stays, and
//     the promise rises to that of a master that has it: the leaders of lower ballots may not
//     know what is in it.
//  2. It is installed in one step, when its manifest is durable: before, a start goes on with the
//     old snapshot and log; after, with this one.

import Base
import Consensus
import Namespace
import Node
import Store
import Wire

/// A snapshot on its way from other masters.
struct SnapshotFetch: Sendable {
    var mark: SnapshotMark
    /// What a master that has it had promised: all of it was chosen in that ballot or before.
    var ballot: Ballot
    var plan: SnapshotPlan?
    /// The part that comes next, and what came of it.
    var part = SnapshotPart.plan
    var bytes: [UInt8] = []
    var decoder = SnapshotDecoder()
    var asked = Instant.zero
    /// The next part is asked for when the disk has taken more of those before.
    var waitsForDisk = false
    /// How often another master was tried.
    var tries = 0
    /// The state, when all of it came, and the masters by the plan.
    var state: Namespace?
    var masters: KnownMasters?
    var isFrozen = false
    /// Where a start from it begins to read the log.
    var position: LogPosition?
    /// The manifest is on its way to the disk.
    var isFinishing = false
}

/// A page that is being read for another.
struct ServedPage: Sendable {
    enum Asker: Sendable {
        case master(MasterID)
        /// Who makes a dump.
        case client(ReplyAddress)
    }
    var asker: Asker
    var mark: SnapshotMark
    var part: SnapshotPart
    var offset: UInt32
    var length: UInt32
}

extension MasterCore {
    /// Nothing of Paxos may happen until the disk has the snapshot.
    var isFrozen: Bool { snapshot.fetch?.isFrozen ?? false }

    // MARK: Fetching

    mutating func fetchSnapshot() {
        guard let fetch = snapshot.fetch else { return }
        if fetch.state != nil { return freeze() }
        if fetch.mark.slot <= applied { return abandonFetch() }
        if fetch.waitsForDisk { return askForPart() }
        if time.now >= fetch.asked + Limits.snapshotRetry {
            snapshot.fetch?.tries += 1
            askForPart()
        }
    }

    /// Begins where others have let go of what this master lacks, for some time.
    mutating func beginFetch() {
        guard let paxos, snapshot.making == nil, !snapshot.files.isWriting, snapshot.due == nil,
            !paxos.isLeadingOrTrying
        else { return }
        let ahead = paxos.peers(now: time.now).filter { $0.isUp && $0.start > paxos.chosen }
        let source = ahead.max {
            ($0.snapshots.first?.slot ?? .none) < ($1.snapshots.first?.slot ?? .none)
        }
        guard let source, let mark = source.snapshots.first, mark.slot > paxos.delivered else {
            snapshot.behindSince = nil
            return
        }
        // What is on its way from the leader may still help.
        let since = snapshot.behindSince ?? time.now
        snapshot.behindSince = since
        guard time.now - since >= Limits.snapshotRetry else { return }
        snapshot.behindSince = nil
        report("is behind the log of the others: fetches the snapshot of slot \(mark.slot)")
        snapshot.fetch = SnapshotFetch(mark: mark, ballot: source.promised)
        take(snapshot.files.begin(&log))
        askForPart()
    }

    private mutating func askForPart() {
        guard let fetch = snapshot.fetch, let paxos else { return }
        snapshot.fetch?.waitsForDisk = !snapshot.files.hasRoom
        guard snapshot.files.hasRoom else { return }
        let sources = paxos.peers(now: time.now).filter {
            $0.isUp && $0.snapshots.contains(fetch.mark)
        }
        guard !sources.isEmpty else { return abandonFetch() }
        let source = sources[fetch.tries % sources.count].id
        snapshot.fetch?.asked = time.now
        let need = SnapshotMessage.need(
            fetch.mark, fetch.part, offset: UInt32(fetch.bytes.count))
        send(.master(source), need.frame)
    }

    private mutating func abandonFetch() {
        snapshot.fetch = nil
        snapshot.files.abandon()
    }

    mutating func receiveSnapshot(_ frame: Frame, from master: MasterID) {
        do throws(DecodeError) {
            switch try SnapshotMessage(frame) {
            case .need(let mark, let part, let offset):
                serve(mark, part, offset, to: .master(master))
            case .page(let mark, let part, let offset, let length, let bytes):
                guard let fetch = snapshot.fetch, fetch.mark == mark, fetch.part == part,
                    fetch.state == nil, Int(offset) == fetch.bytes.count, !bytes.isEmpty
                else { return }
                snapshot.fetch?.bytes.append(contentsOf: bytes)
                if Int(offset) + bytes.count == Int(length) {
                    takePart()
                } else {
                    askForPart()
                }
            case .gone(let mark):
                guard snapshot.fetch?.mark == mark else { return }
                // The next try is at another master, in time.
                snapshot.fetch?.bytes = []
            }
        } catch {
            report("bad message from master \(master): \(error)")
        }
    }

    /// A part is there: a wrong one is asked for again, of another master.
    private mutating func takePart() {
        guard var fetch = snapshot.fetch else { return }
        snapshot.fetch = nil
        let bytes = fetch.bytes
        fetch.bytes = []
        var isRight = false
        if let plan = fetch.plan {
            isRight = ShortHash(of: bytes) == plan.blocks[Int(fetch.part.rawValue)].hash
        } else if ShortHash(of: bytes) == fetch.mark.root {
            fetch.plan = try? SnapshotPlan(decoding: bytes[...])
            fetch.masters = (fetch.plan?.head).flatMap { try? KnownMasters(decoding: $0) }
            isRight =
                fetch.plan?.slot == fetch.mark.slot && fetch.plan?.blocks.isEmpty == false
                && fetch.masters != nil
            if !isRight { fetch.plan = nil }
        }
        guard isRight, let plan = fetch.plan else {
            report(
                "a master sent a damaged part of the snapshot of slot \(fetch.mark.slot)",
                isAlarm: true)
            fetch.tries += 1
            snapshot.fetch = fetch
            return
        }
        let next: UInt32 = fetch.part == .plan ? 0 : fetch.part.rawValue + 1
        if fetch.part != .plan {
            do throws(DecodeError) {
                try fetch.decoder.add(bytes[...])
                if Int(next) == plan.blocks.count { fetch.state = try fetch.decoder.finish() }
            } catch {
                // Its hash is right, so another release wrote it.
                return halt("the snapshot of slot \(fetch.mark.slot) can't be read: \(error)")
            }
        }
        fetch.part = SnapshotPart(rawValue: next)
        let isWhole = fetch.state != nil
        snapshot.fetch = fetch
        if next > 0 { take(snapshot.files.add(bytes, &log)) }
        if !isWhole { askForPart() }
    }

    // MARK: Installing

    /// Everything came: when nothing is on its way to the log, the manifest is written.
    private mutating func freeze() {
        guard let fetch = snapshot.fetch, let plan = fetch.plan, let masters = fetch.masters,
            let paxos, !fetch.isFinishing
        else { return }
        if !fetch.isFrozen {
            guard plan.slot > paxos.delivered else { return abandonFetch() }
            guard !paxos.isLeadingOrTrying else { return }
            snapshot.fetch?.isFrozen = true
        }
        guard !log.isWriting else { return }
        guard let position = fetch.position else {
            snapshot.fetch?.position = log.position
            let carried =
                self.paxos?.carry(above: plan.slot, following: EntryHash(plan.entry)) ?? []
            carryOut(carried)
            if carried.isEmpty { freeze() }
            return
        }
        snapshot.fetch?.isFinishing = true
        var note = ByteWriter(capacity: 64)
        paxos.base(after: plan.slot, EntryHash(plan.entry), fetch.ballot, masters.started)
            .encode(into: &note)
        take(snapshot.files.finish(plan, note: note.bytes, position: position, &log))
    }

    /// The snapshot of others is durable: it is the state now.
    mutating func install(_ manifest: SnapshotManifest) {
        guard let fetch = snapshot.fetch, let state = fetch.state, let masters = fetch.masters
        else { return }
        snapshot.fetch = nil
        self.masters = masters
        snapshot.entries = 0
        snapshot.bytes = 0
        namespace = state
        let plan = manifest.plan
        let effects =
            paxos?.install(
                plan.slot, EntryHash(plan.entry), fetch.ballot, masters.membership,
                masters.started) ?? []
        carryOut(effects)
        tellAddresses()
        tellSnapshots()
        report("goes on from the snapshot of slot \(plan.slot)")
    }

    // MARK: Serving

    mutating func serve(
        _ mark: SnapshotMark, _ part: SnapshotPart, _ offset: UInt32, to asker: ServedPage.Asker
    ) {
        let manifest = snapshot.files.manifests.first { $0.mark == mark }
        guard let plan = manifest?.plan else { return answer(asker, mark, nil) }
        var page = ServedPage(asker: asker, mark: mark, part: part, offset: offset, length: 0)
        if part == .plan {
            let bytes = plan.bytes
            guard Int(offset) < bytes.count else { return answer(asker, mark, nil) }
            page.length = UInt32(bytes.count)
            return answer(asker, mark, page, bytes[Int(offset)...].prefix(Limits.frameData))
        }
        // One page at a time for each master, and a bound for those who ask too much (S10).
        guard snapshot.serving.count < Limits.masters * 4 else {
            if case .client(let address) = asker { reply(.retry, to: address) }
            return
        }
        guard
            let read = snapshot.files.read(
                mark, block: Int(part.rawValue), offset: Int(offset), length: Limits.frameData,
                &log)
        else {
            if case .client = asker { answer(asker, mark, nil) }
            return
        }
        page.length = plan.blocks[Int(part.rawValue)].length
        snapshot.serving[read.operation] = page
        carryOut(read)
    }

    mutating func servePage(_ operation: DiskOperation, _ bytes: [UInt8]) {
        guard let page = snapshot.serving.removeValue(forKey: operation) else { return }
        guard !bytes.isEmpty else {
            report("a page of the snapshot of slot \(page.mark.slot) can't be read", isAlarm: true)
            return answer(page.asker, page.mark, nil)
        }
        answer(page.asker, page.mark, page, bytes[...])
    }

    /// Without a page: it is not there.
    private mutating func answer(
        _ asker: ServedPage.Asker, _ mark: SnapshotMark, _ page: ServedPage?,
        _ bytes: ArraySlice<UInt8> = []
    ) {
        switch asker {
        case .master(let master):
            let message =
                page.map {
                    SnapshotMessage.page(
                        mark, $0.part, offset: $0.offset, length: $0.length, bytes)
                } ?? .gone(mark)
            send(.master(master), message.frame)
        case .client(let address):
            let answer = page.map { MetadataReply.part(length: $0.length, Array(bytes)) }
            reply(answer ?? .failed(.stale), to: address)
        }
    }
}
