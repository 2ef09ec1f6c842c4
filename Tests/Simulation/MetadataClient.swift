// A client of the masters: opens a session, makes changes and asks questions about a small tree
// that all clients share, and repeats what is not answered under its number (S7).

import Base
import Node
import Wire

/// What a client asked, and what it heard.
struct MetadataOperation {
    var client: Int
    var session: SessionID
    /// 0 for questions.
    var number: RequestNumber
    var body: MetadataRequest.Body
    /// When it was sent first and answered, in the order of all such things in the run.
    var invoked: Int
    var answered: Int?
    var reply: MetadataReply?
    /// The last slot that was chosen anywhere when the answer came.
    var chosen = Slot.none
}

/// Everything that the clients did, in order.
final class MetadataHistory {
    var operations: [MetadataOperation] = []
    private var clock = 0
    /// Directories and files that somebody learned of.
    var directories: [InodeID] = [.root]
    var files: [InodeID] = []

    func invoke(
        client: Int, session: SessionID, number: RequestNumber, _ body: MetadataRequest.Body
    ) -> Int {
        clock += 1
        operations.append(
            MetadataOperation(
                client: client, session: session, number: number, body: body, invoked: clock))
        return operations.count - 1
    }
    func answer(_ index: Int, _ reply: MetadataReply, chosen: Slot) {
        clock += 1
        operations[index].answered = clock
        operations[index].reply = reply
        operations[index].chosen = chosen
        switch reply {
        case .entry(let attributes), .created(let attributes, _): learn(attributes)
        default: break
        }
    }
    private func learn(_ attributes: Attributes) {
        if attributes.kind == .directory {
            if !directories.contains(attributes.inode), directories.count < 12 {
                directories.append(attributes.inode)
            }
        } else if !files.contains(attributes.inode), files.count < 60 {
            files.append(attributes.inode)
        }
    }
}

/// The client; see the head of the file.
final class MetadataClient: SimClient {
    private struct Outstanding {
        var history: Int
        var request: UInt64
        var message: MetadataRequest
        var attempt = 0
    }
    let number: Int
    let world: World
    let masters: Int
    let history: MetadataHistory
    private var place = 0
    private var random: SeededRandom
    private(set) var session = SessionID.none
    private var nextNumber: UInt64 = 1
    private var requests: UInt64 = 0
    private var outstanding: [Outstanding] = []
    private var target: Int
    private let window: Int
    private let pace: Int
    /// Operations that it may still begin.
    private var budget: Int
    /// How often a session was lost.
    private(set) var sessionsLost = 0
    var isStopping = false
    /// The last slot chosen anywhere, by the scenario's word.
    var chosen: () -> Slot = { .none }

    init(
        number: Int, world: World, masters: Int, history: MetadataHistory,
        random: inout SeededRandom
    ) {
        self.number = number
        self.world = world
        self.masters = masters
        self.history = history
        self.random = random.fork()
        target = self.random.below(masters)
        window = 1 + self.random.below(4)
        pace = [1_500, 5_000, 20_000][self.random.below(3)]
        budget = 50 + self.random.below(250)
        place = world.attach(self, at: number)
    }

    var isIdle: Bool { outstanding.isEmpty }
    var firstOutstanding: String {
        outstanding.first.map { "\($0.message.body) (attempt \($0.attempt))" } ?? "nothing"
    }

    /// The first timer starts it. Token 0: think; others: the request that may be late.
    func start() { world.plan(timer: 0, client: place, after: .milliseconds(5)) }

    func timer(_ token: Int) {
        guard token > 0 else { return think() }
        guard let index = outstanding.firstIndex(where: { $0.request == UInt64(token >> 8) }),
            outstanding[index].attempt & 0xFF == token & 0xFF
        else { return }
        target = (target + 1) % masters
        send(index)
    }

    private func think() {
        if !isStopping || !outstanding.isEmpty {
            world.plan(
                timer: 0, client: place,
                after: .microseconds(Int64(100 + random.below(2 * pace))))
        }
        guard !isStopping, outstanding.count < window, budget > 0 else { return }
        budget -= 1
        if session == .none {
            guard outstanding.isEmpty else { return }
            let change = MetadataChange.openSession(nonce: random.next(), label: "c\(number)")
            issue(.change(change), number: RequestNumber(rawValue: 0))
        } else if random.chance(1, of: 3) {
            issue(.query(question()), number: RequestNumber(rawValue: 0))
        } else {
            let number = RequestNumber(rawValue: nextNumber)
            nextNumber += 1
            issue(.change(change()), number: number)
        }
    }

    private func issue(_ body: MetadataRequest.Body, number: RequestNumber) {
        let history = history.invoke(
            client: self.number, session: session, number: number, body)
        requests += 1
        let message: MetadataRequest
        switch body {
        case .query(let query): message = MetadataRequest(session: session, query: query)
        case .change(let change):
            message = MetadataRequest(
                session: session, number: number, firstIncomplete: number, change: change)
        }
        outstanding.append(Outstanding(history: history, request: requests, message: message))
        send(outstanding.count - 1)
    }

