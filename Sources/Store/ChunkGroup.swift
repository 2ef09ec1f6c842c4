// 16 chunks of the index, packed: each is coded by what differs from the one before
// (docs/FORMATS.md, *chunk group*). Chunks with few extents have them in the code; what others have
// is beside it, in packed pages.
//
// Invariant: a group can be unpacked: it was packed here, or checked when it was read.

import Base

/// See the head of this file.
struct ChunkGroup: Sendable {
    /// Chunks of a group.
    static let size = 16
    /// Extents that are coded with their chunk.
    static let fewExtents = 16
    /// More bytes than any has.
    static let bound = 64 << 10

    /// What a chunk has that is not coded with it.
    struct Rest: Sendable {
        var trims: [ChunkTrim]
        var pages: [IndexPage]

        var isEmpty: Bool { trims.isEmpty && pages.isEmpty }
        var memory: Int {
            let arrays = (trims.isEmpty ? 0 : 48) + (pages.isEmpty ? 0 : 48)
            return pages.reduce(arrays + MemoryLayout<Rest>.size + trims.count * 16) {
                $0 + $1.memory
            }
        }
    }

    let bytes: [UInt8]
    /// Slots of it.
    let count: Int
    /// Of the chunks that have one, in their order.
    let rests: [Rest]
    /// Bytes of memory, about.
    let memory: Int
    /// Chunks are of these sets, and maybe not of all between; nil without any chunk.
    private let sets: ClosedRange<SetID>?

    /// Packs chunks, and their pages.
    init(_ chunks: [ChunkState?]) {
        var writer = ByteWriter(capacity: 32 * chunks.count)
        var rests: [Rest] = []
        var coder = ChunkCoder()
        for chunk in chunks {
            let hasRest = coder.write(chunk, into: &writer)
            if let chunk, hasRest {
                rests.append(Rest(trims: chunk.trims, pages: chunk.pages.map { $0.packed() }))
            }
        }
        // No more memory than it needs.
        self.init(writer.bytes.withUnsafeBytes { Array($0) }, chunks, rests)
    }

    private init(_ bytes: [UInt8], _ chunks: [ChunkState?], _ rests: [Rest]) {
        self.bytes = bytes
        count = chunks.count
        sets = chunks.reduce(nil as ClosedRange<SetID>?) { sets, chunk in
            guard let set = chunk?.set else { return sets }
            return sets.map { min($0.lowerBound, set)...max($0.upperBound, set) } ?? set...set
        }
        self.rests = rests
        memory = rests.reduce(
            48 + MemoryLayout<ChunkGroup>.stride + bytes.count + (rests.isEmpty ? 0 : 48)
        ) { $0 + $1.memory }
    }

    /// A group as it comes out of a checkpoint: its bytes first, then the rest of some chunks.
    struct Draft {
        private let bytes: [UInt8]
        private(set) var chunks: [ChunkState?] = []
        /// The places of those that have a rest.
        private var incomplete: [Int] = []

        init(_ bytes: ArraySlice<UInt8>) throws(DecodeError) {
            self.bytes = Array(bytes)
            var reader = ByteReader(bytes)
            var coder = ChunkCoder()
            while reader.remaining > 0 {
                guard chunks.count < size else {
                    throw .oversize(count: chunks.count + 1, bound: size)
                }
                let (chunk, hasRest) = try coder.read(from: &reader)
                if hasRest { incomplete.append(chunks.count) }
                chunks.append(chunk)
            }
            if chunks.isEmpty { throw .truncated }
        }
        /// Adds a page to a chunk; tells whose it is.
        mutating func add(
            _ page: PackedPage, _ entries: [ExtentEntry], _ place: Int
        ) throws(DecodeError) -> SetID? {
            guard incomplete.contains(place), chunks[place]?.append(page, entries) == true else {
                throw .invalid(field: "page of a chunk", value: UInt64(place))
            }
            return chunks[place]?.set
        }
        mutating func add(_ trims: [ChunkTrim], _ place: Int) throws(DecodeError) {
            guard incomplete.contains(place) else {
                throw .invalid(field: "trims of a chunk", value: UInt64(place))
            }
            chunks[place]?.trims += trims
        }
        /// The group, when all is there; nil if the rest of a chunk is missing.
        var group: ChunkGroup? {
            let rests = incomplete.map { place in
                Rest(trims: chunks[place]?.trims ?? [], pages: chunks[place]?.pages ?? [])
            }
            return rests.contains(where: \.isEmpty) ? nil : ChunkGroup(bytes, chunks, rests)
        }
    }

