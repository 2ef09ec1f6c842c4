// What this process knows of the machine it runs on, and addresses as people write them.

package import Base
import Glibc
import NIOCore

/// The machine.
package enum Machine {
    /// Random for each boot of the kernel: processes with the same one share its Unix sockets.
    /// Empty where the kernel does not say.
    package static let bootID: String = {
        guard let file = fopen("/proc/sys/kernel/random/boot_id", "r") else { return "" }
        defer { fclose(file) }
        var line = [UInt8](repeating: 0, count: 64)
        let count = fread(&line, 1, line.count, file)
        return String(decoding: line.prefix(count).prefix { $0 > 32 }, as: UTF8.self)
    }()
}

/// A `host:port`, the host of an IPv6 address in brackets.
struct NetworkName: Hashable {
    var host: String
    var port: Int

    init?(_ text: String) {
        guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[colon...].dropFirst())
        else { return nil }
        var host = text[..<colon]
        if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
        guard !host.isEmpty else { return nil }
        self.host = String(host)
        self.port = Int(port)
    }
    /// The text of an IP address and port; "unix" for the other end of a Unix socket.
    static func text(_ address: SocketAddress) -> String {
        guard let host = address.ipAddress else { return "unix" }
        return host.contains(":")
            ? "[\(host)]:\(address.port ?? 0)" : "\(host):\(address.port ?? 0)"
    }
}

extension PeerAddress {
    /// The Unix socket, where this process can use it: same machine, and a path that fits.
    package var usableSocket: String? {
        guard !socket.isEmpty, !machine.isEmpty, machine == Machine.bootID,
            socket.utf8.count <= Self.socketPathBound
        else { return nil }
        return socket
    }
    /// Bytes of a Unix socket's path.
    package static let socketPathBound = 107
    /// For people: where this process reaches it.
    package var display: String { usableSocket ?? (network.isEmpty ? socket : network) }
}
