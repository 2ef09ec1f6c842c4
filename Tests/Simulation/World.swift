// The simulated world: virtual time, servers that are the production's pure cores, their disks,
// the network, clients, and faults. One thread; everything random comes from the seed.
//
// Invariants:
//  1. The same seed gives the same events, in any process: `digest` tells.
//  2. Effects of a step are carried out in their order; a crash may fall between any two.
//  3. A core that halted, or whose process died, is never stepped again.

package import Base
package import Node
import Store
package import Wire

/// What went wrong.
package struct Failure: Error, Sendable {
    /// The check that found it.
    package var check: String
    package var detail: String
    package var time: Instant
    /// Number of the event.
    package var event: Int
}

/// A client of the simulation; lives at a place of its own.
package protocol SimClient: AnyObject {
    /// A frame has come from a node.
    func received(_ frame: Frame, from place: Int)
    /// The connection to a node is gone.
    func disconnected(from place: Int)
    /// A timer that it set has come.
    func timer(_ token: Int)
}

/// Who watches a world and drives its faults.
package protocol WorldObserver: AnyObject {
    /// A node has taken a step and its effects were carried out.
    func stepped(_ node: SimNode)
    /// A node sends a frame; its disk is as it was when the step ended.
    func sends(_ node: SimNode, _ frame: Frame, to peer: Peer)
    /// A fault that was planned is due.
    func fault(_ number: Int)
    /// A core asked to be stopped.
    func halted(_ node: SimNode, _ reason: String)
}

/// Everything that happens.
package final class World {
    enum Event {
        case deliver(Delivery)
        case lost(node: Int, run: UInt32, Peer)
        case lostByClient(client: Int, node: Int)
        case disk(node: Int, run: UInt32, DiskOperation)
        case step(node: Int, run: UInt32)
        case wake(node: Int, run: UInt32, Instant)
        case timer(client: Int, Int)
        case fault(Int)
    }
    package private(set) var now = Instant.zero
    package private(set) var events = 0
    /// Of the whole stream of events so far.
    package private(set) var digest: UInt64 = 0xCBF2_9CE4_8422_2325
    package private(set) var failure: Failure?
    package var network: SimNet
    package let nodes: [SimNode]
    package let clients: Int
    private var clientBodies: [(any SimClient)?]
    package weak var observer: (any WorldObserver)?
    /// Prints each event.
    package var traces = false
    /// Only from then on.
    package var tracesFrom = Instant.zero
    var queue = EventQueue<Event>()
    var random: SeededRandom

    /// Nodes take the first places, clients the ones after them.
    package init(nodes: [SimNode], clients: Int, random: inout SeededRandom) {
        self.nodes = nodes
        self.clients = clients
        clientBodies = Array(repeating: nil, count: clients)
        network = SimNet(places: nodes.count + clients, random: random.fork())
        self.random = random.fork()
    }

    /// How the trace shows a frame.
    package var describeFrame: ((Frame) -> String)?

    func body(_ place: Int) -> (any SimClient)? { clientBodies[place - nodes.count] }

    /// Puts a client at its place; returns the place.
    package func attach(_ client: any SimClient, at number: Int) -> Int {
        clientBodies[number] = client
        return nodes.count + number
    }

    /// Lets go of the clients, who hold the world: it is over.
    package func end() { clientBodies = [] }

    /// Records the first thing that went wrong and stops the run.
    package func fail(_ check: String, _ detail: @autoclosure () -> String) {
        if failure == nil {
            failure = Failure(check: check, detail: detail(), time: now, event: events)
        }
    }

    /// Runs until a time, or until something failed.
    package func run(until end: Instant) {
        while failure == nil, let time = queue.nextTime, time <= end {
            guard let (time, event) = queue.next() else { return }
            now = time
            events += 1
            handle(event)
        }
        if failure == nil { now = max(now, end) }
    }

    private func handle(_ event: Event) {
        switch event {
        case .deliver(let delivery): arrive(delivery)
        case .lost(let index, let run, let peer):
            guard nodes[index].run == run else { return }
            note(1, index, 0) { "\(self.nodes[index].name) loses \(peer)" }
            hand(.disconnected(peer), to: nodes[index])
        case .lostByClient(let client, let node):
            note(2, client, node) { "client \(client - self.nodes.count) loses node \(node)" }
            clientBodies[client - nodes.count]?.disconnected(from: node)
        case .disk(let index, let run, let operation): finish(operation, nodes[index], run)
        case .step(let index, let run):
            let node = nodes[index]
            guard node.run == run, node.isUp, !node.isPaused else { return }
            step(node)
        case .wake(let index, let run, let planned):
            let node = nodes[index]
            guard node.run == run, node.isUp, node.plannedWake == planned else { return }
            node.plannedWake = nil
            planStep(node)
        case .timer(let client, let token):
            note(3, client, token) { "client \(client - self.nodes.count) timer \(token)" }
            clientBodies[client - nodes.count]?.timer(token)
        case .fault(let number): observer?.fault(number)
        }
    }

    /// Mixes an event into the digest and prints it if asked to.
    func note(_ kind: UInt64, _ first: Int, _ second: Int, _ text: () -> String) {
        for value in [
            kind, UInt64(truncatingIfNeeded: first), UInt64(truncatingIfNeeded: second),
            UInt64(now.nanoseconds),
        ] {
            digest = (digest ^ value) &* 0x100_0000_01B3
            digest ^= digest >> 29
        }
        if traces, now >= tracesFrom { print(line(text())) }
    }
    /// A line of the trace.
    package func say(_ text: @autoclosure () -> String) {
        if traces, now >= tracesFrom { print(line(text())) }
    }
    private func line(_ text: String) -> String {
        let micros = now.nanoseconds / 1_000
        let rest = String(1_000_000 + micros % 1_000_000).dropFirst()
        return "\(micros / 1_000_000).\(rest) #\(events) \(text)"
    }
}

