// Faults by seed. Each seed draws its own subset of the kinds and how often they come (swarm);
// chaos is followed by calm, in which everything must come right.

package import Base
import Node
import Wire

/// A kind of fault.
package enum FaultKind: Int, CaseIterable, Sendable {
    /// A process dies, anywhere between two effects of a step.
    case kill
    /// A node loses power, anywhere between two effects.
    case powerCut
    /// Everything loses power.
    case blackout
    /// A process stops for a while.
    case pause
    /// A place is cut off.
    case isolate
    /// A node is cut off from the other nodes; clients still reach it.
    case secede
    /// The places fall apart in two halves.
    case halves
    /// One direction of one link is cut.
    case oneWay
    /// One link is cut again and again.
    case flapping
    /// A disk becomes slow.
    case slowDisk
    /// A change of a disk fails.
    case brokenDisk
    /// Bytes at rest are damaged.
    case rot
    /// Others fill the file system of a chunk server's disk for a while.
    case crowdedDisk

    /// Those that every scenario can take.
    package static var usual: [FaultKind] { allCases.filter { $0 != .crowdedDisk } }
}

/// Which faults a seed has.
package struct Swarm: Sendable {
    package var kinds: [FaultKind] = []
    /// Mean time between two faults.
    package var gap = Interval.milliseconds(300)
    package var nature = NetworkNature()
    /// Nodes whose bytes at rest may be damaged: a part of the copies of each thing, so that
    /// every acknowledged byte has a good copy.
    package var rotting: [Int] = []
    package var rotBudget = 0
    /// The files of checkpoints or snapshots rot too.
    package var rotsCheckpoints = false

    /// Draws a subset of the allowed kinds.
    package init(random: inout SeededRandom, allowed: [FaultKind]) {
        kinds = allowed.filter { _ in random.chance(2, of: 5) }
        gap = .milliseconds([60, 150, 400, 1_000][random.below(4)])
        nature.isStream = random.chance(3, of: 5)
        nature.delay = .microseconds([30, 100, 300, 2_000][random.below(4)])
        if random.chance(1, of: 2) { nature.loss = [2, 10, 50, 200][random.below(4)] }
        if random.chance(1, of: 2) { nature.doubles = [10, 100, 400][random.below(3)] }
        if random.chance(1, of: 2) { nature.spikes = [5, 50, 200][random.below(3)] }
        nature.spike = .milliseconds([5, 50, 400, 2_000][random.below(4)])
        nature.lateness = .milliseconds([20, 200, 3_000][random.below(3)])
    }
}

