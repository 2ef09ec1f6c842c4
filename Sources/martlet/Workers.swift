// Threads of commands: a bounded queue of jobs, and a loop over many items.

import Glibc
import Synchronization

/// A queue between threads; adding waits while it is full, taking while it is empty.
final class JobQueue<Job: Sendable>: @unchecked Sendable {
    private static var bound: Int { 1_024 }
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let changed = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private var jobs: [Job] = []
    private var first = 0
    private var isFinished = false

    init() {
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(changed, nil)
    }
    deinit {
        pthread_cond_destroy(changed)
        pthread_mutex_destroy(mutex)
        changed.deallocate()
        mutex.deallocate()
    }

    func add(_ job: Job) {
        pthread_mutex_lock(mutex)
        while jobs.count - first >= Self.bound { pthread_cond_wait(changed, mutex) }
        jobs.append(job)
        pthread_cond_broadcast(changed)
        pthread_mutex_unlock(mutex)
    }

    /// No job will be added any more.
    func finish() {
        pthread_mutex_lock(mutex)
        isFinished = true
        pthread_cond_broadcast(changed)
        pthread_mutex_unlock(mutex)
    }

    /// The oldest job; nil when there are no more.
    func take() -> Job? {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while first == jobs.count {
            if isFinished { return nil }
            pthread_cond_wait(changed, mutex)
        }
        let job = jobs[first]
        first += 1
        if first > 512 {
            jobs.removeFirst(first)
            first = 0
        }
        pthread_cond_broadcast(changed)
        return job
    }
}

/// Some threads that do the same, and the wait for their end.
struct ThreadGroup: ~Copyable {
    private var threads: [pthread_t] = []

    init(count: Int, _ body: @escaping @Sendable () -> Void) {
        final class Box {
            let body: @Sendable () -> Void
            init(_ body: @escaping @Sendable () -> Void) { self.body = body }
        }
        for _ in 0..<count {
            var thread = pthread_t()
            let box = Unmanaged.passRetained(Box(body))
            let result = pthread_create(
                &thread, nil,
                { argument in
                    Unmanaged<Box>.fromOpaque(argument!).takeRetainedValue().body()
                    return nil
                }, box.toOpaque())
            precondition(result == 0, "no thread: errno \(result)")
            threads.append(thread)
        }
    }

    consuming func join() { for thread in threads { pthread_join(thread, nil) } }
    /// They end when they like.
    consuming func detach() { for thread in threads { pthread_detach(thread) } }
}

/// What the threads of `inParallel` share.
private final class Progression<Value: Sendable>: Sendable {
    let next = Atomic<Int>(0)
    let results: Mutex<[Value?]>
    init(count: Int) { results = Mutex(Array(repeating: nil, count: count)) }
}

/// Carries out `body` for each item on some threads; results in the order of the items.
func inParallel<Item: Sendable, Value: Sendable>(
    _ items: [Item], threads: Int, _ body: @escaping @Sendable (Item) -> Value
) -> [Value] {
    let progression = Progression<Value>(count: items.count)
    let group = ThreadGroup(count: min(threads, items.count)) {
        while true {
            let index = progression.next.wrappingAdd(1, ordering: .relaxed).oldValue
            guard index < items.count else { return }
            let value = body(items[index])
            progression.results.withLock { $0[index] = value }
        }
    }
    group.join()
    return progression.results.withLock { $0.map { $0! } }
}
