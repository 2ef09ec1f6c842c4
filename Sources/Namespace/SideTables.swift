// The elements of the namespace's tables: what only some inodes, sessions or sets have.

import Base

/// The target of a symlink.
struct SymlinkTarget: Keyed, Sendable {
    var inode: InodeID
    var target: [UInt8]
    var key: InodeID { inode }
}

/// The extended attributes of one inode; never empty.
struct AttributeList: Keyed, Sendable {
    struct Item: Sendable {
        var name: [UInt8]
        var value: [UInt8]
    }
    var inode: InodeID
    /// By name, bytewise.
    var items: [Item]
    var key: InodeID { inode }

    /// Where the name is or would be.
    func position(_ name: [UInt8]) -> (index: Int, isThere: Bool) {
        for (index, item) in items.enumerated() {
            if item.name == name { return (index, true) }
            if name.lexicographicallyPrecedes(item.name) { return (index, false) }
        }
        return (items.count, false)
    }
    /// Bytes of all names and values.
    var bytes: Int { items.reduce(0) { $0 + $1.name.count + $1.value.count } }
}

/// A chunk after a file's first that has a place.
struct ChunkPlace: Keyed, Sendable {
    struct Key: Comparable, Sendable {
        var inode: InodeID
        var index: UInt32
        static func < (left: Key, right: Key) -> Bool {
            left.inode != right.inode ? left.inode < right.inode : left.index < right.index
        }
    }
    var key: Key
    var version: UInt32
    var set: SetID
}

/// The unconfirmed cuts of a file; never empty, at most `Limits.cuts`, sizes ascending.
struct FileCuts: Keyed, Sendable {
    var inode: InodeID
    var cuts: [Cut]
    var key: InodeID { inode }
}

/// A chunk that is in no layout any more and in no order yet.
struct LooseChunk: Sendable {
    var set: SetID
    var chunk: ChunkID
}

/// The orders of a set.
struct SetDrop: Keyed, Comparable, Sendable {
    var set: SetID
    var order: UInt64
    var key: SetDrop { self }
    static func < (left: SetDrop, right: SetDrop) -> Bool {
        left.set != right.set ? left.set < right.set : left.order < right.order
    }
}

/// A client's session (M12).
struct Session: Keyed, Sendable {
    struct Reply: Sendable {
        var number: RequestNumber
        var outcome: Outcome
    }
    var id: SessionID
    var nonce: UInt64
    var label: String
    /// It expires at the first tick at or after this time.
    var deadline: Timestamp
    /// Changes below this number are answered and forgotten.
    var firstIncomplete = RequestNumber(rawValue: 0)
    /// By number; at most `Limits.repliesPerSession`.
    var replies: [Reply] = []
    var key: SessionID { id }

    /// Where the number's reply is or would be.
    func position(_ number: RequestNumber) -> Int {
        // New replies come at the end.
        var index = replies.count
        while index > 0, !(replies[index - 1].number < number) { index -= 1 }
        return index
    }
}

/// The way from a nonce to its session.
struct SessionNonce: Keyed, Sendable {
    var nonce: UInt64
    var session: SessionID
    var key: UInt64 { nonce }
}

/// An inode without a link, kept for its holders (K13).
struct Orphan: Keyed, Sendable {
    var inode: InodeID
    /// How many; at least 1.
    var holders: UInt32
    var key: InodeID { inode }
}

/// A session holds an orphan.
struct Holding: Keyed, Comparable, Sendable {
    var session: SessionID
    var inode: InodeID
    var key: Holding { self }
    static func < (left: Holding, right: Holding) -> Bool {
        left.session != right.session
            ? left.session < right.session : left.inode < right.inode
    }
}
