// How long it takes until every set has all its copies: bytes that are to be copied, at the rate at
// which the leader sees copies grow.

import Base
import Wire

struct Redundancy {
    /// Sets with too few copies.
    var lacking: UInt64
    var bytes: UInt64
    /// Bytes a second, all copying together; 0: nothing is being copied.
    var rate: UInt64

    init(_ status: CellStatus, _ operations: CellOperations) {
        lacking = status.sets.underReplicated
        bytes = operations.repairBytes
        rate = operations.copyRate
    }

    /// About how many seconds it takes; nil: nobody knows.
    var seconds: Int? { lacking == 0 ? 0 : Waiting.left(bytes: bytes, rate) }

    var text: String {
        guard lacking > 0 else { return "full: every set has all its copies" }
        let head = "\(lacking) sets lack copies, \(Amounts.human(bytes)) to copy"
        guard let seconds else { return head + "; nothing is being copied just now" }
        return head + ", about \(seconds) s at \(Amounts.human(rate))/s"
    }

    var json: JSON {
        .object([
            ("sets_lacking", .unsigned(lacking)), ("bytes_to_copy", .unsigned(bytes)),
            ("bytes_per_second", .unsigned(rate)),
            ("seconds", seconds.map { .integer(Int64($0)) } ?? .null),
        ])
    }
}
