// One master of the model: the production node, its disk and its process. The disk is a list of
// records of which a prefix is durable. Time stands still; see `PaxosNode.forgetTimes`.

import Base
import Consensus

/// See the head of this file.
struct PaxosCell: Hashable {
    private(set) var node: PaxosNode
    private var durable: [PaxosRecord] = []
    private var pending: [PaxosRecord] = []
    private var lastTicket: UInt64 = 0

    init(_ id: MasterID, _ scope: PaxosScope) {
        node = Self.node(id, scope, [])
    }
    private static func node(
        _ id: MasterID, _ scope: PaxosScope, _ records: [PaxosRecord]
    ) -> PaxosNode {
        var node = PaxosNode(
            id: id, disk: scope.disk(of: id), members: scope.membership, records: records,
            hasRot: false, seed: 0, now: .zero)
        node.forgetTimes()
        return node
    }

    /// What a step brought about besides the new state.
    struct Result {
        var sent: [PaxosLetter] = []
        /// Reads that are ready: at which slot.
        var ready: [Slot] = []
        var fault: String?
    }

    /// How many records on its disk are entries.
    var entries: Int { durable.count { !$0.payload.isEmpty } }
    /// How many records are on their way to the disk.
    var unsynced: Int { pending.count }

    mutating func step(_ event: PaxosEvent, _ scope: PaxosScope) -> Result {
        take(node.step(event, now: .zero), scope)
    }
    mutating func lead(wall: Timestamp, _ scope: PaxosScope) -> Result {
        take(node.lead(wall: wall), scope)
    }
    mutating func promoteLearner(_ scope: PaxosScope) -> Result {
        take(node.promoteLearner(), scope)
    }
    /// Everything becomes durable.
    mutating func sync(_ scope: PaxosScope) -> Result {
        durable += pending
        pending = []
        return step(.persisted(through: PaxosTicket(rawValue: lastTicket)), scope)
    }
    /// The process ends and begins again; the first `kept` records on their way had arrived, and
    /// of the entry with number `lost` only the header is left.
    mutating func restart(kept: Int, lost: Int?, _ scope: PaxosScope) -> Result {
        durable += pending.prefix(kept)
        pending = []
        lastTicket = 0
        let entries = durable.indices.filter { !durable[$0].payload.isEmpty }
        if let lost { durable[entries[lost]] = durable[entries[lost]].withoutPayload }
        node = Self.node(node.id, scope, durable)
        // It asks for what it lacks.
        return lost == nil ? Result() : step(.tick(.zero), scope)
    }

    private mutating func take(_ effects: [PaxosEffect], _ scope: PaxosScope) -> Result {
        var result = Result()
        for effect in effects {
            switch effect {
            case .persist(let record, let ticket):
                pending.append(record)
                lastTicket = ticket.rawValue
            // Heartbeats decide when somebody tries to lead, which here anybody may at any time.
            case .send(_, .heartbeat): break
            case .send(let to, let message):
                result.sent.append(PaxosLetter(from: node.id, to: to, message: message))
            case .readReady(_, let slot): result.ready.append(slot)
            case .diverged(let slot): result.fault = "\(node.id) finds two logs at \(slot)"
            case .chosen, .becameLeader, .stoppedLeading, .readFailed, .proposalFailed, .ordered:
                break
            }
        }
        if !scope.hasSlowDisks, !pending.isEmpty {
            let after = sync(scope)
            result.sent += after.sent
            result.ready += after.ready
            result.fault = result.fault ?? after.fault
        }
        node.forgetTimes()
        return result
    }
}

extension PaxosRecord {
    fileprivate var withoutPayload: PaxosRecord {
        var header = ByteWriter(capacity: 100)
        encodeHeader(into: &header)
        guard let bare = try? PaxosRecord(header: header.bytes[...], payload: []) else {
            preconditionFailure("a header that can't be read")
        }
        return bare
    }
}

/// A message on its way.
struct PaxosLetter: Hashable {
    var from: MasterID
    var to: MasterID
    var message: PaxosMessage
}