    /// False if no chunk of the set is here.
    func mayHave(_ set: SetID) -> Bool { sets?.contains(set) ?? false }

    /// What is in its slots.
    var chunks: [ChunkState?] {
        var chunks: [ChunkState?] = []
        chunks.reserveCapacity(count)
        visit { chunk, rest in
            chunks.append(chunk?.with(rest))
            return true
        }
        return chunks
    }
    /// What is in one of its slots.
    func chunk(_ place: Int) -> ChunkState? {
        var found: ChunkState?
        var left = place
        visit { chunk, rest in
            if left == 0 { found = chunk?.with(rest) }
            left -= 1
            return left >= 0
        }
        return found
    }
    /// The places of the chunks that have a rest.
    var places: [Int] {
        if rests.isEmpty { return [] }
        var places: [Int] = []
        var place = 0
        visit { _, rest in
            if rest != nil { places.append(place) }
            place += 1
            return true
        }
        return places
    }

    /// Calls `body` with each chunk without its rest, and that, until it says false.
    private func visit(_ body: (ChunkState?, Rest?) -> Bool) {
        var reader = ByteReader(bytes)
        var coder = ChunkCoder()
        var next = 0
        do throws(DecodeError) {
            for _ in 0..<count {
                let (chunk, hasRest) = try coder.read(from: &reader)
                guard body(chunk, hasRest ? rests[next] : nil) else { return }
                if hasRest { next += 1 }
            }
        } catch { preconditionFailure("a packed group is whole: \(error)") }
    }
}

extension ChunkState {
    fileprivate func with(_ rest: ChunkGroup.Rest?) -> ChunkState {
        guard let rest else { return self }
        var chunk = self
        chunk.trims = rest.trims
        if !rest.pages.isEmpty { chunk.form = .many(rest.pages) }
        return chunk
    }
}

/// How the extents of a chunk are coded.
private enum ChunkForm: UInt8 {
    case nothing = 0
    case one = 32
    case few = 64
    /// Elsewhere, and the trims too.
    case rest = 96

    init(_ chunk: ChunkState) {
        if !chunk.trims.isEmpty {
            self = .rest
            return
        }
        switch chunk.form {
        case .none: self = .nothing
        case .one: self = .one
        case .many(let pages):
            let isFew = pages.count == 1 && pages[0].entries.count <= ChunkGroup.fewExtents
            self = isFew ? .few : .rest
        }
    }
}

/// How a chunk differs from the one before: a byte with this and its form, and what follows it.
private struct ChunkFlags: OptionSet {
    let rawValue: UInt8
    /// The next chunk of the same file.
    static let nextIndex = ChunkFlags(rawValue: 1)
    static let sameVersion = ChunkFlags(rawValue: 2)
    static let sameSet = ChunkFlags(rawValue: 4)
    static let hasTruncation = ChunkFlags(rawValue: 8)
    static let form: UInt8 = 96
    static let unknown: UInt8 = 16
    /// No chunk: alone.
    static let free: UInt8 = 128
}

/// Writes chunks of a group, or reads them, one after the other.
private struct ChunkCoder {
    /// The chunk before, and the extent before.
    private var id = ChunkID(inode: InodeID(rawValue: 0), index: 0, version: 0)
    private var set = SetID(rawValue: 0)
    private var extent = ExtentEntry()

