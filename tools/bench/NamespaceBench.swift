// Memory and time of the masters' state with many files: 20-byte names, one chunk each, 1,000 in a
// directory. Time is CPU time of this one thread.

import Base
import Glibc
import Namespace

struct NamespaceBench {
    private var namespace = Namespace()
    private var slot = Slot.none
    private var time = Timestamp(nanoseconds: 1_000)
    private var session = SessionID.none
    private var number = RequestNumber(rawValue: 0)
    private var directories: [InodeID] = []
    private static let perDirectory = 1_000
    private static let perSet = 100_000

    static func run(files: Int) {
        var bench = Self()
        let before = Memory().resident
        let creating = bench.measure { $0.fill(files: files) }
        let bytes = Double(Memory().resident - before) / Double(files)
        let lookups = 1_000_000
        let names = bench.scatteredNames(lookups, files: files)
        let looking = bench.measure { $0.look(names) }
        let changing = bench.measure { $0.change(times: lookups, files: files) }
        var blocks: [[UInt8]] = []
        let encoding = bench.measure { blocks = $0.encode() }
        bench.namespace = Namespace()
        let loading = bench.measure { $0.load(blocks) }
        func nanoseconds(_ time: Double, _ count: Int) -> String {
            "\(Int(time / Double(count) * 1e9)) ns"
        }
        print(
            """
            \(files) files: \(Int(bytes)) bytes of memory a file; create \
            \(nanoseconds(creating, files)), lookup \(nanoseconds(looking, lookups)), change of \
            attributes \(nanoseconds(changing, lookups)); snapshot \
            \(blocks.reduce(0) { $0 + $1.count } / files) bytes a file, written at \
            \(Int(Double(files) / encoding)) files/s, loaded at \
            \(Int(Double(files) / loading)) files/s
            """)
    }

    private mutating func measure(_ body: (inout Self) -> Void) -> Double {
        let start = seconds(CLOCK_THREAD_CPUTIME_ID)
        body(&self)
        return seconds(CLOCK_THREAD_CPUTIME_ID) - start
    }

    @discardableResult private mutating func apply(_ action: Command.Action) -> Outcome {
        time = time + Interval(nanoseconds: 1)
        slot = slot.next
        return namespace.apply(Command(time: time, action: action), slot: slot)
    }

    private mutating func client(_ change: Change) -> Outcome {
        number = RequestNumber(rawValue: number.rawValue + 1)
        return apply(.client(session, number: number, firstIncomplete: number, change))
    }

    /// 20 bytes that differ early and late, as names do.
    private static func name(_ index: Int) -> [UInt8] {
        let digits = String(index, radix: 16)
        return Array("file-".utf8) + [UInt8](repeating: 48, count: 15 - digits.utf8.count)
            + Array(digits.utf8)
    }

    private mutating func create(_ kind: FileKind, in parent: InodeID, _ index: Int, _ set: SetID?)
        -> InodeID
    {
        let creation = Creation(
            parent: parent, name: Self.name(index), kind: kind, mode: 0o644, set: set)
        guard case .created(let attributes, _) = client(.create(creation)) else {
            fatalError("create \(index) was refused")
        }
        return attributes.inode
    }

    private mutating func fill(files: Int) {
        let server = ServerID(rawValue: 1)
        apply(
            .registerServer(
                ServerRecord(
                    id: server, name: "a", rack: "",
                    address: PeerAddress(network: "", socket: "a", machine: "m")),
                disks: [
                    DiskRecord(
                        id: DiskID(rawValue: 1), server: server,
                        incarnation: Incarnation(rawValue: 1), capacity: 1 << 50)
                ]))
        guard case .session(let id, _) = apply(.openSession(nonce: 1, label: "bench")) else {
            fatalError("no session")
        }
        session = id
        var set: SetID?
        for index in 0..<files {
            if index % Self.perSet == 0 {
                let disk = DiskID(rawValue: 1)
                guard case .set(let made) = apply(.createSet(members: [disk], primary: disk))
                else { fatalError("no set") }
                set = made.set
            }
            if index % Self.perDirectory == 0 {
                directories.append(
                    create(.directory, in: .root, index / Self.perDirectory, nil))
            }
            _ = create(.file, in: directories[directories.count - 1], index, set)
        }
    }

    private static func scattered(_ index: Int, _ files: Int) -> Int {
        Int((UInt64(index) &* 0x9E37_79B9_7F4A_7C15) >> 11) % files
    }

    /// Made before they are looked up, as a request brings them.
    private func scatteredNames(_ count: Int, files: Int) -> [(InodeID, [UInt8])] {
        (0..<count).map { index in
            let file = Self.scattered(index, files)
            return (directories[file / Self.perDirectory], Self.name(file))
        }
    }

    private func look(_ names: [(InodeID, [UInt8])]) {
        for (directory, name) in names {
            guard (try? namespace.lookup(directory, name)) != nil else {
                fatalError("\(name) is not there")
            }
        }
    }

    private mutating func change(times: Int, files: Int) {
        var changes = AttributeChanges()
        changes.mode = 0o600
        for index in 0..<times {
            // Slot 1 is the root; a directory comes before its files.
            let file = Self.scattered(index, files)
            let inode = InodeID(
                slot: UInt64(file + file / Self.perDirectory + 2 + 1), generation: 0)
            guard case .entry = client(.setAttributes(inode, changes)) else {
                fatalError("file \(file) was not changed")
            }
        }
    }

    private mutating func encode() -> [[UInt8]] {
        var encoder = SnapshotEncoder(namespace)
        var blocks: [[UInt8]] = []
        while true {
            switch encoder.advance(items: 1_024) {
            case .more: continue
            case .block(let bytes): blocks.append(bytes)
            case .end: return blocks
            }
        }
    }

    private mutating func load(_ blocks: [[UInt8]]) {
        do {
            var decoder = SnapshotDecoder()
            for block in blocks { try decoder.add(block[...]) }
            namespace = try decoder.finish()
        } catch { fatalError("the snapshot is not read: \(error)") }
    }
}
