// Sizes, rates and times as people read and write them.

import Base
import Glibc

enum Amounts {
    /// Reads `4096`, `16MiB`, `16M` (binary) or `16MB` (decimal); nil for anything else.
    static func bytes(_ text: String) -> Int? {
        let digits = text.prefix { $0.isNumber }
        guard let count = Int(digits), count >= 0 else { return nil }
        let unit = text.dropFirst(digits.count).lowercased()
        let letters = ["k", "m", "g", "t"]
        guard let letter = unit.first else { return count }
        if unit == "b" { return count }
        guard let power = letters.firstIndex(of: String(letter)) else { return nil }
        let factor: Int
        switch unit.dropFirst() {
        case "", "ib": factor = 1 << (10 * (power + 1))
        case "b": factor = (0...power).reduce(1) { product, _ in product * 1_000 }
        default: return nil
        }
        let (product, overflow) = count.multipliedReportingOverflow(by: factor)
        return overflow ? nil : product
    }

    /// Reads the size of a segment: whole pages, from 1 MiB to 1 GiB; nil for anything else.
    static func segment(_ text: String) -> Int? {
        guard let size = bytes(text), size >= 1 << 20, size <= 1 << 30,
            size % Limits.groupAlignment == 0
        else { return nil }
        return size
    }

    /// `12.3 MiB`
    static func human(_ bytes: UInt64) -> String {
        var value = Double(bytes)
        var unit = "B"
        for next in ["KiB", "MiB", "GiB", "TiB", "PiB"] where value >= 1_024 {
            value /= 1_024
            unit = next
        }
        return unit == "B" ? "\(bytes) B" : "\(decimal(value, places: 1)) \(unit)"
    }

    /// A number with so many decimal places, rounded.
    static func decimal(_ value: Double, places: Int) -> String {
        let factor = (0..<places).reduce(1.0) { product, _ in product * 10 }
        let scaled = Int64((value * factor).rounded())
        let whole = String(abs(scaled) / Int64(factor))
        guard places > 0 else { return (scaled < 0 ? "-" : "") + whole }
        let rest = String(abs(scaled) % Int64(factor))
        return (scaled < 0 ? "-" : "") + whole + "."
            + String(repeating: "0", count: places - rest.count) + rest
    }

    /// RFC 3339, UTC, with nanoseconds if there are any.
    static func time(_ time: Timestamp) -> String {
        let (quotient, rest) = time.nanoseconds.quotientAndRemainder(dividingBy: 1_000_000_000)
        var seconds = time_t(rest < 0 ? quotient - 1 : quotient)
        let fraction = rest < 0 ? rest + 1_000_000_000 : rest
        var parts = tm()
        gmtime_r(&seconds, &parts)
        func two(_ value: Int32) -> String { value < 10 ? "0\(value)" : "\(value)" }
        let date = "\(parts.tm_year + 1_900)-\(two(parts.tm_mon + 1))-\(two(parts.tm_mday))"
        let clock = "\(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec))"
        guard fraction != 0 else { return "\(date)T\(clock)Z" }
        let digits = String(fraction)
        return "\(date)T\(clock).\(String(repeating: "0", count: 9 - digits.count))\(digits)Z"
    }

    /// `-rwxr-xr-x`
    static func mode(_ attributes: Attributes) -> String {
        let kind =
            switch attributes.kind {
            case .file: "-"
            case .directory: "d"
            case .symlink: "l"
            case .fifo: "p"
            case .socket: "s"
            case .characterDevice: "c"
            case .blockDevice: "b"
            }
        var text = kind
        for (shift, special, small, large) in [
            (6, 0o4000, "s", "S"), (3, 0o2000, "s", "S"), (0, 0o1000, "t", "T"),
        ] {
            let bits = Int(attributes.mode) >> shift
            text += bits & 4 != 0 ? "r" : "-"
            text += bits & 2 != 0 ? "w" : "-"
            let isSpecial = Int(attributes.mode) & special != 0
            text += bits & 1 != 0 ? (isSpecial ? small : "x") : (isSpecial ? large : "-")
        }
        return text
    }
}

/// Lines up the columns of a table; the last column is not padded.
func table(_ rows: [[String]]) -> String {
    let count = rows.map(\.count).max() ?? 0
    let widths = (0..<count).map { column in
        rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0
    }
    return rows.map { row in
        row.enumerated().map { index, cell in
            index == row.count - 1
                ? cell : cell + String(repeating: " ", count: widths[index] - cell.count)
        }.joined(separator: "  ")
    }.joined(separator: "\n")
}
