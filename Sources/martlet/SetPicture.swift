// One set in words and in JSON: its members, whether their copies are current, what it waits for.
// What `info` and `explain` show.

import Base
import Placement
import Wire

extension CellPicture {
    /// How a member's copy is.
    enum CopyState: Equatable {
        case current
        /// It has not got its last records yet.
        case behind(UInt64)
        case older(Epoch)
        case damaged, absent, down

        var text: String {
            switch self {
            case .current: "current"
            case .behind(let records): "\(records) records behind"
            case .older(let epoch): "of the older epoch \(epoch)"
            case .damaged: "has damaged records"
            case .absent: "not there yet"
            case .down: "its server is down"
            }
        }
    }

    func state(of disk: DiskID, in set: SetStatus) -> CopyState {
        guard server(of: disk)?.isUp ?? false else { return .down }
        guard let copy = set.copies.first(where: { $0.disk == disk }) else { return .absent }
        if copy.epoch < set.configuration.epoch { return .older(copy.epoch) }
        if copy.hasRot { return .damaged }
        let primary = set.copies.first { $0.disk == set.configuration.primary }
        let last = primary?.prepared.rawValue ?? 0
        return copy.prepared.rawValue < last ? .behind(last - copy.prepared.rawValue) : .current
    }

    /// What is done about a set, and what that waits for; nil: nothing is.
    func task(of set: SetStatus) -> String? {
        guard let task = set.task else { return nil }
        let from = task.from.map { name(of: $0) } ?? "a disk"
        let what =
            switch task.kind {
            case .repair: "another copy is made"
            case .drain: "the copy on \(from) leaves: its server is drained"
            case .move: "the copy on \(from) moves: a plan says so"
            }
        let to = task.to.map { ", on \(name(of: $0)), \(task.percent) % copied" } ?? ""
        return what + to + (task.waits.isEmpty ? "" : "; waits for \(inNames(task.waits))")
    }

    /// What the leader says of disks, with the names of their servers.
    func inNames(_ text: String) -> String {
        status.servers.flatMap(\.disks).reduce(text) { text, disk in
            text.replacing("disk \(disk.disk)", with: name(of: disk.disk))
        }
    }

    /// A task that needs somebody, or something to change: not its turn, not a moment's patience.
    static func isBlocked(_ set: SetStatus) -> Bool {
        guard let waits = set.task?.waits, !waits.isEmpty else { return false }
        return !waits.hasPrefix("its turn") && !waits.contains("s more for the disk")
            && !waits.contains("does not serve yet")
    }

    /// Changes with all that is copied anywhere.
    var copied: UInt64 {
        sets.reduce(0) { $0 + ($1.task.map { 1 + UInt64($0.percent) } ?? 0) }
    }

    /// Seconds until a set's task is done, were it alone; nil: it has none, or nobody knows.
    func seconds(of set: SetStatus) -> Int? {
        guard let task = set.task else { return nil }
        let left = set.stored - set.stored / 100 * UInt64(min(100, task.percent))
        return Waiting.left(bytes: left, operations.copyRate)
    }

    /// Whether it can be read and written, in a few words.
    func service(of set: SetStatus) -> String {
        if !set.held.isEmpty { return "held, as a dump says: \(inNames(set.held))" }
        if set.isFrozen { return "frozen: a disk knows a later epoch than the masters" }
        if set.isServing { return "serves" + (set.isFull ? ", takes no new chunks (full)" : "") }
        let living = set.configuration.members.count { server(of: $0)?.isUp ?? false }
        let needed = max(1, Int(set.configuration.minMembers))
        return living < needed
            ? "closed to writing: \(living) members are up, \(needed) are needed"
            : "waits for its primary, \(name(of: set.configuration.primary)), or a new epoch"
    }

    /// A row for each member, the primary first.
    func memberRows(_ set: SetStatus) -> [[String]] {
        ordered(set).map { disk in
            let server = server(of: disk)
            let isPrimary = disk == set.configuration.primary
            let rack = server?.rack ?? ""
            return [
                name(of: disk), isPrimary ? "primary" : "backup", "\(disk)",
                server?.address.network ?? "-", rack.isEmpty ? "-" : rack,
                state(of: disk, in: set).text,
            ]
        }
    }
    static let memberHead = ["CHUNK SERVER", "ROLE", "DISK", "ADDRESS", "RACK", "COPY"]

    private func ordered(_ set: SetStatus) -> [DiskID] {
        [set.configuration.primary] + set.configuration.backups
    }

    /// A set with its members, for programs.
    func json(_ set: SetStatus) -> [(String, JSON)] {
        let members = ordered(set).map { disk in
            let server = server(of: disk)
            let copy = set.copies.first { $0.disk == disk }
            let state = state(of: disk, in: set)
            return JSON.object([
                ("id", .string("\(disk)")), ("chunkserver", .string(name(of: disk))),
                ("address", .string(server?.address.network ?? "")),
                ("host", .string(server?.address.machine ?? "")),
                ("rack", .string(server?.rack ?? "")),
                ("primary", .bool(disk == set.configuration.primary)),
                ("up", .bool(server?.isUp ?? false)), ("current", .bool(state == .current)),
                ("state", .string(state.text)),
                ("epoch", copy.map { .unsigned($0.epoch.rawValue) } ?? .null),
                ("record", copy.map { .unsigned($0.prepared.rawValue) } ?? .null),
                ("stored", copy.map { .unsigned($0.stored) } ?? .null),
            ])
        }
        return [
            ("id", .unsigned(set.id.rawValue)),
            ("epoch", .unsigned(set.configuration.epoch.rawValue)),
            ("goal", .integer(Int64(status.goal))), ("serving", .bool(set.isServing)),
            ("state", .string(service(of: set))), ("full", .bool(set.isFull)),
            ("chunks", .unsigned(UInt64(set.chunks))), ("stored", .unsigned(set.stored)),
            ("members", .array(members)), ("task", taskJSON(set)),
        ]
    }
    private func taskJSON(_ set: SetStatus) -> JSON {
        guard let task = set.task else { return .null }
        return .object([
            ("kind", .string("\(task.kind)")),
            ("from", task.from.map { .string(name(of: $0)) } ?? .null),
            ("to", task.to.map { .string(name(of: $0)) } ?? .null),
            ("percent", .integer(Int64(task.percent))),
            ("waits_for", task.waits.isEmpty ? .null : .string(inNames(task.waits))),
            ("seconds", seconds(of: set).map { .integer(Int64($0)) } ?? .null),
        ])
    }
}
