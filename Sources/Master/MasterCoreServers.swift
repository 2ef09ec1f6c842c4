// Chunk servers: what they report, and what they are ordered to do.
//
//   report says                         leader does
//   another name, address, incarnation  registers the server through the log
//   a set in a higher epoch than ours   freezes the set, alarm, deletes nothing (C10, S6)
//   a set has reached its size          marks it full through the log
//   drops and cuts carried out          confirms them through the log, in batches
//
// Invariants:
//  1. Orders go out in reply to every report, and at once to the members of a set that changed.
//  2. A configuration is sent until the member reports its epoch.
//  3. A report that comes after a later one of the same disk says nothing: servers tell only
//     what changed, so an older state would never be corrected.

import Base
import Consensus
import Namespace
import Node
import Wire

/// A chunk server as the leader hears of it.
struct ServerState: Sendable {
    let id: ServerID
    var heard: Instant?
    var record: ServerRecord?
    var disks: [DiskReport] = []
    var connections = ConnectionCounts()
    /// Number and time of the last report of each disk.
    private var reports: [DiskID: (number: UInt64, at: Instant)] = [:]
    /// As of the last round.
    var isUp = false
    /// Its registration is on its way through the log.
    var isRegistering = false
    /// The log refused its disks; it stays down.
    var isRefused = false
    /// When it last reported an earlier run of its disk than one that was heard.
    var outdated: Instant?
    /// Of its disk: records that were damaged when it was last drained.
    var spared: UInt64 = 0
    /// The version of the fence list that it said it keeps to (C16).
    var fences: UInt64 = 0
    /// The request number of its report without an answer; 0: none.
    var report: UInt64 = 0
    /// When it was asked for all its sets, and in the answer to which report; 0: it never was.
    var asked: Instant?
    var askedIn: UInt64 = 0
    /// It has told of all its sets since then.
    var hasReportedAll = false

    init(id: ServerID) { self.id = id }

    /// A server's disks report each for itself; a new incarnation is a new chance.
    mutating func put(_ report: DiskReport, number: UInt64, at now: Instant) {
        reports[report.disk] = (number, now)
        let index = disks.firstIndex { $0.disk >= report.disk } ?? disks.count
        if index < disks.count, disks[index].disk == report.disk {
            if disks[index].incarnation != report.incarnation {
                isRefused = false
                askedIn = 0
                hasReportedAll = false
            }
            disks[index] = report
        } else {
            disks.insert(report, at: index)
            isRefused = false
        }
    }

    /// Whether something later of the disk was heard: of a later run, or a later report of this.
    func hasHeard(_ report: DiskReport, number: UInt64) -> Bool {
        guard let known = disks.first(where: { $0.disk == report.disk }) else { return false }
        return known.incarnation > report.incarnation
            || known.incarnation == report.incarnation
                && reports[report.disk]?.number ?? 0 >= number
    }

    /// Whether a disk reported within `Limits.serverSilence`: its server may go on without it.
    func isHeard(_ disk: DiskID, _ now: Instant) -> Bool {
        reports[disk].map { now - $0.at < Limits.serverSilence } ?? false
    }
    mutating func forget(_ disk: DiskID) {
        disks.removeAll { $0.disk == disk }
        reports[disk] = nil
    }
    /// The disks that it had when it was last heard.
    var present: [DiskReport] { disks.filter { isHeard($0.disk, heard ?? .zero) } }
}

/// A replica of a set.
struct ReplicaKey: Hashable, Sendable {
    var set: SetID
    var disk: DiskID
}

/// What was last reported of it, and by which incarnation of its disk.
struct ReplicaState: Sendable {
    var report: SetReport
    var incarnation: Incarnation
}

/// A cut, for look-ups.
struct CutKey: Hashable, Sendable {
    var chunk: ChunkID
    var truncation: UInt32
}

extension Leadership {
    func server(_ id: ServerID) -> ServerState? { servers.first { $0.id == id } }

    mutating func update(_ id: ServerID, _ change: (inout ServerState) -> Void) {
        if let index = servers.firstIndex(where: { $0.id == id }) { change(&servers[index]) }
    }
    mutating func add(_ id: ServerID) {
        let place = servers.firstIndex { $0.id > id } ?? servers.count
        servers.insert(ServerState(id: id), at: place)
    }
    mutating func owe(_ server: ServerID) {
        if !ordersDue.contains(server) { ordersDue.append(server) }
    }
}

extension MasterCore {
    /// Orders of one message.
    private static let dropsPerMessage = 128
    private static let cutsPerMessage = 1_024

