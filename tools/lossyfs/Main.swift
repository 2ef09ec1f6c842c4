// lossyfs FOLDER MOUNTPOINT: FOLDER as a disk that fails when it is told to. Serves until it is
// unmounted. Commands are written to MOUNTPOINT/.lossy; one that is none fails with EINVAL.
//
//   drop SEED                what was not synced is lost, but for pages that SEED picks; 0: all
//   fail CALL N ERRNO        the N-th CALL from now fails: read, write or sync; ERRNO 0: a write or
//                            sync that is said to be done, and what it should have stored is lost
//   delay CALL MILLISECONDS  each takes so long
//   rate BYTES               writes are no faster than so many bytes a second; 0: as they can
//   deep FLAG                a sync is one of the file below too, and fails as that does; 0: not
//   rot SHARE SEED           SHARE of 10,000 pages are read with a flipped bit until written again
//
// Invariant: a request is answered once, in `answer` or by the reply of what succeeded.

import CFuse
import Glibc

@main struct Main {
    nonisolated(unsafe) static var lossy = Lossy(root: "/")
    /// Not the number of a file of the folder.
    static let control = UInt64.max - 1
    static let controlName = ".lossy"
    /// As many requests at once, so that a slow sync holds up nobody else.
    private static let threads = 16

    static func main() {
        let words = CommandLine.arguments
        guard words.count == 3, let root = realpath(words[1], nil) else {
            return fail("usage: lossyfs FOLDER MOUNTPOINT")
        }
        lossy = Lossy(root: String(cString: root))
        let options = ["lossyfs", "-o", "fsname=lossyfs,subtype=lossyfs,allow_other"]
        var names: [UnsafeMutablePointer<CChar>?] = options.map { strdup($0) } + [nil]
        var table = table
        let made = names.withUnsafeMutableBufferPointer { pointers in
            var parsed = fuse_args(argc: 3, argv: pointers.baseAddress, allocated: 0)
            return fuse_session_new(&parsed, &table, MemoryLayout<fuse_lowlevel_ops>.size, nil)
        }
        guard let made, fuse_session_mount(made, words[2]) == 0 else {
            return fail("cannot mount on \(words[2])")
        }
        serve(made)
    }

    /// Until it is unmounted. Threads of their own are none of the main actor's.
    private nonisolated static func serve(_ session: OpaquePointer) {
        var running = [pthread_t](repeating: pthread_t(), count: threads)
        for index in running.indices {
            pthread_create(
                &running[index], nil,
                { argument in
                    Main.take(OpaquePointer(argument!))
                    return nil
                }, UnsafeMutableRawPointer(session))
        }
        for thread in running { pthread_join(thread, nil) }
    }

    private static func fail(_ text: String) {
        perror("lossyfs: \(text)")
        exit(1)
    }

    private static func take(_ session: OpaquePointer) {
        var buffer = fuse_buf()
        while true {
            let size = fuse_session_receive_buf(session, &buffer)
            if size == -EINTR || size == -EAGAIN { continue }
            if size <= 0 { return }
            fuse_session_process_buf(session, &buffer)
        }
    }
}
