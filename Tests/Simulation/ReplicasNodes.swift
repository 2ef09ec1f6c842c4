// The servers of the scenarios "replicas" and "full", drawn by the seed.

import Base
import ChunkServer
import Master
import Node
import Store
import Wire

extension ReplicasScenario {
    /// Small constants, mostly: rare things happen often.
    struct Sizes {
        var segment: Int
        /// Of a chunk server's disk.
        var capacity: UInt64 = 256 << 20
        var checkpoint: Int
        var drift: Int
        /// Beyond what leases are made for.
        static let wild = 1_000_000
        var repairDelay: Interval
        var trashTime: Interval
        var scrub: ScrubConfiguration
        var cleaner: CleanerConfiguration

        init(isFull: Bool, random: inout SeededRandom) {
            segment = [64 << 10, 256 << 10, 2 << 20][random.below(3)]
            checkpoint = [64 << 10, 256 << 10, 1 << 30][random.below(3)]
            drift = [0, 10_000, 50_000, 50_000, Self.wild][random.below(5)]
            repairDelay = .milliseconds([100, 1_000, 60_000][random.below(3)])
            trashTime = .milliseconds([0, 500, 5_000][random.below(3)])
            let period = Interval.milliseconds([400, 3_000, 86_400_000][random.below(3)])
            scrub = ScrubConfiguration(period: period, bytesPerSecond: 50 << 20)
            cleaner = CleanerConfiguration(
                startPercent: [Limits.cleaningPercent, 100, 100][random.below(3)],
                foldRuns: [1, 2, 8][random.below(3)], foldRecords: [3, 64][random.below(2)])
            guard isFull else { return }
            segment = [64 << 10, 64 << 10, 256 << 10][random.below(3)]
            checkpoint = [64 << 10, 256 << 10][random.below(2)]
            capacity = UInt64(segment * (8 + random.below(13))) / 97 * 100 + 200
        }
    }

    static let masterCapacity: UInt64 = 64 << 20
    static let masterSegment = 256 << 10
    static func masterDisk(_ place: Int) -> DiskID { DiskID(rawValue: UInt64(900 + place)) }
    static func addresses(_ masters: Int) -> [MasterAddress] {
        (1...masters).map {
            MasterAddress(
                id: MasterID(rawValue: UInt16($0)),
                address: PeerAddress(network: "m\($0)", socket: "", machine: ""))
        }
    }

    static func masterNodes(
        _ count: Int, goal: Int, _ sizes: Sizes, _ random: inout SeededRandom
    ) -> [SimNode] {
        let addresses = addresses(count)
        return addresses.enumerated().map { place, address in
            SimNode(
                place: place, name: "master-\(address.id)", peer: .master(address.id),
                capacity: masterCapacity, drift: sizes.drift, random: &random
            ) { node in
                MasterCore(
                    MasterConfiguration(
                        cell: cell, id: address.id, masters: addresses, goal: goal,
                        disk: masterDisk(place),
                        seed: UInt64(node.run) << 8 | UInt64(place), segmentSize: masterSegment,
                        repairDelay: sizes.repairDelay, trashTime: sizes.trashTime,
                        grayPause: .milliseconds(250)))
            }
        }
    }

    static func chunkServer(
        _ number: Int, place: Int, masters: Int, _ sizes: Sizes, _ random: inout SeededRandom
    ) -> (SimNode, StoreConfiguration) {
        let id = ServerID(rawValue: UInt64(11 + number))
        let disk = DiskID(rawValue: UInt64(1 + number))
        let configuration = ChunkServerConfiguration(
            cell: cell, server: id, disk: disk, name: "cs\(number)", rack: "",
            address: PeerAddress(network: "c\(number)", socket: "", machine: "host\(number)"),
            masters: (1...masters).map { MasterID(rawValue: UInt16($0)) },
            segmentSize: sizes.segment, checkpointInterval: sizes.checkpoint, scrub: sizes.scrub,
            cleaner: sizes.cleaner, index: IndexConfiguration(openGroups: 1, openPages: 2))
        let node = SimNode(
            place: place, name: "server-\(number)", peer: .server(id),
            capacity: sizes.capacity, drift: sizes.drift, random: &random
        ) { _ in ChunkServerCore(configuration) }
        let log = LogConfiguration(
            cell: cell, owner: .server(id), disk: disk, segmentSize: sizes.segment)
        return (node, StoreConfiguration(log: log, checkpointInterval: sizes.checkpoint))
    }
}
