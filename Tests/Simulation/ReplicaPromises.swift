// What a chunk server told others, and whether its disk has it (S2, T5, C3-C5).
//
// Checks:
//  persist before tell   what an acknowledgement, state or report says is on the disk, whatever a
//                        loss of power takes, at the moment it is sent (by samples)
//  amnesia               a chunk server that starts again has it
//  committed             what a primary calls committed was acknowledged by every member (C4, C5)
//  once                  a client's write that is committed gets no second number (C15)
//  one primary           one disk speaks as the primary of a set in an epoch (C1)
//  epochs                no epoch is used that the masters did not give out (C1)

import Base
import Replication
import Store
import Wire

/// A start of a disk's store on a copy, without anything that is not durable.
struct DurableStore {
    private(set) var store: DiskStore
    private(set) var isReady = false

    init(of disk: SimDisk, _ configuration: StoreConfiguration) {
        var disk = disk.onlyDurable
        store = DiskStore(configuration)
        var outputs = store.start(disk.start())
        while !outputs.isEmpty, !isReady {
            var next: [StoreOutput] = []
            for output in outputs {
                switch output {
                case .disk(let effect):
                    disk.issue(effect)
                    guard let result = disk.complete(effect.operation, at: .zero) else { continue }
                    next += store.completed(effect.operation, result, now: .zero)
                case .ready: isReady = true
                default: break
                }
            }
            if next.isEmpty, !isReady { next = store.flush(now: .zero) }
            outputs = next
        }
    }
}

/// A set on a disk.
struct ReplicaName: Hashable, Comparable {
    var set: SetID
    var disk: DiskID
    static func < (left: ReplicaName, right: ReplicaName) -> Bool {
        (left.set, left.disk) < (right.set, right.disk)
    }
}

/// What was said of a set in an epoch.
private struct EpochName: Hashable {
    var set: SetID
    var epoch: Epoch
}

/// A client's write.
private struct WriteName: Hashable {
    var set: SetID
    var session: SessionID
    var sequence: RequestNumber
}

/// What all chunk servers told.
struct ReplicaPromises {
    /// The highest epoch, and the last record in it, that a replica called durable.
    struct Told {
        var epoch = Epoch.none
        var durable = RecordNumber.none
        /// In whatever epoch.
        var highest = RecordNumber.none
    }
    private(set) var told: [ReplicaName: Told] = [:]
    private(set) var names: [ReplicaName] = []
    private var writes: [WriteName: RecordNumber] = [:]
    /// Which write has a number.
    private var holders: [SetNumber: (epoch: Epoch, name: WriteName?)] = [:]
    private var primaries: [EpochName: DiskID] = [:]
    private var given: [SetID: Epoch] = [:]
    private var configurations: [EpochName: SetConfiguration] = [:]
    /// The highest number that a primary called committed, by set.
    private var committed: [SetID: RecordNumber] = [:]

    /// The masters gave out a configuration. Says what is wrong with it.
    mutating func give(_ configuration: SetConfiguration) -> String? {
        let name = EpochName(set: configuration.set, epoch: configuration.epoch)
        given[configuration.set] = max(given[configuration.set] ?? .none, configuration.epoch)
        if let known = configurations[name], known != configuration {
            return "epoch \(name.epoch) of set \(name.set) is \(known) and \(configuration)"
        }
        configurations[name] = configuration
        return nil
    }

    private mutating func tell(_ name: ReplicaName, _ epoch: Epoch, _ durable: RecordNumber) {
        if told[name] == nil {
            told[name] = Told()
            names.append(name)
        }
        if epoch > told[name]!.epoch {
            told[name]!.epoch = epoch
            told[name]!.durable = durable
        } else if epoch == told[name]!.epoch {
            told[name]!.durable = max(told[name]!.durable, durable)
        }
        told[name]!.highest = max(told[name]!.highest, durable)
    }

    /// A report to the masters.
    mutating func tell(_ report: ServerReport) {
        for set in report.sets {
            tell(ReplicaName(set: set.set, disk: set.disk), set.epoch, set.prepared)
        }
    }

