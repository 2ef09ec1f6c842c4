// A namespace under test with one disk set, driven as a leader would: every command goes through
// its coding, and to a second instance that must stay equal.

import Base
import Namespace
import Testing

extension [UInt8] {
    init(name: String) { self = Array(name.utf8) }
}

extension Namespace: CustomTestStringConvertible {
    package var testDescription: String { "namespace at \(applied): \(counts)" }
}

struct Cell: CustomTestStringConvertible {
    var testDescription: String { namespace.testDescription }

    private(set) var namespace = Namespace()
    private var twin = Namespace()
    private(set) var slot = Slot.none
    var now = Timestamp(nanoseconds: 1_000)
    var session = SessionID.none
    private(set) var number = RequestNumber(rawValue: 0)
    /// Sets 1 to 3, on disks 1 to 3 of one server each.
    let sets = (1...3).map { SetID(rawValue: $0) }

    init() {
        for index in 1...3 as ClosedRange<UInt64> {
            expect(.done, registration(index, incarnation: 1))
        }
        let disks = (1...3).map { DiskID(rawValue: $0) }
        for _ in sets { _ = run(.createSet(members: disks, primary: disks[0])) }
        session = open(nonce: 1)
    }

    func registration(_ index: UInt64, incarnation: UInt64) -> Command.Action {
        let server = ServerID(rawValue: index)
        return .registerServer(
            ServerRecord(
                id: server, name: "chunkserver-\(index)", rack: "",
                address: PeerAddress(network: "", socket: "s\(index)", machine: "m")),
            disks: [
                DiskRecord(
                    id: DiskID(rawValue: index), server: server,
                    incarnation: Incarnation(rawValue: incarnation), capacity: 1 << 40)
            ])
    }

    mutating func run(_ action: Command.Action, at time: Timestamp? = nil) -> Outcome {
        now = now + Interval(nanoseconds: 1)
        let command = Command(time: time ?? now, action: action)
        var writer = ByteWriter()
        command.encode(into: &writer)
        slot = slot.next
        guard let decoded = try? Command(decoding: writer.bytes[...]), decoded == command else {
            Issue.record("does not survive its coding: \(command)")
            return .retry
        }
        let outcome = namespace.apply(command, slot: slot)
        #expect(twin.apply(decoded, slot: slot) == outcome)
        return outcome
    }

    mutating func expect(
        _ outcome: Outcome, _ action: Command.Action,
        location: SourceLocation = #_sourceLocation
    ) {
        let found = run(action)
        #expect(found == outcome, sourceLocation: location)
    }

    mutating func open(nonce: UInt64) -> SessionID {
        guard case .session(let id, _) = run(.openSession(nonce: nonce, label: "test")) else {
            Issue.record("no session")
            return .none
        }
        return id
    }

    /// A new change of the cell's session.
    mutating func change(_ change: Change) -> Outcome {
        number = number.next
        return run(
            .client(session, number: number, firstIncomplete: number, change))
    }

    mutating func fails(
        _ error: FileError, _ change: Change, location: SourceLocation = #_sourceLocation
    ) {
        let before = namespace.counts
        let found = self.change(change)
        #expect(found == .failed(error), sourceLocation: location)
        #expect(namespace.counts == before, sourceLocation: location)
    }
    mutating func succeeds(_ change: Change, location: SourceLocation = #_sourceLocation) {
        let found = self.change(change)
        if case .failed(let error) = found {
            Issue.record("failed: \(error)", sourceLocation: location)
        }
    }

    /// Creates and returns the inode.
    @discardableResult mutating func create(
        _ name: String, in parent: InodeID = .root, _ kind: FileKind = .file,
        mode: UInt16 = 0o644, set: SetID? = nil, location: SourceLocation = #_sourceLocation
    ) -> InodeID {
        let target = kind == .symlink ? [UInt8](name: "target") : []
        let creation = Creation(
            parent: parent, name: [UInt8](name: name), kind: kind, mode: mode, user: 10,
            group: 20, device: 7, target: target, set: set)
        guard case .created(let attributes, _) = change(.create(creation)) else {
            Issue.record("not created", sourceLocation: location)
            return .root
        }
        return attributes.inode
    }

    mutating func unlink(
        _ name: String, in parent: InodeID = .root, holders: [SessionID] = []
    ) -> Outcome {
        change(.unlink(parent: parent, name: [UInt8](name: name), holders: holders))
    }

    mutating func rename(
        _ name: String, _ newName: String, from parent: InodeID = .root,
        to newParent: InodeID = .root, flags: RenameFlags = [], holders: [SessionID] = []
    ) -> Outcome {
        change(
            .rename(
                parent: parent, name: [UInt8](name: name), newParent: newParent,
                newName: [UInt8](name: newName), flags: flags, holders: holders))
    }

    mutating func extend(_ inode: InodeID, to end: UInt64, truncation: UInt32 = 0) {
        let file = FileEnd(inode: inode, end: end, truncation: truncation, modified: .zero)
        guard case .extended(let outcomes) = change(.extend([file])), case .done? = outcomes.first
        else {
            Issue.record("not extended: \(file)")
            return
        }
    }

    mutating func allocate(_ inode: InodeID, _ first: UInt32, _ sets: [SetID]) -> Layout? {
        guard case .layout(let layout) = change(.allocate(inode, first: first, sets: sets))
        else { return nil }
        return layout
    }

    func attributes(_ inode: InodeID) -> Attributes? { try? namespace.attributes(of: inode) }
    func find(_ name: String, in parent: InodeID = .root) -> InodeID? {
        try? namespace.lookup(parent, [UInt8](name: name)).inode
    }
    func names(_ inode: InodeID = .root) -> [String] {
        let page = try? namespace.readDirectory(
            inode, after: 0, limit: 1_024, withAttributes: false)
        return (page?.entries ?? []).map { String(decoding: $0.name, as: UTF8.self) }
    }

    /// Goes on with this state; the twin keeps its own.
    mutating func replace(with state: Namespace) { namespace = state }

    func expectEqualTwins(location: SourceLocation = #_sourceLocation) {
        #expect(namespace.digest() == twin.digest(), sourceLocation: location)
    }
}
