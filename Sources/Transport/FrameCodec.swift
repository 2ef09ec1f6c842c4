// Frames in a stream of bytes: cut out of what was received, gathered into what is sent.
//
// Invariants:
//  1. No memory is set aside for a frame before its header is checked (Wire/Frame.swift).
//  2. Large payloads are received into and sent from the frame's own arrays (SharedBytes); all
//     else is copied once.
//  3. Large payloads start at a multiple of `Limits.sector` in memory, so that a disk can take
//     them from there.

import Base
import NIOCore
import Wire

/// Cuts frames out of the bytes of one connection. Lives on the connection's event loop, where it
/// also says where the next bytes are to be received.
final class FrameParser: RecvByteBufferAllocator, @unchecked Sendable {
    /// Bytes that are received at once outside of a large payload.
    private static let scratch = 16 << 10
    /// SwiftNIO keeps the first buffers of a connection: small ones.
    private static let keptBuffers = 16
    private static let keptBuffer = 2 << 10

    /// Frames with a longer head, or with a payload while this is below `Limits.frameHead`, are
    /// refused: strangers get little memory.
    var headBound = Limits.handshakeHead
    private var headerBytes: [UInt8] = []
    private var header: FrameHeader?
    private var head: [UInt8] = []
    /// Has its whole length from the start; `filled` bytes of it are there.
    private var payload: ArraySlice<UInt8> = []
    private var filled = 0
    private var buffers = 0

    /// Whether a frame has begun and not ended.
    var isInFrame: Bool { header != nil || !headerBytes.isEmpty }

    /// Takes bytes from `buffer`; nil when they ended before the frame did.
    func next(_ buffer: inout ByteBuffer) throws(DecodeError) -> Frame? {
        let current: FrameHeader
        if let header {
            current = header
        } else {
            Self.move(&buffer, to: &headerBytes, upTo: Frame.headerSize)
            guard headerBytes.count == Frame.headerSize else { return nil }
            current = try FrameHeader(headerBytes[...])
            headerBytes.removeAll(keepingCapacity: true)
            guard current.headLength <= headBound else {
                throw .oversize(count: current.headLength, bound: headBound)
            }
            guard headBound == Limits.frameHead || current.payloadLength == 0 else {
                throw .oversize(count: current.payloadLength, bound: 0)
            }
            header = current
            head.reserveCapacity(current.headLength)
        }
        Self.move(&buffer, to: &head, upTo: current.headLength)
        guard head.count == current.headLength else { return nil }
        if payload.isEmpty, current.payloadLength > 0 {
            payload = Self.room(for: current.payloadLength)
        }
        fillPayload(&buffer)
        guard filled == current.payloadLength else { return nil }
        header = nil
        defer {
            head = []
            payload = []
            filled = 0
        }
        return try current.frame(head: head, payload: payload)
    }

    /// Bytes to be filled, at the right place in memory: an array's stay where they are.
    private static func room(for length: Int) -> ArraySlice<UInt8> {
        let slack = length < Limits.largePayload ? 0 : Limits.sector - 1
        let array = [UInt8](unsafeUninitializedCapacity: length + slack) { $1 = length + slack }
        let skip = array.withUnsafeBytes { raw in
            raw.baseAddress.map { -Int(bitPattern: $0) & slack } ?? 0
        }
        return array[skip..<skip + length]
    }

    private static func move(
        _ buffer: inout ByteBuffer, to bytes: inout [UInt8], upTo length: Int
    ) {
        let count = min(length - bytes.count, buffer.readableBytes)
        guard count > 0 else { return }
        buffer.readWithUnsafeReadableBytes { raw in
            bytes.append(contentsOf: UnsafeRawBufferPointer(rebasing: raw[..<count]))
            return count
        }
    }

    private func fillPayload(_ buffer: inout ByteBuffer) {
        let count = min(payload.count - filled, buffer.readableBytes)
        guard count > 0 else { return }
        buffer.readWithUnsafeReadableBytes { raw in
            payload.withUnsafeBytes { target in
                guard let from = raw.baseAddress, let start = target.baseAddress,
                    from != start + filled
                else { return }
                // Nobody else knows of the array yet (SharedBytes, 2).
                UnsafeMutableRawPointer(mutating: start + filled)
                    .copyMemory(from: from, byteCount: count)
            }
            return count
        }
        filled += count
    }

    // Where the next bytes go.

    /// The rest of a large payload, or room for some small frames.
    func buffer(allocator: ByteBufferAllocator) -> ByteBuffer {
        guard buffers >= Self.keptBuffers else {
            buffers += 1
            return allocator.buffer(capacity: Self.keptBuffer)
        }
        if payload.count - filled >= Limits.largePayload,
            let room = ByteBuffer(sharing: payload.dropFirst(filled), isFilled: false)
        {
            return room
        }
        return allocator.buffer(capacity: Self.scratch)
    }
    /// Each read has a buffer of its own.
    func record(actualReadBytes: Int) -> Bool { true }
}

/// Gathers the frames of one turn, so that they leave with few system calls.
struct FrameGatherer {
    private var full: [ByteBuffer] = []
    private var open: ByteBuffer?
    private let allocator: ByteBufferAllocator

    /// Takes its memory from a channel's allocator.
    init(allocator: ByteBufferAllocator) { self.allocator = allocator }

    /// Adds a frame.
    mutating func append(_ frame: Frame) {
        let header = frame.header
        reserve(header.count + frame.head.count)
        open?.writeBytes(header)
        open?.writeBytes(frame.head)
        for piece in frame.pieces {
            if piece.count >= Limits.largePayload, let shared = ByteBuffer(sharing: piece) {
                close()
                full.append(shared)
            } else {
                reserve(piece.count)
                piece.withUnsafeBytes { _ = open?.writeBytes($0) }
            }
        }
    }

    /// All that was added since the last time, in order.
    mutating func take() -> [ByteBuffer] {
        close()
        defer { full = [] }
        return full
    }

    private mutating func reserve(_ count: Int) {
        if open == nil { open = allocator.buffer(capacity: max(count, 1_024)) }
        // In place: a copy of the optional would copy all of its bytes.
        open?.reserveCapacity(minimumWritableBytes: count)
    }
    private mutating func close() {
        if let open { full.append(open) }
        open = nil
    }
}
