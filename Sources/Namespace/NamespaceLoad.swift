// A state that was loaded from a dump (docs/decisions/0014): the cell may have gone on after it was
// taken, so disks may know more than it says.
//
//   a set of it     event                             next
//   held            `adoptSet`, by an order            adopted: far above every epoch that is known
//   adopted         other changes of it                adopted
//
// Invariants:
//  1. Ids go on far above all that the cell can have given since the dump (S8). A chunk's version
//     does too, so that no new chunk is one that a disk has.
//  2. Nothing is ordered of a held set, and no chunk of it is placed: S6, C10.

package import Base

/// That a state was loaded from a dump.
struct Load: Hashable, Sendable {
    /// How often it, and those that it comes from, were.
    var count: UInt32
    /// 0: nobody ordered that sets are adopted; 1: they are to be; 2: what is missing is lost.
    var order: UInt8 = 0

    /// The lowest truncation number of a new file.
    var truncations: UInt32 { count * Limits.loadedTruncations }
    /// The lowest generation of a new inode.
    var generations: UInt32 { count * Limits.loadedGenerations }

    init(count: UInt32) { self.count = count }
    func encode(into writer: inout ByteWriter) {
        writer.write(count)
        writer.write(order)
    }
    init(from reader: inout ByteReader) throws(DecodeError) {
        count = try reader.read()
        order = try reader.read()
        guard (1...Limits.loads).contains(count), order <= 2 else {
            throw .invalid(field: "load", value: UInt64(count))
        }
    }
}

/// A set that was in the dump.
struct LoadedSet: Hashable, Keyed, Sendable {
    var set: SetID
    /// The highest epoch that any disk knew when it was adopted; none: it is held.
    var base = Epoch.none
    var key: SetID { self.set }

    init(set: SetID) { self.set = set }
    func encode(into writer: inout ByteWriter) {
        writer.write(set)
        writer.write(base)
    }
    init(from reader: inout ByteReader) throws(DecodeError) {
        set = try reader.read()
        base = try reader.read()
    }
}

/// What may be done with the sets of a loaded state.
package enum Adoption: UInt8, Sendable {
    case notOrdered = 0
    case ordered = 1
    /// What has not reported is lost.
    case withoutMissing = 2
}

extension Namespace {
    /// Makes this state, of a dump, the first one of a new cell. Nil: done; otherwise why not.
    package mutating func startOver() -> String? {
        let count = (load?.count ?? 0) + 1
        guard count <= Limits.loads else { return "it was loaded \(Limits.loads) times" }
        let counters = [lastFence, lastSession, lastSet, lastOrder, lastScrub]
        guard counters.allSatisfy({ $0 < 1 << 62 }) else { return "its ids are used up" }
        for id in sessions.map(\.id) {
            endSession(id)
            fences.append(id)
        }
        fences.removeFirst(max(0, fences.count - Limits.fences))
        lastFence += Limits.loadedIDs
        lastSession += Limits.loadedIDs
        lastSet += Limits.loadedIDs
        lastOrder += Limits.loadedIDs
        lastScrub += Limits.loadedIDs
        if rebalance?.state.isOpen == true { rebalance?.state = .cancelled }
        for slot in 1...inodes.lastSlot {
            switch inodes[slot].kind {
            case .file:
                let (next, overflow) = inodes[slot].truncation.addingReportingOverflow(
                    Limits.loadedTruncations)
                if overflow { return "a file was truncated too often" }
                inodes[slot].truncation = next
            case .directory:
                directories[Int(inodes[slot].auxiliary)].skipCookies(Limits.loadedIDs)
            default: break
            }
        }
        take(Load(count: count))
        loadedSets = OrderedTable()
        for record in setTable { loadedSets.insert(LoadedSet(set: record.key)) }
        heldCount = loadedSets.count
        return nil
    }

    mutating func take(_ load: Load) {
        self.load = load
        inodes.leastGeneration = load.generations
    }

    /// Whether nothing may be ordered of the set yet.
    package func isHeld(_ set: SetID) -> Bool { loadedSets[set]?.base == Epoch.none }
    /// What an operator ordered for them.
    package var adoption: Adoption {
        load.flatMap { Adoption(rawValue: $0.order) } ?? .notOrdered
    }
    /// Whether a copy may have what the masters never knew: its epoch is above all that were known
    /// when the set was adopted. Such a copy is kept (S6).
    package func isUnseen(_ epoch: Epoch, of set: SetID) -> Bool {
        guard let loaded = loadedSets[set], loaded.base != .none else { return false }
        return epoch > loaded.base
            && epoch.rawValue - loaded.base.rawValue < Limits.loadedEpochs
    }

    mutating func orderAdoption(_ withoutMissing: Bool) throws(Refusal) {
        guard heldCount > 0 else { throw Refusal(.nothingToAdopt, 0) }
        load?.order = (withoutMissing ? Adoption.withoutMissing : .ordered).rawValue
    }

    mutating func adopt(
        _ configuration: SetConfiguration, _ base: Epoch, _ incarnations: [Incarnation]
    ) -> Outcome {
        let set = configuration.set
        guard isHeld(set), adoption != .notOrdered, var record = setTable[set] else {
            return .conflict
        }
        let members = configuration.members
        guard base >= record.configuration.epoch, base.rawValue < .max - Limits.loadedEpochs,
            configuration.epoch.rawValue == base.rawValue + Limits.loadedEpochs,
            configuration.minMembers == record.configuration.minMembers, isMemberList(members),
            members.contains(configuration.primary), incarnations.count == members.count,
            zip(members, incarnations).allSatisfy({ disks[$0]?.incarnation == $1 })
        else { return .conflict }
        record.configuration = configuration
        record.incarnations = incarnations
        // Copies elsewhere may be needed, should these turn out to be bad (C14).
        record.memberLeft = time
        setTable.insert(record)
        loadedSets.update(set) { $0.base = base }
        heldCount -= 1
        if heldCount == 0 { load?.order = Adoption.notOrdered.rawValue }
        return .set(configuration)
    }
}
