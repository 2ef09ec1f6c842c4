// What health finds in a cell: one finding for each thing that can be wrong, and no other.

import Base
import Placement
import Testing

@Suite struct CellHealthTests {
    private func disk(_ number: UInt64) -> DiskID { DiskID(rawValue: number) }
    private func server(_ number: UInt64) -> ServerID { ServerID(rawValue: number) }

    /// Four servers with a disk each on hosts of their own, three masters, one set on three disks.
    private func facts(
        used: [UInt64: UInt64] = [:], down: [UInt64] = [], failed: [UInt64] = [],
        draining: [UInt64] = [], members: [UInt64] = [1, 2, 3], epochs: [UInt64: UInt64] = [:]
    ) -> HealthFacts {
        let view = ClusterView(
            servers: (1...4 as ClosedRange<UInt64>).map {
                ClusterView.Server(
                    id: server($0), host: "host\($0)", rack: "", isUp: !down.contains($0),
                    isDraining: draining.contains($0))
            },
            disks: (1...4 as ClosedRange<UInt64>).map {
                ClusterView.Disk(
                    id: disk($0), server: server($0), capacity: 100, used: used[$0] ?? 10,
                    hasFailed: failed.contains($0))
            }, sets: [])
        let configuration = SetConfiguration(
            set: SetID(rawValue: 9), epoch: Epoch(rawValue: 5), primary: disk(members[0]),
            members: members.map(disk))
        let set = CheckedSet(
            configuration: configuration, chunks: 7,
            copies: members.map {
                CheckedSet.Copy(
                    disk: disk($0), epoch: Epoch(rawValue: epochs[$0] ?? 5), hasContent: true,
                    hasRot: false)
            })
        return HealthFacts(
            goal: 3,
            masters: (1...3 as ClosedRange<UInt16>).map {
                HealthFacts.Master(id: MasterID(rawValue: $0), isUp: true, hasRot: false)
            }, view: view, scrubbed: [], sets: [set], idle: [], unknown: [], blocked: [])
    }
    private func codes(_ facts: HealthFacts) -> [String] {
        CellHealth.findings(facts).map(\.code.rawValue)
    }

    @Test("A cell that is well has no findings")
    func well() { #expect(codes(facts()) == []) }

    @Test("Masters: down, damaged")
    func masters() {
        var facts = facts()
        facts.masters[1].isUp = false
        facts.masters[2].hasRot = true
        let found = CellHealth.findings(facts)
        #expect(found.map(\.code) == [.masterDown, .masterDamaged])
        #expect(found.map { $0.masters.map(\.rawValue) } == [[2], [3]])
        #expect(found.allSatisfy { $0.code.severity == .warning })
    }

    @Test("Servers and disks: down, failed, full, too few of them")
    func servers() {
        #expect(codes(facts(down: [4])) == ["SERVER_DOWN"])
        #expect(codes(facts(failed: [4])) == ["DISK_FAILED"])
        #expect(codes(facts(down: [4], failed: [4])) == ["DISK_FAILED"])
        #expect(codes(facts(used: [4: 96])) == ["DISK_FULL"])
        #expect(codes(facts(used: [4: 85])) == ["DISK_NEARLY_FULL"])
        #expect(codes(facts(used: [4: 84])) == [])
        #expect(codes(facts(used: [4: 96], draining: [4])) == ["DISK_NEARLY_FULL"])
        #expect(codes(facts(down: [4], draining: [3])) == ["SERVER_DOWN", "TOO_FEW_PLACES"])
        #expect(
            codes(facts(used: [1: 96, 2: 96, 3: 96])) == ["NO_PLACE", "DISK_FULL"])
    }

    @Test("A disk that is gone while another of its process goes on has failed")
    func alone() {
        var facts = facts()
        let second = server(4).disk(1)
        facts.view = ClusterView(
            servers: facts.view.servers + [
                ClusterView.Server(id: second, host: "host4", rack: "", isUp: false)
            ], disks: facts.view.disks, sets: [])
        let found = CellHealth.findings(facts)
        #expect(found.map(\.code) == [.diskFailed] && found.first?.servers == [second])
    }

    @Test("Sets: unreadable, closed to writing, too few copies, old ones, unknown, blocked")
    func sets() {
        #expect(
            codes(facts(down: [1, 2, 3])).prefix(2) == ["SET_UNAVAILABLE", "NO_PLACE"])
        #expect(codes(facts(members: [1, 2])) == ["SET_UNDER_REPLICATED"])
        #expect(codes(facts(epochs: [2: 4])) == ["COPY_INCOMPLETE"])
        #expect(codes(facts(epochs: [2: 6])) == ["MASTERS_LOST_STATE"])
        var facts = facts()
        facts.idle = [SetID(rawValue: 9)]
        facts.blocked = [SetID(rawValue: 9)]
        #expect(codes(facts) == ["SET_NOT_SERVING", "COPYING_BLOCKED"])
        facts.idle = []
        facts.unknown = [SetID(rawValue: 8)]
        let found = CellHealth.findings(facts)
        #expect(found.map(\.code) == [.mastersLostState, .copyingBlocked])
        #expect(found[0].code.severity == .critical && found[0].sets == [SetID(rawValue: 8)])
    }

    @Test("Scrub: damage and disputes are counted over all disks")
    func scrub() {
        var facts = facts()
        facts.scrubbed = [
            HealthFacts.Scrubbed(disk: disk(3), damaged: 2, disputed: 0),
            HealthFacts.Scrubbed(disk: disk(1), damaged: 1, disputed: 4),
            HealthFacts.Scrubbed(disk: disk(2), damaged: 0, disputed: 0),
        ]
        let found = CellHealth.findings(facts)
        #expect(found.map(\.code) == [.damagedRecords, .copiesDisputed])
        #expect(found[0].disks == [disk(1), disk(3)] && found[0].count == 3)
        #expect(found[1].disks == [disk(1)] && found[1].count == 4)
    }

    @Test("Disks: refused, lost, worn")
    func disks() {
        var facts = facts(down: [2])
        facts.refused = [server(2)]
        facts.lost = [disk(7)]
        facts.scrubbed = (1...3 as ClosedRange<UInt64>).map {
            HealthFacts.Scrubbed(
                disk: disk($0), damaged: 0, disputed: 0,
                everDamaged: $0 == 3 ? Limits.wornRecords : Limits.wornRecords - 1)
        }
        // A server that is refused is not said to be down as well.
        let found = CellHealth.findings(facts).filter {
            [.serverDown, .serverRefused, .diskLost, .diskWorn].contains($0.code)
        }
        #expect(found.map(\.code) == [.serverRefused, .diskLost, .diskWorn])
        #expect(found[0].servers == [server(2)] && found[1].disks == [disk(7)])
        #expect(found[2].disks == [disk(3)] && found[2].count == Limits.wornRecords)
    }
}
