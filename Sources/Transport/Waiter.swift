// How an ordinary thread waits for what an event loop brings.

import Base
import Glibc

/// A queue of values that one thread waits for, with a deadline.
final class Waiter<Value: Sendable>: @unchecked Sendable {
    // All state is guarded by `mutex`, but for the pointers, which never change.
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private var values: [Value] = []
    private var isWaiting = false
    private var lateValue: ((Value) -> Void)?
    /// A cancelled call notices within this.
    private static var cancellationPoll: Interval { .milliseconds(100) }

    init() {
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

    /// A point on CLOCK_MONOTONIC, so long from now.
    static func deadline(in interval: Interval) -> Instant { monotonicNow() + interval }

    /// Gives the waiting thread a value.
    func add(_ value: Value) {
        pthread_mutex_lock(mutex)
        let late = lateValue
        if late == nil { values.append(value) }
        if isWaiting { pthread_cond_signal(condition) }
        pthread_mutex_unlock(mutex)
        late?(value)
    }
    /// Nobody will wait any more: values that are there or still come go to `late`.
    func abandon(_ late: @escaping (Value) -> Void) {
        pthread_mutex_lock(mutex)
        lateValue = late
        let rest = values
        values = []
        pthread_mutex_unlock(mutex)
        rest.forEach(late)
    }
    /// Waits for the next value. Errors: timedOut, cancelled.
    func next(deadline: Instant, isCancelled: () -> Bool) throws(TransportError) -> Value {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while values.isEmpty {
            let now = monotonicNow()
            guard now < deadline else { throw .timedOut }
            if isCancelled() { throw .cancelled }
            let until = min(deadline, now + Self.cancellationPoll)
            var time = timespec(
                tv_sec: Int(until.nanoseconds / 1_000_000_000),
                tv_nsec: Int(until.nanoseconds % 1_000_000_000))
            isWaiting = true
            pthread_cond_timedwait(condition, mutex, &time)
            isWaiting = false
        }
        return values.removeFirst()
    }
}

/// CLOCK_MONOTONIC, the clock of condition variables and event loops.
func monotonicNow() -> Instant {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Instant(nanoseconds: Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec))
}
