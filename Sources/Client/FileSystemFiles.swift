// Open files: handles, reading, writing, flushing, truncation.

package import Base
import Caching
import Synchronization
import Wire

extension FileSystem {
    /// Makes and opens a file; opens the one that is there, unless `exclusive`.
    /// Errors: exists, isDirectory, notFound, noSpace.
    package func create(
        _ parent: InodeID, _ name: [UInt8], mode: UInt16, user: UInt32, group: UInt32,
        exclusive: Bool, options: OpenOptions, _ cancellation: Cancellation? = nil
    ) throws(FileError) -> (OpenFile, Attributes) {
        if name.count > Limits.nameLength { throw .nameTooLong }
        let patience = patience(cancellation)
        let change = MetadataChange.create(
            parent: parent, name: name, kind: .file, mode: mode, user: user, group: group,
            device: 0, target: [], open: true)
        while true {
            let session = try metadata.session(patience)
            do throws(FileError) {
                let reply = try metadata.change(change, session: session, patience)
                guard case .created(let attributes, let layout) = reply else { throw .io }
                return handle(attributes, layout, options, session)
            } catch {
                // New work gets a new session.
                if error == .io, session.isDead { continue }
                guard error == .exists, !exclusive else { throw error }
            }
            do throws(FileError) {
                let found = try lookup(parent, name, cancellation)
                switch found.kind {
                case .file: return try open(found.inode, options: options, cancellation)
                case .directory: throw FileError.isDirectory
                default: throw FileError.exists
                }
            } catch {
                // Somebody removed it between the two questions.
                guard error == .notFound || error == .stale else { throw error }
                try patience.check()
            }
        }
    }

    /// Opens a file. Errors: isDirectory, stale.
    package func open(
        _ inode: InodeID, options: OpenOptions, _ cancellation: Cancellation? = nil
    ) throws(FileError) -> (OpenFile, Attributes) {
        let patience = patience(cancellation)
        let (file, shown) = try open(inode, options, patience)
        guard options.truncate else { return (file, shown) }
        do throws(FileError) {
            return (file, try truncate(file.node, to: 0, patience))
        } catch {
            release(file)
            throw error
        }
    }

    private func open(
        _ inode: InodeID, _ options: OpenOptions, _ patience: Patience
    ) throws(FileError) -> (OpenFile, Attributes) {
        while true {
            let session = try metadata.session(patience)
            do throws(FileError) {
                let reply = try metadata.query(.open(inode), session: session, patience)
                guard case .opened(let attributes, let layout) = reply else { throw .io }
                return handle(attributes, layout, options, session)
            } catch {
                // New work gets a new session.
                guard error == .io, session.isDead else { throw error }
            }
        }
    }

    private func handle(
        _ attributes: Attributes, _ layout: Layout, _ options: OpenOptions,
        _ session: ClientSession
    ) -> (OpenFile, Attributes) {
        data.routes.learn(layout.sets)
        let (node, isNew) = table.open(attributes.inode, session: session) {
            OpenInode(
                attributes, layout, session: session, budget: data.budget,
                flusher: data.flushList)
        }
        let shown = node.state.update { state in
            state.opens += 1
            if !isNew { state.adopt(attributes, layout, first: 0, count: 1) }
            return state.shown
        }
        return (OpenFile(node: node, options: options), shown)
    }

    /// Reads; 0 bytes at the end of the file. Errors: badHandle, io, interrupted, timedOut.
    package func read(
        _ file: OpenFile, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer,
        _ cancellation: Cancellation? = nil
    ) throws(FileError) -> Int {
        guard file.options.read else { throw .badHandle }
        return try data.read(file, at: offset, into: buffer, patience(cancellation))
    }

