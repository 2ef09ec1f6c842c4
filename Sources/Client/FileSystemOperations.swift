// What operators ask of a cell and tell it.

package import Base
package import Wire

extension FileSystem {
    /// Every set of the cell with its copies, as the leader sees them; page by page, so sets that
    /// change meanwhile may be seen as before or after.
    package func map(_ cancellation: Cancellation? = nil) throws(FileError) -> [SetStatus] {
        var sets: [SetStatus] = []
        while true {
            let after = sets.last?.id ?? SetID(rawValue: 0)
            let reply = try metadata.query(.map(after: after), patience(cancellation))
            guard case .map(let page) = reply else { throw .io }
            sets += page.sets
            if page.isLast || page.sets.isEmpty { return sets }
        }
    }

    /// The chunks of a file of this size that have a place, by ascending index.
    package func places(
        of inode: InodeID, size: UInt64, _ cancellation: Cancellation? = nil
    ) throws(FileError) -> [LayoutChunk] {
        let count = UInt32((size + UInt64(Limits.chunk) - 1) / UInt64(Limits.chunk))
        var chunks: [LayoutChunk] = []
        for first in stride(from: 0, to: count, by: Limits.mappedSets) {
            let page = min(count - first, UInt32(Limits.mappedSets))
            let query = MetadataQuery.layout(inode, first: first, count: page)
            guard case .layout(let layout) = try metadata.query(query, patience(cancellation))
            else { throw .io }
            chunks += layout.chunks
        }
        return chunks
    }

    /// What operators have asked for, and how far copying is.
    package func operations(
        _ cancellation: Cancellation? = nil
    ) throws(FileError) -> CellOperations {
        let reply = try metadata.query(.operations, patience(cancellation))
        guard case .operations(let operations) = reply else { throw .io }
        return operations
    }

    /// Orders a change of the masters (M17); how it ends, `status` tells. A refusal says why;
    /// nothing changed then. Repeated where no answer came: the second try of an order that was
    /// taken may be refused.
    package func order(
        _ order: MasterOrder, _ cancellation: Cancellation? = nil
    ) throws(FileError) -> Refusal? {
        switch try metadata.query(.order(order), patience(cancellation)) {
        case .done: return nil
        case .refused(let refusal): return refusal
        default: throw .io
        }
    }

    /// A snapshot of the masters' state with everything that was done before the call.
    package func snapshot(
        _ cancellation: Cancellation? = nil
    ) throws(FileError) -> SnapshotMark {
        let now = try status(cancellation).applied
        let reply = try metadata.query(.snapshot(since: now), patience(cancellation))
        guard case .snapshot(let mark) = reply else { throw .io }
        return mark
    }

    /// A part of a snapshot, piece by piece. Errors: stale, if the leader let it go meanwhile.
    package func part(
        _ part: SnapshotPart, of mark: SnapshotMark, _ cancellation: Cancellation? = nil
    ) throws(FileError) -> [UInt8] {
        var bytes: [UInt8] = []
        while true {
            let query = MetadataQuery.part(mark, part, offset: UInt32(bytes.count))
            switch try metadata.query(query, patience(cancellation)) {
            case .part(let length, let page):
                guard !page.isEmpty, length <= UInt32(Limits.snapshotBlock) else { throw .io }
                bytes += page
                if bytes.count >= Int(length) { return bytes }
            case .failed(let error): throw error
            default: throw .io
            }
        }
    }

    /// Changes the cell, exactly once (M12). A refusal says why; nothing changed then.
    package func operate(
        _ operation: Operation, _ cancellation: Cancellation? = nil
    ) throws(FileError) -> Refusal? {
        switch try metadata.change(.operate(operation), patience(cancellation)) {
        case .done: return nil
        case .refused(let refusal): return refusal
        default: throw .io
        }
    }
}
