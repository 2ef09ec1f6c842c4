// Who the masters are: rules of changes, and what single nodes do with them (M17, M18).

import Base
import Consensus
import Testing

private func master(_ number: UInt16) -> MasterID { MasterID(rawValue: number) }
private func address(_ name: String) -> PeerAddress {
    PeerAddress(network: name, socket: "", machine: "")
}
private func cell(_ count: UInt16) -> Membership {
    Membership(
        founders: (1...count).map {
            MasterMember(
                id: master($0), address: address("m\($0)"), disk: DiskID(rawValue: UInt64($0)))
        })
}

private func cause(_ body: () throws(Refusal) -> Membership) -> Refusal.Cause? {
    do throws(Refusal) {
        _ = try body()
        return nil
    } catch {
        return error.cause
    }
}

@Suite struct MembershipTests {
    @Test(
        "A learner has no vote; its promotion is the next configuration, in which one may be gone")
    func steps() throws {
        let first = cell(3)
        var next = try first.adding(master(4), at: address("m4"), replacing: master(2))
        #expect(next.number == 1 && next.quorum == 2 && next.learner?.id == master(4))
        #expect(!next.hasVote(master(4), on: DiskID(rawValue: 4)))
        next.learn(DiskID(rawValue: 4), of: master(4))
        let last = next.promoting(master(4))
        #expect(last.number == 2 && last.voters.map(\.id) == [1, 3, 4].map { master($0) })
        #expect(last.hasVote(master(4), on: DiskID(rawValue: 4)))
        #expect(!last.hasVote(master(4), on: DiskID(rawValue: 5)))
        #expect(last.lastID == master(4))
    }

    @Test("While a disk is not known, nothing is decided without all voters")
    func quorum() {
        let named = cell(3)
        #expect(named.quorum == 2 && cell(4).quorum == 3 && cell(1).quorum == 1)
        var unnamed = Membership(
            founders: named.members.map { MasterMember(id: $0.id, address: $0.address) })
        #expect(unnamed.quorum == 3)
        for member in named.members { unnamed.learn(member.disk, of: member.id) }
        #expect(unnamed.quorum == 2 && unnamed.renewed().number == 2)
    }

    @Test("What can't be done is refused, and says why")
    func refusals() throws {
        let three = cell(3)
        let joining = try three.adding(master(4), at: address("m4"), replacing: nil)
        #expect(
            cause { () throws(Refusal) in
                try three.adding(master(2), at: address("x"), replacing: nil)
            } == .usedMaster)
        #expect(
            cause { () throws(Refusal) in
                try three.adding(master(4), at: address("m2"), replacing: nil)
            } == .usedAddress)
        #expect(
            cause { () throws(Refusal) in
                try three.adding(master(4), at: address("m4"), replacing: master(9))
            } == .unknownMaster)
        #expect(
            cause { () throws(Refusal) in
                try joining.adding(master(5), at: address("m5"), replacing: nil)
            } == .changeOpen)
        #expect(
            cause { () throws(Refusal) in try joining.removing(master(1)) } == .changeOpen)
        #expect(
            cause { () throws(Refusal) in try three.removing(master(1)) } == .tooFewMasters)
        #expect(
            cause { () throws(Refusal) in try three.removing(master(9)) } == .unknownMaster)
        // An id that was removed never comes back, and who joins may always be taken back.
        let left = try joining.removing(master(4))
        #expect(left.number == 1)
        #expect(
            cause { () throws(Refusal) in
                try left.adding(master(4), at: address("m4"), replacing: nil)
            } == .usedMaster)
        // A cell that was made with one master may have one again.
        let two = try cell(1).adding(master(2), at: address("m2"), replacing: nil)
            .promoting(master(2))
        #expect(try two.removing(master(1)).voters.map(\.id) == [master(2)])
    }

    @Test("A membership survives its coding; one out of order is refused")
    func coding() throws {
        let membership = try cell(3).adding(master(4), at: address("m4"), replacing: master(1))
        var writer = ByteWriter()
        membership.encode(into: &writer)
        var reader = ByteReader(writer.bytes)
        #expect(try Membership(from: &reader) == membership)
        #expect(reader.remaining == 0)
        for count in 0..<writer.count {
            var short = ByteReader(writer.bytes.prefix(count))
            #expect(throws: DecodeError.self) { try Membership(from: &short) }
        }
    }
}
