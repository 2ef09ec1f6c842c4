// The rules of the house, checked on the text of the repository (DESIGN section 2).

import Testing

/// Modules that do no I/O, and so need nothing of the system.
private let pureModules: Set<String> = [
    "Base", "Consensus", "Namespace", "Placement", "Replication", "Blocks", "Store", "Caching",
    "Wire",
]
/// Who may speak to the system directly.
private let systemModules: Set<String> = [
    "Storage", "Transport", "Node", "Client", "Mount", "martlet",
]

private func isPure(_ file: TextFile) -> Bool {
    let parts = file.path.split(separator: "/").map(String.init)
    return pureModules.contains(parts[1]) || file.name.hasPrefix("MasterCore")
        || file.name.hasPrefix("ChunkServerCore")
}

private func imports(_ file: TextFile) -> [String] {
    let pattern =
        /^\s*(?:@\w+ )?(?:\w+ )?import (?:(?:struct|enum|class|func|typealias|let|var) )?(\w+)/
    return file.code.compactMap { $0.firstMatch(of: pattern).map { String($0.1) } }
}

private func expectNone(_ violations: [String]) {
    #expect(violations.isEmpty, "\(violations.count):\n\(violations.joined(separator: "\n"))")
}

/// `path:line` of every line of code for which `isBad` holds.
private func places(_ files: [TextFile], _ isBad: (String) -> Bool) -> [String] {
    files.flatMap { file in
        file.code.enumerated().filter { isBad($0.element) }.map { number, _ in
            "\(file.path):\(number + 1): \(file.lines[number])"
        }
    }
}

@Test("A module imports only what the package description gives it")
func importsAreDeclared() {
    var violations: [String] = []
    #expect(Repository.targets.count > 15, "the package description was not understood")
    for target in Repository.targets {
        let folder = target.path + "/"
        let isTest = folder.hasPrefix("Tests/")
        for file in Repository.swift where file.path.hasPrefix(folder) {
            for name in imports(file) {
                let isSystem =
                    name == "Glibc"
                    && (systemModules.contains(target.name) || folder.hasPrefix("tools/"))
                    || name == "Synchronization" && !(folder.hasPrefix("Sources/") && isPure(file))
                let isForTests =
                    isTest && ["Testing", "Foundation", "Glibc", "Synchronization"].contains(name)
                if !target.dependencies.contains(name), !isSystem, !isForTests {
                    violations.append("\(file.path): \(name)")
                }
            }
        }
    }
    expectNone(violations)
}

@Test("Every Swift file belongs to a target")
func filesHaveTargets() {
    let folders = Repository.targets.map { $0.path + "/" }
    expectNone(
        Repository.swift.map(\.path).filter { path in
            !folders.contains { path.hasPrefix($0) }
        })
}

@Test("Foundation is nowhere in Sources")
func noFoundation() {
    expectNone(
        Repository.sources.filter { file in
            imports(file).contains { $0.hasPrefix("Foundation") }
        }.map(\.path))
}

