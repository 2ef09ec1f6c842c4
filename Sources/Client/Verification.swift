// Reads every copy of every block of a file, and says whether they are the same (C18).

package import Base
import Caching
import Wire

/// What one copy of a block turned out to be.
package enum CopyContent: Hashable, Sendable {
    /// Sound; the checksum of its content as far as the file goes.
    case sound(Checksum)
    /// Its checksums are wrong, there or on the way.
    case damaged
    /// Its server did not answer, or may not answer now.
    case unavailable
}

/// The copies of one block of a file.
package struct BlockCopies: Hashable, Sendable {
    /// One of them.
    package struct Copy: Hashable, Sendable {
        package var disk: DiskID
        package var content: CopyContent
    }
    /// Where the block begins in the file.
    package var offset: UInt64
    package var set: SetID
    package var copies: [Copy]

    /// All are sound and the same.
    package var areAlike: Bool {
        guard let first = copies.first, case .sound = first.content else { return false }
        return copies.allSatisfy { $0.content == first.content }
    }
}

extension FileSystem {
    /// Calls `body` for each block of a file that has copies. What others write meanwhile may
    /// make copies differ: those are read again.
    package func verify(
        _ file: OpenFile, _ cancellation: Cancellation? = nil,
        _ body: (BlockCopies) -> Void
    ) throws(FileError) {
        let size = file.node.state.withLock { $0.size }
        var offset: UInt64 = 0
        while offset < size {
            let block = FileBlock(rawValue: UInt32(offset / UInt64(Limits.block)))
            if let copies = try data.copies(of: block, of: file.node, patience(cancellation)) {
                body(copies)
            }
            offset += UInt64(Limits.block)
        }
    }
}

extension DataPath {
    /// Tries of a block whose copies differ or can't be had.
    private static let tries = 10

    /// Every copy of a block; nil for a hole.
    func copies(
        of block: FileBlock, of node: OpenInode, _ patience: Patience
    ) throws(FileError) -> BlockCopies? {
        var last: BlockCopies?
        for attempt in 0..<Self.tries {
            if attempt > 0 { try patience.pause(Limits.replicaRetry) }
            guard case .at(let place) = try locate(block.chunk, of: node, patience) else {
                return nil
            }
            if attempt > 0 || routes.view(of: place.set) == nil {
                try routes.refresh([place.set], patience)
            }
            guard let view = routes.view(of: place.set) else { continue }
            var found = BlockCopies(
                offset: UInt64(block.rawValue) * UInt64(Limits.block), set: place.set, copies: [])
            for location in view.locations {
                let answer = try ask(location, view, place, block, node, patience)
                let content: CopyContent =
                    switch answer {
                    case .content(let bytes): .sound(Checksum(of: bytes))
                    case .damaged: .damaged
                    case .outdated, .moved, .unavailable, .silent: .unavailable
                    }
                found.copies.append(BlockCopies.Copy(disk: location.disk, content: content))
            }
            if found.areAlike { return found }
            // Damage is told as it was met: it may be repaired by the next try.
            if found.copies.contains(where: { $0.content == .damaged }) { return found }
            last = found
        }
        return last
    }
}
