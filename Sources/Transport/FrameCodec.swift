// Frames in a stream of bytes: cut out of what was received, gathered into what is sent.
//
// Invariants:
//  1. No memory is set aside for a frame before its header is checked (Wire/Frame.swift).
//  2. Received bytes are copied once, into the frame's own arrays; sent bytes once, into the
//     buffer that goes to the socket.

import Base
import NIOCore
import Wire

/// Cuts frames out of the bytes of one connection.
struct FrameParser {
    /// Frames with a longer head, or with a payload while this is below `Limits.frameHead`, are
    /// refused: strangers get little memory.
    var headBound = Limits.handshakeHead
    private var headerBytes: [UInt8] = []
    private var header: FrameHeader?
    private var head: [UInt8] = []
    private var payload: [UInt8] = []

    /// Whether a frame has begun and not ended.
    var isInFrame: Bool { header != nil || !headerBytes.isEmpty }

    /// Takes bytes from `buffer`; nil when they ended before the frame did.
    mutating func next(_ buffer: inout ByteBuffer) throws(DecodeError) -> Frame? {
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
            payload.reserveCapacity(current.payloadLength)
        }
        Self.move(&buffer, to: &head, upTo: current.headLength)
        guard head.count == current.headLength else { return nil }
        Self.move(&buffer, to: &payload, upTo: current.payloadLength)
        guard payload.count == current.payloadLength else { return nil }
        header = nil
        defer {
            head = []
            payload = []
        }
        return try current.frame(head: head, payload: payload[...])
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
}

/// Gathers the frames of one turn, so that they leave with few system calls.
struct FrameGatherer {
    /// Bytes after which a buffer goes to the socket's queue.
    private static let full = 256 << 10
    private var buffer: ByteBuffer?
    private let allocator: ByteBufferAllocator

    /// Takes its memory from a channel's allocator.
    init(allocator: ByteBufferAllocator) { self.allocator = allocator }

    /// Adds a frame; returns a buffer that is full and must be written first.
    mutating func append(_ frame: Frame) -> ByteBuffer? {
        let size = Frame.headerSize + frame.head.count + frame.payload.count
        var done: ByteBuffer?
        if let held = buffer, held.readableBytes + size > Self.full {
            done = held
            buffer = nil
        }
        if buffer == nil { buffer = allocator.buffer(capacity: max(size, 1_024)) }
        // In place: a copy of the optional would copy all of its bytes.
        buffer?.reserveCapacity(minimumWritableBytes: size)
        buffer?.writeBytes(frame.header)
        buffer?.writeBytes(frame.head)
        frame.payload.withUnsafeBytes { raw in
            _ = buffer?.writeBytes(raw)
        }
        return done
    }

    /// All that was added since the last full buffer.
    mutating func take() -> ByteBuffer? {
        defer { buffer = nil }
        return buffer
    }
}
