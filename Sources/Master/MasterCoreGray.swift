// Gray disks: they work, and so slowly that every write waits for them (C21, S11). The primary of
// a set times its members and itself; the leader decides.
//
//   a primary reports a member             the leader
//   slow for `slowWindows` in a row        calls the disk gray, for `grayPause`; it leaves the set
//                                          as a dead one does (C7), and another takes its place
//   slow once, and the disk is gray        lets it leave this set too
//   slow, as half of the members are       does nothing: all are slow, or the primary's own links
//
// A gray disk stays in the sets that it does not delay, and gets nothing new. When the pause is
// over it is like any other; if it is called gray again soon, the pause is twice as long.
//
// Invariants:
//  1. Disks are called gray only while they are fewer than a third, and enough others stay for
//     new sets: a cell that is slow as a whole goes on.
//  2. What is known of gray disks is soft: a new leader learns it anew.

import Base
import Namespace
import Node
import Placement
import Wire

/// Why, and for how long, a disk gets nothing new.
struct GrayDisk: Hashable, Sendable {
    var disk: DiskID
    var until: Instant
    /// How long it was called gray for.
    var pause: Interval
}

extension MasterCore {
    /// Whether the disk was called gray, and its time is not over.
    func isGray(_ disk: DiskID) -> Bool {
        lead?.gray.contains { $0.disk == disk && time.now < $0.until } ?? false
    }

    /// Looks through what the primaries say.
    mutating func watchDelays() {
        guard lead != nil else { return }
        // After a while without a fault the next pause is a short one again.
        let now = time.now
        lead?.gray.removeAll { now >= $0.until + $0.pause }
        for index in lead?.sets.states.indices ?? 0..<0 {
            guard let state = lead?.sets.states[index] else { continue }
            for member in slowMembers(of: state.record.configuration)
            where Int(member.windows) >= Limits.slowWindows && !isGray(member.disk) {
                callGray(member.disk, in: state.id)
            }
        }
    }

    /// Members, or a learner, that delay the writes of a set, if they are the exception.
    func slowMembers(of configuration: SetConfiguration) -> [SlowMember] {
        guard let primary = replica(configuration.set, configuration.primary),
            primary.epoch == configuration.epoch, primary.isServing
        else { return [] }
        let waitedFor =
            configuration.members.count + (primary.learner?.isCounted == true ? 1 : 0)
        guard primary.slow.count * 2 < waitedFor else { return [] }
        return primary.slow
    }

    private mutating func callGray(_ disk: DiskID, in set: SetID) {
        let others = namespace.diskRecords.filter {
            $0.id != disk && isUp($0) && !isGray($0.id)
        }
        let gray = namespace.diskRecords.count { isGray($0.id) }
        guard gray * 3 < namespace.diskRecords.count(where: { isUp($0) }),
            Set(others.map(\.server)).count >= PlacementPolicy.minimum(goal: configuration.goal)
        else { return }
        var pause = configuration.grayPause
        if let old = lead?.gray.first(where: { $0.disk == disk }) {
            pause = min(old.pause * 2, configuration.grayPause * 1 << Limits.grayDoublings)
        }
        lead?.gray.removeAll { $0.disk == disk }
        lead?.gray.append(GrayDisk(disk: disk, until: time.now + pause, pause: pause))
        report(
            "disk \(disk) delays writes of set \(set): it gets nothing new for "
                + "\(pause.nanoseconds / 1_000_000_000) s",
            isAlarm: true)
    }

    /// Those of the members that stay when the slow ones leave, as far as enough do.
    func withoutGray(
        _ members: [DiskID], of configuration: SetConfiguration
    ) -> [DiskID] {
        let gray = slowMembers(of: configuration).map(\.disk).filter(isGray)
        return gray.reduce(members) { members, disk in
            let left = members.filter { $0 != disk }
            return left.count >= Int(configuration.minMembers) ? left : members
        }
    }
}
