// `martlet mount` and `martlet umount`, and mount(8)'s helper `mount.martlet`.

import ArgumentParser
import Base
import Client
import Glibc
import Logging
import Mount
import Wire

struct MountCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mount", abstract: "Mount a cell, or a directory of it.")

    @Argument(help: "CELL or CELL:/PATH.")
    var source: String
    @Argument(help: "An empty directory.")
    var mountpoint: String
    @Option(name: .customShort("o"), help: "Options: cache=SIZE, buffer=SIZE, key=FILE, ro, …")
    var options: [String] = []
    @Option(help: "The key file, where CELL is a list of hosts.")
    var key: String?
    @Option(help: "Write the log there.")
    var log: String?
    @Option(help: "Wait so many seconds for the cell.")
    var deadline: Double = Limits.commandDeadline.seconds
    @Flag(name: [.customShort("f"), .long], help: "Stay in the foreground.")
    var foreground = false

    mutating func run() throws {
        let settings = try MountOptions(options.joined(separator: ","))
        let source = MountSource(self.source)
        let target = try CellAddress(source.cell).target(key: key ?? settings.key)
        let point = MountPoint(mountpoint)
        do throws(MountError) { try point.clearStale() } catch { throw CommandFailure(error) }
        if point.isMartlet { throw CommandFailure(MountError.alreadyMounted(point.path)) }
        guard LocalFile.isDirectory(point.path) else {
            throw CommandFailure(.notFound, "\(mountpoint): no such directory")
        }
        if foreground {
            try serve(target, source.path, point, settings)
        } else {
            try detach(source, point)
        }
    }

    /// Serves until it is unmounted or ended.
    private func serve(
        _ target: CellTarget, _ path: String, _ point: MountPoint, _ settings: MountOptions
    ) throws {
        FuseSession.prepareProcess()
        startLogging(to: log ?? settings.log)
        let logger = Logger(label: "mount")
        // A mount waits for its cell as long as it takes: the first answer tells a wrong key or
        // address, later silence is waited out.
        let first = try CellOptions.connect(
            to: target,
            ClientOptions(
                label: "martlet mount", deadline: Interval(nanoseconds: Int64(deadline * 1e9))))
        let root = try attempt(path) { () throws(FileError) in
            try first.resolve(path, followLast: true)
        }
        first.close()
        guard root.kind == .directory else {
            throw CommandFailure(.failed, "\(path): not a directory of the cell")
        }
        let fileSystem = try CellOptions.connect(
            to: target,
            ClientOptions(
                label: "mount \(hostName()):\(point.path)", cacheBytes: settings.cache,
                writeBufferBytes: settings.buffer))
        do throws(MountError) {
            let session = try FuseSession(
                fileSystem: fileSystem,
                settings: MountSettings(
                    point: point, root: root.inode, options: settings.kernel,
                    grace: .seconds(10)),
                log: logger)
            session.run()
        } catch {
            throw CommandFailure(error)
        }
    }

    /// Starts a process that serves, and waits until it does.
    private func detach(_ source: MountSource, _ point: MountPoint) throws(CommandFailure) {
        var words = ["mount", self.source, point.path, "--foreground"]
        if !options.isEmpty { words += ["-o", options.joined(separator: ",")] }
        if let key { words += ["--key", key] }
        words += ["--deadline", "\(deadline)"]
        let process: ProcessIdentity
        let tail: () -> String
        if case .folder(let folder) = CellAddress(source.cell) {
            let daemon = Self.freeDaemon(in: folder)
            process = try daemon.start(words)
            tail = { daemon.logTail() }
        } else {
            let path = log ?? "/var/log/martlet\(point.path.replacing("/", with: "-")).log"
            process = try spawn(words + ["--log", path], output: path)
            tail = { "  its log is \(path)" }
        }
        let end = Clock.now + Interval(nanoseconds: Int64((deadline + 5) * 1e9))
        while !point.isMartlet {
            guard process.isAlive else {
                throw CommandFailure(.failed, "the mount ended while it was starting:\n\(tail())")
            }
            guard Clock.now < end else {
                kill(process.pid, SIGTERM)
                throw CommandFailure(.timedOut, "\(point.path) is not mounted:\n\(tail())")
            }
            usleep(5_000)
        }
    }

    /// The first of mount, mount-2, … that does not run.
    private static func freeDaemon(in folder: CellFolder) -> Daemon {
        var number = 1
        while true {
            let name = number == 1 ? "mount" : "mount-\(number)"
            let daemon = Daemon(folder: folder, name: name)
            if daemon.process == nil { return daemon }
            number += 1
        }
    }

    private func hostName() -> String {
        var name = [CChar](repeating: 0, count: 256)
        gethostname(&name, 255)
        return String(
            decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

struct Unmount: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "umount", abstract: "Unmount a cell.")

    @Argument(help: "Where it is mounted.")
    var mountpoint: String
    @Flag(name: [.customShort("l"), .long], help: "Even if it is in use: gone with its last user.")
    var lazy = false

    mutating func run() throws {
        let point = MountPoint(mountpoint)
        guard point.isMartlet else {
            throw CommandFailure(.notFound, "\(point.path): no Martlet is mounted there")
        }
        let result = point.unmount(lazily: lazy || point.isStale)
        if result == EBUSY {
            throw CommandFailure(
                .failed, "\(point.path) is in use (`--lazy` unmounts all the same)")
        }
        guard result == 0 else { throw CommandFailure(errno: result, "unmounting \(point.path)") }
    }
}

/// `mount.martlet SPEC DIR [-sfnv] [-o OPTIONS]`, as mount(8) calls it, with mount(8)'s exit codes.
enum SystemMount {
    static func run(_ arguments: [String]) {
        var words: [String] = []
        var options: [String] = []
        var rest = arguments[...]
        var isFake = false
        while let word = rest.popFirst() {
            if word == "-o" {
                options.append(rest.popFirst() ?? "")
            } else if word.hasPrefix("-") {
                isFake = isFake || word.dropFirst().contains("f")
            } else {
                words.append(word)
            }
        }
        guard words.count == 2 else {
            write(error: "usage: mount.martlet CELL[:/PATH] DIR [-sfnv] [-o OPTIONS]")
            exit(1)
        }
        if isFake { exit(0) }
        let list = options.joined(separator: ",")
        do {
            var command = try MountCommand.parse(words + (list.isEmpty ? [] : ["-o", list]))
            try command.run()
        } catch let failure as CommandFailure {
            write(error: "mount.martlet: \(failure.message)")
            exit(failure.status == .usage ? 1 : 32)
        } catch {
            write(error: "mount.martlet: \(error)")
            exit(1)
        }
    }
}
