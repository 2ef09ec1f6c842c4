// Which blocks are to be folded (D10): those made of so many extents that reading them, and
// listing them, costs more than writing them once again. The store only finds them: the primary of
// the set reads such a block and writes its content as a record of its own (decision 0008), which
// covers the pieces on every member alike.
//
// Invariants:
//  1. The queue is bounded (S10). What did not fit, or could not be folded when its turn came, is
//     found again after the next checkpoint.
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

    private var targets: [FoldTarget] = []
    private var known: Set<FoldTarget> = []
    /// There are others.
    var isIncomplete = true
    var due = Instant.zero

    var isEmpty: Bool { targets.isEmpty }

    mutating func add(_ target: FoldTarget) {
        if targets.count >= Self.bound {
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
        guard phase == .ready, !folds.isEmpty, !isShort else {
            return Instant(nanoseconds: .max)
        }
        if now < folds.due { return folds.due }
        return isBusy ? max(now, folds.due + FoldQueue.patience) : now
    }
    private var isBusy: Bool { !reads.jobs.isEmpty || log.isWriting }

    /// The next block that is to be folded, if it is time; nil else.
    package mutating func nextFold(now: Instant) -> FoldBasis? {
        guard phase == .ready, !isShort, now >= folds.due,
            !isBusy || now - folds.due >= FoldQueue.patience
        else { return nil }
        while let target = folds.next() {
            guard let ledger = ledger(target.set), ledger.rotten.isEmpty, ledger.holes.isEmpty,
                let chunk = chunks[target.chunk], chunk.set == target.set,
                wantsFold(chunk.entries(target.block))
            else { continue }
            folds.due = now + FoldQueue.pause
            return FoldBasis(
                target: target, newest: newest(target.chunk, target.block),
                truncation: truncation(target.set, target.chunk))
        }
        return nil
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
            wantsFold(pile)
        else { return }
        folds.add(FoldTarget(set: set, chunk: extent.chunk, block: Int(extent.block)))
    }

    /// Looks through the whole index.
    mutating func findFolds() {
        guard folds.isIncomplete else { return }
        folds.isIncomplete = false
        for case let chunk? in chunks.slots {
            for page in chunk.pages {
                var rest = page[...]
                while let first = rest.first {
                    let pile = rest.prefix { $0.block == first.block }
                    rest = rest.dropFirst(pile.count)
                    guard wantsFold(pile) else { continue }
                    folds.add(
                        FoldTarget(set: chunk.set, chunk: chunk.id, block: Int(first.block)))
                    if folds.isIncomplete { return }
                }
            }
        }
    }

    /// Whether a block is worth it: too many extents, or too many that don't begin where the one
    /// before ends, or they cover the whole block without need of any that does so alone.
    private func wantsFold(_ pile: ArraySlice<ExtentEntry>) -> Bool {
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
}

extension StoredBlock {
    /// The block as one extent; nil if it is damaged or empty.
    package var folded: Extent? {
        guard case .pieces(let pieces) = self, !pieces.isEmpty else { return nil }
        return try? BlockFold.fold(
            pieces.map { (extent: $0.extent, visible: Int($0.visible)) })
    }
}