    /// Buffers bytes to be written; an appending handle ignores `offset`. After an error some of
    /// them may be written. Errors: badHandle, tooLarge, noSpace, io, interrupted, timedOut; and
    /// what was lost since the last error this handle was told (K6).
    package func write(
        _ file: OpenFile, at offset: UInt64, _ bytes: UnsafeRawBufferPointer,
        _ cancellation: Cancellation? = nil
    ) throws(FileError) {
        guard file.options.write else { throw .badHandle }
        guard !bytes.isEmpty else { return }
        let node = file.node
        if node.session.isDead { throw .io }
        let (failures, failure) = node.state.withLock {
            ($0.buffer.failures, $0.buffer.lastFailure)
        }
        let isNews = file.told.withLock { told in
            defer { told.write = failures }
            return told.write < failures
        }
        if isNews, let failure { throw failure }
        let patience = patience(cancellation)
        try node.takeTurn(patience)
        defer { node.endTurn() }
        let start = file.options.append ? node.state.withLock { $0.size } : offset
        guard start < Limits.fileSize, UInt64(bytes.count) <= Limits.fileSize - start else {
            throw .tooLarge
        }
        try data.write(bytes, to: node, at: start, patience)
    }

    /// Everything written so far is durable, its size and mtime too (D13). Errors: what was lost
    /// since the last error this handle was told (K6); io, interrupted, timedOut.
    package func flush(
        _ file: OpenFile, dataOnly: Bool = false, _ cancellation: Cancellation? = nil
    ) throws(FileError) {
        let node = file.node
        if !node.state.withLock({ $0.buffer.isClean }) {
            try data.settle(node, dataOnly: dataOnly, patience(cancellation))
        }
        let (failures, failure) = node.state.withLock {
            ($0.buffer.failures, $0.buffer.lastFailure)
        }
        let isNews = file.told.withLock { told in
            defer { told = (failures, failures) }
            return told.flush < failures
        }
        if isNews, let failure { throw failure }
        if node.session.isDead { throw .io }
    }
    /// fsync; as `flush`. `dataOnly`, fdatasync: the mtime of bytes within the file's size may
    /// follow later.
    package func sync(
        _ file: OpenFile, dataOnly: Bool = false, _ cancellation: Cancellation? = nil
    ) throws(FileError) { try flush(file, dataOnly: dataOnly, cancellation) }

    /// The last close of a handle, which must not be used afterwards. What is not safe yet is
    /// still written in the background.
    package func release(_ file: OpenFile) { table.close(file.node, metadata) }

    /// Changes attributes, and the size if one is given, after making own data safe.
    /// Errors: tooLarge, stale, invalid (size of what is no file).
    package func setAttributes(
        _ inode: InodeID, _ changes: AttributeChanges, size: UInt64?,
        _ cancellation: Cancellation? = nil
    ) throws(FileError) -> Attributes {
        let patience = patience(cancellation)
        var attributes: Attributes?
        if let size {
            guard size <= Limits.fileSize else { throw .tooLarge }
            attributes = try truncate(inode, to: size, patience)
        } else if changes.modified != nil, let node = table.node(inode) {
            // A later Extend must not take the time back.
            try data.settle(node, patience)
        }
        if changes != AttributeChanges() {
            let change = MetadataChange.setAttributes(inode, changes)
            guard case .entry(let changed) = try metadata.change(change, patience) else {
                throw .io
            }
            attributes = changed
            if let node = table.node(inode) {
                attributes = node.state.update { state in
                    state.adopt(changed, isOwn: true)
                    return state.shown
                }
            }
        }
        if let attributes { return attributes }
        return try self.attributes(inode, cancellation)
    }

    private func truncate(
        _ inode: InodeID, to size: UInt64, _ patience: Patience
    ) throws(FileError) -> Attributes {
        if let node = table.node(inode), !node.session.isDead {
            return try truncate(node, to: size, patience)
        }
        let reply = try metadata.change(.truncate(inode, size: size), patience)
        guard case .opened(let attributes, _) = reply else { throw .io }
        return attributes
    }

    /// Truncates a file that is open here: own data is safe before, so that the truncation comes
    /// after it.
    private func truncate(
        _ node: OpenInode, to size: UInt64, _ patience: Patience
    ) throws(FileError) -> Attributes {
        try node.takeTurn(patience)
        defer { node.endTurn() }
        try data.settle(node, patience)
        let change = MetadataChange.truncate(node.inode, size: size)
        let reply = try metadata.change(change, session: node.session, patience)
        guard case .opened(let attributes, let layout) = reply else { throw .io }
        data.routes.learn(layout.sets)
        return node.state.update { state in
            state.adopt(attributes, layout, first: 0, count: 0)
            return state.shown
        }
    }
}
