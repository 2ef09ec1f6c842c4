// `martlet health`: what an operator should know, with codes that do not change, the cause, and the
// command to run next. Ends as monitoring plugins do.

import ArgumentParser
import Base
import Client
import Glibc
import Placement
import Wire

struct Health: ParsableCommand {
    /// The exit codes of monitoring plugins.
    enum Exit: Int32 {
        case ok = 0
        case warning = 1
        case critical = 2
        case unknown = 3
    }
    static let configuration = CommandConfiguration(
        commandName: "health",
        abstract: "Show what is wrong with the cell, why, and the command to run next.",
        discussion: """
            Ends with 0: nothing found, 1: warnings, 2: something critical, 3: it could not be \
            found out (wrong key, wrong usage). docs/OPERATIONS.md lists the codes.
            """)

    @OptionGroup var cell: CellOptions
    @Flag(help: "Print JSON.")
    var json = false

    mutating func run() throws {
        do throws(CommandFailure) {
            let fileSystem = try cell.connect("health")
            let picture = try CellPicture(fileSystem)
            let files = try DamagedFile.all(picture, fileSystem)
            fileSystem.close()
            Glibc.exit(show(picture, files).rawValue)
        } catch {
            switch error.status {
            case .unreachable, .timedOut: showNoQuorum(error.message)
            default:
                write(error: "martlet: \(error.message)")
                Glibc.exit(Exit.unknown.rawValue)
            }
            Glibc.exit(Exit.critical.rawValue)
        }
    }

    /// A finding in words.
    private struct Line {
        var code: HealthFinding.Code
        var cause: String
        var next: String
        var subjects: [String]
        var files: [DamagedFile] = []

        var text: String {
            "\(code.severity.rawValue) \(code.rawValue): \(cause)\n  next: \(next)"
        }
        var json: JSON {
            .object([
                ("id", .string(code.rawValue)), ("severity", .string(code.severity.rawValue)),
                ("cause", .string(cause)), ("next", .string(next)),
                ("subjects", .array(subjects.map { .string($0) })),
                ("files", .array(files.map(\.json))),
            ])
        }
    }

    private func show(_ picture: CellPicture, _ files: [DamagedFile]) -> Exit {
        let words = HealthWords(picture: picture, files: files)
        let lines = CellHealth.findings(picture.facts).map { finding in
            Line(
                code: finding.code, cause: words.cause(finding), next: words.next(finding),
                subjects: words.subjects(finding),
                files: finding.code == .damagedRecords ? files : [])
        }
        let exit = Self.exit(lines)
        let redundancy = Redundancy(picture.status, picture.operations)
        if json {
            print(Self.json(exit, lines, redundancy.json))
        } else {
            print(Self.text(exit, lines) + "\nredundancy: \(redundancy.text)")
        }
        return exit
    }

    private func showNoQuorum(_ reason: String) {
        let line = Line(
            code: .noQuorum, cause: reason,
            next: "start masters until a majority is up: martlet up DIR, or martlet master serve",
            subjects: [])
        print(json ? Self.json(.critical, [line], .null) : Self.text(.critical, [line]))
    }

    private static func exit(_ lines: [Line]) -> Exit {
        if lines.contains(where: { $0.code.severity == .critical }) { return .critical }
        return lines.isEmpty ? .ok : .warning
    }

    /// The first line is what monitoring shows.
    private static func text(_ exit: Exit, _ lines: [Line]) -> String {
        let codes = lines.map(\.code.rawValue).joined(separator: ", ")
        let head = "MARTLET \("\(exit)".uppercased())" + (codes.isEmpty ? "" : ": " + codes)
        return ([head] + lines.map(\.text)).joined(separator: "\n")
    }

    private static func json(_ exit: Exit, _ lines: [Line], _ redundancy: JSON) -> String {
        JSON.object([
            ("schema", .integer(1)), ("health", .string("\(exit)".uppercased())),
            ("exit", .integer(Int64(exit.rawValue))), ("redundancy", redundancy),
            ("findings", .array(lines.map(\.json))),
        ]).encoded(indented: true)
    }
}

