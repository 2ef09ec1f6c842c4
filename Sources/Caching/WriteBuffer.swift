// What was written to one open file and is not yet safe in the cell (K4, K5).
//
// Each block on its own:
//
//  state            event                        next
//  clean            bytes written                dirty
//  dirty            sealed                       flying (its runs become extents)
//  flying           bytes written                flying + dirty: later bytes wait (C15)
//  flying           all extents acknowledged     unsettled; dirty again if bytes waited
//  flying           one refused as outdated      stranded: readable, waits for `restore`
//  flying           one failed                   clean, the error is noted (K6)
//  stranded         restore                      dirty
//  unsettled        size and mtime are chosen    clean
//  unsettled        Extend was outdated          dirty, by `restore`
//
// Invariants:
//  1. Two extents without an answer never lie in one block (C15).
//  2. Unsettled extents are kept until an Extend with their truncation number is chosen: a
//     truncation by another client can take away acknowledged bytes until then (DESIGN 3.3).
//  3. The overlay of a block shows every byte that was written and is not acknowledged.
//  4. `bytes` is what all of it holds in memory.

package import Base

/// Something to lay over the content of a block.
package enum Layer: Hashable, Sendable {
    case run(Run)
    case extent(Extent)

    /// Whether it has every byte of a range of its block.
    package func covers(_ range: Range<Int>) -> Bool {
        switch self {
        case .run(let run): run.start <= range.lowerBound && run.end >= range.upperBound
        case .extent(let extent):
            Int(extent.start) <= range.lowerBound
                && Int(extent.start + extent.length) >= range.upperBound
        }
    }
    /// Bytes of memory it holds.
    var count: Int {
        switch self {
        case .run(let run): run.bytes.count
        case .extent(let extent): extent.payload.count
        }
    }
}

/// How the cell answered one extent.
package enum ExtentOutcome: Hashable, Sendable {
    /// On disk at every member.
    case done
    /// The file was truncated by somebody else: nothing was written.
    case outdated
    /// It will never be written.
    case failed(FileError)
}

/// What Extend must say so that acknowledged bytes count.
package struct Settlement: Hashable, Sendable {
    /// How many extents it settles; for `settle`.
    package let extents: Int
    /// The file is at least so long.
    package let end: UInt64
    package let modified: Timestamp
}

/// The unsafe bytes of one open file.
package struct WriteBuffer: Sendable {
    /// More runs than this in a block are sent without waiting for the gaps to be filled.
    private static let runsPerBlock = 32

    private struct Dirty {
        var runs = Runs()
        /// The number of the first write in it.
        var tick: UInt64
        var since: Instant
        /// A flush waits for it.
        var isWanted = false
    }
    private struct Flight {
        var layers: [Layer]
        var tick: UInt64
        /// Extents without an answer; nil while they are being made.
        var open: Int?
        var isOutdated = false
        var failure: FileError?
    }
    private struct Entry {
        var dirty: Dirty?
        var flight: Flight?
    }
    private struct Unsettled {
        let block: FileBlock
        let extent: Extent
    }

    private var entries: [FileBlock: Entry] = [:]
    /// (tick, block) of everything dirty or flying, oldest first, and of some that no longer is.
    private var ledger: [(tick: UInt64, block: FileBlock)] = []
    private var ledgerHead = 0
    private var unsettled: [Unsettled] = []
    private var ready: [FileBlock] = []
    /// Flights whose extents are not all answered.
    private var openFlights = 0
    /// Flights that wait for `restore`.
    private var strandedFlights = 0
    /// The file was truncated by somebody else since something here was sent.
    private var isOvertaken = false

    /// The number of the last write.
    package private(set) var tick: UInt64 = 0
    /// Bytes of memory held.
    package private(set) var bytes = 0
    /// Bytes of memory held by extents that are acknowledged but not settled.
    package private(set) var unsettledBytes = 0
    /// Since when there is something to settle.
    package private(set) var unsettledSince: Instant?
    /// End of the furthest byte written since all was settled.
    package private(set) var end: UInt64?
    /// Time of the last write since all was settled.
    package private(set) var modified: Timestamp?
    /// Errors so far, and the last one (K6).
    package private(set) var failures: UInt64 = 0
    /// The last error.
    package private(set) var lastFailure: FileError?

    /// Nothing written.
    package init() {}

    /// Whether everything that was written is safe, size and mtime too.
    package var isClean: Bool { entries.isEmpty && unsettled.isEmpty }
    /// Whether `restore` must come before anything more is sent or settled.
    package var isStranded: Bool { strandedFlights > 0 || isOvertaken }
    /// Whether `takeReady` would return something.
    package var hasReady: Bool { !ready.isEmpty }
    /// Whether some extent has no answer yet.
    package var hasOpenFlights: Bool { openFlights > 0 }
}

