// Whether servers can be stopped without anybody waiting for them.

package import Base

/// What would happen to a set.
package struct StopProblem: Hashable, Sendable {
    package var set: SetID
    /// Members that would be left, up and sound.
    package var left: Int
    /// With fewer nothing is written.
    package var needed: Int

    /// All fields at once.
    package init(set: SetID, left: Int, needed: Int) {
        self.set = set
        self.left = left
        self.needed = needed
    }
}

/// See the head of this file.
package enum StopCheck {
    /// The sets that would have too few members to go on without these disks; `isSound` says
    /// whether a member is up and has everything now.
    package static func problems(
        stopping disks: Set<DiskID>, sets: [SetConfiguration], isSound: (SetID, DiskID) -> Bool
    ) -> [StopProblem] {
        sets.compactMap { set in
            guard set.members.contains(where: disks.contains) else { return nil }
            let left = set.members.count { !disks.contains($0) && isSound(set.set, $0) }
            let needed = max(1, Int(set.minMembers))
            return left < needed ? StopProblem(set: set.set, left: left, needed: needed) : nil
        }
    }
}
