// The content of a block out of the extents that were written to it: each is laid over what came
// before, and bytes that none covers are zeros (D10).
// Invariant: every byte of the destination is written at least once when `finish` returns, and no
// byte is zeroed that an earlier layer had written.

package import Base

/// Lays extents over each other in memory that starts as garbage. Not to be used after an error.
package struct BlockAssembler {
    private let destination: UnsafeMutableRawBufferPointer
    /// The one run of bytes that hold their content so far.
    private var covered = 0..<0

    /// Assembles the first `destination.count` bytes of a block: 0 to 64 KiB. The memory must
    /// outlive the assembler.
    package init(into destination: UnsafeMutableRawBufferPointer) {
        precondition(destination.count <= Limits.block, "more than a block")
        self.destination = destination
    }

    /// Lays the first `visible` bytes of an extent's content over what is there; the rest was
    /// truncated away.
    package mutating func lay(_ extent: Extent, visible: Int) throws(BlockError) {
        precondition(visible >= 0 && visible <= Int(extent.length), "visible beyond the extent")
        let start = Int(extent.start)
        let end = min(start + visible, destination.count)
        if start + Int(extent.length) == end {
            let target = UnsafeMutableRawBufferPointer(rebasing: destination[start..<end])
            try BlockCodec.decode(extent, into: target)
        } else {
            // All of it is decoded even so: its checksums cover all of it.
            let content = try BlockCodec.decode(extent)
            guard start < end else { return }
            content.withUnsafeBytes { copy($0, to: start, count: end - start) }
        }
        cover(start..<end)
    }

    /// Lays plain bytes over what is there, clipped to the destination.
    package mutating func lay(_ bytes: UnsafeRawBufferPointer, at start: Int) {
        let end = min(start + bytes.count, destination.count)
        guard start < end else { return }
        copy(bytes, to: start, count: end - start)
        cover(start..<end)
    }

    /// Zeroes what nothing covers.
    package mutating func finish() {
        zero(0..<covered.lowerBound)
        zero(covered.upperBound..<destination.count)
        covered = 0..<destination.count
    }

    private mutating func cover(_ range: Range<Int>) {
        if covered.isEmpty {
            covered = range
            return
        }
        if range.lowerBound > covered.upperBound { zero(covered.upperBound..<range.lowerBound) }
        if range.upperBound < covered.lowerBound { zero(range.upperBound..<covered.lowerBound) }
        covered =
            min(covered.lowerBound, range.lowerBound)..<max(covered.upperBound, range.upperBound)
    }

    private func copy(_ bytes: UnsafeRawBufferPointer, to start: Int, count: Int) {
        UnsafeMutableRawBufferPointer(rebasing: destination[start..<start + count])
            .copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[..<count]))
    }

    private func zero(_ range: Range<Int>) {
        guard !range.isEmpty else { return }
        UnsafeMutableRawBufferPointer(rebasing: destination[range])
            .initializeMemory(as: UInt8.self, repeating: 0)
    }
}
