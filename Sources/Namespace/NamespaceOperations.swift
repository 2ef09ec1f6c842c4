// Operators' changes of the cell (C19): servers that are drained or removed, and plans of moves.
//
// Invariants:
//  1. An operation is refused whole, before anything changed.
//  2. A plan's moves end by what happens to their sets: a new epoch without `from` ends the move,
//     as done if `to` is a member, whoever proposed the epoch.
//  3. At most one plan is open. It ends when all of its moves have.

package import Base

/// Removed servers that are remembered; the oldest are forgotten first.
private let removedBound = 4_096

/// What an operator ordered for the scrub of one server.
struct ServerScrub: Hashable, Sendable {
    var server: ServerID
    var order: ScrubOrder
}

extension Namespace {
    /// Servers that are being emptied, ascending.
    package var drainingServers: [ServerID] { draining }
    /// The last plan, open or ended.
    package var lastRebalance: Rebalance? { rebalance }

    /// Whether copies on the disk are to go elsewhere.
    package func isDraining(_ disk: DiskID) -> Bool {
        disks[disk].map { draining.contains($0.server) } ?? false
    }

    mutating func operate(_ operation: Operation) -> Outcome {
        do throws(Refusal) {
            switch operation {
            case .drain(let server, let isDraining): try drain(server, isDraining)
            case .removeServer(let server): try removeServer(server)
            case .startRebalance(let plan): try startRebalance(plan)
            case .setRebalance(let id, let state): try setRebalance(id, state)
            case .scrub(let server, let isPaused): try scrub(server, isPaused)
            case .adopt(let withoutMissing): try orderAdoption(withoutMissing)
            case .removeDisk(let disk): try remove([disk])
            case .acceptLoss(let set, let epoch, let members, let primary):
                return try acceptLoss(set, epoch, members, primary)
            }
            return .done
        } catch {
            return .refused(error)
        }
    }

    private mutating func acceptLoss(
        _ set: SetID, _ epoch: Epoch, _ members: [DiskID], _ primary: DiskID
    ) throws(Refusal) -> Outcome {
        guard let old = setTable[set]?.configuration else {
            throw Refusal(.unknownSet, set.rawValue)
        }
        guard old.epoch == epoch,
            members == [primary] || members.allSatisfy({ old.members.contains($0) })
        else { throw Refusal(.changedSet, set.rawValue) }
        var next = old
        next.epoch = epoch.next
        next.members = members
        next.primary = primary
        next.acceptsLoss = true
        let outcome = changeEpoch(next, members.compactMap { disks[$0]?.incarnation })
        guard case .set = outcome else { throw Refusal(.changedSet, set.rawValue) }
        return outcome
    }

    private mutating func drain(_ server: ServerID, _ isDraining: Bool) throws(Refusal) {
        guard servers.contains(server) else {
            throw Refusal(.unknownServer, UInt64(server.rawValue))
        }
        guard isDraining != draining.contains(server) else { return }
        guard isDraining else { return draining.removeAll { $0 == server } }
        let needed = disksNeeded(without: server)
        if needed.left < needed.copies { throw Refusal(.tooFewDisks, UInt64(needed.copies)) }
        draining.append(server)
        draining.sort()
    }

    /// How many disks would be left without a server, and how many its sets need.
    private func disksNeeded(without server: ServerID) -> (left: Int, copies: Int) {
        let left = disks.count { $0.server != server && !draining.contains($0.server) }
        let copies = setTable.lazy.filter { [disks] set in
            set.configuration.members.contains { disks[$0]?.server == server }
        }.map(\.configuration.members.count).max()
        return (left, copies ?? 1)
    }
    /// Whether its copies have a place elsewhere.
    package func mayDrain(_ server: ServerID) -> Bool {
        let needed = disksNeeded(without: server)
        return needed.left >= needed.copies
    }

