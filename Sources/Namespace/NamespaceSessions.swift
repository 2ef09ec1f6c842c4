// Sessions: exactly once (M12), terms (M14), and the files they hold open (K13).
//
//   state     event                               next      effect
//   (none)    openSession(nonce)                  live      a new id, a full term
//   live      openSession(its nonce)              live      the same id
//   live      renewSession, begin                 live      a full term from now
//   live      tick at or after the deadline       (none)    its orphans are released; fenced (C16)
//   live      closeSession                        (none)    its orphans are released
//   (none)    client change                       (none)    sessionDead, nothing is executed

package import Base

/// Orphans that one renewal names; the others follow when these are released.
private let orphansPerReply = 65_536

extension Namespace {
    /// Executes a numbered change once and remembers its outcome until the client has it.
    mutating func applyOnce(
        _ id: SessionID, _ number: RequestNumber, _ firstIncomplete: RequestNumber,
        _ change: Change
    ) -> Outcome {
        let known: Outcome?? = sessions.update(id) { session in
            if firstIncomplete > session.firstIncomplete {
                session.firstIncomplete = firstIncomplete
                session.replies.removeFirst(session.position(firstIncomplete))
            }
            if number < session.firstIncomplete { return .forgotten }
            let window = UInt64(Limits.repliesPerSession)
            if number.rawValue - session.firstIncomplete.rawValue >= window { return .retry }
            let index = session.position(number)
            guard index < session.replies.count, session.replies[index].number == number
            else { return nil }
            return session.replies[index].outcome
        }
        guard let known else { return .sessionDead }
        if let known { return known }
        let outcome: Outcome
        do throws(FileError) {
            outcome = try perform(change, by: id)
        } catch {
            outcome = .failed(error)
        }
        // A renewal may be repeated, and its list would be long to keep.
        guard outcome != .retry, change != .renewSession else { return outcome }
        sessions.update(id) { session in
            session.replies.insert(
                Session.Reply(number: number, outcome: outcome), at: session.position(number))
        }
        return outcome
    }

    /// Whether a change would not be executed any more: it was, or its session is over.
    package func isSettled(_ id: SessionID, _ number: RequestNumber) -> Bool {
        guard let session = sessions[id], number >= session.firstIncomplete else { return true }
        let index = session.position(number)
        return index < session.replies.count && session.replies[index].number == number
    }

    mutating func openSession(_ nonce: UInt64, _ label: String) -> Outcome {
        if let known = nonces[nonce] { return .session(known.session, time: time) }
        guard sessions.count < Limits.sessions else { return .failed(.busy) }
        lastSession += 1
        let id = SessionID(rawValue: lastSession)
        sessions.insert(
            Session(id: id, nonce: nonce, label: label, deadline: time + Limits.sessionTerm))
        nonces.insert(SessionNonce(nonce: nonce, session: id))
        return .session(id, time: time)
    }

    mutating func renew(_ id: SessionID) -> Outcome {
        sessions.update(id) { [time] in $0.deadline = time + Limits.sessionTerm }
        return .orphans(orphans(of: id), time: time)
    }

    mutating func extendSessions() {
        for id in sessions.map(\.id) {
            sessions.update(id) { [time] in $0.deadline = time + Limits.sessionTerm }
        }
    }

    mutating func expireSessions() {
        let expired = sessions.lazy.filter { [time] in $0.deadline <= time }.map(\.id)
        for id in Array(expired) {
            endSession(id)
            // It may not know yet; one that closed has nothing more to write.
            lastFence += 1
            fences.append(id)
        }
        fences.removeFirst(max(0, fences.count - Limits.fences))
    }

    /// Sessions that expired, of all that ever did the last ones.
    package var fencedSessions: [SessionID] { fences }
    /// How many sessions ever expired.
    package var fenceVersion: UInt64 { lastFence }

    mutating func endSession(_ id: SessionID) {
        guard let session = sessions.remove(id) else { return }
        nonces.remove(session.nonce)
        let first = Holding(session: id, inode: InodeID(rawValue: 0))
        let held = holdings.elements(from: first).prefix { $0.session == id }.map(\.inode)
        for inode in held { release(inode, by: id) }
    }

    /// Orphans that the session holds, in ascending order, the first 65,536.
    package func orphans(of id: SessionID) -> [InodeID] {
        var held: [InodeID] = []
        let first = Holding(session: id, inode: InodeID(rawValue: 0))
        for holding in holdings.elements(from: first) {
            guard holding.session == id, held.count < orphansPerReply else { break }
            held.append(holding.inode)
        }
        return held
    }

    /// The last link is gone: the inode goes too, or waits for the sessions that have it open.
    mutating func orphan(_ inode: InodeID, _ holders: [SessionID]) {
        let living = Set(holders).sorted().filter { sessions.contains($0) }
        guard !living.isEmpty else { return removeInode(inode) }
        orphans.insert(Orphan(inode: inode, holders: UInt32(living.count)))
        for session in living { holdings.insert(Holding(session: session, inode: inode)) }
    }

    mutating func release(_ inode: InodeID, by session: SessionID) {
        guard holdings.remove(Holding(session: session, inode: inode)) != nil else { return }
        let left = orphans.update(inode) { orphan in
            orphan.holders -= 1
            return orphan.holders
        }
        guard left == 0 else { return }
        orphans.remove(inode)
        removeInode(inode)
    }
}
