// Reads what a disk would give back after the worst loss of power: the proof that a promise was
// durable before it was told (S2, T5).

import Base
package import Store

/// The content of a log, as a start on a copy of the disk finds it.
package struct LogContent {
    /// In log order.
    package var records: [LogRecord] = []
    /// Numbers that are lost to damage.
    package var damaged: [LogDamage] = []
    /// Why the log refuses to start.
    package var failure: LogFailure?

    /// Starts a log on a copy of the disk, without anything that is not durable.
    package init(of disk: SimDisk, _ configuration: LogConfiguration) {
        var disk = disk.onlyDurable
        var log = SegmentLog(configuration)
        var outputs = log.start(disk.start())
        while !outputs.isEmpty {
            var next: [LogOutput] = []
            for output in outputs {
                switch output {
                case .disk(let effect):
                    disk.issue(effect)
                    guard let result = disk.complete(effect.operation, at: .zero) else { continue }
                    next += log.completed(effect.operation, result, now: .zero)
                case .replayed(let record): records.append(record)
                case .damaged(let damage): damaged.append(damage)
                case .failed(let failure): self.failure = failure
                case .ready: return
                case .identified, .placed, .durable, .renamed: break
                }
            }
            outputs = next
        }
    }
}