// Writing and sending.
extension WriteBuffer {
    /// Takes bytes of one block. Returns whether the block should be sealed now.
    package mutating func write(
        _ content: UnsafeRawBufferPointer, to block: FileBlock, at start: Int, now: Instant,
        modified time: Timestamp
    ) -> Bool {
        note(block, end: start + content.count, time)
        if entries[block]?.dirty == nil {
            entries[block, default: Entry()].dirty = Dirty(tick: tick, since: now)
            ledger.append((tick, block))
        }
        let before = entries[block]?.dirty?.runs.count ?? 0
        entries[block]?.dirty?.runs.write(content, at: start)
        guard let entry = entries[block], let dirty = entry.dirty else { return false }
        bytes += dirty.runs.count - before
        return entry.flight == nil && isDue(dirty)
    }

    /// Claims a block for a write of all of it that the caller makes an extent of at once.
    /// False where an earlier extent of the block is flying, or blocks are stranded: use `write`.
    /// What was dirty there stays readable until `launch`, and comes back by `withdraw`.
    package mutating func claim(
        _ block: FileBlock, now: Instant, modified time: Timestamp
    ) -> Bool {
        guard entries[block]?.flight == nil, !isStranded else { return false }
        note(block, end: Limits.block, time)
        let dirty = entries[block]?.dirty
        if dirty == nil { ledger.append((tick, block)) }
        let layers = dirty?.runs.list.map(Layer.run) ?? []
        let flight = Flight(layers: layers, tick: dirty?.tick ?? tick)
        entries[block] = Entry(dirty: nil, flight: flight)
        openFlights += 1
        return true
    }

    /// Takes the dirty runs of a block to make extents of; nil if there are none, an earlier
    /// extent of the block is flying, or blocks are stranded, so that `restore` comes soon.
    /// `launch` or `withdraw` must follow.
    package mutating func seal(_ block: FileBlock) -> [Run]? {
        guard let entry = entries[block], entry.flight == nil, let dirty = entry.dirty,
            !isStranded
        else { return nil }
        let flight = Flight(layers: dirty.runs.list.map(Layer.run), tick: dirty.tick)
        entries[block] = Entry(dirty: nil, flight: flight)
        openFlights += 1
        return dirty.runs.list
    }

    /// The extents of a sealed or claimed block: they are about to be sent.
    package mutating func launch(_ block: FileBlock, _ extents: [Extent]) {
        guard let flight = entries[block]?.flight, flight.open == nil else {
            preconditionFailure("launched without a seal")
        }
        precondition(!extents.isEmpty, "launched nothing")
        let layers = extents.map(Layer.extent)
        bytes += Self.count(layers) - Self.count(flight.layers)
        entries[block]?.flight?.layers = layers
        entries[block]?.flight?.open = extents.count
    }

    /// Takes back a seal or claim: its runs are dirty again. Call it in place of `launch`.
    package mutating func withdraw(_ block: FileBlock, now: Instant) {
        guard let flight = entries[block]?.flight, flight.open == nil else {
            preconditionFailure("withdrew without a seal")
        }
        openFlights -= 1
        entries[block]?.flight = nil
        putBack(flight, below: block, contents: flight.layers.map(Self.run), now: now)
    }

    /// Takes the answer to one extent of a block.
    package mutating func answer(_ block: FileBlock, _ outcome: ExtentOutcome, now: Instant) {
        guard var flight = entries[block]?.flight, let open = flight.open, open > 0 else {
            preconditionFailure("an answer to nothing")
        }
        switch outcome {
        case .done: break
        case .outdated: flight.isOutdated = true
        case .failed(let error): flight.failure = error
        }
        flight.open = open - 1
        entries[block]?.flight = flight
        guard open == 1 else { return }
        openFlights -= 1
        if flight.failure == nil, flight.isOutdated {
            strandedFlights += 1
            return
        }
        if let failure = flight.failure {
            fail(failure)
            bytes -= Self.count(flight.layers)
        } else {
            settleLater(flight, in: block, now: now)
        }
        land(block)
    }

