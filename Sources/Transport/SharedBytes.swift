// Memory of Swift arrays that SwiftNIO reads from and writes to: stored bytes go from the array to
// the socket, and from the socket into the array, without a copy on the way. Measured, such copies
// were a fifth of the CPU of a sequential write.
//
// A `ByteBuffer` is made over the array's own object: its memory begins there and ends with the
// bytes, and it holds the object until nobody needs it any more.
//
// Invariants:
//  1. Bytes that are sent are never changed: the array is held, so whoever changes it gets a copy.
//  2. Bytes that are received are written before anybody but the parser knows of the array.

@_spi(CustomByteBufferAllocator) import NIOCore

/// Releases an array's object. Such a buffer is never grown: what is sent is only read, and what
/// is received has its size.
private let arrayAllocator = ByteBufferAllocator(
    allocate: { _ in preconditionFailure("a shared buffer is copied") },
    reallocate: { _, _, _ in preconditionFailure("a shared buffer grows") },
    deallocate: { Unmanaged<AnyObject>.fromOpaque($0).release() },
    copy: { $0.copyMemory(from: $1, byteCount: $2) })

extension ByteBuffer {
    /// The bytes of a slice where they are; nil where its memory is not an array's.
    /// Unless `isFilled`, they are room to be received into.
    init?(sharing bytes: ArraySlice<UInt8>, isFilled: Bool = true) {
        guard let owner = bytes._owner, let start = bytes.withUnsafeBytes({ $0.baseAddress })
        else { return nil }
        let object = Unmanaged.passUnretained(owner).toOpaque()
        let from = start - UnsafeRawPointer(object)
        // The elements of an array lie in its object, behind a header of some words.
        guard (1...2 << 20).contains(from) else { return nil }
        _ = Unmanaged.passRetained(owner)
        let end = from + bytes.count
        self.init(
            takingOwnershipOf: UnsafeMutableRawBufferPointer(start: object, count: end),
            allocator: arrayAllocator, readerIndex: from, writerIndex: isFilled ? end : from)
    }
}
