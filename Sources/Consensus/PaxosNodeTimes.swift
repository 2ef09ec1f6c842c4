// For exploration, where time stands still and whoever wants to lead tries: safety must not depend
// on when that is (S1).

package import Base

extension PaxosNode {
    /// Tries to lead at once, whatever it knows of the others; nothing where it does not vote, or
    /// leads or tries already. `wall`: what its Begin will say.
    package mutating func lead(wall: Timestamp) -> [PaxosEffect] {
        guard !hasRot, !isLeadingOrTrying else { return [] }
        var effects = step(.tick(wall), now: .zero)
        takeOver(now: .zero, &effects)
        return effects
    }

    /// Forgets everything that only decides when it tries to lead.
    package mutating func forgetTimes() { election.forgetTimes() }
}
