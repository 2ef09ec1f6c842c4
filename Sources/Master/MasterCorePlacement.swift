// The view of the cell that placement decides by, and new sets made ahead of time.
//
// Invariants:
//  1. Chunks go to sets with most members first, of these to such as serve already.
//  2. A set with members on fewer servers than the goal is made only when servers had time to
//     register.

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

/// What is free on file systems that several disks share: each disk counts its part, so that all
/// of them together count it once.
struct FileSystemShares: Sendable {
    private struct Place: Hashable, Sendable {
        var machine: String
        var fileSystem: UInt64
    }
    private struct Share: Sendable {
        /// Of the report that said least; they are a heartbeat apart.
        var free = UInt64.max
        var disks: UInt64 = 0
    }
    private var shares: [Place: Share] = [:]

    init(_ servers: [ServerState] = []) {
        for server in servers where server.isUp {
            for disk in server.present where !disk.hasFailed {
                guard let place = Self.place(disk, server.record?.address.machine ?? "") else {
                    continue
                }
                shares[place, default: Share()].free =
                    min(shares[place]?.free ?? .max, disk.space.free)
                shares[place]?.disks += 1
            }
        }
    }
    private static func place(_ disk: DiskReport, _ machine: String) -> Place? {
        disk.space.fileSystem == 0 || machine.isEmpty
            ? nil : Place(machine: machine, fileSystem: disk.space.fileSystem)
    }

    /// Bytes that the disk may use, with what it uses: what it has taken and its part of the rest.
    func capacity(of disk: DiskReport, on machine: String) -> UInt64 {
        guard let place = Self.place(disk, machine), let share = shares[place] else {
            return disk.capacity
        }
        return min(
            disk.capacity, disk.used + disk.space.spare + share.free / max(1, share.disks))
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
        self.lead?.shares = FileSystemShares(lead.servers)
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

    /// The last report of a disk, with its share of the file system.
    private func diskReport(_ id: DiskID) -> DiskReport? {
        guard let disk = namespace.disk(id), let state = lead?.server(disk.server),
            let report = state.disks.first(where: { $0.disk == id })
        else { return nil }
        return counted(report, state)
    }

    /// The disks that a server had when it was last heard, each with its share.
    func counted(_ state: ServerState) -> [DiskReport] {
        state.present.map { counted($0, state) }
    }

    private func counted(_ report: DiskReport, _ state: ServerState) -> DiskReport {
        var report = report
        let machine = state.record?.address.machine ?? ""
        report.capacity = lead?.shares.capacity(of: report, on: machine) ?? report.capacity
        return report
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

    /// How many servers have the members.
    private func units(_ members: [DiskID], _ view: ClusterView) -> Int {
        Set(members.compactMap { view.disk($0)?.server.unit }).count
    }

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
                units(choice.members, view) == configuration.goal || isPatient
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