// Nodes
extension World {
    /// Starts the process of a node on what its disk has.
    package func start(_ node: SimNode) {
        precondition(!node.isUp)
        node.run += 1
        node.begin()
        note(4, node.place, Int(node.run)) { "\(node.name) starts, run \(node.run)" }
        hand(.start(node.disk.start()), to: node)
    }

    /// Ends the process of a node; `power`: with everything its disk had not synced.
    package func crash(_ node: SimNode, power: Bool) {
        guard node.isUp else {
            if power { node.disk.losePower(at: now) }
            return
        }
        note(5, node.place, power ? 1 : 0) { "\(node.name) \(power ? "loses power" : "dies")" }
        node.end()
        node.run += 1
        if power { node.disk.losePower(at: now) } else { node.disk.killProcess() }
        for place in 0..<nodes.count + clients where place != node.place {
            // A process that dies closes its connections; one without power is just silent.
            breakLink(node.place, place, isTold: !power || random.chance(1, of: 2))
        }
    }

    /// Stops taking steps; what comes meanwhile waits.
    package func pause(_ node: SimNode) {
        node.isPaused = true
        note(6, node.place, 0) { "\(node.name) pauses" }
    }
    /// Goes on.
    package func resume(_ node: SimNode) {
        guard node.isPaused else { return }
        node.isPaused = false
        note(7, node.place, 0) { "\(node.name) goes on" }
        node.isStepPlanned = false
        if node.isUp { planStep(node) }
    }

    /// Plans a fault; the observer gets its number when it is due.
    package func plan(fault number: Int, at time: Instant) { queue.plan(.fault(number), at: time) }

    /// Plans a client's timer.
    package func plan(timer token: Int, client place: Int, after delay: Interval) {
        queue.plan(.timer(client: place, token), at: now + delay)
    }

    func hand(_ event: NodeEvent, to node: SimNode) {
        guard node.isUp else { return }
        node.inbox.append(event)
        planStep(node)
    }

    func planStep(_ node: SimNode) {
        guard !node.isStepPlanned, !node.isPaused else { return }
        node.isStepPlanned = true
        let delay = Interval.microseconds(Int64(5 + random.below(40)))
        queue.plan(.step(node: node.place, run: node.run), at: now + delay)
    }

    private func step(_ node: SimNode) {
        node.isStepPlanned = false
        let events = node.inbox
        node.inbox = []
        let effects = node.step(events, at: node.clock.time(at: now))
        note(8, node.place, effects.count) {
            "\(node.name) takes \(events.count) events, \(effects.count) effects"
        }
        for (index, effect) in effects.enumerated() {
            if node.crashesAfter == index {
                say("\(node.name) dies after effect \(index) of \(effects.count)")
                crash(node, power: node.crashLosesPower)
                return
            }
            carryOut(effect, of: node)
            guard node.isUp, failure == nil else { return }
        }
        if !effects.isEmpty { node.crashesAfter = nil }
        observer?.stepped(node)
        planWake(node)
    }

    private func planWake(_ node: SimNode) {
        let wish = node.clock.virtual(node.core!.wakeTime)
        // A core that always wants to be woken at once still lets time pass.
        let time = max(wish, now + .microseconds(20))
        if let planned = node.plannedWake, planned <= time, planned > now { return }
        node.plannedWake = time
        queue.plan(.wake(node: node.place, run: node.run, time), at: time)
    }

    private func carryOut(_ effect: NodeEffect, of node: SimNode) {
        switch effect {
        case .disk(let effect): issue(effect, node)
        case .send(let peer, let frame):
            observer?.sends(node, frame, to: peer)
            send(frame, from: node, to: peer)
        case .address: break
        case .halt(let reason):
            note(9, node.place, 0) { "\(node.name) halts: \(reason)" }
            observer?.halted(node, reason)
            crash(node, power: false)
        case .report(let text, let isAlarm):
            if isAlarm { node.alarms += 1 }
            say("\(node.name) \(isAlarm ? "ALARM" : "says"): \(text)")
        }
    }

    private func issue(_ effect: DiskEffect, _ node: SimNode) {
        node.disk.issue(effect)
        let done = node.timing.completion(of: effect, at: now, random: &node.random)
        note(10, node.place, Int(effect.operation.rawValue)) { "\(node.name) \(effect.summary)" }
        queue.plan(.disk(node: node.place, run: node.run, effect.operation), at: done)
    }

    private func finish(_ operation: DiskOperation, _ node: SimNode, _ run: UInt32) {
        guard node.run == run, let result = node.disk.complete(operation, at: now) else { return }
        note(11, node.place, Int(operation.rawValue)) {
            if case .failed(let failure) = result { return "\(node.name) disk: \(failure)" }
            return "\(node.name) disk: \(operation) done"
        }
        hand(.disk(operation, result), to: node)
    }
}

extension DiskEffect {
    var summary: String {
        switch self {
        case .create(let operation, let file, let size): "\(operation): create \(file) \(size)"
        case .write(let operation, let file, let offset, let pieces, let durable):
            "\(operation): write \(file) \(offset) + \(pieces.reduce(0) { $0 + $1.count })"
                + (durable ? " durable" : "")
        case .sync(let operation, let file): "\(operation): sync \(file)"
        case .read(let operation, let file, let offset, let length):
            "\(operation): read \(file) \(offset) + \(length)"
        case .remove(let operation, let file): "\(operation): remove \(file)"
        }
    }
}
