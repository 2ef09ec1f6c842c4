// The connections of this process with one master or chunk server.
//
//  lane of an outbound connection   event                        next
//  idle                             a frame; the wait is over    dialing: frames queue
//  idle                             a frame; still waiting       idle: the frame is dropped
//  dialing                          open                         open: the queue leaves
//  dialing, open                    closed                       idle: wait, doubled each time
//
// Invariants:
//  1. Frames of one kind take one lane, in order (NodeCore: `send`).
//  2. Where the peer's address is known, frames go out over connections that this process made;
//     only else over one that the peer made.
//  3. At most `Limits.unsentBytes` wait for one connection; then it is closed (S10).

import Base
import NIOCore
import Transport
import Wire

/// Which outbound connection: small messages do not wait behind stored data (DESIGN 3.2).
enum LaneName: Int, CaseIterable {
    case control = 0
    case bulk = 1

    init(_ frame: Frame) { self = frame.kind == .replication ? .bulk : .control }
}

/// One outbound connection.
private struct Lane {
    var link: Link?
    var queue: [Frame] = []
    var queuedBytes = 0
    var wait = Limits.retryFirst
    var nextDial = NIODeadline.uptimeNanoseconds(0)
}

/// See above. Used on the event loop only.
final class PeerRoute {
    let peer: Peer
    private(set) var address: PeerAddress?
    private let dial: (PeerAddress, LaneName) -> Link
    private var lanes = [Lane](repeating: Lane(), count: LaneName.allCases.count)
    private(set) var inbound: [Link] = []
    /// Connections whose handshake is over.
    private(set) var openLinks = 0

    init(peer: Peer, dial: @escaping (PeerAddress, LaneName) -> Link) {
        self.peer = peer
        self.dial = dial
    }

    /// The peer is there now.
    func move(to address: PeerAddress) {
        guard address != self.address else { return }
        self.address = address
        for index in lanes.indices {
            lanes[index].nextDial = .uptimeNanoseconds(0)
            lanes[index].wait = Limits.retryFirst
            lanes[index].link?.close(because: .closed("the peer moved"))
        }
    }

    /// Sends a frame, or drops it; gives the link that must be flushed.
    func send(_ frame: Frame) -> Link? {
        guard let address else {
            guard let link = inbound.last else { return nil }
            return Self.give(frame, to: link)
        }
        let name = LaneName(frame)
        let index = name.rawValue
        if let link = lanes[index].link {
            if link.isOpen { return Self.give(frame, to: link) }
        } else {
            guard NIODeadline.now() >= lanes[index].nextDial else { return nil }
            lanes[index].link = dial(address, name)
        }
        lanes[index].queuedBytes += frame.bodyLength
        if lanes[index].queuedBytes <= Limits.unsentBytes { lanes[index].queue.append(frame) }
        return nil
    }
    static func give(_ frame: Frame, to link: Link) -> Link? {
        guard link.unsentBytes <= Limits.unsentBytes else {
            link.close(because: .closed("the peer does not read"))
            return nil
        }
        link.send(frame)
        return link
    }

    func opened(_ link: Link, lane name: LaneName?) {
        openLinks += 1
        guard let name else { return inbound.append(link) }
        let index = name.rawValue
        guard lanes[index].link === link else { return }
        lanes[index].wait = Limits.retryFirst
        let queue = lanes[index].queue
        lanes[index].queue = []
        lanes[index].queuedBytes = 0
        for frame in queue { link.send(frame) }
        link.flush()
    }
    /// Tells whether the last connection is gone with it.
    func closed(_ link: Link, lane name: LaneName?) -> Bool {
        if let name, lanes[name.rawValue].link === link {
            var lane = lanes[name.rawValue]
            lane.link = nil
            lane.queue = []
            lane.queuedBytes = 0
            lane.nextDial = .now() + .nanoseconds(lane.wait.nanoseconds)
            lane.wait = min(lane.wait * 2, Limits.retryLast)
            lanes[name.rawValue] = lane
        }
        inbound.removeAll { $0 === link }
        guard link.peer != nil else { return false }
        openLinks -= 1
        return openLinks == 0
    }
    /// Whether this is the peer's first failure since it was reached last: for the log.
    func isFirstFailure(of name: LaneName) -> Bool {
        lanes[name.rawValue].wait == Limits.retryFirst
    }
    func closeAll() {
        for lane in lanes { lane.link?.close() }
        for link in inbound { link.close() }
    }
}
