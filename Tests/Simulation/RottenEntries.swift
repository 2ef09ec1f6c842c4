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
    /// How many masters lack something at their next start.
    private(set) var mending = 0
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
                let (record, slot, _) = entries[random.below(entries.count)]
                let place = record.place
                var disk = node.disk
                let payload = Int(place.offset) + place.length - Int(place.payloadLength)
                disk.flip(
                    .segment(place.segment), payload + random.below(Int(place.payloadLength)), 3)
                // One that was not known to be durable might be cut off, unseen.
                let isKnown = LogContent(of: disk, configuration(of: node)).damaged.contains {
                    $0.hasAllHeaders && $0.numbers == record.number...record.number
                }
                guard isKnown else { continue }
                node.disk = disk
                // What is written again behind it is no loss.
                if start(node, disk)?.isMending == true { mending += 1 }
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

    /// All of them have their votes.
    func check() {
        for (node, name) in names where (node.core as? MasterCore)?.paxos?.disk != name {
            world.fail("mending", "\(node.name) has another name")
        }
    }

    private func start(_ node: SimNode, _ disk: SimDisk) -> PaxosNode? {
        (node.makeCore() as? MasterCore).flatMap { MasterCore.start($0, from: disk)?.paxos }
    }

    private func configuration(of node: SimNode) -> LogConfiguration {
        guard case .master(let id) = node.peer else { preconditionFailure("no master") }
        return LogConfiguration(cell: cell, owner: .master(id), disk: DiskID(rawValue: 1))
    }

    /// The records of entries on its disk.
    private func entries(of node: SimNode) -> [(LogRecord, Slot, EntryHash)] {
        var entries: [(LogRecord, Slot, EntryHash)] = []
        for record in LogContent(of: node.disk, configuration(of: node)).records {
            let found = try? PaxosRecord(header: record.header[...], payload: record.payload)
            if case .entry(let entry)? = found {
                entries.append((record, entry.slot, entry.hash))
            }
        }
        return entries
    }
}
