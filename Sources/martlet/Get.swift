// `martlet get`: files of the cell to the local file system.

import ArgumentParser
import Base
import Client
import Glibc
import Synchronization

struct Get: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "get", abstract: "Copy files of the cell here.",
        discussion: """
            One directory becomes LOCAL itself, or adds to it; LOCAL/ or several sources go into \
            LOCAL. Modes, times, symbolic and hard links are kept, runs of zeros become holes. \
            What is there already with the same size and time is skipped, so an interrupted get \
            can be run again.
            """)

    @Argument(help: "Absolute paths in the cell, and the local target.")
    var paths: [String]
    @OptionGroup var transfer: TransferOptions
    @OptionGroup var cell: CellOptions

    func validate() throws {
        if paths.count < 2 { throw ValidationError("get needs REMOTE… and LOCAL") }
    }

    mutating func run() throws {
        let sources = try paths.dropLast().map { (text) throws(CommandFailure) in
            try RemotePath(text)
        }
        let target = paths[paths.count - 1]
        let isInto = sources.count > 1 || target.hasSuffix("/")
        if isInto, !LocalFile.isDirectory(target) {
            throw CommandFailure(.notFound, "\(target): no such directory")
        }
        let tally = Tally()
        tally.stopOnSignals()
        let fileSystem = try cell.connect("get")
        let download = Download(fileSystem: fileSystem, options: transfer, tally: tally)
        tally.showProgress(!transfer.quiet && !transfer.json)
        download.run(sources, to: target, isInto: isInto)
        fileSystem.close()
        try tally.finish(transfer, "got")
    }
}

/// A file of the cell on its way here.
private struct DownloadJob: Sendable {
    var attributes: Attributes
    var remote: String
    var local: [UInt8]
}

/// Walks the cell's tree on the calling thread, copies files on others.
private final class Download {
    let fileSystem: FileSystem
    let options: TransferOptions
    let tally: Tally
    private let queue = JobQueue<DownloadJob>()
    /// Where the first name of a file with several went.
    private var first: [InodeID: [UInt8]] = [:]
    private var links: [(first: [UInt8], job: DownloadJob)] = []
    private var directories: [(local: [UInt8], attributes: Attributes)] = []

    init(fileSystem: FileSystem, options: TransferOptions, tally: Tally) {
        self.fileSystem = fileSystem
        self.options = options
        self.tally = tally
    }

    func run(_ sources: [RemotePath], to target: String, isInto: Bool) {
        let downloader = FileDownloader(
            fileSystem: fileSystem, tally: tally, verifies: options.verify)
        let workers = ThreadGroup(count: options.jobs) { [queue, tally] in
            while let job = queue.take() {
                if tally.isStopped { continue }
                do throws(CommandFailure) {
                    try downloader.copy(job.attributes, job.remote, to: job.local)
                } catch {
                    tally.fail(job.remote, error)
                }
            }
        }
        for source in sources { addTop(source, target, isInto) }
        tally.counts.withLock { $0.isComplete = true }
        queue.finish()
        workers.join()
        finishLinks()
        for directory in directories.reversed() where !tally.isStopped {
            downloader.setAttributes(of: directory.local, directory.attributes)
        }
    }

    private func addTop(_ source: RemotePath, _ target: String, _ isInto: Bool) {
        do throws(CommandFailure) {
            let found = try source.resolve(in: fileSystem, followLast: !options.recursive)
            if found.kind == .directory, !options.recursive {
                throw CommandFailure(.failed, "\(source.text): is a directory (-r copies it)")
            }
            let goesInto =
                isInto || (found.kind != .directory && LocalFile.isDirectory(target))
            let local = Array(target.utf8)
            add(found, source.text, goesInto ? local.appending(source.name) : local)
        } catch {
            tally.fail(source.text, error)
        }
    }

    private func add(_ attributes: Attributes, _ remote: String, _ local: [UInt8]) {
        if tally.isStopped { return }
        let job = DownloadJob(attributes: attributes, remote: remote, local: local)
        switch attributes.kind {
        case .directory: addDirectory(job)
        case .file:
            tally.counts.withLock { $0.bytesKnown += attributes.size }
            if attributes.links > 1, let first = first[attributes.inode] {
                links.append((first, job))
            } else {
                if attributes.links > 1 { first[attributes.inode] = local }
                queue.add(job)
            }
        default:
            do throws(CommandFailure) {
                try FileDownloader(fileSystem: fileSystem, tally: tally, verifies: false)
                    .copySpecial(attributes, remote, to: local)
            } catch {
                tally.fail(remote, error)
            }
        }
    }

    private func addDirectory(_ job: DownloadJob) {
        if job.local.withPath({ mkdir($0, 0o700) }) != 0,
            errno != EEXIST || !LocalFile.isDirectory(job.local.text)
        {
            return tally.fail(job.remote, CommandFailure(errno: errno, job.local.text))
        }
        do throws(FileError) {
            try fileSystem.forEachEntry(of: job.attributes.inode, tally.cancellation) { entry in
                let path = (job.remote == "/" ? "" : job.remote) + "/" + entry.name.text
                guard let attributes = entry.attributes else { return }
                add(attributes, path, job.local.appending(entry.name))
            }
        } catch {
            tally.fail(job.remote, CommandFailure(file: error, job.remote))
        }
        directories.append((job.local, job.attributes))
        tally.counts.withLock { $0.directories += 1 }
    }

    private func finishLinks() {
        for (first, job) in links where !tally.isStopped {
            var here = stat()
            var there = stat()
            let isThere =
                first.withPath { lstat($0, &here) } == 0
                && job.local.withPath { lstat($0, &there) } == 0
                && FileKey(here) == FileKey(there)
            if !isThere {
                let temporary = FileDownloader.temporary(for: job.local)
                temporary.withPath { _ = unlink($0) }
                let result = first.withPath { old in
                    temporary.withPath { new in
                        job.local.withPath { link(old, new) != 0 ? -1 : rename(new, $0) }
                    }
                }
                guard result == 0 else {
                    tally.fail(job.remote, CommandFailure(errno: errno, job.local.text))
                    continue
                }
            }
            tally.counts.withLock {
                $0.links += 1
                $0.bytesDone += job.attributes.size
                $0.bytesSkipped += job.attributes.size
            }
        }
    }
}
