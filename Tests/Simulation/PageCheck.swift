// Registers: each cell of a file holds the stamp of one write. A read must return the last write
// that was acknowledged before it, or one that ran beside it. What a primary has answered is
// committed, so later reads must not go back behind it, and so is what another copy answered.
// While clocks run as no lease was made for, a read may be stale (S1); nothing may be lost.

import Base

/// A place in a file that is written as a whole.
struct CellPlace: Hashable, Comparable {
    var chunk: ChunkID
    var block: UInt16
    var cell: Int
    static func < (left: CellPlace, right: CellPlace) -> Bool {
        (left.chunk, left.block, left.cell) < (right.chunk, right.block, right.cell)
    }
}

/// What was written where, and who saw it.
struct PageCheck {
    private struct Write {
        var stamp: UInt64
        var invoked: Int
        /// When it was acknowledged or first read; it can't be undone any more.
        var settled: Int?
        /// It cut the file: what is read after it is nothing.
        var isCut = false
    }
    private var cells: [CellPlace: [Write]] = [:]
    private(set) var places: [CellPlace] = []
    var allowsStale = false
    /// How many reads were.
    private(set) var stale = 0
    private var clock = 0

    /// The order of all beginnings and ends.
    mutating func tick() -> Int {
        clock += 1
        return clock
    }

    /// The last write that was settled there; nil without one, and where it was cut since.
    func last(at place: CellPlace) -> UInt64? {
        let last = cells[place]?.filter { $0.settled != nil }.max {
            ($0.settled ?? 0) < ($1.settled ?? 0)
        }
        return last.flatMap { $0.isCut ? nil : $0.stamp }
    }

    /// Whether nobody has been told yet how some write there ended.
    func isOpen(_ place: CellPlace) -> Bool {
        cells[place]?.contains { $0.settled == nil } ?? false
    }

    /// Where a stamp was written, whatever came after it.
    func places(of stamp: UInt64) -> [CellPlace] {
        places.filter { cells[$0]?.contains { $0.stamp == stamp } ?? false }
    }

    /// A write of a stamp that was never used before begins, or a cut.
    mutating func invoke(_ stamp: UInt64, at cells: [CellPlace], isCut: Bool = false) {
        let time = tick()
        for place in cells {
            if self.cells[place] == nil { places.append(place) }
            self.cells[place, default: []].append(Write(stamp: stamp, invoked: time, isCut: isCut))
        }
    }
    /// It is acknowledged.
    mutating func acknowledge(_ stamp: UInt64, at cells: [CellPlace]) {
        let time = tick()
        for place in cells { settle(stamp, place, time) }
    }

    private mutating func settle(_ stamp: UInt64, _ place: CellPlace, _ time: Int) {
        guard let index = cells[place]?.firstIndex(where: { $0.stamp == stamp }) else { return }
        if cells[place]![index].settled == nil { cells[place]![index].settled = time }
    }

    private mutating func isExcused() -> Bool {
        if allowsStale { stale += 1 }
        return allowsStale
    }

    /// A read that began at `invoked` ends now with this stamp (0: nothing was ever written).
    /// Says what is wrong with it.
    mutating func read(_ stamp: UInt64, _ place: CellPlace, invoked: Int) -> String? {
        let writes = cells[place] ?? []
        // Writes that were settled before the read began hide all that were settled before them.
        let hiding = writes.filter { $0.settled ?? .max < invoked }
        if stamp == 0 {
            let cuts = writes.filter { cut in
                cut.isCut && !hiding.contains { cut.settled ?? .max < $0.invoked }
            }
            guard cuts.isEmpty, let hidden = hiding.last else { return nil }
            if isExcused() { return nil }
            return "nothing at \(place), though \(hidden.stamp) is acknowledged"
        }
        guard let found = writes.first(where: { $0.stamp == stamp && !$0.isCut }) else {
            return "\(stamp) at \(place), which nobody wrote there"
        }
        let settled = found.settled ?? .max
        if let later = hiding.first(where: { $0.stamp != stamp && settled < $0.invoked }) {
            if isExcused() { return nil }
            return "\(stamp) at \(place), though \(later.stamp) was acknowledged after it"
        }
        settle(stamp, place, tick())
        return nil
    }
}