    private func send(_ index: Int) {
        outstanding[index].attempt += 1
        // The oldest change without an answer: what is older may be forgotten (M12).
        let changes = outstanding.map(\.message).filter { $0.number.rawValue > 0 }
        if let first = changes.map(\.number).min() {
            outstanding[index].message.firstIncomplete = first
        }
        let item = outstanding[index]
        // Some questions go astray: who led before must not answer them any more (M10).
        let isAstray = item.message.number.rawValue == 0 && random.chance(1, of: 4)
        world.send(
            item.message.frame(request: item.request), fromClient: place,
            to: isAstray ? random.below(masters) : target)
        let wait = 200 + random.below(600)
        world.plan(
            timer: Int(item.request) << 8 | item.attempt & 0xFF, client: place,
            after: .milliseconds(Int64(wait)))
    }

    private func sendLater(_ index: Int) {
        outstanding[index].attempt += 1
        let item = outstanding[index]
        world.plan(
            timer: Int(item.request) << 8 | item.attempt & 0xFF, client: place,
            after: .milliseconds(Int64(5 + random.below(60))))
    }

    func disconnected(from place: Int) {
        for index in outstanding.indices where target == place { sendLater(index) }
    }

    func received(_ frame: Frame, from place: Int) {
        guard let index = outstanding.firstIndex(where: { $0.request == frame.request }) else {
            return
        }
        let reply: MetadataReply
        do {
            reply = try MetadataReply(frame)
        } catch {
            return world.fail("reply coding", "\(error)")
        }
        switch reply {
        case .notLeader(let hint, _):
            if let hint, Int(hint.rawValue) <= masters {
                target = Int(hint.rawValue) - 1
            } else {
                target = (place + 1) % masters
            }
            // The timer goes on to the next master before it sends.
            target = (target + masters - 1) % masters
            return sendLater(index)
        case .retry:
            target = (place + masters - 1) % masters
            return sendLater(index)
        default: break
        }
        target = place
        let item = outstanding.remove(at: index)
        history.answer(item.history, reply, chosen: chosen())
        world.say("client \(number): \(item.message.body) -> \(reply)")
        switch reply {
        case .session(let id, _): session = id
        case .sessionDead:
            // What is still on its way has an unknown outcome.
            outstanding.removeAll { $0.message.number.rawValue > 0 }
            session = .none
            sessionsLost += 1
        default: break
        }
    }

    // MARK: Workload

    private func directory() -> InodeID {
        history.directories[random.below(history.directories.count)]
    }
    private func name() -> [UInt8] { Array("n\(random.below(6))".utf8) }
    private func inode() -> InodeID {
        guard !history.files.isEmpty, random.chance(3, of: 4) else { return directory() }
        return history.files[random.below(history.files.count)]
    }

    private func question() -> MetadataQuery {
        switch random.below(7) {
        case 0, 1: return .lookup(parent: directory(), name: name())
        case 2: return .attributes(inode())
        case 3:
            return .readDirectory(
                directory(), after: UInt64(random.below(3)), limit: 100,
                withAttributes: random.chance(1, of: 2))
        case 4: return .extendedAttribute(inode(), name: Array("user.a".utf8))
        case 5: return .open(inode())
        default: return .close(inode())
        }
    }

    private func change() -> MetadataChange {
        switch random.below(16) {
        case 0...4:
            let kind = [FileKind.file, .file, .directory, .symlink][random.below(4)]
            return .create(
                parent: directory(), name: name(), kind: kind, mode: 0o644, user: 1, group: 1,
                device: 0, target: kind == .symlink ? Array("t".utf8) : [],
                open: random.chance(1, of: 4))
        case 5, 6: return .unlink(parent: directory(), name: name())
        case 7: return .removeDirectory(parent: directory(), name: name())
        case 8, 9, 10:
            let flags = [RenameFlags(), .noReplace, .exchange][random.below(3)]
            return .rename(
                parent: directory(), name: name(), newParent: directory(), newName: name(),
                flags: flags)
        case 11: return .link(inode(), parent: directory(), name: name())
        case 12:
            var changes = AttributeChanges()
            changes.mode = UInt16(random.below(0o1000))
            return .setAttributes(inode(), changes)
        case 13: return .truncate(inode(), size: UInt64(random.below(1 << 20)))
        case 14:
            return .extend(
                (0...random.below(4)).map { _ in
                    FileEnd(
                        inode: inode(), end: UInt64(random.below(1 << 20)),
                        truncation: UInt32(random.below(3)), modified: .zero)
                })
        default:
            return random.chance(1, of: 5)
                ? .renewSession
                : .setExtendedAttribute(
                    inode(), name: Array("user.a".utf8), value: [UInt8(random.below(256))],
                    flags: [])
        }
    }
}
