// A client that writes one file at a steady rate, as far as it is answered: a block every 30 ms,
// with so many writes under way. It counts what was acknowledged in each tenth of a second.

import Base
import Node
import Wire

/// See the head of this file.
final class StreamClient: SimClient {
    private enum Work {
        case metadata(MetadataRequest)
        case write(block: UInt16, RequestNumber)
    }
    private static let window = 8
    private static let pace = Interval.milliseconds(30)
    private let world: World
    private let master: Int
    private var place = 0
    private var session = SessionID.none
    private var chunk: ChunkID?
    private var nextSequence: UInt64 = 1
    private var lastRequest: UInt64 = 0
    private var open: [(request: UInt64, work: Work)] = []
    private var isAsking = false
    private var bytes = [UInt8](repeating: 0, count: Limits.block)
    /// Where the file's set is, as far as it knows.
    private(set) var view: SetView?
    /// Writes that were acknowledged, by tenths of a second.
    private(set) var done: [Int] = []

    init(number: Int, world: World, master: Int, random: inout SeededRandom) {
        self.world = world
        self.master = master
        for index in bytes.indices { bytes[index] = UInt8(truncatingIfNeeded: random.next()) }
        place = world.attach(self, at: number)
    }

    /// Opens a session, makes a file and writes.
    func start() {
        ask(.openSession(nonce: 1, label: "stream"), number: 0)
        world.plan(timer: 0, client: place, after: Self.pace)
    }

    /// Writes acknowledged in a second, on average over these seconds.
    func rate(_ seconds: ClosedRange<Int>) -> Int {
        let tenths = seconds.lowerBound * 10..<seconds.upperBound * 10
        let sum = tenths.reduce(0) { $0 + ($1 < done.count ? done[$1] : 0) }
        return sum * 10 / tenths.count
    }

    // MARK: asking

    private func begin(_ work: Work) {
        lastRequest += 1
        open.append((lastRequest, work))
        send(open.count - 1)
    }
    private func ask(_ change: MetadataChange, number: UInt64) {
        let number = RequestNumber(rawValue: number)
        begin(
            .metadata(
                MetadataRequest(
                    session: session, number: number, firstIncomplete: number, change: change)))
    }

    private func send(_ index: Int) {
        let (request, work) = open[index]
        world.plan(timer: Int(request), client: place, after: .seconds(20))
        switch work {
        case .metadata(let body):
            world.send(body.frame(request: request), fromClient: place, to: master)
        case .write(let block, let sequence):
            guard let view, let chunk,
                let home = view.locations.first(where: { $0.disk == view.configuration.primary }),
                let node = world.place(of: .server(home.server))
            else { return }
            let oldest = open.compactMap { item -> RequestNumber? in
                if case .write(_, let sequence) = item.work { sequence } else { nil }
            }
            let pages = bytes.count / Limits.page
            let extent = Extent(
                chunk: chunk, block: block, start: 0, length: UInt32(bytes.count), codec: .raw,
                stored: Checksum(of: bytes), pages: Array(repeating: 0, count: pages),
                fileEnd: 0, modified: .zero, payload: bytes[...])
            let context = ChunkContext(
                set: view.configuration.set, epoch: view.configuration.epoch, session: session,
                truncation: 0, cuts: [])
            let body = WriteRequest(
                context: context, sequence: sequence, firstUnacked: oldest.min() ?? sequence,
                extents: [extent])
            world.send(body.frame(request: request), fromClient: place, to: node)
        }
    }

    private func refresh() {
        guard !isAsking, let view else { return }
        isAsking = true
        begin(.metadata(MetadataRequest(session: session, query: .sets([view.configuration.set]))))
    }

    private func writeNext() {
        world.plan(timer: 0, client: place, after: Self.pace)
        guard chunk != nil, view != nil, open.count < Self.window else { return }
        let sequence = RequestNumber(rawValue: nextSequence)
        nextSequence += 1
        begin(.write(block: UInt16(nextSequence % 64), sequence))
    }

    func timer(_ token: Int) {
        if token == 0 { return writeNext() }
        guard let index = open.firstIndex(where: { $0.request == UInt64(token) }) else { return }
        refresh()
        send(index)
    }
    func disconnected(from place: Int) { refresh() }

    // MARK: answers

    func received(_ frame: Frame, from place: Int) {
        guard let index = open.firstIndex(where: { $0.request == frame.request }) else { return }
        switch open[index].work {
        case .metadata: take(try? MetadataReply(frame), index)
        case .write: take(try? WriteReply(frame), index)
        }
    }

    private func take(_ reply: MetadataReply?, _ index: Int) {
        let (request, _) = open[index]
        switch reply {
        case .session(let id, _):
            open.remove(at: index)
            session = id
            ask(
                .create(
                    parent: .root, name: Array("stream".utf8), kind: .file, mode: 0o644, user: 0,
                    group: 0, device: 0, target: [], open: false), number: 1)
        case .created(_, let layout):
            open.remove(at: index)
            chunk = layout.chunks.first?.chunk
            view = layout.sets.first
        case .sets(let views):
            open.remove(at: index)
            isAsking = false
            if let next = views.first { view = next }
            for index in open.indices { send(index) }
        case .retry, .notLeader:
            world.plan(timer: Int(request), client: place, after: .milliseconds(50))
        default: world.fail("metadata", "\(String(describing: reply))")
        }
    }

    private func take(_ reply: WriteReply?, _ index: Int) {
        let (request, _) = open[index]
        switch reply?.status {
        case .done:
            open.remove(at: index)
            let tenth = Int(world.now.nanoseconds / 100_000_000)
            while done.count <= tenth { done.append(0) }
            done[tenth] += 1
        case .notPrimary, .staleEpoch, .unknownSet: refresh()
        case .notServing, .busy:
            world.plan(timer: Int(request), client: place, after: .milliseconds(50))
        default: world.fail("write status", "\(String(describing: reply?.status))")
        }
    }
}
