// How frames travel in the world.

import Base
import Node
package import Wire

extension World {
    func place(of peer: Peer) -> Int? { nodes.firstIndex { $0.peer == peer } }

    func send(_ frame: Frame, from node: SimNode, to peer: Peer) {
        let checked = throughCoding(frame)
        if case .client(let id) = peer {
            guard let connection = network.opened(id), connection.run == node.run else { return }
            post(
                Delivery(
                    from: node.place, to: connection.client, frame: checked, connection: id,
                    generation: network[node.place, connection.client].generation, run: 0))
            return
        }
        guard let to = place(of: peer), to != node.place else { return }
        post(
            Delivery(
                from: node.place, to: to, frame: checked, connection: ConnectionID(rawValue: 0),
                generation: network[node.place, to].generation, run: nodes[to].run))
    }

    /// A client sends to a node. Nobody hears it if the node is down.
    package func send(_ frame: Frame, fromClient place: Int, to node: Int) {
        guard nodes[node].isUp else {
            queue.plan(
                .lostByClient(client: place, node: node), at: now + .microseconds(300))
            return
        }
        let id = network.connection(client: place, node: node, run: nodes[node].run)
        post(
            Delivery(
                from: place, to: node, frame: throughCoding(frame), connection: id,
                generation: network[place, node].generation, run: nodes[node].run))
    }

    /// Some frames are coded to bytes and back.
    private func throughCoding(_ frame: Frame) -> Frame {
        guard network.random.chance(1, of: 8) else { return frame }
        do {
            return try FrameHeader(frame.header[...]).frame(
                head: frame.head, payload: frame.payload)
        } catch {
            fail("frame coding", "\(frame.kind): \(error)")
            return frame
        }
    }

    private func post(_ delivery: Delivery) {
        let (from, to) = (delivery.from, delivery.to)
        let isClient = delivery.connection.rawValue > 0
        let ordered = isClient || network.nature.isStream
        if network[from, to].isBlocked {
            if network[from, to].holds {
                network[from, to].held.append(delivery)
            } else if ordered {
                breakLink(from, to, isTold: network.random.chance(3, of: 4))
            }
            return
        }
        if network.nature.loss > 0, network.random.chance(network.nature.loss, of: 1_000) {
            // A broken connection costs more than a lost datagram: break fewer of them.
            if ordered, network.random.chance(1, of: 10) {
                say("connection \(from) - \(to) breaks")
                breakLink(from, to, isTold: network.random.chance(3, of: 4))
            }
            if !ordered { return }
        }
        let time = network.arrival(
            of: delivery.frame, from: from, to: to, at: now, ordered: ordered)
        queue.plan(.deliver(delivery), at: time)
        if !ordered, network.random.chance(network.nature.doubles, of: 1_000) {
            let bound = Int(network.nature.lateness.nanoseconds)
            let late = Interval(nanoseconds: Int64(network.random.below(bound)))
            queue.plan(.deliver(delivery), at: time + late)
        }
    }

    /// Breaks what connects two places: frames on their way get lost, mostly.
    package func breakLink(_ one: Int, _ other: Int, isTold: Bool) {
        let straysArrive = network.random.chance(1, of: 3)
        for (from, to) in [(one, other), (other, one)] {
            network[from, to].generation += 1
            network[from, to].straysArrive = straysArrive
            network[from, to].held = []
        }
        for (place, peer) in [(one, other), (other, one)] where place < nodes.count {
            guard peer < nodes.count else {
                if let id = network.openConnection(client: peer, node: place) {
                    network.close(id)
                    tell(place, .client(id), after: 1_000)
                    // A client always notices in the end; its own time-out is its other way.
                    if isTold {
                        let delay = Interval.microseconds(
                            Int64(100 + network.random.below(20_000)))
                        queue.plan(.lostByClient(client: peer, node: place), at: now + delay)
                    }
                }
                continue
            }
            if isTold { tell(place, nodes[peer].peer, after: 200) }
        }
    }

    private func tell(_ place: Int, _ peer: Peer, after least: Int) {
        guard nodes[place].isUp else { return }
        let delay = Interval.microseconds(Int64(least + network.random.below(20_000)))
        queue.plan(.lost(node: place, run: nodes[place].run, peer), at: now + delay)
    }

    func arrive(_ delivery: Delivery) {
        let link = network[delivery.from, delivery.to]
        let isClient = delivery.connection.rawValue > 0
        if isClient, network.opened(delivery.connection) == nil { return }
        if delivery.generation != link.generation, !link.straysArrive || isClient { return }
        let frame = delivery.frame
        let sum = Int(Checksum(of: frame.payload).value) &+ Int(Checksum(of: frame.head).value)
        note(12, delivery.from << 8 | delivery.to, sum) {
            "\(self.name(delivery.from)) -> \(self.name(delivery.to)): \(self.describe(frame))"
        }
        if delivery.to >= nodes.count {
            body(delivery.to)?.received(frame, from: delivery.from)
            return
        }
        let node = nodes[delivery.to]
        guard node.isUp, node.run == delivery.run else { return }
        let peer = isClient ? .client(delivery.connection) : nodes[delivery.from].peer
        hand(.frame(from: peer, frame), to: node)
    }

    private func name(_ place: Int) -> String {
        place < nodes.count ? nodes[place].name : "client-\(place - nodes.count)"
    }
    private func describe(_ frame: Frame) -> String {
        "\(describeFrame?(frame) ?? "\(frame.kind)") (\(frame.head.count)+\(frame.payloadLength))"
            + (frame.request == 0 ? "" : " #\(frame.request)")
    }

    /// Blocks or opens one direction. `holds`: frames wait for the opening (streams only).
    package func block(_ from: Int, _ to: Int, _ isBlocked: Bool, holds: Bool = false) {
        guard network[from, to].isBlocked != isBlocked else { return }
        network[from, to].isBlocked = isBlocked
        network[from, to].holds = holds
        note(isBlocked ? 13 : 14, from, to) { "\(from) -x- \(to) \(isBlocked)" }
        guard !isBlocked else { return }
        let held = network[from, to].held
        network[from, to].held = []
        for delivery in held {
            let time = network.arrival(
                of: delivery.frame, from: from, to: to, at: now, ordered: true)
            queue.plan(.deliver(delivery), at: time)
        }
    }

    /// Opens every link.
    package func healNetwork() {
        for from in 0..<nodes.count + clients {
            for to in 0..<nodes.count + clients where from != to { block(from, to, false) }
        }
    }
}
