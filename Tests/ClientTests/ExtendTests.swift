// Many files that are flushed at once tell the masters in few changes, each for itself.

import Base
import Client
import Glibc
import Synchronization
import Testing
import Wire

/// Threads that flush, and what came of it.
private final class Flushes: Sendable {
    private let outcomes = Mutex<[InodeID: FileError?]>([:])
    private let threads = Mutex<[BackgroundThread]>([])

    func start(_ client: FileSystem, _ file: OpenFile, _ cancellation: Cancellation? = nil) {
        let thread = BackgroundThread { [self] in
            var failure: FileError?
            do throws(FileError) {
                try client.flush(file, cancellation)
            } catch {
                failure = error
            }
            outcomes.withLock { $0[file.inode] = .some(failure) }
        }
        threads.withLock { $0.append(thread) }
    }
    /// The error of each flush that has ended.
    var ended: [InodeID: FileError?] { outcomes.withLock { $0 } }
    /// Waits for all of them.
    func join() {
        for thread in threads.withLock({ $0 }) { thread.join() }
    }
}

private func wait(until condition: () -> Bool) {
    for _ in 0..<500 where !condition() { usleep(10_000) }
    #expect(condition())
}

extension FakeCell {
    /// The files of each extend that was done.
    fileprivate var extends: [[InodeID]] {
        state.withLock { state in
            state.changes.compactMap { change in
                if case .extend(let files, _) = change { files.map(\.inode) } else { nil }
            }
        }
    }
}

/// Holds back extends.
private final class Gate: Sendable {
    private let state = Mutex((isOpen: false, seen: 0))
    init(_ cell: FakeCell) {
        cell.setFaults { faults in
            faults.metadata = { [self] request in
                guard case .change(.extend) = request.body else { return nil }
                return state.withLock { state in
                    state.seen += 1
                    return state.isOpen ? nil : .retry
                }
            }
        }
    }
    /// Waits for the first.
    func waitForOne() { wait { state.withLock { $0.seen > 0 } } }
    func open() { state.withLock { $0.isOpen = true } }
}

@Suite(.serialized) struct ExtendTests {
    @Test("Flushes share changes, and what is wrong with one file is its own error (K5, K6, M12)")
    func shared() throws {
        let cell = try FakeCell()
        let client = try cell.client(deadline: nil)
        let count = Limits.extendedFiles + 6
        let files = try (0..<count).map { try client.make("f\($0)") }
        let (cut, gone) = (files[7].inode, files[9].inode)
        try client.write(files[7], [UInt8](repeating: 1, count: 1_000), at: 0)
        try client.flush(files[7])
        let before = cell.state.withLock { $0.writes }
        for file in files { try client.write(file, [2], at: 0) }
        let gate = Gate(cell)
        let lost = Atomic(false)
        cell.setFaults { faults in
            faults.losesChangeReply = { change in
                guard case .extend(let files, _) = change, files.count > 1 else { return false }
                return !lost.exchange(true, ordering: .relaxed)
            }
        }
        let flushes = Flushes()
        flushes.start(client, files[0])
        gate.waitForOne()
        for file in files.dropFirst() { flushes.start(client, file) }
        wait { cell.state.withLock { $0.writes } >= before + count }
        usleep(300_000)
        #expect(flushes.ended.isEmpty)
        let two = try cell.client()
        _ = try two.setAttributes(cut, AttributeChanges(), size: 3)
        cell.state.withLock { $0.files[gone] = nil }
        gate.open()
        flushes.join()
        #expect(flushes.ended.count == count && lost.load(ordering: .relaxed))
        for (inode, error) in flushes.ended {
            #expect(error == (inode == gone ? .stale : nil), "\(inode)")
        }
        let extends = cell.extends.dropFirst()
        #expect(extends.first == [files[0].inode])
        #expect(extends.allSatisfy { $0.count <= Limits.extendedFiles })
        #expect(extends.contains { $0.count == Limits.extendedFiles })
        #expect(extends.count <= 5, "\(extends.map(\.count))")
        // The one that was truncated meanwhile is told again, the others are not.
        #expect(extends.joined().count == count + 1)
        for file in files where file.inode != gone {
            let expected: [UInt8] = file.inode == cut ? [2, 1, 1] : [2]
            #expect(try two.attributes(file.inode).size == UInt64(expected.count))
            let (other, _) = try two.open(file.inode, options: OpenOptions(read: true))
            #expect(try two.read(other, at: 0, count: 9) == expected)
        }
        two.close()
        client.close()
    }

    @Test("Who gives up takes no other file of its change along")
    func givenUp() throws {
        let cell = try FakeCell()
        let client = try cell.client(deadline: nil)
        let files = try (0..<4).map { try client.make("f\($0)") }
        for file in files { try client.write(file, [2], at: 0) }
        let gate = Gate(cell)
        let flushes = Flushes()
        // The first is on its way; the second is to send the next change.
        let cancellations = [Cancellation(), Cancellation()]
        flushes.start(client, files[0], cancellations[0])
        gate.waitForOne()
        flushes.start(client, files[1], cancellations[1])
        usleep(200_000)
        for file in files[2...] { flushes.start(client, file) }
        usleep(200_000)
        cancellations[1].cancel()
        wait { flushes.ended.count == 1 }
        #expect(flushes.ended == [files[1].inode: .interrupted])
        cancellations[0].cancel()
        wait { flushes.ended.count == 2 }
        #expect(flushes.ended[files[0].inode] == .interrupted)
        gate.open()
        flushes.join()
        for file in files[2...] { #expect(flushes.ended[file.inode] == .some(nil)) }
        #expect(Set(cell.extends.joined()) == Set(files[2...].map(\.inode)))
        // What was given up is still there, and safe with the next flush.
        for file in files { try client.flush(file) }
        let told = Set(cell.extends.joined())
        #expect(told == Set(files.map(\.inode)))
        client.close()
    }
}
