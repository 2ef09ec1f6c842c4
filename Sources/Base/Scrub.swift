// The scrub of a disk: everything at rest is read and checked within a period (C18). What a disk
// keeps of it through restarts, what it tells of it, and what operators order.

/// How far the scrub of a disk is. Survives restarts.
package struct ScrubProgress: Hashable, Sendable {
    /// The last order that was carried out.
    package var order = ScrubOrder()
    /// By that order: the pass under way goes as fast as it may.
    package var isUrgent = false
    /// A pass is under way.
    package var isRunning = false
    /// When the last pass began, by the wall clock; zero: none did.
    package var began = Timestamp.zero
    /// Segments up to this generation were verified in the pass under way.
    package var cursor: UInt64 = 0
    /// The last generation that belongs to it; later ones were written since it began.
    package var through: UInt64 = 0
    /// Stored bytes that the pass has verified.
    package var verified: UInt64 = 0
    /// Every segment was read; the copies of sets are compared.
    package var isComparing = false
    /// Sets up to this one were compared.
    package var compared = SetID(rawValue: 0)
    /// Passes that ended.
    package var passes: UInt64 = 0
    /// Everything on the disk was written or verified after this; zero: nobody knows when.
    package var since = Timestamp.zero
    /// Damaged records that scrubs found.
    package var found: UInt64 = 0
    /// Damaged records that readers met first.
    package var met: UInt64 = 0
    /// Damaged records that were written again (C17).
    package var repaired: UInt64 = 0
    /// Blocks whose copies differed although their checksums were right.
    package var differed: UInt64 = 0
    /// Of these, in the pass under way and in the last one that ended, those of which nobody can
    /// tell which copy is right.
    package var disputes: UInt64 = 0
    package var disputed: UInt64 = 0

    /// Nothing was ever verified.
    package init() {}
    package func encode(into writer: inout ByteWriter) {
        order.encode(into: &writer)
        writer.write(isUrgent)
        writer.write(isRunning)
        writer.write(began)
        for value in [cursor, through, verified, passes] { writer.write(value) }
        writer.write(since)
        for value in [found, met, repaired, differed, disputes, disputed] { writer.write(value) }
        writer.write(isComparing)
        writer.write(compared)
    }
    package init(from reader: inout ByteReader) throws(DecodeError) {
        order = try ScrubOrder(from: &reader)
        isUrgent = try reader.readBool()
        isRunning = try reader.readBool()
        began = try reader.readTimestamp()
        cursor = try reader.read()
        through = try reader.read()
        verified = try reader.read()
        passes = try reader.read()
        since = try reader.readTimestamp()
        found = try reader.read()
        met = try reader.read()
        repaired = try reader.read()
        differed = try reader.read()
        disputes = try reader.read()
        disputed = try reader.read()
        isComparing = try reader.readBool()
        compared = try reader.read()
    }
}

/// What operators want of a disk's scrub; repeated in every order until a later one comes.
package struct ScrubOrder: Hashable, Sendable {
    /// Raised by every `scrub start`: a disk that has seen a lower one begins a new pass at once.
    package var run: UInt64 = 0
    /// Nothing is read until a later order.
    package var isPaused = false

    /// Scrub by the period, and never by order.
    package init() {}
    /// Both fields at once.
    package init(run: UInt64, isPaused: Bool) {
        self.run = run
        self.isPaused = isPaused
    }
    /// After `martlet scrub start`: one that was paused goes on where it was.
    package mutating func start(asRun next: UInt64) {
        if isPaused { isPaused = false } else { run = next }
    }
    package func encode(into writer: inout ByteWriter) {
        writer.write(run)
        writer.write(isPaused)
    }
    package init(from reader: inout ByteReader) throws(DecodeError) {
        run = try reader.read()
        isPaused = try reader.readBool()
    }
}

/// Where in a file a disk has damage that nothing has repaired.
package struct DamagedPlace: Hashable, Sendable {
    package var chunk: ChunkID
    /// Of the chunk.
    package var block: UInt16

    /// Both fields at once.
    package init(chunk: ChunkID, block: UInt16) {
        self.chunk = chunk
        self.block = block
    }
    /// Of the block, in the file.
    package var offset: UInt64 {
        UInt64(chunk.index) * UInt64(Limits.chunk) + UInt64(block) * UInt64(Limits.block)
    }
    package func encode(into writer: inout ByteWriter) {
        writer.write(chunk)
        writer.write(block)
    }
    package init(from reader: inout ByteReader) throws(DecodeError) {
        chunk = try reader.readChunk()
        block = try reader.read()
    }
}
