// How fast copies are made beside clients (C19).

import Base
import ChunkServer
import Testing

@Suite struct CopyThrottleTests {
    /// Copies as much as it may for so long, beside requests that take `latency` at a rate.
    private func run(
        _ throttle: inout CopyThrottle, _ now: inout Instant, seconds: Int, copies: Bool = true,
        latency: ((UInt64) -> Interval)?
    ) -> UInt64 {
        var copied: UInt64 = 0
        for _ in 0..<seconds * 100 {
            now = now + .milliseconds(10)
            throttle.turn(now)
            if copies, throttle.budget > 0 {
                copied += UInt64(throttle.budget)
                throttle.spend(throttle.budget)
            }
            if let latency { throttle.note(latency(throttle.rate)) }
        }
        return copied / UInt64(seconds)
    }

    @Test("Copies are as fast as the disk lets them while nobody asks for anything")
    func idle() {
        var (throttle, now) = (CopyThrottle(), Instant.zero)
        _ = run(&throttle, &now, seconds: 10, latency: nil)
        #expect(throttle.rate == Limits.copyRateMost)
        let copied = run(&throttle, &now, seconds: 1, latency: nil)
        #expect(copied > Limits.copyRateMost / 2 && copied <= Limits.copyRateMost)
    }

    @Test("Copies slow down until requests take no more than twice what they do without them")
    func foreground() throws {
        var (throttle, now) = (CopyThrottle(), Instant.zero)
        let quiet = Interval.milliseconds(3)
        _ = run(&throttle, &now, seconds: 5, copies: false) { _ in quiet }
        let usual = try #require(throttle.usual)
        #expect(usual >= quiet && usual < quiet + .milliseconds(1))
        // Each 16 MiB a second of copying costs a request 3 ms more: 16 MiB/s are the bound.
        let latency = { (rate: UInt64) in quiet * Int64(16 + (rate >> 20)) / 16 }
        _ = run(&throttle, &now, seconds: 20, latency: latency)
        let rate = run(&throttle, &now, seconds: 20, latency: latency)
        #expect(rate > 5 << 20 && rate < 20 << 20, "\(rate)")
        // The clients go: it is at full speed again.
        _ = run(&throttle, &now, seconds: 10, latency: nil)
        #expect(throttle.rate == Limits.copyRateMost)
    }

    @Test("However slow the requests are, copies go on at the least rate")
    func least() {
        var (throttle, now) = (CopyThrottle(), Instant.zero)
        _ = run(&throttle, &now, seconds: 3, copies: false) { _ in .milliseconds(1) }
        // A disk on which every copy hurts.
        let latency = { (_: UInt64) in Interval.seconds(1) }
        _ = run(&throttle, &now, seconds: 5, latency: latency)
        let rate = run(&throttle, &now, seconds: 10, latency: latency)
        #expect(rate >= Limits.copyRateLeast * 9 / 10, "\(rate)")
    }

    @Test("A disk without clients copies as slowly as those of its learner need")
    func strainedLearner() {
        var (source, learner, now) = (CopyThrottle(), CopyThrottle(), Instant.zero)
        /// Each MiB a second makes what the learner's disk stores for clients 0.1 ms slower.
        func run(seconds: Int, copies: Bool) -> UInt64 {
            var (copied, place): (UInt64, LogNumber) = (0, LogNumber(rawValue: 0))
            for _ in 0..<seconds * 100 {
                now = now + .milliseconds(10)
                source.turn(now)
                learner.turn(now)
                if copies, source.budget > 0 {
                    copied += UInt64(source.budget)
                    learner.receive(source.budget)
                    source.spend(source.budget)
                }
                let more = copies ? Int64(source.rate >> 20) * 100 : 0
                place = LogNumber(rawValue: place.rawValue + 1)
                learner.appended(at: place, now)
                learner.durable(through: place, now + .microseconds(2_000 + more))
                if learner.isStrained { source.noteStrain() }
            }
            return copied / UInt64(seconds)
        }
        _ = run(seconds: 5, copies: false)
        #expect(!learner.isStrained)
        _ = run(seconds: 20, copies: true)
        // 20 MiB/s are the bound, 25 with what times are rounded up by; and a quarter more until
        // it is seen.
        let rate = run(seconds: 20, copies: true)
        #expect(rate > 10 << 20 && rate < 31 << 20, "\(rate)")
        // The learner is full: its clients may be as slow as they like.
        for _ in 0..<100 {
            now = now + .milliseconds(10)
            learner.turn(now)
            learner.note(.milliseconds(50))
        }
        #expect(!learner.isStrained)
    }

    @Test("However long learners are strained, copies go on at the least rate; unused it stays")
    func floor() {
        var (throttle, now) = (CopyThrottle(), Instant.zero)
        for _ in 0..<3_000 {
            now = now + .milliseconds(10)
            throttle.turn(now)
            throttle.spend(max(0, throttle.budget))
            throttle.noteStrain()
        }
        #expect(throttle.rate == Limits.copyRateLeast)
        for _ in 0..<3_000 {
            now = now + .milliseconds(10)
            throttle.turn(now)
            throttle.receive(1 << 20)
            throttle.spend(1)
        }
        #expect(throttle.rate == Limits.copyRateLeast)
    }

    @Test("Where all clients got slower for good, copies go on as fast as before")
    func slowerForGood() {
        var (first, second, learner, now) = (
            CopyThrottle(), CopyThrottle(), CopyThrottle(), Instant.zero
        )
        var lowest = UInt64.max
        func run(seconds: Int, copies: Bool, latency: Interval) {
            for _ in 0..<seconds * 100 {
                now = now + .milliseconds(10)
                first.turn(now)
                second.turn(now)
                learner.turn(now)
                if copies {
                    learner.receive(max(0, first.budget) + max(0, second.budget))
                    first.spend(max(0, first.budget))
                    second.spend(max(0, second.budget))
                }
                learner.note(latency)
                lowest = min(lowest, first.rate)
                if learner.isStrained {
                    first.noteStrain()
                    second.noteStrain()
                }
            }
        }
        run(seconds: 5, copies: false, latency: .milliseconds(3))
        run(seconds: 60, copies: true, latency: .milliseconds(20))
        #expect(lowest < 4 * Limits.copyRateLeast, "\(lowest)")
        #expect(first.rate > 32 << 20 && second.rate > 32 << 20, "\(first.rate)")
    }
}