    /// Blocks that wait to be sealed because of an answer since the last call.
    package mutating func takeReady() -> [FileBlock] {
        defer { ready.removeAll(keepingCapacity: true) }
        return ready
    }

    /// Asks for every write up to number `through` to be sent. Returns the blocks to be sealed
    /// now; the others turn up in `takeReady` when they can be.
    package mutating func demand(through last: UInt64) -> [FileBlock] {
        select { dirty, _ in dirty.tick <= last }
    }

    /// The same for blocks dirty since before `time`.
    package mutating func demand(dirtySince time: Instant) -> [FileBlock] {
        select { dirty, _ in dirty.since <= time }
    }

    /// Whether something of the writes up to number `through` is dirty, flying or stranded.
    package mutating func isPending(through last: UInt64) -> Bool {
        trimLedger()
        return ledgerHead < ledger.count && ledger[ledgerHead].tick <= last
    }

    /// Notes an error for every descriptor of the file (K6).
    package mutating func fail(_ error: FileError) {
        failures += 1
        lastFailure = error
    }

    /// The file has a new truncation number that was not made here: what was sent under the old
    /// one must be written again.
    package mutating func overtake() { isOvertaken = !isClean }

    /// Drops the dirty bytes of a block, which can never be written, and notes the error.
    package mutating func drop(_ block: FileBlock, _ error: FileError) {
        guard let dirty = entries[block]?.dirty else { return }
        bytes -= dirty.runs.count
        fail(error)
        entries[block]?.dirty = nil
        if entries[block]?.flight == nil { entries[block] = nil }
        forgetSettled()
    }

    /// Drops all that is not flying, because it can never be written, and notes the error.
    package mutating func abandon(_ error: FileError) {
        guard !isClean else { return }
        fail(error)
        trimLedger()
        for index in ledgerHead..<ledger.count {
            let block = ledger[index].block
            guard var entry = entries[block] else { continue }
            if let dirty = entry.dirty { bytes -= dirty.runs.count }
            entry.dirty = nil
            if let flight = entry.flight, flight.open == 0 {
                bytes -= Self.count(flight.layers)
                strandedFlights -= 1
                entry.flight = nil
            }
            entries[block] = entry.flight == nil ? nil : entry
        }
        bytes -= unsettledBytes
        unsettled = []
        isOvertaken = false
        forgetSettled()
    }
}

// Reading, settling, restoring.
extension WriteBuffer {
    /// What to lay over the content of a block that the cell has, in order.
    package func overlay(of block: FileBlock) -> [Layer] {
        guard let entry = entries[block] else { return [] }
        let runs = entry.dirty?.runs.list.map(Layer.run) ?? []
        return (entry.flight?.layers ?? []) + runs
    }

    /// What Extend must say now; nil if nothing waits for it.
    package var settlement: Settlement? {
        guard let modified, !unsettled.isEmpty, !isStranded else { return nil }
        var end: UInt64 = 0
        for item in unsettled { end = max(end, Self.end(of: item)) }
        return Settlement(extents: unsettled.count, end: end, modified: modified)
    }

    /// Extend was chosen: the first so many unsettled extents are safe.
    package mutating func settle(_ settled: Settlement, now: Instant) {
        let count = min(settled.extents, unsettled.count)
        for item in unsettled[..<count] {
            bytes -= item.extent.payload.count
            unsettledBytes -= item.extent.payload.count
        }
        unsettled.removeFirst(count)
        unsettledSince = unsettled.isEmpty ? nil : now
        if isClean { forgetSettled() }
    }

    /// Makes everything dirty again that was refused as outdated or is acknowledged but not
    /// settled, below what was written since. `decode` gives the content of an extent, nil if
    /// memory damaged it. No extent may be without an answer.
    package mutating func restore(now: Instant, decode: (Extent) -> [UInt8]?) {
        precondition(openFlights == 0, "restored while extents fly")
        isOvertaken = false
        let lost = unsettled
        unsettled = []
        bytes -= unsettledBytes
        unsettledBytes = 0
        unsettledSince = nil
        var order: [FileBlock] = []
        var contents: [FileBlock: [Run?]] = [:]
        func add(_ block: FileBlock, _ extent: Extent) {
            if contents[block] == nil { order.append(block) }
            contents[block, default: []].append(
                decode(extent).map { Run(start: Int(extent.start), bytes: $0) })
        }
        for item in lost { add(item.block, item.extent) }
        var flights: [FileBlock: Flight] = [:]
        trimLedger()
        for index in ledgerHead..<ledger.count {
            let block = ledger[index].block
            guard let flight = entries[block]?.flight, flights[block] == nil else { continue }
            flights[block] = flight
            for case .extent(let extent) in flight.layers { add(block, extent) }
            entries[block]?.flight = nil
            strandedFlights -= 1
        }
        for block in order {
            tick += 1
            let flight = flights[block] ?? Flight(layers: [], tick: tick)
            if flights[block] == nil { ledger.append((tick, block)) }
            putBack(flight, below: block, contents: contents[block] ?? [], now: now)
        }
    }
}

