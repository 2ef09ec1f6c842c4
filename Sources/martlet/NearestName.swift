// Unknown words are answered with what was probably meant.

import ArgumentParser

enum NearestName {
    /// The nearest of some names, if one is near enough to be meant.
    static func nearest(to word: String, of names: [String]) -> String? {
        let ranked = names.map { (distance(word, $0), $0) }.min { $0 < $1 }
        guard let (distance, name) = ranked, distance <= max(2, word.count / 3) else { return nil }
        return name
    }

    /// ` Did you mean 'x'?`, or nothing.
    static func hint(for word: String, of names: [String]) -> String {
        nearest(to: word, of: names).map { " Did you mean '\($0)'?" } ?? ""
    }

    /// The message for the first word that names no command; nil if all do.
    static func unknownCommand(
        in arguments: [String], of root: any ParsableCommand.Type
    ) -> String? {
        var command = root
        for word in arguments {
            let children = command.configuration.subcommands
            guard !children.isEmpty, !word.hasPrefix("-"), word != "help" else { return nil }
            guard let next = children.first(where: { $0._commandName == word }) else {
                let names = children.map { $0._commandName }
                return "unknown command '\(word)'.\(hint(for: word, of: names))\n"
                    + "Commands: \(names.joined(separator: " "))"
            }
            command = next
        }
        return nil
    }

    /// Levenshtein's distance, with a swap of neighbours as one step.
    private static func distance(_ left: String, _ right: String) -> Int {
        let left = Array(left.utf8)
        let right = Array(right.utf8)
        var rows = [Array(0...right.count)]
        for row in 1...max(1, left.count) where row <= left.count {
            var line = [row]
            for column in 1...max(1, right.count) where column <= right.count {
                let isSame = left[row - 1] == right[column - 1]
                var best = min(
                    rows[row - 1][column] + 1, line[column - 1] + 1,
                    rows[row - 1][column - 1] + (isSame ? 0 : 1))
                if row > 1, column > 1, left[row - 1] == right[column - 2],
                    left[row - 2] == right[column - 1]
                {
                    best = min(best, rows[row - 2][column - 2] + 1)
                }
                line.append(best)
            }
            rows.append(line)
        }
        return rows[left.count][right.count]
    }
}
