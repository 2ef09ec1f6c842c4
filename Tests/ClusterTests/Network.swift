// Hosts in network namespaces of their own, at one switch that loses what a test tells it to, and
// a cell whose every process is on a host of its own.
//
//   switch     namespace NAME: a bridge; what goes through it is dropped by nft rules
//   host       namespace NAME-HOST: one interface, 10.77.0.N
//
// Invariants:
//  1. Namespaces are named after the folder of the cell, so that they go with it, in the run that
//     made them or in the next one.
//  2. What is cut is dropped without a word, as by a broken cable: connections stay and wait.

import Base
import Glibc

final class Network {
    /// Whether namespaces and the switch can be made here; if not, why.
    static let lack: String? = {
        let network = Network("\(prefix)\(getpid())-0")
        defer { Network.remove(network.name) }
        do {
            try network.start()
            try network.add("a")
            try network.cut(["a"], ["a"])
            return nil
        } catch { return "no network namespaces here: \(error)" }
    }()
    /// Of all namespaces; then comes the folder of the cell.
    static let prefix = "mt-"
    /// Where commands of the tests run.
    static let desk = "desk"

    let name: String
    /// The masters and chunk servers.
    var members: [String] = []
    private var addresses: [String: String] = [:]
    private var rules: [String] = []

    init(_ name: String) { self.name = name }

    func start() throws {
        try shell(
            """
            ip netns add \(name)
            ip -n \(name) link add switch type bridge
            ip -n \(name) link set switch up
            """)
    }

    func add(_ host: String) throws {
        let number = addresses.count + 1
        addresses[host] = "10.77.0.\(number)"
        let space = "\(name)-\(host)"
        try shell(
            """
            ip netns add \(space)
            ip -n \(name) link add port\(number) type veth peer name eth0 netns \(space)
            ip -n \(name) link set port\(number) master switch up
            ip -n \(space) addr add 10.77.0.\(number)/24 dev eth0
            ip -n \(space) link set eth0 up
            ip -n \(space) link set lo up
            """)
    }

    func address(_ host: String) -> String { addresses[host] ?? host }

    /// What comes before a command that runs on a host; its mounts are seen by all.
    func enter(_ host: String) -> [String] { ["nsenter", "--net=/run/netns/\(name)-\(host)"] }

    /// Loses what goes from one of `from` to one of `to`, and back unless it is `oneWay`; or so
    /// many of a hundred packets.
    func cut(
        _ from: [String], _ to: [String], oneWay: Bool = false, percent: Int = 100
    ) throws {
        func rule(_ from: [String], _ to: [String]) -> String {
            func list(_ hosts: [String]) -> String {
                "{ \(hosts.map(address).joined(separator: ", ")) }"
            }
            let some = percent < 100 ? "numgen random mod 100 < \(percent) " : ""
            return "ip saddr \(list(from)) ip daddr \(list(to)) \(some)drop"
        }
        rules.append(rule(from, to))
        if !oneWay { rules.append(rule(to, from)) }
        try apply()
    }

    /// Nothing is lost any more.
    func heal() throws {
        rules = []
        try apply()
    }

    /// All hosts but these.
    func others(_ hosts: String...) -> [String] {
        addresses.keys.filter { !hosts.contains($0) }.sorted()
    }

    private func apply() throws {
        try shell(
            """
            nsenter --net=/run/netns/\(name) nft -f - <<END
            table bridge cut
            delete table bridge cut
            table bridge cut {
            chain forward {
            type filter hook forward priority 0
            \(rules.joined(separator: "\n"))
            }
            }
            END
            """)
    }

    /// What a host is sent goes at so many kilobits a second at most; nil: as fast as it can.
    func throttle(_ host: String, kilobits: Int?) throws {
        let port = "port\(address(host).split(separator: ".").last ?? "")"
        let what = "root tbf rate \(kilobits ?? 0)kbit burst 32kb latency 500ms"
        try shell(
            "tc -n \(name) qdisc \(kilobits == nil ? "del" : "add") dev \(port) "
                + (kilobits == nil ? "root" : what))
    }

    /// Takes away all namespaces of this name.
    static func remove(_ name: String) {
        for space in names(in: "/run/netns") where space == name || space.hasPrefix(name + "-") {
            _ = try? run(["ip", "netns", "del", space])
        }
    }

    private func shell(_ script: String) throws { try run(["sh", "-euc", script]) }
}

// A cell on such hosts. It has the folder that `martlet up` would make, but for the paths of
// Unix sockets, which are too long there to be used; so the commands work on it.
extension Cell {
    private static let ports = ["master": 7_420, "chunkserver": 7_421]

    private func listen(_ member: String, _ network: Network) -> String {
        let kind = member.split(separator: "-").first.map(String.init) ?? ""
        return "\(network.address(member)):\(Self.ports[kind] ?? 0)"
    }
    private func id(_ member: String) -> Substring { member.split(separator: "-").last ?? "" }

    /// The hosts, the key and cell.json.
    func makeHosts(_ network: Network, masters: Int, servers: Int) throws {
        try network.start()
        network.members =
            (1...masters).map { "master-\($0)" } + (1...servers).map { "chunkserver-\($0)" }
        for host in network.members + ["client-1", "client-2", Network.desk] {
            try network.add(host)
        }
        for folder in [path, path + "/pids"] + network.members.map({ "\(path)/\($0)" }) {
            guard mkdir(folder, 0o755) == 0 else { throw TestFailure("\(folder): errno \(errno)") }
        }
        let hosts = (1...masters).map { network.address("master-\($0)") }.joined(separator: ",")
        let made = try martlet("init", "--masters", hosts, "--key", path + "/cell.key", "--json")
        let words = made.output.split(separator: "\"")
        let cell = words.firstIndex(of: "cell").map { words[$0 + 2] } ?? ""
        func list(_ prefix: String) -> String {
            network.members.filter { $0.hasPrefix(prefix) }.map { member in
                "{\"id\": \(id(member)), \"name\": \"\(member)\", "
                    + "\"address\": \"\(listen(member, network))\"}"
            }.joined(separator: ", ")
        }
        let description = """
            {"schema": 1, "format": 1, "cell": "\(cell)", "goal": 3, "segment_size": \(8 << 20),
            "masters": [\(list("master"))], "chunkservers": [\(list("chunkserver"))]}
            """
        try writeFile(path + "/cell.json", Array(description.utf8))
    }

    /// Starts the servers that don't run.
    func startServers(_ network: Network) throws {
        let peers = network.members.filter { $0.hasPrefix("master") }
            .map { "\(id($0))=\(listen($0, network))" }.joined(separator: ",")
        for member in network.members {
            let record = "\(path)/\(member)/process"
            let known = readText(record).split(whereSeparator: { " \n".contains($0) })
            if let pid = known.first.flatMap({ pid_t($0) }), Self.startTime(pid) == known[1] {
                continue
            }
            let own =
                member.hasPrefix("master")
                ? ["master", "serve", "--id", "\(id(member))", "--peers", peers] + delays
                : ["chunkserver", "serve", "--name", member, "--masters", peers]
            let folder = "\(path)/\(member)"
            let running = try start(
                own + [
                    "--dir", folder, "--listen", listen(member, network), "--key",
                    path + "/cell.key", "--segment-size", "\(8 << 20)", "--log", folder + "/log",
                ], on: member)
            let process = "\(running.pid) \(Self.startTime(running.pid))\n"
            try writeFile(record, Array(process.utf8))
            try writeFile("\(path)/pids/\(member)", Array("\(running.pid)\n".utf8))
        }
    }
}
