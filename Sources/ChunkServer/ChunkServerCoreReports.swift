// What the leading master hears four times a second, and what it orders. The leader is found by
// trying the masters in turn: one that does not lead says so, maybe with the leader's name.
//
// Invariants:
//  1. A set is reported until the leader has acknowledged its state; all of them after a change
//     of leader, or when it asks.
//  2. An order is confirmed when its record is committed on every member (C5), in every report
//     until one of them is acknowledged.

import Base
import Node
import Replication
import Store
import Wire

/// The way to the leading master.
struct LeaderContact: Sendable {
    private var masters: [MasterID]
    /// Who they are by the last word of one of them; number 0: as this server was told.
    private var membership = Membership.none
    private(set) var target: MasterID
    /// When the next report goes out.
    var nextReport = Instant.zero
    /// Something happened that the leader should hear at once.
    var isUrgent = false
    /// The sets of the next report are all of them.
    var needsAll = true
    /// The report without an answer, and what it said.
    private(set) var open: Report?
    private var lastNumber: UInt64 = 0
    /// Orders of the masters that are carried out and not confirmed, ascending.
    private(set) var dropped: [UInt64] = []
    private(set) var cut: [CutOrder] = []
    /// Drops that were given to a replica.
    private var dropping: [UInt64] = []

    /// A report on its way.
    struct Report: Sendable {
        var number: UInt64
        var sentAt: Instant
        var sets: [(index: Int, report: SetReport)]
        var dropped: [UInt64]
        var cut: [CutOrder]
    }
    /// Orders that one report confirms.
    static let confirmations = 4_096
    /// Between two reports, however urgent.
    private static let pause = Interval.milliseconds(5)
    /// A master without an answer for so long is given up.
    private static let patience = Limits.serverHeartbeat * 2

    init(masters: [MasterID]) {
        self.masters = masters
        target = masters[0]
    }

    func isDue(_ now: Instant) -> Bool {
        if let open { return now - open.sentAt >= Self.patience }
        return nextReport <= now
    }

    /// Brings the next report forward if something happened.
    mutating func hurry(_ now: Instant) {
        guard isUrgent, open == nil else { return }
        isUrgent = false
        nextReport = min(nextReport, now + Self.pause)
    }

    /// Gives up a silent master.
    mutating func turnAwayIfSilent() {
        guard open != nil else { return }
        turn(to: nil)
    }

    mutating func begin(_ report: Report, now: Instant) {
        open = report
        nextReport = now + Self.patience
    }
    mutating func newNumber() -> UInt64 {
        lastNumber += 1
        return lastNumber
    }

    /// The leader has taken a report; the next one goes out a heartbeat after it.
    mutating func acknowledge(_ number: UInt64) -> Report? {
        guard let report = open, report.number == number else { return nil }
        open = nil
        nextReport = report.sentAt + Limits.serverHeartbeat
        dropped.removeAll { report.dropped.contains($0) }
        cut.removeAll { report.cut.contains($0) }
        return report
    }

    /// The master does not lead.
    mutating func refuse(_ master: MasterID, hint: MasterID?, now: Instant) {
        guard master == target else { return }
        turn(to: hint)
        nextReport = now + Self.pause * 4
    }

    mutating func lose(_ master: MasterID, now: Instant) {
        guard master == target, open != nil else { return }
        turn(to: nil)
        nextReport = now + Self.pause * 4
    }

    /// The master that sends orders leads.
    mutating func follow(_ master: MasterID, now: Instant) {
        guard master != target, masters.contains(master) else { return }
        turn(to: master)
        nextReport = now
    }

    /// A master says who the masters are; false if that is no news. Those that this server was
    /// told of are tried as well: the word may be that of a master that fell behind.
    mutating func learn(_ masters: Membership) -> Bool {
        guard masters.number >= membership.number, masters != membership else { return false }
        membership = masters
        let known = masters.voters.map(\.id)
        self.masters = known + self.masters.filter { !known.contains($0) }.prefix(Limits.masters)
        return true
    }

    private mutating func turn(to hint: MasterID?) {
        open = nil
        needsAll = true
        if let hint, hint != target, masters.contains(hint) {
            target = hint
        } else {
            let index = masters.firstIndex(of: target) ?? 0
            target = masters[(index + 1) % masters.count]
        }
    }

    // MARK: orders

    /// False if the drop is under way or done.
    mutating func beginDrop(_ order: UInt64) -> Bool {
        guard !dropping.contains(order), !dropped.contains(order),
            dropped.count + dropping.count < Self.confirmations
        else { return false }
        dropping.append(order)
        return true
    }
    mutating func finishDrop(_ order: UInt64, isDone: Bool) {
        dropping.removeAll { $0 == order }
        guard isDone else { return }
        dropped.append(order)
        isUrgent = true
    }
    mutating func finishCut(_ order: CutOrder, isDone: Bool) {
        guard isDone, !cut.contains(order), cut.count < Self.confirmations else { return }
        cut.append(order)
        isUrgent = true
    }
}

