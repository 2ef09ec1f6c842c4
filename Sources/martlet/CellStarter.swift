// Starts the processes of a cell and waits until they serve.

import Base
import Client
import Glibc
import Mount
import Wire

struct CellStarter {
    let folder: CellFolder
    let description: CellDescription
    /// When to give up.
    let end: Instant
    /// More options of the masters.
    let masterOptions: [String]
    private var started: [Daemon] = []

    init(
        folder: CellFolder, description: CellDescription, end: Instant,
        masterOptions: [String] = []
    ) {
        self.masterOptions = masterOptions
        self.folder = folder
        self.description = description
        self.end = end
    }

    /// Starts every master and chunk server that does not run.
    mutating func startServers() throws(CommandFailure) {
        for member in description.masters { try startMaster(member) }
        let capacity = description.capacity.map { ["--capacity", "\($0)"] } ?? []
        for member in description.chunkServers {
            let disk = folder.folder(of: member.name) + "/disk"
            let disks = (1...description.disks).flatMap { number in
                ["--disk", number == 1 ? disk : "\(disk)-\(number)"]
            }
            try start(
                member,
                ["chunkserver", "serve", "--masters", peers, "--name", member.name]
                    + common(member) + capacity + disks)
        }
    }

    /// Starts a master, unless it runs.
    mutating func startMaster(_ member: Member) throws(CommandFailure) {
        try start(
            member,
            ["master", "serve", "--id", "\(member.id)", "--peers", peers] + common(member)
                + (member.hasJoined ? ["--join"] : []) + masterOptions
                + ["--goal", "\(description.goal)", "--owner", "\(geteuid()):\(getegid())"])
    }
    /// All masters, as servers are told.
    private var peers: String {
        description.masters.map { master in
            let socket = folder.socket(of: master.name)
            return "\(master.id)=\(master.address)\(socket.isEmpty ? "" : "@" + socket)"
        }.joined(separator: ",")
    }

    private func common(_ member: Member) -> [String] {
        var words = [
            "--dir", folder.folder(of: member.name), "--listen", member.address, "--key",
            folder.keyPath, "--segment-size", "\(description.segmentSize)",
        ]
        let socket = folder.socket(of: member.name)
        if !socket.isEmpty { words += ["--socket", socket] }
        return words
    }

    private mutating func start(_ member: Member, _ words: [String]) throws(CommandFailure) {
        let daemon = Daemon(folder: folder, name: member.name)
        guard daemon.process == nil else { return }
        _ = try daemon.start(words)
        started.append(daemon)
    }

    /// Waits until the masters have a leader, every chunk server reports to it, and every set
    /// serves. Servers stay up although sets do not: only then can an operator help them. Says how
    /// many that are.
    func waitUntilServing() throws(CommandFailure) -> String? {
        let target = try folder.target()
        let fileSystem = FileSystem(
            target: target, options: ClientOptions(label: "martlet up", deadline: .seconds(1)))
        var missing = "no master answers"
        var isConnected = false
        defer { fileSystem.close() }
        while true {
            let isLate = Clock.now >= end
            if !isConnected {
                do throws(ClientError) {
                    try fileSystem.connect()
                    isConnected = true
                } catch {
                    missing = CommandFailure(error).message
                }
            }
            if isConnected {
                do throws(FileError) {
                    let status = try fileSystem.status()
                    if let lack = lack(status) {
                        missing = lack
                    } else if let waiting = try waiting(status, fileSystem) {
                        if isLate { return waiting }
                        missing = waiting
                    } else {
                        return nil
                    }
                } catch {
                    missing = "the masters have no leader"
                }
            }
            try check(missing, isLate: isLate)
            usleep(20_000)
        }
    }

    /// Who is not there yet; nil if all are.
    private func lack(_ status: CellStatus) -> String? {
        // Until the disks of all masters are in their configuration, none may be missing (M18).
        guard status.configuration > 1 else { return "the masters have not all met yet" }
        // A server counts when one of its disks answers: others may have failed.
        let up = Set(status.servers.filter(\.isUp).map(\.id.unit)).count
        guard up >= description.chunkServers.count else {
            return "\(up) of \(description.chunkServers.count) chunk servers answer"
        }
        return nil
    }

    /// How many sets do not serve, other than those of a loaded state, which wait for an operator.
    private func waiting(
        _ status: CellStatus, _ fileSystem: FileSystem
    ) throws(FileError) -> String? {
        if status.sets.waiting == 0 { return nil }
        let waiting = try fileSystem.map().count { !$0.isServing && $0.held.isEmpty }
        return waiting == 0 ? nil : "\(waiting) of \(status.sets.total) replica sets do not serve"
    }

    /// Fails if a process that was started has ended, or if it is too late.
    private func check(_ missing: String, isLate: Bool) throws(CommandFailure) {
        for daemon in started where daemon.process == nil {
            throw CommandFailure(
                .failed, "\(daemon.name) ended while it was starting:\n\(daemon.logTail())")
        }
        if isLate {
            let tails = started.map { $0.logTail(3) }.joined(separator: "\n")
            throw CommandFailure(.timedOut, "the cell does not serve: \(missing)\n\(tails)")
        }
    }

    /// Mounts the cell where cell.json says, unless it is mounted.
    mutating func startMount() throws(CommandFailure) {
        guard let mount = description.mount else { return }
        let daemon = Daemon(folder: folder, name: "mount")
        let point = MountPoint(mount.path)
        if daemon.process != nil {
            guard point.isMartlet else {
                throw CommandFailure(
                    .failed,
                    "the cell's mount runs, but not on \(mount.path): "
                        + "`martlet down \(folder.path)` first")
            }
            return
        }
        do throws(MountError) { try point.clearStale() } catch { throw CommandFailure(error) }
        if point.isMartlet { throw CommandFailure(MountError.alreadyMounted(point.path)) }
        try LocalFile.makeDirectories(mount.path)
        var words = ["mount", folder.path, mount.path, "--foreground"]
        if !mount.options.isEmpty { words += ["-o", mount.options.joined(separator: ",")] }
        let process = try daemon.start(words)
        started.append(daemon)
        while !point.isMartlet {
            try check("\(mount.path) is not mounted", isLate: Clock.now >= end)
            usleep(5_000)
        }
        guard !mount.options.contains("ro") else { return }
        try probe(point, process)
    }

    /// Writes a file there and removes it.
    private func probe(
        _ point: MountPoint, _ process: ProcessIdentity
    ) throws(CommandFailure) {
        let path = "\(point.path)/.martlet-probe-\(process.pid)"
        while true {
            let file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
            if file >= 0 {
                let isWritten = write(file, "x", 1) == 1 && fsync(file) == 0
                close(file)
                unlink(path)
                if isWritten { return }
            }
            try check(
                "\(point.path) can't be written: \(CommandFailure.text(of: errno))",
                isLate: Clock.now >= end)
            usleep(100_000)
        }
    }

    /// Ends what was started.
    func undo() {
        for daemon in started.reversed() { _ = daemon.stop(patience: .seconds(5)) }
    }
}
