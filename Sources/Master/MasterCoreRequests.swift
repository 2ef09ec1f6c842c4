// Clients' requests: questions wait for a read index, changes for their turn in the log.
//
// Invariants:
//  1. Who opens a file counts as its holder from the moment the request came, so every removal
//     that is proposed later knows (K13); a removal that was proposed earlier is applied first.
//  2. Where the leader can't know what a name will stand for, or who has files open since before
//     its time, it names more holders, never fewer.

import Base
import Consensus
import Namespace
import Node
import Wire

extension MasterCore {
    /// Changes that wait for their batch, and entries that are undecided at a time (S10, M7).
    private static let queueBound = 8_192
    private static let batchesInFlight = 8

    mutating func reply(_ reply: MetadataReply, to address: ReplyAddress) {
        var frame = reply.frame(request: address.request)
        if frame.head.count > Limits.frameHead {
            frame = MetadataReply.failed(.invalid).frame(request: address.request)
        }
        send(address.peer, frame)
    }

    mutating func receiveRequest(_ frame: Frame, from peer: Peer) {
        let address = ReplyAddress(peer: peer, request: frame.request)
        let request: MetadataRequest
        do throws(DecodeError) {
            request = try MetadataRequest(frame)
        } catch {
            report("bad request from \(peer): \(error)")
            return reply(.failed(.invalid), to: address)
        }
        if request.body == .query(.masters) { return reply(.masters(mastersView), to: address) }
        guard lead != nil else {
            let hint = paxos?.leaderHint(now: time.now)
            return reply(.notLeader(hint, masters.membership), to: address)
        }
        switch request.body {
        case .query(.order(let order)): receiveOrder(order, from: address)
        case .query(.snapshot(let slot)): answerSnapshot(since: slot, to: address)
        case .query(.part(let mark, let part, let offset)):
            serve(mark, part, offset, to: .client(address))
        case .query(let query): receiveQuery(query, request.session, address)
        case .change(let change):
            if let refusal = refusal(of: request, change) { return reply(refusal, to: address) }
            if (lead?.changes.count ?? 0) >= Self.queueBound {
                return reply(.retry, to: address)
            }
            lead?.changes.append(
                QueuedChange(address: address, request: request, change: change))
        }
    }

    private mutating func receiveQuery(
        _ query: MetadataQuery, _ session: SessionID, _ address: ReplyAddress
    ) {
        guard (lead?.queries.count ?? 0) < Self.queueBound else {
            return reply(.retry, to: address)
        }
        var barrier = PaxosTag(rawValue: 0)
        switch query {
        case .close(let inode):
            lead?.files.close(inode, by: session)
            return reply(.done, to: address)
        case .open(let inode):
            guard namespace.hasSession(session) else {
                return reply(.sessionDead, to: address)
            }
            lead?.files.open(inode, by: session)
            barrier = lead?.removalTag ?? barrier
        default: break
        }
        lead?.queries.append(
            QueuedQuery(address: address, session: session, query: query, barrier: barrier))
    }

    // MARK: Reads

    /// Attaches the questions of this turn to one probe, and answers those that are ready.
    mutating func startReads() {
        if let queries = lead?.queries, !queries.isEmpty {
            let tag = newTag()
            lead?.queries = []
            lead?.reads.append(Leadership.Reads(tag: tag, queries: queries))
            carryOut(.readIndex(tag))
        }
        answerReads()
    }

    mutating func failReads(_ tag: PaxosTag) {
        guard let index = lead?.reads.firstIndex(where: { $0.tag == tag }),
            let reads = lead?.reads.remove(at: index)
        else { return }
        for query in reads.queries { refuse(query) }
    }
    private mutating func refuse(_ query: QueuedQuery) {
        if case .open(let inode) = query.query {
            lead?.files.close(inode, by: query.session)
        }
        reply(.retry, to: query.address)
    }

    private mutating func answerReads() {
        guard let lead, lead.reads.contains(where: \.isReady) else { return }
        var left: [Leadership.Reads] = []
        for var reads in lead.reads {
            if reads.isReady {
                for query in reads.queries where query.barrier <= lead.appliedTag {
                    reply(answer(query.query, by: query.session), to: query.address)
                }
                reads.queries.removeAll { $0.barrier <= lead.appliedTag }
            }
            if !reads.queries.isEmpty { left.append(reads) }
        }
        self.lead?.reads = left
    }