extension ChunkServerCore {
    mutating func reportIfDue() {
        leader.hurry(now)
        guard leader.isDue(now) else { return }
        leader.turnAwayIfSilent()
        sendReport()
    }

    private mutating func sendReport() {
        if leader.needsAll {
            for index in sets.indices { sets[index].reported = nil }
            leader.needsAll = false
        }
        var changed: [(index: Int, report: SetReport)] = []
        for index in sets.indices where changed.count < Limits.reportedSets {
            let report = report(of: index)
            if report != sets[index].reported { changed.append((index, report)) }
        }
        let number = leader.newNumber()
        let open = LeaderContact.Report(
            number: number, sentAt: now, sets: changed,
            dropped: Array(leader.dropped.prefix(LeaderContact.confirmations)),
            cut: Array(leader.cut.prefix(LeaderContact.confirmations)))
        let report = ServerReport(
            server: configuration.server, name: configuration.name, rack: configuration.rack,
            address: configuration.address, disks: [diskReport],
            sets: changed.map(\.report), dropped: open.dropped, cut: open.cut,
            connections: surroundings.connections, fences: fences.version)
        effects.append(.send(.master(leader.target), report.frame(request: number)))
        leader.begin(open, now: now)
    }

    private func report(of index: Int) -> SetReport {
        let replica = sets[index].replica
        let usage = store.usage(replica.set)
        return SetReport(
            set: replica.set, disk: disk, epoch: replica.adopted, members: replica.members,
            prepared: replica.durable,
            hasRot: replica.hasRot || store.hasRot(replica.set) || store.wasRebuilt,
            isServing: replica.isServing, stored: usage.stored,
            chunks: usage.chunks,
            learner: replica.learner.map {
                LearnerReport(
                    disk: $0.disk, durable: $0.durable, isCounted: $0.isCounted,
                    isReady: $0.isReady)
            }, silent: replica.silent, slow: replica.slow)
    }

    private var diskReport: DiskReport {
        mutating get {
            let usage = store.usage
            var space = surroundings.space
            space.spare = store.spare
            load.sample(waiting: waiters.count, now)
            tellOfIndex()
            return DiskReport(
                disk: disk, incarnation: incarnation, capacity: store.reachable(of: capacity),
                used: store.living,
                stored: usage.stored, logical: usage.logical, recentBytes: recent.rate(now: now),
                queue: load.waiting, flushTime: load.flushTime,
                // What is on a rebuilt one can't be trusted: it is copied again, elsewhere.
                hasFailed: phase == .failed || store.wasRebuilt,
                scrub: ScrubReport(
                    progress: store.scrubProgress, damaged: store.damaged,
                    bytesPerSecond: store.scrubRate, places: store.damagedPlaces), space: space,
                cleaning: store.cleaningReport)
        }
    }

    private mutating func tellOfIndex() {
        if store.isIndexFull, !saidIndexFull {
            let bound = configuration.index.memory >> 20
            alarm(
                "the index of disk \(disk) takes the \(bound) MiB of memory that it may: the disk "
                    + "counts as full; give it more with --index-memory, or move data away")
        }
        // It may go up and down at the bound.
        let isBelow = store.indexMemory < configuration.index.memory / 8 * 7
        saidIndexFull = store.isIndexFull || saidIndexFull && !isBelow
    }

    mutating func takeOrders(_ frame: Frame, from master: MasterID) {
        guard let orders = try? ServerOrders(frame) else {
            return alarm("master \(master) sent orders that cannot be read")
        }
        if leader.learn(orders.masters) {
            for master in orders.masters.members {
                effects.append(.address(.master(master.id), master.address))
            }
        }
        guard orders.isLeader else {
            return leader.refuse(master, hint: orders.leader, now: now)
        }
        leader.follow(master, now: now)
        var isAnswer = false
        if let report = leader.acknowledge(frame.request) {
            isAnswer = true
            for (index, said) in report.sets { sets[index].reported = said }
            if report.sets.count == Limits.reportedSets { leader.isUrgent = true }
        }
        if install(orders.fences) {
            for view in orders.configurations { configure(view, isAnswer: isAnswer) }
        }
        for drop in orders.drops { carryOut(drop) }
        for cut in orders.cuts { carryOut(cut) }
        for fill in orders.fills { carryOut(fill) }
        for discard in orders.discards { carryOut(discard: discard) }
        store.scrub(orders.scrub, now: now)
        if orders.wantsAllSets {
            leader.needsAll = true
            leader.isUrgent = true
        }
    }

    /// A write or flush failed: the leader hears of it, and the process ends (S4).
    mutating func fail(_ reason: String) {
        let wasServing = phase == .serving
        phase = .failed
        if wasServing { sendReport() }
        alarm("disk \(disk) has failed: \(reason)")
        effects.append(.halt("the disk failed: \(reason)"))
    }
}
