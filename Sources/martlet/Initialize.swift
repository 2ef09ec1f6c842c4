// `martlet init`: the identity of a cell that spans several hosts.

import ArgumentParser
import Base
import Glibc

struct Initialize: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "init", abstract: "Make the id and key of a cell on several hosts.",
        discussion: """
            Prints the commands that start its servers. The key file must be on every host, and \
            secret.
            """)

    @Option(help: "The masters' hosts: HOST[:PORT],… (1, 3, 5 or 7 of them).")
    var masters: String
    @Option(help: "The key file to make.")
    var key = "cell.key"
    @Option(help: "Copies of all data.")
    var goal = 3
    @Flag(help: "Print JSON.")
    var json = false

    mutating func run() throws {
        let hosts = masters.split(separator: ",").map {
            CellAddress.address(String($0), port: 7_420)
        }
        guard [1, 3, 5, 7].contains(hosts.count), Set(hosts).count == hosts.count else {
            throw CommandFailure(
                .usage, "--masters must name 1, 3, 5 or 7 different hosts, not '\(masters)'")
        }
        guard !LocalFile.exists(key) else {
            throw CommandFailure(
                .refusedAsUnsafe, "\(key) exists already: another key would lock its cell out")
        }
        let cell = newCellID()
        try KeyFile.make(at: key, cell: cell)
        let peers = hosts.enumerated().map { "\($0.offset + 1)=\($0.element)" }
            .joined(separator: ",")
        if json {
            let list = hosts.enumerated().map { index, host in
                JSON.object([("id", .integer(Int64(index + 1))), ("address", .string(host))])
            }
            let fields: [(String, JSON)] = [
                ("schema", .integer(1)), ("cell", .string("\(cell)")),
                ("key", .string(LocalFile.absolute(key))), ("masters", .array(list)),
            ]
            return print(JSON.object(fields).encoded(indented: true))
        }
        print("cell \(cell), key in \(key): copy it to every host, readable by its owner only\n")
        for (index, host) in hosts.enumerated() {
            print(
                "on \(host):\n  martlet master serve --dir /var/lib/martlet/master "
                    + "--id \(index + 1) --listen \(host) --peers \(peers) "
                    + "--key \(key) --goal \(goal)")
        }
        print(
            "on each chunk server HOST:\n  martlet chunkserver serve "
                + "--dir /var/lib/martlet/chunkserver --listen HOST:7421 --masters \(peers) "
                + "--key \(key)")
        print(
            "then:\n  martlet mount \(hosts.joined(separator: ",")) /mnt/martlet "
                + "-o key=\(key)")
    }
}
