// What reading and writing files share: the way to chunk servers, the cache, and the places of
// chunks.

import Base
import Caching
import Logging
import Transport
import Wire

/// The client's side of the chunk servers. Its reading and writing are in files of their own.
final class DataPath: Sendable {
    static let log = Logger(label: "martlet.client")
    /// Chunks whose places are asked for at once.
    private static let layoutSpan: UInt32 = 64

    let metadata: MetadataClient
    let routes: SetRoutes
    let pool: ConnectionPool
    let lanes: WriteLanes
    let cache: Monitor<BlockCache>
    let budget: WriteBudget
    let flushList = FlushList()

    init(metadata: MetadataClient, dialer: Dialer, options: ClientOptions) {
        self.metadata = metadata
        routes = SetRoutes(metadata: metadata)
        pool = ConnectionPool(dialer: dialer)
        lanes = WriteLanes(routes: routes, pool: pool)
        cache = Monitor(BlockCache(bound: options.cacheBytes))
        budget = WriteBudget(bound: options.writeBufferBytes)
    }

    /// Asks the masters for the places around a chunk, unless they are known.
    func locate(
        _ chunk: UInt32, of node: OpenInode, _ patience: Patience
    ) throws(FileError) -> FileMap.Place {
        let known = node.state.withLock { $0.map.place(of: chunk) }
        guard known == .unknown else { return known }
        let first = chunk / Self.layoutSpan * Self.layoutSpan
        try learnLayout(of: node, first: first, count: Self.layoutSpan, patience)
        return node.state.withLock { $0.map.place(of: chunk) }
    }

    /// Asks for places and for the truncation number, whatever is known.
    func learnLayout(
        of node: OpenInode, first: UInt32, count: UInt32, _ patience: Patience
    ) throws(FileError) {
        let last = UInt32(Limits.fileSize / UInt64(Limits.chunk))
        let count = min(count, last - first)
        let query = MetadataQuery.layout(node.inode, first: first, count: count)
        guard case .layout(let layout) = try metadata.query(query, patience) else { throw .io }
        routes.learn(layout.sets)
        node.state.update { $0.learn(layout, first: first, count: count) }
    }

    /// The place of a chunk that is to be written: it gets one if it has none.
    func allocate(
        _ chunk: UInt32, of node: OpenInode, _ patience: Patience
    ) throws(FileError) -> LayoutChunk {
        while true {
            if case .at(let place) = try locate(chunk, of: node, patience) { return place }
            let count = node.state.withLock { $0.map.allocation(at: chunk) }
            let change = MetadataChange.allocate(node.inode, first: chunk, count: count)
            let reply = try metadata.change(change, session: node.session, patience)
            guard case .layout(let layout) = reply else { throw .io }
            routes.learn(layout.sets)
            node.state.update { $0.learn(layout, first: chunk, count: count) }
            // A set that all members left behind, or a truncation just now: asked again.
            if case .at(let place) = node.state.withLock({ $0.map.place(of: chunk) }) {
                return place
            }
            try patience.pause(Limits.retryFirst)
        }
    }
}
