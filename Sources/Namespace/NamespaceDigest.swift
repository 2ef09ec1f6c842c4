// The digest of the whole state: equal on every master that applied the same log (M15). Tables
// are walked in their order; what is derived from other parts (name hashes, places in the table
// of directories) is left out.

package import Base

extension Namespace {
    /// Reads the whole state. The bytes are summed in pieces, each after the digest so far.
    package func digest() -> Digest {
        var sum = DigestSum()
        sum.add { writer in
            writer.write(time)
            writer.write(applied)
            writer.write(leader.round)
            writer.write(leader.master)
            for counter in [lastSession, lastSet, lastOrder, inodes.firstFree] {
                writer.write(counter)
            }
        }
        for slot in 1...inodes.lastSlot { addInode(slot, to: &sum) }
        for target in targets { sum.add { $0.writeBytes(target.target) } }
        for place in places {
            sum.add {
                $0.write(place.key.inode)
                $0.write(place.key.index)
                $0.write(place.version)
                $0.write(place.set)
            }
        }
        addSessions(to: &sum)
        addSets(to: &sum)
        return sum.finish()
    }

    private func addInode(_ slot: Int, to sum: inout DigestSum) {
        let record = inodes[slot]
        let isDirectory = record.kind == .directory
        sum.add { writer in
            writer.write(record.generation)
            writer.write(record.kind?.rawValue ?? 0)
            writer.write(record.mode)
            for value in [record.links, record.user, record.group, record.truncation] {
                writer.write(value)
            }
            writer.write(isDirectory ? 0 : record.auxiliary)
            for value in [record.size, record.place] { writer.write(value) }
            for time in [record.accessed, record.modified, record.changed] {
                writer.write(time)
            }
        }
        guard record.kind != nil else { return }
        if isDirectory {
            let directory = directory(slot)
            sum.add {
                $0.write(directory.nextCookie)
                $0.write(UInt64(directory.entries.count))
            }
            for entry in directory.entries {
                sum.add {
                    $0.write(entry.cookie)
                    $0.write(entry.inode)
                    $0.writeBytes(entry.name)
                }
            }
        }
        let inode = inodes.id(slot)
        if let list = attributeLists[inode] {
            for item in list.items {
                sum.add {
                    $0.writeBytes(item.name)
                    $0.writeBytes(item.value)
                }
            }
        }
        if let list = cuts[inode] {
            sum.add { $0.writeList(list.cuts) { $1.encode(into: &$0) } }
        }
    }

    private func addSessions(to sum: inout DigestSum) {
        for session in sessions {
            sum.add {
                $0.write(session.id)
                $0.write(session.nonce)
                $0.write(session.label)
                $0.write(session.deadline)
                $0.write(session.firstIncomplete)
            }
            for reply in session.replies {
                sum.add {
                    $0.write(reply.number)
                    reply.outcome.encode(into: &$0)
                }
            }
        }
        for holding in holdings {
            sum.add {
                $0.write(holding.session)
                $0.write(holding.inode)
            }
        }
    }

    private func addSets(to sum: inout DigestSum) {
        for server in servers { sum.add { server.encode(into: &$0) } }
        for disk in disks { sum.add { disk.encode(into: &$0) } }
        for set in setTable {
            sum.add {
                set.configuration.encode(into: &$0)
                $0.writeList(set.incarnations) { $0.write($1) }
                $0.write(set.isFull)
                $0.write(set.chunks)
                $0.write(set.number)
                $0.write(set.memberLeft)
            }
        }
        sum.add {
            $0.writeList(draining) { $0.write($1) }
            $0.writeList(removed) { $0.write($1) }
            $0.writeOptional(rebalance) { $1.encode(into: &$0) }
            scrub.encode(into: &$0)
            $0.writeList(scrubs) { writer, own in
                writer.write(own.server)
                own.order.encode(into: &writer)
            }
            $0.write(lastScrub)
            $0.writeList(fences) { $0.write($1) }
            $0.write(lastFence)
        }
        for loose in loose {
            sum.add {
                $0.write(loose.set)
                $0.write(loose.chunk)
            }
        }
        for drop in dropOrders {
            sum.add {
                $0.write(drop.order)
                $0.write(drop.set)
                $0.writeList(drop.chunks) { $0.write($1) }
            }
        }
        for cut in cutOrders { sum.add { cut.encode(into: &$0) } }
        if let load { sum.add { load.encode(into: &$0) } }
        for set in loadedSets { sum.add { set.encode(into: &$0) } }
    }
}

/// A chain of SHA-256 over pieces of 64 KiB, so that the state is never in memory twice.
private struct DigestSum {
    private var writer = ByteWriter(capacity: 80 << 10)

    mutating func add(_ write: (inout ByteWriter) -> Void) {
        write(&writer)
        if writer.count >= 64 << 10 { fold() }
    }
    private mutating func fold() {
        let digest = Digest(sha256: writer.bytes)
        writer = ByteWriter(capacity: 80 << 10)
        writer.append(digest.bytes)
    }
    func finish() -> Digest { Digest(sha256: writer.bytes) }
}
