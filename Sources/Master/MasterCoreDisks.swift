// What the leader does about disks without being asked (decision 0016).
//
//   a disk                                            the leader
//   its server has been there without it for          forgets it; its copies were made anew as
//   `repairDelay`, and no set has a member there      those of a dead server are
//   `Limits.wornRecords` of its records were damaged  drains its server, if enough are left
//
// Invariants:
//  1. A forgotten disk that comes back is a new one; what it has of sets is a former copy, which is
//     never served and goes the way of the trash (C14).
//  2. What an operator undrained is drained again by the next leader, or when as many records more
//     were damaged.

import Base
import Namespace
import Node
import Wire

extension MasterCore {
    /// Disks that the log knows, and that their server does not report any more. Of a server that
    /// is down nobody knows.
    func lostDisks(of server: ServerID) -> [DiskID] {
        namespace.diskRecords.filter { $0.server == server && isLost($0) }.map(\.id)
    }
    private func isLost(_ disk: DiskRecord) -> Bool {
        guard let state = lead?.server(disk.server), let heard = state.heard else { return false }
        return state.isUp && !state.disks.isEmpty && !state.isHeard(disk.id, heard)
    }

    /// Its disk is older than it is known, or a copy: nothing of it is used (S8).
    func isRefused(_ state: ServerState?) -> Bool {
        guard let state else { return false }
        return state.isRefused
            || state.outdated.map { time.now - $0 < Limits.serverSilence } ?? false
    }

    mutating func watchLostDisks() {
        guard let lead, !lead.isOperating else { return }
        let lost = namespace.diskRecords.first { disk in
            guard let since = lead.downSince[disk.id] else { return false }
            return time.now - since >= configuration.repairDelay && isLost(disk)
                && !namespace.holdsCopy(disk.id)
        }
        guard let lost else { return }
        report("disk \(lost.id) is not reported any more and holds no copy: it is forgotten")
        self.lead?.update(lost.server) { $0.forget(lost.id) }
        self.lead?.downSince[lost.id] = nil
        self.lead?.isOperating = true
        submit(.operate(.removeDisk(lost.id)), for: .operate)
    }

    mutating func watchWornDisks() {
        for server in lead?.servers ?? [] where server.isUp {
            let damaged = server.present.map(\.scrub.everDamaged).max() ?? 0
            if namespace.drainingServers.contains(server.id) {
                lead?.update(server.id) { $0.spared = damaged }
                continue
            }
            guard damaged >= server.spared + Limits.wornRecords, lead?.isOperating == false
            else { continue }
            let up = lead?.servers.count(where: \.isUp) ?? 0
            guard namespace.drainingServers.count * 3 < up, namespace.mayDrain(server.id)
            else { continue }
            report(
                "\(damaged) records of server \(server.id) were found damaged: it is drained",
                isAlarm: true)
            lead?.isOperating = true
            submit(.operate(.drain(server.id, isDraining: true)), for: .operate)
        }
    }
}
