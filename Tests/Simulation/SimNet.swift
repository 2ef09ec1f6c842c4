// The network between places (nodes first, then clients). A link has a direction.
//
// Two natures, by seed:
//   stream     as production over TCP: frames of one class keep their order; what is lost is lost
//              with its connection, which mostly is reported, and a blocked link may hold its
//              frames back until it is open again
//   datagram   each frame for itself: lost, doubled, overtaken by later ones
// Connections of clients are always streams.
//
// Invariants:
//  1. A frame never reaches another run of a process than the one it was sent to.
//  2. Frames of a client's connection arrive in order, or not at all.

package import Base
import Node
import Wire

/// How a network behaves, drawn once per seed.
package struct NetworkNature: Sendable {
    /// As TCP between nodes.
    package var isStream = true
    /// Least time on the way.
    package var delay = Interval.microseconds(100)
    /// Frames out of 1,000 that are lost (datagram), or break their connection (stream).
    package var loss = 0
    /// Frames out of 1,000 that come twice (datagram).
    package var doubles = 0
    /// How late the second one may come.
    package var lateness = Interval.milliseconds(200)
    /// Frames out of 1,000 that take up to `spike` longer.
    package var spikes = 5
    package var spike = Interval.milliseconds(20)

    /// A quiet network.
    package init() {}
}

/// A frame on its way.
struct Delivery {
    var from: Int
    var to: Int
    var frame: Frame
    /// Of a client's connection, else 0.
    var connection: ConnectionID
    /// Of the link when it was sent.
    var generation: UInt32
    /// Of the receiver, if it is a node.
    var run: UInt32
}

/// One direction between two places.
struct Link {
    var isBlocked = false
    /// While it is blocked: frames wait instead of getting lost.
    var holds = false
    var held: [Delivery] = []
    /// When the last frame of each class arrives.
    var lastArrival = [Instant](repeating: .zero, count: 4)
    /// Raised when a connection breaks.
    var generation: UInt32 = 0
    /// Frames of an older generation still arrive.
    var straysArrive = false

    /// Frames of one class keep their order in a stream: production has a connection for each.
    static func frameClass(_ kind: FrameKind) -> Int {
        switch kind {
        case .paxos, .report, .orders: 0
        case .replication: 1
        case .metadataRequest, .metadataReply: 2
        default: 3
        }
    }
}

/// All links and the connections of clients.
package struct SimNet {
    struct Connection {
        var client: Int
        var node: Int
        /// Of the node.
        var run: UInt32
        var isOpen: Bool
    }
    package var nature = NetworkNature()
    private let places: Int
    private var links: [Link]
    private var connections: [Connection] = []
    /// The open connection from a client's place to a node's, 0: none.
    private var open: [Int]
    var random: SeededRandom

    init(places: Int, random: SeededRandom) {
        self.places = places
        self.random = random
        links = Array(repeating: Link(), count: places * places)
        open = Array(repeating: 0, count: places * places)
    }

    /// The link from one place to another.
    subscript(from: Int, to: Int) -> Link {
        get { links[from * places + to] }
        _modify { yield &links[from * places + to] }
    }

    /// When a frame arrives that leaves now.
    mutating func arrival(of frame: Frame, from: Int, to: Int, at now: Instant, ordered: Bool)
        -> Instant
    {
        let base = nature.delay.nanoseconds
        // Mostly near the base, with a tail.
        var delay = base + Int64(random.below(Int(base) + 1)) << Int64(random.below(4)) / 4
        if nature.spikes > 0, random.chance(nature.spikes, of: 1_000) {
            delay += Int64(random.below(Int(nature.spike.nanoseconds) + 1))
        }
        var time = now + Interval(nanoseconds: delay)
        if ordered {
            let group = Link.frameClass(frame.kind)
            let index = from * places + to
            time = max(time, links[index].lastArrival[group] + Interval(nanoseconds: 1))
            links[index].lastArrival[group] = time
        }
        return time
    }

    /// The client's open connection to a node; a new one if there is none.
    mutating func connection(client: Int, node: Int, run: UInt32) -> ConnectionID {
        let index = client * places + node
        if open[index] == 0 || connections[open[index] - 1].run != run {
            connections.append(Connection(client: client, node: node, run: run, isOpen: true))
            open[index] = connections.count
        }
        return ConnectionID(rawValue: UInt64(open[index]))
    }
    /// The connection of this number, if it is open.
    func opened(_ id: ConnectionID) -> Connection? {
        guard id.rawValue > 0, id.rawValue <= UInt64(connections.count) else { return nil }
        let found = connections[Int(id.rawValue) - 1]
        return found.isOpen ? found : nil
    }
    /// Closes a connection.
    mutating func close(_ id: ConnectionID) {
        let place = Int(id.rawValue) - 1
        connections[place].isOpen = false
        let index = connections[place].client * places + connections[place].node
        if open[index] == place + 1 { open[index] = 0 }
    }
    /// The open connection between two places, if there is one.
    func openConnection(client: Int, node: Int) -> ConnectionID? {
        let number = open[client * places + node]
        return number == 0 ? nil : ConnectionID(rawValue: UInt64(number))
    }
}
