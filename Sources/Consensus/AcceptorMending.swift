// An acceptor whose disk lost what entries say and nothing else (docs/decisions/0015): slot,
// ballot and hash of each are known, and so is every promise.
//
//   state      event                            next
//   mending    another sends a body that        the body is logged again
//              fits slot and hash
//   mending    the last one is durable          sound: it goes on where it ended
//   mending    nobody has a body                the host may let the log go (M18)
//
// Invariant: while it is mending it is as good as down: it promises, accepts and delivers nothing.
// So it never tells of a log that lacks what it accepted.

import Base

extension Acceptor {
    /// What it asks the others for next.
    var wanted: (slot: Slot, hash: EntryHash)? {
        missing.first.map { ($0, log.hash(at: $0)) }
    }

    /// Whom its log names as masters, as the last entry about each does. Until it is sound it can't
    /// tell who of them still is one, so it asks them all (masters seed 100144).
    var named: [MasterMember] {
        guard isMending else { return [] }
        var named: [MasterMember] = []
        var slot = log.end
        while slot > log.start {
            for member in log[slot].membership?.members ?? []
            where member.id != id && !named.contains(where: { $0.id == member.id }) {
                named.append(member)
            }
            slot = Slot(rawValue: slot.rawValue - 1)
        }
        return named
    }

    /// Takes bodies of others: only those that it had have these hashes.
    mutating func mend(with page: [PaxosEntry], _ effects: inout [PaxosEffect]) {
        let found = page.filter {
            missing.contains($0.slot) && log.has($0.slot, $0.hash) && !$0.body.isEmpty
        }
        guard !found.isEmpty else { return }
        // On the disk a sync may have been cut short: a promise ends it.
        persist(.promise(promised), &effects)
        for entry in found { persist(.entry(log.fill(entry.slot, entry.body)), &effects) }
        missing.removeAll { slot in found.contains { $0.slot == slot } }
        if missing.isEmpty { wait(.mended) }
    }

    /// What another asks for, and what follows, if it is here.
    func page(from slot: Slot, _ hash: EntryHash) -> [PaxosEntry] {
        guard slot > log.start, log.has(slot, hash) else { return [] }
        return Array(log.page(from: slot).prefix { !$0.body.isEmpty })
    }
}
