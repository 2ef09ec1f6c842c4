// Files through a whole client, over real sockets to a cell in the same process, with faults.

import Base
import Client
import Synchronization
import Testing
import Wire

extension FileSystem {
    func make(_ name: String) throws -> OpenFile {
        try create(
            .root, Array(name.utf8), mode: 0o644, user: 0, group: 0, exclusive: false,
            options: OpenOptions(read: true, write: true)
        ).0
    }
    func write(_ file: OpenFile, _ bytes: [UInt8], at offset: Int) throws {
        var failure: FileError?
        bytes.withUnsafeBytes { raw in
            do throws(FileError) {
                try write(file, at: UInt64(offset), raw)
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
    }
    func read(_ file: OpenFile, at offset: Int, count: Int) throws -> [UInt8] {
        var failure: FileError?
        var bytes = [UInt8](repeating: 0xEE, count: count)
        var done = 0
        bytes.withUnsafeMutableBytes { raw in
            do throws(FileError) {
                done = try read(file, at: UInt64(offset), into: raw)
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return Array(bytes[..<done])
    }
}

private func content(_ count: Int, _ random: inout SeededRandom) -> [UInt8] {
    if random.chance(1, of: 2) { return [UInt8](repeating: UInt8(random.below(256)), count: count) }
    return (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
}

@Suite(.serialized) struct FileTests {
    @Test("What one client wrote and flushed, another reads; sizes and reads at the end are right")
    func twoClients() throws {
        let cell = try FakeCell()
        let one = try cell.client()
        let two = try cell.client()
        var random = SeededRandom(seed: 1)
        let file = try one.make("a")
        var model: [UInt8] = []
        while model.count < 3 << 20 {
            let bytes = content(1 + random.below(300_000), &random)
            try one.write(file, bytes, at: model.count)
            model += bytes
        }
        #expect(try one.attributes(file.inode).size == UInt64(model.count))
        #expect(try two.attributes(file.inode).size < UInt64(model.count))
        try one.flush(file)
        #expect(try two.attributes(file.inode).size == UInt64(model.count))
        let (other, attributes) = try two.open(file.inode, options: OpenOptions(read: true))
        #expect(attributes.size == UInt64(model.count))
        #expect(try two.read(other, at: 0, count: model.count + 100) == model)
        #expect(try two.read(other, at: model.count, count: 10) == [])
        for _ in 0..<50 {
            let offset = random.below(model.count)
            let count = min(1 + random.below(100_000), model.count - offset)
            let expected = Array(model[offset..<offset + count])
            #expect(try two.read(other, at: offset, count: count) == expected)
        }
        #expect(throws: FileError.badHandle) { try two.write(other, [1], at: 0) }
        one.release(file)
        two.release(other)
        one.close()
        two.close()
        #expect(cell.state.withLock { $0.opened[file.inode] } == 0)
    }

    @Test("Random writes, reads, truncations and flushes with faults behave like an array")
    func model() throws {
        for seed in 1...5 {
            let cell = try FakeCell()
            let client = try cell.client()
            inject(cell, UInt64(seed))
            var random = SeededRandom(seed: UInt64(seed))
            let file = try client.make("a")
            var model: [UInt8] = []
            let bound = 1 << 20
            for step in 0..<80 {
                switch random.below(12) {
                case 0..<5:
                    let offset = random.below(bound)
                    let isSmall = random.chance(1, of: 2)
                    let bytes = content(1 + random.below(isSmall ? 500 : 200_000), &random)
                    try client.write(file, bytes, at: offset)
                    let end = offset + bytes.count
                    if model.count < end {
                        model += [UInt8](repeating: 0, count: end - model.count)
                    }
                    model.replaceSubrange(offset..<end, with: bytes)
                case 5..<9:
                    guard !model.isEmpty else { continue }
                    let offset = random.below(model.count)
                    let count = min(1 + random.below(300_000), model.count - offset)
                    let seen = try client.read(file, at: offset, count: count)
                    let isSame = seen == Array(model[offset..<offset + count])
                    #expect(isSame, "seed \(seed), step \(step): \(count) at \(offset)")
                case 9:
                    let size = random.below(bound)
                    let attributes = try client.setAttributes(
                        file.inode, AttributeChanges(), size: UInt64(size))
                    #expect(attributes.size == UInt64(size))
                    model = Array(model.prefix(size))
                    model += [UInt8](repeating: 0, count: size - model.count)
                case 10: try client.flush(file)
                default:
                    let size = try client.attributes(file.inode).size
                    #expect(size == UInt64(model.count), "seed \(seed), step \(step)")
                }
            }
            try client.flush(file)
            cell.setFaults { $0 = Faults() }
            let other = try cell.client()
            let (second, _) = try other.open(file.inode, options: OpenOptions(read: true))
            let seen = try other.read(second, at: 0, count: model.count + 1)
            #expect(seen == model, "seed \(seed)")
            client.close()
            other.close()
        }
    }

    /// Faults of every kind, each now and then.
    private func inject(_ cell: FakeCell, _ seed: UInt64) {
        let shared = Mutex(SeededRandom(seed: seed &* 77))
        let random = Shared { bound in shared.withLock { $0.below(bound) } }
        cell.setFaults { faults in
            let statuses: [ChunkStatus] = [.busy, .notServing, .notPrimary, .unknownSet]
            faults.write = { request in
                if random.below(40) == 0 { return statuses[random.below(4)] }
                if random.below(25) == 0 {
                    cell.raiseEpochLater(request.context.set)
                    return .notServing
                }
                return nil
            }
            faults.losesWriteReply = { _ in random.below(1_500) == 0 }
            faults.read = { _, _ in random.below(10) == 0 ? statuses[random.below(4)] : nil }
            faults.ignoresRead = { _ in random.below(200) == 0 }
            faults.damaged = [Int(seed) % 3]
            faults.blocksPerReply = 1 + Int(seed) % 3
            faults.losesChangeReply = { _ in random.below(250) == 0 }
            faults.metadata = { _ in random.below(20) == 0 ? .retry : nil }
        }
    }
    private final class Shared: Sendable {
        let below: @Sendable (Int) -> Int
        init(_ below: @escaping @Sendable (Int) -> Int) { self.below = below }
    }

    @Test("Damaged bytes are never returned: another member's are, or an error if all are bad")
    func damage() throws {
        let cell = try FakeCell()
        let client = try cell.client()
        let file = try client.make("a")
        let bytes = [UInt8](repeating: 5, count: 200_000)
        try client.write(file, bytes, at: 0)
        try client.flush(file)
        for damaged in [[0], [1, 2], [0, 2]] as [Set<Int>] {
            cell.setFaults { $0.damaged = damaged }
            let other = try cell.client()
            let (second, _) = try other.open(file.inode, options: OpenOptions(read: true))
            #expect(try other.read(second, at: 0, count: 200_000) == bytes)
            other.close()
        }
        cell.setFaults { $0.damaged = [0, 1, 2] }
        let other = try cell.client()
        let (second, _) = try other.open(file.inode, options: OpenOptions(read: true))
        #expect(throws: FileError.io) { try other.read(second, at: 10, count: 10) }
        other.close()
        client.close()
    }

    @Test("A member that does not answer delays a read by a second at most, and only one read")
    func silence() throws {
        let cell = try FakeCell()
        let client = try cell.client(cacheBytes: 0)
        let file = try client.make("a")
        let bytes = [UInt8](repeating: 5, count: 300_000)
        try client.write(file, bytes, at: 0)
        try client.flush(file)
        let set = cell.state.withLock { $0.files[file.inode]!.chunks[0]!.set }
        let primary = Int(set.rawValue) % 3
        cell.setFaults { $0.ignoresRead = { $0 == primary } }
        let clock = ContinuousClock()
        var start = clock.now
        #expect(try client.read(file, at: 0, count: 10_000) == Array(bytes[..<10_000]))
        #expect(clock.now - start < .seconds(2))
        start = clock.now
        #expect(try client.read(file, at: 200_000, count: 100_000).count == 100_000)
        #expect(clock.now - start < .milliseconds(400))
        client.close()
    }

    @Test("A stalled write holds up neither other files nor its cancelled caller, and ends later")
    func stall() throws {
        let cell = try FakeCell()
        let client = try cell.client(deadline: nil)
        let slow = try client.make("slow")
        let fast = try client.make("fast")
        let inode = slow.inode
        cell.setFaults { faults in
            faults.write = { $0.extents[0].chunk.inode == inode ? .notServing : nil }
        }
        try client.write(slow, [1, 2, 3], at: 0)
        let cancellation = Cancellation()
        let clock = ContinuousClock()
        var start = clock.now
        cancellation.cancel()
        #expect(throws: FileError.interrupted) { try client.flush(slow, cancellation) }
        #expect(clock.now - start < .milliseconds(400))
        start = clock.now
        try client.write(fast, [4], at: 0)
        try client.flush(fast)
        #expect(try client.read(fast, at: 0, count: 1) == [4])
        #expect(try client.read(slow, at: 0, count: 3) == [1, 2, 3])
        #expect(try client.attributes(slow.inode).size == 3)
        #expect(clock.now - start < .seconds(1))
        cell.setFaults { $0.write = nil }
        try client.flush(slow)
        #expect(cell.state.withLock { $0.files[inode]?.attributes.size } == 3)
        client.close()
    }

    @Test("A write whose primary is silent goes to the next one as soon as there is one (A7)")
    func silentPrimary() throws {
        let cell = try FakeCell()
        let client = try cell.client(deadline: nil)
        let file = try client.make("file")
        try client.write(file, [1], at: 0)
        try client.flush(file)
        let set = try #require(
            cell.state.withLock { $0.files[file.inode]?.chunks[0]?.set })
        let primary = cell.state.withLock { state in
            Int(cell.view(set, state).configuration.primary.rawValue) - 1
        }
        let clock = ContinuousClock()
        let start = clock.now
        cell.setFaults { faults in
            faults.losesWriteReply = { $0.context.epoch == Epoch(rawValue: 1) }
            faults.isDown = { $0 == primary && clock.now - start > .milliseconds(1_500) }
            faults.epoch = { Epoch(rawValue: clock.now - start > .seconds(3) ? 2 : 1) }
        }
        try client.write(file, [2], at: 0)
        try client.flush(file)
        // Three seconds without a primary; a second try at the old one would take four.
        #expect(clock.now - start > .seconds(3))
        #expect(clock.now - start < .milliseconds(5_500))
        #expect(try client.read(file, at: 0, count: 1) == [2])
        client.close()
    }

    @Test("A full cell is ENOSPC once for each handle, and the file goes on afterwards (K6)")
    func full() throws {
        let cell = try FakeCell()
        let client = try cell.client()
        let file = try client.make("a")
        let second = try client.open(file.inode, options: OpenOptions(write: true)).0
        cell.setFaults { $0.write = { _ in .noSpace } }
        try client.write(file, [1], at: 0)
        #expect(throws: FileError.noSpace) { try client.flush(file) }
        try client.flush(file)
        #expect(throws: FileError.noSpace) { try client.sync(second) }
        cell.setFaults { $0.write = nil }
        try client.write(file, [2], at: 0)
        try client.flush(file)
        #expect(try client.read(file, at: 0, count: 9) == [2])
        client.close()
    }

    @Test("fdatasync makes bytes safe, and the size if it grew; the mtime may follow (D13)")
    func dataSync() throws {
        let cell = try FakeCell()
        let client = try cell.client()
        let file = try client.make("a")
        let known = { cell.state.withLock { $0.files[file.inode]?.attributes } }
        try client.write(file, [1, 2, 3], at: 0)
        try client.sync(file, dataOnly: true)
        #expect(known()?.size == 3)
        let modified = known()?.modified
        try client.write(file, [9], at: 0)
        try client.sync(file, dataOnly: true)
        #expect(known()?.modified == modified)
        let other = try cell.client()
        let opened = try other.open(file.inode, options: OpenOptions(read: true)).0
        #expect(try other.read(opened, at: 0, count: 3) == [9, 2, 3])
        try client.flush(file)
        #expect(known()?.modified != modified)
        other.close()
        client.close()
    }

    @Test("A change whose answer is lost is executed once (M12)")
    func once() throws {
        let cell = try FakeCell()
        let client = try cell.client()
        let lost = Mutex(1)
        cell.setFaults { faults in
            faults.losesChangeReply = { change in
                guard case .create = change else { return false }
                return lost.withLock { left in
                    left -= 1
                    return left >= 0
                }
            }
        }
        let attributes = try client.makeNode(
            .root, Array("d".utf8), kind: .directory, mode: 0o755, user: 0, group: 0, device: 0)
        #expect(attributes.kind == .directory)
        let created = cell.state.withLock { state in
            state.changes.count { if case .create = $0 { true } else { false } }
        }
        #expect(created == 1)
        client.close()
    }

    @Test("Open files of a dead session fail with EIO, new work gets a new session")
    func deadSession() throws {
        let cell = try FakeCell()
        let client = try cell.client()
        let file = try client.make("a")
        try client.write(file, [1], at: 0)
        cell.state.withLock { $0.sessions = [] }
        #expect(throws: FileError.io) { try client.flush(file) }
        #expect(throws: FileError.io) { try client.write(file, [1], at: 0) }
        let (again, _) = try client.open(file.inode, options: OpenOptions(read: true, write: true))
        try client.write(again, [7, 8], at: 0)
        try client.flush(again)
        #expect(try client.read(again, at: 0, count: 5) == [7, 8])
        cell.state.withLock { $0.sessions = [] }
        let (third, _) = try client.open(file.inode, options: OpenOptions(read: true))
        #expect(try client.read(third, at: 0, count: 5) == [7, 8])
        cell.state.withLock { $0.sessions = [] }
        _ = try client.make("b")
        for open in [file, again, third] { client.release(open) }
        client.close()
    }

    @Test("Bytes written while another client truncates are written again, after the truncation")
    func overtaken() throws {
        let cell = try FakeCell()
        let one = try cell.client()
        let two = try cell.client()
        let file = try one.make("a")
        try one.write(file, [UInt8](repeating: 1, count: 200_000), at: 0)
        try one.flush(file)
        try one.write(file, [2, 2], at: 150_000)
        try one.write(file, [UInt8](repeating: 3, count: Limits.block), at: 0)
        _ = try two.setAttributes(file.inode, AttributeChanges(), size: 100)
        try one.flush(file)
        var expected = [UInt8](repeating: 0, count: 150_002)
        expected.replaceSubrange(0..<Limits.block, with: repeatElement(3, count: Limits.block))
        expected.replaceSubrange(150_000..<150_002, with: [2, 2])
        let (second, attributes) = try two.open(file.inode, options: OpenOptions(read: true))
        #expect(attributes.size == 150_002)
        #expect(try two.read(second, at: 0, count: 200_000) == expected)
        #expect(try one.read(file, at: 0, count: 200_000) == expected)
        one.close()
        two.close()
    }

    @Test("Appending goes to the end, whatever the offset; O_TRUNC empties; both see own bytes")
    func appending() throws {
        let cell = try FakeCell()
        let client = try cell.client()
        let file = try client.make("a")
        try client.write(file, [1, 2, 3], at: 0)
        let options = OpenOptions(read: true, write: true, append: true)
        let (append, attributes) = try client.open(file.inode, options: options)
        #expect(attributes.size == 3)
        try client.write(append, [4], at: 0)
        try client.write(append, [5], at: 0)
        #expect(try client.read(file, at: 0, count: 9) == [1, 2, 3, 4, 5])
        var truncating = OpenOptions(read: true, write: true)
        truncating.truncate = true
        let (empty, now) = try client.open(file.inode, options: truncating)
        #expect(now.size == 0)
        #expect(try client.read(empty, at: 0, count: 9) == [])
        try client.write(append, [6], at: 0)
        try client.flush(append)
        #expect(try client.read(file, at: 0, count: 9) == [6])
        client.close()
    }

    @Test("A time that was set stays, although bytes were written shortly before")
    func setTime() throws {
        let cell = try FakeCell()
        let client = try cell.client()
        let file = try client.make("a")
        try client.write(file, [1], at: 0)
        var changes = AttributeChanges()
        changes.modified = .at(Timestamp(nanoseconds: 5))
        #expect(
            try client.setAttributes(file.inode, changes, size: nil).modified.nanoseconds == 5)
        try client.flush(file)
        #expect(try client.attributes(file.inode).modified.nanoseconds == 5)
        client.close()
    }

    @Test("A file over many chunks is sparse where nothing was written, without a round trip")
    func sparse() throws {
        let cell = try FakeCell()
        let client = try cell.client()
        let file = try client.make("a")
        let far = 5 * Limits.chunk + 77
        try client.write(file, [1, 2], at: far)
        try client.flush(file)
        #expect(try client.read(file, at: far - 2, count: 9) == [0, 0, 1, 2])
        let before = cell.state.withLock { $0.reads }
        let middle = try client.read(file, at: 3 * Limits.chunk, count: 100_000)
        #expect(middle == [UInt8](repeating: 0, count: 100_000))
        #expect(cell.state.withLock { $0.reads } == before)
        #expect(throws: FileError.tooLarge) {
            try client.write(file, [1], at: Int(Limits.fileSize))
        }
        client.close()
    }

    @Test("Another cell key is refused, no master at all is unreachable")
    func refused() throws {
        let cell = try FakeCell()
        var target = cell.target
        target.key = CellKey(bytes: [UInt8](repeating: 8, count: 32))!
        let options = ClientOptions(label: "x", deadline: .milliseconds(500))
        let stranger = FileSystem(target: target, options: options)
        #expect {
            try stranger.connect()
        } throws: { error in
            guard case ClientError.refused(.wrongKey, _) = error else { return false }
            return true
        }
        stranger.close()
        target = cell.target
        target.masters[0].address.socket = "/nonexistent/socket"
        let lost = FileSystem(target: target, options: options)
        #expect {
            try lost.connect()
        } throws: { error in
            guard case ClientError.unreachable = error else { return false }
            return true
        }
        lost.close()
    }
}

extension FakeCell {
    /// A new epoch of a set, as after a restart.
    func raiseEpochLater(_ set: SetID) {
        // Called with the state locked, from a fault.
        Task { state.withLock { $0.epochs[set] = ($0.epochs[set] ?? Epoch(rawValue: 1)).next } }
    }
}
