// What an operator should know of a cell: findings with codes that do not change, the worst first.
// The rules behind `martlet health`; docs/OPERATIONS.md lists the codes.

package import Base

/// The facts that health is judged by.
package struct HealthFacts: Sendable {
    /// A master as the leader sees it.
    package struct Master: Hashable, Sendable {
        package var id: MasterID
        package var isUp: Bool
        /// Its log is damaged: it does not vote.
        package var hasRot: Bool

        /// All fields at once.
        package init(id: MasterID, isUp: Bool, hasRot: Bool) {
            self.id = id
            self.isUp = isUp
            self.hasRot = hasRot
        }
    }
    /// What a scrub knows of a disk.
    package struct Scrubbed: Hashable, Sendable {
        package var disk: DiskID
        package var damaged: UInt64
        package var disputed: UInt64
        /// Records that were ever found damaged.
        package var everDamaged: UInt64

        /// All fields at once.
        package init(disk: DiskID, damaged: UInt64, disputed: UInt64, everDamaged: UInt64 = 0) {
            self.disk = disk
            self.damaged = damaged
            self.disputed = disputed
            self.everDamaged = everDamaged
        }
    }
    package var goal: Int
    package var masters: [Master]
    package var view: ClusterView
    package var scrubbed: [Scrubbed]
    /// Servers whose disk is older than it is known, or a copy.
    package var refused: [ServerID]
    /// Disks that are known, and that their server, which is up, does not report.
    package var lost: [DiskID]
    package var sets: [CheckedSet]
    /// Sets whose primary does not serve.
    package var idle: [SetID]
    /// Sets that disks have and the masters don't know.
    package var unknown: [SetID]
    /// Sets that are as a dump says, and wait for an operator.
    package var held: [SetID]
    /// Sets whose copy is to be made, and nothing can make it now.
    package var blocked: [SetID]

    /// All fields at once.
    package init(
        goal: Int, masters: [Master], view: ClusterView, scrubbed: [Scrubbed],
        refused: [ServerID] = [], lost: [DiskID] = [], sets: [CheckedSet], idle: [SetID],
        unknown: [SetID], held: [SetID] = [], blocked: [SetID]
    ) {
        self.goal = goal
        self.masters = masters
        self.view = view
        self.scrubbed = scrubbed
        self.refused = refused
        self.lost = lost
        self.sets = sets
        self.idle = idle
        self.unknown = unknown
        self.held = held
        self.blocked = blocked
    }
}

/// Something that an operator should know.
package struct HealthFinding: Hashable, Sendable {
    /// How bad it is.
    package enum Severity: String, Hashable, Sendable {
        case warning = "WARNING"
        /// Data can't be read, or not written.
        case critical = "CRITICAL"
    }
    /// What it is; critical ones first. The names are part of the interface.
    package enum Code: String, Hashable, Sendable, CaseIterable {
        case noQuorum = "NO_QUORUM"
        case setsHeld = "SETS_HELD"
        case mastersLostState = "MASTERS_LOST_STATE"
        case setUnavailable = "SET_UNAVAILABLE"
        case setNotServing = "SET_NOT_SERVING"
        case noPlace = "NO_PLACE"
        case masterDown = "MASTER_DOWN"
        case masterDamaged = "MASTER_DAMAGED"
        case serverDown = "SERVER_DOWN"
        case serverRefused = "SERVER_REFUSED"
        case diskFailed = "DISK_FAILED"
        case diskLost = "DISK_LOST"
        case diskWorn = "DISK_WORN"
        case diskFull = "DISK_FULL"
        case diskNearlyFull = "DISK_NEARLY_FULL"
        case tooFewPlaces = "TOO_FEW_PLACES"
        case setUnderReplicated = "SET_UNDER_REPLICATED"
        case copyIncomplete = "COPY_INCOMPLETE"
        case copiesMisplaced = "COPIES_MISPLACED"
        case copyingBlocked = "COPYING_BLOCKED"
        case damagedRecords = "DAMAGED_RECORDS"
        case copiesDisputed = "COPIES_DISPUTED"

        /// The same for every finding with the code.
        package var severity: Severity {
            switch self {
            case .noQuorum, .setsHeld, .mastersLostState, .setUnavailable, .setNotServing,
                .noPlace:
                .critical
            default: .warning
            }
        }
    }
    package var code: Code
    /// Whom it is about; ascending, most of them empty.
    package var masters: [MasterID] = []
    package var servers: [ServerID] = []
    package var disks: [DiskID] = []
    package var sets: [SetID] = []
    /// Of damage: how much.
    package var count: UInt64 = 0
}

