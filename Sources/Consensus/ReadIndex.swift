// Reads that are as fresh as if they went through the log (M10).
//
// Invariants:
//  1. A nonce is used once; a retry gets a new one.
//  2. A read is ready when a majority answered a probe that left after the read came, in the
//     ballot in which it came.

import Base

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
    private var waiting: [Waiting] = []
    private var answers: [Answer]
    private var nonce: UInt64 = 0
    private var lastProbe = Instant.zero

    init(peers: [MasterID]) { answers = peers.map { Answer(peer: $0, nonce: 0) } }

    /// Attaches a read to a new probe, whose nonce is returned; nil when too many wait (S10).
    mutating func attach(_ tag: PaxosTag, index: Slot, now: Instant) -> UInt64? {
        guard waiting.count < Limits.waitingReads else { return nil }
        nonce += 1
        lastProbe = now
        waiting.append(Waiting(tag: tag, nonce: nonce, index: index))
        return nonce
    }
    /// A new probe for reads whose own got no answer in time; an answer to it serves them all.
    mutating func retry(now: Instant) -> UInt64? {
        guard !waiting.isEmpty, now - lastProbe >= Limits.masterHeartbeat else { return nil }
        nonce += 1
        lastProbe = now
        return nonce
    }
    mutating func answered(by peer: MasterID, nonce answer: UInt64) {
        guard answer <= nonce, let index = answers.firstIndex(where: { $0.peer == peer }) else {
            return
        }
        answers[index].nonce = max(answers[index].nonce, answer)
    }
    /// Takes the reads that are ready, where `others` peers make a majority with the leader.
    mutating func takeReady(others: Int) -> [PaxosEffect] {
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
