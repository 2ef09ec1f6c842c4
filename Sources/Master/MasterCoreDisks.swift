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
        guard let state = lead?.server(server), let heard = state.heard, state.isUp,
            !state.disks.isEmpty
        else { return [] }
        return namespace.diskRecords.filter {
            $0.server == server && !state.isHeard($0.id, heard)
        }.map(\.id)
    }

    /// Its disk is older than it is known, or a copy: nothing of it is used (S8).
    func isRefused(_ state: ServerState?) -> Bool {
        guard let state else { return false }
        return state.isRefused
            || state.outdated.map { time.now - $0 < Limits.serverSilence } ?? false
    }

    mutating func watchLostDisks() {
        for server in lead?.servers ?? [] where lead?.isOperating == false {
            let lost = lostDisks(of: server.id).first { disk in
                let since = lead?.downSince[disk] ?? time.now
                return time.now - since >= configuration.repairDelay
                    && !namespace.holdsCopy(disk)
            }
            guard let lost else { continue }
            report("disk \(lost) is not reported any more and holds no copy: it is forgotten")
            lead?.update(server.id) { $0.forget(lost) }
            lead?.downSince[lost] = nil
            lead?.isOperating = true
            submit(.operate(.removeDisk(lost)), for: .operate)
        }
    }

    mutating func watchWornDisks() {
        for server in lead?.servers ?? [] where server.isUp {
            let damaged = server.present.map(\.scrub.everDamaged).max() ?? 0
            if namespace.drainingServers.contains(server.id) {
                lead?.update(server.id) { $0.spared = damaged }
                continue
            }
            let up = lead?.servers.count(where: \.isUp) ?? 0
            guard damaged >= server.spared + Limits.wornRecords, lead?.isOperating == false,
                namespace.drainingServers.count * 3 < up, namespace.mayDrain(server.id)
            else { continue }
            report(
                "\(damaged) records of server \(server.id) were found damaged: it is drained",
                isAlarm: true)
            lead?.isOperating = true
            submit(.operate(.drain(server.id, isDraining: true)), for: .operate)
        }
    }
}
