// Time in a `SetReplica`, seen from outside: a small-scope exploration merges the states that
// differ only in when something is due.

import Base

extension SetReplica {
    /// Moves it to the origin of time, where all that it means to send again is due with the next
    /// event, beacons above all. A member that owes an answer counts as silent once
    /// `Limits.memberSilence` is over. Nobody counts as slow. With `leases`, what it was granted,
    /// granted and waits for is over as well (C11).
    package mutating func forgetTimes(leases: Bool) {
        now = .zero
        retryAt = .zero
        complained = nil
        ownDelay = AnswerDelay()
        copyBudget = .max / 2
        wantsCopyBudget = false
        passed = .none
        for index in repairs.indices {
            repairs[index].due = .zero
            repairs[index].attempts = 0
        }
        for index in peers.indices {
            peers[index].beaconAt = peers[index].beaconAt.map { _ in .zero }
            peers[index].pause = Limits.silentBeacon
            peers[index].rewound = nil
            peers[index].heard = .zero
            peers[index].delay = AnswerDelay()
            // It only says when the next beacon is due.
            peers[index].told = .none
            if leases { peers[index].leaseUntil = .zero }
            peers[index].state?.grants.removeAll()
        }
        guard leases else { return }
        grants = []
        servesFrom = .zero
        leaseWanted = .zero
        leaseDue = .zero
    }
}