extension WriteBuffer {
    private mutating func note(_ block: FileBlock, end last: Int, _ time: Timestamp) {
        tick += 1
        end = max(end ?? 0, block.offset + UInt64(last))
        modified = time
    }

    private func isDue(_ dirty: Dirty) -> Bool {
        dirty.isWanted || dirty.runs.isWhole || dirty.runs.list.count > Self.runsPerBlock
    }

    /// A flight ended; what was written meanwhile may follow.
    private mutating func land(_ block: FileBlock) {
        entries[block]?.flight = nil
        if let dirty = entries[block]?.dirty {
            if isDue(dirty) { ready.append(block) }
        } else {
            entries[block] = nil
            if isClean { forgetSettled() }
        }
    }

    private mutating func settleLater(_ flight: Flight, in block: FileBlock, now: Instant) {
        for case .extent(let extent) in flight.layers {
            unsettled.append(Unsettled(block: block, extent: extent))
            unsettledBytes += extent.payload.count
        }
        if unsettledSince == nil { unsettledSince = now }
    }

    /// Makes the content of a flight dirty again, below what was written since.
    private mutating func putBack(
        _ flight: Flight, below block: FileBlock, contents: [Run?], now: Instant
    ) {
        bytes -= Self.count(flight.layers)
        let newer = entries[block]?.dirty
        if let newer { bytes -= newer.runs.count }
        var dirty = Dirty(tick: min(flight.tick, newer?.tick ?? flight.tick), since: now)
        dirty.isWanted = newer?.isWanted ?? false
        for run in contents {
            if let run {
                run.bytes.withUnsafeBytes { dirty.runs.write($0, at: run.start) }
            } else {
                fail(.io)
            }
        }
        for run in newer?.runs.list ?? [] {
            run.bytes.withUnsafeBytes { dirty.runs.write($0, at: run.start) }
        }
        if dirty.runs.count == 0 {
            entries[block] = nil
            if isClean { forgetSettled() }
        } else {
            bytes += dirty.runs.count
            entries[block] = Entry(dirty: dirty, flight: nil)
        }
    }

    private mutating func select(_ matches: (Dirty, FileBlock) -> Bool) -> [FileBlock] {
        trimLedger()
        var chosen: [FileBlock] = []
        for index in ledgerHead..<ledger.count {
            let (tick, block) = ledger[index]
            guard let entry = entries[block], let dirty = entry.dirty, dirty.tick == tick,
                matches(dirty, block)
            else { continue }
            entries[block]?.dirty?.isWanted = true
            if entry.flight == nil { chosen.append(block) }
        }
        return chosen
    }

    /// Drops what is neither dirty nor flying any more from the front of the ledger.
    private mutating func trimLedger() {
        while ledgerHead < ledger.count {
            let (tick, block) = ledger[ledgerHead]
            let entry = entries[block]
            if entry?.dirty?.tick == tick || entry?.flight?.tick == tick { break }
            ledgerHead += 1
        }
        if ledgerHead > 64, ledgerHead * 2 > ledger.count {
            ledger.removeFirst(ledgerHead)
            ledgerHead = 0
        }
    }

    private mutating func forgetSettled() {
        if unsettled.isEmpty {
            unsettledBytes = 0
            unsettledSince = nil
        }
        if isClean {
            end = nil
            modified = nil
        }
    }

    private static func count(_ layers: [Layer]) -> Int { layers.reduce(0) { $0 + $1.count } }
    private static func run(_ layer: Layer) -> Run? {
        if case .run(let run) = layer { run } else { nil }
    }
    private static func end(of item: Unsettled) -> UInt64 {
        item.block.offset + UInt64(item.extent.start + item.extent.length)
    }
}
