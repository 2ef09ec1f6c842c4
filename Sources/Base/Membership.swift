// Who the masters of a cell are (M17). The log of the masters holds these as they are here.
//
// Invariants:
//  1. Members are in ascending order; ids are never given twice (S8): a new one is above `lastID`.
//  2. At most one member is a learner; it becomes a voter, or leaves, before anything else changes.

/// One master.
package struct MasterMember: Hashable, Sendable {
    package var id: MasterID
    package var address: PeerAddress
    /// Votes count from this disk only (M18); `.none`: it is not known yet, any disk counts.
    package var disk: DiskID
    /// False: a learner, which gets the log and has no vote.
    package var isVoter: Bool
    /// The voter whose place a learner takes.
    package var replaces: MasterID?

    /// All fields at once.
    package init(
        id: MasterID, address: PeerAddress, disk: DiskID = .none, isVoter: Bool = true,
        replaces: MasterID? = nil
    ) {
        self.id = id
        self.address = address
        self.disk = disk
        self.isVoter = isVoter
        self.replaces = replaces
    }
}

extension DiskID {
    /// No disk.
    package static let none = DiskID(rawValue: 0)
}

/// The masters of a configuration. Configuration 1 is that of a new cell, by word of its
/// operator; 0: none is known.
package struct Membership: Hashable, Sendable {
    package private(set) var number: UInt32
    package private(set) var members: [MasterMember]
    /// The highest id that a master of the cell ever had.
    package private(set) var lastID: MasterID
    /// Fewer voters than this there never are: 3, or as many as the cell was made with.
    package private(set) var least: UInt8

    /// What a master knows that is to join a cell.
    package static let none = Membership(
        number: 0, members: [], lastID: MasterID(rawValue: 0), least: 0)

    private init(number: UInt32, members: [MasterMember], lastID: MasterID, least: UInt8) {
        self.number = number
        self.members = members
        self.lastID = lastID
        self.least = least
    }
    /// The masters of a new cell.
    package init(founders: [MasterMember]) {
        let members = founders.sorted { $0.id < $1.id }
        self.init(
            number: 1, members: members, lastID: members.last?.id ?? MasterID(rawValue: 0),
            least: UInt8(min(3, members.count)))
    }

    package var voters: [MasterMember] { members.filter(\.isVoter) }
    package var learner: MasterMember? { members.first { !$0.isVoter } }
    /// How many voters make a quorum: a majority; all of them while a disk is not known, so that no
    /// other disk under a known name ever makes one with those who missed something (M18).
    package var quorum: Int {
        let voters = voters
        return voters.contains { $0.disk == .none } ? voters.count : voters.count / 2 + 1
    }
    /// The member of this id.
    package subscript(id: MasterID) -> MasterMember? { members.first { $0.id == id } }
    /// Whether what a master says from this disk is a vote (M18).
    package func hasVote(_ id: MasterID, on disk: DiskID) -> Bool {
        guard let member = self[id], member.isVoter else { return false }
        return member.disk == .none || member.disk == disk
    }

    // MARK: Changes

    /// With a learner, in the same configuration. Refused where an id, an address or a change
    /// stands in the way.
    package func adding(
        _ id: MasterID, at address: PeerAddress, replacing old: MasterID?
    ) throws(Refusal) -> Membership {
        if let learner { throw Refusal(.changeOpen, UInt64(learner.id.rawValue)) }
        guard self[id] == nil, id > lastID else {
            throw Refusal(.usedMaster, UInt64(lastID.rawValue))
        }
        if let old, self[old] == nil { throw Refusal(.unknownMaster, UInt64(old.rawValue)) }
        if let other = members.first(where: { $0.address.network == address.network }),
            other.id != old
        {
            throw Refusal(.usedAddress, UInt64(other.id.rawValue))
        }
        guard members.count < Limits.masters else {
            throw Refusal(.tooManyMasters, UInt64(Limits.masters))
        }
        var next = self
        next.members.append(
            MasterMember(id: id, address: address, isVoter: false, replaces: old))
        next.lastID = id
        return next
    }

    /// Without a master. A voter's end is a new configuration.
    package func removing(_ id: MasterID) throws(Refusal) -> Membership {
        guard let member = self[id] else { throw Refusal(.unknownMaster, UInt64(id.rawValue)) }
        if let learner, learner.id != id {
            throw Refusal(.changeOpen, UInt64(learner.id.rawValue))
        }
        var next = self
        next.members.removeAll { $0.id == id }
        guard member.isVoter else { return next }
        guard next.members.count >= Int(least) else {
            throw Refusal(.tooFewMasters, UInt64(least))
        }
        next.number += 1
        return next
    }

    /// The next configuration, in which the learner has a vote and whom it replaces is gone.
    package func promoting(_ id: MasterID) -> Membership {
        var next = self
        next.number += 1
        let old = self[id]?.replaces
        next.members = members.filter { $0.id != old }.map { member in
            guard member.id == id else { return member }
            return MasterMember(id: id, address: member.address, disk: member.disk)
        }
        return next
    }

    /// The next configuration of the same members.
    package func renewed() -> Membership {
        var next = self
        next.number += 1
        return next
    }

    /// The next configuration, in which a voter votes from another disk (M18).
    package func moving(_ id: MasterID, to disk: DiskID) -> Membership {
        var next = renewed()
        for index in next.members.indices where next.members[index].id == id {
            next.members[index].disk = disk
        }
        return next
    }

    /// The masters of a cell that starts from a dump of this one: all new, with numbers that the
    /// masters before never reached.
    package func loaded(by founders: [MasterMember]) -> Membership {
        let new = Membership(founders: founders)
        return Membership(
            number: number + Limits.loadedConfigurations, members: new.members,
            lastID: max(lastID, new.lastID), least: new.least)
    }

    /// Where the disk of a member was not known, this is it.
    package mutating func learn(_ disk: DiskID, of id: MasterID) {
        guard let index = members.firstIndex(where: { $0.id == id }), members[index].disk == .none
        else { return }
        members[index].disk = disk
    }

    // MARK: Coding

    /// All fields.
    package func encode(into writer: inout ByteWriter) {
        writer.write(number)
        writer.write(lastID)
        writer.write(least)
        writer.writeList(members) { writer, member in
            writer.write(member.id)
            member.address.encode(into: &writer)
            writer.write(member.disk)
            writer.write(member.isVoter)
            writer.writeOptional(member.replaces) { $0.write($1) }
        }
    }
    /// Reads what `encode` wrote.
    package init(from reader: inout ByteReader) throws(DecodeError) {
        number = try reader.read()
        lastID = try reader.read()
        least = try reader.read()
        members = try reader.readList(bound: Limits.masters) { (reader) throws(DecodeError) in
            MasterMember(
                id: try reader.read(), address: try PeerAddress(from: &reader),
                disk: try reader.read(), isVoter: try reader.readBool(),
                replaces: try reader.readOptional { (reader) throws(DecodeError) in
                    try reader.read()
                })
        }
        guard zip(members, members.dropFirst()).allSatisfy({ $0.id < $1.id }),
            members.count(where: { !$0.isVoter }) <= 1
        else { throw .invalid(field: "masters", value: UInt64(number)) }
    }
}

