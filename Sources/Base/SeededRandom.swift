// The only source of randomness in pure code: seeded, passed in, replayed bit for bit (T1).

/// xoshiro256** (Blackman, Vigna 2018), seeded by splitmix64.
package struct SeededRandom: RandomNumberGenerator, Hashable, Sendable {
    private var state: (UInt64, UInt64, UInt64, UInt64)

    /// Makes the generator of a seed; the same seed gives the same sequence everywhere.
    package init(seed: UInt64) {
        var mixer = seed
        func split() -> UInt64 {
            mixer &+= 0x9E37_79B9_7F4A_7C15
            var mixed = mixer
            mixed = (mixed ^ mixed >> 30) &* 0xBF58_476D_1CE4_E5B9
            mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
            return mixed ^ mixed >> 31
        }
        state = (split(), split(), split(), split())
    }

    /// 64 random bits.
    package mutating func next() -> UInt64 {
        func rotate(_ value: UInt64, _ count: UInt64) -> UInt64 {
            value << count | value >> (64 - count)
        }
        let result = rotate(state.1 &* 5, 7) &* 9
        let shifted = state.1 << 17
        state.2 ^= state.0
        state.3 ^= state.1
        state.1 ^= state.2
        state.0 ^= state.3
        state.2 ^= shifted
        state.3 = rotate(state.3, 45)
        return result
    }

    /// A number from 0 below `bound`, which must be positive.
    package mutating func below(_ bound: Int) -> Int {
        Int.random(in: 0..<bound, using: &self)
    }

    /// True in `numerator` of `denominator` cases.
    package mutating func chance(_ numerator: Int, of denominator: Int) -> Bool {
        below(denominator) < numerator
    }

    /// A generator of its own for one purpose, so that one more draw here moves nothing there.
    package mutating func fork() -> SeededRandom { SeededRandom(seed: next()) }

    /// Equal when the same sequence follows.
    package static func == (left: SeededRandom, right: SeededRandom) -> Bool {
        left.state == right.state
    }
    /// Hashes the whole state.
    package func hash(into hasher: inout Hasher) {
        hasher.combine(state.0)
        hasher.combine(state.1)
        hasher.combine(state.2)
        hasher.combine(state.3)
    }
}
