// A disk that keeps only what it was asked to keep. Each file has a durable image and the list of
// writes that were not synced yet.
//
// Invariants:
//  1. A read sees the durable image with every later write over it, in the order of issue.
//  2. When a sync or durable write is done, every write issued before it is in the durable image.
//  3. At a loss of power each write that is not, survives, vanishes, or survives in some of its
//     512-byte sectors, whatever the others do. When only the process dies, writes that were done
//     stay as they are: visible, and still not durable.
//  4. After a failed change nothing changes until the next start (S4).

package import Base
package import Store

/// One disk of the simulation.
package struct SimDisk {
    private static let page = 4_096
    private static let sector = 512

    private struct Write {
        var operation: DiskOperation
        var offset: Int
        var bytes: [UInt8]
        var isDone = false
    }
    private struct File {
        /// 4 KiB each; nil where nothing was written.
        var pages: [[UInt8]?] = []
        /// When each page was last made durable.
        var times: [Instant] = []
        var size: Int
        var unsynced: [Write] = []
        /// Not durable as a name yet, or not any more.
        var isBeingCreated = false
        var isBeingRemoved = false
        /// Pages whose reads fail (latent sector errors).
        var badPages: [Int] = []
    }

    /// Bytes that may be used.
    package var capacity: UInt64
    /// The next change fails like a broken device.
    package var failsNextChange = false
    /// Others have filled the file system: no file is made, and none grows.
    package var isCrowded = false
    /// A change failed since the last start.
    package private(set) var hasFailed = false
    private var names: [DiskFile] = []
    private var files: [DiskFile: File] = [:]
    private var outstanding: [DiskOperation: DiskEffect] = [:]
    /// The last write that an outstanding sync covers.
    private var barriers: [DiskOperation: DiskOperation] = [:]
    private var random: SeededRandom
    /// Bytes that were damaged at rest.
    package private(set) var damage = 0

    /// An empty disk.
    package init(capacity: UInt64, random: SeededRandom) {
        self.capacity = capacity
        self.random = random
    }

    /// What a process finds at its start. Operations of the process before it are forgotten.
    package mutating func start() -> DiskInventory {
        outstanding = [:]
        barriers = [:]
        hasFailed = false
        return DiskInventory(
            files: names.map { DiskFileSize(file: $0, size: visibleSize(files[$0]!)) },
            capacity: isCrowded ? min(capacity, UInt64(used)) : capacity, limit: capacity)
    }
    /// Bytes of all files.
    package var used: Int { names.reduce(0) { $0 + files[$1]!.size } }

    /// The disk as it would be after a loss of power that loses everything it can.
    package var onlyDurable: SimDisk {
        var copy = self
        for name in names {
            copy.files[name]!.unsynced = []
            if copy.files[name]!.isBeingCreated { copy.forget(name) }
        }
        copy.outstanding = [:]
        copy.failsNextChange = false
        return copy
    }

    private func visibleSize(_ file: File) -> Int {
        file.unsynced.reduce(file.size) { max($0, $1.offset + $1.bytes.count) }
    }
    private mutating func forget(_ name: DiskFile) {
        files[name] = nil
        names.removeAll { $0 == name }
    }
}

// Operations
extension SimDisk {
    /// Takes an operation. Later `complete` says how it ended.
    package mutating func issue(_ effect: DiskEffect) {
        precondition(outstanding[effect.operation] == nil, "operation number used twice")
        outstanding[effect.operation] = effect
        guard !hasFailed else { return }
        switch effect {
        case .create(_, let name, _):
            precondition(files[name] == nil, "a file is created that is there: \(name)")
            names.append(name)
            names.sort()
            files[name] = File(size: 0, isBeingCreated: true)
        case .write(let operation, let name, let offset, let pieces, _):
            precondition(files[name] != nil, "a write to no file: \(name)")
            var bytes: [UInt8] = []
            bytes.reserveCapacity(pieces.reduce(0) { $0 + $1.count })
            for piece in pieces { bytes.append(contentsOf: piece) }
            files[name]!.unsynced.append(
                Write(operation: operation, offset: offset, bytes: bytes))
        case .remove(_, let name): files[name]?.isBeingRemoved = true
        case .sync(let operation, let name):
            barriers[operation] = files[name]?.unsynced.last?.operation
        case .read: break
        }
    }

    /// Whether the operation changes something.
    package static func isChange(_ effect: DiskEffect) -> Bool {
        if case .read = effect { false } else { true }
    }

