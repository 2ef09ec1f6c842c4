// The way of read bytes: own unsafe bytes over the cache, a read on its way, or the cell.
//
// Where the content of one block comes from, first that applies:
//
//  written here, whole range     the write buffer alone
//  cached under the file's tag   the cache, under the write buffer
//  chunk without a place         zeros, under the write buffer
//  a fetch on its way            its answer, under the write buffer
//  otherwise                     a new fetch
//
// Invariants:
//  1. No byte reaches the caller before its checksums proved right (D9): a bad answer is replaced
//     by another member's, and `io` is the outcome only if every member's is bad.
//  2. A reader sees every write that ended before the read began: the overlay is taken no later
//     than a fetch starts, and again after it.
//  3. A fetch is used by readers that came after its start only for blocks not written since.

import Base
import Blocks
import Caching
import Logging
import Synchronization
import Transport
import Wire

extension DataPath {
    /// Whole blocks of larger files are not cached: the kernel has the pages.
    private static let smallFile: UInt64 = 1 << 20

    private enum Source {
        /// What was written here has every byte of it.
        case overlay
        case cached([UInt8])
        case hole
        case unknownPlace
        case fetch(id: UInt64)
        case missing
    }
    /// What a reader knows of a block before it waits.
    private struct View {
        var source: Source
        var overlay: [Layer]
        var size: UInt64
        var tag: CacheTag
    }

    /// Reads up to `buffer.count` bytes; 0 at the end of the file.
    func read(
        _ file: OpenFile, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer,
        _ patience: Patience
    ) throws(FileError) -> Int {
        let node = file.node
        let size = node.state.withLock { $0.size }
        guard offset < size, !buffer.isEmpty else { return 0 }
        let count = Int(min(UInt64(buffer.count), size - offset))
        let (ahead, isStreaming) = file.habit.withLock { habit in
            (habit.note(offset: offset, count: count, size: size), habit.isStreaming)
        }
        let spans = FileBlock.spans(at: offset, count: count)
        fetch(spans.map(\.block), of: node)
        if let ahead {
            let count = Int(ahead.upperBound - ahead.lowerBound)
            fetch(FileBlock.spans(at: ahead.lowerBound, count: count).map(\.block), of: node)
        }
        let keepsWhole = !isStreaming && size <= Self.smallFile
        for span in spans {
            let target = UnsafeMutableRawBufferPointer(
                rebasing: buffer[span.offset..<span.offset + span.range.count])
            try read(span, of: node, into: target, keepsWhole: keepsWhole, patience)
        }
        return count
    }

    private func read(
        _ span: BlockSpan, of node: OpenInode, into target: UnsafeMutableRawBufferPointer,
        keepsWhole: Bool, _ patience: Patience
    ) throws(FileError) {
        while true {
            if node.session.isDead { throw .io }
            let view = look(at: span, of: node)
            var content: [UInt8]?
            switch view.source {
            case .overlay: return try fill(target, span, from: nil, view.overlay)
            case .cached(let content): return try fill(target, span, from: content, view.overlay)
            case .hole: return try fill(target, span, from: [], view.overlay)
            case .unknownPlace:
                _ = try locate(span.block.chunk, of: node, patience)
                continue
            case .missing where view.overlay.isEmpty:
                fetch([span.block], of: node)
                continue
            case .missing:
                content = try readAround(span.block, of: node, patience)
            case .fetch(let id):
                guard let pieces = try take(id, span.block, of: node, patience) else {
                    content = try readAround(span.block, of: node, patience)
                    break
                }
                let own = chunkPieces(pieces, span.block)
                if !keepsWhole, view.overlay.isEmpty, isAll(of: view, span),
                    assemble(own, into: target, of: node)
                {
                    finish(id, span.block, keep: nil, view.tag, of: node)
                    let newer = node.state.withLock { $0.buffer.overlay(of: span.block) }
                    return try newer.isEmpty ? () : overlay(target, span, newer)
                }
                content = assemble(own, span.block, size: view.size, of: node)
                if content == nil { blame(id, of: node) }
                finish(id, span.block, keep: content, view.tag, of: node)
                if content == nil { content = try readAround(span.block, of: node, patience) }
            }
            guard let content else { continue }
            let newer = node.state.withLock { $0.buffer.overlay(of: span.block) }
            return try fill(target, span, from: content, view.overlay + newer)
        }
    }

