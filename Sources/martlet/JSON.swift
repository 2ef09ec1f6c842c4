// JSON, as much of it as cell.json and --json need: written by hand, because the product has no
// Foundation.
//
// Invariants:
//  1. Objects keep the order of their fields.
//  2. The reader takes at most 1 MiB and 32 levels, and never traps.

/// A JSON value; numbers are integers, or doubles that were made here.
indirect enum JSON: Sendable {
    case object([(String, JSON)])
    case array([JSON])
    case string(String)
    case integer(Int64)
    case unsigned(UInt64)
    case double(Double)
    case bool(Bool)
    case null

    /// The field of an object; nil if it has none or is no object.
    subscript(_ name: String) -> JSON? {
        guard case .object(let fields) = self else { return nil }
        return fields.first { $0.0 == name }?.1
    }
    var text: String? { if case .string(let value) = self { value } else { nil } }
    var number: Int64? { if case .integer(let value) = self { value } else { nil } }
    var flag: Bool? { if case .bool(let value) = self { value } else { nil } }
    var items: [JSON]? { if case .array(let value) = self { value } else { nil } }

    /// One line, or indented lines.
    func encoded(indented: Bool = false) -> String {
        var output = ""
        write(to: &output, indent: indented ? 0 : nil)
        return output
    }

    private func write(to output: inout String, indent: Int?) {
        switch self {
        case .object(let fields):
            Self.write(fields, "{", "}", to: &output, indent) { field, output, indent in
                Self.write(field.0, to: &output)
                output += ": "
                field.1.write(to: &output, indent: indent)
            }
        case .array(let items):
            Self.write(items, "[", "]", to: &output, indent) { item, output, indent in
                item.write(to: &output, indent: indent)
            }
        case .string(let value): Self.write(value, to: &output)
        case .integer(let value): output += String(value)
        case .unsigned(let value): output += String(value)
        case .double(let value): output += value.isFinite ? "\(value)" : "null"
        case .bool(let value): output += value ? "true" : "false"
        case .null: output += "null"
        }
    }

    private static func write<Item>(
        _ items: [Item], _ open: String, _ close: String, to output: inout String, _ indent: Int?,
        _ each: (Item, inout String, Int?) -> Void
    ) {
        output += open
        let inner = indent.map { $0 + 2 }
        for (index, item) in items.enumerated() {
            if index > 0 { output += indent == nil ? ", " : "," }
            if let inner { output += "\n" + String(repeating: " ", count: inner) }
            each(item, &output, inner)
        }
        if let indent, !items.isEmpty { output += "\n" + String(repeating: " ", count: indent) }
        output += close
    }

    private static func write(_ text: String, to output: inout String) {
        output += "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": output += "\\\""
            case "\\": output += "\\\\"
            case "\n": output += "\\n"
            case _ where scalar.value < 0x20 || scalar.value == 0x7F:
                let digits = String(scalar.value, radix: 16)
                output += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: output.unicodeScalars.append(scalar)
            }
        }
        output += "\""
    }

    /// Reads one value; nil for anything that is not JSON.
    init?(_ bytes: [UInt8]) {
        guard bytes.count <= 1 << 20 else { return nil }
        var reader = JSONReader(rest: bytes[...])
        guard let value = reader.value(depth: 0) else { return nil }
        reader.skipBlanks()
        guard reader.rest.isEmpty else { return nil }
        self = value
    }
}

private struct JSONReader {
    var rest: ArraySlice<UInt8>

    mutating func skipBlanks() { rest = rest.drop { [0x20, 0x0A, 0x0D, 0x09].contains($0) } }

    mutating func take(_ text: StaticString) -> Bool {
        skipBlanks()
        let count = text.utf8CodeUnitCount
        let bytes = UnsafeBufferPointer(start: text.utf8Start, count: count)
        guard rest.prefix(count).elementsEqual(bytes) else { return false }
        rest = rest.dropFirst(count)
        return true
    }

    mutating func value(depth: Int) -> JSON? {
        guard depth < 32 else { return nil }
        if take("null") { return .null }
        if take("true") { return .bool(true) }
        if take("false") { return .bool(false) }
        if take("{") { return object(depth) }
        if take("[") { return array(depth) }
        if take("\"") { return string().map { .string($0) } }
        return number()
    }

    private mutating func object(_ depth: Int) -> JSON? {
        var fields: [(String, JSON)] = []
        if take("}") { return .object(fields) }
        while true {
            guard take("\""), let name = string(), take(":"), let field = value(depth: depth + 1)
            else { return nil }
            fields.append((name, field))
            if take("}") { return .object(fields) }
            guard take(",") else { return nil }
        }
    }

    private mutating func array(_ depth: Int) -> JSON? {
        var items: [JSON] = []
        if take("]") { return .array(items) }
        while true {
            guard let item = value(depth: depth + 1) else { return nil }
            items.append(item)
            if take("]") { return .array(items) }
            guard take(",") else { return nil }
        }
    }

    private mutating func string() -> String? {
        var bytes: [UInt8] = []
        while let byte = rest.popFirst() {
            switch byte {
            case UInt8(ascii: "\""): return String(decoding: bytes, as: UTF8.self)
            case UInt8(ascii: "\\"):
                guard let scalar = escape() else { return nil }
                bytes += Array(String(scalar).utf8)
            default: bytes.append(byte)
            }
        }
        return nil
    }

    private mutating func escape() -> Unicode.Scalar? {
        guard let kind = rest.popFirst() else { return nil }
        switch kind {
        case UInt8(ascii: "n"): return "\n"
        case UInt8(ascii: "t"): return "\t"
        case UInt8(ascii: "r"): return "\r"
        case UInt8(ascii: "b"): return "\u{8}"
        case UInt8(ascii: "f"): return "\u{C}"
        case UInt8(ascii: "u"):
            let digits = String(decoding: rest.prefix(4), as: UTF8.self)
            guard digits.utf8.count == 4, let value = UInt32(digits, radix: 16) else { return nil }
            rest = rest.dropFirst(4)
            return Unicode.Scalar(value)
        default: return Unicode.Scalar(kind)
        }
    }

    private mutating func number() -> JSON? {
        let digits = rest.prefix { $0 == UInt8(ascii: "-") || (0x30...0x39).contains($0) }
        guard let value = Int64(String(decoding: digits, as: UTF8.self)) else { return nil }
        rest = rest.dropFirst(digits.count)
        return .integer(value)
    }
}
