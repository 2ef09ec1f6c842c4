// `martlet put`: local files into the cell.

import ArgumentParser
import Base
import Client
import Glibc
import Synchronization

struct Put: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "put", abstract: "Copy local files into the cell.",
        discussion: """
            One directory becomes REMOTE itself, or adds to it; REMOTE/ or several sources go \
            into REMOTE. Modes, times, symbolic and hard links and holes are kept. What is there \
            already with the same size and time is skipped, so an interrupted put can be run again.
            """)

    @Argument(help: "Local files, and the target in the cell.")
    var paths: [String]
    @OptionGroup var transfer: TransferOptions
    @OptionGroup var cell: CellOptions

    func validate() throws {
        if paths.count < 2 { throw ValidationError("put needs LOCAL… and REMOTE") }
    }

    mutating func run() throws {
        let target = try RemotePath(paths[paths.count - 1])
        let tally = Tally()
        tally.stopOnSignals()
        let fileSystem = try cell.connect("put")
        let upload = Upload(fileSystem: fileSystem, options: transfer, tally: tally)
        tally.showProgress(!transfer.quiet && !transfer.json)
        let outcome = Result { () throws(CommandFailure) in
            try upload.run(paths.dropLast().map { Array($0.utf8) }, to: target)
        }
        fileSystem.close()
        try outcome.get()
        try tally.finish(transfer, "put")
    }
}

/// A local file on its way into the cell.
private struct UploadJob: Sendable {
    var local: [UInt8]
    var status: stat
    var parent: InodeID
    var name: [UInt8]
    /// What has the name in the cell now.
    var existing: Attributes?
}

/// A name for a file that another name brings.
private struct UploadLink: Sendable {
    var key: FileKey
    var job: UploadJob
}

/// Which local file it is, whatever its names.
struct FileKey: Hashable, Sendable {
    var device: UInt
    var number: UInt
    init(_ status: stat) {
        device = status.st_dev
        number = status.st_ino
    }
}

/// Walks the local tree on the calling thread, copies files on others.
private final class Upload {
    let fileSystem: FileSystem
    let options: TransferOptions
    let tally: Tally
    private let queue = JobQueue<UploadJob>()
    private let uploaded = Uploaded()
    private var links: [UploadLink] = []
    private var known: Set<FileKey> = []
    /// Directories get their times when nothing is written into them any more.
    private var directories: [(inode: InodeID, changes: AttributeChanges)] = []

    init(fileSystem: FileSystem, options: TransferOptions, tally: Tally) {
        self.fileSystem = fileSystem
        self.options = options
        self.tally = tally
    }

    func run(_ sources: [[UInt8]], to target: RemotePath) throws(CommandFailure) {
        let there = try target.resolveIfThere(in: fileSystem)
        let isInto = sources.count > 1 || target.meansDirectory
        if isInto, there?.kind != .directory {
            throw there == nil
                ? CommandFailure(.notFound, "\(target.text) (`martlet mkdir` makes it)")
                : CommandFailure(file: .notDirectory, target.text)
        }
        let parent = isInto ? nil : try? target.resolveParent(in: fileSystem)
        if !isInto, parent == nil, there?.kind != .directory {
            throw CommandFailure(.notFound, "the directory of \(target.text)")
        }
        let workers = startWorkers()
        for source in sources { addTop(source, there, parent?.inode, target.name, isInto) }
        tally.counts.withLock { $0.isComplete = true }
        queue.finish()
        workers.join()
        finishLinks()
        finishDirectories()
    }

    private func startWorkers() -> ThreadGroup {
        let uploader = FileUploader(
            fileSystem: fileSystem, tally: tally, verifies: options.verify)
        return ThreadGroup(count: options.jobs) { [queue, uploaded, tally] in
            while let job = queue.take() {
                if tally.isStopped { continue }
                do throws(CommandFailure) {
                    let inode = try uploader.copy(
                        job.local, to: job.parent, job.name, replacing: job.existing)
                    uploaded.set(FileKey(job.status), inode)
                } catch {
                    tally.fail(job.local.text, error)
                }
            }
        }
    }

    /// One source of the command line.
    private func addTop(
        _ source: [UInt8], _ there: Attributes?, _ parent: InodeID?, _ name: [UInt8],
        _ isInto: Bool
    ) {
        var status = stat()
        let result = source.withPath {
            options.recursive ? lstat($0, &status) : stat($0, &status)
        }
        guard result == 0 else {
            return tally.fail(source.text, CommandFailure(errno: errno, source.text))
        }
        let isDirectory = status.st_mode & S_IFMT == S_IFDIR
        if isDirectory, !options.recursive {
            return tally.fail(
                source.text,
                CommandFailure(.failed, "\(source.text): is a directory (-r copies it)"))
        }
        if let there, there.kind == .directory, isInto || !isDirectory {
            let base = Array(LocalFile.absolute(source.text).lastPart.utf8)
            let existing = lookup(there.inode, base)
            return add(source, status, there.inode, base, existing)
        }
        // The root of the cell has no parent: a directory can only add to it.
        guard let parent else {
            if let there { fill(source, status, there.inode, isNew: false) }
            return
        }
        add(source, status, parent, name, there)
    }

