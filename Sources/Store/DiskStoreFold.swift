// Which blocks are to be folded (D10): those made of so many extents that reading them, and
// listing them, costs more than writing them once again. The store only finds them: the primary of
// the set reads such a block and writes its content as a record of its own (decision 0008), which
// covers the pieces on every member alike.
//
// With little space here, or at another member, a block is folded for less; see `foldRuns`.
//
// Invariants:
//  1. The queue is bounded (S10). What did not fit, or could not be folded when its turn came, is
//     found again after the next checkpoint, or soon where space is short.
//  2. A fold may replace a block only as it was read: `isUnchanged` says so.

package import Base
import Blocks

/// A block that is to be folded.
package struct FoldTarget: Hashable, Sendable {
    package var set: SetID
    package var chunk: ChunkID
    package var block: Int
}

/// A block as it was when its content was read.
package struct FoldBasis: Hashable, Sendable {
    package var target: FoldTarget
    package var newest: RecordNumber
    package var truncation: UInt32
}

/// Blocks that wait.
struct FoldQueue: Sendable {
    /// Blocks that are remembered.
    static let bound = 4_096
    /// Between the beginnings of two folds.
    static let pause = Interval.milliseconds(2)
    /// So long a due one waits for the disk's other work.
    static let patience = Interval.milliseconds(20)
    /// Between two looks through the index for want of space.
    static let lookPause = Interval.milliseconds(100)
    /// Without space, data waits so long for folding that gives none back.
    static let hope = Interval.seconds(1)
    /// Extents that one turn looks at.
    static let step = 1 << 14

    private var targets: [FoldTarget] = []
    private var known: Set<FoldTarget> = []
    /// There are others.
    var isIncomplete = true
    var due = Instant.zero
    /// The next slot of a look through the index.
    var cursor: Int?
    /// What a block could have when the last look began.
    var lookedFor = Int.max
    var nextLook = Instant.zero
    /// Sets of which another member has no space, ascending.
    var pressed: [SetID] = []
    /// Since there is no space: the fewest living bytes so far, and until when there is hope.
    private var shortage: (least: Int, until: Instant)?
    /// When that ends.
    private(set) var hopeEnds = Instant(nanoseconds: .max)
    /// When it wants to look again.
    var wake = Instant(nanoseconds: .max)
    private(set) var isHopeful = true

    mutating func endShortage() {
        shortage = nil
        hopeEnds = Instant(nanoseconds: .max)
        isHopeful = true
    }
    mutating func watch(living: Int, _ now: Instant) {
        let known = shortage ?? (.max, now)
        if living < known.least {
            shortage = (living, now + Self.hope)
        }
        isHopeful = now < shortage?.until ?? now
        hopeEnds = isHopeful ? shortage?.until ?? now : Instant(nanoseconds: .max)
    }

    var isEmpty: Bool { targets.isEmpty }
    var isFull: Bool { targets.count >= Self.bound }

    mutating func add(_ target: FoldTarget) {
        if isFull {
            isIncomplete = true
        } else if known.insert(target).inserted {
            targets.append(target)
        }
    }
    mutating func next() -> FoldTarget? {
        guard let target = targets.popLast() else { return nil }
        known.remove(target)
        return target
    }
}

extension DiskStore {
    /// When `nextFold` wants to be called although nothing happened.
    package func foldTime(_ now: Instant) -> Instant {
        guard phase == .ready, !folds.isEmpty, takesNumbered(data: Limits.groupAlignment) else {
            return Instant(nanoseconds: .max)
        }
        if isUrgent { return now }
        if now < folds.due { return folds.due }
        return isBusy ? max(now, folds.due + FoldQueue.patience) : now
    }
    private var isBusy: Bool { !reads.jobs.isEmpty || log.isWriting }
    /// Writers wait for it.
    private var isUrgent: Bool { foldRuns == 0 || !folds.pressed.isEmpty }

    /// The next block that is to be folded, if it is time; nil else.
    package mutating func nextFold(now: Instant) -> FoldBasis? {
        guard foldTime(now) <= now else { return nil }
        while let target = folds.next() {
            guard let ledger = ledger(target.set), ledger.rotten.isEmpty, ledger.holes.isEmpty,
                let chunk = chunks[target.chunk], chunk.set == target.set,
                wantsFold(chunk.entries(target.block), target.set)
            else { continue }
            folds.due = now + FoldQueue.pause
            return FoldBasis(
                target: target, newest: newest(target.chunk, target.block),
                truncation: truncation(target.set, target.chunk))
        }
        return nil
    }

    /// Whether a block may be written as this extent: without space, only if that saves some.
    package func takesFold(_ basis: FoldBasis, _ extent: Extent) -> Bool {
        let pile = chunks[basis.target.chunk]?.entries(basis.target.block) ?? []
        let saved = pile.reduce(0) { $0 + $1.place.footprint } - extent.payload.count
        return hasRoom(forData: Limits.framePayload) || saved > Limits.groupAlignment
    }
    /// It could not be folded now.
    package mutating func skipFold() { folds.isIncomplete = true }
    /// It was.
    package mutating func noteFold() { cleaner.report.folded += 1 }

    /// Whether a block is still as it was, and no record that is not committed changes it.
    package func isUnchanged(_ basis: FoldBasis) -> Bool {
        let target = basis.target
        guard let ledger = ledger(target.set), chunks[target.chunk]?.set == target.set,
            newest(target.chunk, target.block) == basis.newest,
            truncation(target.set, target.chunk) == basis.truncation
        else { return false }
        return !ledger.prepared.contains { entry in
            switch entry.record.body {
            case .write(let extent):
                extent.chunk == target.chunk && Int(extent.block) == target.block
            case .trim(let chunk, _, _): chunk == target.chunk
            case .drop(let gone): gone.contains(target.chunk)
            case .nothing: false
            }
        }
    }

