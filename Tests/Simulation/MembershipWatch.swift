// Who the masters are by the chosen log, and who has a vote (M17, M18).
//
// Checks:
//  closed       behind a stop entry nothing is chosen in the configuration that it ends
//  membership   each new configuration differs from the one before by one step
//  votes        what is chosen is accepted by a majority of the voters in force, on their disks;
//               a stop entry by a majority of both configurations

import Base
import Consensus

/// Sees every chosen entry once, in order.
final class MembershipWatch {
    private var byNumber: [UInt32: Membership] = [:]
    private(set) var current: Membership
    private(set) var reached: Set<String> = []
    /// Under which name every node votes, and how often it was wiped.
    private var disks: [DiskID]
    private var wipesOf: [Int]
    /// A master whose disk is gone, until it is replaced.
    private(set) var wiped: MasterID?
    /// Learners to whom a snapshot came.
    private var filled: Set<MasterID> = []

    init(founders: Membership, nodes: Int) {
        current = founders
        byNumber[founders.number] = founders
        wipesOf = Array(repeating: 0, count: nodes)
        disks = (0..<nodes).map { DiskID(rawValue: UInt64(100 + $0)) }
    }

    /// The name under which a node votes now.
    func disk(of place: Int) -> DiskID { disks[place] }
    /// Its log was damaged, and has another name.
    func rename(_ place: Int, _ disk: DiskID) { disks[place] = disk }
    func membership(_ number: UInt32) -> Membership? { byNumber[number] }
    /// An entry was chosen in the present configuration.
    private var hasBegun = false
    /// Whether the loss of one more disk is a fault that the masters must survive: until a
    /// configuration has begun, the disks of the one before count as well.
    var mayWipe: Bool {
        wiped == nil && hasBegun && current.learner == nil && current.voters.count >= 3
            && current.voters.allSatisfy { $0.disk != .none }
    }
    /// A snapshot came to a master.
    func filled(_ id: MasterID) {
        if current.learner?.id == id { filled.insert(id) }
    }
    func wipe(_ id: MasterID) {
        wiped = id
        let place = Int(id.rawValue) - 1
        wipesOf[place] += 1
        disks[place] = DiskID(rawValue: UInt64(100 + place + 1_000 * wipesOf[place]))
    }

    /// An entry was chosen; what is wrong with it, if anything.
    func chose(_ entry: PaxosEntry, leader: MasterID?) -> (check: String, detail: String)? {
        guard entry.ballot.configuration == current.number else {
            return (
                "closed",
                "slot \(entry.slot) of ballot \(entry.ballot) in configuration \(current.number)"
            )
        }
        hasBegun = true
        guard case .members(let next) = entry.content else { return nil }
        let (before, after) = (Set(current.voters.map(\.id)), Set(next.voters.map(\.id)))
        let isStop = next.number == current.number + 1
        guard isStop || next.number == current.number, isStop || before == after,
            before.symmetricDifference(after).count <= 2, after.count >= Int(next.least)
        else { return ("membership", "from \(current) to \(next)") }
        let new = after.subtracting(before)
        if !new.isEmpty { reached.insert("master-added") }
        if !new.isDisjoint(with: filled) { reached.insert("learner-with-snapshot-promoted") }
        let gone = before.subtracting(after)
        if !gone.isEmpty { reached.insert("master-removed") }
        if let leader, gone.contains(leader) { reached.insert("leader-removed-itself") }
        if let old = wiped, gone.contains(old) {
            wiped = nil
            reached.insert("wiped-master-replaced")
        }
        for voter in next.voters {
            guard let before = current[voter.id], before.disk != .none, before.disk != voter.disk
            else { continue }
            reached.insert(wiped == voter.id ? "wiped-master-voted-again" : "damage-left-behind")
            if wiped == voter.id { wiped = nil }
        }
        byNumber[next.number] = next
        current = next
        hasBegun = !isStop
        return nil
    }
}
