// Carries out a change of the masters and waits for it; where the cell is a folder made by `up`,
// its processes and cell.json follow.

import Base
import Client
import Glibc
import Node
import Wire

struct MasterChange {
    private let fileSystem: FileSystem
    private let target: CellTarget
    private let folder: CellFolder?
    private let what: String
    private let deadline: Instant

    init(_ options: CellOptions, _ what: String) throws(CommandFailure) {
        target = try options.target()
        folder = try options.folder()
        try folder?.lock()
        fileSystem = try CellOptions.connect(
            to: target, ClientOptions(label: "martlet \(what)", deadline: options.interval))
        self.what = what
        deadline = Clock.now + options.interval
    }
    func end() { fileSystem.close() }

    // MARK: What is

    private func status() throws(CommandFailure) -> CellStatus {
        try attempt(what) { () throws(FileError) in try fileSystem.status() }
    }
    private func master(_ id: MasterID) throws(CommandFailure) -> MasterStatus? {
        try status().masters.first { $0.id == id }
    }
    /// Fails where there is no such master.
    func check(_ id: MasterID) throws(CommandFailure) {
        guard try master(id) != nil else {
            throw CommandFailure(
                .notFound, "\(what): \(Refusal(.unknownMaster, UInt64(id.rawValue)))")
        }
    }
    /// Whether cell.json names a master that the cell does not know any more.
    func isLeftOver(_ id: MasterID) -> Bool {
        guard let masters = try? folder?.description().masters,
            masters.contains(where: { $0.id == Int(id.rawValue) }),
            let status = try? fileSystem.status()
        else { return false }
        return !status.masters.contains { $0.id == id }
    }

    // MARK: Orders

    private func order(_ order: MasterOrder) throws(CommandFailure) -> Refusal? {
        try attempt(what) { () throws(FileError) in try fileSystem.order(order) }
    }
    private func fail(_ refusal: Refusal) -> CommandFailure {
        CommandFailure(
            refusal.cause == .unknownMaster ? .notFound : .refusedAsUnsafe, "\(what): \(refusal)")
    }

    /// Adds a master and waits for its vote, unless it is not to.
    func add(
        _ new: String?, replacing old: MasterID?, _ wait: WaitOptions
    ) throws(CommandFailure) -> MasterID {
        let starter = try new == nil ? start() : nil
        do throws(CommandFailure) {
            let wanted = try new.map { (text) throws(CommandFailure) in
                let found = try masterAddresses(text)
                guard found.count == 1, let first = found.first else {
                    throw CommandFailure(.usage, "name one new master, not '\(text)'")
                }
                return MasterTarget(id: first.id, address: first.address)
            }
            guard let newcomer = wanted ?? starter?.target, let id = newcomer.id else {
                throw CommandFailure(.usage, "name a new master: ID=HOST:PORT")
            }
            if starter == nil { try checkNew(newcomer, id) }
            if let refusal = try order(.add(id, newcomer.address, replacing: old)),
                // An order whose answer got lost was sent twice.
                try master(id)?.address.network != newcomer.address.network
            {
                throw fail(refusal)
            }
            try starter?.keep()
            // The order was taken, and its entry is chosen a little later.
            while try master(id) == nil { try pause("master \(id) does not join") }
            if !wait.detach { try waitForVote(of: id, wait) }
            return id
        } catch {
            starter?.undo()
            throw error
        }
    }

    /// A new master must be up, have the key, and be empty.
    private func checkNew(_ target: MasterTarget, _ id: MasterID) throws(CommandFailure) {
        let view: MastersView
        do throws(ClientError) {
            view = try target.ask(self.target.cell, self.target.key)
        } catch {
            let failure = CommandFailure(error)
            throw CommandFailure(
                failure.status,
                "master \(id) at \(target.address.network) can't be added: \(failure.message)")
        }
        let known = try status().masters
        guard !known.contains(where: { $0.id == id }) else {
            throw CommandFailure(
                .refusedAsUnsafe, "\(what): master \(id) is there already (martlet master list)")
        }
        guard view.membership.number == 0, view.end == .none else {
            throw CommandFailure(
                .refusedAsUnsafe,
                "\(what): master \(id) at \(target.address.network) is not new: start it with "
                    + "--join on an empty folder")
        }
    }

