// `martlet set accept-loss`: the operator's word that what is damaged on all that is left of a set
// is lost (decision 0020).

import ArgumentParser
import Base
import Client
import Wire

struct SetCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "set", abstract: "Decide what becomes of a replica set that can't go on.",
        subcommands: [SetAcceptLoss.self])
}

struct SetAcceptLoss: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "accept-loss",
        abstract: "Go on with a set whose last copies are damaged, without what is lost.",
        discussion: """
            A damaged copy never takes over by itself, and is never copied as it is: a member that \
            is down may have the bytes. Where none will come back, this goes on with the copies \
            that are left. Blocks that are damaged on all of them are given up: reading one is an \
            error until it is written anew; everything else of the set is there, and is copied \
            again. Prints what it would do; with --yes it does it. It can't be taken back.
            """)

    @Argument(help: "The set, by its id (martlet fsck).")
    var set: UInt64
    @Flag(help: "Do it.")
    var yes = false
    @OptionGroup var cell: CellOptions

    mutating func run() throws {
        let fileSystem = try cell.connect("set accept-loss")
        defer { fileSystem.close() }
        let picture = try CellPicture(fileSystem)
        guard let status = picture.sets.first(where: { $0.id.rawValue == set }) else {
            throw CommandFailure(.notFound, "there is no set \(set) (martlet fsck)")
        }
        let left = try LossPlan(status, picture)
        print(left.text(picture))
        guard yes else {
            throw CommandFailure(.refusedAsUnsafe, "nothing was changed; add --yes to do it")
        }
        try carryOut(
            .acceptLoss(
                status.id, status.configuration.epoch, members: left.members,
                primary: left.primary),
            "set accept-loss", fileSystem)
        print("set \(set) goes on: martlet fsck shows when it has all its copies again")
    }
}

/// Who of a set is left, when what its other members have is not waited for.
struct LossPlan {
    /// Ascending.
    let members: [DiskID]
    let primary: DiskID
    /// Members that are down.
    let absent: [DiskID]
    /// No member is there: this copy left the set in the epoch after that.
    let former: Epoch?

    init(_ set: SetStatus, _ picture: CellPicture) throws(CommandFailure) {
        let configuration = set.configuration
        let usable = set.copies.filter { copy in
            guard let server = picture.server(of: copy.disk), server.isUp else { return false }
            return server.disks.contains { $0.disk == copy.disk && !$0.hasFailed }
        }
        var there = usable.filter { configuration.members.contains($0.disk) }
        let isFormer = there.isEmpty
        if isFormer { there = usable.filter { $0.wasMember && $0.prepared > .none } }
        if !isFormer, let sound = there.first(where: { !$0.hasRot }) {
            throw CommandFailure(
                .refusedAsUnsafe,
                "the copy of set \(set.id) on \(picture.name(of: sound.disk)) is sound: the set "
                    + "goes on by itself (martlet explain \(set.id))")
        }
        let best = there.max {
            ($0.epoch, $0.prepared, $0.disk == configuration.primary ? 1 : 0)
                < ($1.epoch, $1.prepared, $1.disk == configuration.primary ? 1 : 0)
        }
        guard let best, !set.isFrozen, set.held.isEmpty else {
            throw CommandFailure(
                .refusedAsUnsafe,
                "no copy of set \(set.id) is there to go on with: start a server that has one "
                    + "(martlet explain \(set.id))")
        }
        let isEnough = !isFormer && there.count >= Int(configuration.minMembers)
        members = isEnough ? there.map(\.disk).sorted() : [best.disk]
        primary = best.disk
        former = isFormer ? best.epoch : nil
        absent = configuration.members.filter { member in
            isFormer || !there.contains { $0.disk == member }
        }
    }

    /// What helps a set of which every copy that is there is damaged; nil for others.
    static func advice(for set: SetStatus, _ picture: CellPicture) -> String? {
        guard let plan = try? LossPlan(set, picture) else { return nil }
        if plan.former != nil {
            return "a former copy is on \(picture.name(of: plan.primary)): start its members' "
                + "servers, or, if they are lost, martlet set accept-loss \(set.id)"
        }
        return "no sound copy is there: start its other servers, or, if they are lost, martlet set "
            + "accept-loss \(set.id)"
    }

    func text(_ picture: CellPicture) -> String {
        func names(_ disks: [DiskID]) -> String {
            disks.map { picture.name(of: $0) }.joined(separator: ", ")
        }
        var lines: [String]
        if let former {
            lines = [
                "goes on with: \(names(members)), which left it after epoch \(former): what was "
                    + "written later is lost, and blocks read as they were then, or as zeros"
            ]
        } else {
            let damage = members.count == 1 ? "it is" : "they are"
            lines = ["goes on with: \(names(members)), damaged as \(damage)"]
        }
        if !absent.isEmpty {
            lines.append(
                "leave it: \(names(absent)); what only they have is lost even if they come back")
        }
        lines.append(
            "given up: what is damaged on "
                + (members.count == 1 ? "it" : "all of them")
                + "; where not even the place of a record is known, blocks may read as they were "
                + "before it (martlet verify tells files with lost blocks, the servers' logs each "
                + "record)")
        return lines.joined(separator: "\n")
    }
}