extension CellPicture {
    /// What health is judged by.
    var facts: HealthFacts {
        HealthFacts(
            goal: Int(status.goal),
            masters: status.masters.map {
                HealthFacts.Master(id: $0.id, isUp: $0.isUp, hasRot: $0.hasRot || $0.isStranger)
            },
            view: view,
            scrubbed: status.servers.flatMap(\.disks).map {
                HealthFacts.Scrubbed(
                    disk: $0.disk, damaged: $0.scrub.damaged, disputed: $0.scrub.disputed,
                    everDamaged: $0.scrub.everDamaged)
            },
            refused: status.servers.filter(\.isRefused).map(\.id),
            lost: status.servers.flatMap(\.lost),
            sets: checkedSets,
            idle: sets.filter { !$0.isServing && $0.held.isEmpty }.map(\.id),
            unknown: operations.unknownSets,
            held: sets.filter { !$0.held.isEmpty }.map(\.id),
            blocked: sets.filter(Self.isBlocked).map(\.id))
    }

    /// The sets as `fsck` and `health` check them.
    var checkedSets: [CheckedSet] {
        sets.map { set in
            CheckedSet(
                configuration: set.configuration, chunks: set.chunks,
                copies: set.copies.map {
                    CheckedSet.Copy(
                        disk: $0.disk, epoch: $0.epoch,
                        hasContent: $0.stored > 0 || $0.prepared > .none, hasRot: $0.hasRot)
                }, learner: set.task?.to, keepsTrash: set.keepsTrash)
        }
    }
}

/// Findings in words.
private struct HealthWords {
    let picture: CellPicture
    let files: [DamagedFile]

    func subjects(_ finding: HealthFinding) -> [String] {
        finding.masters.map { "master \($0)" } + finding.servers.map(name)
            + finding.disks.map { picture.name(of: $0) } + finding.sets.map { "set \($0)" }
    }
    private func name(_ id: ServerID) -> String {
        picture.status.servers.first { $0.id == id }?.name ?? "server \(id)"
    }
    private func list(_ finding: HealthFinding) -> String {
        let all = subjects(finding)
        return all.prefix(4).joined(separator: ", ")
            + (all.count > 4 ? " and \(all.count - 4) more" : "")
    }
    private func reason(of set: SetID?) -> String {
        guard let state = picture.sets.first(where: { $0.id == set }) else { return "" }
        return state.task.map { picture.inNames($0.waits) } ?? picture.service(of: state)
    }
    private func service(of set: SetID?) -> String {
        picture.sets.first { $0.id == set }.map { picture.service(of: $0) } ?? ""
    }

