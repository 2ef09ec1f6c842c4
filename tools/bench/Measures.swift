// What the parts of `bench` measure with.

import Glibc

/// Seconds of a clock of this process, its thread or the machine.
func seconds(_ clock: clockid_t) -> Double {
    var time = timespec()
    clock_gettime(clock, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}

/// What the process takes.
struct Memory {
    var resident = 0
    var peak = 0

    init() {
        guard let file = fopen("/proc/self/status", "r") else { fatalError("no /proc") }
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 256)
        while fgets(&line, 256, file) != nil {
            let words = String(
                decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self
            )
            .split { " \t\n".contains($0) }
            guard words.count >= 2, let kilobytes = Int(words[1]) else { continue }
            if words[0] == "VmRSS:" { resident = kilobytes << 10 }
            if words[0] == "VmHWM:" { peak = kilobytes << 10 }
        }
    }
}
