// Threads and what they wait for: a mutex with a condition, which Synchronization does not have.

import Glibc

/// State that threads share and wait for changes of.
package final class Monitor<State>: @unchecked Sendable {
    // `state` is touched with `mutex` held only; the pointers never change.
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private var state: State

    /// With this state; nobody waits.
    package init(_ state: State) {
        self.state = state
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(condition, nil)
    }
    deinit {
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(mutex)
        condition.deallocate()
        mutex.deallocate()
    }

    /// Looks at the state, or changes it without anybody waiting for the change.
    func withLock<Result>(_ body: (inout State) -> Result) -> Result {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        return body(&state)
    }
    /// Changes the state; `body` says how many waiting threads to wake.
    package func change(_ body: (inout State) -> Int) {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        for _ in 0..<body(&state) { pthread_cond_signal(condition) }
    }
    /// Wakes all waiting threads to look again.
    func wakeAll() { pthread_cond_broadcast(condition) }
    /// Waits until `body` gives a value.
    package func wait<Result>(for body: (inout State) -> Result?) -> Result {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while true {
            if let result = body(&state) { return result }
            pthread_cond_wait(condition, mutex)
        }
    }
}

/// A running thread that somebody will join.
struct DiskThread: @unchecked Sendable {
    private final class Body {
        let run: () -> Void
        init(_ run: @escaping () -> Void) { self.run = run }
    }
    private let thread: pthread_t

    /// Starts a thread.
    init(_ run: @escaping @Sendable () -> Void) {
        var thread = pthread_t()
        let body = Unmanaged.passRetained(Body(run))
        let result = pthread_create(
            &thread, nil,
            { argument in
                guard let argument else { return nil }
                Unmanaged<Body>.fromOpaque(argument).takeRetainedValue().run()
                return nil
            }, body.toOpaque())
        precondition(result == 0, "no thread for the disk: \(systemMessage(result))")
        self.thread = thread
    }
    /// Waits for its end.
    func join() { pthread_join(thread, nil) }
}

/// What an errno means, for people.
func systemMessage(_ number: Int32) -> String { String(cString: strerror(number)) }
