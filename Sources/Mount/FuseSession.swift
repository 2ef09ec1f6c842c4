// A mounted cell: from mounting to the last flush.
//
//   mounted ──(unmounted from outside)──────────────► readers end ─► flush, done
//      └──(SIGTERM, SIGINT)─► unmount ─► not busy ──► readers end ─► flush, done
//                                └────► busy ► lazily ─► grace over ─► flush, done
//
// Invariants:
//  1. Signals are blocked in all threads and taken by one that waits for them: readers blocked in
//     the kernel would never see a flag.
//  2. After the grace period the process ends, whoever still uses the mount: the kernel then
//     fails their requests.

package import Base
import CFuse
package import Client
import Glibc
package import Logging

/// How a cell is mounted.
package struct MountSettings: Sendable {
    package var point: MountPoint
    /// The directory of the cell that is mounted.
    package var root: InodeID
    /// Options for the kernel and libfuse, as after `-o`; ours are added.
    package var options: [String]
    /// Users of a busy mount have so long after SIGTERM.
    package var grace: Interval

    /// All fields at once.
    package init(point: MountPoint, root: InodeID, options: [String], grace: Interval) {
        self.point = point
        self.root = root
        self.options = options
        self.grace = grace
    }
}

/// A mount and the threads that serve it.
package final class FuseSession: Sendable {
    private let settings: MountSettings
    private let fileSystem: FileSystem
    private let log: Logger
    private let session: SessionPointer
    /// Owned by the session as its user data.
    private let operations: FuseOperations
    private let ended = Completion()

    /// Blocks the signals that end a mount, and tells the kernel what the process is. Must come
    /// before any thread is started.
    package static func prepareProcess() {
        _ = martlet_set_io_flusher()
        var signals = endingSignals
        pthread_sigmask(SIG_BLOCK, &signals, nil)
        signal(SIGPIPE, SIG_IGN)
    }

    private static var endingSignals: sigset_t {
        var signals = sigset_t()
        sigemptyset(&signals)
        for number in [SIGTERM, SIGINT, SIGHUP] { sigaddset(&signals, number) }
        return signals
    }

    /// Mounts; what a dead process left there is cleared first.
    package init(
        fileSystem: FileSystem, settings: MountSettings, log: Logger
    ) throws(MountError) {
        self.settings = settings
        self.fileSystem = fileSystem
        self.log = log
        operations = FuseOperations(fileSystem: fileSystem, root: settings.root)
        try Self.prepare(settings.point)
        session = SessionPointer(raw: try Self.make(operations, settings))
        guard fuse_session_mount(session.raw, settings.point.path) == 0 else {
            fuse_session_destroy(session.raw)
            throw .fuse("cannot mount on \(settings.point.path)")
        }
    }

    private static func prepare(_ point: MountPoint) throws(MountError) {
        try point.clearStale()
        if point.isMartlet { throw .alreadyMounted(point.path) }
        var answer = stat()
        guard stat(point.path, &answer) == 0, answer.st_mode & S_IFMT == S_IFDIR else {
            throw .notDirectory(point.path)
        }
    }

    private static func make(
        _ operations: FuseOperations, _ settings: MountSettings
    ) throws(MountError) -> OpaquePointer {
        var options = ["fsname=martlet", "subtype=martlet", "default_permissions"]
        if geteuid() == 0 { options.append("allow_other") }
        options += settings.options
        let words = ["martlet", "-o", options.joined(separator: ",")]
        var arguments = words.map { strdup($0) } + [nil]
        defer { for argument in arguments { free(argument) } }
        var table = FuseOperations.table
        let made = arguments.withUnsafeMutableBufferPointer { pointers in
            var parsed = fuse_args(
                argc: Int32(pointers.count - 1), argv: pointers.baseAddress, allocated: 0)
            defer { fuse_opt_free_args(&parsed) }
            return fuse_session_new(
                &parsed, &table, MemoryLayout<fuse_lowlevel_ops>.size,
                Unmanaged.passUnretained(operations).toOpaque())
        }
        guard let made else {
            throw .fuse("libfuse refuses the options \(options.joined(separator: ","))")
        }
        return made
    }

    /// Serves until unmounted or ended by a signal; everything written is flushed then.
    package func run() {
        let point = settings.point
        ReaderPool(session: session, ended: ended).start()
        startThread { point.raiseReadAhead(toKiB: 1_024) }
        startThread { self.waitForSignal() }
        log.info("mounted", metadata: ["path": "\(point.path)"])
        ended.wait()
        fileSystem.close()
        log.info("unmounted", metadata: ["path": "\(point.path)"])
    }

    private func waitForSignal() {
        var signals = Self.endingSignals
        var number: Int32 = 0
        while sigwait(&signals, &number) != 0 {}
        log.info("ending", metadata: ["signal": "\(number)"])
        // Unmounting waits for dirty pages, so it has a thread of its own.
        startThread { self.unmount() }
        var grace = timespec(Timestamp(nanoseconds: settings.grace.nanoseconds))
        nanosleep(&grace, nil)
        log.warning("still in use: ending all the same")
        _ = settings.point.unmount(lazily: true)
        ended.signal()
    }

    private func unmount() {
        guard settings.point.unmount(lazily: false) == EBUSY else { return }
        log.info("busy: unmounting lazily")
        _ = settings.point.unmount(lazily: true)
    }
}
