// The view of the cell that placement decides by, and new sets made ahead of time.
//
// Invariants:
//  1. Chunks go to sets with most members first, of these to such as serve already.
//  2. A set with fewer members than the goal is made only when servers had time to register.

import Base
import Consensus
import Namespace
import Node
import Placement
import Wire

extension SetTable {
    /// Usable sets with room, of whose members nothing keeps new data away.
    func open(in view: ClusterView) -> [SetState] {
        states.filter { state in
            state.isUsable && !state.record.isFull
                && state.record.configuration.members.allSatisfy { view.obstacle($0) == nil }
        }
    }
    /// Where chunks may go.
    func choices(in view: ClusterView) -> [SetState] {
        let open = open(in: view)
        let most = open.map(\.record.configuration.members.count).max() ?? 0
        let best = open.filter { $0.record.configuration.members.count == most }
        let serving = best.filter(\.isServing)
        return serving.isEmpty ? best : serving
    }
}

extension MasterCore {
    /// How long servers have to register before sets are made without them.
    private static let registrationTime = Interval.seconds(2)
    /// New sets of one round, and draws for them.
    private static let setsPerRound = 64
    private static let drawsPerRound = 256

    /// Looks at the cell: once a round, for all choices until the next.
    mutating func refreshView() {
        guard let lead else { return }
        let draining = namespace.drainingServers
        let presumed = time.now - lead.since < Limits.serverSilence
        let servers = namespace.serverRecords.map { record in
            let machine = record.address.machine
            let state = lead.server(record.id)
            return ClusterView.Server(
                id: record.id, host: machine.isEmpty ? "server \(record.id)" : machine,
                rack: record.rack,
                isUp: state?.isUp ?? false || presumed && state?.heard == nil,
                isDraining: draining.contains(record.id))
        }
        let disks = namespace.diskRecords.map { record in
            let report = diskReport(record.id)
            return ClusterView.Disk(
                id: record.id, server: record.server,
                capacity: report?.capacity ?? record.capacity, used: report?.used ?? 0,
                recentBytes: report?.recentBytes ?? 0, queue: report?.queue ?? 0,
                flushTime: report?.flushTime ?? 0, isGray: isGray(record.id),
                hasFailed: !isUp(record))
        }
        let view = ClusterView(servers: servers, disks: disks, sets: [])
        let sets = lead.sets.choices(in: view).map { openSet($0.record.configuration) }
        self.lead?.view = ClusterView(servers: servers, disks: disks, sets: sets)
    }

    private func openSet(_ configuration: SetConfiguration) -> ClusterView.OpenSet {
        let report = replica(configuration.set, configuration.primary)
        return ClusterView.OpenSet(
            set: configuration.set, members: configuration.members,
            primary: configuration.primary, stored: report?.stored ?? 0,
            recentBytes: diskReport(configuration.primary)?.recentBytes ?? 0)
    }

    /// The last report of a disk.
    private func diskReport(_ id: DiskID) -> DiskReport? {
        guard let disk = namespace.disk(id), let state = lead?.server(disk.server) else {
            return nil
        }
        return state.disks.first { $0.disk == id }
    }

    // MARK: The place of a chunk

    /// The set of a new file's first chunk; nil while there is none.
    mutating func chooseSet() -> SetID? {
        guard let view = lead?.view else { return nil }
        return PlacementPolicy.chooseSet(
            for: configuration.goal, in: view, random: &random)?.set
    }

    /// Sets for so many chunks of one file; nil while there is none.
    mutating func chooseSets(_ count: Int) -> [SetID]? {
        var sets: [SetID] = []
        for _ in 0..<count {
            guard let set = chooseSet() else { return nil }
            sets.append(set)
        }
        return sets
    }

    /// With fewer members a set takes no writes (C5).
    var minMembers: UInt8 { UInt8(min(2, configuration.goal)) }

    // MARK: New sets

    /// Keeps `Limits.openSetsPerDisk` usable sets on every disk that is up.
    mutating func createSets() {
        guard let lead, lead.sets.creating == 0 else { return }
        let isPatient =
            time.now - max(lead.since, lead.lastRegistration) >= Self.registrationTime
        var view = lead.view
        // Disks of servers that were not heard yet are not counted on.
        let disks = view.disks.filter { disk in
            view.obstacle(disk.id) == nil && lead.server(disk.server)?.heard != nil
        }
        view = ClusterView(servers: view.servers, disks: disks, sets: view.sets)
        let present = lead.sets.open(in: view)
        var counts = disks.map { disk in
            present.count { $0.record.configuration.members.contains(disk.id) }
        }
        var planned: [ClusterView.OpenSet] = []
        for _ in 0..<Self.drawsPerRound where planned.count < Self.setsPerRound {
            guard counts.contains(where: { $0 < Limits.openSetsPerDisk }),
                let choice = PlacementPolicy.chooseMembers(
                    goal: configuration.goal, in: view, random: &random),
                choice.members.count == configuration.goal || isPatient
            else { return }
            let isWanted = disks.indices.contains { index in
                counts[index] < Limits.openSetsPerDisk
                    && choice.members.contains(disks[index].id)
            }
            guard isWanted else { continue }
            for index in disks.indices where choice.members.contains(disks[index].id) {
                counts[index] += 1
            }
            planned.append(
                ClusterView.OpenSet(
                    set: SetID(rawValue: .max - UInt64(planned.count)), members: choice.members,
                    primary: choice.primary, stored: 0, recentBytes: 0))
            view = ClusterView(
                servers: view.servers, disks: disks, sets: lead.view.sets + planned)
            self.lead?.sets.creating += 1
            report("proposes a set: \(choice.reason)")
            submit(
                .createSet(
                    members: choice.members, primary: choice.primary, minMembers: minMembers),
                for: .createSet)
        }
    }
}
