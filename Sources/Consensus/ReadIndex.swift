// Reads that are as fresh as if they went through the log (M10).
//
// Invariants:
//  1. A nonce is used once; a retry gets a new one.
//  2. A read is ready when a majority answered a probe that left after the read came, in the
//     ballot in which it came.
//
// A probe goes to as few peers as make a majority, those that were quick; one in 16, and each
// retry, goes to all of them and shows who is quick.

import Base

/// A question to some peers, whether they still obey the leader.
struct Probe {
    var nonce: UInt64
    var peers: [MasterID]
}

/// The leader's reads that wait for a probe.
struct ReadIndex: Hashable {
    /// A read, or all reads of one turn of the host.
    private struct Waiting: Hashable {
        var tag: PaxosTag
        var nonce: UInt64
        var index: Slot
    }
    /// The highest nonce that a peer answered.
    private struct Answer: Hashable {
        var peer: MasterID
        var nonce: UInt64
    }
    /// A probe that went to all.
    private struct Race: Hashable {
        var nonce: UInt64
        var answers: Int
    }
    private var waiting: [Waiting] = []
    /// The quick peers first.
    private var answers: [Answer]
    /// How many peers make a quorum with the leader.
    private let others: Int
    private var nonce: UInt64 = 0
    private var lastProbe = Instant.zero
    /// The last probe that went to all, and how many answers to it came.
    private var race = Race(nonce: 0, answers: 0)

    init(peers: [MasterID], others: Int) {
        answers = peers.map { Answer(peer: $0, nonce: 0) }
        self.others = others
    }

    /// Attaches a read to a new probe; nil when too many wait (S10).
    mutating func attach(_ tag: PaxosTag, index: Slot, now: Instant) -> Probe? {
        guard waiting.count < Limits.waitingReads else { return nil }
        let probe = probe(toAll: nonce.isMultiple(of: 16), now: now)
        waiting.append(Waiting(tag: tag, nonce: nonce, index: index))
        return probe
    }
    /// A new probe for reads whose own got no answer in time; an answer to it serves them all.
    mutating func retry(now: Instant) -> Probe? {
        guard !waiting.isEmpty, now - lastProbe >= Limits.masterHeartbeat else { return nil }
        return probe(toAll: true, now: now)
    }
    private mutating func probe(toAll: Bool, now: Instant) -> Probe {
        nonce += 1
        lastProbe = now
        if toAll { race = Race(nonce: nonce, answers: 0) }
        let peers = answers.prefix(toAll ? answers.count : others).map(\.peer)
        return Probe(nonce: nonce, peers: peers)
    }
    mutating func answered(by peer: MasterID, nonce answer: UInt64) {
        guard answer <= nonce, let index = answers.firstIndex(where: { $0.peer == peer }) else {
            return
        }
        answers[index].nonce = max(answers[index].nonce, answer)
        guard answer == race.nonce, index >= race.answers else { return }
        answers.insert(answers.remove(at: index), at: race.answers)
        race.answers += 1
    }
    /// Takes the reads that are ready.
    mutating func takeReady() -> [PaxosEffect] {
        guard !waiting.isEmpty else { return [] }
        let proven =
            others == 0 ? nonce : answers.map(\.nonce).sorted(by: >)[others - 1]
        let count = waiting.prefix { $0.nonce <= proven }.count
        defer { waiting.removeFirst(count) }
        return waiting.prefix(count).map { .readReady($0.tag, $0.index) }
    }
    /// The leadership is over.
    func failAll() -> [PaxosEffect] { waiting.map { .readFailed($0.tag) } }
}
