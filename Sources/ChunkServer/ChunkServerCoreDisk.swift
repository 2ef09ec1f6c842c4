// The store of the disk and the core: what is handed down, and what comes up.
// Invariant: a record that a replica has numbered or accepted is logged, or the disk has failed.

import Base
import Node
import Replication
import Store
import Wire

extension ChunkServerCore {
    /// Takes what the store tells.
    mutating func apply(_ outputs: [StoreOutput]) {
        for output in outputs where phase != .failed {
            switch output {
            case .disk(let effect): effects.append(.disk(effect))
            case .identified, .stopped: break
            case .ready: becomeReady()
            case .durable(let through): becomeDurable(through: through)
            case .read(let token, let blocks): finishRead(token, blocks)
            case .record(let token, let record): finishLoad(token, record)
            case .damaged(let set, _, let number):
                // Said once: a reader or a copy may come for it again and again.
                guard let index = places[set], !sets[index].replica.isDamaged(number) else {
                    break
                }
                let place = store.damagedPlace(set, number).map {
                    ": inode \($0.chunk.inode), the \(Limits.block) bytes from \($0.offset)"
                }
                let last =
                    sets[index].replica.members == [disk] ? ", and this is the only copy" : ""
                alarm(
                    "record \(number) of set \(set) is damaged on disk \(disk)" + (place ?? "")
                        + last)
                step(index, .damaged(number))
            case .failed(.tooSmall(let capacity, let least)):
                fail(
                    "\(capacity) bytes are too few, it needs \(least): give it more space, or "
                        + "smaller segments")
            case .failed(let failure): fail("\(failure)")
            }
        }
    }

    /// What the store holds of a set, for its replica.
    func restored(_ set: SetID) -> RestoredReplica {
        var damaged: [RecordNumber] = []
        for range in store.rot(set) {
            var number = range.lowerBound
            while number <= range.upperBound, damaged.count < Self.damagedRecords {
                damaged.append(number)
                number = number.next
            }
        }
        return RestoredReplica(
            starts: store.history(set), prepared: store.lastPrepared(set),
            committed: store.committed(set), damaged: damaged,
            recordEpoch: store.recordEpoch(set))
    }
    /// Damaged records of one set that are fetched in one run; the rest after the next start.
    private static var damagedRecords: Int { 1 << 16 }

    mutating func adopt(_ start: EpochStart, _ index: Int) {
        do throws(StoreError) {
            placed(index, at: try store.adopt(start))
        } catch {
            fail("epoch \(start.configuration.epoch) of set \(start.configuration.set): \(error)")
        }
    }

    mutating func append(_ record: Record, _ index: Int) {
        recent.add(record.payload.count, now: now)
        if sets[index].isLearner { throttle.receive(record.payload.count) }
        do throws(StoreError) {
            placed(index, at: try store.prepare(record))
        } catch {
            fail("record \(record.number) of set \(record.set): \(error)")
        }
    }

    mutating func repair(_ record: Record) {
        do throws(StoreError) {
            _ = try store.repair(record.set, record)
        } catch {
            alarm("record \(record.number) of set \(record.set) is not repaired: \(error)")
        }
    }

    /// No copy has the bytes of a record, and an operator said to go on without them.
    mutating func giveUp(_ number: RecordNumber, _ index: Int) {
        let set = sets[index].replica.set
        guard store.rot(set).contains(where: { $0.contains(number) }),
            let record = store.lostRecord(number, set)
        else { return }
        // The commit that let it be given up may have replaced it.
        guard store.isDamaged(set, number) else { return repair(record) }
        var what = "of which nothing is known"
        if case .write(let extent) = record.body {
            let place = DamagedPlace(chunk: extent.chunk, block: extent.block)
            let offset = place.offset + UInt64(extent.start)
            what = "(inode \(extent.chunk.inode), \(extent.length) bytes from \(offset))"
        }
        alarm("record \(number) of set \(set) \(what) is given up: no copy has it")
        repair(record)
    }

    /// A record that was replaced is answered at once, and then the replica asks for the next: one
    /// within the other, a learner of a set that was overwritten often would exhaust the stack.
    mutating func load(_ number: RecordNumber, _ index: Int) {
        loads.append(newTag(.load(number, set: index)))
        guard !isLoading else { return }
        isLoading = true
        while !loads.isEmpty {
            let tag = loads.removeFirst()
            guard case .load(let number, let index) = waiters[tag] else { continue }
            apply(
                store.loadRecord(token: tag, set: sets[index].replica.set, number: number))
        }
        isLoading = false
    }

    private mutating func finishLoad(_ tag: UInt64, _ record: Record?) {
        guard case .load(let number, let index) = waiters.removeValue(forKey: tag) else { return }
        if let record { return step(index, .loaded(number, .record(record))) }
        let set = sets[index].replica.set
        // What is committed and not in the index was replaced by later records.
        let isGone = number <= store.committed(set) && !store.isDamaged(set, number)
        step(index, .loaded(number, isGone ? .superseded : .unavailable))
    }
}