    func cause(_ finding: HealthFinding) -> String {
        let who = list(finding)
        let goal = picture.status.goal
        switch finding.code {
        case .noQuorum: return "no majority of the masters answers"
        case .setsHeld:
            let held = picture.sets.first { $0.id == finding.sets.first }?.held ?? ""
            return "the masters' state was loaded from a dump; \(who) can't be read or written: "
                + picture.inNames(held)
        case .mastersLostState:
            return "disks know more of \(who) than the masters: the masters lost state; nothing "
                + "is deleted"
        case .setUnavailable:
            return "no server that is up has a copy of \(who): their chunks can't be read"
        case .setNotServing:
            return "\(who): writes wait; set \(finding.sets.first?.description ?? "") "
                + service(of: finding.sets.first)
        case .noPlace:
            return "new data can't be placed: \(finding.count) disks take it"
        case .masterDown:
            let up = picture.status.masters.count(where: \.isUp)
            let needed = picture.status.masters.count(where: \.isVoter) / 2 + 1
            return "\(who) down: \(up) of \(picture.status.masters.count) masters are up, "
                + "\(needed) are needed"
        case .masterDamaged:
            return "the log of \(who) is damaged, or on another disk than before: it takes part, "
                + "never votes"
        case .serverDown: return "\(who) down: no report for \(Limits.serverSilence.seconds) s"
        case .serverRefused:
            return "\(who): its disk is older than the masters remember, or a copy; nothing of it "
                + "is used"
        case .diskFailed: return "the disk of \(who) has failed; it is not used any more"
        case .diskLost:
            return "\(who): not there any more, its server has another one; "
                + "\(picture.copies(on: finding.disks)) sets still count on it"
        case .diskWorn:
            return "\(finding.count) records on \(who) were found damaged so far, "
                + "\(Limits.wornRecords) are too many: it is drained as soon as others have room"
        case .diskFull:
            return "\(who) more than \(100 - Limits.reservePercent) % full: no new data goes there"
        case .diskNearlyFull: return "\(who) \(Limits.nearlyFullPercent) % full or more"
        case .tooFewPlaces:
            return "only \(finding.count) servers take new data: it gets fewer than \(goal) copies"
        case .setUnderReplicated:
            return "\(who): fewer than \(goal) copies; "
                + Redundancy(picture.status, picture.operations).text
        case .copyIncomplete: return "a member of \(who) has no copy yet, or an old one"
        case .copiesMisplaced:
            return "copies of \(who) share a server, host or rack although another is free"
        case .copyingBlocked: return "\(who) waits for \(reason(of: finding.sets.first))"
        case .damagedRecords:
            let places = files.prefix(4).map(\.text).joined(separator: "; ")
            return "\(finding.count) records on \(who) are damaged"
                + (places.isEmpty ? "" : ", and no other copy has them: " + places)
                + (files.count > 4 ? "; and more" : "")
        case .copiesDisputed:
            return "\(finding.count) blocks on \(who) differ between copies, and nothing decides"
        }
    }

    func next(_ finding: HealthFinding) -> String {
        let server = finding.servers.first.map(name) ?? ""
        let disk = finding.disks.first.map { picture.name(of: $0) } ?? ""
        let set = finding.sets.first?.description ?? ""
        switch finding.code {
        case .noQuorum, .masterDown:
            return "start it again: martlet up DIR, or martlet master serve on its host"
        case .masterDamaged:
            return "its vote comes back within seconds; otherwise martlet master replace"
        case .setsHeld:
            return "start every chunk server that the cell had, and make sure that no old master "
                + "runs; then: martlet meta adopt"
        case .mastersLostState: return "martlet fsck, and the alarm in the masters' logs"
        case .setUnavailable: return "martlet explain \(set), and start a server that has it"
        case .setNotServing: return "martlet explain \(set)"
        case .noPlace, .tooFewPlaces, .diskFull:
            return "start another chunk server, or martlet chunkserver undrain NAME"
        case .serverDown:
            return "start it again: martlet up DIR, or martlet chunkserver serve on its host; if "
                + "it never comes back: martlet chunkserver remove \(server)"
        case .serverRefused:
            return "start it with the disk that it had last, or with an empty one: copies are made "
                + "from others"
        case .diskLost:
            return "nothing, or put the old disk back: it is forgotten when its copies are "
                + "elsewhere"
        case .diskWorn:
            return "replace \(disk): martlet chunkserver list shows how far the drain is"
        case .diskFailed:
            return "replace the disk with an empty one and start the server again; martlet "
                + "explain \(server)"
        case .diskNearlyFull: return "martlet rebalance plan, or start another chunk server"
        case .setUnderReplicated, .copyIncomplete, .copyingBlocked:
            return "martlet explain \(set)"
        case .copiesMisplaced: return "martlet fsck --repair"
        case .damagedRecords: return "martlet scrub status; if more come, replace \(disk)"
        case .copiesDisputed: return "martlet scrub status, and martlet verify PATH"
        }
    }
}
