// Fences: a session that the masters' log let expire writes no more (C16). The list comes with the
// masters' orders, and before any configuration in them, so a new primary has it before it serves.
// It refuses such writes at once, and logs the end of the session's writes in each of its sets
// that knows the session: a record of the session without content, whose number is the last and
// below which nothing is open. That stays in what the set remembers of the session (C15), on
// every member, also when the masters have forgotten the fence.

import Base
import Replication
import Store
import Wire

/// The sessions that may not write any more.
struct Fences: Sendable {
    /// Of the list that the masters sent last; 0: none came since the start.
    private(set) var version: UInt64 = 0
    /// Ascending.
    private(set) var sessions: [SessionID] = []
    /// Sets whose primary this disk is that are to be gone over.
    var due: [Int] = []

    /// Takes over a list; false if it is no news.
    mutating func install(_ list: FenceList) -> Bool {
        guard let listed = list.sessions, list.version > version else { return false }
        version = list.version
        sessions = listed.sorted()
        return true
    }

    func contains(_ session: SessionID) -> Bool {
        var low = 0
        var high = sessions.count
        while low < high {
            let middle = (low + high) / 2
            if sessions[middle] < session { low = middle + 1 } else { high = middle }
        }
        return low < sessions.count && sessions[low] == session
    }
}

extension ChunkServerCore {
    /// The number of the record that ends the writes of a session.
    private static var end: RequestNumber { RequestNumber(rawValue: .max) }

    /// Takes over the masters' list. False: this server must hear of it before it becomes the
    /// primary of anything.
    mutating func install(_ list: FenceList) -> Bool {
        if fences.install(list) {
            fences.due = sets.indices.filter { sets[$0].replica.isPrimary }
            leader.isUrgent = true
        }
        if list.version > fences.version { leader.isUrgent = true }
        return list.version <= fences.version
    }

    /// Whether the session's writes are over, by the list or by the set's own log.
    func isFenced(_ session: SessionID, _ index: Int) -> Bool {
        fences.contains(session) || hasEnded(session, index)
    }

    private func hasEnded(_ session: SessionID, _ index: Int) -> Bool {
        let replica = sets[index].replica
        let before = RequestNumber(rawValue: Self.end.rawValue - 1)
        return store.duplicate(replica.set, session, before) == .forgotten
    }

    /// Logs the ends that are missing.
    mutating func logFences() {
        guard !fences.due.isEmpty else { return }
        let due = fences.due
        fences.due = []
        for index in due where sets[index].replica.isPrimary {
            for session in fences.sessions where isOpen(session, index) {
                guard sets[index].replica.takesWrites else {
                    fences.due.append(index)
                    break
                }
                let draft = RecordDraft(
                    session: session, sequence: Self.end, firstUnacked: Self.end, truncation: 0,
                    body: .nothing)
                step(index, .write(tag: newTag(.fence), [draft]))
            }
        }
    }

    /// The set knows the session, and not that it has ended.
    private func isOpen(_ session: SessionID, _ index: Int) -> Bool {
        let replica = sets[index].replica
        return store.duplicate(replica.set, session, RequestNumber(rawValue: 0)) == .forgotten
            && !hasEnded(session, index)
    }
}
