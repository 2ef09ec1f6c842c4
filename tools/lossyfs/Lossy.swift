// A directory seen through a disk that can be made to fail: what is written stays in memory until
// it is synced, and a power cut loses it.
//
// Invariants:
//  1. Bytes reach the directory only by a sync of their file, or a write that is durable by itself;
//     readers see them before that, as through a page cache.
//  2. Names and sizes are durable at once: disks may do so, and nobody may count on less.
//  3. A failure counts operations from the command on, and happens once.

import CFuse
import Glibc
import Synchronization

/// What a failure or a delay is for.
enum Call: String { case read, write, sync }

/// A command that is none, or a call of the system that failed.
struct Failure: Error { var code: Int32 }

/// See the head of this file. Safe from any thread.
final class Lossy: Sendable {
    /// Of files; also what is torn or flipped at once.
    static let page = 4_096

    private struct Write {
        var offset: Int
        var bytes: [UInt8]
    }
    private struct PagePlace: Hashable {
        var inode: UInt64
        var page: Int
    }
    private struct State {
        var paths: [UInt64: String] = [:]
        /// What was written and not synced, in order.
        var unsynced: [UInt64: [Write]] = [:]
        /// Operations until one fails, and how.
        var failures: [Call: (left: Int, code: Int32)] = [:]
        /// Microseconds that each takes.
        var delays: [Call: Int] = [:]
        /// A sync is one of the file below too.
        var isDeep = false
        /// Bytes a second; 0: no bound.
        var rate = 0
        /// When the disk has written what it was given, in microseconds.
        var busyUntil = 0
        /// Pages of ten thousand that are read with a flipped bit, unless written since.
        var rot = (share: 0, seed: UInt64(0))
        var fresh: Set<PagePlace> = []
    }
    private let state: Mutex<State>

    init(root: String) {
        state = Mutex(State(paths: [UInt64(FUSE_ROOT_ID): root]))
    }

    /// Carries out a command (see Main).
    func command(_ text: String) throws(Failure) {
        let words = text.split(whereSeparator: { " \n".contains($0) }).map(String.init)
        let numbers = words.compactMap { Int($0) }
        let call = words.count > 1 ? Call(rawValue: words[1]) : nil
        switch (words.first, call, numbers.count) {
        case ("drop", nil, 1): try drop(UInt64(numbers[0]))
        case ("fail", let call?, 2):
            state.withLock { $0.failures[call] = (numbers[0], Int32(numbers[1])) }
        case ("delay", let call?, 1): state.withLock { $0.delays[call] = numbers[0] * 1_000 }
        case ("deep", nil, 1): state.withLock { $0.isDeep = numbers[0] != 0 }
        case ("rate", nil, 1): state.withLock { $0.rate = numbers[0] }
        case ("rot", nil, 2):
            state.withLock { state in
                state.rot = (numbers[0], UInt64(numbers[1]))
                state.fresh = []
            }
        default: throw Failure(code: EINVAL)
        }
    }

    /// Loses what was not synced, but for pages that the seed picks; 0: all of it.
    private func drop(_ seed: UInt64) throws(Failure) {
        let lost = state.withLock { state in
            defer { state.unsynced = [:] }
            return state.unsynced.compactMap { inode, writes in
                state.paths[inode].map { ($0, writes) }
            }
        }
        guard seed != 0 else { return }
        var number: UInt64 = 0
        for (path, writes) in lost.sorted(by: { $0.0 < $1.0 }) {
            let file = open(path, O_WRONLY | O_CLOEXEC)
            guard file >= 0 else { continue }
            defer { close(file) }
            for write in writes {
                var done = 0
                while done < write.bytes.count {
                    let place = write.offset + done
                    let count = min(Self.page - place % Self.page, write.bytes.count - done)
                    number += 1
                    if Self.mix(seed, number) % 2 == 0 {
                        try Self.put(file, write.bytes[done..<(done + count)], at: place)
                    }
                    done += count
                }
            }
        }
    }

    // MARK: Files

    func path(_ inode: UInt64) -> String? { state.withLock { $0.paths[inode] } }
    func path(_ folder: UInt64, _ name: String) -> String { (path(folder) ?? "") + "/" + name }
    /// A file has this path now.
    func note(_ inode: UInt64, _ path: String) { state.withLock { $0.paths[inode] = path } }
    /// A file is empty or gone.
    func forget(_ inode: UInt64) { state.withLock { $0.unsynced[inode] = nil } }