/// Causes a seed's faults in a world, and undoes them.
package final class Chaos {
    private enum Action {
        case next
        case cause(FaultKind)
        case start(Int)
        case resume(Int)
        case heal
        case healLink(Int, Int)
        case breakLink(Int, Int, left: Int)
        case endSlowness(Int)
        case endCrowd(Int)
    }
    private let world: World
    private var random: SeededRandom
    package let swarm: Swarm
    private var actions: [Action] = []
    private var end = Instant.zero
    private var rotLeft: Int
    /// What was caused, for the report of a failure.
    package private(set) var caused: [FaultKind] = []

    /// Faults for a world whose observer passes its planned faults on to `perform`.
    package init(world: World, swarm: Swarm, random: inout SeededRandom) {
        self.world = world
        self.swarm = swarm
        self.random = random.fork()
        rotLeft = swarm.rotBudget
    }

    /// Lets faults come until a time.
    package func begin(until end: Instant) {
        self.end = end
        world.network.nature = swarm.nature
        if !swarm.kinds.isEmpty { plan(.next, after: gap()) }
    }

    /// Undoes every fault and starts what is down; nothing fails from now on.
    package func calm() {
        end = .zero
        actions = actions.map { action in
            if case .start = action { return action }
            return .heal
        }
        world.network.nature = NetworkNature()
        world.network.nature.isStream = swarm.nature.isStream
        world.healNetwork()
        for node in world.nodes {
            node.timing.slowness = 1
            node.disk.failsNextChange = false
            endCrowd(node)
            node.crashesAfter = nil
            world.resume(node)
            if !node.isUp { world.start(node) }
        }
    }

    /// Carries out a planned fault.
    package func perform(_ number: Int) {
        switch actions[number] {
        case .next:
            guard world.now < end else { return }
            cause(swarm.kinds[random.below(swarm.kinds.count)])
            plan(.next, after: gap())
        case .cause(let kind): cause(kind)
        case .start(let index):
            let node = world.nodes[index]
            if !node.isUp { world.start(node) }
        case .resume(let index): world.resume(world.nodes[index])
        case .heal: world.healNetwork()
        case .healLink(let from, let to): world.block(from, to, false)
        case .breakLink(let from, let to, let left):
            world.block(from, to, true)
            plan(.healLink(from, to), after: .milliseconds(Int64(20 + random.below(200))))
            if left > 0 {
                plan(
                    .breakLink(from, to, left: left - 1),
                    after: .milliseconds(Int64(250 + random.below(300))))
            }
        case .endSlowness(let index): world.nodes[index].timing.slowness = 1
        case .endCrowd(let index): endCrowd(world.nodes[index])
        }
    }

    /// Starts a node again after a while, as a supervisor would.
    package func restart(_ node: SimNode) {
        let shapes = [20, 300, 1_500]
        let delay = 1 + random.below(shapes[random.below(3)])
        plan(.start(node.place), after: .milliseconds(Int64(delay)))
    }

    private func gap() -> Interval {
        let mean = Int(swarm.gap.nanoseconds)
        return Interval(nanoseconds: Int64(mean / 4 + random.below(2 * mean)))
    }
    private func plan(_ action: Action, after delay: Interval) {
        actions.append(action)
        world.plan(fault: actions.count - 1, at: world.now + delay)
    }
    private func duration() -> Interval {
        .milliseconds(Int64(10 + random.below([100, 900, 3_000][random.below(3)])))
    }
    private var places: Int { world.nodes.count + world.clients }

    private func cause(_ kind: FaultKind) {
        caused.append(kind)
        let node = world.nodes[random.below(world.nodes.count)]
        world.say("fault: \(kind) at \(node.name)")
        switch kind {
        case .kill, .powerCut: crash(node, power: kind == .powerCut)
        case .blackout:
            for node in world.nodes {
                world.crash(node, power: true)
                restart(node)
            }
        case .pause:
            guard node.isUp, !node.isPaused else { return }
            world.pause(node)
            plan(.resume(node.place), after: duration())
        case .isolate:
            let place = random.below(places)
            cut { from, to in from == place || to == place }
        case .secede:
            let count = world.nodes.count
            cut { from, to in
                (from == node.place && to < count) || (to == node.place && from < count)
            }
        case .halves:
            let side = (0..<places).map { _ in random.chance(1, of: 2) }
            cut { from, to in side[from] != side[to] }
        case .oneWay:
            let (from, to) = (random.below(places), random.below(world.nodes.count))
            cut { $0 == from && $1 == to }
        case .flapping:
            let other = random.below(world.nodes.count)
            if other != node.place {
                plan(.breakLink(node.place, other, left: 5), after: .milliseconds(1))
            }
        case .slowDisk:
            node.timing.slowness = [10, 100, 1_000][random.below(3)]
            plan(.endSlowness(node.place), after: duration())
        case .brokenDisk: node.disk.failsNextChange = true
        case .rot: rot()
        case .crowdedDisk:
            // A master needs what it writes.
            if case .master = node.peer { return }
            node.disk.isCrowded = true
            plan(.endCrowd(node.place), after: duration())
        }
    }

    private func endCrowd(_ node: SimNode) {
        guard node.disk.isCrowded else { return }
        node.disk.isCrowded = false
        let free = node.disk.capacity - min(node.disk.capacity, UInt64(node.disk.used))
        let space = DiskSpace(fileSystem: 1, free: free)
        world.hand(
            .surroundings(NodeSurroundings(space: space, connections: ConnectionCounts())),
            to: node)
    }

    private func crash(_ node: SimNode, power: Bool) {
        guard node.isUp else { return }
        if random.chance(1, of: 4) {
            world.crash(node, power: power)
            restart(node)
        } else {
            // In the next steps, wherever they are.
            node.crashesAfter = random.below(6)
            node.crashLosesPower = power
            plan(.start(node.place), after: duration() + .milliseconds(200))
        }
    }

    private func cut(_ isCut: (Int, Int) -> Bool) {
        let holds = world.network.nature.isStream && random.chance(1, of: 2)
        for from in 0..<places {
            for to in 0..<places where from != to && isCut(from, to) {
                world.block(from, to, true, holds: holds)
            }
        }
        plan(.heal, after: duration())
    }

    private func rot() {
        guard rotLeft > 0, !swarm.rotting.isEmpty else { return }
        rotLeft -= 1
        let node = world.nodes[swarm.rotting[random.below(swarm.rotting.count)]]
        // What is younger may be the end of the log, whose damage can't be told from a torn
        // write (DESIGN 3.1).
        let limit = world.now + .seconds(-1)
        let kind = SimDisk.Rot.allCases[random.below(SimDisk.Rot.allCases.count)]
        let ofCheckpoints = swarm.rotsCheckpoints && random.chance(1, of: 2)
        let place = node.disk.rot(kind, ofCheckpoints: ofCheckpoints, writtenBefore: limit)
        if let place { world.say("\(node.name) rots: \(place)") }
    }
}
