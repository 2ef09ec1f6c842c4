// All masters lose their disks for good, and new ones start from a dump that was taken while
// clients wrote, some time before (decision 0014). What was written before and after the dump is
// on the chunk servers, in epochs that the dump does not know: all of it must be read again.

import Base
import Master
import Node
import Store
import Wire

/// Reads a dump of the masters' state, page after page, as `martlet meta dump` does.
struct DumpReader {
    private var slot: Slot?
    private var mark: SnapshotMark?
    private var plan: (bytes: [UInt8], blocks: Int)?
    private var part: [UInt8] = []
    private var blocks: [[UInt8]] = []
    private(set) var dump: [UInt8]?

    /// What to ask next; nil: the dump is whole.
    var next: MetadataQuery? {
        guard dump == nil else { return nil }
        guard let slot else { return .status }
        guard let mark else { return .snapshot(since: slot) }
        let number = plan == nil ? .plan : SnapshotPart(rawValue: UInt32(blocks.count))
        return .part(mark, number, offset: UInt32(part.count))
    }

    mutating func take(_ reply: MetadataReply) {
        switch reply {
        case .status(let status): slot = status.applied
        case .snapshot(let found): mark = found
        case .part(let length, let bytes):
            part += bytes
            if part.count >= Int(length) { endPart() }
        default: self = DumpReader()  // Two newer snapshots are there.
        }
    }

    private mutating func endPart() {
        defer { part = [] }
        if plan == nil {
            guard let found = try? SnapshotPlan(decoding: part[...]) else { return }
            plan = (part, found.blocks.count)
        } else {
            blocks.append(part)
        }
        guard let plan, blocks.count == plan.blocks,
            let decoded = try? SnapshotPlan(decoding: plan.bytes[...])
        else { return }
        let header = DumpHeader(cell: ReplicasScenario.cell, plan: decoded, written: .zero)
        dump = header.bytes + plan.bytes + blocks.joined()
    }
}

extension ReplicasScenario {
    func loseMasters() {
        guard world.failure == nil, let keeper = operators.first else { return }
        for client in clients { client.goOn(40) }
        keeper.reader = DumpReader()
        waitFor("dump", within: .seconds(60)) { keeper.reader?.dump != nil }
        // Sets get epochs that the dump does not know, some without one that has old copies.
        let server = world.nodes[masters + random.below(world.nodes.count - masters)]
        world.crash(server, power: random.chance(1, of: 2))
        let isBack = random.chance(1, of: 2)
        if isBack { world.start(server) }
        world.run(until: world.now + .milliseconds(Int64(500 + random.below(4_000))))
        for client in clients { client.isStopping = true }
        settle("before the loss of the masters")
        guard world.failure == nil, let bytes = keeper.reader?.dump else { return }
        var rest = bytes[...]
        do throws(DumpFault) {
            var dump = try MetadataDump { count in
                defer { rest = rest.dropFirst(count) }
                return Array(rest.prefix(count))
            }
            try dump.startOver()
            replaceMasters(by: dump)
        } catch {
            return world.fail("dump", "\(error)")
        }
        if !isBack { world.start(server) }
        keeper.order(.adopt(withoutMissing: false))
        let used = Set(history.chunks.map(\.set)).sorted()
        waitFor("adoption", within: .seconds(60)) {
            used.allSatisfy { latest[$0]?.epoch.rawValue ?? 0 > Limits.loadedEpochs }
        }
        workAndCheck("after the loss of the masters")
        reached.insert("masters-lost")
    }

    private func waitFor(_ check: String, within limit: Interval, _ condition: () -> Bool) {
        let deadline = world.now + limit
        while world.failure == nil, !condition() {
            guard world.now < deadline else { return world.fail(check, "it does not come") }
            world.run(until: world.now + .milliseconds(100))
        }
    }

    private func replaceMasters(by dump: MetadataDump) {
        let nodes = world.nodes.prefix(masters)
        for node in nodes { world.crash(node, power: true) }
        world.run(until: world.now + .milliseconds(Int64(random.below(4_000))))
        let addresses = Self.addresses(masters)
        for (node, address) in zip(nodes, addresses) {
            node.disk = SimDisk(capacity: Self.masterCapacity, random: random.fork())
            var folder = MasterFolder(
                dump, id: address.id, masters: addresses, disk: Self.masterDisk(node.place),
                segmentSize: Self.masterSegment, inventory: node.disk.start())
            var effects = folder.start()
            while !effects.isEmpty {
                let effect = effects.removeFirst()
                node.disk.issue(effect)
                guard let result = node.disk.complete(effect.operation, at: world.now) else {
                    break
                }
                effects += folder.completed(effect.operation, result)
            }
            guard folder.isDone else {
                return world.fail("load", "\(node.name): \(folder.failure ?? "not done")")
            }
            world.start(node)
        }
    }
}