    mutating func receiveReport(_ frame: Frame, from server: ServerID) {
        let report: ServerReport
        do throws(DecodeError) {
            report = try ServerReport(frame)
        } catch {
            return self.report("bad report of server \(server): \(error)")
        }
        guard report.server == server else {
            return self.report("server \(server) reports as \(report.server)", isAlarm: true)
        }
        guard lead != nil else {
            let hint = paxos?.leaderHint(now: time.now)
            let orders = ServerOrders(
                isLeader: false, leader: hint, wantsAllSets: false, configurations: [],
                drops: [], cuts: [], masters: masters.membership)
            return send(.server(server), orders.frame(request: frame.request))
        }
        let state = lead?.server(server)
        let isLate = report.disks.contains { state?.hasHeard($0, number: frame.request) ?? false }
        if isLate {
            let isOld = report.disks.contains { disk in
                state?.disks.contains {
                    $0.disk == disk.disk && $0.incarnation > disk.incarnation
                } ?? false
            }
            let now = time.now
            if isOld { lead?.update(server) { $0.outdated = now } }
            return
        }
        note(report, number: frame.request)
        for set in report.sets { note(set, report) }
        confirm(report)
        lead?.isDirty = true
        lead?.update(server) { state in
            state.report = frame.request
            state.fences = report.fences
            if state.askedIn > 0, frame.request > state.askedIn,
                report.sets.count < Limits.reportedSets
            {
                state.hasReportedAll = true
            }
        }
        lead?.owe(server)
    }

    private mutating func note(_ report: ServerReport, number: UInt64) {
        if lead?.server(report.server) == nil {
            lead?.add(report.server)
        }
        let record = ServerRecord(
            id: report.server, name: report.name, rack: report.rack, address: report.address)
        let now = time.now
        lead?.update(report.server) { state in
            state.heard = now
            state.record = record
            state.connections = report.connections
            for disk in report.disks { state.put(disk, number: number, at: now) }
        }
        guard let state = lead?.server(report.server), !state.isRegistering, !state.isRefused,
            isNews(record, report.disks)
        else { return }
        lead?.update(report.server) { $0.isRegistering = true }
        let disks = report.disks.map {
            DiskRecord(
                id: $0.disk, server: report.server, incarnation: $0.incarnation,
                capacity: $0.capacity)
        }
        submit(.registerServer(record, disks: disks), for: .register(report.server))
    }

    /// Whether the log does not know it yet. Capacities that shift a little are no news.
    private func isNews(_ record: ServerRecord, _ disks: [DiskReport]) -> Bool {
        guard namespace.server(record.id) == record else { return true }
        return disks.contains { report in
            guard let known = namespace.disk(report.disk) else { return true }
            let (low, high) = (
                min(known.capacity, report.capacity), max(known.capacity, report.capacity)
            )
            return known.server != record.id || known.incarnation != report.incarnation
                || high - low > high / 8
        }
    }

    private mutating func note(_ set: SetReport, _ report: ServerReport) {
        guard let disk = report.disks.first(where: { $0.disk == set.disk }) else { return }
        lead?.replicas[ReplicaKey(set: set.set, disk: set.disk)] = ReplicaState(
            report: set, incarnation: disk.incarnation)
        guard let state = lead?.sets[set.set] else {
            if lead?.sets.unknown.contains(set.set) == false {
                lead?.sets.unknown.append(set.set)
                self.report(
                    "disk \(set.disk) has set \(set.set), which the log does not know: kept",
                    isAlarm: true)
            }
            return
        }
        if isUnseen(set), alarmedCopies.insert(ReplicaKey(set: set.set, disk: set.disk)).inserted {
            self.report(
                "disk \(set.disk) has set \(set.set) in epoch \(set.epoch), which nobody knew when "
                    + "the set was adopted: kept", isAlarm: true)
        }
        if set.epoch > state.record.configuration.epoch, !state.isFrozen {
            lead?.sets.update(set.set) { $0.isFrozen = true }
            self.report(
                "disk \(set.disk) has set \(set.set) in epoch \(set.epoch), the log knows "
                    + "\(state.record.configuration.epoch): the masters have lost state",
                isAlarm: true)
        }
        let isFull = set.stored >= Limits.setStored || set.chunks >= Limits.setChunks
        if isFull, !state.isChanging, namespace.set(set.set)?.isFull == false {
            lead?.sets.update(set.set) { $0.isChanging = true }
            submit(.setFull(set.set), for: .fillSet(set.set))
        }
    }

    // MARK: Deletions

