// The names of one directory.
//
// Invariants:
//  1. A cookie is never reused: reading a directory goes on after the last cookie seen, whatever
//     was removed or added since. A name that stays is seen exactly once.
//  2. `names` has one key for each entry: the hash of its name and its cookie. Names are compared
//     byte by byte; equal hashes only cost time.

import Base

/// One name.
struct Dentry: Sendable {
    var cookie: UInt64
    var inode: InodeID
    var name: [UInt8]
}

struct Directory: Sendable {
    /// 1 and 2 are the mount's, for "." and "..".
    private(set) var nextCookie: UInt64 = 3
    private(set) var entries = DentryTable()
    private var names = NameIndex()

    /// Without a name, as a new one or as a snapshot begins it.
    init(nextCookie: UInt64 = 3) { self.nextCookie = nextCookie }

    /// Cookies go on so far ahead.
    mutating func skipCookies(_ count: UInt64) { nextCookie += count }

    /// Takes the next name of a snapshot; false if it can't be there.
    mutating func restore(_ entry: Dentry) -> Bool {
        guard entry.cookie >= 3, entry.cookie < nextCookie, find(entry.name) == nil,
            entries.append(entry.cookie, entry.inode, entry.name)
        else { return false }
        names.insert(NameKey(hash: NameKey.hash(entry.name), cookie: entry.cookie))
        return true
    }

    func find(_ name: [UInt8]) -> Dentry? {
        let hash = NameKey.hash(name)
        for key in names.candidates(hash) where key.hash == hash {
            if let inode = entries.inode(key.cookie, named: name) {
                return Dentry(cookie: key.cookie, inode: inode, name: name)
            }
        }
        return nil
    }

    mutating func insert(_ name: [UInt8], _ inode: InodeID) {
        let isLast = entries.append(nextCookie, inode, name)
        precondition(isLast, "cookies ascend")
        names.insert(NameKey(hash: NameKey.hash(name), cookie: nextCookie))
        nextCookie += 1
    }

    mutating func remove(_ entry: Dentry) {
        entries.remove(entry.cookie)
        names.remove(NameKey(hash: NameKey.hash(entry.name), cookie: entry.cookie))
    }

    /// The name at a cookie leads to another inode.
    mutating func replace(_ cookie: UInt64, with inode: InodeID) {
        entries.replace(cookie, with: inode)
    }
}