    /// A record became part of a block.
    mutating func notePile(_ set: SetID, _ extent: Extent) {
        guard phase == .ready, let pile = chunks[extent.chunk]?.entries(Int(extent.block)),
            wantsFold(pile, set)
        else { return }
        folds.add(FoldTarget(set: set, chunk: extent.chunk, block: Int(extent.block)))
    }

    /// Another member of the set has no space, or has it again.
    package mutating func press(_ set: SetID, _ isPressed: Bool) {
        let place = folds.pressed.firstIndex(notBelow: { $0 < set })
        let isKnown = place < folds.pressed.count && folds.pressed[place] == set
        if isPressed == isKnown { return }
        if isPressed {
            folds.pressed.insert(set, at: place)
            folds.isIncomplete = true
        } else {
            folds.pressed.remove(at: place)
        }
    }

    /// Looks through the index once more if there is need, some of it in each turn; says when it
    /// wants to be called again.
    mutating func findFolds(_ now: Instant) -> Instant {
        guard phase == .ready else { return Instant(nanoseconds: .max) }
        let runs = folds.pressed.isEmpty ? foldRuns : 0
        if folds.cursor == nil {
            if runs > folds.lookedFor { folds.lookedFor = runs }
            let isPressing = runs < configuration.cleaner.foldRuns && folds.isEmpty
            guard isPressing, runs < folds.lookedFor || folds.isIncomplete else {
                return Instant(nanoseconds: .max)
            }
            if now < folds.nextLook { return folds.nextLook }
            beginLook()
        }
        lookForFolds()
        if folds.cursor != nil { return now }
        // A twentieth of the time at the most.
        folds.nextLook =
            now + FoldQueue.lookPause + .microseconds(100) * Int64(chunks.slots.count)
        return Instant(nanoseconds: .max)
    }

    mutating func beginLook() {
        folds.isIncomplete = false
        folds.cursor = 0
        folds.lookedFor = folds.pressed.isEmpty ? foldRuns : 0
    }

    private mutating func lookForFolds() {
        guard var slot = folds.cursor, !folds.isFull else {
            folds.cursor = nil
            return
        }
        var left = FoldQueue.step
        let slots = chunks.slots
        let isDone = slots.visit(from: &slot, &left) { chunk, left in
            lookForFolds(in: chunk, &left)
            if folds.isFull { left = 0 }
        }
        folds.cursor = isDone || folds.isFull ? nil : slot
    }
    private mutating func lookForFolds(in chunk: ChunkState, _ left: inout Int) {
        guard chunk.only == nil else { return }
        for page in chunk.pages {
            left -= 1
            if case .packed(let packed) = page, !packed.head.hasPiles { continue }
            var rest = page.entries[...]
            left -= rest.count
            while let first = rest.first {
                let pile = rest.prefix { $0.block == first.block }
                rest = rest.dropFirst(pile.count)
                guard wantsFold(pile, chunk.set) else { continue }
                folds.add(FoldTarget(set: chunk.set, chunk: chunk.id, block: Int(first.block)))
            }
        }
    }

    /// Whether a block is worth it: too many extents, or too many that don't begin where the one
    /// before ends, or they cover the whole block without need of any that does so alone.
    private func wantsFold(_ pile: ArraySlice<ExtentEntry>, _ set: SetID) -> Bool {
        if pile.count < 2 || pile.contains(where: \.isLost) && pile.map(\.layer).showLoss {
            return false
        }
        let runs = folds.pressed.contains(set) ? 0 : foldRuns
        if runs < configuration.cleaner.foldRuns, pile.count > runs + 1, savesSpace(pile) {
            return true
        }
        guard pile.count > min(configuration.cleaner.foldRuns, Limits.foldFull) else {
            return false
        }
        if pile.count > configuration.cleaner.foldRecords { return true }
        let breaks = zip(pile, pile.dropFirst()).count { first, second in
            Int(second.start) != Int(first.start) + Int(first.visible)
        }
        if breaks > configuration.cleaner.foldRuns { return true }
        guard pile.count > Limits.foldFull else { return false }
        var covered = 0
        let parts = pile.filter { $0.visible < UInt32(Limits.block) }
        for entry in parts.sorted(by: { $0.start < $1.start }) {
            if Int(entry.start) > covered { return false }
            covered = max(covered, Int(entry.start) + Int(entry.visible))
        }
        return covered == Limits.block
    }

    /// Whether a block takes less space as one extent, and not just a little.
    private func savesSpace(_ pile: ArraySlice<ExtentEntry>) -> Bool {
        let (all, stored, visible) = pile.reduce((0, 0, 0)) {
            ($0.0 + $1.place.footprint, $0.1 + Int($1.stored), $0.2 + Int($1.visible))
        }
        let start = pile.reduce(Limits.block) { min($0, Int($1.start)) }
        let end = pile.reduce(0) { max($0, Int($1.start) + Int($1.visible)) }
        let folded = (end - start) * stored / max(1, visible)
        return folded + (all - stored) / pile.count + all / 16 < all
    }
}

extension StoredBlock {
    /// The block as one extent; nil if it is damaged or empty.
    package var folded: Extent? {
        guard case .pieces(let pieces) = self, !pieces.isEmpty else { return nil }
        return try? BlockFold.fold(
            pieces.map { (extent: $0.extent, visible: Int($0.visible)) })
    }
}
