// What a client knows of the places of one open file's chunks (K12).
// Invariants:
//  1. All of it belongs to one truncation number; a newer one starts it afresh, an older answer
//     changes nothing.
//  2. Absent is only what the masters said to be absent since the file was last seen to change.

package import Base

/// The places of a file's chunks, as far as they are known.
package struct FileMap: Sendable {
    /// What is known of one chunk.
    package enum Place: Hashable, Sendable {
        case unknown
        /// It was never written: zeros.
        case absent
        case at(LayoutChunk)
    }

    /// The file's truncation number; rides on every chunk request.
    package private(set) var truncation: UInt32
    private var cuts: [Cut]
    private var places: [UInt32: LayoutChunk] = [:]
    private var absent: [UInt32: Bool] = [:]
    /// Where the next allocation begins if writing goes on as before, and how many it asked for.
    private var nextAllocated: UInt32 = 1
    private var allocated: UInt32 = 1

    /// What a layout says of `count` chunks from `first` on.
    package init(_ layout: Layout, first: UInt32, count: UInt32) {
        truncation = layout.truncation
        cuts = layout.cuts
        learn(layout, first: first, count: count)
    }

    /// Takes an answer about `count` chunks from `first` on.
    package mutating func learn(_ layout: Layout, first: UInt32, count: UInt32) {
        guard layout.truncation >= truncation else { return }
        if layout.truncation > truncation {
            truncation = layout.truncation
            places = [:]
            absent = [:]
        }
        cuts = layout.cuts
        for chunk in layout.chunks {
            places[chunk.chunk.index] = chunk
            absent[chunk.chunk.index] = nil
        }
        for index in first..<first + count where places[index] == nil { absent[index] = true }
    }
    /// The file changed: what was absent may be there now.
    package mutating func forgetAbsent() { absent = [:] }

    /// What is known of a chunk.
    package func place(of chunk: UInt32) -> Place {
        if let place = places[chunk] { return .at(place) }
        return absent[chunk] == nil ? .unknown : .absent
    }
    /// The cuts that go through a chunk, as offsets in it.
    package func cuts(of chunk: UInt32) -> [Cut] {
        let start = UInt64(chunk) * UInt64(Limits.chunk)
        return cuts.compactMap { cut in
            guard cut.size > start, cut.size - start < Limits.chunk else { return nil }
            return Cut(truncation: cut.truncation, size: cut.size - start)
        }
    }
    /// How many chunks to allocate from one without a place on: more and more while a file is
    /// written front to back.
    package mutating func allocation(at chunk: UInt32) -> UInt32 {
        let bound = UInt32(Limits.chunksPerAllocation)
        allocated = chunk == nextAllocated ? min(allocated * 2, bound) : 1
        let last = UInt32(Limits.fileSize / UInt64(Limits.chunk))
        let count = min(allocated, last - chunk)
        nextAllocated = chunk + count
        return count
    }
}
