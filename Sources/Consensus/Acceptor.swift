// What a master promised and accepted: its log, in memory and on disk.
//
//   message      condition                     action
//   prepare b    b < promised                  refuse
//                b = promised                  promise again, when durable
//                b > promised                  persist b, then promise
//   sync b       b ≠ promised                  refuse if below, else nothing
//                accepted = b                  answer how far the log is (M20)
//                page follows what was staged  persist; with the last page the log is replaced
//   accept b     b ≠ promised                  refuse if below, else nothing
//                b ≠ accepted                  promise again, to be synced again
//                entries follow the log        persist; accepted when durable
//                they do not                   say where the log ends
//
// Invariants:
//  1. promised ≥ accepted; both only rise (M1).
//  2. Nothing is told before the record that it depends on is durable (S2): it waits in `pending`
//     for its ticket.
//  3. A sync changes log and `accepted` when its last page is there, and counts when its syncEnd
//     is durable (M3); within one ballot the log never shrinks (M20).
//  4. Chosen entries never change.
//  5. What it knows of the start of configurations only rises, and is durable before a promise
//     that came with it. With the stop entry in its log it obeys no earlier configuration (M17).

import Base

/// The state of one acceptor.
struct Acceptor: Hashable {
    /// What becomes true when a ticket is durable.
    enum Waiting: Hashable {
        case promised(Ballot, to: MasterID?)
        case appended(Ballot, end: Slot)
        case mended
    }
    private struct Pending: Hashable {
        var ticket: PaxosTicket
        var waiting: Waiting
    }
    /// A sync whose last page has not come yet.
    private struct Staging: Hashable {
        var sequence: UInt64
        var keepThrough: Slot
        var entries: [PaxosEntry]
        var received: Slot
        var hash: EntryHash
    }

    let id: MasterID
    let disk: DiskID
    /// False when its disk has lost records: it neither promises nor accepts.
    private(set) var isTrusted: Bool
    /// All that it lost is what these entries say: it asks others for that, and is trusted again
    /// when it has all. Empty also while the last of it is on its way to the disk.
    var missing: [Slot] = []
    private(set) var isMending = false
    private(set) var promised = Ballot.none
    /// The highest ballot whose promise is durable.
    private(set) var promiseDurable = Ballot.none
    /// The ballot of the last sync.
    private(set) var accepted = Ballot.none
    var log: PaxosLog
    /// How much of the log is durable in `accepted`.
    private(set) var durable = Slot.none
    /// Every slot up to here is chosen; at most the end of the log.
    private(set) var chosen = Slot.none
    /// Up to here the host has heard of them.
    private(set) var delivered = Slot.none
    /// The last configuration that is known to have begun.
    private(set) var started: ConfigurationStart
    private var staging: Staging?
    private var pending: [Pending] = []
    private var lastTicket = PaxosTicket(rawValue: 0)
    /// The last `chosen` that went to the disk.
    private var hinted = Slot.none
    /// How often the hint is written.
    private static let hintEvery: UInt64 = 128

    var state: PromiseState {
        PromiseState(
            accepted: accepted, start: log.start, end: log.end, chosen: chosen,
            isTrusted: isTrusted, disk: disk)
    }

    // MARK: Recovery

    /// Replays what the disk has behind `base`, in which a configuration was in force. Records that
    /// do not fit together count as damage.
    init(
        id: MasterID, disk: DiskID, configuration: UInt32, base: PaxosBase,
        records: [PaxosRecord], hasRot: Bool
    ) {
        self.id = id
        self.disk = disk
        isTrusted = !hasRot
        started =
            base.started.number < configuration
            ? ConfigurationStart(first: configuration) : base.started
        promised = base.promised
        accepted = base.accepted
        log = PaxosLog(start: base.slot, hash: base.hash)
        var hint = base.slot
        for record in records where isTrusted { isTrusted = replay(record, &hint) }
        if !isTrusted {
            log = PaxosLog(start: base.slot, hash: base.hash)
            accepted = .none
            hint = base.slot
        }
        staging = nil
        missing = log.bare
        isMending = !missing.isEmpty
        if isMending { isTrusted = false }
        promiseDurable = promised
        durable = log.end
        chosen = min(hint, log.end)
        delivered = base.slot
        if hasStart {
            chosen = max(chosen, started.slot)
            promised = max(promised, floor)
            promiseDurable = promised
        }
        hinted = chosen
    }

