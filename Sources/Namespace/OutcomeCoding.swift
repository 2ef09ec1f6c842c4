// The coding of outcomes: what the state remembers of a session's changes (M12).

import Base

extension Outcome {
    func encode(into writer: inout ByteWriter) {
        switch self {
        case .failed(let error):
            writer.write(1 as UInt8)
            writer.write(error.rawValue)
        case .retry: writer.write(2 as UInt8)
        case .sessionDead: writer.write(3 as UInt8)
        case .forgotten: writer.write(4 as UInt8)
        case .conflict: writer.write(5 as UInt8)
        case .done: writer.write(6 as UInt8)
        case .entry(let attributes):
            writer.write(7 as UInt8)
            attributes.encode(into: &writer)
        case .created(let attributes, let layout):
            writer.encode(8, attributes, layout)
        case .opened(let attributes, let layout):
            writer.encode(9, attributes, layout)
        case .layout(let layout):
            writer.write(10 as UInt8)
            layout.encode(into: &writer)
        case .session(let session, let time):
            writer.write(12 as UInt8)
            writer.write(session)
            writer.write(time)
        case .orphans(let inodes, let time):
            writer.write(13 as UInt8)
            writer.writeList(inodes) { $0.write($1) }
            writer.write(time)
        case .set(let configuration):
            writer.write(14 as UInt8)
            configuration.encode(into: &writer)
        case .refused(let refusal):
            writer.write(15 as UInt8)
            refusal.encode(into: &writer)
        case .extended(let outcomes):
            writer.write(16 as UInt8)
            writer.writeList(outcomes) { $1.encode(into: &$0) }
        }
    }

    /// Reads what `encode` wrote.
    init(from reader: inout ByteReader) throws(DecodeError) {
        let tag = try reader.read(UInt8.self)
        switch tag {
        case 1: self = .failed(try FileError(from: &reader))
        case 2: self = .retry
        case 3: self = .sessionDead
        case 4: self = .forgotten
        case 5: self = .conflict
        case 6: self = .done
        case 7: self = .entry(try Attributes(from: &reader))
        case 8: self = .created(try Attributes(from: &reader), try Layout(from: &reader))
        case 9: self = .opened(try Attributes(from: &reader), try Layout(from: &reader))
        case 10: self = .layout(try Layout(from: &reader))
        case 12: self = .session(try reader.read(), time: try reader.readTimestamp())
        case 13:
            let inodes = try reader.readList(bound: 1 << 16) {
                (reader) throws(DecodeError) -> InodeID in try reader.read()
            }
            self = .orphans(inodes, time: try reader.readTimestamp())
        case 14: self = .set(try SetConfiguration(from: &reader))
        case 15: self = .refused(try Refusal(from: &reader))
        case 16:
            self = .extended(
                try reader.readList(bound: Limits.extendedFiles) { (reader) throws(DecodeError) in
                    try FileEndOutcome(from: &reader)
                })
        default: throw .invalid(field: "outcome", value: UInt64(tag))
        }
    }
}

extension ByteWriter {
    fileprivate mutating func encode(_ tag: UInt8, _ attributes: Attributes, _ layout: Layout) {
        write(tag)
        attributes.encode(into: &self)
        layout.encode(into: &self)
    }
}
