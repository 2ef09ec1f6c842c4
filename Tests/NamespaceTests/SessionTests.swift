// Sessions: exactly once (M12), terms (S3, M14), orphans (K13).

import Base
import Namespace
import Testing

private func number(_ value: UInt64) -> RequestNumber { RequestNumber(rawValue: value) }

private func create(_ name: String) -> Change {
    .create(Creation(parent: .root, name: [UInt8](name: name), kind: .file, mode: 0o600))
}

@Test("A repeated change is answered from memory and not executed again (M12)")
func exactlyOnce() {
    var cell = Cell()
    let request = Command.Action.client(
        cell.session, number: number(1), firstIncomplete: number(1), create("a"))
    let first = cell.run(request)
    // The cell's own first change has number 1 too.
    #expect(cell.unlink("a") == first)
    #expect(cell.find("a") != nil)
    #expect(cell.run(request) == first)
    let failing = Command.Action.client(
        cell.session, number: number(5), firstIncomplete: number(1), create("a"))
    #expect(cell.run(failing) == .failed(.exists))
    cell.expect(
        .done,
        .client(
            cell.session, number: number(3), firstIncomplete: number(1),
            .unlink(parent: .root, name: [UInt8](name: "a"), holders: [])))
    #expect(cell.run(failing) == .failed(.exists), "a failure is remembered too")
    #expect(cell.run(request) == first)
    cell.expect(
        .forgotten,
        .client(cell.session, number: number(2), firstIncomplete: number(3), create("b")))
    cell.expect(
        .forgotten,
        .client(cell.session, number: number(1), firstIncomplete: number(1), create("a")))
    #expect(cell.names().isEmpty)
    #expect(cell.run(failing) == .failed(.exists))
    cell.expectEqualTwins()
}

@Test("A session has at most 512 open numbers; a retry uses none up")
func window() {
    var cell = Cell()
    let last = number(UInt64(Limits.repliesPerSession))
    let beyond = Command.Action.client(
        cell.session, number: last.next, firstIncomplete: number(1), create("b"))
    cell.expect(.retry, beyond)
    for value in 1...last.rawValue {
        _ = cell.run(
            .client(
                cell.session, number: number(value), firstIncomplete: number(1),
                create("f\(value)")))
    }
    cell.expect(.retry, beyond)
    #expect(cell.names().count == Limits.repliesPerSession)
    guard
        case .created = cell.run(
            .client(
                cell.session, number: last.next, firstIncomplete: number(2), create("b")))
    else {
        Issue.record("the window did not move")
        return
    }
    cell.expectEqualTwins()
}

@Test("A retry leaves its number free: the same request is executed later")
func retries() {
    var cell = Cell()
    let file = cell.create("file")
    let request = Command.Action.client(
        cell.session, number: number(2), firstIncomplete: number(2),
        .allocate(file, first: 0, sets: [SetID(rawValue: 4)]))
    cell.expect(.retry, request)
    _ = cell.run(.createSet(members: [DiskID(rawValue: 1)], primary: DiskID(rawValue: 1)))
    guard case .layout(let layout) = cell.run(request) else {
        Issue.record("the retry was remembered")
        return
    }
    #expect(layout.chunks.count == 1)
}

@Test("The same nonce is the same session; an unknown session executes nothing")
func identity() {
    var cell = Cell()
    let second = cell.open(nonce: 2)
    #expect(second != cell.session)
    #expect(cell.open(nonce: 2) == second)
    cell.expect(
        .sessionDead,
        .client(
            SessionID(rawValue: 99), number: number(1), firstIncomplete: number(1), create("a"))
    )
    cell.expect(
        .done,
        .client(second, number: number(1), firstIncomplete: number(1), .closeSession))
    cell.expect(
        .sessionDead,
        .client(second, number: number(1), firstIncomplete: number(1), .closeSession))
    #expect(cell.names().isEmpty)
    #expect(cell.open(nonce: 2) > second, "a session id is not reissued")
    #expect(cell.namespace.sessionViews.count == 2)
}

@Test("Sessions expire in ticks only, a renewal or a new leader gives them a full term (S3, M14)")
func terms() {
    var cell = Cell()
    let term = Limits.sessionTerm
    let second = cell.open(nonce: 2)
    let start = cell.now
    func isAlive(_ session: SessionID) -> Bool { cell.namespace.hasSession(session) }
    _ = cell.run(.tick, at: start + term + Interval(nanoseconds: -1))
    #expect(!isAlive(cell.session), "opened one command before")
    #expect(isAlive(second))
    let renewal = cell.run(
        .client(second, number: number(1), firstIncomplete: number(1), .renewSession))
    #expect(renewal == .orphans([], time: cell.namespace.time))
    let late = start + term * 2
    cell.expect(
        .sessionDead,
        .client(cell.session, number: number(50), firstIncomplete: number(50), create("a")))
    _ = cell.run(.begin(round: 3, leader: MasterID(rawValue: 2)), at: late)
    #expect(isAlive(second), "nobody is expired for having had no leader")
    #expect(cell.namespace.leader.round == 3)
    _ = cell.run(.tick, at: late + term + Interval(nanoseconds: -1))
    #expect(isAlive(second))
    _ = cell.run(.tick, at: late + term)
    #expect(!isAlive(second))
    #expect(cell.namespace.counts.sessions == 0)
    cell.expectEqualTwins()
}

@Test("Sessions are bounded")
func sessionBound() {
    var cell = Cell()
    for nonce in 2...UInt64(Limits.sessions) { _ = cell.open(nonce: nonce) }
    cell.expect(.failed(.busy), .openSession(nonce: 0, label: ""))
    #expect(cell.open(nonce: 2) != .none)
}

@Test(
    "An unlinked file stays for the sessions that hold it, until the last lets go (K13)",
    arguments: ["release", "close", "expire"])
func orphans(way: String) {
    var cell = Cell()
    let second = cell.open(nonce: 2)
    let unknown = SessionID(rawValue: 77)
    let file = cell.create("file", set: cell.sets[0])
    #expect(cell.unlink("file", holders: [second, unknown, cell.session, second]) == .done)
    #expect(cell.attributes(file)?.links == 0)
    #expect(cell.namespace.orphans(of: second) == [file])
    #expect(cell.namespace.counts.files == 1)
    cell.extend(file, to: 10)
    // Someone who does not hold it releases nothing; a second release of one does not count.
    let third = cell.open(nonce: 3)
    for session in [third, second, second] {
        _ = cell.run(
            .client(
                session, number: number(1), firstIncomplete: number(1),
                .releaseOrphans([file, .root])))
    }
    #expect(cell.attributes(file) != nil)
    let renewal = cell.change(.renewSession)
    #expect(renewal == .orphans([file], time: cell.namespace.time))
    switch way {
    case "release": #expect(cell.change(.releaseOrphans([file])) == .done)
    case "close": #expect(cell.change(.closeSession) == .done)
    default: _ = cell.run(.tick, at: cell.now + Limits.sessionTerm)
    }
    #expect(cell.attributes(file) == nil)
    #expect(cell.namespace.counts.files == 0 && cell.namespace.counts.fileBytes == 0)
    _ = cell.run(.tick)
    #expect(cell.namespace.pendingDrops(limit: 9) { _ in true }.count == 1)
    cell.expectEqualTwins()
}

@Test("Holders that are gone when the command is applied do not hold (M13)")
func deadHolders() {
    var cell = Cell()
    let file = cell.create("file")
    #expect(cell.unlink("file", holders: [SessionID(rawValue: 77)]) == .done)
    #expect(cell.attributes(file) == nil)
}
