// How a command ends when it does not succeed.

import Base
import Client
import Glibc
import Mount
import Wire

/// The exit codes of all commands but mount(8)'s.
enum ExitStatus: Int32, Sendable {
    case failed = 1
    case usage = 2
    case partlyDone = 3
    /// A check found something that is not as it should be.
    case differences = 4
    /// No quorum, or no master reachable.
    case unreachable = 6
    case denied = 7
    case notFound = 8
    case refusedAsUnsafe = 9
    case timedOut = 124
    case interrupted = 130
}

/// The reason why a command ends, for people, and its exit code.
struct CommandFailure: Error, Sendable {
    var status: ExitStatus
    var message: String

    init(_ status: ExitStatus, _ message: String) {
        self.status = status
        self.message = message
    }

    /// A file operation in the cell that failed.
    init(file error: FileError, _ what: String) {
        let status: ExitStatus =
            switch error {
            case .notFound, .stale: .notFound
            case .accessDenied, .notPermitted: .denied
            case .timedOut: .timedOut
            case .interrupted: .interrupted
            default: .failed
            }
        let reason =
            error == .timedOut
            ? "no answer in time (`martlet status` shows what is down; --deadline waits longer)"
            : Self.text(of: error.errno)
        self.init(status, "\(what): \(reason)")
    }

    /// A system call that failed, by its errno.
    init(errno code: Int32, _ what: String) {
        let status: ExitStatus =
            switch code {
            case ENOENT: .notFound
            case EACCES, EPERM: .denied
            default: .failed
            }
        self.init(status, "\(what): \(Self.text(of: code))")
    }

    init(_ error: ClientError) {
        switch error {
        case .unreachable(let text):
            self.init(.unreachable, "no master of the cell answers: \(text)")
        case .refused(.wrongKey, let text):
            self.init(.denied, "the cell refuses this key (cell.key or --key): \(text)")
        case .refused(.otherCell, let text):
            self.init(.denied, "that is another cell: \(text)")
        case .refused(let reason, let text):
            self.init(.failed, "the cell refuses the connection (\(reason)): \(text)")
        case .session(let text):
            self.init(.unreachable, "the masters open no session: \(text)")
        }
    }

    init(_ error: MountError) {
        switch error {
        case .notDirectory(let path): self.init(.notFound, "\(path): no such directory")
        case .alreadyMounted(let path):
            self.init(.refusedAsUnsafe, "\(path): a Martlet is mounted there already")
        case .system(let what, let code): self.init(errno: code, what)
        case .fuse(let text): self.init(.failed, text)
        }
    }

    static func text(of code: Int32) -> String { String(cString: strerror(code)) }

    func end() -> Never {
        write(error: "martlet: \(message)")
        exit(status.rawValue)
    }
}

/// Writes a line to standard error.
func write(error text: String) {
    let line = Array((text + "\n").utf8)
    _ = line.withUnsafeBytes { Glibc.write(2, $0.baseAddress, $0.count) }
}

/// Carries out a file operation; what fails says what it was about.
func attempt<Value>(
    _ what: @autoclosure () -> String, _ body: () throws(FileError) -> Value
) throws(CommandFailure) -> Value {
    do throws(FileError) {
        return try body()
    } catch {
        throw CommandFailure(file: error, what())
    }
}
