// What an operator asks of a cell, or its leader by itself: servers that are to be emptied or
// leave, and plans of moves.
// The masters' log holds these as they are here.

/// A change of the cell itself.
package enum Operation: Hashable, Sendable {
    /// Every copy on the server moves elsewhere, and nothing new comes; or that is taken back.
    case drain(ServerID, isDraining: Bool)
    /// The server is forgotten and may not come back under its identity. Refused while a set
    /// has a member there.
    case removeServer(ServerID)
    /// Carries out a plan. Refused if any of its sets has changed since (stale).
    case startRebalance(Rebalance)
    /// Pauses, resumes or cancels the plan of this id.
    case setRebalance(id: UInt64, RebalanceState)
    /// The scrub of a server's disks, or of all (C18): pauses, or goes on where it paused, or
    /// begins anew where it did not.
    case scrub(ServerID?, isPaused: Bool)
    /// The sets of a state that was loaded from a dump go on where their disks are. Not before
    /// every known disk has reported, unless the operator says that what is missing is lost.
    case adopt(withoutMissing: Bool)
    /// The disk is forgotten: its server has another one in its place. Refused while a set has a
    /// member there. If it comes back it is a new one.
    case removeDisk(DiskID)
    /// What is damaged on all of these members of the set is lost, and so is what only others
    /// have: they leave it, and the set goes on under the primary (decision 0020). A single one may
    /// be a former member. Refused if the set is not in this epoch any more.
    case acceptLoss(SetID, Epoch, members: [DiskID], primary: DiskID)

    package func encode(into writer: inout ByteWriter) {
        switch self {
        case .drain(let server, let isDraining):
            writer.write(1 as UInt8)
            writer.write(server)
            writer.write(isDraining)
        case .removeServer(let server):
            writer.write(2 as UInt8)
            writer.write(server)
        case .startRebalance(let rebalance):
            writer.write(3 as UInt8)
            rebalance.encode(into: &writer)
        case .setRebalance(let id, let state):
            writer.write(4 as UInt8)
            writer.write(id)
            writer.write(state.rawValue)
        case .scrub(let server, let isPaused):
            writer.write(5 as UInt8)
            writer.writeOptional(server) { $0.write($1) }
            writer.write(isPaused)
        case .adopt(let withoutMissing):
            writer.write(6 as UInt8)
            writer.write(withoutMissing)
        case .removeDisk(let disk):
            writer.write(7 as UInt8)
            writer.write(disk)
        case .acceptLoss(let set, let epoch, let members, let primary):
            writer.write(8 as UInt8)
            writer.write(set)
            writer.write(epoch)
            writer.writeList(members) { $0.write($1) }
            writer.write(primary)
        }
    }
    package init(from reader: inout ByteReader) throws(DecodeError) {
        let tag = try reader.read(UInt8.self)
        switch tag {
        case 1: self = .drain(try reader.read(), isDraining: try reader.readBool())
        case 2: self = .removeServer(try reader.read())
        case 3: self = .startRebalance(try Rebalance(from: &reader))
        case 4: self = .setRebalance(id: try reader.read(), try RebalanceState(from: &reader))
        case 5:
            self = .scrub(
                try reader.readOptional { (reader) throws(DecodeError) in try reader.read() },
                isPaused: try reader.readBool())
        case 6: self = .adopt(withoutMissing: try reader.readBool())
        case 7: self = .removeDisk(try reader.read())
        case 8:
            self = .acceptLoss(
                try reader.read(), try reader.read(),
                members: try reader.readList(bound: Limits.members) {
                    (reader) throws(DecodeError) in try reader.read(DiskID.self)
                },
                primary: try reader.read())
        default: throw .invalid(field: "operation", value: UInt64(tag))
        }
    }
}

/// What becomes of a plan of moves.
package enum RebalanceState: UInt8, Hashable, Sendable {
    case running = 1
    case paused = 2
    case cancelled = 3
    /// Every move is done or was skipped.
    case finished = 4

    /// Its moves are carried out, or will be.
    package var isOpen: Bool { self == .running || self == .paused }

    init(from reader: inout ByteReader) throws(DecodeError) {
        let value = try reader.read(UInt8.self)
        guard let state = RebalanceState(rawValue: value) else {
            throw .invalid(field: "state of a plan", value: UInt64(value))
        }
        self = state
    }
}

/// One copy of a set goes from one disk to another.
package struct ReplicaMove: Hashable, Sendable {
    /// How it stands.
    package enum State: UInt8, Hashable, Sendable {
        case waiting = 1
        case done = 2
        /// The set has no copy on `from` any more, or `to` is gone: nothing to do.
        case skipped = 3
    }
    package var set: SetID
    /// The set's epoch that the plan rests on.
    package var epoch: Epoch
    package var from: DiskID
    package var to: DiskID
    /// Stored bytes, when it was planned.
    package var bytes: UInt64
    package var state: State

    /// All fields at once.
    package init(
        set: SetID, epoch: Epoch, from: DiskID, to: DiskID, bytes: UInt64,
        state: State = .waiting
    ) {
        self.set = set
        self.epoch = epoch
        self.from = from
        self.to = to
        self.bytes = bytes
        self.state = state
    }
    fileprivate func encode(into writer: inout ByteWriter) {
        writer.write(set)
        writer.write(epoch)
        writer.write(from)
        writer.write(to)
        writer.write(bytes)
        writer.write(state.rawValue)
    }
    fileprivate init(from reader: inout ByteReader) throws(DecodeError) {
        set = try reader.read()
        epoch = try reader.read()
        from = try reader.read()
        to = try reader.read()
        bytes = try reader.read()
        let value = try reader.read(UInt8.self)
        guard let state = State(rawValue: value) else {
            throw .invalid(field: "state of a move", value: UInt64(value))
        }
        self.state = state
    }
}

