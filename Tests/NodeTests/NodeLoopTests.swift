// The loop of a server: turns, disk, connections between nodes.

import Base
import Glibc
import Node
import Store
import Synchronization
import Testing
import Transport
import Wire

private func dialer(_ identity: PeerIdentity? = nil, instance: UInt64 = 1) -> Dialer {
    let identity = identity ?? PeerIdentity(cell: cell, role: .client, node: 1)
    return Dialer(credentials: Credentials(identity: identity, key: key, instance: instance))
}

struct NodeLoopTests {
    @Test("Requests are answered after the disk is done; the inventory comes first")
    func durableAnswers() throws {
        let node = try ToyNode(master(1))
        defer { node.stop() }
        let dialer = dialer()
        defer { dialer.shutDown() }
        let connection = try dialer.connect(to: node.address)
        let answers = Mutex(0)
        for index in 0..<500 {
            let payload = [UInt8](repeating: UInt8(index % 251), count: 1_000)
            let frame = Frame(kind: .writeRequest, head: [1], payload: payload[...])
            connection.start(frame, timeout: .seconds(10)) { result in
                if case .success(let reply) = result, reply.payload == frame.payload {
                    answers.withLock { $0 += 1 }
                }
            }
        }
        let last = Frame(kind: .writeRequest, head: [1], payload: [42])
        _ = try connection.call(last, timeout: .seconds(10))
        #expect(answers.withLock { $0 } == 500)
        guard case .start(let inventory)? = node.journal.all.first else {
            Issue.record("the inventory is not the first event")
            return
        }
        #expect(inventory.files.isEmpty)
        // Batched: far fewer turns than events.
        #expect(node.journal.stepCount < 1_000)
    }

    @Test("The core is woken at its wake time though nothing happens")
    func wake() throws {
        let node = try ToyNode(master(1))
        defer { node.stop() }
        let before = node.journal.stepCount
        usleep(300_000)
        let steps = node.journal.stepCount - before
        #expect(steps >= 5)
        #expect(steps <= 16)
    }

    @Test("Masters reach each other on demand, in order, also after one was away")
    func masters() throws {
        let second = try ToyNode(master(2))
        let there = MasterAddress(id: MasterID(rawValue: 2), address: second.address)
        let first = try ToyNode(master(1), masters: [there])
        defer { first.stop() }
        let dialer = dialer()
        defer { dialer.shutDown() }
        let connection = try dialer.connect(to: first.address)
        for index in 0..<50 as Range<UInt8> {
            let frame = Frame(kind: .metadataRequest, head: [2, 2, index])
            _ = try connection.call(frame, timeout: .seconds(10))
        }
        func paxos(_ journal: Journal) -> [UInt8] {
            journal.all.compactMap { event in
                guard case .frame(.master(let sender), let frame) = event,
                    sender.rawValue == 1, frame.kind == .paxos
                else { return nil }
                return frame.head.first
            }
        }
        #expect(second.journal.saw { _ in paxos(second.journal).count == 50 })
        #expect(paxos(second.journal) == Array(0..<50))

        let address = second.address
        second.stop()
        let gone = NodeEvent.disconnected(.master(MasterID(rawValue: 2)))
        #expect(first.journal.saw { $0 == gone })
        let again = try ToyNode(master(2), network: address.network)
        defer { again.stop() }
        for _ in 0..<200 where paxos(again.journal).isEmpty {
            let frame = Frame(kind: .metadataRequest, head: [2, 2, 77])
            _ = try connection.call(frame, timeout: .seconds(10))
            usleep(10_000)
        }
        #expect(paxos(again.journal).first == 77)
    }

    @Test("A peer without an address is answered over the connection it made")
    func inboundOnly() throws {
        let node = try ToyNode(master(1))
        defer { node.stop() }
        let other = dialer(master(3))
        defer { other.shutDown() }
        let connection = try other.connect(to: node.address)
        let client = dialer()
        defer { client.shutDown() }
        // The other "master" waits for a reply to a request that has the id of the paxos frame.
        let hello = Frame(kind: .paxos, head: [0])
        connection.start(hello, timeout: .seconds(10)) { _ in }
        #expect(
            node.journal.saw {
                if case .frame(.master(let sender), _) = $0 { sender.rawValue == 3 } else { false }
            })
        connection.close()
        #expect(node.journal.saw { $0 == .disconnected(.master(MasterID(rawValue: 3))) })
    }

    @Test("A second process with a live master's identity, or with the node's own, is refused")
    func duplicates() throws {
        let node = try ToyNode(master(1))
        defer { node.stop() }
        let first = dialer(master(2))
        defer { first.shutDown() }
        let second = dialer(master(2), instance: 2)
        defer { second.shutDown() }
        let own = dialer(master(1))
        defer { own.shutDown() }
        let live = try first.connect(to: node.address)
        // Another lane of the same process is no duplicate.
        let lane = try first.connect(to: node.address)
        for dialer in [second, own] {
            do throws(TransportError) {
                _ = try dialer.connect(to: node.address)
                Issue.record("accepted")
            } catch {
                guard case .refused(.duplicateIdentity, _) = error else {
                    Issue.record("\(error)")
                    return
                }
            }
        }
        #expect(live.isOpen && lane.isOpen)
        live.close()
        lane.close()
        #expect(node.journal.saw { $0 == .disconnected(.master(MasterID(rawValue: 2))) })
        #expect(try second.connect(to: node.address).isOpen)
    }

    @Test("A client's end is told; a core that halts is not stepped again")
    func halt() throws {
        let node = try ToyNode(master(1))
        defer { node.stop() }
        let dialer = dialer()
        defer { dialer.shutDown() }
        try dialer.connect(to: node.address).close()
        #expect(
            node.journal.saw { if case .disconnected(.client) = $0 { true } else { false } })
        let connection = try dialer.connect(to: node.address)
        let stop = Frame(kind: .metadataRequest, head: [3])
        #expect(throws: TransportError.timedOut) {
            try connection.call(stop, timeout: .milliseconds(300))
        }
        #expect(node.halted.withLock { $0 } == "as told")
        let steps = node.journal.stepCount
        usleep(100_000)
        #expect(node.journal.stepCount == steps)
    }

    @Test("A folder or an address that is taken stops the start, with nothing left behind")
    func taken() throws {
        let node = try ToyNode(master(1))
        defer { node.stop() }
        #expect(throws: NodeError.self) { try ToyNode(master(1), folder: node.folder) }
        do throws(NodeError) {
            _ = try ToyNode(master(2), network: node.address.network, folder: node.folder + "x")
            Issue.record("started")
        } catch {
            #expect(error.description.contains(node.address.network))
        }
        // The folder of the failed start is free again.
        let third = try ToyNode(master(2), folder: node.folder + "x")
        third.stop()
    }

    @Test("A client that asks for too much at once is paused, not refused, and goes on")
    func heldBack() throws {
        let node = try ToyNode(master(1))
        defer { node.stop() }
        let dialer = dialer()
        defer { dialer.shutDown() }
        let connection = try dialer.connect(to: node.address)
        let silent = Frame(kind: .metadataRequest, head: [4])
        for _ in 0..<Limits.requestsPerConnection {
            connection.start(silent, timeout: .milliseconds(500)) { _ in }
        }
        // Another client is served meanwhile.
        let other = try dialer.connect(to: node.address)
        let write = Frame(kind: .writeRequest, head: [1], payload: [1])
        _ = try other.call(write, timeout: .seconds(5))
    }
}
