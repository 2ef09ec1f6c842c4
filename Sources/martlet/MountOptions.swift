// What follows `-o` in mount commands and fstab.

import Base

/// Mount options, checked.
struct MountOptions: Sendable {
    /// Bytes of the client's block cache.
    var cache = 64 << 20
    /// Bytes that may be written but not acknowledged.
    var buffer = 64 << 20
    var key: String?
    var log: String?
    /// Passed to libfuse and the kernel.
    var kernel: [String] = []
    /// All that were given, as they were given.
    var words: [String] = []

    private static let passed = [
        "ro", "noatime", "nodiratime", "relatime", "nosuid", "suid", "nodev", "dev", "noexec",
        "exec", "sync", "dirsync", "allow_other", "allow_root",
    ]
    /// Words of fstab that mean nothing here.
    private static let ignored = [
        "_netdev", "nofail", "defaults", "rw", "auto", "noauto", "user", "nouser", "users",
        "remount",
    ]
    private static let own = ["cache=SIZE", "buffer=SIZE", "key=FILE", "log=FILE"]

    init() {}

    init(_ text: String) throws(CommandFailure) {
        for word in text.split(separator: ",").map(String.init) {
            try add(word)
            words.append(word)
        }
    }

    private mutating func add(_ word: String) throws(CommandFailure) {
        let parts = word.split(separator: "=", maxSplits: 1).map(String.init)
        let value = parts.count > 1 ? parts[1] : ""
        switch parts[0] {
        case "cache": cache = try Self.size(word, value, least: 1 << 20)
        case "buffer": buffer = try Self.size(word, value, least: 1 << 20)
        case "key", "keyfile": key = value
        case "log": log = value
        default:
            if Self.passed.contains(word) {
                kernel.append(word)
            } else if !Self.ignored.contains(word), !word.hasPrefix("x-") {
                let names = (Self.own + Self.passed + Self.ignored).map { name in
                    String(name.prefix { $0 != "=" })
                }
                throw CommandFailure(
                    .usage,
                    "unknown mount option '\(word)'."
                        + NearestName.hint(for: parts[0], of: names)
                        + "\nOptions: \((Self.own + Self.passed).joined(separator: " "))")
            }
        }
    }

    private static func size(
        _ word: String, _ value: String, least: Int
    ) throws(CommandFailure) -> Int {
        guard let bytes = Amounts.bytes(value), bytes >= least, bytes <= 1 << 40 else {
            throw CommandFailure(.usage, "mount option '\(word)': not a size of at least 1MiB")
        }
        return bytes
    }
}
