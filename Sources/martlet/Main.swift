// The one program (D16): `martlet NOUN VERB`, and `mount.martlet` for mount(8) and fstab.
//
// Invariants:
//  1. Results go to standard output, everything else to standard error.
//  2. Every way out is one of ExitStatus; usage errors are 2 and name what was meant.

import ArgumentParser
import Glibc

@main
struct Main {
    static func main() {
        let name = CommandLine.arguments.first.map { lastComponent(of: $0) } ?? "martlet"
        let arguments = Array(CommandLine.arguments.dropFirst())
        if name == "mount.martlet" {
            run(as: { SystemMount.run(arguments) })
        }
        if let unknown = NearestName.unknownCommand(in: arguments, of: Martlet.self) {
            run(as: { () throws(CommandFailure) in throw CommandFailure(.usage, unknown) })
        }
        parseAndRun(arguments)
    }

    private static func lastComponent(of path: String) -> String {
        path.split(separator: "/").last.map(String.init) ?? path
    }

    private static func run(as body: () throws(CommandFailure) -> Void) -> Never {
        do throws(CommandFailure) {
            try body()
            exit(0)
        } catch {
            error.end()
        }
    }

    private static func parseAndRun(_ arguments: [String]) -> Never {
        do {
            var command = try Martlet.parseAsRoot(arguments)
            try command.run()
            exit(0)
        } catch let failure as CommandFailure {
            failure.end()
        } catch {
            let text = Martlet.fullMessage(for: error)
            if Martlet.exitCode(for: error).isSuccess {
                print(text)
                exit(0)
            }
            write(error: text)
            switch arguments.first {
            case Fsck.configuration.commandName?: exit(Fsck.Exit.usage.rawValue)
            case Health.configuration.commandName?: exit(Health.Exit.unknown.rawValue)
            default: exit(ExitStatus.usage.rawValue)
            }
        }
    }
}

/// The root of all commands.
struct Martlet: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "martlet",
        abstract: "A replicated distributed file system.",
        discussion: """
            CELL is a folder made by `martlet up`, or HOST[:PORT],… with --key FILE; it comes from \
            --cell or the variable MARTLET_CELL.
            """,
        version: Version.text,
        subcommands: [
            Up.self, Down.self, Status.self, Initialize.self, MasterCommand.self,
            ChunkServerCommand.self, MountCommand.self, Unmount.self, Put.self, Get.self,
            List.self, Cat.self, StatCommand.self, MakeDirectory.self, Remove.self, Move.self,
            DiskUsage.self, DiskFree.self, RebalanceCommand.self, ScrubCommand.self,
            MetaCommand.self, Verify.self, Fsck.self, SetCommand.self, Info.self, Explain.self,
            Health.self,
        ])
}
