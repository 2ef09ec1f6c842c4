// The threads of a client: one writes out what lies around, one sends again what had no answer,
// one keeps the session alive.

import Base
import Caching
import Logging
import Synchronization
import Wire

extension DataPath {
    /// Dirty bytes are sent, and acknowledged ones settled, when they are so old.
    private static let age = Interval.seconds(1)
    /// The same while memory is short.
    private static let tightAge = Interval.milliseconds(100)
    private static let turn = Interval.milliseconds(250)
    /// How long one file may hold up the others here.
    private static let perFile = Interval.seconds(2)

    /// Writes out in the background until the list is closed. For a thread of its own. `clean`
    /// hears of every file that became clean.
    func flushInBackground(clean: (OpenInode) -> Void) {
        while let nodes = flushList.next(atMost: Self.turn) {
            for node in nodes {
                tend(node)
                if flushList.removeClean(node) { clean(node) }
            }
        }
    }

    private func tend(_ node: OpenInode) {
        if node.session.isDead { return node.change { $0.buffer.abandon(.io) } }
        let isTight = budget.isTight
        let old = BootClock.now() + (isTight ? Self.tightAge : Self.age) * -1
        let (blocks, isStranded, mustExtend) = node.change { state in
            let ready = state.buffer.takeReady()
            let blocks = ready + state.buffer.demand(dirtySince: old)
            let isOld = state.buffer.unsettledSince.map { $0 <= old } ?? false
            let isMuch = state.buffer.unsettledBytes >= budget.settleBytes
            let canRestore = state.buffer.isStranded && !state.buffer.hasOpenFlights
            return (blocks, canRestore, isOld || isMuch)
        }
        let patience = Patience(Self.perFile)
        do throws(FileError) {
            try send(blocks, of: node, patience)
            if isStranded { try restore(node, patience) }
            if mustExtend { _ = try extend(node, patience) }
        } catch {
            // Out of time: all of it is still there for the next turn, or for a flush.
            Self.log.debug("inode \(node.inode): not written out yet: \(error)")
        }
    }
}

/// The threads of a client, from `connect` to `close`.
final class ClientThreads: Sendable {
    private struct State {
        var threads: [BackgroundThread] = []
        var isClosed = false
    }
    private let state = Monitor(State())

    /// Starts a thread.
    func start(_ body: @escaping @Sendable () -> Void) {
        let thread = BackgroundThread(body)
        state.withLock { $0.threads.append(thread) }
    }
    /// Waits so long; false when the client closes.
    func pause(_ interval: Interval) -> Bool {
        state.wait(atMost: interval) { $0.isClosed ? () : nil } == nil
    }
    /// Waits for all threads; their work must be ended first.
    func close() {
        let threads = state.update { state in
            state.isClosed = true
            defer { state.threads = [] }
            return state.threads
        }
        for thread in threads { thread.join() }
    }
}
