// Masters whose disks lose what single entries say, and nothing else, while all are without power:
// any number of them, each in a slot that another still has (A30, docs/decisions/0015).
//
// Check:
//  mending   each has its log whole again, and its vote, under the name that it had

import Base
import Consensus
import Master
import Node
import Store

extension PaxosNode {
    /// It has the entry of this slot with this hash, and what it says.
    fileprivate func hasWhole(_ slot: Slot, _ hash: EntryHash) -> Bool {
        slot > start && slot <= end && self.hash(at: slot) == hash
            && !entry(at: slot).body.isEmpty
    }
}

/// See the head of this file.
struct RottenEntries {
    private let world: World
    private let cell: CellID
    private var random: SeededRandom
    /// Of the masters whose disks were damaged.
    private var names: [(node: SimNode, name: DiskID)] = []

    init(_ world: World, cell: CellID, random: SeededRandom) {
        self.world = world
        self.cell = cell
        self.random = random
    }

    /// Damages the disks of some of these masters, which are down.
    mutating func damage(_ masters: [SimNode]) {
        for node in masters where random.chance(2, of: 3) {
            guard let sound = start(node, node.disk), !sound.hasRot else { continue }
            let others = masters.filter { $0 !== node }.compactMap { start($0, $0.disk) }
            let entries = entries(of: node).filter { _, slot, hash in
                sound.hasWhole(slot, hash) && others.contains { $0.hasWhole(slot, hash) }
            }
            for _ in 0..<4 where !entries.isEmpty {
                let (place, slot, _) = entries[random.below(entries.count)]
                var disk = node.disk
                let payload = Int(place.offset) + place.length - Int(place.payloadLength)
                disk.flip(
                    .segment(place.segment), payload + random.below(Int(place.payloadLength)), 3)
                // What is written again behind it, or was not known to be durable, is no loss.
                guard start(node, disk)?.missing == 1 else { continue }
                node.disk = disk
                names.append((node, sound.disk))
                world.say("\(node.name) has lost what slot \(slot) says")
                break
            }
        }
    }

    /// Lets some of them lose power again while they mend.
    mutating func disturb() {
        guard !names.isEmpty else { return }
        for _ in 0..<random.below(4) {
            world.run(until: world.now + .microseconds(Int64(random.below(60_000))))
            let node = names[random.below(names.count)].node
            world.crash(node, power: true)
            world.start(node)
        }
    }

    /// How many masters were damaged; checks that all have their votes.
    func check() -> Int {
        for (node, name) in names where (node.core as? MasterCore)?.paxos?.disk != name {
            world.fail("mending", "\(node.name) has another name")
        }
        return names.count
    }

    private func start(_ node: SimNode, _ disk: SimDisk) -> PaxosNode? {
        (node.makeCore() as? MasterCore).flatMap { MasterCore.start($0, from: disk)?.paxos }
    }

    /// Where each entry is on its disk.
    private func entries(of node: SimNode) -> [(LogPlace, Slot, EntryHash)] {
        guard case .master(let id) = node.peer else { return [] }
        let configuration = LogConfiguration(
            cell: cell, owner: .master(id), disk: DiskID(rawValue: 1))
        var entries: [(LogPlace, Slot, EntryHash)] = []
        for record in LogContent(of: node.disk, configuration).records {
            let found = try? PaxosRecord(header: record.header[...], payload: record.payload)
            if case .entry(let entry)? = found {
                entries.append((record.place, entry.slot, entry.hash))
            }
        }
        return entries
    }
}