/// A configuration, and where it begins: behind the stop entry of the one before. Whoever has
/// this slot with this hash in its log knows that it is chosen.
package struct ConfigurationStart: Hashable, Sendable {
    package var number: UInt32
    package var slot: Slot
    package var hash: ShortHash

    /// All fields at once.
    package init(number: UInt32, slot: Slot, hash: ShortHash) {
        self.number = number
        self.slot = slot
        self.hash = hash
    }
    /// Of a configuration that no stop entry began.
    package init(first number: UInt32) {
        self.init(number: number, slot: .none, hash: ShortHash(high: 0, low: 0))
    }
    /// Number, slot, hash.
    package func encode(into writer: inout ByteWriter) {
        writer.write(number)
        writer.write(slot)
        hash.encode(into: &writer)
    }
    /// Reads what `encode` wrote.
    package init(from reader: inout ByteReader) throws(DecodeError) {
        number = try reader.read()
        slot = try reader.read()
        hash = try ShortHash(from: &reader)
    }
}

/// What an operator wants of the masters.
package enum MasterOrder: Hashable, Sendable {
    /// A master that runs there already gets the log, then a vote, and the place of another.
    case add(MasterID, PeerAddress, replacing: MasterID?)
    case remove(MasterID)
    /// Another one is to lead: this one, or the one that is furthest.
    case transfer(MasterID?)

    /// A byte for the case, then its fields.
    package func encode(into writer: inout ByteWriter) {
        switch self {
        case .add(let id, let address, let old):
            writer.write(1 as UInt8)
            writer.write(id)
            address.encode(into: &writer)
            writer.writeOptional(old) { $0.write($1) }
        case .remove(let id):
            writer.write(2 as UInt8)
            writer.write(id)
        case .transfer(let id):
            writer.write(3 as UInt8)
            writer.writeOptional(id) { $0.write($1) }
        }
    }
    /// Reads what `encode` wrote.
    package init(from reader: inout ByteReader) throws(DecodeError) {
        func optional() throws(DecodeError) -> MasterID? {
            try reader.readOptional { (reader) throws(DecodeError) in try reader.read() }
        }
        let tag = try reader.read(UInt8.self)
        switch tag {
        case 1:
            self = .add(
                try reader.read(), try PeerAddress(from: &reader), replacing: try optional())
        case 2: self = .remove(try reader.read())
        case 3: self = .transfer(try optional())
        default: throw .invalid(field: "order for masters", value: UInt64(tag))
        }
    }
}