    private mutating func removeServer(_ server: ServerID) throws(Refusal) {
        guard servers.contains(server) else {
            throw Refusal(.unknownServer, UInt64(server.rawValue))
        }
        try remove(disks.filter { $0.server == server }.map(\.id))
        servers.remove(server)
        draining.removeAll { $0 == server }
        scrubs.removeAll { $0.server == server }
        removed.append(server)
        if removed.count > removedBound { removed.removeFirst() }
    }

    private mutating func remove(_ gone: [DiskID]) throws(Refusal) {
        let holder = setTable.first { set in
            gone.contains { set.configuration.members.contains($0) }
        }
        if let holder { throw Refusal(.holdsCopy, holder.key.rawValue) }
        for disk in gone { disks.remove(disk) }
        endMoves { gone.contains($0.to) ? .skipped : nil }
    }
    /// Whether a set has a member on the disk.
    package func holdsCopy(_ disk: DiskID) -> Bool {
        setTable.contains { $0.configuration.members.contains(disk) }
    }

    /// What is ordered for the scrub of a server's disks (C18).
    package func scrubOrder(of server: ServerID) -> ScrubOrder {
        scrubs.first { $0.server == server }?.order ?? scrub
    }

    private mutating func scrub(_ server: ServerID?, _ isPaused: Bool) throws(Refusal) {
        lastScrub += 1
        let run = lastScrub
        func change(_ order: inout ScrubOrder) {
            if isPaused { order.isPaused = true } else { order.start(asRun: run) }
        }
        guard let server else {
            change(&scrub)
            for index in scrubs.indices { change(&scrubs[index].order) }
            return
        }
        guard servers.contains(server) else {
            throw Refusal(.unknownServer, UInt64(server.rawValue))
        }
        var own = ServerScrub(server: server, order: scrubOrder(of: server))
        change(&own.order)
        scrubs.removeAll { $0.server == server }
        let place = scrubs.firstIndex { $0.server > server } ?? scrubs.count
        scrubs.insert(own, at: place)
    }

    private mutating func startRebalance(_ plan: Rebalance) throws(Refusal) {
        if let open = rebalance, open.state.isOpen { throw Refusal(.openPlan, open.id) }
        guard !plan.moves.isEmpty, plan.id != 0 else { throw Refusal(.emptyPlan, plan.id) }
        var seen: Set<SetID> = []
        for move in plan.moves {
            guard let set = setTable[move.set], set.configuration.epoch == move.epoch else {
                throw Refusal(.stale, move.set.rawValue)
            }
            let members = set.configuration.members
            guard members.contains(move.from), !members.contains(move.to),
                disks.contains(move.to), !isDraining(move.to), move.state == .waiting,
                seen.insert(move.set).inserted
            else { throw Refusal(.badMove, move.set.rawValue) }
        }
        rebalance = plan
        rebalance?.state = .running
    }

    private mutating func setRebalance(_ id: UInt64, _ state: RebalanceState) throws(Refusal) {
        guard let open = rebalance, open.id == id, open.state.isOpen, state != .finished else {
            throw Refusal(.unknownPlan, id)
        }
        rebalance?.state = state
    }

    /// A set has a new epoch: a move is over when its copy is not where it was any more, or
    /// when there is one already where it should go.
    mutating func endMoves(of configuration: SetConfiguration) {
        let members = configuration.members
        endMoves { move in
            guard move.set == configuration.set else { return nil }
            switch (members.contains(move.from), members.contains(move.to)) {
            case (true, false): return nil
            case (false, true): return .done
            default: return .skipped
            }
        }
    }

    private mutating func endMoves(_ end: (ReplicaMove) -> ReplicaMove.State?) {
        guard var plan = rebalance, plan.state.isOpen else { return }
        for index in plan.moves.indices where plan.moves[index].state == .waiting {
            if let state = end(plan.moves[index]) { plan.moves[index].state = state }
        }
        if plan.moves.allSatisfy({ $0.state != .waiting }) { plan.state = .finished }
        rebalance = plan
    }
}