    /// Looks at a block, under one lock.
    private func look(at span: BlockSpan, of node: OpenInode) -> View {
        node.state.withLock { state in
            let overlay = state.buffer.overlay(of: span.block)
            var view = View(
                source: .overlay, overlay: overlay, size: state.size, tag: state.tag)
            if overlay.contains(where: { $0.covers(span.range) }) { return view }
            let tag = state.tag
            if let found = cache.withLock({ $0.find(node.inode, span.block, tag: tag) }) {
                view.source = .cached(found)
                return view
            }
            switch state.map.place(of: span.block.chunk) {
            case .unknown: view.source = .unknownPlace
            case .absent: view.source = .hole
            case .at:
                let usable = state.fetches.last { $0.isUsable(for: span.block) }
                view.source = usable.map { .fetch(id: $0.id) } ?? .missing
            }
            return view
        }
    }

    /// Whether a span is all of its block that lies in the file.
    private func isAll(of view: View, _ span: BlockSpan) -> Bool {
        let end = span.block.offset + UInt64(span.range.upperBound)
        return span.range.lowerBound == 0 && (span.isWhole || end >= view.size)
    }

    /// Gives the caller the bytes of a span: content of its block (nil: the overlay has all of
    /// them; beyond its end are zeros) under what was written here.
    private func fill(
        _ target: UnsafeMutableRawBufferPointer, _ span: BlockSpan, from content: [UInt8]?,
        _ layers: [Layer]
    ) throws(FileError) {
        if let content {
            let end = min(content.count, span.range.upperBound)
            let count = max(0, end - span.range.lowerBound)
            content.withUnsafeBytes { raw in
                let part = raw[min(span.range.lowerBound, raw.count)...].prefix(count)
                target.copyMemory(from: UnsafeRawBufferPointer(rebasing: part))
            }
            UnsafeMutableRawBufferPointer(rebasing: target[count...])
                .initializeMemory(as: UInt8.self, repeating: 0)
        }
        try overlay(target, span, layers)
    }

    /// Lays what was written here over the bytes of a span.
    private func overlay(
        _ target: UnsafeMutableRawBufferPointer, _ span: BlockSpan, _ layers: [Layer]
    ) throws(FileError) {
        for layer in layers {
            let run: Run
            switch layer {
            case .run(let bytes): run = bytes
            case .extent(let extent):
                guard let bytes = try? BlockCodec.decode(extent) else { throw .io }
                run = Run(start: Int(extent.start), bytes: bytes)
            }
            let start = max(run.start, span.range.lowerBound)
            let end = min(run.end, span.range.upperBound)
            guard start < end else { continue }
            run.bytes.withUnsafeBytes { raw in
                let part = raw[start - run.start..<end - run.start]
                UnsafeMutableRawBufferPointer(
                    rebasing: target[start - span.range.lowerBound..<end - span.range.lowerBound]
                ).copyMemory(from: UnsafeRawBufferPointer(rebasing: part))
            }
        }
    }
}

// Putting blocks together.
extension DataPath {
    private func chunkPieces(_ pieces: [Piece], _ block: FileBlock) -> [Piece] {
        pieces.filter { $0.extent.block == block.blockInChunk }
    }

    /// Assembles the first bytes of a block; false if a checksum is wrong.
    private func assemble(
        _ pieces: [Piece], into target: UnsafeMutableRawBufferPointer, of node: OpenInode
    ) -> Bool {
        var assembler = BlockAssembler(into: target)
        do throws(BlockError) {
            for piece in pieces { try assembler.lay(piece.extent, visible: Int(piece.visible)) }
        } catch {
            Self.log.warning("inode \(node.inode): damaged bytes came from a replica: \(error)")
            return false
        }
        assembler.finish()
        return true
    }
    /// The content of a block as far as the file goes; nil if a checksum is wrong.
    func assemble(
        _ pieces: [Piece], _ block: FileBlock, size: UInt64, of node: OpenInode
    ) -> [UInt8]? {
        guard size > block.offset else { return [] }
        let length = Int(min(UInt64(Limits.block), size - block.offset))
        var isSound = false
        let content = [UInt8](unsafeUninitializedCapacity: length) { buffer, count in
            let raw = UnsafeMutableRawBufferPointer(buffer)
            isSound = assemble(
                pieces, into: UnsafeMutableRawBufferPointer(rebasing: raw[..<length]), of: node)
            count = isSound ? length : 0
        }
        return isSound ? content : nil
    }

    /// A reader is done with a block of a fetch. Its content goes into the cache, if any is given
    /// and the block was not written to since the fetch began.
    private func finish(
        _ id: UInt64, _ block: FileBlock, keep content: [UInt8]?, _ tag: CacheTag,
        of node: OpenInode
    ) {
        node.state.withLock { state in
            guard let index = state.fetches.firstIndex(where: { $0.id == id }) else { return }
            if let content, state.tag == tag, state.fetches[index].isUsable(for: block) {
                cache.withLock { $0.insert(node.inode, block, tag: tag, content: content) }
            }
            state.fetches[index].taken |= state.fetches[index].bit(of: block) ?? 0
            if state.fetches[index].isTaken { state.fetches.remove(at: index) }
        }
    }
}
