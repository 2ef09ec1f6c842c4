// What concerns configurations in a leadership: whose votes count, stop entries, and the end of it
// in favour of another master (M17, M18, S11).

import Base

/// A stop entry of the log.
struct StopEntry: Hashable {
    var slot: Slot
    var membership: Membership
}

/// A master that is asked to take over.
struct Handover: Hashable {
    var to: MasterID
    var since: Instant
}

/// Logs are compared by ballot, then length (M2).
struct LogRank: Comparable {
    var accepted: Ballot
    var end: Slot
    static func < (left: LogRank, right: LogRank) -> Bool {
        (left.accepted, left.end) < (right.accepted, right.end)
    }
}

extension Leader {
    /// How a log ranks among those of a majority. One of an earlier configuration has nothing that
    /// this leader does not know to be chosen.
    func rank(_ state: PromiseState) -> LogRank {
        guard state.accepted.configuration == ballot.configuration else {
            return LogRank(accepted: .none, end: .none)
        }
        return LogRank(accepted: state.accepted, end: state.end)
    }

    /// Asks a master for its promise.
    func ask(_ id: MasterID, _ acceptor: Acceptor, _ effects: inout [PaxosEffect]) {
        effects.append(.send(id, .prepare(ballot, acceptor.started)))
    }

    /// Up to where a quorum of these masters has the log on its disks, in this ballot.
    func durable(in membership: Membership, _ acceptor: Acceptor) -> Slot {
        let votes = membership.voters.map { voter -> Slot in
            if voter.id == ballot.node { return acceptor.durable }
            guard let follower = followers.first(where: { $0.id == voter.id }),
                membership.hasVote(voter.id, on: follower.disk)
            else { return .none }
            return follower.durable
        }.sorted(by: >)
        return votes[membership.quorum - 1]
    }

    /// Learners came or went.
    mutating func follow(_ next: Membership, now: Instant) {
        membership = next
        followers = next.members.filter { $0.id != ballot.node }.map { member in
            followers.first { $0.id == member.id } ?? Follower(id: member.id, lastProgress: .zero)
        }
    }

    /// Whether a master follows the log closely.
    func isInStep(_ id: MasterID, _ acceptor: Acceptor) -> Bool {
        if id == ballot.node { return true }
        guard let follower = followers.first(where: { $0.id == id }) else { return false }
        return follower.state == .streaming
            && follower.durable.rawValue + Limits.learnerLag >= acceptor.log.end.rawValue
    }

    /// Goes on with a hand-over: the other one takes over when it has everything.
    func handOver(_ acceptor: Acceptor, _ effects: inout [PaxosEffect]) {
        guard let handover, let follower = followers.first(where: { $0.id == handover.to }),
            follower.durable == acceptor.log.end
        else { return }
        effects.append(.send(handover.to, .lead(ballot)))
    }
}