    private mutating func replay(_ record: PaxosRecord, _ hint: inout Slot) -> Bool {
        switch record {
        case .promise(let ballot):
            guard ballot >= promised else { return false }
            promised = ballot
            staging = nil
        case .entry(let entry):
            guard entry.isSound || entry.body.isEmpty else { return false }
            if staging != nil { return stage(entry) }
            if entry.slot <= log.end {
                guard log.has(entry.slot, entry.hash) else { return false }
                if entry.slot > log.start, log[entry.slot].body.isEmpty {
                    _ = log.fill(entry.slot, entry.body)
                }
                return true
            }
            guard entry.slot == log.end.next, entry.previous == log.hash(at: log.end) else {
                return false
            }
            log.append(entry)
        case .syncBegin(let ballot, let keep):
            guard ballot >= promised, keep >= log.start, keep <= log.end else { return false }
            promised = ballot
            begin(sequence: 0, keepThrough: keep)
        case .syncEnd(let ballot, let end):
            guard ballot == promised, let staged = staging, staged.received == end else {
                return false
            }
            install(ballot)
        case .chosen(let slot): hint = max(hint, slot)
        case .started(let start): if start.number > started.number { started = start }
        case .installed(let slot, let hash):
            // Unless the snapshot is there, what this master told since is lost.
            guard log.has(slot, hash) else { return false }
            staging = nil
            hint = max(hint, slot)
        }
        return true
    }

    private mutating func begin(sequence: UInt64, keepThrough: Slot) {
        staging = Staging(
            sequence: sequence, keepThrough: keepThrough, entries: [], received: keepThrough,
            hash: log.hash(at: keepThrough))
    }
    private mutating func stage(_ entry: PaxosEntry) -> Bool {
        guard entry.slot == staging?.received.next, entry.previous == staging?.hash else {
            return false
        }
        staging?.entries.append(entry)
        staging?.received = entry.slot
        staging?.hash = entry.hash
        return true
    }
    private mutating func install(_ ballot: Ballot) {
        guard let staged = staging else { preconditionFailure("no sync to install") }
        log.truncate(to: staged.keepThrough)
        for entry in staged.entries { log.append(entry) }
        accepted = ballot
        staging = nil
    }

    // MARK: Snapshots

    /// What a start from a snapshot of this slot goes on with.
    func base(at slot: Slot) -> PaxosBase {
        PaxosBase(
            slot: slot, hash: log.hash(at: slot), promised: promised, accepted: accepted,
            started: started)
    }

    /// Writes again what is above the slot: records up to here are not needed any more by a
    /// start from `base(at: slot)`.
    mutating func carry(above slot: Slot, _ effects: inout [PaxosEffect]) {
        if staging != nil {
            // On the disk a promise ends it too; the leader begins it again.
            staging = nil
            persist(.promise(promised), &effects)
        }
        var next = slot.next
        while next <= log.end {
            persist(.entry(log[next]), &effects)
            next = next.next
        }
    }

    /// The snapshot of others up to this slot takes the place of what was delivered; entries
    /// above stay where they follow it, and so does the ballot of the log. `ballot` is one in
    /// which, or before which, all of it was chosen: the leaders of lower ones may not know
    /// it, and are not obeyed any more. Nothing may be on its way to the disk.
    mutating func install(
        _ slot: Slot, _ hash: EntryHash, _ ballot: Ballot, _ effects: inout [PaxosEffect]
    ) {
        precondition(slot > delivered && pending.isEmpty, "a snapshot that must not be installed")
        staging = nil
        if ballot > promised {
            promised = ballot
            // The snapshot's manifest has it.
            promiseDurable = ballot
            persist(.promise(ballot), &effects)
        }
        if !log.has(slot, hash) {
            log = PaxosLog(start: slot, hash: hash)
            durable = slot
        }
        chosen = max(chosen, slot)
        hinted = chosen
        delivered = slot
        persist(.installed(slot, hash), &effects)
    }

    /// Drops delivered entries up to the slot from memory, some at a time.
    mutating func forget(through slot: Slot) { log.forget(through: min(slot, delivered)) }

    /// Its disk has lost what it told: it does not vote any more.
    mutating func distrust() { isTrusted = false }

    // MARK: Promises

    mutating func prepare(_ ballot: Ballot, from: MasterID, _ effects: inout [PaxosEffect]) {
        guard isTrusted else { return }
        guard ballot >= promised else {
            effects.append(.send(from, .refuse(promised)))
            return
        }
        if ballot > promised {
            promise(ballot, to: from, &effects)
        } else {
            repeatPromise(to: from, &effects)
        }
    }