    private mutating func answer(
        _ query: MetadataQuery, by session: SessionID
    ) -> MetadataReply {
        do throws(FileError) {
            return try result(of: query)
        } catch {
            if case .open(let inode) = query { lead?.files.close(inode, by: session) }
            return .failed(error)
        }
    }

    private func result(of query: MetadataQuery) throws(FileError) -> MetadataReply {
        switch query {
        case .lookup(let parent, let name): return .entry(try namespace.lookup(parent, name))
        case .attributes(let inode): return .entry(try namespace.attributes(of: inode))
        case .readLink(let inode): return .bytes(try namespace.readLink(inode))
        case .readDirectory(let inode, let cookie, let limit, let withAttributes):
            let page = try namespace.readDirectory(
                inode, after: cookie, limit: limit, withAttributes: withAttributes)
            return .directory(page.entries, atEnd: page.atEnd)
        case .extendedAttribute(let inode, let name):
            return .bytes(try namespace.extendedAttribute(inode, name))
        case .extendedAttributes(let inode):
            return .names(try namespace.extendedAttributes(inode))
        case .layout(let inode, let first, let count):
            return .layout(
                resolve(try namespace.layout(inode, first: first, count: count)))
        case .open(let inode):
            let count = UInt32(Limits.chunksPerAllocation)
            return .opened(
                try namespace.attributes(of: inode),
                resolve(try namespace.layout(inode, first: 0, count: count)))
        case .close: return .done
        case .sets(let sets):
            return .sets(sets.compactMap { namespace.setView($0, isUp: isUp) })
        case .statistics: return .statistics(statistics)
        case .status: return .status(status)
        case .map(let after): return .map(map(after: after))
        case .operations: return .operations(operations)
        case .masters: return .masters(mastersView)
        case .order, .snapshot, .part: preconditionFailure("handled when it came")
        }
    }
    private func resolve(_ layout: Layout) -> Layout { namespace.resolve(layout, isUp: isUp) }

    // MARK: Changes

    /// Turns queued changes and the leader's own commands into entries (M7).
    mutating func propose() {
        while lead != nil, paxos?.isOpen == true,
            (paxos?.undecided ?? 0) < Self.batchesInFlight, hasWork
        {
            let tag = newTag()
            var body = ByteWriter(capacity: 1_024)
            body.write(0 as UInt32)
            var submitted: [Submitted] = []
            while body.count < Limits.entry, let next = nextCommand() {
                Command(time: logTime, action: next.action).encode(into: &body)
                let names = next.action.madeNames
                for name in names { lead?.names[name, default: 0] += 1 }
                if next.action.isRemoval { lead?.removalTag = tag }
                submitted.append(Submitted(purpose: next.purpose, names: names))
            }
            lead?.dropTaken()
            guard !submitted.isEmpty else { return }
            body.patch(UInt32(submitted.count), at: 0)
            lead?.batches.append(Leadership.Batch(tag: tag, commands: submitted))
            carryOut(.propose(tag, body.bytes))
        }
    }
    var logTime: Timestamp { lead?.clock.time ?? time.wall }

    private var hasWork: Bool {
        guard let lead else { return false }
        return !lead.commands.isEmpty || !lead.changes.isEmpty
    }

    /// The leader's own commands go first: they are few, and others wait for them.
    private mutating func nextCommand() -> (action: Command.Action, purpose: Purpose)? {
        if lead?.commands.isEmpty == false { return lead?.commands.removeFirst() }
        while let change = lead?.takeChange() {
            if let action = prepare(change) {
                var opener: SessionID?
                if case .create(_, _, .file, _, _, _, _, _, true) = change.change {
                    opener = change.request.session
                }
                return (action, .client(change.address, opener: opener))
            }
            reply(.retry, to: change.address)
        }
        return nil
    }

