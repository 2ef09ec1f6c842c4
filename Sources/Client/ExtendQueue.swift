// The sizes and mtimes of several files in one change: while one is on its way, the next fills.
//
// Invariants:
//  1. One Extend of a session is on its way at a time; what comes meanwhile leaves together. While
//     more is about to come, the next one leaves no sooner than twice the time the last one took.
//  2. Each file has an answer of its own, and who gives up takes nobody along: the others of his
//     change tell it again with the next one.
//  3. The order of the locks is queue, then change.

import Base

/// One change. Who joins first sends it, the others wait for its answer.
private final class ExtendChange: Sendable {
    enum Answer {
        /// One for each file, in the order in which they joined.
        case outcomes([FileEndOutcome])
        /// By the masters, for good.
        case refused(FileError)
        case givenUp
    }
    struct State {
        var files: [FileEnd] = []
        var isClosed = false
        var answer: Answer?
    }
    let state = Monitor(State())

    /// The place of a file in it; nil if it is full or on its way.
    func join(_ file: FileEnd) -> Int? {
        state.withLock { state in
            guard !state.isClosed, state.files.count < Limits.extendedFiles else { return nil }
            state.files.append(file)
            return state.files.count - 1
        }
    }
    /// Nobody can join any more. Returns who did.
    func close() -> [FileEnd] {
        state.withLock { state in
            state.isClosed = true
            return state.files
        }
    }
    func end(_ answer: Answer) {
        state.update { state in
            state.isClosed = true
            state.answer = answer
        }
    }
}

/// What the files of one session have to tell the masters.
final class ExtendQueue: Sendable {
    /// So many files are worth waiting for, but no longer than this.
    private static let worthwhile = 4
    private static let longest = Interval.milliseconds(2)

    private struct State {
        var next = ExtendChange()
        var isSending = false
        /// Flushes whose data is on its way.
        var coming = 0
        var last = (sent: Instant.zero, answered: Instant.zero)

        /// How long the next change waits for more files.
        var pause: Interval {
            guard coming >= worthwhile else { return .zero }
            let next = last.answered + (last.answered - last.sent)
            return min(next - BootClock.now(), longest)
        }
    }
    private let state = Monitor(State())

    /// The caller tells of a file soon: after `body`, which brings its data into safety.
    func expecting<Result>(
        _ body: () throws(FileError) -> Result
    ) throws(FileError) -> Result {
        state.withLock { $0.coming += 1 }
        defer { state.withLock { $0.coming -= 1 } }
        return try body()
    }

    /// Tells the masters of one file; `send` sends a change and returns an answer for each of its
    /// files. Errors: those of `send`, interrupted, timedOut.
    func tell(
        _ file: FileEnd, _ patience: Patience,
        send: ([FileEnd]) throws(FileError) -> [FileEndOutcome]
    ) throws(FileError) -> FileEndOutcome {
        while true {
            let (change, place) = state.withLock { state -> (ExtendChange, Int) in
                if let place = state.next.join(file) { return (state.next, place) }
                state.next = ExtendChange()
                return (state.next, state.next.join(file) ?? 0)
            }
            if place == 0 { try lead(change, patience, send) }
            switch try change.state.wait(patience, { $0.answer }) {
            case .outcomes(let outcomes): return outcomes[place]
            case .refused(let error): throw error
            case .givenUp: continue
            }
        }
    }

    /// Waits for the turn of a change and sends it.
    private func lead(
        _ change: ExtendChange, _ patience: Patience,
        _ send: ([FileEnd]) throws(FileError) -> [FileEndOutcome]
    ) throws(FileError) {
        var answer = ExtendChange.Answer.givenUp
        defer { change.end(answer) }
        let pause = try state.wait(patience) { state -> Interval? in
            guard !state.isSending else { return nil }
            state.isSending = true
            return state.pause
        }
        // The next change leaves before those who wait for this one wake.
        defer { state.update { $0.isSending = false } }
        if pause > .zero { try patience.pause(pause) }
        let sent = BootClock.now()
        defer { state.withLock { $0.last = (sent, BootClock.now()) } }
        do throws(FileError) {
            answer = .outcomes(try send(change.close()))
        } catch {
            if error == .interrupted || error == .timedOut { throw error }
            answer = .refused(error)
        }
    }
}