/// A plan that is carried out, with how far it is.
package struct Rebalance: Hashable, Sendable {
    /// The plan's name: any number but 0.
    package var id: UInt64
    /// Of all moves together; 0: no limit but those of repairs.
    package var bytesPerSecond: UInt64
    package var state: RebalanceState
    /// 1 to `Limits.rebalanceMoves`, each set once, in their order.
    package var moves: [ReplicaMove]

    /// All fields at once.
    package init(
        id: UInt64, bytesPerSecond: UInt64, state: RebalanceState = .running, moves: [ReplicaMove]
    ) {
        self.id = id
        self.bytesPerSecond = bytesPerSecond
        self.state = state
        self.moves = moves
    }
    package func encode(into writer: inout ByteWriter) {
        writer.write(id)
        writer.write(bytesPerSecond)
        writer.write(state.rawValue)
        writer.writeList(moves) { $1.encode(into: &$0) }
    }
    package init(from reader: inout ByteReader) throws(DecodeError) {
        id = try reader.read()
        bytesPerSecond = try reader.read()
        state = try RebalanceState(from: &reader)
        moves = try reader.readList(bound: Limits.rebalanceMoves) {
            (reader) throws(DecodeError) in try ReplicaMove(from: &reader)
        }
    }
}

/// Why an operation was refused; nothing changed.
package struct Refusal: Error, Hashable, Sendable, CustomStringConvertible {
    /// What is wrong; `subject` is the thing it is about.
    package enum Cause: UInt8, Hashable, Sendable {
        case unknownServer = 1
        /// The subject is how many disks the sets there need elsewhere.
        case tooFewDisks = 2
        /// The subject is a set.
        case holdsCopy = 3
        /// The subject is a set that changed since the plan was made.
        case stale = 4
        /// The subject is the plan that is open.
        case openPlan = 5
        case unknownPlan = 6
        /// The subject is the set of a move that makes no sense.
        case badMove = 7
        case emptyPlan = 8
        /// The subject is a master that joins.
        case changeOpen = 9
        /// The subject is the highest id that a master ever had.
        case usedMaster = 10
        case unknownMaster = 11
        /// The subject is the master that has the address.
        case usedAddress = 12
        /// The subject is how many masters there may be.
        case tooManyMasters = 13
        /// The subject is how many voters there must be.
        case tooFewMasters = 14
        /// The subject is a master that is down or too far behind.
        case masterBehind = 15
        /// The subject is how many masters are up and in step.
        case noMajority = 16
        /// The subject leads already.
        case leadsAlready = 17
        case nothingToAdopt = 18
        /// The subject is a set that the masters do not know.
        case unknownSet = 19
        /// The subject is a set that has another epoch by now.
        case changedSet = 20
    }
    package var cause: Cause
    package var subject: UInt64

    /// Both fields at once.
    package init(_ cause: Cause, _ subject: UInt64) {
        self.cause = cause
        self.subject = subject
    }
    /// What is wrong and what helps, for an operator.
    package var description: String {
        switch cause {
        case .unknownServer: "there is no chunk server \(subject)"
        case .tooFewDisks:
            "its sets have \(subject) copies, and fewer disks than that would be left: add a "
                + "chunk server first"
        case .holdsCopy:
            "set \(subject) has a copy on it: drain it first (martlet chunkserver drain)"
        case .stale:
            "set \(subject) has changed since the plan was made: plan again (martlet rebalance "
                + "plan)"
        case .openPlan:
            "plan \(subject) is still open: see martlet rebalance status, or cancel it"
        case .unknownPlan: "there is no open plan \(subject)"
        case .badMove: "the move of set \(subject) goes from or to a disk that it can't"
        case .emptyPlan: "the plan has no moves"
        case .unknownSet: "there is no set \(subject)"
        case .changedSet: "set \(subject) has changed meanwhile: look at it again (martlet fsck)"
        case .nothingToAdopt: "every set goes on already: there is nothing to adopt"
        default: aboutMasters
        }
    }
    private var aboutMasters: String {
        switch cause {
        case .changeOpen where subject == 0:
            "another change of the masters is under way: try again"
        case .changeOpen:
            "master \(subject) is still joining: wait until it has a vote, or take it back "
                + "(martlet master remove \(subject))"
        case .usedMaster:
            "a new master needs an id that none ever had: above \(subject)"
        case .unknownMaster: "there is no master \(subject) (martlet master list)"
        case .usedAddress: "master \(subject) has that address"
        case .tooManyMasters: "a cell has at most \(subject) masters"
        case .tooFewMasters:
            "fewer than \(subject) masters would be left: add one first, or replace it"
        case .masterBehind:
            "master \(subject) is down, has no vote, or lacks too much of the log: wait, or take "
                + "another"
        case .noMajority:
            "only \(subject) of the masters that would be left are up and in step, and that is "
                + "no majority of them: start the others first"
        case .leadsAlready: "master \(subject) leads already"
        default: preconditionFailure("described elsewhere")
        }
    }
    package func encode(into writer: inout ByteWriter) {
        writer.write(cause.rawValue)
        writer.write(subject)
    }
    package init(from reader: inout ByteReader) throws(DecodeError) {
        let value = try reader.read(UInt8.self)
        guard let cause = Cause(rawValue: value) else {
            throw .invalid(field: "refusal", value: UInt64(value))
        }
        self.cause = cause
        subject = try reader.read()
    }
}
