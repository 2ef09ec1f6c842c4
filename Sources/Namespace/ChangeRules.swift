// What is wrong with a change whatever the state is: bounds and malformed names.

package import Base

extension Change {
    /// Why the change is refused in every state, or nil. Apply checks it again, so a leader may
    /// answer with it at once and save the log an entry.
    package var fault: FileError? {
        switch self {
        case .create(let creation): return creation.fault
        case .link(_, _, let name), .removeDirectory(_, let name):
            return nameFault(name)
        case .unlink(_, let name, let holders):
            return nameFault(name) ?? listFault(holders.count, Limits.sessions)
        case .rename(_, let name, _, let newName, let flags, let holders):
            let known: RenameFlags = [.noReplace, .exchange]
            guard known.isSuperset(of: flags), flags != known else { return .invalid }
            return nameFault(name) ?? nameFault(newName)
                ?? listFault(holders.count, Limits.sessions)
        case .setAttributes(_, let changes):
            return (changes.mode ?? 0) > 0o7777 ? .invalid : nil
        case .truncate(_, let size): return size > Limits.fileSize ? .tooLarge : nil
        case .extend(let files, _):
            return files.isEmpty ? .invalid : listFault(files.count, Limits.extendedFiles)
        case .allocate(_, let first, let sets):
            guard !sets.isEmpty, sets.count <= Limits.chunksPerAllocation else {
                return .invalid
            }
            let end = UInt64(first) + UInt64(sets.count)
            return end * UInt64(Limits.chunk) > Limits.fileSize ? .tooLarge : nil
        case .setExtendedAttribute(_, let name, let value, let flags):
            guard flags.rawValue <= 3 else { return .invalid }
            return attributeNameFault(name)
                ?? (value.count > Limits.attributeValue ? .listTooLong : nil)
        case .removeExtendedAttribute(_, let name): return attributeNameFault(name)
        case .releaseOrphans, .renewSession, .closeSession, .operate: return nil
        }
    }
}

extension Creation {
    fileprivate var fault: FileError? {
        if let fault = nameFault(name) { return fault }
        guard mode <= 0o7777 else { return .invalid }
        guard kind == .symlink else { return target.isEmpty ? nil : .invalid }
        guard !target.isEmpty else { return .notFound }
        guard target.count <= Limits.symlinkTarget else { return .nameTooLong }
        return target.contains(0) ? .invalid : nil
    }
}

/// Names are 1 to `Limits.nameLength` bytes without `/` and NUL, and not "." or "..".
func nameFault(_ name: [UInt8]) -> FileError? {
    if name.count > Limits.nameLength { return .nameTooLong }
    if name.isEmpty || name == [0x2E] || name == [0x2E, 0x2E] { return .invalid }
    return name.contains { $0 == 0x2F || $0 == 0 } ? .invalid : nil
}

private func attributeNameFault(_ name: [UInt8]) -> FileError? {
    guard !name.isEmpty, name.count <= Limits.attributeName else { return .range }
    return name.contains(0) ? .invalid : nil
}

private func listFault(_ count: Int, _ bound: Int) -> FileError? {
    count > bound ? .invalid : nil
}
