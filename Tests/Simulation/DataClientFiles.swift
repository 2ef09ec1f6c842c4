// What a client of the chunk servers does besides writing and reading: it makes files until disks
// are full, cuts them and deletes them. It changes its own files, one at a time.

import Base
import Wire

/// How much a client wants of the disks.
enum Appetite {
    /// A file or two; nothing is deleted, and who finds no space tries for ever.
    case few
    /// More and more, until there is no space, then less.
    case churn
    /// More and more.
    case fill
    /// Nothing any more.
    case empty
}

extension DataClient {
    /// Whether a write that found no space is tried again.
    var isPatient: Bool { appetite == .few || (!isStopping && random.chance(1, of: 2)) }

    func cuts(of chunk: ChunkID) -> (truncation: UInt32, cuts: [Cut]) {
        history.cuts[chunk] ?? (0, [])
    }

    /// Begins to make, cut or delete a file, if it is time for that, or to wait for it.
    func changesFiles() -> Bool {
        if appetite == .few || items.contains(where: \.isChange) { return false }
        if world.now >= nextRenewal {
            nextRenewal = world.now + .seconds(1)
            change(.renewSession)
            return true
        }
        let own = history.chunks.filter { $0.owner == number }
        let isCramped = !history.refusals.isEmpty
        switch appetite {
        case .few: return false
        case .empty:
            if let file = own.last { delete(file) }
            return true
        case .fill:
            if isCramped || random.chance(3, of: 4) { return false }
            createFile()
            return true
        case .churn:
            if !own.isEmpty, random.chance(1, of: isCramped ? 3 : 40) {
                let file = own[random.below(own.count)]
                random.chance(2, of: 3) ? delete(file) : extend(file)
                return true
            }
            if isCramped || random.chance(4, of: 5) { return false }
            createFile()
            return true
        }
    }

    private func delete(_ file: SharedChunk) {
        history.gone.insert(file.chunk)
        history.chunks.removeAll { $0.chunk == file.chunk }
        change(.unlink(parent: .root, name: file.name))
    }

    /// The masters have to know of what is to be cut.
    private func extend(_ file: SharedChunk) {
        cutting = (file, 0, [])
        change(
            .extend([
                FileEnd(
                    inode: file.inode, end: UInt64(Cell.blocks * Limits.block),
                    truncation: cuts(of: file.chunk).truncation, modified: .zero)
            ]))
    }

    private func cut(_ file: SharedChunk) {
        let block = random.below(Cell.blocks)
        let first = 1 + random.below(Cell.count)
        let cells = (block..<Cell.blocks).flatMap { other in
            (other == block ? first..<Cell.count : 0..<Cell.count).map {
                CellPlace(chunk: file.chunk, block: UInt16(other), cell: $0)
            }
        }
        history.lastStamp += 1
        cutting = (file, history.lastStamp, cells)
        history.check.invoke(history.lastStamp, at: cells, isCut: true)
        change(
            .truncate(file.inode, size: UInt64(block * Limits.block + first * Cell.size)))
    }

    /// An answer to one of these changes; false if it is none.
    func takeFile(_ reply: MetadataReply) -> Bool {
        switch reply {
        case .done: return appetite != .few
        case .orphans(let inodes, _):
            // It has no file open: a new leader can't know.
            if !inodes.isEmpty { change(.releaseOrphans(inodes)) }
            return true
        case .sessionDead where appetite != .few:
            session = .none
            return true
        case .extended(let outcomes):
            guard let cutting, case .done? = outcomes.first else { return false }
            cut(cutting.file)
            return true
        case .opened(_, let layout):
            guard let cutting else { return false }
            history.cuts[cutting.file.chunk] = (layout.truncation, layout.cuts)
            history.check.acknowledge(cutting.stamp, at: cutting.cells)
            return true
        default: return false
        }
    }
}

extension DataClient {
    /// What it waits for, for a report.
    var firstOpen: String {
        guard let item = items.first else { return "nothing" }
        switch item.work {
        case .write(let stamp, let cells, let request):
            return "write \(stamp) at \(cells[0]), set \(request.context.set) epoch "
                + "\(request.context.epoch), attempt \(item.attempt)"
        case .read(let chunk, let block, _, _):
            return "read of \(chunk) block \(block) member \(item.member ?? -1), attempt "
                + "\(item.attempt)"
        case .metadata(let request): return "\(request.body), attempt \(item.attempt)"
        }
    }
}
