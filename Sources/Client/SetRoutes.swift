// Where replica sets are, as the masters last said, and which disks do not answer just now.
// Invariant: an older configuration never replaces a newer one (C1).

import Base
import Wire

/// The client's table of replica sets.
final class SetRoutes: Sendable {
    /// A disk that did not answer is asked last for so long.
    private static let suspicion = Interval.seconds(5)

    private struct State {
        var sets: [SetID: SetView] = [:]
        /// The last record of each set that is known to be committed: what masters announced, and
        /// what was written here.
        var numbers: [SetID: RecordNumber] = [:]
        /// Of these, what was written here and the masters do not know.
        var unannounced: [SetID: RecordNumber] = [:]
        var suspectUntil: [DiskID: Instant] = [:]
    }
    private let metadata: MetadataClient
    private let state = Monitor(State())

    init(metadata: MetadataClient) { self.metadata = metadata }

    /// Takes what an answer of the masters said.
    func learn(_ views: [SetView]) {
        guard !views.isEmpty else { return }
        state.withLock { state in
            for view in views {
                let set = view.configuration.set
                state.numbers[set] = max(state.numbers[set] ?? .none, view.number)
                let known = state.sets[view.configuration.set]?.configuration.epoch
                if let known, known > view.configuration.epoch { continue }
                state.sets[view.configuration.set] = view
            }
        }
    }
    /// A write of this client is committed.
    func note(_ set: SetID, _ number: RecordNumber) {
        state.withLock { state in
            guard number > state.numbers[set] ?? .none else { return }
            state.numbers[set] = number
            state.unannounced[set] = number
        }
    }
    /// A backup may answer this client from here on.
    func number(of set: SetID) -> RecordNumber { state.withLock { $0.numbers[set] ?? .none } }
    /// What the next extend tells, by ascending set; see `announced`.
    func toAnnounce() -> [SetNumber] {
        state.withLock { state in
            state.unannounced.sorted { $0.key < $1.key }.prefix(Limits.setNumbers).map {
                SetNumber(set: $0.key, number: $0.value)
            }
        }
    }
    /// The masters know these numbers.
    func announced(_ numbers: [SetNumber]) {
        state.withLock { state in
            for known in numbers where state.unannounced[known.set] == known.number {
                state.unannounced[known.set] = nil
            }
        }
    }
    /// Where a set is, if that is known.
    func view(of set: SetID) -> SetView? { state.withLock { $0.sets[set] } }

    /// Asks the masters where sets are now.
    func refresh(_ sets: [SetID], _ patience: Patience) throws(FileError) {
        guard case .sets(let views) = try metadata.query(.sets(sets), patience) else { throw .io }
        learn(views)
    }

    /// Notes that a disk did not answer in time, or does again.
    func suspect(_ disk: DiskID, _ isSuspect: Bool) {
        state.withLock { state in
            let until = BootClock.now() + Self.suspicion
            state.suspectUntil[disk] = isSuspect ? until : nil
        }
    }

    /// The members to read from: the primary first, unless it is down or did not answer lately.
    func readers(of view: SetView) -> [DiskLocation] {
        let now = BootClock.now()
        let primary = view.configuration.primary
        let ranked = state.withLock { state in
            view.locations.enumerated().map { index, location in
                let isSuspect = state.suspectUntil[location.disk].map { $0 > now } ?? false
                let penalty = (location.isUp ? 0 : 4) + (isSuspect ? 2 : 0)
                return (penalty + (location.disk == primary ? 0 : 1), index, location)
            }
        }
        return ranked.sorted { ($0.0, $0.1) < ($1.0, $1.1) }.map { $0.2 }
    }
    /// Where the primary of a set is.
    static func primary(of view: SetView) -> DiskLocation? {
        view.locations.first { $0.disk == view.configuration.primary }
    }
}
