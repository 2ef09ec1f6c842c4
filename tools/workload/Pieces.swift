// What the workload writes: pieces whose every page says which it is and of which generation.

import Base
import Glibc

/// The bytes of a piece: noise that depends on the generation, stamped in every page.
struct Pieces: Sendable {
    static let size = 1 << 20
    private let noises: [[UInt8]]

    init() { noises = (0..<4).map { noise(Self.size, seed: 900 + UInt64($0)) } }

    func bytes(piece: Int, generation: Int) -> [UInt8] {
        var bytes = noises[generation & 3]
        bytes.withUnsafeMutableBytes { bytes in
            for page in stride(from: 0, to: Self.size, by: Limits.page) {
                bytes.storeBytes(of: UInt64(piece), toByteOffset: page, as: UInt64.self)
                bytes.storeBytes(of: UInt64(generation), toByteOffset: page + 8, as: UInt64.self)
            }
        }
        return bytes
    }

    /// What is wrong with pages of a piece from a page of it on; nil if each is whole and of a
    /// generation from `least` to `most`.
    func fault(
        in bytes: UnsafeRawBufferPointer, piece: Int, firstPage: Int, least: Int, most: Int
    ) -> String? {
        for start in stride(from: 0, to: bytes.count, by: Limits.page) {
            let page = firstPage + start / Limits.page
            let stamp = bytes.load(fromByteOffset: start, as: UInt64.self)
            let generation = bytes.load(fromByteOffset: start + 8, as: UInt64.self)
            let place = "piece \(piece), page \(page)"
            guard stamp == UInt64(piece), generation >= UInt64(least), generation <= UInt64(most)
            else {
                return "\(place): is piece \(stamp) of generation \(generation), not of "
                    + "\(least) to \(most)"
            }
            let isSame = noises[Int(generation & 3)].withUnsafeBytes { whole in
                memcmp(
                    whole.baseAddress! + page * Limits.page + 16, bytes.baseAddress! + start + 16,
                    Limits.page - 16) == 0
            }
            guard isSame else { return "\(place): torn or foreign bytes" }
        }
        return nil
    }
}

/// Bytes that don't compress, made of a seed.
private func noise(_ count: Int, seed: UInt64) -> [UInt8] {
    var random = SeededRandom(seed: seed)
    var words = [UInt64](repeating: 0, count: count / 8)
    for index in words.indices { words[index] = random.next() }
    return words.withUnsafeBytes { Array($0) }
}