    /// Tells again what was promised, once it is durable (S2): else a loss of power would make
    /// this disk look like an old copy (masters seed 583).
    private mutating func repeatPromise(to: MasterID, _ effects: inout [PaxosEffect]) {
        if promiseDurable == promised {
            effects.append(.send(to, .promise(promised, state)))
        } else {
            wait(.promised(promised, to: to))
        }
    }

    /// Promises a ballot; a candidate's own promise is to nobody.
    mutating func promise(_ ballot: Ballot, to: MasterID?, _ effects: inout [PaxosEffect]) {
        precondition(isTrusted && ballot > promised, "promise goes back")
        promised = ballot
        staging = nil
        persist(.promise(ballot), &effects)
        wait(.promised(ballot, to: to))
    }

    /// Whether a message of a leader is in the promised ballot; others are refused: a lower one
    /// is over, and a higher one is not known here, since this disk is new (M18).
    func obeys(_ ballot: Ballot, from: MasterID, _ effects: inout [PaxosEffect]) -> Bool {
        guard isTrusted else { return false }
        if ballot != promised { effects.append(.send(from, .refuse(promised))) }
        return ballot == promised
    }

    // MARK: Entries

    /// Takes a page of a sync (M2, M3).
    mutating func sync(_ page: SyncPage, from: MasterID, _ effects: inout [PaxosEffect]) {
        guard obeys(page.ballot, from: from, &effects) else { return }
        guard accepted < page.ballot else {
            answer(to: from, hasGap: false, &effects)
            return
        }
        if (staging?.sequence ?? 0) < page.sequence, !start(page, &effects) {
            repeatPromise(to: from, &effects)
            return
        }
        guard staging?.sequence == page.sequence else { return }
        for entry in page.entries where entry.slot == staging?.received.next {
            guard entry.slot > chosen || log.has(entry.slot, entry.hash), stage(entry) else {
                effects.append(.diverged(entry.slot))
                staging = nil
                return
            }
            persist(.entry(entry), &effects)
        }
        guard let received = staging?.received else { return }
        let end = page.entries.last?.slot ?? page.keepThrough
        guard page.isLast, received == end else {
            let answer = PaxosMessage.syncProgress(
                page.ballot, sequence: page.sequence, received: received)
            effects.append(.send(from, answer))
            return
        }
        finish(page.ballot, end, &effects)
        learn(page.chosen)
    }

    /// Begins a sync with its first page; false if it is another page, or does not fit.
    private mutating func start(_ page: SyncPage, _ effects: inout [PaxosEffect]) -> Bool {
        guard page.entries.first?.slot ?? page.keepThrough.next == page.keepThrough.next,
            page.keepThrough >= log.start, page.keepThrough <= log.end
        else { return false }
        guard log.hash(at: page.keepThrough) == page.keepHash else {
            effects.append(.diverged(page.keepThrough))
            return false
        }
        begin(sequence: page.sequence, keepThrough: page.keepThrough)
        persist(.syncBegin(page.ballot, keepThrough: page.keepThrough), &effects)
        return true
    }

    private mutating func finish(
        _ ballot: Ballot, _ end: Slot, _ effects: inout [PaxosEffect]
    ) {
        persist(.syncEnd(ballot, end: end), &effects)
        precondition(end >= chosen, "a sync may not cut chosen entries")
        install(ballot)
        durable = .none
        wait(.appended(ballot, end: end))
    }

    /// The new leader's own sync: `entries` replace its log above `keep` (M2).
    mutating func adopt(
        _ ballot: Ballot, keep: Slot, _ entries: [PaxosEntry], _ effects: inout [PaxosEffect]
    ) {
        precondition(ballot == promised && accepted < ballot && keep >= chosen)
        begin(sequence: 0, keepThrough: keep)
        persist(.syncBegin(ballot, keepThrough: keep), &effects)
        for entry in entries {
            precondition(stage(entry), "adopted log has a gap")
            persist(.entry(entry), &effects)
        }
        finish(ballot, staging?.received ?? keep, &effects)
    }

    /// The leader's next entry; its slot.
    mutating func append(_ content: EntryBody, _ effects: inout [PaxosEffect]) -> PaxosEntry {
        let entry = PaxosEntry(
            slot: log.end.next, ballot: accepted, previous: log.hash(at: log.end),
            content: content)
        add(entry, &effects)
        wait(.appended(accepted, end: entry.slot))
        return entry
    }

