// The only coding of integers: little endian, bounds-checked (D4). Every format is built of these.
// Invariants:
//  1. A reader never reads beyond its bytes, whatever the bytes say.
//  2. A length read from the bytes is checked against a bound before anything is allocated.

/// Why bytes could not be decoded.
package enum DecodeError: Error, Hashable, Sendable {
    /// The bytes end before the value does.
    case truncated
    /// A count or length is above its bound.
    case oversize(count: Int, bound: Int)
    /// A field has a value that its format does not know.
    case invalid(field: StaticName, value: UInt64)
    /// Bytes are left over after the value.
    case trailing(count: Int)
    /// A checksum does not fit.
    case checksum(StaticName)
    /// Magic or version of a format that this release does not read.
    case version(StaticName, found: UInt64)
}

/// The name of a field or format in an error: a literal.
package struct StaticName: Hashable, Sendable, ExpressibleByStringLiteral, CustomStringConvertible {
    /// The name.
    package let description: String
    package init(stringLiteral value: StaticString) { description = value.description }
}

/// Appends values to a byte array.
package struct ByteWriter: Sendable {
    /// All that was written.
    package private(set) var bytes: [UInt8]

    /// An empty writer with room for so many bytes.
    package init(capacity: Int = 0) {
        bytes = []
        bytes.reserveCapacity(capacity)
    }
    /// How many bytes were written.
    package var count: Int { bytes.count }

    /// Writes an integer, little endian.
    @inlinable package mutating func write<Value: FixedWidthInteger>(_ value: Value) {
        withUnsafeBytes(of: value.littleEndian) { appendRaw($0) }
    }
    // Generic package code is not specialised in other modules, `@inlinable` or not: the usual
    // widths are written and read 10 times faster by functions of their own.
    /// Writes an integer, little endian.
    package mutating func write(_ value: UInt8) { bytes.append(value) }
    /// Writes an integer, little endian.
    package mutating func write(_ value: UInt16) { append(integer: value) }
    /// Writes an integer, little endian.
    package mutating func write(_ value: UInt32) { append(integer: value) }
    /// Writes an integer, little endian.
    package mutating func write(_ value: UInt64) { append(integer: value) }
    /// Writes an integer, little endian.
    package mutating func write(_ value: Int64) { append(integer: value) }
    private mutating func append<Value: FixedWidthInteger>(integer value: Value) {
        withUnsafeBytes(of: value.littleEndian) { appendRaw($0) }
    }
    /// Writes an integer in as few bytes as it needs, 1 to 10: 7 bits in each, the lowest first,
    /// and the top bit where more follow (LEB128).
    package mutating func writeVarint(_ value: UInt64) {
        var rest = value
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(rest))
    }
    /// Writes integers, little endian, without a count.
    package mutating func write(_ values: [UInt32]) {
        #if _endian(little)
            values.withUnsafeBytes { appendRaw($0) }
        #else
            for value in values { write(value) }
        #endif
    }
    /// Writes the integer of a name.
    package mutating func write<Value: Identifier>(_ value: Value) where Value.RawValue == UInt64 {
        append(integer: value.rawValue)
    }
    /// Writes the integer of a name.
    @inlinable package mutating func write(_ value: some Identifier) { write(value.rawValue) }
    /// Writes 0 or 1 as one byte.
    package mutating func write(_ value: Bool) { write(value ? 1 as UInt8 : 0) }
    /// Writes both halves of a cell's name.
    package mutating func write(_ value: CellID) {
        write(value.high)
        write(value.low)
    }
    /// Writes the three parts of a chunk's name: 16 bytes.
    package mutating func write(_ value: ChunkID) {
        write(value.inode)
        write(value.index)
        write(value.version)
    }
    /// Writes nanoseconds since 1970.
    package mutating func write(_ value: Timestamp) { write(value.nanoseconds) }
    /// Writes bytes as they are, without a length.
    package mutating func append(_ raw: [UInt8]) { bytes.append(contentsOf: raw) }
    /// Writes bytes as they are, without a length.
    package mutating func append(_ raw: ArraySlice<UInt8>) { bytes.append(contentsOf: raw) }
    // Generic code of another module is not specialised unless it is inlinable: it would cost a
    // dynamic call for each byte.
    /// Writes bytes as they are, without a length.
    @inlinable package mutating func append(_ raw: some Collection<UInt8>) { append(Array(raw)) }
    /// Writes a length (32 bit) and bytes.
    package mutating func writeBytes(_ value: [UInt8]) { writeBytes(value[...]) }
    /// Writes a length (32 bit) and bytes.
    package mutating func writeBytes(_ value: ArraySlice<UInt8>) {
        write(UInt32(value.count))
        append(value)
    }
    /// Writes a length (32 bit) and bytes.
    @inlinable package mutating func writeBytes(_ value: some Collection<UInt8>) {
        writeBytes(Array(value))
    }
    /// Writes a length (32 bit) and the UTF-8 of a text.
    package mutating func write(_ value: String) { writeBytes(Array(value.utf8)) }
    /// Writes a count (32 bit) and each element.
    package mutating func writeList<Items: Collection>(
        _ items: Items, _ each: (inout ByteWriter, Items.Element) -> Void
    ) {
        write(UInt32(items.count))
        for item in items { each(&self, item) }
    }
    /// Writes whether there is a value, and the value.
    package mutating func writeOptional<Value>(
        _ value: Value?, _ each: (inout ByteWriter, Value) -> Void
    ) {
        write(value != nil)
        if let value { each(&self, value) }
    }
    /// Writes so many zeros.
    package mutating func appendZeros(_ count: Int) {
        bytes.append(contentsOf: repeatElement(0, count: count))
    }
    /// Writes zeros up to a multiple of `alignment`.
    package mutating func pad(to alignment: Int) {
        let rest = bytes.count % alignment
        if rest != 0 { bytes.append(contentsOf: repeatElement(0, count: alignment - rest)) }
    }
    /// Replaces four bytes that were written before, at `offset`.
    package mutating func patch(_ value: UInt32, at offset: Int) {
        withUnsafeBytes(of: value.littleEndian) { raw in
            for (index, byte) in raw.enumerated() { bytes[offset + index] = byte }
        }
    }
    /// Writes bytes as they are, without a length: what many small values were put together in
    /// first, as each write by itself takes a look at the array.
    package mutating func appendRaw(_ raw: UnsafeRawBufferPointer) {
        bytes.append(contentsOf: raw)
    }
}

