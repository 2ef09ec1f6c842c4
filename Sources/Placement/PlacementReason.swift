// Why a placement was chosen: kept beside the choice, for people who ask.

package import Base

/// The members of a new set.
package struct MemberChoice: Hashable, Sendable {
    /// In ascending order.
    package var members: [DiskID]
    package var primary: DiskID
    package var reason: MemberReason
}

/// How far a member is from those chosen before it.
package enum Separation: Int, Hashable, Sendable, Comparable {
    case otherDisk = 0
    case otherServer = 1
    case otherHost = 2
    case otherRack = 3

    /// Less separated first.
    package static func < (left: Separation, right: Separation) -> Bool {
        left.rawValue < right.rawValue
    }
}

/// Why these members.
package struct MemberReason: Hashable, Sendable, CustomStringConvertible {
    /// How one member was found.
    package struct Pick: Hashable, Sendable {
        package var disk: DiskID
        package var separation: Separation
        /// Disks that were as well separated.
        package var candidates: Int
        package var usedPercent: Int
        package var loadClass: Int
        /// The other disk of the draw, if it was another one.
        package var preferredTo: DiskID?
    }
    package var goal: Int
    /// In the order in which they were chosen.
    package var picks: [Pick]
    /// Open sets that have the chosen primary as primary already.
    package var primaries: Int

    /// One line for people.
    package var description: String {
        let members = picks.map { pick in
            let domain =
                switch pick.separation {
                case .otherRack: "another rack"
                case .otherHost: "another host"
                case .otherServer: "another server of the same host"
                case .otherDisk: "another disk of the same server"
                }
            let other = pick.preferredTo.map { ", preferred to disk \($0)" } ?? ""
            return "disk \(pick.disk) (\(domain), 1 of \(pick.candidates), "
                + "\(pick.usedPercent) % used, load \(pick.loadClass)\(other))"
        }
        return "\(picks.count) of goal \(goal): \(members.joined(separator: ", ")); "
            + "the primary leads \(primaries) open sets"
    }
}

/// The set of a new chunk.
package struct SetChoice: Hashable, Sendable {
    package var set: SetID
    package var reason: SetReason
}

/// Why this set.
package struct SetReason: Hashable, Sendable, CustomStringConvertible {
    package var set: SetID
    package var members: Int
    package var goal: Int
    /// Of its fullest member.
    package var usedPercent: Int
    /// Of its busiest member, or its own.
    package var loadClass: Int
    /// A member is much slower than most disks.
    package var isSlow = false
    /// The other set of the draw, if it was another one.
    package var preferredTo: SetID?

    /// One line for people.
    package var description: String {
        let other = preferredTo.map { ", preferred to set \($0)" } ?? ""
        return "set \(set) with \(members) of \(goal) members, fullest \(usedPercent) % used, "
            + "load \(loadClass)\(isSlow ? ", a slow member" : "")\(other)"
    }
}