    /// Takes note of a message between replicas. `promises`: it says that something is durable.
    mutating func tell(
        _ message: ReplicationMessage
    ) -> (promises: Bool, wrong: (check: String, detail: String)?) {
        let name = ReplicaName(set: message.set, disk: message.sender)
        if message.epoch > given[message.set] ?? .none {
            return (false, ("epochs", "\(message) in an epoch that no master gave out"))
        }
        switch message.body {
        case .acknowledge(let durable, _, _, _):
            tell(name, message.epoch, durable)
            return (true, nil)
        case .state(let state, _):
            tell(name, state.adopted, state.durable)
            return (true, nil)
        case .prepare(let number, _), .beacon(let number, _):
            let epoch = EpochName(set: message.set, epoch: message.epoch)
            if let other = primaries[epoch], other != message.sender {
                return (
                    false,
                    ("one primary", "\(other) and \(message.sender) in \(epoch)")
                )
            }
            primaries[epoch] = message.sender
            if case .prepare(_, let records) = message.body {
                for record in records { if let wrong = note(record) { return (false, wrong) } }
            }
            return (false, commit(number, message.set, message.epoch))
        default: return (false, nil)
        }
    }

    private mutating func note(_ record: Record) -> (check: String, detail: String)? {
        // It stands for one that later records replaced, and takes nobody's number.
        if case .nothing = record.body { return nil }
        var name: WriteName?
        if record.session != .none, case .write = record.body {
            name = WriteName(
                set: record.set, session: record.session, sequence: record.sequence)
        }
        let place = SetNumber(set: record.set, number: record.number)
        if let old = holders[place] {
            // A deposed primary goes on until it hears of it; nobody takes its records.
            if record.epoch < old.epoch { return nil }
            // A later epoch's record took the number of one that never was committed.
            if let lost = old.name, lost != name, writes[lost] == record.number {
                writes[lost] = nil
            }
        }
        holders[place] = (record.epoch, name)
        guard let name else { return nil }
        // A later epoch numbered it again: it keeps nothing of what a deposed primary sends on.
        if let known = writes[name], known != record.number,
            let later = holders[SetNumber(set: record.set, number: known)],
            later.name == name, later.epoch > record.epoch
        {
            return nil
        }
        defer { writes[name] = record.number }
        guard let known = writes[name], known != record.number,
            known <= committed[record.set] ?? .none
        else { return nil }
        return ("once", "\(name) is committed as \(known) and comes as \(record.number)")
    }

    /// A primary calls a record committed; every other member must have told that it has it.
    mutating func commit(
        _ number: RecordNumber, _ set: SetID, _ epoch: Epoch
    ) -> (check: String, detail: String)? {
        guard number > committed[set] ?? .none else { return nil }
        guard let configuration = configurations[EpochName(set: set, epoch: epoch)] else {
            return nil
        }
        committed[set] = number
        for member in configuration.backups {
            let highest = told[ReplicaName(set: set, disk: member)]?.highest ?? .none
            if highest < number {
                return (
                    "committed",
                    "set \(set): \(number) in epoch \(epoch), but disk \(member) has \(highest)"
                )
            }
        }
        return nil
    }

    /// The members that must have what is acknowledged in an epoch.
    func members(_ set: SetID, _ epoch: Epoch) -> [DiskID] {
        configurations[EpochName(set: set, epoch: epoch)]?.members ?? []
    }

    /// What the store of a disk has forgotten, if anything.
    func forgotten(by store: DiskStore, disk: DiskID) -> String? {
        for name in names where name.disk == disk {
            guard let told = told[name] else { continue }
            let epoch = store.epoch(name.set)
            let last = store.lastPrepared(name.set)
            if epoch < told.epoch {
                return "set \(name.set): told epoch \(told.epoch), the disk says \(epoch)"
            }
            if epoch == told.epoch, last < told.durable {
                return "set \(name.set): told \(told.durable) in epoch \(epoch), "
                    + "the disk has \(last)"
            }
        }
        return nil
    }
}
