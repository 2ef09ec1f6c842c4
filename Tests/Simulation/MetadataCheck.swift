// Are the masters' answers those of one namespace that applied the chosen log, one entry after the
// other, each between question and answer? The chosen log is known, so no search is needed: O(n).
//
// Checks:
//  exactly once   a change that was executed in two slots had the same outcome (M12)
//  outcome        the answer to a change is what the replay says
//  real time      its slot is after every slot that was answered before it was sent
//  reads          a question's answer is right at some slot in its time

import Base
import Consensus
import Namespace
import Wire

/// A slot of the chosen log, as it is on disk.
struct ChosenBody {
    var ballot: Ballot
    /// 1 and the leader's time, or 2 and a batch of commands, or 3 and masters.
    var body: ArraySlice<UInt8>
}

/// The chosen log, applied one entry after the other.
struct MetadataReplay {
    private struct Key: Hashable {
        var session: SessionID
        var number: RequestNumber
    }
    private struct Found {
        var slot: Slot
        var outcome: Outcome
    }
    /// The state after each slot; the first is before any.
    private var states: [Namespace] = []
    private var changes: [Key: [Found]] = [:]
    private var sessions: [UInt64: [Found]] = [:]
    private(set) var fault: (check: String, detail: String)?

    /// Replays the bodies of slots 1, 2, 3 …
    init(_ bodies: [ChosenBody]) {
        var namespace = Namespace()
        states.append(namespace)
        for (index, body) in bodies.enumerated() {
            let slot = Slot(rawValue: UInt64(index + 1))
            do {
                try apply(body, slot, &namespace)
            } catch {
                fail("replay", "slot \(slot): \(error)")
            }
            states.append(namespace)
        }
        checkOnce()
    }

    /// The state after everything.
    var last: Namespace { states[states.count - 1] }

    private mutating func fail(_ check: String, _ detail: String) {
        if fault == nil { fault = (check, detail) }
    }

    private mutating func apply(
        _ entry: ChosenBody, _ slot: Slot, _ namespace: inout Namespace
    ) throws {
        guard entry.body.first != 3 else { return }
        var reader = ByteReader(entry.body.dropFirst())
        guard entry.body.first == 2 else {
            let begin = Command.Action.begin(
                round: entry.ballot.round, leader: entry.ballot.node)
            _ = namespace.apply(
                Command(time: try reader.readTimestamp(), action: begin), slot: slot)
            return try reader.finish()
        }
        let count = try reader.read(UInt32.self)
        for _ in 0..<count {
            let command = try Command(from: &reader)
            let outcome = namespace.apply(command, slot: slot)
            let found = Found(slot: slot, outcome: outcome)
            switch command.action {
            case .client(let session, let number, _, _):
                changes[Key(session: session, number: number), default: []].append(found)
            case .openSession(let nonce, _): sessions[nonce, default: []].append(found)
            default: break
            }
        }
        try reader.finish()
    }

    private mutating func checkOnce() {
        let keys = changes.keys.sorted {
            ($0.session, $0.number) < ($1.session, $1.number)
        }
        for key in keys {
            let executed = changes[key]!.filter { found in
                switch found.outcome {
                case .retry, .sessionDead, .forgotten, .orphans: false
                default: true
                }
            }
            guard let first = executed.first else { continue }
            for other in executed.dropFirst() where other.outcome != first.outcome {
                fail(
                    "exactly once",
                    "session \(key.session) number \(key.number): slot \(first.slot) gave "
                        + "\(first.outcome), slot \(other.slot) gave \(other.outcome)")
            }
        }
    }

    /// Checks all answers; returns the first thing that is wrong.
    func check(_ history: MetadataHistory) -> (check: String, detail: String)? {
        if let fault { return fault }
        // In the order of sending and answering.
        var steps: [(time: Int, operation: Int, isAnswer: Bool)] = []
        for (index, operation) in history.operations.enumerated() {
            steps.append((operation.invoked, index, false))
            if let answered = operation.answered { steps.append((answered, index, true)) }
        }
        steps.sort { $0.time < $1.time }
        var low = Slot.none
        var lows = [Slot](repeating: .none, count: history.operations.count)
        for step in steps {
            if !step.isAnswer {
                lows[step.operation] = low
                continue
            }
            let operation = history.operations[step.operation]
            switch verdict(operation, after: lows[step.operation]) {
            case .success(let slot): low = max(low, slot)
            case .failure(let wrong):
                return (wrong.check, "client \(operation.client): \(wrong.detail)")
            }
        }
        return nil
    }

    private struct Wrong: Error {
        var check: String
        var detail: String
    }

