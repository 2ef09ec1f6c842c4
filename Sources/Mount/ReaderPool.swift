// The threads that take requests from the kernel. Operations block their thread, so the pool grows
// whenever all are busy: writes that stall never keep reads from being served.
//
// Invariants:
//  1. While the mount lives, at least one thread waits in the kernel, unless `most` are busy.
//  2. A request that was taken is processed: the session's exit flag is never set by us
//     (libfuse drops a request taken after it); threads end only when the kernel says that the
//     file system is unmounted.

import CFuse
import Glibc
import Synchronization

/// A pointer that threads share: libfuse locks inside.
struct SessionPointer: @unchecked Sendable {
    let raw: OpaquePointer
}

/// Told once from any thread, waited for by one.
final class Completion: @unchecked Sendable {
    private let semaphore = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)
    init() { sem_init(semaphore, 0, 0) }
    deinit {
        sem_destroy(semaphore)
        semaphore.deallocate()
    }
    func signal() { sem_post(semaphore) }
    func wait() { while sem_wait(semaphore) != 0, errno == EINTR {} }
}

/// Starts a thread that nobody joins; it ends with its body.
func startThread(_ body: @escaping @Sendable () -> Void) {
    final class Box {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }
    var thread = pthread_t()
    let box = Unmanaged.passRetained(Box(body))
    let result = pthread_create(
        &thread, nil,
        { argument in
            Unmanaged<Box>.fromOpaque(argument!).takeRetainedValue().body()
            return nil
        }, box.toOpaque())
    precondition(result == 0, "no thread: errno \(result)")
    pthread_detach(thread)
}

/// The elastic pool of one session.
final class ReaderPool: Sendable {
    private static let least = 4
    private static let most = 128
    /// More than this many waiting threads are too many.
    private static let idle = 8

    private struct Counts {
        var running = 0
        var waiting = 0
    }
    private let session: SessionPointer
    private let counts = Mutex(Counts())
    private let ended: Completion

    /// `ended` is signalled when the last thread has ended.
    init(session: SessionPointer, ended: Completion) {
        self.session = session
        self.ended = ended
    }

    func start() {
        counts.withLock { $0 = Counts(running: Self.least, waiting: Self.least) }
        for _ in 0..<Self.least { startThread { self.read() } }
    }

    /// One thread: takes a request, processes it, again. It counts as waiting when it starts.
    private func read() {
        var buffer = fuse_buf()
        defer { free(buffer.mem) }
        while true {
            let size = fuse_session_receive_buf(session.raw, &buffer)
            if size == -EINTR || size == -EAGAIN { continue }
            if size <= 0 { break }
            if takeUp() { startThread { self.read() } }
            fuse_session_process_buf(session.raw, &buffer)
            if !layDown() { return }
        }
        let isLast = counts.withLock { counts in
            counts.running -= 1
            counts.waiting -= 1
            return counts.running == 0
        }
        if isLast { ended.signal() }
    }

    /// The thread is busy now; true if another one is needed.
    private func takeUp() -> Bool {
        counts.withLock { counts in
            counts.waiting -= 1
            guard counts.waiting == 0, counts.running < Self.most else { return false }
            counts.running += 1
            counts.waiting += 1
            return true
        }
    }

    /// The thread waits again; false if there are enough without it, and it ends.
    private func layDown() -> Bool {
        counts.withLock { counts in
            if counts.waiting >= Self.idle {
                counts.running -= 1
                return false
            }
            counts.waiting += 1
            return true
        }
    }
}