    /// Carries the operation out; nil if it is not known any more.
    package mutating func complete(
        _ operation: DiskOperation, at now: Instant
    ) -> DiskResult? {
        guard let effect = outstanding.removeValue(forKey: operation) else { return nil }
        if Self.isChange(effect) {
            if failsNextChange {
                failsNextChange = false
                fail()
            }
            if hasFailed { return .failed(.system(errno: 5)) }
        }
        switch effect {
        case .create(_, let name, let size):
            if isCrowded || UInt64(used + size) > capacity {
                forget(name)
                return .failed(.noSpace)
            }
            files[name]!.size = max(files[name]!.size, size)
            files[name]!.isBeingCreated = false
        case .write(_, let name, _, _, let durable):
            guard var file = files.removeValue(forKey: name),
                let place = file.unsynced.firstIndex(where: { $0.operation == operation })
            else { return .failed(.system(errno: 2)) }
            let write = file.unsynced[place]
            if isCrowded, write.offset + write.bytes.count > file.size {
                file.unsynced.remove(at: place)
                files[name] = file
                return .failed(.noSpace)
            }
            file.unsynced[place].isDone = true
            if durable { Self.sync(&file, through: place, at: now) }
            files[name] = file
        case .sync(_, let name):
            guard var file = files.removeValue(forKey: name) else {
                return .failed(.system(errno: 2))
            }
            let last = barriers.removeValue(forKey: operation)
            if let last = file.unsynced.firstIndex(where: { $0.operation == last }) {
                Self.sync(&file, through: last, at: now)
            }
            files[name] = file
        case .remove(_, let name): forget(name)
        case .read(_, let name, let offset, let length):
            return read(name, offset: offset, length: length)
        }
        return .done
    }

    /// The device breaks: what was not synced is dropped silently (fsyncgate).
    private mutating func fail() {
        hasFailed = true
        for name in names {
            files[name]!.unsynced.removeAll { _ in random.chance(1, of: 2) }
        }
    }

    private static func sync(_ file: inout File, through last: Int, at now: Instant) {
        for write in file.unsynced[...last] {
            apply(write.bytes[...], at: write.offset, &file, now)
        }
        file.unsynced.removeFirst(last + 1)
    }

    private static func apply(
        _ bytes: ArraySlice<UInt8>, at offset: Int, _ file: inout File, _ now: Instant
    ) {
        let end = offset + bytes.count
        let pages = (end + page - 1) / page
        while file.pages.count < pages {
            file.pages.append(nil)
            file.times.append(now)
        }
        var position = offset
        var rest = bytes
        while !rest.isEmpty {
            let index = position / page
            let start = position % page
            let count = min(page - start, rest.count)
            let isBlank = count == page && file.pages[index] == nil
            if isBlank, rest.prefix(count).allSatisfy({ $0 == 0 }) {
                // Zeros where nothing was written take no memory.
            } else if count == page {
                file.pages[index] = Array(rest.prefix(count))
            } else {
                if file.pages[index] == nil {
                    file.pages[index] = [UInt8](repeating: 0, count: page)
                }
                file.pages[index]!.replaceSubrange(start..<start + count, with: rest.prefix(count))
            }
            file.times[index] = now
            // Rewriting a bad sector heals it.
            file.badPages.removeAll { $0 == index }
            position += count
            rest = rest.dropFirst(count)
        }
        file.size = max(file.size, end)
    }

    private func read(_ name: DiskFile, offset: Int, length: Int) -> DiskResult {
        guard let file = files[name] else { return .failed(.system(errno: 2)) }
        let end = min(offset + length, visibleSize(file))
        guard offset < end else { return .bytes([]) }
        var bytes = [UInt8](repeating: 0, count: end - offset)
        for index in offset / Self.page..<(end + Self.page - 1) / Self.page {
            if file.badPages.contains(index) { return .failed(.system(errno: 5)) }
            guard index < file.pages.count, let page = file.pages[index] else { continue }
            let from = max(offset, index * Self.page)
            let until = min(end, (index + 1) * Self.page)
            bytes.replaceSubrange(
                from - offset..<until - offset,
                with: page[from - index * Self.page..<until - index * Self.page])
        }
        for write in file.unsynced where write.isDone {
            let from = max(offset, write.offset)
            let until = min(end, write.offset + write.bytes.count)
            guard from < until else { continue }
            bytes.replaceSubrange(
                from - offset..<until - offset,
                with: write.bytes[from - write.offset..<until - write.offset])
        }
        return .bytes(bytes[...])
    }
}

