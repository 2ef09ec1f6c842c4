// The clocks, as the pure cores get them (S1).

import Base
import Glibc

extension NodeTime {
    /// Both clocks now.
    package static var current: NodeTime {
        NodeTime(
            now: Instant(nanoseconds: read(CLOCK_BOOTTIME)),
            wall: Timestamp(nanoseconds: read(CLOCK_REALTIME)))
    }
    private static func read(_ clock: clockid_t) -> Int64 {
        var time = timespec()
        let result = clock_gettime(clock, &time)
        precondition(result == 0, "no such clock")
        return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
    }
}
