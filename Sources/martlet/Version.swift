// What `--version` says.

import Base
import Glibc
import Wire

enum Version {
    /// This release.
    static let release = "0.1.0"
    /// The format version of cell.json.
    static let cellFormat: Int64 = 1

    static var text: String {
        """
        martlet \(release) (\(commit))
        formats: cell \(cellFormat), protocol \(Hello.version)
        """
    }

    /// The build writes the commit beside the program.
    private static var commit: String {
        guard let program = realpath("/proc/self/exe", nil) else { return "unknown commit" }
        defer { free(program) }
        let bytes = try? LocalFile.read(String(cString: program) + ".commit", bound: 100)
        let text = bytes?.text.split(separator: "\n").first.map(String.init)
        return text.map { "commit \($0)" } ?? "unknown commit"
    }
}
