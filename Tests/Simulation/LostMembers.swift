// All members of a set but one are lost for good: the last one goes on alone (decision 0010).
//
// Or some bytes of the last one are lost too: it is not copied as it is, and if it begins anew it
// does not even serve, until an operator accepts the loss (decision 0020). Then every block reads
// as it should, or, where its bytes were damaged, says that it is lost, and nothing else does.

import Base
import Node
import Store
import Wire

extension ReplicasScenario {
    /// All members but one of a set, if every other set keeps one.
    private var victims: (set: SetID, disks: [DiskID], survivor: DiskID)? {
        guard world.failure == nil, let set = history.chunks.first?.set,
            let members = latest[set]?.members, members.count > 1, let survivor = members.last
        else { return nil }
        let disks = Array(members.dropLast())
        let areAllKept = Set(history.chunks.map(\.set)).allSatisfy {
            !Set(latest[$0]?.members ?? []).isSubset(of: disks)
        }
        return areAllKept ? (set, disks, survivor) : nil
    }
    /// The chunk server with a disk.
    private func node(of disk: DiskID) -> SimNode { world.nodes[masters + Int(disk.rawValue) - 1] }
    private func loseForGood(_ disks: [DiskID]) {
        for node in disks.map(node(of:)) {
            lost.insert(node.place)
            world.crash(node, power: true)
        }
    }

    /// All members of a set but one are lost for good while clients write (C2, C19).
    func loseMembers() {
        world.run(until: world.now + .seconds(4))  // Nothing that chaos planned is left then.
        guard let victims = victims?.disks else { return }
        for client in clients { client.goOn(40) }
        world.run(until: world.now + .milliseconds(Int64(random.below(600))))
        loseForGood(victims)
        world.run(until: world.now + .milliseconds(Int64(random.below(4_000))))
        if random.chance(1, of: 2) {
            let node = living[random.below(living.count)]
            world.crash(node, power: random.chance(1, of: 2))
            world.start(node)
        }
        reached.insert("members-lost")
        world.run(until: world.now + .seconds(1))
        for client in clients { client.isStopping = true }
        // A new leader gives servers more time, and a copy is slow where messages pass each other.
        settle("after the loss", limit: .seconds(120))
        awaitWholeSets()
        readEverything("after the loss")
    }

    /// The same with damage; see the head of this file.
    func loseBytes() {
        world.run(until: world.now + .seconds(4))  // Nothing that chaos planned is left then.
        guard let keeper = operators.first, let (set, victims, survivor) = victims else { return }
        loseForGood(victims)
        let node = node(of: survivor)
        let damaged = damage(node, of: set)
        if random.chance(1, of: 2) {
            // Meanwhile the masters may take another one for the last, which is gone too.
            world.crash(node, power: true)
            world.run(until: world.now + .milliseconds(Int64(random.below(2_000))))
            world.start(node)
        }
        reached.insert("members-lost")
        repair(survivor, by: keeper, damaged)
        workAndCheck("after the loss of bytes")
        if history.lostReads > 0 { reached.insert("read-lost") }
    }

    /// The word of an operator for sets of which every member is damaged, and that therefore wait
    /// for ever: records that nobody was told of can be on one disk only. False if there are none.
    func acceptLosses() -> Bool {
        let stuck = latest.values.sorted { $0.set < $1.set }.filter { configuration in
            !configuration.acceptsLoss
                && configuration.members.allSatisfy { member in
                    reports[ReplicaName(set: configuration.set, disk: member)]?.hasRot == true
                }
        }
        if stuck.isEmpty { return false }
        let keeper = operators.first ?? callOperator()
        for set in stuck {
            let chunks = history.chunks.filter { $0.set == set.set }.map(\.chunk)
            for place in history.check.places
            where chunks.contains(place.chunk) && history.check.isOpen(place) {
                history.lost.insert(BlockPlace(chunk: place.chunk, block: place.block))
            }
            keeper.order(
                .acceptLoss(set.set, set.epoch, members: set.members, primary: set.primary))
        }
        reached.insert("loss-accepted")
        return true
    }

    /// Flips a bit of what is stored of some cells; says in which blocks.
    private func damage(_ node: SimNode, of set: SetID) -> Set<BlockPlace> {
        let chunks = history.chunks.filter { $0.set == set }.map(\.chunk)
        let cells = history.check.places.filter { chunks.contains($0.chunk) }
        var damaged: Set<BlockPlace> = []
        for _ in 0..<1 + random.below(4) where !cells.isEmpty {
            let cell = cells[random.below(cells.count)]
            guard let stamp = history.check.last(at: cell) else { continue }
            var writer = ByteWriter()
            for _ in 0..<4 { writer.write(stamp) }
            for place in node.disk.places(of: writer.bytes) {
                node.disk.flip(place.file, place.byte + random.below(32), UInt8(random.below(8)))
            }
            for cell in history.check.places(of: stamp) {
                damaged.insert(BlockPlace(chunk: cell.chunk, block: cell.block))
            }
        }
        return damaged
    }

    /// Until all sets have all their members: accepts the loss where that is needed.
    private func repair(
        _ survivor: DiskID, by keeper: OperatorClient, _ damaged: Set<BlockPlace>
    ) {
        let deadline = world.now + .seconds(120)
        let gone = Set(lost.map { DiskID(rawValue: UInt64($0 - masters + 1)) })
        let used = Set(history.chunks.map(\.set)).sorted()
        while world.failure == nil {
            let small = used.compactMap { latest[$0] }.filter {
                $0.members.count < wanted || !gone.isDisjoint(with: $0.members)
            }
            if small.isEmpty { return }
            guard world.now < deadline else { return world.fail("whole", "\(small)") }
            world.run(until: world.now + .seconds(1))
            guard keeper.isIdle else { continue }
            for set in small.compactMap({ latest[$0.set] }) {
                let there = set.members.filter { !gone.contains($0) }
                let isDamaged = reports[ReplicaName(set: set.set, disk: survivor)]?.hasRot == true
                guard let next = there.isEmpty ? lastFormer(of: set.set, gone) : there.first,
                    there.isEmpty || there == [survivor] && isDamaged && !set.acceptsLoss
                else { continue }
                history.lost = damaged
                reached.insert(there.isEmpty ? "former-copy-taken" : "loss-accepted")
                keeper.order(.acceptLoss(set.set, set.epoch, members: [next], primary: next))
            }
        }
    }

    /// Who was a member last, of those that are left.
    private func lastFormer(of set: SetID, _ gone: Set<DiskID>) -> DiskID? {
        let copies = reports.values.filter {
            $0.set == set && !gone.contains($0.disk) && $0.members.contains($0.disk)
        }
        return copies.max {
            ($0.epoch, $0.prepared, $0.disk) < ($1.epoch, $1.prepared, $1.disk)
        }?.disk
    }
}
