// The way from the hash of a name to its cookie, in buckets by linear hashing (Litwin 1980): a
// directory grows by one bucket at a time, so that no name waits for the others. As in
// `OrderedTable`, a copy shares every bucket until one side changes it.
//
// Invariants:
//  1. A key is in the bucket that `place` names. `half` is the highest power of two that is not
//     above the number of buckets; those below `buckets.count - half` were split since then.
//  2. There are no more than `perBucket` keys for each bucket, on average. A directory keeps its
//     buckets until it has no name.

/// A name's hash and its cookie.
struct NameKey: Sendable {
    var hash: UInt64
    var cookie: UInt64

    /// FNV-1a, 64 bit, folded so that each bit counts below: the same on every machine (T2).
    static func hash(_ name: [UInt8]) -> UInt64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in name { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        return hash ^ hash >> 32
    }
}

struct NameIndex: Sendable {
    private static let perBucket = 8
    private var buckets: [[NameKey]] = [[]]
    private var half = 1
    private var count = 0

    private func place(_ hash: UInt64) -> Int {
        let place = Int(hash & UInt64(2 * half - 1))
        return place < buckets.count ? place : place - half
    }

    /// The keys among which all with a hash are.
    func candidates(_ hash: UInt64) -> [NameKey] { buckets[place(hash)] }

    mutating func insert(_ key: NameKey) {
        buckets[place(key.hash)].append(key)
        count += 1
        if count > buckets.count * Self.perBucket { split() }
    }

    private mutating func split() {
        let all = buckets[buckets.count - half]
        buckets[buckets.count - half] = all.filter { $0.hash & UInt64(half) == 0 }
        buckets.append(all.filter { $0.hash & UInt64(half) != 0 })
        if buckets.count == 2 * half { half *= 2 }
    }

    /// Takes out a key that is there.
    mutating func remove(_ key: NameKey) {
        let place = place(key.hash)
        guard let index = buckets[place].firstIndex(where: { $0.cookie == key.cookie }) else {
            preconditionFailure("a name is removed once")
        }
        count -= 1
        buckets[place].remove(at: index)
        if buckets[place].isEmpty { buckets[place] = [] }
        if count == 0 { self = NameIndex() }
    }
}
