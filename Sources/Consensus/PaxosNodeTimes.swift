// For exploration, where time stands still and whoever wants to lead tries: safety must not depend
// on when that is (S1).

package import Base

extension PaxosNode {
    /// It has a vote where it acts, and neither leads nor tries to.
    package var isCandidate: Bool { mayLead && !isLeadingOrTrying }

    /// A candidate tries to lead at once, whatever it knows of the others. `wall`: what its Begin
    /// will say.
    package mutating func lead(wall: Timestamp) -> [PaxosEffect] {
        precondition(isCandidate, "who has no vote does not lead")
        var effects = step(.tick(wall), now: .zero)
        takeOver(now: .zero, &effects)
        return effects
    }

    /// A leader gives its learner a vote although nobody knows whether it follows (M17).
    package mutating func promoteLearner() -> [PaxosEffect] {
        guard isOpen, let learner = membership.learner else { return [] }
        var effects: [PaxosEffect] = []
        leader?.propose(membership.promoting(learner.id), &acceptor, &effects)
        return effects + step(.tick(.zero), now: .zero)
    }

    /// Forgets everything that only decides when it tries to lead.
    package mutating func forgetTimes() { election.forgetTimes() }
}
