// What the models keep: values under numbers, steps that were taken, digests of sets.

/// What stands for a value in a digest.
private func mixed(_ value: UInt64) -> UInt128 {
    func scramble(_ seed: UInt64) -> UInt64 {
        var bits = value &+ seed
        bits = (bits ^ bits >> 30) &* 0xBF58_476D_1CE4_E5B9
        bits = (bits ^ bits >> 27) &* 0x94D0_49BB_1331_11EB
        return bits ^ bits >> 31
    }
    return UInt128(scramble(0x9E37_79B9_7F4A_7C15)) << 64
        | UInt128(scramble(0xD1B5_4A32_D192_ED03))
}

/// The digest of a state: the sum of what stands for each part, which makes the order of messages
/// irrelevant.
func digest(outside: UInt32, cells: [UInt32], messages: [UInt32]) -> UInt128 {
    var sum = mixed(UInt64(outside) << 8 | 1)
    for (member, cell) in cells.enumerated() {
        sum &+= mixed(UInt64(cell) << 8 | UInt64(member) << 4 | 2)
    }
    for message in messages { sum &+= mixed(UInt64(message) << 8 | 3) }
    return sum
}

/// Which step was taken for a cell and an event; no key is zero.
struct StepTable {
    private var keys: [UInt64] = Array(repeating: 0, count: 1 << 16)
    private var values: [UInt32] = Array(repeating: 0, count: 1 << 16)
    private var count = 0

    subscript(key: UInt64) -> UInt32? {
        let place = place(of: key &+ 1, in: keys)
        return keys[place] == 0 ? nil : values[place]
    }
    mutating func insert(_ key: UInt64, _ value: UInt32) {
        if count * 3 > keys.count * 2 { grow() }
        let place = place(of: key &+ 1, in: keys)
        keys[place] = key &+ 1
        values[place] = value
        count += 1
    }
    private func place(of key: UInt64, in keys: [UInt64]) -> Int {
        var place = Int(truncatingIfNeeded: key &* 0x9E37_79B9_7F4A_7C15 >> 24) & (keys.count - 1)
        while keys[place] != 0, keys[place] != key { place = (place + 1) & (keys.count - 1) }
        return place
    }
    private mutating func grow() {
        let old = (keys, values)
        keys = Array(repeating: 0, count: old.0.count * 2)
        values = Array(repeating: 0, count: old.0.count * 2)
        for (index, key) in old.0.enumerated() where key != 0 {
            let place = place(of: key, in: keys)
            keys[place] = key
            values[place] = old.1[index]
        }
    }
}

/// Values, each under a number of its own.
struct Interner<Value: Hashable> {
    private var values: [Value] = []
    private var numbers: [Value: UInt32] = [:]

    var count: Int { values.count }
    subscript(number: UInt32) -> Value { values[Int(number)] }

    mutating func number(of value: Value) -> UInt32 {
        if let known = numbers[value] { return known }
        let number = UInt32(values.count)
        values.append(value)
        numbers[value] = number
        return number
    }
}
