// What a master told others, and whether its disk has it (S2, T5, M1, M4, M5).
//
// Checks:
//  persist before tell   what a Prepare, Promise or Accepted says is on the disk, whatever a loss
//                        of power takes, at the moment it is sent (by samples)
//  amnesia               a master that starts again has promised and accepted what it told
//  one value             a chosen slot has the same hash everywhere, for ever
//  votes                 a leader calls chosen what a majority accepted in its ballot (M5)
//  majority              what is chosen is on the disks of a majority (by samples)

import Base
import Consensus
import Store
import Wire

/// The Paxos state that a disk holds.
struct DurableMaster {
    var paxos: PaxosNode
    var content: LogContent
    /// Every entry that was ever written, by slot; the last one of a slot comes last.
    var entries: [PaxosEntry] = []
    var bodies: [ArraySlice<UInt8>] = []

    init?(
        disk: SimDisk, _ configuration: LogConfiguration, id: MasterID, members: [MasterID]
    ) {
        content = LogContent(of: disk, configuration)
        guard content.failure == nil else { return nil }
        var records: [PaxosRecord] = []
        for record in content.records {
            guard
                let record = try? PaxosRecord(
                    header: record.header[...], payload: record.payload)
            else { return nil }
            records.append(record)
            if case .entry(let entry) = record {
                entries.append(entry)
                bodies.append(record.payload)
            }
        }
        paxos = PaxosNode(
            id: id, members: members, records: records, hasRot: !content.damaged.isEmpty,
            seed: 1, now: .zero)
    }

    /// The log up to a slot.
    func log(through last: Slot) -> [ChosenBody]? {
        guard paxos.end >= last else { return nil }
        var found = [ChosenBody?](repeating: nil, count: Int(last.rawValue))
        for (entry, body) in zip(entries, bodies)
        where entry.slot <= last && paxos.hash(at: entry.slot) == entry.hash {
            found[Int(entry.slot.rawValue) - 1] = ChosenBody(ballot: entry.ballot, body: body)
        }
        return found.allSatisfy { $0 != nil } ? found.compactMap { $0 } : nil
    }
}

/// What one master told.
struct MasterPromises {
    private(set) var promised = Ballot.none
    private(set) var accepted = Ballot.none
    private(set) var durable = Slot.none

    /// Takes note of a message; true if it promises anything.
    mutating func tell(_ head: [UInt8]) -> Bool {
        var reader = ByteReader(head)
        guard let kind = try? reader.read(UInt8.self) else { return false }
        switch kind {
        case 2, 3:
            guard let ballot = Self.ballot(&reader) else { return false }
            promised = max(promised, ballot)
            return true
        case 10:
            guard let ballot = Self.ballot(&reader), let slot = try? reader.read(Slot.self) else {
                return false
            }
            promised = max(promised, ballot)
            // Nothing yet: the sync is still on its way to the disk.
            guard slot > .none else { return true }
            if ballot > accepted {
                (accepted, durable) = (ballot, slot)
            } else if ballot == accepted {
                durable = max(durable, slot)
            }
            return true
        default: return false
        }
    }

    private static func ballot(_ reader: inout ByteReader) -> Ballot? {
        guard let configuration = try? reader.read(UInt32.self),
            let round = try? reader.read(UInt64.self),
            let node = try? reader.read(MasterID.self)
        else { return nil }
        return Ballot(configuration: configuration, round: round, node: node)
    }

    /// What a disk that holds this has forgotten, if anything.
    func forgotten(by paxos: PaxosNode) -> String? {
        if paxos.promised < promised {
            return "promised \(promised), the disk says \(paxos.promised)"
        }
        if paxos.accepted < accepted {
            return "accepted in \(accepted), the disk says \(paxos.accepted)"
        }
        if paxos.accepted == accepted, paxos.durable < durable {
            return "accepted \(durable) in \(accepted), the disk has \(paxos.durable)"
        }
        return nil
    }
}
