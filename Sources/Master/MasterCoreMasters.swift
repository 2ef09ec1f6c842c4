// Who the masters are, as the host of one of them sees it (M17, M18, S11): it keeps what was
// applied for its snapshots, knows their addresses, takes orders, and watches its own disk.

import Base
import Consensus
import Namespace
import Node
import Store
import Wire

/// The masters as of an applied slot; in a snapshot, the head of its plan.
struct KnownMasters: Hashable, Sendable {
    var membership: Membership
    var started: ConfigurationStart

    /// Before the log: as the operator says.
    init(_ configuration: MasterConfiguration) {
        membership =
            configuration.isJoining
            ? .none
            : Membership(
                founders: configuration.masters.map {
                    MasterMember(id: $0.id, address: $0.address)
                })
        started = ConfigurationStart(first: membership.number)
    }
    /// Those of a cell that starts from a dump of these (M17, M18): no disk is known yet.
    func loaded(
        by founders: [MasterAddress], _ slot: Slot, _ entry: ShortHash
    ) -> KnownMasters {
        var next = self
        next.membership = membership.loaded(
            by: founders.map { MasterMember(id: $0.id, address: $0.address) })
        next.started = ConfigurationStart(
            number: next.membership.number, slot: slot, hash: entry)
        return next
    }
    /// Membership, start.
    var bytes: [UInt8] {
        var writer = ByteWriter(capacity: 512)
        membership.encode(into: &writer)
        started.encode(into: &writer)
        return writer.bytes
    }
    /// Reads what `bytes` wrote.
    init(decoding bytes: [UInt8]) throws(DecodeError) {
        var reader = ByteReader(bytes)
        membership = try Membership(from: &reader)
        started = try ConfigurationStart(from: &reader)
        try reader.finish()
    }
}

/// What a master is to its cell.
enum MasterPlace: Hashable, Sendable {
    case member
    /// Its vote is that of another disk.
    case stranger
    /// Its disk is an old copy of itself.
    case old
    case removed
}

/// How long the log has waited for its disk.
struct FlushWatch: Sendable {
    private var durable = LogNumber.none
    private var since: Instant?

    /// Whether nothing has become durable for too long, although something should.
    mutating func isLate(_ log: SegmentLog, now: Instant) -> Bool {
        guard log.isWriting, log.durable == durable, let since else {
            durable = log.durable
            since = log.isWriting ? now : nil
            return false
        }
        return now - since >= Limits.sickFlush
    }
}

/// What is known of the space for the log.
struct SpaceWatch: Sendable {
    /// Of the disk, what the segments may take: two snapshots have to find room beside them.
    static let percent: UInt64 = 90
    /// Bytes that the disk may use in all.
    var limit: UInt64 = 0
    /// What is left is for what must go on.
    var isShort = false
}

extension MasterCore {
    /// An entry of the log names the masters.
    mutating func follow(_ next: Membership, at entry: ChosenEntry) {
        if next.number > masters.membership.number {
            masters.started = ConfigurationStart(
                number: next.number, slot: entry.slot, hash: entry.hash.short)
        }
        masters.membership = next
        let names = next.members.map { $0.isVoter ? "\($0.id)" : "\($0.id) (joins)" }
        report("configuration \(next.number): masters \(names.joined(separator: ", "))")
        tellAddresses()
    }

    mutating func tellAddresses() {
        let members = (paxos?.namedMasters ?? []) + masters.membership.members
        for member in members where member.id != configuration.id {
            tell(.master(member.id), isAt: member.address)
        }
    }

    mutating func receiveOrder(_ order: MasterOrder, from address: ReplyAddress) {
        report("order of an operator: \(order)")
        ordering = address
        carryOut(.order(newTag(), order))
    }

    /// As far as this master knows.
    var mastersView: MastersView {
        MastersView(
            id: configuration.id, membership: masters.membership,
            leader: paxos?.leaderHint(now: time.now), end: paxos?.end ?? .none)
    }

    /// Says so when this master has no vote any more.
    mutating func notePlace() {
        guard let paxos else { return }
        let now: MasterPlace =
            paxos.isRemoved
            ? .removed : paxos.isStranger ? .stranger : paxos.isOldCopy ? .old : .member
        guard now != place else { return }
        place = now
        switch now {
        case .member: break
        case .stranger:
            report(
                "this is not the disk that master \(configuration.id) had: it has no vote until "
                    + "it has the log and the others know it", isAlarm: true)
        case .old:
            report(
                "this disk is older than what the other masters were told of it, as a restored "
                    + "copy is: it has no vote, and must be replaced under a new id (martlet "
                    + "master replace)", isAlarm: true)
        case .removed:
            report(
                "this master was removed from its cell and does not vote: it can be ended",
                isAlarm: true)
        }
    }

    /// A leader whose disk hangs hands over, and nobody with such a disk takes over (S11).
    mutating func watchDisk() {
        let isLate = flush.isLate(log, now: time.now)
        guard isLate != paxos?.isSick else { return }
        paxos?.isSick = isLate
        report(isLate ? "its disk hangs: it does not lead" : "its disk goes on")
    }

    /// A leader whose disk is full lets another lead, once: that one may be full too.
    mutating func watchSpace() {
        guard log.isShort != space.isShort else { return }
        space.isShort = log.isShort
        report(
            space.isShort
                ? "its disk is full: while it leads, changes are refused" : "its disk has space",
            isAlarm: space.isShort)
        if space.isShort, isLeading { carryOut(.order(newTag(), .transfer(nil))) }
    }

    /// Why a change is not taken up on a full disk; nil: it is. What was executed before is
    /// answered all the same, and so is what may be on its way (M12).
    func refusal(of request: MetadataRequest, _ change: MetadataChange) -> MetadataReply? {
        guard space.isShort, !change.isUpkeep,
            !namespace.isSettled(request.session, request.number)
        else { return nil }
        // While it hands over, clients wait for the one that leads then.
        let isQuiet =
            paxos?.isOpen == true && lead?.batches.isEmpty == true && lead?.changes.isEmpty == true
        return isQuiet ? .failed(.noSpace) : .retry
    }
}

extension MetadataChange {
    /// The cell needs it to go on, or an operator asks for it.
    fileprivate var isUpkeep: Bool {
        switch self {
        case .openSession, .renewSession, .releaseOrphans, .closeSession, .operate: true
        default: false
        }
    }
}
