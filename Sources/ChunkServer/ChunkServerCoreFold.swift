// Folding: the primary of a set writes a block that is made of many small extents once again, as
// one (D10, decision 0008). It is a record like any other, so every member, learner, replay, repair
// and comparison takes it as it takes a client's write.
//
// Invariants:
//  1. What is written is the content as of a committed record after which nothing changed the
//     block, prepared or committed; that is looked at again in the step that numbers it.
//  2. It takes from the reserve where there is no space (C20): its commit gives back more.
//  3. One fold of a disk is under way at a time, behind its other work.

import Base
import Node
import Replication
import Store

extension ChunkServerCore {
    /// Reads the next block that is to be folded, if it is time.
    mutating func foldBlocks() {
        guard !isFolding, let basis = store.nextFold(now: now) else { return }
        let target = basis.target
        guard let index = places[target.set], sets[index].replica.takesWrites,
            store.isUnchanged(basis)
        else {
            let index = places[target.set]
            if let index, store.fill != .roomy { step(index, .wantFold) }
            return store.skipFold()
        }
        isFolding = true
        let tag = newTag(.fold(basis, set: index, epoch: sets[index].replica.promised))
        apply(
            store.read(
                token: tag, set: target.set, chunk: target.chunk,
                blocks: target.block..<target.block + 1, isExact: true))
    }

    /// Its content is there.
    mutating func finishFold(
        _ basis: FoldBasis, _ index: Int, _ epoch: Epoch, _ blocks: [StoredBlock]
    ) {
        isFolding = false
        let replica = sets[index].replica
        guard replica.takesWrites, replica.promised == epoch, store.isUnchanged(basis),
            hasCredit(index), let extent = blocks.first?.folded,
            store.takesNumbered(data: extent.payload.count)
        else { return store.skipFold() }
        guard store.takesFold(basis, extent) else { return }
        isFolding = true
        let draft = RecordDraft(
            session: .none, sequence: RequestNumber(rawValue: 0),
            firstUnacked: RequestNumber(rawValue: 0), truncation: basis.truncation,
            body: .write(extent))
        step(index, .write(tag: newTag(.folded), [draft]))
    }

    /// It is committed, or another replica is primary now.
    mutating func endFold(_ outcome: WriteOutcome) {
        isFolding = false
        if case .committed = outcome { store.noteFold() } else { store.skipFold() }
    }
}