    /// Logs drops and cuts that a primary's server carried out, those that are still pending.
    private mutating func confirm(_ report: ServerReport) {
        if !report.dropped.isEmpty {
            let done = Set(report.dropped)
            var orders: [UInt64] = []
            for drop in pendingDrops(of: report.server, limit: 4_096)
            where done.contains(drop.order) {
                if lead?.confirmingDrops.updateValue(true, forKey: drop.order) == nil {
                    orders.append(drop.order)
                }
            }
            if !orders.isEmpty { submit(.confirmDrops(orders), for: .confirm) }
        }
        if !report.cut.isEmpty {
            let done = Set(
                report.cut.map { CutKey(chunk: $0.chunk, truncation: $0.truncation) })
            var cuts: [PendingCut] = []
            for cut in pendingCuts(of: report.server, limit: 4_096) {
                let key = CutKey(chunk: cut.chunk, truncation: cut.truncation)
                if done.contains(key),
                    lead?.confirmingCuts.updateValue(true, forKey: key) == nil
                {
                    cuts.append(cut)
                }
            }
            if !cuts.isEmpty { submit(.confirmCuts(cuts), for: .confirm) }
        }
    }
    /// Orders go to the servers of the primaries, and only for sets that are as they should be.
    private func isOrdered(_ set: SetRecord, from server: ServerID) -> Bool {
        namespace.disk(set.configuration.primary)?.server == server
            && lead?.sets[set.configuration.set]?.isFrozen == false
    }
    private func pendingDrops(of server: ServerID, limit: Int) -> [PendingDrop] {
        namespace.pendingDrops(limit: limit) { isOrdered($0, from: server) }
    }
    private func pendingCuts(of server: ServerID, limit: Int) -> [PendingCut] {
        namespace.pendingCuts(limit: limit) { isOrdered($0, from: server) }
    }

    // MARK: Orders

    /// Sessions expired: every server hears of it at once (C16).
    mutating func oweFences() {
        let version = namespace.fenceVersion
        for server in lead?.servers ?? [] where server.isUp && server.fences != version {
            lead?.owe(server.id)
        }
    }

    mutating func sendOrders() {
        guard let due = lead?.ordersDue, !due.isEmpty else { return }
        lead?.ordersDue = []
        for server in due {
            let orders = orders(for: server)
            let report = lead?.server(server)?.report ?? 0
            send(.server(server), orders.frame(request: report))
            let now = time.now
            lead?.update(server) { state in
                state.report = 0
                guard orders.wantsAllSets else { return }
                state.asked = now
                if state.askedIn == 0 { state.askedIn = report }
            }
        }
    }

    private func orders(for server: ServerID) -> ServerOrders {
        var orders = ServerOrders(
            isLeader: true, leader: configuration.id, wantsAllSets: false, configurations: [],
            drops: [], cuts: [], masters: masters.membership)
        let asked = lead?.server(server)?.asked
        let mayAsk = asked.map { time.now - $0 >= Limits.serverHeartbeat } ?? true
        if lead?.server(server)?.askedIn == 0, namespace.heldCount > 0 {
            orders.wantsAllSets = true
        }
        for state in lead?.sets.states ?? [] where !state.isFrozen {
            let configuration = state.record.configuration
            for disk in configuration.members where namespace.disk(disk)?.server == server {
                let replica = replica(configuration.set, disk)
                if replica == nil, mayAsk { orders.wantsAllSets = true }
                guard replica?.epoch != configuration.epoch,
                    orders.configurations.last?.configuration != configuration,
                    orders.configurations.count < Limits.reportedSets,
                    let view = namespace.setView(configuration.set, isUp: isUp)
                else { continue }
                orders.configurations.append(view)
            }
        }
        orders.drops = pendingDrops(of: server, limit: Self.dropsPerMessage).map {
            DropOrder(order: $0.order, set: $0.set, chunks: $0.chunks)
        }
        orders.cuts = pendingCuts(of: server, limit: Self.cutsPerMessage).map {
            CutOrder(set: $0.set, chunk: $0.chunk, truncation: $0.truncation, from: $0.from)
        }
        orders.fills = fillOrders(for: server)
        orders.discards = discardOrders(for: server)
        orders.scrub = namespace.scrubOrder(of: server)
        let version = namespace.fenceVersion
        let isNews = lead?.server(server)?.fences != version
        orders.fences = FenceList(
            version: version, sessions: isNews ? namespace.fencedSessions : nil)
        return orders
    }

    /// What the present incarnation of a disk reported of a set.
    func replica(_ set: SetID, _ disk: DiskID) -> SetReport? {
        guard let state = lead?.replicas[ReplicaKey(set: set, disk: disk)],
            state.incarnation == namespace.disk(disk)?.incarnation
        else { return nil }
        return state.report
    }

    /// Whether a disk can be used now. A server that a new leader has not heard yet counts as up
    /// until it had time to report.
    func isUp(_ disk: DiskRecord) -> Bool {
        guard let lead, let server = lead.server(disk.server) else { return false }
        guard let heard = server.heard else {
            return time.now - lead.since < Limits.serverSilence
        }
        guard time.now - heard < Limits.serverSilence, !server.isRefused,
            server.isHeard(disk.id, time.now)
        else { return false }
        return server.disks.contains {
            $0.disk == disk.id && $0.incarnation == disk.incarnation && !$0.hasFailed
        }
    }
}
