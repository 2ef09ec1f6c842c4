// The repository as text, for the tests of its style.

import Foundation

/// A Swift file, or any other text, below the root.
struct TextFile {
    /// Path below the root.
    let path: String
    let lines: [String]
    var isSwift: Bool { path.hasSuffix(".swift") }
    var isGenerated: Bool { lines.first?.contains("generated") ?? false }
    var name: String { String(path.split(separator: "/").last ?? "") }

    /// The code of each line: without comment and without the text of string literals.
    var code: [String] { lines.map { Self.split($0).code } }
    /// The comment of each line, if any.
    var comments: [String] { lines.map { Self.split($0).comment } }

    private static func split(_ line: String) -> (code: String, comment: String) {
        var code = ""
        var isInText = false
        var rest = line[...]
        while let character = rest.first {
            if isInText, character == "\\" {
                rest = rest.dropFirst(2)
                continue
            }
            if character == "\"" { isInText.toggle() }
            if !isInText, rest.hasPrefix("//") { return (code, String(rest)) }
            if !isInText { code.append(character) }
            rest = rest.dropFirst()
        }
        return (code, "")
    }
}

/// What Package.swift says of one target.
struct TargetDescription {
    let name: String
    let path: String
    /// Targets and products it may import.
    let dependencies: Set<String>
}

enum Repository {
    static let root: URL = {
        var url = URL(fileURLWithPath: #filePath).resolvingSymlinksInPath()
        for _ in 0..<3 { url.deleteLastPathComponent() }
        return url
    }()

    /// Every text file in a folder below the root.
    static func files(in folder: String) -> [TextFile] {
        let base = root.appendingPathComponent(folder).resolvingSymlinksInPath()
        guard let walk = FileManager.default.enumerator(atPath: base.path) else { return [] }
        var found: [TextFile] = []
        for case let path as String in walk {
            let url = base.appendingPathComponent(path)
            guard let text = try? String(contentsOf: url, encoding: .utf8) else { continue }
            found.append(file("\(folder)/\(path)", text))
        }
        return found.sorted { $0.path < $1.path }
    }
    /// One file, if it is there.
    static func file(_ path: String) -> TextFile? {
        let url = root.appendingPathComponent(path)
        return (try? String(contentsOf: url, encoding: .utf8)).map { file(path, $0) }
    }
    private static func file(_ path: String, _ text: String) -> TextFile {
        var lines = text.components(separatedBy: "\n")
        if lines.last == "" { lines.removeLast() }
        return TextFile(path: path, lines: lines)
    }

    static let sources = files(in: "Sources").filter(\.isSwift)
    static let tests = files(in: "Tests").filter(\.isSwift)
    static let tools = files(in: "tools").filter(\.isSwift)
    static var swift: [TextFile] { sources + tests + tools }
    /// Everything that a reader of the repository sees.
    static var everything: [TextFile] {
        let single = ["Package.swift", "README.md", "CHANGELOG.md", "CONTRIBUTING.md"]
        return files(in: "Sources") + files(in: "Tests") + files(in: "tools") + files(in: "docs")
            + files(in: ".ci") + single.compactMap(file)
    }

    /// All targets, from the dump that MARTLET_PACKAGE names, or else from the text.
    static let targets: [TargetDescription] = {
        let named = ProcessInfo.processInfo.environment["MARTLET_PACKAGE"]
        if let named, let dump = FileManager.default.contents(atPath: named) {
            return targets(dump: dump)
        }
        return targets(text: file("Package.swift")?.lines ?? [])
    }()

    private static func targets(dump: Data) -> [TargetDescription] {
        let json = try? JSONSerialization.jsonObject(with: dump) as? [String: Any]
        let list = json?["targets"] as? [[String: Any]] ?? []
        return list.map { target in
            let name = target["name"] as? String ?? ""
            let dependencies = (target["dependencies"] as? [[String: Any]] ?? []).compactMap {
                ($0.values.first as? [Any])?.first as? String
            }
            return TargetDescription(
                name: name, path: target["path"] as? String ?? "Sources/\(name)",
                dependencies: Set(dependencies))
        }
    }

    /// Reads calls of `module`, `program`, `tests` and `library` as Package.swift writes them.
    private static func targets(text: [String]) -> [TargetDescription] {
        let start = text.firstIndex { $0.contains("targets: [") && !$0.contains("products") } ?? 0
        let body = text[start...].filter { !$0.contains("//") }.joined(separator: " ")
        let call = /\b(module|program|tests|library)\(([^()]*)\)/
        let known = [
            "log": "Logging", "nio[0]": "NIOCore", "nio[1]": "NIOPosix",
            "arguments": "ArgumentParser",
        ]
        return body.matches(of: call).map { match in
            var path: String?
            var names: [String] = []
            for part in match.2.split(separator: ",") {
                let item = part.trimmingCharacters(in: .whitespaces)
                let text = item.components(separatedBy: "\"")
                if item.hasPrefix("path:") {
                    path = text[1]
                } else if text.count == 3 {
                    names.append(text[1])
                } else if !item.isEmpty {
                    names.append(known[item] ?? item)
                }
            }
            let name = names.first ?? ""
            let folder = match.1 == "tests" ? "Tests" : "Sources"
            return TargetDescription(
                name: name, path: path ?? "\(folder)/\(name)",
                dependencies: Set(names.dropFirst()))
        }
    }
}