    private func lookup(_ parent: InodeID, _ name: [UInt8]) -> Attributes? {
        try? fileSystem.lookup(parent, name, tally.cancellation)
    }

    private func add(
        _ local: [UInt8], _ status: stat, _ parent: InodeID, _ name: [UInt8],
        _ existing: Attributes?
    ) {
        if tally.isStopped { return }
        let job = UploadJob(
            local: local, status: status, parent: parent, name: name, existing: existing)
        switch status.st_mode & S_IFMT {
        case S_IFDIR: addDirectory(job)
        case S_IFREG:
            tally.counts.withLock { $0.bytesKnown += UInt64(status.st_size) }
            if status.st_nlink > 1, !known.insert(FileKey(status)).inserted {
                links.append(UploadLink(key: FileKey(status), job: job))
            } else {
                queue.add(job)
            }
        default:
            do throws(CommandFailure) {
                try FileUploader(fileSystem: fileSystem, tally: tally, verifies: false)
                    .copySpecial(local, status, to: parent, name, replacing: existing)
            } catch {
                tally.fail(local.text, error)
            }
        }
    }

    private func addDirectory(_ job: UploadJob) {
        if let existing = job.existing, existing.kind != .directory {
            return tally.fail(job.local.text, CommandFailure(file: .notDirectory, job.name.text))
        }
        if let existing = job.existing {
            return fill(job.local, job.status, existing.inode, isNew: false)
        }
        do throws(FileError) {
            let made = try fileSystem.makeNode(
                job.parent, job.name, kind: .directory,
                mode: UInt16(job.status.st_mode & 0o7777), user: owner(job.status).user,
                group: owner(job.status).group, device: 0, tally.cancellation)
            fill(job.local, job.status, made.inode, isNew: true)
        } catch {
            tally.fail(job.local.text, CommandFailure(file: error, job.local.text))
        }
    }

    /// Copies what is in a local directory into one of the cell.
    private func fill(_ local: [UInt8], _ status: stat, _ inode: InodeID, isNew: Bool) {
        var existing: [[UInt8]: Attributes] = [:]
        do throws(FileError) {
            if !isNew {
                try fileSystem.forEachEntry(of: inode, tally.cancellation) { entry in
                    existing[entry.name] = entry.attributes
                }
            }
        } catch {
            return tally.fail(local.text, CommandFailure(file: error, local.text))
        }
        switch LocalFile.names(in: local) {
        case .failure(let error):
            tally.fail(local.text, CommandFailure(errno: error.code, local.text))
        case .success(let names):
            for name in names {
                let path = local.appending(name)
                var status = stat()
                if path.withPath({ lstat($0, &status) }) != 0 {
                    tally.fail(path.text, CommandFailure(errno: errno, path.text))
                } else {
                    add(path, status, inode, name, existing[name])
                }
            }
        }
        directories.append((inode, changes(for: status)))
        tally.counts.withLock { $0.directories += 1 }
    }

    /// Names of files that are there now.
    private func finishLinks() {
        for link in links where !tally.isStopped {
            guard let inode = uploaded.inode(of: link.key) else {
                tally.fail(
                    link.job.local.text,
                    CommandFailure(.failed, "\(link.job.local.text): its file was not copied"))
                continue
            }
            do throws(CommandFailure) {
                try finish(link.job, inode)
                tally.counts.withLock {
                    $0.links += 1
                    $0.bytesDone += UInt64(link.job.status.st_size)
                    $0.bytesSkipped += UInt64(link.job.status.st_size)
                }
            } catch {
                tally.fail(link.job.local.text, error)
            }
        }
    }

    private func finish(_ job: UploadJob, _ inode: InodeID) throws(CommandFailure) {
        if job.existing?.inode == inode { return }
        try attempt(job.local.text) { () throws(FileError) in
            guard job.existing != nil else {
                _ = try fileSystem.link(inode, job.parent, job.name, tally.cancellation)
                return
            }
            let temporary = temporaryName(for: job.name)
            try? fileSystem.unlink(job.parent, temporary)
            _ = try fileSystem.link(inode, job.parent, temporary, tally.cancellation)
            try fileSystem.rename(job.parent, temporary, job.parent, job.name, flags: [])
        }
    }

    private func finishDirectories() {
        if tally.isStopped { return }
        let failures = inParallel(directories, threads: options.jobs) { [fileSystem] directory in
            do throws(FileError) {
                _ = try fileSystem.setAttributes(directory.inode, directory.changes, size: nil)
                return nil as FileError?
            } catch {
                return error
            }
        }
        for error in failures.compactMap({ $0 }) {
            tally.fail("directories", CommandFailure(file: error, "times of a directory"))
        }
    }
}
