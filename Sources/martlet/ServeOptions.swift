// What master and chunk server processes share: options, logging, and the wait for the end.

import ArgumentParser
import Base
import Glibc
import Logging
import Node
import Wire

/// The options of both servers.
struct ServeOptions: ParsableArguments {
    @Option(help: "The folder for its data.")
    var dir: String
    @Option(help: "HOST:PORT to listen on.")
    var listen: String
    @Option(help: "A Unix socket to listen on, for peers on the same host.")
    var socket: String?
    @Option(help: "The cell's key file, made by `martlet init`.")
    var key: String
    @Option(help: "Size of a segment of the disk's log, where the disk is new.")
    var segmentSize = "\(Limits.segment)"
    @Option(help: "Bytes that may be used there, on each disk; all that is free by default.")
    var capacity: String?
    @Option(help: "Write the log there; to standard error by default.")
    var log: String?

    func validate() throws {
        guard Amounts.segment(segmentSize) != nil else {
            throw ValidationError("--segment-size must be from 1MiB to 1GiB")
        }
        if let capacity, Amounts.bytes(capacity) == nil {
            throw ValidationError("--capacity is no size: '\(capacity)'")
        }
        guard listen.split(separator: ":").last.flatMap({ UInt16($0) }) != nil else {
            throw ValidationError("--listen must be HOST:PORT, not '\(listen)'")
        }
    }

    var segmentBytes: Int { Amounts.segment(segmentSize) ?? Limits.segment }

    /// Blocks the ending signals, starts the log and makes the folder. Comes first.
    func prepare() throws(CommandFailure) -> (key: CellKey, cell: CellID) {
        var signals = endingSignals()
        pthread_sigmask(SIG_BLOCK, &signals, nil)
        signal(SIGPIPE, SIG_IGN)
        try LocalFile.makeDirectories(dir)
        startLogging(to: log)
        let file = try KeyFile(reading: key)
        guard let cell = file.cell else {
            throw CommandFailure(.denied, "\(key) names no cell id after the key")
        }
        return (file.key, cell)
    }

    /// What a loop is told; the loops of further disks listen beside the first one.
    func configuration(
        _ identity: PeerIdentity, _ key: CellKey, _ masters: [MasterAddress], disk: String,
        position: Int = 0
    ) -> ServerConfiguration {
        let parts = listen.split(separator: ":", omittingEmptySubsequences: false)
        let port = parts.last.flatMap { Int($0) } ?? 0
        let host = parts.dropLast().joined(separator: ":")
        let socket = socket.map { position == 0 ? $0 : "\($0)-\(position + 1)" }
        return ServerConfiguration(
            folder: disk, capacity: capacity.flatMap { Amounts.bytes($0) }.map { UInt64($0) },
            identity: identity, key: key, network: "\(host):\(port == 0 ? 0 : port + position)",
            socket: socket ?? "", masters: masters)
    }
}

private func endingSignals() -> sigset_t {
    var signals = sigset_t()
    sigemptyset(&signals)
    for number in [SIGTERM, SIGINT, SIGHUP] { sigaddset(&signals, number) }
    return signals
}

/// Waits for SIGTERM or SIGINT.
func waitForEndingSignal(_ logger: Logger) {
    var signals = endingSignals()
    var number: Int32 = 0
    while sigwait(&signals, &number) != 0 {}
    logger.info("ending", metadata: ["signal": "\(number)"])
}

/// A server that gave up: its reason goes to the log, and the process ends.
func halt(_ logger: Logger) -> @Sendable (String) -> Void {
    { reason in
        logger.critical("halted: \(reason)")
        _exit(ExitStatus.failed.rawValue)
    }
}

/// Reads `1=HOST:PORT[@SOCKET],…`.
func masterAddresses(_ text: String) throws(CommandFailure) -> [MasterAddress] {
    let machine = thisMachine()
    var addresses: [MasterAddress] = []
    for item in text.split(separator: ",") {
        let parts = item.split(separator: "=", maxSplits: 1)
        guard parts.count == 2, let id = UInt16(parts[0]), id > 0 else {
            throw CommandFailure(.usage, "'\(item)' is not ID=HOST:PORT")
        }
        let places = parts[1].split(separator: "@", maxSplits: 1).map(String.init)
        addresses.append(
            MasterAddress(
                id: MasterID(rawValue: id),
                address: PeerAddress(
                    network: CellAddress.address(places[0], port: 7_420),
                    socket: places.count > 1 ? places[1] : "",
                    machine: places.count > 1 ? machine : "")))
    }
    guard !addresses.isEmpty, Set(addresses.map(\.id)).count == addresses.count else {
        throw CommandFailure(.usage, "'\(text)' names no masters, or one of them twice")
    }
    return addresses.sorted { $0.id < $1.id }
}
