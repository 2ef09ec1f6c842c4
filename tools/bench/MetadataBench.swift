// Creates and stats against a running cell: many clients over a few connections, then one client
// alone beside three loops of `write + fdatasync`, which are what three masters' logs can't beat.

import Base
import Client
@preconcurrency import Glibc
import Synchronization
import Wire

struct MetadataBench: Sendable {
    private static let connections = 8
    private static let clients = 64
    private static let seconds = 5.0

    private let target: CellTarget
    private let cells: [FileSystem]
    private let directory: InodeID

    /// `keyFile`: the cell's cell.key. `masters`: HOST:PORT,…
    init(keyFile: String, masters: String) throws {
        let words = Self.firstLine(keyFile).split(separator: " ")
        guard words.count == 2, let key = CellKey(hexadecimal: words[0]),
            let cell = CellID(hexadecimal: words[1])
        else { fatalError("\(keyFile) holds no key and cell id") }
        let target = CellTarget(
            cell: cell, key: key,
            masters: masters.split(separator: ",").enumerated().map { index, host in
                MasterTarget(
                    id: MasterID(rawValue: UInt16(index + 1)),
                    address: PeerAddress(network: String(host), socket: "", machine: ""))
            })
        self.target = target
        cells = try (0..<Self.connections).map { _ in
            let cell = FileSystem(target: target, options: ClientOptions(label: "bench"))
            try cell.connect()
            return cell
        }
        directory = try cells[0].makeNode(
            .root, Array("bench-\(UInt32.random(in: 0 ... .max))".utf8), kind: .directory,
            mode: 0o755, user: 0, group: 0, device: 0
        ).inode
    }

    func run(disk: String) throws {
        let homes = try (0..<Self.clients).map { try make(.directory, in: directory, "\($0)") }
        let creates = try load(clients: Self.clients) { client, round in
            _ = try make(.file, in: homes[client], "\(round)", client)
        }
        print("create, \(Self.clients) clients, \(Self.connections) connections: \(creates)")
        let stats = try load(clients: Self.clients) { client, _ in
            _ = try cells[client % cells.count].attributes(homes[client])
        }
        print("stat, \(Self.clients) clients, \(Self.connections) connections: \(stats)")
        let pipelined = try PipelinedStats.run(
            target, homes, connections: Self.connections, for: .seconds(Self.seconds))
        print("stat, pipelined over \(Self.connections) connections: \(pipelined)")
        let alone = try load(clients: 1) { _, round in
            _ = try make(.file, in: directory, "alone-\(round)")
        }
        print("create, 1 client: \(alone)")
        print("write + fdatasync of 4 KiB, 3 at a time: \(try Self.syncs(in: disk))")
    }

    private func make(
        _ kind: FileKind, in parent: InodeID, _ name: String, _ client: Int = 0
    ) throws -> InodeID {
        try cells[client % cells.count].makeNode(
            parent, Array(name.utf8), kind: kind, mode: 0o644, user: 0, group: 0, device: 0
        ).inode
    }

    /// Calls `operation` from so many threads until the time is over.
    private func load(
        clients: Int, _ operation: @escaping @Sendable (Int, Int) throws -> Void
    ) throws -> Latencies {
        try Self.threads(clients) { client in
            var latencies: [Duration] = []
            let end = ContinuousClock.now + .seconds(Self.seconds)
            var now = ContinuousClock.now
            while now < end {
                try operation(client, latencies.count)
                let next = ContinuousClock.now
                latencies.append(next - now)
                now = next
            }
            return latencies
        }
    }

    private static func syncs(in folder: String) throws -> Latencies {
        try threads(3) { thread in
            let path = "\(folder)/bench-\(getpid())-\(thread)"
            let file = open(path, O_RDWR | O_CREAT | O_EXCL, 0o600)
            guard file >= 0 else { fatalError("\(path) can't be made: errno \(errno)") }
            defer {
                close(file)
                unlink(path)
            }
            // As the logs are: their bytes are there before they are written.
            guard posix_fallocate(file, 0, 64 << 20) == 0 else { fatalError("no space") }
            let page = [UInt8](repeating: 1, count: 4_096)
            for index in 0..<4_096 { pwrite(file, page, 4_096, off_t(index) * 4_096) }
            fsync(file)
            var latencies: [Duration] = []
            for index in 0..<2_000 {
                let start = ContinuousClock.now
                guard pwrite(file, page, 4_096, off_t(index) * 4_096) == 4_096,
                    fdatasync(file) == 0
                else { fatalError("\(path): errno \(errno)") }
                latencies.append(ContinuousClock.now - start)
            }
            return latencies
        }
    }

    private static func threads(
        _ count: Int, _ body: @escaping @Sendable (Int) throws -> [Duration]
    ) throws -> Latencies {
        let results = Mutex<[Duration]>([])
        let start = ContinuousClock.now
        var threads: [pthread_t] = []
        for index in 0..<count {
            let work = Unmanaged.passRetained(
                Work {
                    do {
                        let latencies = try body(index)
                        results.withLock { $0 += latencies }
                    } catch { fatalError("client \(index): \(error)") }
                })
            var thread = pthread_t()
            pthread_create(
                &thread, nil,
                { pointer in
                    Unmanaged<Work>.fromOpaque(pointer!).takeRetainedValue().body()
                    return nil
                }, work.toOpaque())
            threads.append(thread)
        }
        for thread in threads { pthread_join(thread, nil) }
        let seconds = (ContinuousClock.now - start) / .seconds(1)
        return Latencies(sorted: results.withLock { $0.sorted() }, seconds: seconds)
    }

    private static func firstLine(_ path: String) -> String {
        guard let file = fopen(path, "r") else { fatalError("\(path) can't be read") }
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 1_000)
        fgets(&line, 1_000, file)
        return String(
            decoding: line.prefix { $0 > 32 || $0 == 32 }.map { UInt8($0) }, as: UTF8.self)
    }
}

/// A thread's work.
private final class Work: Sendable {
    let body: @Sendable () -> Void
    init(_ body: @escaping @Sendable () -> Void) { self.body = body }
}

/// How long operations took.
struct Latencies: CustomStringConvertible {
    var sorted: [Duration]
    var seconds: Double

    var description: String {
        func milliseconds(_ part: Double) -> String {
            guard !sorted.isEmpty else { return "-" }
            let index = min(sorted.count - 1, Int(Double(sorted.count) * part))
            return "\(Double(Int(sorted[index] / .microseconds(10))) / 100) ms"
        }
        return "\(Int(Double(sorted.count) / seconds))/s, p50 \(milliseconds(0.5)), p99 "
            + "\(milliseconds(0.99)), longest \(milliseconds(1))"
    }
}
