// `martlet down DIR`: ends a cell's processes in order, and with --destroy removes its data.
//
// Invariants:
//  1. Mounts end before chunk servers, chunk servers before masters: what was written is flushed.
//  2. --destroy removes DIR only if it is a cell, nothing is mounted below it, and all its
//     processes have ended.

import ArgumentParser
import Base
import Glibc
import Mount

struct Down: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "down", abstract: "End a cell on this machine; its data stays.")

    @Argument(help: "The cell's folder.")
    var folder: String
    @Flag(help: "Remove the cell with all its data.")
    var destroy = false
    @Option(help: "Processes that have not ended after so many seconds are killed.")
    var patience: Double = 20

    mutating func run() throws {
        let folder = CellFolder(self.folder)
        let description = try folder.description()
        try folder.lock()
        let patience = Interval(nanoseconds: Int64(max(0, min(patience, 1e6)) * 1e9))
        var killed: [String] = []
        for prefix in ["mount", "chunkserver-", "master-"] {
            killed += Self.stop(Daemon.all(in: folder, prefix: prefix), patience)
        }
        if let mount = description.mount { try Self.clear(MountPoint(mount.path)) }
        if !killed.isEmpty {
            write(
                error:
                    "martlet: killed after \(patience.seconds) s: \(killed.joined(separator: " "))")
        }
        if destroy { try Self.remove(folder, description) }
        print("cell \(folder.path) is \(destroy ? "gone" : "down")")
    }

    /// Ends processes side by side; the names of those that had to be killed.
    private static func stop(_ daemons: [Daemon], _ patience: Interval) -> [String] {
        for process in daemons.compactMap(\.process) { kill(process.pid, SIGTERM) }
        let end = Clock.now + patience
        return daemons.filter { daemon in
            let rest = end - Clock.now
            return !daemon.stop(patience: max(.zero, rest))
        }.map(\.name)
    }

    /// Takes away what a killed mount left.
    private static func clear(_ point: MountPoint) throws(CommandFailure) {
        do throws(MountError) { try point.clearStale() } catch { throw CommandFailure(error) }
    }

    private static func remove(
        _ folder: CellFolder, _ description: CellDescription
    ) throws(CommandFailure) {
        let inside = MountEntry.all().filter { $0.path.hasPrefix(folder.path + "/") }
        guard inside.isEmpty else {
            throw CommandFailure(
                .refusedAsUnsafe, "\(inside[0].path) is mounted inside \(folder.path): not removed")
        }
        guard Daemon.all(in: folder, prefix: "").allSatisfy({ $0.process == nil }) else {
            throw CommandFailure(
                .refusedAsUnsafe, "a process of \(folder.path) still runs: not removed")
        }
        try LocalFile.removeTree(Array(folder.path.utf8))
    }
}
