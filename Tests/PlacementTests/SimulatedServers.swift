// Servers of simulated cells.

import Base
import Placement

/// Adds a server with one disk, of 1, 2 or 4 TiB, both under its number; so many share a host, and
/// eight hosts a rack.
func addServer(
    _ servers: inout [ClusterView.Server], _ disks: inout [ClusterView.Disk], perHost: Int,
    _ random: inout SeededRandom
) {
    let index = servers.count
    let host = index / perHost
    servers.append(
        ClusterView.Server(
            id: ServerID(rawValue: UInt64(index)), host: "h\(host)", rack: "r\(host / 8)",
            isUp: true))
    disks.append(
        ClusterView.Disk(
            id: DiskID(rawValue: UInt64(index)), server: ServerID(rawValue: UInt64(index)),
            capacity: UInt64([1, 2, 4][random.below(3)]) << 40, used: 0))
}
