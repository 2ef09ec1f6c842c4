// The size of files, the places of their chunks, and what becomes of chunks that leave
// (DESIGN 3.3, Size and Layout).

import Base

extension Namespace {
    /// The slot of a regular file that is there.
    private func fileSlot(_ inode: InodeID) throws(FileError) -> Int {
        let slot = try slot(inode)
        switch inodes[slot].kind {
        case .file: return slot
        case .directory: throw .isDirectory
        default: throw .invalid
        }
    }

    mutating func truncate(_ inode: InodeID, _ size: UInt64) throws(FileError) -> Outcome {
        let slot = try fileSlot(inode)
        let old = inodes[slot].size
        if size < old {
            guard inodes[slot].truncation < .max else { throw .tooLarge }
            let kept = cuts[inode]?.cuts.count { $0.size < size } ?? 0
            let cut = cutChunk(slot, size)
            guard cut == nil || kept < Limits.cuts else { return .retry }
            removeCuts(inode) { $0.size >= size }
            inodes[slot].truncation += 1
            if let cut { addCut(slot, cut, size) }
            let chunk = UInt64(Limits.chunk)
            dropChunks(slot, from: UInt32((size + chunk - 1) / chunk))
        }
        setSize(slot, size)
        touch(slot)
        return .opened(attributes(slot), headLayout(slot))
    }

    /// What is wrong with one file is its answer alone.
    mutating func extend(_ files: [FileEnd], _ numbers: [SetNumber]) -> Outcome {
        for known in numbers {
            setTable.update(known.set) { $0.number = max($0.number, known.number) }
        }
        var outcomes: [FileEndOutcome] = []
        outcomes.reserveCapacity(files.count)
        for file in files {
            do throws(FileError) {
                outcomes.append(try extend(file))
            } catch {
                outcomes.append(.failed(error))
            }
        }
        return .extended(outcomes)
    }

    private mutating func extend(_ file: FileEnd) throws(FileError) -> FileEndOutcome {
        guard file.end <= Limits.fileSize else { throw .tooLarge }
        let slot = try fileSlot(file.inode)
        guard inodes[slot].truncation == file.truncation else {
            return .outdated(attributes(slot), layout(slot, first: 0, count: 0))
        }
        setSize(slot, max(inodes[slot].size, file.end))
        // Writers' clocks may lag behind each other, so the latest write counts; but a write
        // replaces a time that someone set in the future.
        let old = inodes[slot].modified
        let new = min(file.modified, time)
        if new > old || old > time { inodes[slot].modified = new }
        inodes[slot].changed = time
        return .done(attributes(slot))
    }

    private mutating func setSize(_ slot: Int, _ size: UInt64) {
        fileBytes = fileBytes - UInt128(inodes[slot].size) + UInt128(size)
        inodes[slot].size = size
    }

    mutating func allocate(
        _ inode: InodeID, _ first: UInt32, _ sets: [SetID]
    ) throws(FileError) -> Outcome {
        let slot = try fileSlot(inode)
        let missing = sets.indices.filter { place(slot, first + UInt32($0)) == nil }
        guard missing.allSatisfy({ hasRoom(sets[$0], for: missing.count) }) else {
            return .retry
        }
        for offset in missing {
            let index = first + UInt32(offset)
            let version = inodes[slot].truncation
            if index == 0 {
                inodes[slot].place = sets[offset].rawValue
                inodes[slot].auxiliary = version
            } else {
                places.insert(
                    ChunkPlace(
                        key: ChunkPlace.Key(inode: inode, index: index), version: version,
                        set: sets[offset]))
            }
            setTable.update(sets[offset]) { $0.chunks += 1 }
        }
        return .layout(layout(slot, first: first, count: UInt32(sets.count)))
    }

    /// Whether the set is there and may get so many chunks more. That it is full is advice to
    /// the leader only: its choice was made before.
    func hasRoom(_ set: SetID, for count: Int = 1) -> Bool {
        guard set != SetID(rawValue: 0), let record = setTable[set] else { return false }
        return Int(record.chunks) + count <= Limits.setChunks
    }

    /// Where a chunk of a file is.
    func place(_ slot: Int, _ index: UInt32) -> LayoutChunk? {
        let inode = inodes.id(slot)
        if index == 0 {
            guard let set = inodes[slot].firstSet else { return nil }
            let version = inodes[slot].auxiliary
            return LayoutChunk(
                chunk: ChunkID(inode: inode, index: 0, version: version), set: set)
        }
        guard let place = places[ChunkPlace.Key(inode: inode, index: index)] else { return nil }
        return LayoutChunk(
            chunk: ChunkID(inode: inode, index: index, version: place.version), set: place.set)
    }

