// A loaded state (docs/decisions/0014): its sets are held, as frozen ones are, until an operator
// says that all chunk servers are there. Then each goes on in the configuration of the highest
// epoch that any disk knows, in an epoch far above it. Also: what a dump is made from.
//
// Invariants:
//  1. A set is adopted when every disk that the masters know has reported all it has, and every
//     member of that configuration is up with its copy; or what lacks was said to be lost.
//  2. Its new members are members of that configuration, so one of them at least has everything
//     acknowledged (C5).

import Base
import Namespace
import Node
import Store
import Wire

/// Why a set does not go on yet.
struct Obstacle: Error { var text: String }

extension MasterCore {
    /// Holds a set, or adopts it if it may be; false if it is no held one.
    mutating func hold(at index: Int) -> Bool {
        guard let state = lead?.sets.states[index] else { return false }
        guard namespace.isHeld(state.id) else {
            if !state.held.isEmpty {
                lead?.sets.update(at: index) { set in
                    set.held = ""
                    set.isFrozen = false
                }
            }
            return false
        }
        var text = ""
        do throws(Obstacle) {
            let (next, base, incarnations) = try adoption(of: state.record)
            text = "goes on"
            if !state.isChanging {
                lead?.sets.update(at: index) { $0.isChanging = true }
                submit(
                    .adoptSet(next, base: base, incarnations: incarnations),
                    for: .changeEpoch(state.id))
            }
        } catch { text = error.text }
        lead?.sets.update(at: index) { set in
            set.isFrozen = true
            set.isUsable = false
            set.isServing = false
            set.held = String(text.prefix(300))
        }
        return true
    }

    private func adoption(
        of record: SetRecord
    ) throws(Obstacle) -> (SetConfiguration, base: Epoch, [Incarnation]) {
        let order = namespace.adoption
        guard order != .notOrdered else { throw Obstacle(text: "no adoption was ordered") }
        let old = record.configuration
        let isLax = order == .withoutMissing
        let missing = namespace.diskRecords.first { !isUp($0) || !hasReportedAll($0.server) }
        if !isLax, let missing { throw Obstacle(text: "disk \(missing.id) has not reported") }
        let copies = namespace.diskRecords.compactMap { disk in
            isUp(disk) ? replica(old.set, disk.id) : nil
        }
        let best = copies.max { $0.epoch < $1.epoch }
        let base = max(old.epoch, best?.epoch ?? .none)
        let members = base > old.epoch ? best?.members ?? [] : old.members
        // One that no disk ever had has nothing to lose.
        let isNew = copies.isEmpty && record.chunks == 0
        var present = members.filter { member in
            isNew ? isUsable(member) : copies.contains { $0.disk == member }
        }
        if !isLax, let absent = members.first(where: { !present.contains($0) }) {
            let isKnown = namespace.disk(absent) != nil
            throw Obstacle(
                text: "disk \(absent), a member, "
                    + (isKnown ? "has no copy of it" : "is not known: start its server"))
        }
        let candidates = copies.filter { present.contains($0.disk) && !$0.hasRot }
        guard let primary = isNew ? present.first : choosePrimary(candidates, old: old.primary)
        else { throw Obstacle(text: "no member has a sound copy of it") }
        if present.count < min(Int(old.minMembers), members.count) { present = [primary] }
        var next = old
        next.acceptsLoss = false
        next.epoch = Epoch(rawValue: base.rawValue + Limits.loadedEpochs)
        next.members = present
        next.primary = primary
        return (next, base, present.compactMap { namespace.disk($0)?.incarnation })
    }

    /// Whether a server has told of all its sets since this leader began.
    private func hasReportedAll(_ server: ServerID) -> Bool {
        lead?.server(server)?.hasReportedAll ?? false
    }

    /// Whether a copy of a set may have what the masters never knew, or says so (S6, C10).
    func isUnseen(_ copy: SetReport) -> Bool {
        namespace.isUnseen(copy.epoch, of: copy.set) && (copy.stored > 0 || copy.prepared > .none)
    }

    // MARK: Dumps

    /// Tells of a snapshot that has everything that was applied up to a slot, or has one taken.
    mutating func answerSnapshot(since slot: Slot, to address: ReplyAddress) {
        if let newest = snapshots.first, newest.slot >= slot {
            return reply(.snapshot(newest), to: address)
        }
        if lead?.isCallingSnapshot == false, !snapshot.files.isWriting, snapshot.due == nil {
            lead?.isCallingSnapshot = true
            submit(.snapshot, for: .snapshot)
        }
        reply(.retry, to: address)
    }
}
