// What clients have asked for and not been answered yet, so that reading from them can pause
// (DESIGN 3.2, Back-pressure).
//
// Invariant: a request that is never answered is forgotten after two to three generations, so
// that a core which drops requests cannot close the server to clients.

import Base
import Wire

/// Requests without an answer, by connection.
struct ClientBudget {
    private struct Account {
        var recent: [UInt64: Int] = [:]
        var older: [UInt64: Int] = [:]
        var count: Int { recent.count + older.count }
    }
    /// After so long a generation ends.
    private static let generation = Interval.seconds(30)
    private var accounts: [ConnectionID: Account] = [:]
    private var generationEnd = Instant.zero
    /// Bytes of all requests without an answer.
    private(set) var bytes = 0

    /// A request came.
    mutating func add(_ frame: Frame, from connection: ConnectionID) {
        guard frame.request != 0 else { return }
        let size = frame.bodyLength
        let replaced = accounts[connection, default: Account()]
            .recent.updateValue(size, forKey: frame.request)
        bytes += size - (replaced ?? 0)
    }
    /// A reply goes out; the first of several counts.
    mutating func answer(_ request: UInt64, of connection: ConnectionID) {
        guard accounts[connection] != nil else { return }
        bytes -= accounts[connection]?.recent.removeValue(forKey: request) ?? 0
        bytes -= accounts[connection]?.older.removeValue(forKey: request) ?? 0
    }
    /// The connection is gone.
    mutating func remove(_ connection: ConnectionID) {
        guard let account = accounts.removeValue(forKey: connection) else { return }
        bytes -= Self.sum(account.recent) + Self.sum(account.older)
    }
    /// Forgets what is too old.
    mutating func age(at now: Instant) {
        guard now >= generationEnd else { return }
        generationEnd = now + Self.generation
        for connection in Array(accounts.keys) {
            guard var account = accounts[connection] else { continue }
            bytes -= Self.sum(account.older)
            account.older = account.recent
            account.recent = [:]
            accounts[connection] = account
        }
    }
    /// Whether all clients must wait.
    var isOver: Bool { bytes > Limits.clientBudget }
    /// Whether one client has asked for too much at once.
    func isOver(_ connection: ConnectionID) -> Bool {
        accounts[connection].map { $0.count >= Limits.requestsPerConnection } ?? false
    }

    private static func sum(_ sizes: [UInt64: Int]) -> Int { sizes.values.reduce(0, +) }
}