    private func waitForVote(of id: MasterID, _ wait: WaitOptions) throws(CommandFailure) {
        try Waiting.until(wait, what, shownBy: "martlet master list") {
            () throws(CommandFailure) in
            let status = try status()
            guard let master = status.masters.first(where: { $0.id == id }) else {
                throw CommandFailure(.failed, "\(what): master \(id) was removed meanwhile")
            }
            let lag = master.lag(behind: status.chosen)
            return Waiting.Step(
                done: master.isVoter ? 1 : 0, mark: lag / Limits.learnerLag, total: 1,
                unit: "masters",
                blocker: master.isVoter
                    ? nil
                    : master.isUp
                        ? "master \(id), which lacks \(lag) slots"
                        : "master \(id), which is not heard")
        }
    }

    /// Removes a master and waits until it has no vote.
    func remove(_ id: MasterID) throws(CommandFailure) {
        try check(id)
        // An order whose answer got lost was sent twice: then it is gone already.
        if let refusal = try order(.remove(id)), refusal.cause != .unknownMaster {
            throw fail(refusal)
        }
        while try master(id) != nil { try pause("master \(id) is still there") }
    }

    /// Lets another lead; who does.
    func transfer(_ id: MasterID?) throws(CommandFailure) -> MasterID {
        let before = try status().masters.first(where: \.isLeader)?.id
        if let id { try check(id) }
        if let refusal = try order(.transfer(id)) { throw fail(refusal) }
        while true {
            let now = try status().masters.first(where: \.isLeader)?.id
            if let now, id.map({ $0 == now }) ?? (now != before) { return now }
            try pause("the leadership did not move")
        }
    }

    private func pause(_ missing: String) throws(CommandFailure) {
        guard Clock.now < deadline else {
            throw CommandFailure(.timedOut, "\(what): \(missing)")
        }
        usleep(50_000)
    }

    // MARK: A cell on this machine

    /// A master that was started here for the cell, and is not in cell.json yet.
    struct Started {
        let folder: CellFolder
        let description: CellDescription
        let member: Member
        var target: MasterTarget {
            MasterTarget(
                id: MasterID(rawValue: UInt16(member.id)), address: folder.address(of: member))
        }
        func keep() throws(CommandFailure) {
            var new = description
            new.masters.append(member)
            try folder.write(new)
        }
        func undo() {
            let isKept = (try? folder.description())?.masters.contains { $0.id == member.id }
            if isKept == true { return }
            _ = Daemon(folder: folder, name: member.name).stop(patience: .seconds(5))
        }
    }

    private func start() throws(CommandFailure) -> Started {
        guard let folder else {
            throw CommandFailure(
                .usage, "name the new master, which runs with --join: ID=HOST:PORT")
        }
        let description = try folder.description()
        var ports = try FreePorts(count: 1)
        var id =
            1
            + max(
                description.masters.map(\.id).max() ?? 0,
                Int(try status().masters.map(\.id.rawValue).max() ?? 0))
        // The folder of one that was removed is not used again, nor its id.
        while LocalFile.exists(folder.folder(of: "master-\(id)")) { id += 1 }
        let member = Member(
            id: id, name: "master-\(id)", address: ports.next(), hasJoined: true)
        var starter = CellStarter(folder: folder, description: description, end: deadline)
        try starter.startMaster(member)
        let started = Started(folder: folder, description: description, member: member)
        while true {
            if (try? started.target.ask(target.cell, target.key)) != nil { return started }
            do throws(CommandFailure) {
                try pause("\(member.name) does not answer")
            } catch {
                starter.undo()
                throw error
            }
        }
    }

    /// Ends the process of a master that is none any more, and drops it from cell.json.
    func forget(_ id: MasterID) throws(CommandFailure) {
        guard let folder else { return }
        var description = try folder.description()
        guard let member = description.masters.first(where: { $0.id == Int(id.rawValue) }) else {
            return
        }
        description.masters.removeAll { $0.id == member.id }
        try folder.write(description)
        _ = Daemon(folder: folder, name: member.name).stop(patience: .seconds(5))
    }
}