@Test("Pure modules and server cores have no classes, tasks, locks or clocks (T1)")
func pureCode() {
    let banned =
        #/
        \bclass\b | \basync\b | \bawait\b | \bactor\b | import\ Glibc | \bDate\( | SystemRandom
        | \bMutex\b | \bAtomic< | \bTask\s*[.{(] | ContinuousClock | SuspendingClock | UUID\(
        /#
    expectNone(places(Repository.sources.filter(isPure)) { $0.contains(banned) })
}

@Test("Pure code decides nothing with floating point (T3)")
func noFloats() {
    // Intervals turn into seconds for people in Base; nothing else does.
    let files = Repository.sources.filter { isPure($0) && $0.path != "Sources/Base/Instant.swift" }
    expectNone(places(files) { $0.contains(/\b(Double|Float|CGFloat)\b/) })
}

@Test("Lines are at most 100 columns, files at most 500 lines")
func sizes() {
    var violations: [String] = []
    for file in Repository.swift where !file.isGenerated {
        if file.lines.count > 500 { violations.append("\(file.path): \(file.lines.count) lines") }
        for (number, line) in file.lines.enumerated() where line.count > 100 {
            violations.append("\(file.path):\(number + 1): \(line.count) columns")
        }
    }
    expectNone(violations)
}

@Test("Functions are at most 70 lines")
func functionLengths() {
    let start =
        #/
        ^(\ *)(?:@[\w()]+\ )*
        (?:(?:package|private|fileprivate|internal|static|mutating|nonmutating|consuming|borrowing
        |override|final|convenience|required|isolated|nonisolated|prefix|infix|postfix)\ )*
        (?:func|init|deinit|subscript)\b
        /#
    var violations: [String] = []
    for file in Repository.swift where !file.isGenerated {
        for (number, line) in file.lines.enumerated() {
            guard let match = line.firstMatch(of: start) else { continue }
            if line.contains("{") && line.hasSuffix("}") { continue }
            let indent = match.1.count
            var end: Int?
            for (offset, later) in file.lines[(number + 1)...].enumerated() where !later.isEmpty {
                let depth = later.prefix { $0 == " " }.count
                if depth < indent { break }
                if depth == indent, !later.dropFirst(indent).hasPrefix(")") {
                    if later.dropFirst(indent).hasPrefix("}") { end = offset + 2 }
                    break
                }
                if depth == indent, later.hasSuffix("}") { break }
            }
            if let end, end > 70 { violations.append("\(file.path):\(number + 1): \(end) lines") }
        }
    }
    expectNone(violations)
}

@Test("A file starts by saying what it is")
func headers() {
    expectNone(
        Repository.swift.filter { !($0.lines.first ?? "").hasPrefix("// ") }.map(\.path))
}

@Test("Names say what things are")
func names() {
    let banned = /(Utils|Util|Helpers|Helper|Manager|Common)\b/
    let types = /\b(?:struct|enum|class|actor|protocol|typealias|extension) (\w+)/
    var violations: [String] = []
    for file in Repository.swift {
        if file.name.replacing(".swift", with: "").contains(banned) { violations.append(file.path) }
        for (number, line) in file.code.enumerated() {
            if let match = line.firstMatch(of: types), match.1.contains(banned) {
                violations.append("\(file.path):\(number + 1): \(match.1)")
            }
        }
    }
    expectNone(violations)
}

@Test("Nothing is left for later, and nothing points outside the repository")
func bannedWords() {
    // In two parts, so that this file passes.
    let words = ["TO" + "DO", "FIX" + "ME", "../" + "shared", "/work" + "/", "/tmp/" + "mini"]
    var violations: [String] = []
    for file in Repository.everything {
        for (number, line) in file.lines.enumerated() {
            for word in words where line.contains(word) {
                violations.append("\(file.path):\(number + 1): \(word)")
            }
        }
    }
    expectNone(violations)
}

@Test("Every rule that code cites is stated in docs/RULES.md")
func rules() {
    let stated = Set(
        (Repository.file("docs/RULES.md")?.lines ?? []).compactMap { line in
            line.firstMatch(of: /^- \*\*([SMCKTA][0-9]+)\*\*/).map { String($0.1) }
        })
    #expect(stated.count > 50)
    var violations: [String] = []
    for file in Repository.sources {
        for (number, comment) in file.comments.enumerated() {
            for match in comment.matches(of: /\b[SMCKTA][0-9]{1,2}\b/)
            where !stated.contains(String(match.0)) {
                violations.append("\(file.path):\(number + 1): \(match.0)")
            }
        }
    }
    expectNone(violations)
}

@Test("Nothing is public, and tests see what other modules see")
func nothingPublic() {
    expectNone(
        places(Repository.swift) {
            $0.contains(/^\s*(?:public|open)\s+(?:final\s+)?[a-z]+\s/)
                || $0.contains(/@testable\simport/)
        })
}