    func read(_ inode: UInt64, _ file: Int32, _ size: Int, at offset: Int) throws(Failure)
        -> [UInt8]
    {
        guard try pass(.read, 0) else { return [] }
        var bytes = [UInt8](repeating: 0, count: size)
        let (writes, rot, fresh) = state.withLock {
            ($0.unsynced[inode] ?? [], $0.rot, $0.rot.share > 0 ? $0.fresh : [])
        }
        var count = pread(file, &bytes, size, off_t(offset))
        guard count >= 0 else { throw Failure(code: errno) }
        for write in writes {
            let first = max(offset, write.offset)
            let last = min(offset + size, write.offset + write.bytes.count)
            guard first < last else { continue }
            count = max(count, last - offset)
            bytes[(first - offset)..<(last - offset)] =
                write.bytes[(first - write.offset)..<(last - write.offset)]
        }
        bytes.removeLast(size - count)
        guard rot.share > 0 else { return bytes }
        for place in stride(from: offset / Self.page * Self.page, to: offset + count, by: Self.page)
        {
            let page = PagePlace(inode: inode, page: place / Self.page)
            let random = Self.mix(rot.seed ^ inode, UInt64(page.page))
            let flipped = place + Int(random >> 40) % Self.page
            if random % 10_000 < rot.share, !fresh.contains(page),
                flipped >= offset, flipped < offset + count
            {
                bytes[flipped - offset] ^= 0x10
            }
        }
        return bytes
    }

    func write(
        _ inode: UInt64, _ file: Int32, _ bytes: [UInt8], at offset: Int, isDurable: Bool
    ) throws(Failure) {
        guard try pass(.write, bytes.count) else { return }
        var status = stat()
        guard fstat(file, &status) == 0 else { throw Failure(code: errno) }
        let end = off_t(offset + bytes.count)
        if status.st_size < end, ftruncate(file, end) != 0 { throw Failure(code: errno) }
        state.withLock { state in
            state.unsynced[inode, default: []].append(Write(offset: offset, bytes: bytes))
            guard state.rot.share > 0 else { return }
            for page in (offset / Self.page)...((offset + bytes.count) / Self.page) {
                state.fresh.insert(PagePlace(inode: inode, page: page))
            }
        }
        if isDurable { try sync(inode, file) }
    }

    func sync(_ inode: UInt64, _ file: Int32) throws(Failure) {
        guard try pass(.sync, 0) else { return state.withLock { $0.unsynced[inode] = nil } }
        // The lock is held, so that no reader finds them in neither place.
        let result = state.withLock { state -> Result<Void, Failure> in
            do throws(Failure) {
                for write in state.unsynced[inode] ?? [] {
                    try Self.put(file, write.bytes[...], at: write.offset)
                }
            } catch { return .failure(error) }
            state.unsynced[inode] = nil
            if state.isDeep, fdatasync(file) != 0 { return .failure(Failure(code: errno)) }
            return .success(())
        }
        try result.get()
    }

    private static func put(_ file: Int32, _ bytes: ArraySlice<UInt8>, at offset: Int)
        throws(Failure)
    {
        let count = bytes.withUnsafeBytes { pwrite(file, $0.baseAddress, $0.count, off_t(offset)) }
        guard count == bytes.count else { throw Failure(code: count < 0 ? errno : ENOSPC) }
    }

    /// Waits as long as the call takes, and fails if it is its turn; false: it is to do nothing.
    private func pass(_ call: Call, _ bytes: Int) throws(Failure) -> Bool {
        let (wait, code) = state.withLock { state -> (Int, Int32?) in
            var code: Int32?
            if let failure = state.failures[call] {
                let left = failure.left - 1
                state.failures[call] = left > 0 ? (left, failure.code) : nil
                if left <= 0 { code = failure.code }
            }
            let now = Self.now()
            var end = now + (state.delays[call] ?? 0)
            if bytes > 0, state.rate > 0 {
                state.busyUntil = max(state.busyUntil, now) + bytes * 1_000_000 / state.rate
                end = max(end, state.busyUntil)
            }
            return (end - now, code)
        }
        if wait > 0 { usleep(UInt32(wait)) }
        if let code, code != 0 { throw Failure(code: code) }
        return code == nil
    }

    private static func now() -> Int {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return time.tv_sec * 1_000_000 + time.tv_nsec / 1_000
    }

    /// A random number that depends on both (SplitMix64).
    private static func mix(_ seed: UInt64, _ number: UInt64) -> UInt64 {
        var word = seed &+ (number &+ 1) &* 0x9E37_79B9_7F4A_7C15
        word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
        word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
        return word ^ (word >> 31)
    }
}