// Faults
extension SimDisk {
    /// The process dies. Writes that were not done may have happened or not.
    package mutating func killProcess() {
        outstanding = [:]
        barriers = [:]
        for name in names {
            settleName(name)
            guard files[name] != nil else { continue }
            files[name]!.unsynced.removeAll { !$0.isDone && random.chance(1, of: 2) }
            for index in files[name]!.unsynced.indices {
                files[name]!.unsynced[index].isDone = true
            }
        }
    }

    /// The power is cut.
    package mutating func losePower(at now: Instant) {
        outstanding = [:]
        barriers = [:]
        for name in names {
            settleName(name)
            guard var file = files[name] else { continue }
            files[name] = nil
            let writes = file.unsynced
            file.unsynced = []
            // Mostly each write for itself; sometimes all or nothing.
            let mood = random.below(4)
            for write in writes {
                switch mood {
                case 0: continue
                case 1: Self.apply(write.bytes[...], at: write.offset, &file, now)
                default: survive(write, in: &file, now)
                }
            }
            files[name] = file
        }
    }

    private mutating func survive(_ write: Write, in file: inout File, _ now: Instant) {
        switch random.below(3) {
        case 0: break
        case 1: Self.apply(write.bytes[...], at: write.offset, &file, now)
        default:
            // A prefix, a suffix, or any sectors.
            let sectors = (write.bytes.count + Self.sector - 1) / Self.sector
            let cut = random.below(sectors + 1)
            let shape = random.below(3)
            for index in 0..<sectors {
                let survives: Bool
                switch shape {
                case 0: survives = index < cut
                case 1: survives = index >= cut
                default: survives = random.chance(1, of: 2)
                }
                guard survives else { continue }
                let from = index * Self.sector
                let until = min(from + Self.sector, write.bytes.count)
                Self.apply(write.bytes[from..<until], at: write.offset + from, &file, now)
            }
        }
    }

    private mutating func settleName(_ name: DiskFile) {
        guard let file = files[name] else { return }
        let vanishes = file.isBeingCreated || file.isBeingRemoved
        if vanishes, random.chance(1, of: 2) {
            forget(name)
        } else {
            files[name]!.isBeingCreated = false
            files[name]!.isBeingRemoved = false
        }
    }

    /// What becomes of bytes at rest.
    package enum Rot: CaseIterable, Sendable {
        /// A bit is flipped.
        case flip
        /// A page can't be read.
        case unreadable
        /// A page was never written, although the disk had said so.
        case lostWrite
    }

    /// Damages bytes at rest that were written before `limit` to segments, or to the files of
    /// checkpoints or snapshots. Says where, or nil where there was nothing to damage.
    package mutating func rot(
        _ kind: Rot, ofCheckpoints: Bool = false, writtenBefore limit: Instant
    ) -> String? {
        var candidates: [(DiskFile, Int)] = []
        for name in names {
            switch name {
            case .segment: if ofCheckpoints { continue }
            case .checkpoint: if !ofCheckpoints { continue }
            case .superblock: continue
            }
            let file = files[name]!
            for index in file.pages.indices
            where file.times[index] < limit && file.pages[index] != nil {
                let touched = file.unsynced.contains {
                    $0.offset < (index + 1) * Self.page
                        && $0.offset + $0.bytes.count > index * Self.page
                }
                if !touched { candidates.append((name, index)) }
            }
        }
        guard !candidates.isEmpty else { return nil }
        let (name, index) = candidates[random.below(candidates.count)]
        switch kind {
        case .flip: break
        case .unreadable:
            damage += 1
            files[name]!.badPages.append(index)
            return "\(name) page \(index) unreadable"
        case .lostWrite:
            damage += 1
            files[name]!.pages[index] = nil
            return "\(name) page \(index) was never written"
        }
        let byte = index * Self.page + random.below(Self.page)
        flip(name, byte, UInt8(random.below(8)))
        return "\(name) byte \(byte)"
    }

    /// Where segments have these bytes, each place within one page.
    package func places(of bytes: [UInt8]) -> [(file: DiskFile, byte: Int)] {
        var found: [(file: DiskFile, byte: Int)] = []
        for case .segment(let number) in names {
            let file = files[.segment(number)]!
            for (index, page) in file.pages.enumerated() {
                guard let place = page?.firstRange(of: bytes)?.lowerBound else { continue }
                found.append((.segment(number), index * Self.page + place))
            }
        }
        return found
    }

    /// Damages one bit at rest.
    package mutating func flip(_ name: DiskFile, _ byte: Int, _ bit: UInt8) {
        damage += 1
        files[name]!.pages[byte / Self.page]![byte % Self.page] ^= 1 << bit
    }
}
