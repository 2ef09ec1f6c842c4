// Checksums: CRC32C (ISA-L) finds damage, SHA-256 and HMAC (libcrypto) prove identity.

internal import CCrypto
internal import CISAL

/// The CRC32C of bytes.
package struct Checksum: Hashable, Sendable {
    /// The finished CRC.
    package let value: UInt32
    /// A checksum that was read from somewhere.
    package init(value: UInt32) { self.value = value }
    /// Sums bytes.
    package init(of bytes: ArraySlice<UInt8>) {
        self = bytes.withUnsafeBytes { Checksum(of: $0) }
    }
    /// Sums bytes.
    package init(of bytes: [UInt8]) { self = bytes.withUnsafeBytes { Checksum(of: $0) } }
    /// Sums raw memory, after bytes whose checksum is `previous`.
    package init(of bytes: UnsafeRawBufferPointer, after previous: Checksum? = nil) {
        guard let base = bytes.baseAddress, !bytes.isEmpty else {
            value = previous?.value ?? 0
            return
        }
        let seed = previous.map { ~$0.value } ?? 0xFFFF_FFFF
        // crc32_iscsi only reads, though it is declared to take mutable memory.
        let pointer = UnsafeMutableRawPointer(mutating: base).assumingMemoryBound(to: UInt8.self)
        value = ~crc32_iscsi(pointer, Int32(bytes.count), seed)
    }
}

/// A SHA-256 digest, or an HMAC made with it: 32 bytes.
package struct Digest: Hashable, Sendable {
    /// The 32 bytes.
    package let bytes: [UInt8]

    /// A digest that was read from somewhere; nil unless it has 32 bytes.
    package init?(bytes: some Collection<UInt8>) {
        guard bytes.count == 32 else { return nil }
        self.bytes = Array(bytes)
    }
    /// The SHA-256 of bytes.
    package init(sha256 message: [UInt8]) {
        bytes = [UInt8](unsafeUninitializedCapacity: 32) { buffer, count in
            _ = SHA256(message, message.count, buffer.baseAddress)
            count = 32
        }
    }
    /// The HMAC-SHA-256 of bytes under a key.
    package init(hmacOf message: [UInt8], key: [UInt8]) {
        bytes = [UInt8](unsafeUninitializedCapacity: 32) { buffer, count in
            var length: UInt32 = 0
            _ = HMAC(
                EVP_sha256(), key, Int32(key.count), message, message.count, buffer.baseAddress,
                &length)
            precondition(length == 32, "HMAC failed")
            count = 32
        }
    }
    /// Compares in constant time, so that a forger learns nothing from the delay.
    package static func == (left: Digest, right: Digest) -> Bool {
        zip(left.bytes, right.bytes).reduce(0) { $0 | ($1.0 ^ $1.1) } == 0
    }
}
