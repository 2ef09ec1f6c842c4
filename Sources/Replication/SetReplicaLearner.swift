// The other parts of `SetReplica`: learners (C9) and leases (C11).
//
// A learner is filled under the primary's present epoch:
//
//   fill        by order of the masters; the disk is asked what it has
//   continued   its last epoch start is in the primary's history: it gets what it lacks
//   over        otherwise it starts from nothing; what it gets carries the present epoch
//   counted     it is near the end of the log: from now on every write waits for it too
//   ready       it has all that was in the log when it began to count; the masters may make it a
//               member, with the next epoch. It counts until then, as nobody can say whether the
//               masters' decision is on its way.

package import Base

/// How far a learner is.
package struct LearnerProgress: Hashable, Sendable {
    package var disk: DiskID
    /// The last record that is on its disk.
    package var durable: RecordNumber
    /// Every write waits for it.
    package var isCounted: Bool
    /// It may become a member.
    package var isReady: Bool
}

extension SetReplica {
    // MARK: the primary of a learner

    mutating func fill(_ epoch: Epoch, _ learner: DiskID) {
        guard epoch == promised, phase == .serving, position(of: learner) == nil,
            configuration?.members.contains(learner) == false,
            !peers.contains(where: { $0.isLearner && $0.isCounted })
        else { return }
        peers.removeAll { $0.isLearner }
        wantsCopyBudget = false
        peers.append(Peer(disk: learner, isLearner: true, heard: now))
        askLearner(peers.count - 1)
    }

    mutating func askLearner(_ index: Int) {
        guard let configuration else { return }
        peers[index].state = nil
        peers[index].hasBegun = false
        peers[index].isStrained = false
        send(
            .query(configuration, incarnation: incarnation, after: .none), to: peers[index].disk)
        schedule(index, after: Limits.replicaRetry)
    }

    /// It did not say what it has, or is silent since: its process may be a new one.
    func isLost(_ peer: Peer) -> Bool { peer.state == nil || isSilent(peer) }

    /// It owes an answer, and several beacons brought none (C7).
    private func isSilent(_ peer: Peer) -> Bool {
        let owes: Bool
        switch phase {
        case .asking: owes = peer.state == nil
        case .reconciling, .serving:
            owes =
                !peer.hasBegun
                || peer.acknowledged < prepared && peer.pause >= Limits.silentBeacon
        default: owes = false
        }
        return owes && now - peer.heard >= Limits.memberSilence
    }

    mutating func takeLearnerState(_ state: ReplicaState, _ index: Int) {
        guard phase == .serving, peers[index].state == nil else { return }
        peers[index].state = state
        sendBegin(index)
    }

    /// Whether a learner's log is the start of this one, but for what later starts kill. A copy
    /// that started over vouches only for what came after. One that is far behind starts over:
    /// the trims and drops that it lacks may be known here only by what they left.
    func isContinuous(_ state: ReplicaState) -> Bool {
        guard let last = starts.last else { return false }
        // It began in this very epoch: over or not, that is decided.
        if state.adopted == last.configuration.epoch { return true }
        if committed.rawValue > state.durable.rawValue + UInt64(Limits.preparedRecords) {
            return false
        }
        let trusted = starts.lastIndex(where: \.startsOver).map { starts[$0...] } ?? starts[...]
        return trusted.contains {
            $0.configuration.epoch == state.adopted && $0.keepThrough == state.kept
        }
    }

    /// Lets writes wait for a learner that is near the end.
    mutating func countLearner(_ index: Int) {
        guard phase == .serving, peers[index].isLearner, peers[index].hasBegun,
            !peers[index].isCounted,
            prepared.rawValue - peers[index].acknowledged.rawValue <= Self.nearEnd
        else { return }
        peers[index].isCounted = true
        peers[index].countedFrom = prepared
    }
    private static var nearEnd: UInt64 { UInt64(Limits.preparedRecords / 8) }

    /// The learner of this primary.
    package var learner: LearnerProgress? {
        guard isServing, let peer = peers.first(where: \.isLearner) else { return nil }
        return LearnerProgress(
            disk: peer.disk, durable: peer.acknowledged, isCounted: peer.isCounted,
            isReady: peer.isCounted && peer.hasBegun && peer.acknowledged >= peer.countedFrom)
    }