    /// Chunks `first ..< first + count`, with the file's truncation and cuts; without sets.
    func layout(_ slot: Int, first: UInt32, count: UInt32) -> Layout {
        let inode = inodes.id(slot)
        guard inodes[slot].kind == .file else {
            return Layout(inode: inode, truncation: 0, cuts: [], chunks: [], sets: [])
        }
        let end = UInt64(first) + UInt64(count)
        var chunks: [LayoutChunk] = []
        if first == 0, count > 0, let place = place(slot, 0) { chunks.append(place) }
        if end > 1, !places.isEmpty {
            let start = ChunkPlace.Key(inode: inode, index: max(first, 1))
            for place in places.elements(from: start) {
                guard place.key.inode == inode, UInt64(place.key.index) < end else { break }
                let chunk = ChunkID(
                    inode: inode, index: place.key.index, version: place.version)
                chunks.append(LayoutChunk(chunk: chunk, set: place.set))
            }
        }
        return Layout(
            inode: inode, truncation: inodes[slot].truncation, cuts: cuts[inode]?.cuts ?? [],
            chunks: chunks, sets: [])
    }

    private func headLayout(_ slot: Int) -> Layout {
        layout(slot, first: 0, count: UInt32(Limits.chunksPerAllocation))
    }

    // MARK: Cuts

    /// The chunk that a file of this size ends in the middle of, if it has a place.
    func cutChunk(_ slot: Int, _ size: UInt64) -> LayoutChunk? {
        let chunk = UInt64(Limits.chunk)
        return size % chunk == 0 ? nil : place(slot, UInt32(size / chunk))
    }

    private mutating func addCut(_ slot: Int, _ place: LayoutChunk, _ size: UInt64) {
        let inode = inodes.id(slot)
        let cut = Cut(truncation: inodes[slot].truncation, size: size)
        if cuts.update(inode, { $0.cuts.append(cut) }) == nil {
            cuts.insert(FileCuts(inode: inode, cuts: [cut]))
        }
        cutOrders.insert(pending(cut, place))
    }

    func pending(_ cut: Cut, _ place: LayoutChunk) -> PendingCut {
        PendingCut(
            set: place.set, chunk: place.chunk, truncation: cut.truncation,
            from: UInt32(cut.size % UInt64(Limits.chunk)))
    }

    /// Takes cuts out of a file's list and out of the queue.
    mutating func removeCuts(_ inode: InodeID, where isGone: (Cut) -> Bool) {
        guard var list = cuts[inode] else { return }
        for cut in list.cuts where isGone(cut) {
            guard let place = cutChunk(Int(inode.slot), cut.size) else {
                preconditionFailure("a cut goes through a chunk that has a place")
            }
            cutOrders.remove(pending(cut, place).key)
        }
        list.cuts.removeAll(where: isGone)
        if list.cuts.isEmpty { cuts.remove(inode) } else { cuts.insert(list) }
    }

    mutating func confirmCut(_ cut: PendingCut) {
        guard cutOrders.contains(cut.key) else { return }
        removeCuts(cut.chunk.inode) { $0.truncation == cut.truncation }
    }

    // MARK: Drops

    /// Takes the chunks from `first` on out of the layout.
    mutating func dropChunks(_ slot: Int, from first: UInt32) {
        if first == 0, let place = place(slot, 0) {
            loose.append(LooseChunk(set: place.set, chunk: place.chunk))
            inodes[slot].place = 0
            inodes[slot].auxiliary = 0
        }
        let inode = inodes.id(slot)
        let start = ChunkPlace.Key(inode: inode, index: first)
        for place in places.elements(from: start).prefix(while: { $0.key.inode == inode }) {
            let chunk = ChunkID(inode: inode, index: place.key.index, version: place.version)
            loose.append(LooseChunk(set: place.set, chunk: chunk))
            places.remove(place.key)
        }
    }

    /// Makes orders of the chunks that left since the last tick. An order is never added to:
    /// its primary may have it already.
    mutating func sealDrops() {
        loose.sort { ($0.set, $0.chunk) < ($1.set, $1.chunk) }
        var start = 0
        while start < loose.count {
            let set = loose[start].set
            var end = start
            while end < loose.count, end - start < Record.chunksPerDrop, loose[end].set == set {
                end += 1
            }
            lastOrder += 1
            dropOrders.insert(
                PendingDrop(
                    order: lastOrder, set: set, chunks: loose[start..<end].map(\.chunk)))
            dropsBySet.insert(SetDrop(set: set, order: lastOrder))
            start = end
        }
        loose = []
    }

    mutating func confirmDrop(_ order: UInt64) {
        guard let drop = dropOrders.remove(order) else { return }
        dropsBySet.remove(SetDrop(set: drop.set, order: order))
        setTable.update(drop.set) { $0.chunks -= UInt32(drop.chunks.count) }
    }
}
