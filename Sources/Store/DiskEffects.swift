// What the log of a disk asks of the disk, and what it hears back: the whole door between the
// pure store and the machine. Storage.PosixDisk and the simulator's disk are the two who answer.
//
// Contract of whoever carries the effects out:
//  1. Operations that change one file take effect in the order in which they were issued.
//  2. `write(durable: true)` is done when it, and every earlier write to that file, would survive
//     the loss of power. A write that is not durable may be lost, or survive in parts, until then.
//  3. `create` and `remove` are durable when done (the directory is synced).
//  4. Reads may run beside anything; a read sees every write that was done before it was issued.
//  5. After a failed write, sync or create, no further change is carried out (S4). But a create
//     that finds no space leaves no file, and such a write of a checkpoint leaves that file
//     undefined: all else goes on (C20).

import Base

/// The number of one disk operation; chosen by the store, never used twice in one run.
package struct DiskOperation: Identifier {
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }
}

/// A file in the folder of a disk.
package enum DiskFile: Hashable, Comparable, Sendable {
    /// Identity and incarnation of the disk.
    case superblock
    /// One of the two index checkpoints, or of a master's two snapshots: 0 or 1.
    case checkpoint(UInt8)
    /// A segment of the log, by its number in the folder.
    case segment(UInt32)
}

/// A file that is there at the start.
package struct DiskFileSize: Hashable, Sendable {
    package var file: DiskFile
    /// Bytes.
    package var size: Int
    /// Both fields at once.
    package init(file: DiskFile, size: Int) {
        self.file = file
        self.size = size
    }
}

/// What is on a disk when its process starts.
package struct DiskInventory: Hashable, Sendable {
    /// In ascending order of the file.
    package var files: [DiskFileSize]
    /// Bytes that Martlet may use on it, with what it uses already.
    package var capacity: UInt64
    /// What they might be if others left more space.
    package var limit: UInt64

    /// All fields at once; without a limit, the capacity is it.
    package init(files: [DiskFileSize], capacity: UInt64, limit: UInt64? = nil) {
        self.limit = limit ?? capacity
        self.files = files
        self.capacity = capacity
    }
}

/// One operation for the disk.
package enum DiskEffect: Hashable, Sendable {
    /// Makes a file of `size` bytes, with its space set aside. Its content is zeros.
    case create(DiskOperation, DiskFile, size: Int)
    /// Writes the pieces one after the other from `offset`, growing the file where needed.
    case write(
        DiskOperation, DiskFile, offset: Int, pieces: [ArraySlice<UInt8>], durable: Bool)
    /// Makes every earlier write to the file durable.
    case sync(DiskOperation, DiskFile)
    /// Reads up to `length` bytes; fewer at the end of the file.
    case read(DiskOperation, DiskFile, offset: Int, length: Int)
    /// Removes the file.
    case remove(DiskOperation, DiskFile)

    /// The operation's number.
    package var operation: DiskOperation {
        switch self {
        case .create(let operation, _, _), .write(let operation, _, _, _, _),
            .sync(let operation, _), .read(let operation, _, _, _), .remove(let operation, _):
            operation
        }
    }
}

/// Why a disk operation failed.
package enum DiskFailure: Error, Hashable, Sendable {
    /// ENOSPC or EDQUOT.
    case noSpace
    /// Any other errno.
    case system(errno: Int32)
}

/// How a disk operation ended.
package enum DiskResult: Hashable, Sendable {
    /// A create, write, sync or remove is done.
    case done
    /// What a read found.
    case bytes(ArraySlice<UInt8>)
    case failed(DiskFailure)

    /// What a read found; empty if it failed.
    var content: ArraySlice<UInt8> {
        if case .bytes(let bytes) = self { bytes } else { [] }
    }
}
