// What the scenario "full" does in the calm after chaos, on disks of few segments:
//
//  fill     clients write until they find no space for it; a few of those that find none are the
//           proof that they are right (refusal): were its living data folded, a member of the set
//           would still be as full as it may be
//  empty    every file is deleted; the drops reach all disks, however full they are (C20), and
//           nothing stays alive there (leak)
//  fill     as much finds room as before: that is what `refusal` says again
//
// Everything that was acknowledged can be read after each.

import Base
import ChunkServer
import Store

extension ReplicasScenario {
    /// See the head of this file.
    func fillDisks() {
        fill("filled")
        empty()
        fill("filled again")
        guard world.failure == nil else { return }
        // Some leave room for others.
        for client in clients { client.goOn(60, .churn) }
        world.run(until: world.now + .seconds(1))
        for client in clients { client.isStopping = true }
        settle("after changes")
    }

    private func fill(_ when: String) {
        guard world.failure == nil else { return }
        // What could not be folded in chaos is folded now.
        world.run(until: world.now + .seconds(2))
        history.refusals = []
        let before = history.acknowledged
        for client in clients { client.goOn(.max, .fill) }
        let deadline = world.now + .seconds(60)
        while world.failure == nil, history.refusals.count < 12 {
            guard world.now < deadline else {
                return world.fail("fill", "\(when): no write finds a disk full")
            }
            world.run(until: world.now + .milliseconds(20))
        }
        let refused = Set(history.refusals).sorted()
        for set in refused where world.failure == nil { checkRefusal(set, when) }
        for client in clients { client.isStopping = true }
        settle(when)
        readEverything(when)
        if history.acknowledged > before { reached.insert("disks-filled") }
    }

    /// Some member of the set is full, or would be if its blocks were folded.
    private func checkRefusal(_ set: SetID, _ when: String) {
        let members = latest[set]?.members ?? []
        let found = members.map { (disk: $0, fill: fill(of: $0)) }
        if found.contains(where: { $0.fill.map { $0.folded + $0.reserve >= $0.all } ?? true }) {
            return
        }
        world.fail("refusal", "\(when): set \(set) finds no space on \(found)")
    }

    private struct Fill {
        /// Living bytes if they were folded, and as they are.
        var folded: UInt64
        var living: UInt64
        /// What must stay free beside them, of how many.
        var reserve: UInt64
        var all: UInt64
    }
    /// What a disk has; nil if it is down.
    private func fill(of disk: DiskID) -> Fill? {
        guard let store = store(of: disk) else { return nil }
        var blocks: Set<CellPlace> = []
        for place in history.check.places where !history.gone.contains(place.chunk) {
            blocks.insert(CellPlace(chunk: place.chunk, block: place.block, cell: 0))
        }
        let sets = Dictionary(uniqueKeysWithValues: history.chunks.map { ($0.chunk, $0.set) })
        let here = blocks.count { block in
            sets[block.chunk].map { latest[$0]?.members.contains(disk) ?? false } ?? false
        }
        // Copies that it had to leave lie in the trash; and drops may be on their way.
        let left = store.sets.filter { set in
            latest[set]?.members.contains(disk) != true
                || store.usage(set).chunks > history.chunks.count { $0.set == set }
        }.reduce(0) { $0 + store.usage($1).stored }
        let folded = UInt64(here * (Cell.count * Cell.size + 1_200)) + left * 3 / 2
        // As much as one write may have.
        let slack = UInt64(Limits.framePayload)
        return Fill(
            folded: min(folded, store.living) + slack, living: store.living,
            reserve: store.reserve, all: store.capacity)
    }

    private func store(of disk: DiskID) -> DiskStore? {
        let node = world.nodes[masters + Int(disk.rawValue) - 1]
        return (node.core as? ChunkServerCore)?.store
    }

    private func empty() {
        guard world.failure == nil else { return }
        for client in clients { client.goOn(.max, .empty) }
        let deadline = world.now + .seconds(60)
        while world.failure == nil {
            let living = world.nodes[masters...].indices.compactMap { place in
                store(of: DiskID(rawValue: UInt64(place - masters + 1)))
            }.filter { $0.usage.chunks > 0 || $0.living > 0 }
            if history.chunks.isEmpty, living.isEmpty { break }
            guard world.now < deadline else {
                let left = living.map { ($0.usage, $0.living, $0.sets) }
                return world.fail("leak", "\(history.chunks.count) files stay, and \(left)")
            }
            world.run(until: world.now + .milliseconds(50))
        }
        for client in clients { client.isStopping = true }
        settle("emptied")
    }
}
