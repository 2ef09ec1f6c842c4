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
import Master
import Node
import Store
import Wire

extension MasterCore {
    /// A master as it starts from what a disk would have after the worst loss of power; nil if
    /// it refuses to.
    static func start(_ core: MasterCore, from disk: SimDisk) -> MasterCore? {
        var core = core
        var disk = disk.onlyDurable
        var events: [NodeEvent] = [.start(disk.start())]
        let time = NodeTime(now: .zero, wall: .zero)
        while core.paxos == nil, !events.isEmpty {
            let effects = core.step(events, at: time)
            events = []
            for effect in effects {
                switch effect {
                case .disk(let effect):
                    disk.issue(effect)
                    guard let result = disk.complete(effect.operation, at: .zero) else { continue }
                    events.append(.disk(effect.operation, result))
                case .halt: return nil
                case .send, .address, .report: break
                }
            }
        }
        return core.paxos == nil ? nil : core
    }
}

/// What one master told.
struct MasterPromises {
    private(set) var promised = Ballot.none
    private(set) var accepted = Ballot.none
    private(set) var durable = Slot.none
    /// How much it told to be durable in each ballot: a vote counts although a later one followed.
    private(set) var votes: [Ballot: Slot] = [:]

    /// Takes note of a message; true if it promises anything.
    mutating func tell(_ head: [UInt8]) -> Bool {
        var reader = ByteReader(head)
        guard let kind = try? reader.read(UInt8.self) else { return false }
        switch kind {
        case 16, 17:
            guard let ballot = Self.ballot(&reader) else { return false }
            promised = max(promised, ballot)
            return true
        case 18:
            guard let ballot = Self.ballot(&reader), let slot = try? reader.read(Slot.self) else {
                return false
            }
            promised = max(promised, ballot)
            // Nothing yet: the sync is still on its way to the disk.
            guard slot > .none else { return true }
            votes[ballot] = max(votes[ballot] ?? .none, slot)
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
        // A snapshot of what was chosen may have replaced entries that never were.
        let isReplaced = paxos.start > .none && paxos.start == paxos.durable
        if paxos.accepted == accepted, paxos.durable < durable, !isReplaced {
            return "accepted \(durable) in \(accepted), the disk has \(paxos.durable)"
        }
        return nil
    }
}
