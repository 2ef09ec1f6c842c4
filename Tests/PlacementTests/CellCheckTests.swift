// What fsck finds in a cell.

import Base
import Placement
import Testing

@Suite struct CellCheckTests {
    private func disk(_ number: UInt64) -> DiskID { DiskID(rawValue: number) }

    /// Servers 1 to 4 on hosts of their own, but for 3 and 4 which share one; `down` are down.
    private func view(down: [UInt64] = []) -> ClusterView {
        ClusterView(
            servers: (1...4 as ClosedRange<UInt64>).map {
                ClusterView.Server(
                    id: ServerID(rawValue: $0), host: "host\(min($0, 3))", rack: "",
                    isUp: !down.contains($0))
            },
            disks: (1...4 as ClosedRange<UInt64>).map {
                ClusterView.Disk(
                    id: disk($0), server: ServerID(rawValue: $0), capacity: 100, used: 10)
            }, sets: [])
    }

    private func set(
        _ members: [UInt64], copies: [(UInt64, UInt64)], rot: UInt64? = nil,
        learner: UInt64? = nil
    ) -> CheckedSet {
        CheckedSet(
            configuration: SetConfiguration(
                set: SetID(rawValue: 9), epoch: Epoch(rawValue: 5), primary: disk(members[0]),
                members: members.map(disk)), chunks: 7,
            copies: copies.map {
                CheckedSet.Copy(
                    disk: disk($0.0), epoch: Epoch(rawValue: $0.1), hasContent: true,
                    hasRot: $0.0 == rot)
            }, learner: learner.map(disk))
    }

    private func check(
        _ set: CheckedSet, goal: Int = 3, down: [UInt64] = [], unknown: [UInt64] = []
    ) -> [String] {
        CellCheck.findings(
            [set], goal: goal, unknown: unknown.map { SetID(rawValue: $0) }, in: view(down: down)
        ).map { "\($0.kind) \($0.disk.map { "\($0)" } ?? "-")" }
    }

    @Test("A whole set has no findings; each thing that can be wrong has its own")
    func kinds() {
        let whole = [(1, 5), (2, 5), (3, 5)] as [(UInt64, UInt64)]
        #expect(check(set([1, 2, 3], copies: whole)) == [])
        #expect(check(set([1, 2, 3], copies: whole), down: [2]) == ["unavailable 2"])
        #expect(check(set([1, 2, 3], copies: whole), unknown: [8]) == ["unknown -"])
        #expect(check(set([1, 2, 3], copies: whole, rot: 2)) == ["damaged 2"])
        #expect(check(set([1, 2], copies: Array(whole[..<2]))) == ["under -"])
        #expect(check(set([1, 2, 3], copies: whole), goal: 2) == ["over -"])
        #expect(check(set([1, 2, 3], copies: [(1, 5), (2, 4), (3, 5)])) == ["stale 2"])
        #expect(check(set([1, 2, 3], copies: [(1, 5), (3, 5)])) == ["absent 2"])
        #expect(check(set([1, 2, 3], copies: [(1, 5), (2, 6), (3, 5)])) == ["newer 2"])
        #expect(check(set([1, 2, 3], copies: whole + [(4, 3)])) == ["orphan 4"])
        #expect(check(set([1, 2, 3], copies: whole + [(4, 3)]), down: [4]) == [])
        #expect(check(set([1, 2, 3], copies: whole + [(4, 5)], learner: 4)) == [])
        var kept = set([1, 2, 3], copies: whole + [(4, 3)])
        kept.keepsTrash = true
        #expect(check(kept) == [] && kept.strays.map(\.disk) == [disk(4)])
        #expect(
            check(set([1, 2, 3], copies: whole), down: [1, 2, 3])
                == ["missing -", "unavailable 1", "unavailable 2", "unavailable 3"])
        #expect(
            check(set([1, 2], copies: []), goal: 2) == ["missing -", "absent 1", "absent 2"])
    }

    @Test("Members on one host are misplaced only while another host is free")
    func misplaced() {
        let copies = [(1, 5), (3, 5), (4, 5)] as [(UInt64, UInt64)]
        let found = CellCheck.findings(
            [set([1, 3, 4], copies: copies)], goal: 3, unknown: [], in: view())
        #expect(found.map(\.kind) == [.misplaced])
        #expect(found.first?.disk == disk(4) && found.first?.better == disk(2))
        #expect(check(set([1, 3, 4], copies: copies), down: [2]) == [])
    }
}
