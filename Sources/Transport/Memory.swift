// How the allocator of this process treats what the data path frees.
//
// Blocks and frames of 64 to 256 KiB come and go all the time. By default the allocator gives such
// memory back to the kernel at once, and gets it again page by page: measured, that takes five
// times the CPU of copying and summing a block. So it keeps what is freed, and gives it back now
// and then.

import Glibc

/// The allocator's settings, for the whole process.
package enum Memory {
    private typealias Setting = @convention(c) (Int32, Int32) -> Int32
    private typealias Trim = @convention(c) (Int) -> Int32
    // The numbers of <malloc.h>, which Swift does not import.
    private static let trimThreshold: Int32 = -1
    private static let mappingThreshold: Int32 = -3

    /// Keeps up to 64 MiB of freed memory from now on, and maps only what has 1 MiB or more.
    package static func keepFreed() {
        guard let symbol = dlsym(nil, "mallopt") else { return }
        let set = unsafeBitCast(symbol, to: Setting.self)
        _ = set(trimThreshold, 64 << 20)
        _ = set(mappingThreshold, 1 << 20)
    }
    /// Gives back what is free now.
    package static func giveBack() {
        guard let symbol = dlsym(nil, "malloc_trim") else { return }
        _ = unsafeBitCast(symbol, to: Trim.self)(0)
    }
}