    /// Takes entries of the leader (M4).
    mutating func accept(_ page: AcceptPage, from: MasterID, _ effects: inout [PaxosEffect]) {
        guard obeys(page.ballot, from: from, &effects) else { return }
        guard accepted == page.ballot else {
            // A crash took the sync that the leader knows of: it must come again.
            repeatPromise(to: from, &effects)
            return
        }
        guard page.first <= log.end.next else {
            answer(to: from, hasGap: true, &effects)
            return
        }
        let before = Slot(rawValue: page.first.rawValue - 1)
        guard before < log.start || log.hash(at: before) == page.previous else {
            effects.append(.diverged(before))
            return
        }
        let end = log.end
        for entry in page.entries where entry.slot > log.start {
            if entry.slot > log.end, entry.previous == log.hash(at: log.end) {
                add(entry, &effects)
            } else if !log.has(entry.slot, entry.hash) {
                effects.append(.diverged(entry.slot))
                return
            }
        }
        if log.end > end {
            wait(.appended(accepted, end: log.end))
        } else {
            answer(to: from, hasGap: false, &effects)
        }
        learn(page.chosen)
    }

    private mutating func add(_ entry: PaxosEntry, _ effects: inout [PaxosEffect]) {
        if chosen.rawValue >= hinted.rawValue + Self.hintEvery {
            hinted = chosen
            persist(.chosen(chosen), &effects)
        }
        log.append(entry)
        persist(.entry(entry), &effects)
    }

    private func answer(to: MasterID, hasGap: Bool, _ effects: inout [PaxosEffect]) {
        let state = Acceptance(
            ballot: accepted, durable: durable, end: log.end, hasGap: hasGap, disk: disk)
        effects.append(.send(to, .accepted(state)))
    }

    // MARK: Chosen

    /// The leader of `accepted` says, or its followers' votes show, that slots are chosen.
    mutating func learn(_ slot: Slot) { chosen = max(chosen, min(slot, log.end)) }

    /// A configuration has begun, by the word of others or by the log here (M17).
    mutating func note(_ start: ConfigurationStart, _ effects: inout [PaxosEffect]) {
        guard isTrusted, start.number > started.number else { return }
        started = start
        persist(.started(start), &effects)
    }
    private var hasStart: Bool {
        started.slot > .none && log.has(started.slot, EntryHash(started.hash))
    }
    /// Below every ballot of the last configuration.
    private var floor: Ballot {
        Ballot(configuration: started.number, round: 0, node: MasterID(rawValue: 0))
    }
    /// Where the stop entry that began the last configuration is in the log, it is chosen, and so
    /// is all before it; leaders who may not know that are not obeyed any more.
    mutating func learnStart(_ effects: inout [PaxosEffect]) {
        guard isTrusted, promised < floor || chosen < started.slot, hasStart else { return }
        chosen = max(chosen, started.slot)
        if promised < floor { promise(floor, to: nil, &effects) }
    }

    /// The next chosen entry that the host has not heard of (each exactly once, in order).
    mutating func deliver() -> PaxosEntry? {
        guard delivered < chosen, !isMending else { return nil }
        delivered = delivered.next
        return log[delivered]
    }

    // MARK: Disk

    mutating func persist(_ record: PaxosRecord, _ effects: inout [PaxosEffect]) {
        lastTicket = PaxosTicket(rawValue: lastTicket.rawValue + 1)
        effects.append(.persist(record, lastTicket))
    }
    mutating func wait(_ waiting: Waiting) {
        pending.append(Pending(ticket: lastTicket, waiting: waiting))
    }

    /// Everything up to `ticket` is on disk: tells what waited for it.
    mutating func persisted(through ticket: PaxosTicket, _ effects: inout [PaxosEffect]) {
        let count = pending.prefix { $0.ticket <= ticket }.count
        var moved = false
        for item in pending.prefix(count) {
            switch item.waiting {
            case .promised(let ballot, let to):
                promiseDurable = max(promiseDurable, ballot)
                if let to, ballot == promised {
                    effects.append(.send(to, .promise(ballot, state)))
                }
            case .appended(let ballot, let end):
                guard ballot == accepted else { continue }
                durable = end
                moved = true
            case .mended: (isMending, isTrusted) = (false, true)
            }
        }
        pending.removeFirst(count)
        if moved, accepted.node != id { answer(to: accepted.node, hasGap: false, &effects) }
    }
}