/// Takes values from bytes, front to back.
package struct ByteReader {
    @usableFromInline let bytes: ArraySlice<UInt8>
    /// Index of the next byte in the array below `bytes`.
    @usableFromInline var position: Int

    /// Reads a slice from its front.
    package init(_ bytes: ArraySlice<UInt8>) {
        self.bytes = bytes
        position = bytes.startIndex
    }
    /// Reads an array from its front.
    package init(_ bytes: [UInt8]) { self.init(bytes[...]) }

    /// How many bytes are left.
    @inlinable package var remaining: Int { bytes.endIndex - position }

    /// Reads an integer, little endian.
    @inlinable package mutating func read<Value: FixedWidthInteger>(
        _ type: Value.Type = Value.self
    ) throws(DecodeError) -> Value {
        let size = MemoryLayout<Value>.size
        guard remaining >= size else { throw .truncated }
        let start = position - bytes.startIndex
        position += size
        return bytes.withUnsafeBytes {
            Value(littleEndian: $0.loadUnaligned(fromByteOffset: start, as: Value.self))
        }
    }
    /// Reads an integer, little endian.
    package mutating func read(_ type: UInt8.Type = UInt8.self) throws(DecodeError) -> UInt8 {
        try take(integer: type)
    }
    /// Reads an integer, little endian.
    package mutating func read(_ type: UInt16.Type = UInt16.self) throws(DecodeError) -> UInt16 {
        try take(integer: type)
    }
    /// Reads an integer, little endian.
    package mutating func read(_ type: UInt32.Type = UInt32.self) throws(DecodeError) -> UInt32 {
        try take(integer: type)
    }
    /// Reads an integer, little endian.
    package mutating func read(_ type: UInt64.Type = UInt64.self) throws(DecodeError) -> UInt64 {
        try take(integer: type)
    }
    /// Reads an integer, little endian.
    package mutating func read(_ type: Int64.Type = Int64.self) throws(DecodeError) -> Int64 {
        try take(integer: type)
    }
    /// Reads an integer that was written by `writeVarint`; one in more bytes than it needs is an
    /// error.
    package mutating func readVarint() throws(DecodeError) -> UInt64 {
        var value: UInt64 = 0
        var shift: UInt64 = 0
        while position < bytes.endIndex {
            let byte = bytes[position]
            position += 1
            // The tenth has one bit.
            guard shift < 63 || byte <= 1, byte != 0 || shift == 0 else {
                throw .invalid(field: "varint", value: UInt64(byte))
            }
            value |= UInt64(byte & 0x7F) << shift
            if byte < 0x80 { return value }
            shift += 7
        }
        throw .truncated
    }
    /// Reads so many integers, little endian.
    package mutating func readIntegers(_ count: Int) throws(DecodeError) -> [UInt32] {
        let size = MemoryLayout<UInt32>.size
        guard count >= 0, remaining / size >= count else { throw .truncated }
        let start = position - bytes.startIndex
        position += count * size
        return bytes.withUnsafeBytes { raw in
            [UInt32](unsafeUninitializedCapacity: count) { integers, filled in
                for index in 0..<count {
                    let value = raw.loadUnaligned(
                        fromByteOffset: start + index * size, as: UInt32.self)
                    integers.initializeElement(at: index, to: UInt32(littleEndian: value))
                }
                filled = count
            }
        }
    }
    private mutating func take<Value: FixedWidthInteger>(
        integer type: Value.Type
    ) throws(DecodeError) -> Value {
        let size = MemoryLayout<Value>.size
        guard remaining >= size else { throw .truncated }
        let start = position - bytes.startIndex
        position += size
        return bytes.withUnsafeBytes {
            Value(littleEndian: $0.loadUnaligned(fromByteOffset: start, as: Value.self))
        }
    }
    /// Reads a name.
    package mutating func read<Value: Identifier>(
        _ type: Value.Type = Value.self
    ) throws(DecodeError) -> Value where Value.RawValue == UInt64 {
        Value(rawValue: try take(integer: UInt64.self))
    }
    /// Reads a name.
    @inlinable package mutating func read<Value: Identifier>(
        _ type: Value.Type = Value.self
    ) throws(DecodeError) -> Value { Value(rawValue: try read(Value.RawValue.self)) }
    /// Reads one byte that must be 0 or 1.
    package mutating func readBool() throws(DecodeError) -> Bool {
        let value = try read(UInt8.self)
        guard value <= 1 else { throw .invalid(field: "bool", value: UInt64(value)) }
        return value == 1
    }
    /// Reads the name of a cell.
    package mutating func readCell() throws(DecodeError) -> CellID {
        CellID(high: try read(), low: try read())
    }
    /// Reads the name of a chunk.
    package mutating func readChunk() throws(DecodeError) -> ChunkID {
        ChunkID(inode: try read(), index: try read(), version: try read())
    }
    /// Reads a time.
    package mutating func readTimestamp() throws(DecodeError) -> Timestamp {
        Timestamp(nanoseconds: try read())
    }
    /// Takes so many bytes, sharing their memory.
    package mutating func take(_ count: Int) throws(DecodeError) -> ArraySlice<UInt8> {
        guard count >= 0, remaining >= count else { throw .truncated }
        defer { position += count }
        return bytes[position..<position + count]
    }
    /// Reads a length (32 bit, at most `bound`) and takes so many bytes.
    package mutating func readBytes(bound: Int) throws(DecodeError) -> ArraySlice<UInt8> {
        try take(try readCount(bound: bound))
    }
    /// Reads a text of at most `bound` bytes; bad UTF-8 is an error.
    package mutating func readString(bound: Int) throws(DecodeError) -> String {
        let raw = try readBytes(bound: bound)
        guard let text = String(validating: raw, as: UTF8.self) else {
            throw .invalid(field: "UTF-8", value: UInt64(raw.count))
        }
        return text
    }
    /// Reads a count (32 bit) of at most `bound`.
    package mutating func readCount(bound: Int) throws(DecodeError) -> Int {
        let count = Int(try read(UInt32.self))
        guard count <= bound else { throw .oversize(count: count, bound: bound) }
        return count
    }
    /// Reads a count of at most `bound` and so many elements.
    package mutating func readList<Item>(
        bound: Int, _ each: (inout ByteReader) throws(DecodeError) -> Item
    ) throws(DecodeError) -> [Item] {
        let count = try readCount(bound: bound)
        var items: [Item] = []
        items.reserveCapacity(min(count, remaining))
        for _ in 0..<count { items.append(try each(&self)) }
        return items
    }
    /// Reads whether there is a value, and the value.
    package mutating func readOptional<Value>(
        _ each: (inout ByteReader) throws(DecodeError) -> Value
    ) throws(DecodeError) -> Value? { try readBool() ? try each(&self) : nil }
    /// Refuses bytes that are left over.
    package func finish() throws(DecodeError) {
        guard remaining == 0 else { throw .trailing(count: remaining) }
    }
}
