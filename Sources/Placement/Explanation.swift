// Why a copy is where it is, and what keeps every other disk away: the rules of PlacementPolicy,
// applied to the cell as it is now. What the draw was is not kept; it chose among equals.

package import Base

/// A member of a set and how far it is from the others.
package struct MemberPlace: Hashable, Sendable {
    package var disk: DiskID
    /// From the nearest other member; nil: the disk is not known, or has no other.
    package var separation: Separation?
    /// The member that it is nearest to.
    package var nearest: DiskID?
    package var usedPercent: Int
    /// Why nothing more goes there.
    package var obstacle: ClusterView.Obstacle?
}

/// What keeps a disk from being a member of a set.
package enum Absence: Hashable, Sendable {
    case obstacle(ClusterView.Obstacle)
    /// It is a worse place than every member is: it shares that with one.
    case shares(Separation, with: DiskID)
    /// It would do as well: the set has as many copies as it should elsewhere.
    case spare
    /// It would do, and the set lacks a copy.
    case candidate

    /// A few words for people.
    package var text: String {
        switch self {
        case .obstacle(let obstacle): obstacle.rawValue
        case .shares(.otherDisk, let disk): "is on the same server as the copy on disk \(disk)"
        case .shares(.otherServer, let disk): "is on the same host as the copy on disk \(disk)"
        case .shares(_, let disk): "is in the same rack as the copy on disk \(disk)"
        case .spare: "is as good a place; the set has all its copies"
        case .candidate: "may get the missing copy"
        }
    }
}

/// A disk without a copy.
package struct OtherPlace: Hashable, Sendable {
    package var disk: DiskID
    package var absence: Absence
}

/// See the head of this file.
package struct PlaceExplanation: Hashable, Sendable {
    package var members: [MemberPlace]
    /// All other disks, ascending.
    package var others: [OtherPlace]

    /// Explains a set.
    package init(members: [DiskID], goal: Int, in view: ClusterView) {
        func candidate(_ id: DiskID) -> PlacementPolicy.Candidate? {
            view.disk(id).flatMap { disk in view.server(disk.server).map { (disk, $0) } }
        }
        func nearest(
            _ place: PlacementPolicy.Candidate, _ others: [DiskID]
        ) -> (separation: Separation, disk: DiskID)? {
            others.compactMap { other in
                candidate(other).map { (PlacementPolicy.separation(place, [$0]), other) }
            }.min { $0 < $1 }
        }
        self.members = members.map { member in
            let place = candidate(member)
            let near = place.flatMap { nearest($0, members.filter { $0 != member }) }
            return MemberPlace(
                disk: member, separation: near?.separation, nearest: near?.disk,
                usedPercent: place?.disk.usedPercent ?? 0, obstacle: view.obstacle(member))
        }
        let worst = self.members.compactMap(\.separation).min() ?? .otherDisk
        others = view.disks.filter { !members.contains($0.id) }.map { disk in
            if let obstacle = view.obstacle(disk.id) {
                return OtherPlace(disk: disk.id, absence: .obstacle(obstacle))
            }
            let near = candidate(disk.id).flatMap { nearest($0, members) }
            let isShort = members.count < goal
            // A set that lacks a copy takes a worse place too, but never two on one server.
            if let near, near.separation < (isShort ? .otherServer : worst) {
                return OtherPlace(
                    disk: disk.id, absence: .shares(near.separation, with: near.disk))
            }
            return OtherPlace(disk: disk.id, absence: isShort ? .candidate : .spare)
        }
    }
}