    /// True if the chunk has extents or trims that are not here.
    mutating func write(_ chunk: ChunkState?, into writer: inout ByteWriter) -> Bool {
        guard let chunk else {
            writer.write(ChunkFlags.free)
            return false
        }
        let form = ChunkForm(chunk)
        var flags: ChunkFlags = []
        if chunk.id.inode == id.inode, chunk.id.index == id.index &+ 1 { flags.insert(.nextIndex) }
        if chunk.id.version == id.version { flags.insert(.sameVersion) }
        if chunk.set == set { flags.insert(.sameSet) }
        if chunk.truncation != 0 { flags.insert(.hasTruncation) }
        writer.write(flags.rawValue | form.rawValue)
        if !flags.contains(.nextIndex) {
            writer.writeDifference(from: id.inode.rawValue, to: chunk.id.inode.rawValue)
            writer.writeVarint(UInt64(chunk.id.index))
        }
        if !flags.contains(.sameVersion) { writer.writeVarint(UInt64(chunk.id.version)) }
        if !flags.contains(.sameSet) {
            writer.writeDifference(from: set.rawValue, to: chunk.set.rawValue)
        }
        if flags.contains(.hasTruncation) { writer.writeVarint(UInt64(chunk.truncation)) }
        (id, set) = (chunk.id, chunk.set)
        extent.block = ExtentEntry.before(page: 0).block
        guard form != .rest else { return true }
        if form == .few { writer.writeVarint(UInt64(chunk.pages[0].entries.count)) }
        chunk.visit { next in
            next.pack(after: extent, into: &writer)
            extent = next
        }
        return false
    }

    /// Without what the chunk has elsewhere; nil: the slot is free.
    mutating func read(
        from reader: inout ByteReader
    ) throws(DecodeError) -> (chunk: ChunkState?, hasRest: Bool) {
        let raw = try reader.read(UInt8.self)
        if raw == ChunkFlags.free { return (nil, false) }
        guard raw < ChunkFlags.free, raw & ChunkFlags.unknown == 0,
            let form = ChunkForm(rawValue: raw & ChunkFlags.form)
        else {
            throw .invalid(field: "chunk", value: UInt64(raw))
        }
        let flags = ChunkFlags(rawValue: raw & ~ChunkFlags.form)
        var (inode, index, version) = (id.inode, id.index &+ 1, id.version)
        if !flags.contains(.nextIndex) {
            inode = InodeID(rawValue: try reader.readDifference(from: inode.rawValue))
            index = try reader.readVarint(UInt32.self)
        }
        if !flags.contains(.sameVersion) { version = try reader.readVarint(UInt32.self) }
        id = ChunkID(inode: inode, index: index, version: version)
        if !flags.contains(.sameSet) {
            set = SetID(rawValue: try reader.readDifference(from: set.rawValue))
        }
        var chunk = ChunkState(id: id, set: set)
        if flags.contains(.hasTruncation) {
            chunk.truncation = try reader.readVarint(UInt32.self)
        }
        extent.block = ExtentEntry.before(page: 0).block
        switch form {
        case .nothing: break
        case .one:
            extent = try ExtentEntry(checkedAfter: extent, isFirst: true, page: 0, from: &reader)
            chunk.form = .one(extent)
        case .few: chunk.form = .many([.open(try readFew(from: &reader))])
        case .rest: break
        }
        return (chunk, form == .rest)
    }

    private mutating func readFew(
        from reader: inout ByteReader
    ) throws(DecodeError) -> [ExtentEntry] {
        let count = try reader.readVarint()
        guard (1...UInt64(ChunkGroup.fewExtents)).contains(count) else {
            throw .invalid(field: "extents", value: count)
        }
        var extents: [ExtentEntry] = []
        extents.reserveCapacity(Int(count))
        for _ in 0..<count {
            extent = try ExtentEntry(
                checkedAfter: extent, isFirst: extents.isEmpty, page: 0, from: &reader)
            extents.append(extent)
        }
        return extents
    }
}
