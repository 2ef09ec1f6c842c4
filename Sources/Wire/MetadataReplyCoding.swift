// The coding of the masters' answers: a tag, then the fields in order.

package import Base

extension MetadataReply {
    package func encode(into writer: inout ByteWriter) {
        switch self {
        case .failed(let error):
            writer.write(1 as UInt8)
            writer.write(error.rawValue)
        case .notLeader(let leader, let masters):
            writer.write(2 as UInt8)
            writer.writeOptional(leader) { $0.write($1) }
            masters.encode(into: &writer)
        case .retry: writer.write(3 as UInt8)
        case .sessionDead: writer.write(4 as UInt8)
        case .forgotten: writer.write(5 as UInt8)
        case .done: writer.write(6 as UInt8)
        case .entry(let attributes):
            writer.write(7 as UInt8)
            attributes.encode(into: &writer)
        case .created(let attributes, let layout):
            Self.encode(8, attributes, layout, into: &writer)
        case .opened(let attributes, let layout):
            Self.encode(9, attributes, layout, into: &writer)
        case .layout(let layout):
            writer.write(10 as UInt8)
            layout.encode(into: &writer)
        default: encodeRest(into: &writer)
        }
    }

    private static func encode(
        _ tag: UInt8, _ attributes: Attributes, _ layout: Layout, into writer: inout ByteWriter
    ) {
        writer.write(tag)
        attributes.encode(into: &writer)
        layout.encode(into: &writer)
    }

    private func encodeRest(into writer: inout ByteWriter) {
        switch self {
        case .bytes(let bytes):
            writer.write(12 as UInt8)
            writer.writeBytes(bytes)
        case .names(let names):
            writer.write(13 as UInt8)
            writer.writeList(names) { $0.writeBytes($1) }
        case .directory(let entries, let atEnd):
            writer.write(14 as UInt8)
            writer.writeList(entries) { $1.encode(into: &$0) }
            writer.write(atEnd)
        case .sets(let sets):
            writer.write(15 as UInt8)
            writer.writeList(sets) { $1.encode(into: &$0) }
        case .statistics(let statistics):
            writer.write(16 as UInt8)
            writer.write(statistics.capacity)
            writer.write(statistics.free)
            writer.write(statistics.files)
        case .session(let session, let time):
            writer.write(17 as UInt8)
            writer.write(session)
            writer.write(time)
        case .orphans(let inodes, let time):
            writer.write(18 as UInt8)
            writer.writeList(inodes) { $0.write($1) }
            writer.write(time)
        case .status(let status):
            writer.write(19 as UInt8)
            status.encode(into: &writer)
        case .map(let map):
            writer.write(20 as UInt8)
            map.encode(into: &writer)
        case .operations(let operations):
            writer.write(21 as UInt8)
            operations.encode(into: &writer)
        case .refused(let refusal):
            writer.write(22 as UInt8)
            refusal.encode(into: &writer)
        case .masters(let view):
            writer.write(23 as UInt8)
            view.encode(into: &writer)
        case .snapshot(let mark):
            writer.write(24 as UInt8)
            mark.encode(into: &writer)
        case .part(let length, let bytes):
            writer.write(25 as UInt8)
            writer.write(length)
            writer.writeBytes(bytes)
        case .extended(let outcomes):
            writer.write(26 as UInt8)
            writer.writeList(outcomes) { $1.encode(into: &$0) }
        default: preconditionFailure("coded above")
        }
    }

    package init(from reader: inout ByteReader, payload: inout ByteReader) throws(DecodeError) {
        let tag = try reader.read(UInt8.self)
        switch tag {
        case 1: self = .failed(try FileError(from: &reader))
        case 2:
            self = .notLeader(
                try reader.readOptional { (reader) throws(DecodeError) in try reader.read() },
                try Membership(from: &reader))
        case 3: self = .retry
        case 4: self = .sessionDead
        case 5: self = .forgotten
        case 6: self = .done
        case 7: self = .entry(try Attributes(from: &reader))
        case 8:
            self = .created(try Attributes(from: &reader), try Layout(from: &reader))
        case 9:
            self = .opened(try Attributes(from: &reader), try Layout(from: &reader))
        case 10: self = .layout(try Layout(from: &reader))
        default: try self.init(restTag: tag, from: &reader)
        }
    }

    private init(restTag tag: UInt8, from reader: inout ByteReader) throws(DecodeError) {
        switch tag {
        case 12:
            self = .bytes(Array(try reader.readBytes(bound: Limits.attributesPerInode)))
        case 13:
            self = .names(
                try reader.readList(bound: Limits.attributesPerInode) {
                    (reader) throws(DecodeError) in try reader.readName()
                })
        case 14:
            let entries = try reader.readList(bound: Limits.directoryPage) {
                (reader) throws(DecodeError) in try DirectoryEntry(from: &reader)
            }
            self = .directory(entries, atEnd: try reader.readBool())
        case 15:
            self = .sets(
                try reader.readList(bound: Limits.reportedSets) { (reader) throws(DecodeError) in
                    try SetView(from: &reader)
                })
        case 16:
            self = .statistics(
                CellStatistics(
                    capacity: try reader.read(), free: try reader.read(),
                    files: try reader.read()))
        case 17: self = .session(try reader.read(), time: try reader.readTimestamp())
        case 18:
            let inodes = try reader.readList(bound: 65_536) { (reader) throws(DecodeError) in
                try reader.read(InodeID.self)
            }
            self = .orphans(inodes, time: try reader.readTimestamp())
        case 19: self = .status(try CellStatus(from: &reader))
        case 20: self = .map(try SetMap(from: &reader))
        case 21: self = .operations(try CellOperations(from: &reader))
        case 22: self = .refused(try Refusal(from: &reader))
        case 23: self = .masters(try MastersView(from: &reader))
        case 24: self = .snapshot(try SnapshotMark(from: &reader))
        case 25:
            self = .part(
                length: try reader.read(),
                Array(try reader.readBytes(bound: Limits.frameData)))
        case 26:
            self = .extended(
                try reader.readList(bound: Limits.extendedFiles) { (reader) throws(DecodeError) in
                    try FileEndOutcome(from: &reader)
                })
        default: throw .invalid(field: "metadata reply", value: UInt64(tag))
        }
    }
}