/// See the head of this file.
package enum CellHealth {
    /// Everything that is found, by code: at most one finding of each.
    package static func findings(_ facts: HealthFacts) -> [HealthFinding] {
        let all = masters(facts) + servers(facts) + space(facts) + sets(facts) + scrub(facts)
        let ranks = HealthFinding.Code.allCases
        return all.sorted {
            ranks.firstIndex(of: $0.code) ?? 0 < ranks.firstIndex(of: $1.code) ?? 0
        }
    }

    private static func masters(_ facts: HealthFacts) -> [HealthFinding] {
        let down = facts.masters.filter { !$0.isUp }.map(\.id)
        let damaged = facts.masters.filter { $0.isUp && $0.hasRot }.map(\.id)
        var found: [HealthFinding] = []
        if !down.isEmpty { found.append(HealthFinding(code: .masterDown, masters: down)) }
        if !damaged.isEmpty { found.append(HealthFinding(code: .masterDamaged, masters: damaged)) }
        return found
    }

    /// A disk has failed where it said so, or where other disks of its process go on without it.
    private static func servers(_ facts: HealthFacts) -> [HealthFinding] {
        let view = facts.view
        let living = Set(view.servers.filter(\.isUp).map(\.id.unit))
        let said = Set(view.disks.filter(\.hasFailed).map(\.server))
        let failed = view.servers.filter { server in
            said.contains(server.id) || !server.isUp && living.contains(server.id.unit)
        }.map(\.id)
        let down = view.servers.filter { server in
            !server.isUp && !failed.contains(server.id) && !facts.refused.contains(server.id)
        }.map(\.id)
        let lists: [(HealthFinding.Code, [ServerID])] = [
            (.serverDown, down), (.serverRefused, facts.refused), (.diskFailed, failed),
        ]
        var found = lists.filter { !$0.1.isEmpty }.map {
            HealthFinding(code: $0.0, servers: $0.1)
        }
        if !facts.lost.isEmpty {
            found.append(HealthFinding(code: .diskLost, disks: facts.lost.sorted()))
        }
        return found
    }

    private static func space(_ facts: HealthFacts) -> [HealthFinding] {
        let view = facts.view
        let present = view.disks.filter { disk in
            !disk.hasFailed && view.server(disk.server)?.isUp ?? false
        }
        let full = present.filter {
            // A disk that is drained is to become empty, however full it is.
            view.obstacle($0.id) == .isFull
        }.map(\.id)
        let nearly = present.filter {
            !full.contains($0.id) && $0.usedPercent >= Limits.nearlyFullPercent
        }.map(\.id)
        let usable = view.disks.filter { view.obstacle($0.id) == nil }
        let units = Set(usable.compactMap { view.server($0.server)?.id.unit }).count
        var found: [HealthFinding] = []
        if !full.isEmpty { found.append(HealthFinding(code: .diskFull, disks: full)) }
        if !nearly.isEmpty { found.append(HealthFinding(code: .diskNearlyFull, disks: nearly)) }
        if usable.count < PlacementPolicy.minimum(goal: facts.goal) {
            found.append(HealthFinding(code: .noPlace, count: UInt64(usable.count)))
        } else if units < facts.goal {
            found.append(HealthFinding(code: .tooFewPlaces, count: UInt64(units)))
        }
        return found
    }

    private static func sets(_ facts: HealthFacts) -> [HealthFinding] {
        let checked = CellCheck.findings(
            facts.sets, goal: facts.goal, unknown: facts.unknown, in: facts.view)
        func sets(_ kinds: Set<CheckFinding.Kind>) -> [SetID] {
            Set(checked.filter { kinds.contains($0.kind) }.map(\.set)).sorted()
        }
        let missing = sets([.missing])
        let lists: [(HealthFinding.Code, [SetID])] = [
            (.setsHeld, facts.held), (.mastersLostState, sets([.newer, .unknown])),
            (.setUnavailable, missing),
            (.setNotServing, facts.idle.filter { !missing.contains($0) }),
            (.setUnderReplicated, sets([.under])),
            (.copyIncomplete, sets([.absent, .stale])), (.copiesMisplaced, sets([.misplaced])),
            (.copyingBlocked, facts.blocked),
        ]
        return lists.filter { !$0.1.isEmpty }.map { HealthFinding(code: $0.0, sets: $0.1) }
    }

    private static func scrub(_ facts: HealthFacts) -> [HealthFinding] {
        func finding(
            _ code: HealthFinding.Code, _ count: (HealthFacts.Scrubbed) -> UInt64,
            from least: UInt64 = 1
        ) -> [HealthFinding] {
            let hit = facts.scrubbed.filter { count($0) >= least }
            guard !hit.isEmpty else { return [] }
            return [
                HealthFinding(
                    code: code, disks: hit.map(\.disk).sorted(),
                    count: hit.reduce(0) { $0 + count($1) })
            ]
        }
        return finding(.damagedRecords, \.damaged) + finding(.copiesDisputed, \.disputed)
            + finding(.diskWorn, \.everDamaged, from: Limits.wornRecords)
    }
}