    private func verdict(
        _ operation: MetadataOperation, after low: Slot
    ) -> Result<Slot, Wrong> {
        guard let reply = operation.reply else { return .success(low) }
        let found: [Found]
        switch operation.body {
        case .query(let query):
            return verdict(query, reply, low: low, high: operation.chosen)
        case .change(.openSession(let nonce, _)): found = sessions[nonce] ?? []
        case .change:
            let key = Key(session: operation.session, number: operation.number)
            found = changes[key] ?? []
        }
        let detail =
            "\(operation.body) number \(operation.number) of session \(operation.session) "
            + "got \(reply); in the log: \(found.map { "\($0.slot): \($0.outcome)" })"
        let right = found.filter { $0.slot <= operation.chosen && $0.outcome.isAnswered(by: reply) }
        guard let last = right.last else {
            return .failure(Wrong(check: "outcome", detail: detail))
        }
        // A repeated change may have been answered from any of its slots.
        guard last.slot > low else {
            return .failure(
                Wrong(check: "real time", detail: "\(detail); sent after slot \(low)"))
        }
        return .success(right.first { $0.slot > low }?.slot ?? last.slot)
    }

    private func verdict(
        _ query: MetadataQuery, _ reply: MetadataReply, low: Slot, high: Slot
    ) -> Result<Slot, Wrong> {
        if case .close = query { return .success(low) }
        if case .sessionDead = reply { return .success(low) }
        guard high.rawValue < UInt64(states.count) else {
            return .failure(
                Wrong(check: "durability", detail: "slot \(high) was chosen and is not there"))
        }
        for index in Int(low.rawValue)...Int(max(low, high).rawValue)
        where states[index].answers(query, with: reply) {
            return .success(Slot(rawValue: UInt64(index)))
        }
        return .failure(
            Wrong(
                check: "reads",
                detail: "\(query) got \(reply), which is right at no slot in \(low)...\(high)"))
    }
}

extension Outcome {
    /// Whether a leader that applied it may answer so. Where sets are is soft state.
    fileprivate func isAnswered(by reply: MetadataReply) -> Bool {
        switch (self, reply) {
        case (.failed(let error), .failed(let told)): error == told
        case (.sessionDead, .sessionDead), (.forgotten, .forgotten), (.done, .done): true
        case (.entry(let attributes), .entry(let told)): attributes == told
        case (.created(let attributes, let layout), .created(let told, let place)),
            (.opened(let attributes, let layout), .opened(let told, let place)):
            attributes == told && layout.withoutSets == place.withoutSets
        case (.extended(let outcomes), .extended(let told)): outcomes == told
        case (.layout(let layout), .layout(let told)): layout.withoutSets == told.withoutSets
        case (.session(let id, _), .session(let told, _)): id == told
        case (.orphans(let inodes, _), .orphans(let told, _)): inodes == told
        default: false
        }
    }
}

extension Layout {
    fileprivate var withoutSets: Layout {
        var copy = self
        copy.sets = []
        return copy
    }
}

extension Namespace {
    /// Whether this state gives this answer.
    fileprivate func answers(_ query: MetadataQuery, with reply: MetadataReply) -> Bool {
        do throws(FileError) {
            switch (query, reply) {
            case (.lookup(let parent, let name), .entry(let told)):
                return try lookup(parent, name) == told
            case (.attributes(let inode), .entry(let told)):
                return try attributes(of: inode) == told
            case (.readLink(let inode), .bytes(let told)): return try readLink(inode) == told
            case (
                .readDirectory(let inode, let after, let limit, let full),
                .directory(let told, let end)
            ):
                let page = try readDirectory(
                    inode, after: after, limit: limit, withAttributes: full)
                return page.entries == told && page.atEnd == end
            case (.extendedAttribute(let inode, let name), .bytes(let told)):
                return try extendedAttribute(inode, name) == told
            case (.open(let inode), .opened(let told, let place)):
                let count = UInt32(Limits.chunksPerAllocation)
                let layout = try layout(inode, first: 0, count: count)
                let attributes = try attributes(of: inode)
                return attributes == told && layout.withoutSets == place.withoutSets
            default: return try refuses(query, with: reply)
            }
        } catch {
            return reply == .failed(error)
        }
    }
    /// An answer that is no success: asking must throw.
    private func refuses(
        _ query: MetadataQuery, with reply: MetadataReply
    ) throws(FileError) -> Bool {
        switch query {
        case .lookup(let parent, let name): _ = try lookup(parent, name)
        case .attributes(let inode), .open(let inode): _ = try attributes(of: inode)
        case .readLink(let inode): _ = try readLink(inode)
        case .readDirectory(let inode, let after, let limit, let full):
            _ = try readDirectory(inode, after: after, limit: limit, withAttributes: full)
        case .extendedAttribute(let inode, let name): _ = try extendedAttribute(inode, name)
        default: return true
        }
        return false
    }
}
