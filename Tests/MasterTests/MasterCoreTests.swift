// Whole masters, without sockets and disks.

import Base
import Consensus
import Master
import Node
import Testing
import Wire

@Suite struct MasterCoreTests {
    @Test("A cell answers, and goes on after the leader's death", arguments: [1, 3])
    func failover(masters: Int) throws {
        let group = MasterGroup(masters: masters)
        let session = try #require(group.openSession(7))
        let made = try #require(group.create(session, 1, "file"))
        let leader = try #require(group.leader)
        group.crash(leader)
        if masters == 1 { group.start(leader) }
        let began = group.now
        let found = group.query(.lookup(parent: .root, name: Array("file".utf8)))
        #expect(found == .entry(made))
        #expect(group.now - began < .milliseconds(1_200))
        // The same request again, at another leader: it happened once.
        let again = group.create(session, 1, "file")
        #expect(again?.inode == made.inode)
        let next = group.change(session, 2, .unlink(parent: .root, name: Array("file".utf8)))
        #expect(next == .done)
        #expect(group.halts.isEmpty && group.alarms.isEmpty)
    }

    @Test("All masters end in the same state, also after a restart from their logs")
    func convergence() throws {
        let group = MasterGroup(masters: 3, servers: 3)
        let session = try #require(group.openSession(7))
        for number in 1...40 as ClosedRange<UInt64> {
            _ = group.create(session, number, "file \(number)")
            if number == 20 { group.crash(try #require(group.leader)) }
        }
        for index in 0..<3 where group.cores[index] == nil { group.start(index) }
        group.run(milliseconds: 2_000)
        for index in 0..<3 {
            group.crash(index)
            group.start(index)
        }
        #expect(group.query(.statistics) != nil)
        // A tick could be on its way: wait until nothing is.
        let same = group.run { group in
            Set(group.cores.map { $0?.stateDigest }).count == 1 && group.leader != nil
        }
        #expect(same)
        #expect(group.status()?.files == 40)
    }

    @Test("A master that does not lead says who does")
    func hint() throws {
        let group = MasterGroup(masters: 3)
        let isLed = group.run { $0.leader != nil }
        #expect(isLed)
        group.run(milliseconds: 300)
        let leader = try #require(group.leader)
        let request = MetadataRequest(session: .none, query: .statistics)
        let reply = group.ask(request, of: (leader + 1) % 3)
        guard case .notLeader(let hint, let masters)? = reply else {
            Issue.record("a follower answered \(String(describing: reply))")
            return
        }
        #expect(hint == MasterID(rawValue: UInt16(leader + 1)))
        #expect(masters.voters.count == 3)
    }

    @Test("Sets are made for three servers, and one that is late does not cost a copy")
    func newSets() throws {
        let group = MasterGroup(masters: 3, servers: 3)
        group.servers[2].isUp = false
        group.run(milliseconds: 1_800)
        group.servers[2].isUp = true
        group.run(milliseconds: 1_000)
        let status = try #require(group.status())
        #expect(status.sets.total == 4 && status.sets.healthy == 4)
        #expect(status.servers.count == 3 && status.servers.allSatisfy(\.isUp))
    }

    @Test("Without the third server sets of two are made, of which status tells")
    func shortSets() throws {
        let group = MasterGroup(masters: 1, servers: 3)
        group.run(milliseconds: 500)
        group.servers[0].isUp = false
        group.run(milliseconds: 6_000)
        let status = try #require(group.status())
        // Those of three lose a member, and before that new ones of two are made.
        #expect(status.sets.underReplicated == status.sets.total)
        #expect(status.sets.waiting == 0)
        let session = try #require(group.openSession(7))
        let reply = group.change(
            session, 1,
            .create(
                parent: .root, name: [65], kind: .file, mode: 0o644, user: 0, group: 0,
                device: 0, target: [], open: false))
        guard case .created(_, let layout) = reply else {
            Issue.record("\(String(describing: reply))")
            return
        }
        #expect(layout.sets.first?.configuration.members.count == 2)
    }

    @Test("A restarted disk gets a new epoch, led by the member without rot that has most")
    func epochs() throws {
        let group = MasterGroup(masters: 3, servers: 3)
        group.run(milliseconds: 1_500)
        let set = try #require(group.servers[0].views.keys.min())
        for index in 0..<3 {
            group.servers[index].sets[set]?.prepared = RecordNumber(rawValue: UInt64(index))
        }
        group.servers[2].sets[set]?.hasRot = true
        group.servers[0].incarnation = 2
        group.run(milliseconds: 500)
        let view = try #require(group.servers[0].views[set])
        #expect(view.epoch == Epoch(rawValue: 2))
        #expect(view.primary == group.servers[1].disk)
        #expect(group.servers.allSatisfy { $0.sets[set]?.epoch == view.epoch })
        group.run(milliseconds: 1_000)
        #expect(group.servers[0].views[set]?.epoch == view.epoch)
        #expect(group.alarms.isEmpty)
    }

    @Test("A member that is down leaves its sets, and is filled and taken in again (C7, C9)")
    func memberLeaves() throws {
        let group = MasterGroup(masters: 1, servers: 3)
        group.run(milliseconds: 1_000)
        let set = try #require(group.servers[0].views.keys.min())
        let all = try #require(group.servers[0].views[set]).members
        group.servers[1].isUp = false
        group.run(milliseconds: 2_500)
        #expect(group.servers[0].views[set]?.members == all)
        group.run(milliseconds: 1_500)
        let left = try #require(group.servers[0].views[set])
        #expect(left.members == [group.servers[0].disk, group.servers[2].disk])
        #expect(left.members.contains(left.primary) && left.epoch == Epoch(rawValue: 2))
        #expect(group.servers.allSatisfy { $0.fills.isEmpty })
        group.servers[1].isUp = true
        group.run(milliseconds: 2_000)
        let fills = group.servers.flatMap(\.fills).filter { $0.set == set }
        #expect(fills.allSatisfy { $0.learner.disk == group.servers[1].disk })
        let joined = try #require(group.servers[1].views[set])
        #expect(!fills.isEmpty && joined.members == all)
        #expect(joined.epoch == Epoch(rawValue: 3))
    }

    @Test("A set does not shrink below two members: it waits for them (C2)")
    func lastMembersStay() throws {
        let group = MasterGroup(masters: 1, servers: 3)
        group.run(milliseconds: 1_000)
        let set = try #require(group.servers[0].views.keys.min())
        group.servers[1].isUp = false
        group.servers[2].isUp = false
        group.run(milliseconds: 6_000)
        #expect(group.servers[0].views[set]?.epoch == Epoch(rawValue: 1))
        group.servers[2].isUp = true
        group.run(milliseconds: 2_000)
        let left = [group.servers[0].disk, group.servers[2].disk]
        #expect(group.servers[0].views[set]?.members == left)
    }

    @Test("A report that comes late says nothing: servers tell only what changed")
    func lateReport() throws {
        let group = MasterGroup(masters: 1, servers: 3)
        group.run(milliseconds: 1_500)
        let set = try #require(group.servers[0].views.keys.min())
        let old = group.servers[0].report.frame(request: group.servers[0].reports)
        group.servers[0].sets[set]?.stored = 77
        group.run(milliseconds: 200)
        // From now on it has nothing to tell.
        group.servers[0].isUp = false
        let peer = Peer.server(group.servers[0].id)
        let isKnown = { () -> Bool in
            guard case .map(let map) = group.query(.map(after: SetID(rawValue: 0))) else {
                return false
            }
            return map.sets.contains { $0.id == set && $0.copies.contains { $0.stored == 77 } }
        }
        #expect(isKnown())
        group.deliver(old, from: peer, to: 0)
        group.run(milliseconds: 10)
        #expect(isKnown())
        // A later run of the disk begins to count afresh.
        group.servers[0].incarnation = 2
        group.servers[0].sets[set]?.stored = 78
        group.deliver(group.servers[0].report.frame(request: 1), from: peer, to: 0)
        group.run(milliseconds: 10)
        #expect(!isKnown())
    }

    @Test("A set in an epoch that the log does not know is left alone, with an alarm")
    func frozenSet() throws {
        let group = MasterGroup(masters: 1, servers: 3)
        group.run(milliseconds: 1_000)
        let set = try #require(group.servers[0].views.keys.min())
        group.servers[0].sets[set]?.epoch = Epoch(rawValue: 9)
        group.servers[0].incarnation = 2
        group.run(milliseconds: 1_000)
        #expect(group.alarms.count == 1)
        #expect(group.servers[1].views[set]?.epoch == Epoch(rawValue: 1))
    }

    @Test("An unlinked file lives as long as a session has it open")
    func openUnlinked() throws {
        let group = MasterGroup(masters: 3, servers: 3)
        group.run(milliseconds: 1_500)
        let one = try #require(group.openSession(1))
        let two = try #require(group.openSession(2))
        let file = try #require(group.create(one, 1, "a", open: true))
        let other = try #require(group.create(one, 2, "b"))
        guard case .opened = group.query(.open(other.inode), two) else {
            Issue.record("not opened")
            return
        }
        #expect(group.change(two, 1, .unlink(parent: .root, name: [97])) == .done)
        #expect(group.change(one, 3, .unlink(parent: .root, name: [98])) == .done)
        for inode in [file.inode, other.inode] {
            guard case .entry(let attributes) = group.query(.attributes(inode)) else {
                Issue.record("gone")
                return
            }
            #expect(attributes.links == 0)
        }
        #expect(group.change(two, 2, .releaseOrphans([other.inode])) == .done)
        #expect(group.query(.attributes(other.inode)) == .failed(.stale))
        #expect(group.change(one, 4, .closeSession) == .done)
        #expect(group.query(.attributes(file.inode)) == .failed(.stale))
    }

    @Test("A new leader does not know who has files open, and loses none")
    func inheritedOpen() throws {
        let group = MasterGroup(masters: 3, servers: 3)
        let one = try #require(group.openSession(1))
        let file = try #require(group.create(one, 1, "a", open: true))
        group.crash(try #require(group.leader))
        let two = try #require(group.openSession(2))
        #expect(group.change(two, 1, .unlink(parent: .root, name: [97])) == .done)
        guard case .orphans(let orphans, _) = group.change(one, 2, .renewSession) else {
            Issue.record("no orphans")
            return
        }
        #expect(orphans == [file.inode])
        #expect(group.change(one, 3, .releaseOrphans(orphans)) == .done)
        #expect(group.query(.attributes(file.inode)) == .failed(.stale))
    }

    @Test("A session that is not renewed expires by the log's ticks, and holds no file any more")
    func expiry() throws {
        let group = MasterGroup(masters: 1, servers: 0)
        let one = try #require(group.openSession(1))
        let file = try #require(group.create(one, 1, "a", open: true))
        let two = try #require(group.openSession(2))
        #expect(group.change(two, 1, .unlink(parent: .root, name: [97])) == .done)
        group.run(milliseconds: 20_000)
        guard case .orphans = group.change(two, 2, .renewSession) else {
            Issue.record("not renewed")
            return
        }
        group.run(milliseconds: 13_000)
        #expect(group.query(.attributes(file.inode)) == .failed(.stale))
        #expect(group.change(one, 2, .renewSession) == .sessionDead)
    }

    @Test("No jump of a leader's wall clock ends a session or takes time back", arguments: [1, 3])
    func wallClocks(masters: Int) throws {
        let group = MasterGroup(masters: masters)
        let session = try #require(group.openSession(1))
        var last = Timestamp.zero
        for (number, hours) in [0, 1, -1, 3, 0].enumerated() {
            let leader = try #require(group.leader)
            group.wallErrors[leader] = .seconds(Int64(hours) * 3_600)
            group.run(milliseconds: 5_000)
            guard case .orphans = group.change(session, UInt64(2 * number + 1), .renewSession)
            else { throw NoAnswer() }
            let made = try #require(group.create(session, UInt64(2 * number + 2), "\(number)"))
            #expect(made.modified > last)
            last = made.modified
            // The next one's clock is another.
            group.crash(leader)
            group.start(leader)
            try #require(group.run { $0.leader != nil })
        }
    }

    @Test("Chunks of a removed file are dropped by order, and the order is confirmed")
    func drops() throws {
        let group = MasterGroup(masters: 3, servers: 3)
        group.run(milliseconds: 1_500)
        let session = try #require(group.openSession(1))
        let file = try #require(group.create(session, 1, "a"))
        #expect(group.change(session, 2, .unlink(parent: .root, name: [97])) == .done)
        group.run(milliseconds: 1_500)
        let drops = group.servers.flatMap(\.drops)
        #expect(!drops.isEmpty && drops.allSatisfy { $0.chunks.map(\.inode) == [file.inode] })
        group.run(milliseconds: 500)
        let count = group.servers.flatMap(\.drops).count
        group.run(milliseconds: 1_000)
        #expect(group.servers.flatMap(\.drops).count == count)
    }

    @Test("Two masters with one name raise an alarm; bad frames do no harm")
    func strangers() throws {
        let group = MasterGroup(masters: 3)
        let isLed = group.run { $0.leader != nil }
        #expect(isLed)
        let beat = Frame(kind: .paxos, head: [2, 0, 0])
        group.deliver(beat, from: .master(MasterID(rawValue: 1)), to: 0)
        group.deliver(beat, from: .master(MasterID(rawValue: 2)), to: 0)
        group.deliver(beat, from: .server(ServerID(rawValue: 2)), to: 0)
        let bad = Frame(kind: .metadataRequest, request: 9_999, head: [1, 2, 3])
        group.deliver(bad, from: .client(ConnectionID(rawValue: 1)), to: 0)
        group.run(milliseconds: 10)
        #expect(group.alarms.count == 1)
        #expect(group.replies[9_999] == .failed(.invalid))
        #expect(group.halts.isEmpty)
    }
}