    /// Members that owe this primary an answer for too long (C7).
    package var silent: [DiskID] {
        isPrimary ? peers.filter { $0.isVoter && isSilent($0) }.map(\.disk) : []
    }

    // MARK: a learner

    /// It answers only with what is on its disk, so it may go on in the epoch of an earlier run.
    mutating func resumeLearning() {
        guard phase == .waiting || phase == .following, isLearner else { return }
        phase = .joining
    }

    mutating func follow() {
        phase = .following
        commitAnnounced()
        acknowledge()
    }

    /// The set lives elsewhere: this copy is emptied by a start of that epoch (C14). Should it
    /// become a learner again it starts over, or goes on from nothing in that very epoch.
    mutating func discard(_ next: SetConfiguration) {
        guard next.set == set, !next.members.contains(disk), !isAppending,
            next.epoch > promised || next.epoch == promised && phase == .waiting,
            next.epoch > startedIn, next.epoch > starts.last?.configuration.epoch ?? .none
        else { return }
        resign()
        promised = next.epoch
        configuration = next
        phase = .waiting
        question = nil
        appendStart(EpochStart(configuration: next, keepThrough: .none, startsOver: true))
    }

    /// This copy starts from nothing (C9).
    mutating func startOver() {
        starts.removeFirst(starts.count - 1)
        prepared = .none
        durable = .none
        committed = .none
        announced = .none
        repairs = []
        for index in 0..<appended.count {
            if case .record = appended[index].what { appended[index].what = .record(.none) }
        }
    }

    /// A record of another copy as this one may have it: a copy that started over has all that it
    /// kept under the epoch in which it did.
    func adapted(_ record: Record) -> Record? {
        var record = record
        if let over = starts.last(where: \.startsOver)?.configuration.epoch, record.epoch < over {
            record.epoch = over
        }
        return isAlive(record) ? record : nil
    }

    // MARK: leases

    /// The primary may answer reads: all others granted it the time (C11). To be asked again
    /// after the data was read.
    package func hasLease(now: Instant) -> Bool {
        isServing && peers.allSatisfy { $0.isLearner || now < $0.leaseUntil }
    }

    mutating func wantLease() {
        guard isServing else { return }
        keepLeaseWanted(now: now)
    }
    /// A read was answered: the lease is worth keeping up. The timer runs already.
    package mutating func keepLeaseWanted(now: Instant) { leaseWanted = now + Limits.leaseIdle }

    var keepsLease: Bool { phase == .serving && leaseWanted > now && !peers.isEmpty }

    /// Asks in time, and not at all while nobody reads.
    mutating func keepLease() {
        guard keepsLease, leaseDue <= now else { return }
        leaseDue = now + Limits.leaseBeacon
        for peer in peers where !peer.isLearner { send(.lease(now), to: peer.disk) }
    }

    mutating func takeLease(_ sent: Instant, from sender: DiskID) {
        guard phase == .serving, sent <= now, let index = position(of: sender) else { return }
        peers[index].leaseUntil = max(peers[index].leaseUntil, sent + Limits.lease)
    }

    mutating func giveLease(_ sent: Instant, to sender: DiskID) {
        guard phase == .following, sender == configuration?.primary else { return }
        grant(sender, from: now)
        send(.granted(sent), to: sender)
    }

    mutating func grant(_ primary: DiskID, from now: Instant) {
        grants.removeAll { $0.primary == primary || $0.until <= now }
        guard primary != disk else { return }
        grants.append(OpenGrant(primary: primary, until: now + Limits.grant))
    }

    /// What it granted and still holds; an older primary that is gone longer cannot answer.
    var openGrants: [Grant] {
        grants.filter { $0.until > now }.suffix(Limits.members).map {
            Grant(primary: $0.primary, remaining: $0.until - now)
        }
    }

    /// Waits for the leases of older primaries; a member of the new epoch has given its own up
    /// when it answered the query.
    mutating func waitOut(_ grants: [Grant]) {
        guard let configuration else { return }
        for grant in grants where !configuration.members.contains(grant.primary) {
            servesFrom = max(servesFrom, now + grant.remaining)
        }
    }
}
