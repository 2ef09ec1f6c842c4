// How the ordinary threads of a client share state and wait for each other.
//
// Invariants:
//  1. No lock is held while a thread waits for the network or another thread.
//  2. A waiting call looks at its cancellation every 100 ms.

import Base
import Glibc

/// CLOCK_BOOTTIME, which goes on while the machine sleeps.
enum BootClock {
    static func now() -> Instant {
        var time = timespec()
        clock_gettime(CLOCK_BOOTTIME, &time)
        return Instant(nanoseconds: Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec))
    }
}

/// How long a caller waits.
struct Patience {
    /// A cancelled call notices within this; one that ends sooner is never cut short.
    static let poll = Interval.milliseconds(100)

    /// Nil: for ever.
    let deadline: Instant?
    private let cancellation: Cancellation?
    private let begin = BootClock.now()

    init(deadline: Instant?, cancellation: Cancellation? = nil) {
        self.deadline = deadline
        self.cancellation = cancellation
    }
    init(_ length: Interval) { self.init(deadline: BootClock.now() + length) }

    /// Whether the caller wants to wait no more, and has waited for a poll already.
    var isCancelled: Bool {
        guard let cancellation, cancellation.isCancelled else { return false }
        return BootClock.now() - begin >= Self.poll
    }

    /// The longest that one try may take.
    func bounded(_ interval: Interval) -> Interval {
        guard let deadline else { return interval }
        return max(.milliseconds(1), min(interval, deadline - BootClock.now()))
    }
    /// Errors: interrupted, timedOut.
    func check() throws(FileError) {
        if isCancelled { throw .interrupted }
        if let deadline, BootClock.now() >= deadline { throw .timedOut }
    }
    /// Sleeps. Errors as `check`.
    func pause(_ interval: Interval) throws(FileError) {
        let end = BootClock.now() + interval
        while true {
            try check()
            let left = end - BootClock.now()
            guard left > .zero else { return }
            usleep(UInt32(min(bounded(left), Self.poll).nanoseconds / 1_000 + 1))
        }
    }
}

/// State behind a lock, and threads that wait for it to change.
final class Monitor<State>: @unchecked Sendable {
    // `state` is guarded by `mutex`; the pointers never change.
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private var state: State

    init(_ state: State) {
        self.state = state
        pthread_mutex_init(mutex, nil)
        var attributes = pthread_condattr_t()
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        pthread_cond_init(condition, &attributes)
        pthread_condattr_destroy(&attributes)
    }
    deinit {
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(mutex)
        condition.deallocate()
        mutex.deallocate()
    }

    /// Looks at the state, or changes what nobody waits for.
    func withLock<Result, Failure: Error>(
        _ body: (inout State) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        return try body(&state)
    }
    /// Changes the state and wakes whoever waits for it.
    func update<Result, Failure: Error>(
        _ body: (inout State) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        pthread_mutex_lock(mutex)
        defer {
            pthread_cond_broadcast(condition)
            pthread_mutex_unlock(mutex)
        }
        return try body(&state)
    }
    /// Waits until `body` returns a value. Errors: interrupted, timedOut.
    func wait<Result>(
        _ patience: Patience, _ body: (inout State) -> Result?
    ) throws(FileError) -> Result {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while true {
            if let result = body(&state) { return result }
            try patience.check()
            sleep(patience.bounded(Patience.poll))
        }
    }
    /// Waits until `body` returns a value, at most so long; nil then.
    func wait<Result>(atMost interval: Interval, _ body: (inout State) -> Result?) -> Result? {
        let end = BootClock.now() + interval
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while true {
            if let result = body(&state) { return result }
            let left = end - BootClock.now()
            guard left > .zero else { return nil }
            sleep(left)
        }
    }
    /// Sleeps until somebody wakes it, at most one poll.
    private func sleep(_ interval: Interval) {
        let length = max(.zero, min(interval, Patience.poll)).nanoseconds
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        let end = Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec) + length
        time = timespec(tv_sec: Int(end / 1_000_000_000), tv_nsec: Int(end % 1_000_000_000))
        pthread_cond_timedwait(condition, mutex, &time)
    }
}

/// A thread of the client's own.
package final class BackgroundThread: @unchecked Sendable {
    private let thread: pthread_t

    /// Runs `body` on a new thread.
    package init(_ body: @escaping @Sendable () -> Void) {
        let box = Unmanaged.passRetained(Body(run: body))
        var thread = pthread_t()
        let status = pthread_create(
            &thread, nil,
            { raw in
                guard let raw else { return nil }
                Unmanaged<Body>.fromOpaque(raw).takeRetainedValue().run()
                return nil
            }, box.toOpaque())
        precondition(status == 0, "no thread: \(status)")
        self.thread = thread
    }
    /// Waits for its end.
    package func join() { pthread_join(thread, nil) }

    private final class Body {
        let run: @Sendable () -> Void
        init(run: @escaping @Sendable () -> Void) { self.run = run }
    }
}
