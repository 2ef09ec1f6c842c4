// bench store-start: how long the store of a disk takes to start, and what its index costs.
//
// Makes the index of a disk in DIR, which must not be there, with so much stored data (100 GB) in
// blocks (64 KiB) of files (64 MiB), and MIB of log (1,024, the most there is) after the last
// checkpoint. Then starts it twice, as after a crash and as after a stop, and removes DIR. What
// records hold is left out but for the tail: the files have holes there.

import Base
import Glibc
import Logging
import Storage
import Store

/// See the head of this file.
struct StoreStart {
    private var stored = 100_000_000_000
    private var block = 64 << 10
    private var file = 64 << 20
    private var tail = 1 << 30
    private var folder = ""
    /// DIR was made by the process that this one replaced: nothing of its memory is left.
    private var isMade = false

    init?(_ words: ArraySlice<String>) {
        var rest = words
        while let word = rest.popFirst() {
            func value(_ unit: Int, in range: ClosedRange<Int>) -> Int? {
                guard let number = rest.popFirst().flatMap({ Int($0) }), range.contains(number)
                else { return nil }
                return number * unit
            }
            switch word {
            case "--stored":
                guard let bytes = value(1_000_000_000, in: 1...100_000) else { return nil }
                stored = bytes
            case "--block":
                guard let bytes = value(1 << 10, in: 1...64) else { return nil }
                block = bytes
            case "--file":
                guard let bytes = value(1 << 10, in: 1...65_536) else { return nil }
                file = bytes
            case "--tail":
                guard let bytes = value(1 << 20, in: 0...1_024) else { return nil }
                tail = bytes
            case "--made": isMade = true
            default:
                guard folder.isEmpty, !word.hasPrefix("-") else { return nil }
                folder = word
            }
        }
        guard !folder.isEmpty, block <= file, file / block <= Limits.blocksPerChunk else {
            return nil
        }
    }

    static var configuration: StoreConfiguration {
        StoreConfiguration(
            log: LogConfiguration(
                cell: CellID(high: 1, low: 2), owner: .server(ServerID(rawValue: 3)),
                disk: DiskID(rawValue: 4)),
            checkpointInterval: .max)
    }

    func run() {
        guard isMade else {
            var maker = IndexMaker(folder, block: block, file: file)
            maker.make(stored: stored, tail: tail)
            let program = CommandLine.arguments[0]
            let words = [program] + CommandLine.arguments.dropFirst() + ["--made"]
            var pointers = words.map { strdup($0) } + [nil]
            execv("/proc/self/exe", &pointers)
            fatalError("exec: \(String(cString: strerror(errno)))")
        }
        let before = Memory()
        var first = StartedStore(folder)
        let blocks = first.store.usage.logical / UInt64(block)
        let memory = Memory()
        print(
            "\(stored / 1_000_000_000) GB in \(blocks) blocks of \(block >> 10) KiB, "
                + "\(first.store.usage.chunks) chunks, \(first.store.living >> 20) MiB of log")
        let held = memory.resident - before.resident
        let each = Self.tenths(held * 10 / Int(blocks))
        print(
            "index: \(held >> 20) MiB of memory, \(each) bytes a block; "
                + "\(memory.peak >> 20) MiB at the most during the start")
        first.print("start after a crash, \(tail >> 20) MiB of log after the checkpoint")
        first.stop()
        var second = StartedStore(folder)
        second.print("start after a stop")
        second.stop()
        IndexMaker.remove(folder)
    }

    static func tenths(_ number: Int) -> String { "\(number / 10).\(number % 10)" }
}

/// A store that was started on a real disk, and how long that took.
private struct StartedStore {
    var store: DiskStore
    private let disk: PosixDisk
    private let answers = Monitor<[(DiskOperation, DiskResult)]>([])
    private var wall = 0.0
    private var processor = 0.0
    private var isStopped = false

    init(_ folder: String) {
        let answers = answers
        do throws(StorageError) {
            disk = try PosixDisk(folder: folder, logger: Logger(label: "bench")) {
                operation, result in
                answers.change { answers in
                    answers.append((operation, result))
                    return 1
                }
            }
        } catch { fatalError("\(error)") }
        store = DiskStore(StoreStart.configuration)
        let (began, used) = (seconds(CLOCK_MONOTONIC), seconds(CLOCK_PROCESS_CPUTIME_ID))
        take(store.start(disk.inventory))
        while !store.isReady { turn() }
        wall = seconds(CLOCK_MONOTONIC) - began
        processor = seconds(CLOCK_PROCESS_CPUTIME_ID) - used
    }

    private mutating func turn() {
        let ready = answers.wait { answers in
            if answers.isEmpty { return nil as [(DiskOperation, DiskResult)]? }
            defer { answers = [] }
            return answers
        }
        for (operation, result) in ready { take(store.completed(operation, result, now: .zero)) }
    }

    private mutating func take(_ outputs: [StoreOutput]) {
        for output in outputs {
            switch output {
            case .disk(let effect): disk.perform(effect)
            case .failed(let failure): fatalError("\(failure)")
            case .stopped: isStopped = true
            default: break
            }
        }
    }

    func print(_ what: String) {
        let (wall, processor) = (Int(wall * 100), Int(processor * 100))
        Swift.print("\(what): \(Self.hundredths(wall)) s, \(Self.hundredths(processor)) s of CPU")
    }
    private static func hundredths(_ number: Int) -> String {
        "\(number / 100).\(number % 100 < 10 ? "0" : "")\(number % 100)"
    }

    /// Writes the index down.
    mutating func stop() {
        take(store.stop())
        while !isStopped { turn() }
        disk.close()
    }
}