    /// Adds to a change what only the leader can choose (M13); nil: it can't be done now.
    private mutating func prepare(_ queued: QueuedChange) -> Command.Action? {
        let change: Change
        switch queued.change {
        case .openSession(let nonce, let label): return .openSession(nonce: nonce, label: label)
        case .create(
            let parent, let name, let kind, let mode, let user, let group, let device,
            let target, _):
            change = .create(
                Creation(
                    parent: parent, name: name, kind: kind, mode: mode, user: user,
                    group: group, device: device, target: target,
                    set: kind == .file ? chooseSet() : nil))
        case .link(let inode, let parent, let name):
            change = .link(inode, parent: parent, name: name)
        case .unlink(let parent, let name):
            change = .unlink(parent: parent, name: name, holders: holders(parent, name))
        case .removeDirectory(let parent, let name):
            change = .removeDirectory(parent: parent, name: name)
        case .rename(let parent, let name, let newParent, let newName, let flags):
            change = .rename(
                parent: parent, name: name, newParent: newParent, newName: newName,
                flags: flags, holders: holders(newParent, newName))
        case .allocate(let inode, let first, let count):
            guard let sets = chooseSets(Int(min(count, UInt32(Limits.chunksPerAllocation))))
            else { return nil }
            change = .allocate(inode, first: first, sets: sets)
        default: change = prepareSimple(queued.change)
        }
        return .client(
            queued.request.session, number: queued.request.number,
            firstIncomplete: queued.request.firstIncomplete, change)
    }

    /// Changes to which the leader has nothing to add.
    private func prepareSimple(_ change: MetadataChange) -> Change {
        switch change {
        case .setAttributes(let inode, let changes): .setAttributes(inode, changes)
        case .truncate(let inode, let size): .truncate(inode, size: size)
        case .extend(let files, let numbers): .extend(files, numbers: numbers)
        case .setExtendedAttribute(let inode, let name, let value, let flags):
            .setExtendedAttribute(inode, name: name, value: value, flags: flags)
        case .removeExtendedAttribute(let inode, let name):
            .removeExtendedAttribute(inode, name: name)
        case .renewSession: .renewSession
        case .releaseOrphans(let inodes): .releaseOrphans(inodes)
        case .closeSession: .closeSession
        case .operate(let operation): .operate(operation)
        case .create, .link, .unlink, .removeDirectory, .rename, .allocate, .openSession:
            preconditionFailure("handled by prepare")
        }
    }

    /// Sessions that may have the file open that a name stands for (K13).
    private func holders(_ parent: InodeID, _ name: [UInt8]) -> [SessionID] {
        guard let lead else { return [] }
        let isInherited = time.now - lead.since < Limits.sessionTerm
        var found: [SessionID] = []
        if isInherited, lead.lastInherited > .none {
            found = namespace.sessionViews.map(\.id).filter { $0 <= lead.lastInherited }
        }
        if lead.names[NamePlace(parent: parent, name: name)] != nil {
            return Set(found + lead.files.sessions).sorted()
        }
        guard !lead.files.sessions.isEmpty,
            let inode = try? namespace.lookup(parent, name).inode
        else { return found }
        return Set(found + lead.files.holders(of: inode)).sorted()
    }
}

extension Leadership {
    fileprivate mutating func takeChange() -> QueuedChange? {
        guard taken < changes.count else { return nil }
        taken += 1
        return changes[taken - 1]
    }
    /// Removes what was taken, all at once: the queue may be long.
    fileprivate mutating func dropTaken() {
        changes.removeFirst(taken)
        taken = 0
    }
}

extension Command.Action {
    /// The names that it makes, or gives to another inode.
    fileprivate var madeNames: [NamePlace] {
        guard case .client(_, _, _, let change) = self else { return [] }
        switch change {
        case .create(let creation):
            return [NamePlace(parent: creation.parent, name: creation.name)]
        case .link(_, let parent, let name): return [NamePlace(parent: parent, name: name)]
        case .rename(let parent, let name, let newParent, let newName, let flags, _):
            let new = NamePlace(parent: newParent, name: newName)
            return flags.contains(.exchange)
                ? [new, NamePlace(parent: parent, name: name)] : [new]
        default: return []
        }
    }
    fileprivate var isRemoval: Bool {
        guard case .client(_, _, _, let change) = self else { return false }
        switch change {
        case .unlink, .rename: return true
        default: return false
        }
    }
}
