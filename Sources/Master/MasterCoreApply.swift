// Chosen entries: every master applies them; the leader that proposed one answers who waits.

import Base
import Consensus
import Namespace
import Node
import Wire

extension MasterCore {
    mutating func apply(_ entry: ChosenEntry) {
        switch entry.body {
        case .begin(let wall):
            let action = Command.Action.begin(
                round: entry.ballot.round, leader: entry.ballot.node)
            _ = namespace.apply(Command(time: wall, action: action), slot: entry.slot)
            noteApplied(entry.slot, bytes: 0, isSnapshot: false)
        case .members(let next):
            follow(next, at: entry)
            noteApplied(entry.slot, bytes: 0, isSnapshot: false)
        case .commands(let bytes):
            var submitted: [Submitted] = []
            if let tag = entry.tag, lead?.batches.first?.tag == tag {
                submitted = lead?.batches.removeFirst().commands ?? []
                lead?.appliedTag = tag
            }
            var reader = ByteReader(bytes)
            var isSnapshot = false
            do throws(DecodeError) {
                let count = try reader.read(UInt32.self)
                for index in 0..<Int(count) {
                    let command = try Command(from: &reader)
                    let outcome = namespace.apply(command, slot: entry.slot)
                    if command.action == .snapshot { isSnapshot = true }
                    if index < submitted.count {
                        finish(submitted[index], command.action, outcome)
                    }
                }
                try reader.finish()
            } catch {
                // Another release wrote it: going on would make this master differ.
                halt("slot \(entry.slot) can't be read: \(error)")
            }
            noteApplied(entry.slot, bytes: bytes.count, isSnapshot: isSnapshot)
        }
    }

    /// A batch was not chosen as far as this leader knows: its clients ask again (S7, M12).
    mutating func failBatch(_ tag: PaxosTag) {
        guard let index = lead?.batches.firstIndex(where: { $0.tag == tag }),
            let batch = lead?.batches.remove(at: index)
        else { return }
        for command in batch.commands {
            release(command)
            if case .client(let address, _) = command.purpose { reply(.retry, to: address) }
        }
        lead?.isDirty = true
    }

    private mutating func release(_ command: Submitted) {
        for name in command.names {
            let count = lead?.names[name] ?? 0
            lead?.names[name] = count > 1 ? count - 1 : nil
        }
        switch command.purpose {
        case .register(let server): lead?.update(server) { $0.isRegistering = false }
        case .changeEpoch(let set), .fillSet(let set):
            lead?.sets.update(set) { $0.isChanging = false }
        case .createSet: lead?.sets.creating -= 1
        case .snapshot: lead?.isCallingSnapshot = false
        case .operate: lead?.isOperating = false
        case .confirm:
            lead?.confirmingDrops = [:]
            lead?.confirmingCuts = [:]
        case .client, .tick: break
        }
    }

    private mutating func finish(
        _ command: Submitted, _ action: Command.Action, _ outcome: Outcome
    ) {
        release(command)
        switch command.purpose {
        case .client(let address, let opener):
            if case .created(let attributes, _) = outcome, let opener {
                lead?.files.open(attributes.inode, by: opener)
            }
            if case .client(let session, _, _, .closeSession) = action {
                lead?.files.end(session)
            }
            if case .set(let configuration) = outcome {
                setChanged(.changeEpoch(configuration.set), outcome)
                lead?.isDirty = true
            }
            oweFences()
            reply(reply(for: outcome), to: address)
        case .register(let server):
            lead?.lastRegistration = time.now
            if outcome == .conflict {
                report(
                    "the disks of server \(server) are older than the log knows them, or copies",
                    isAlarm: true)
                lead?.update(server) { $0.isRefused = true }
            }
        case .createSet, .changeEpoch, .fillSet: setChanged(command.purpose, outcome)
        case .tick:
            for session in lead?.files.sessions ?? [] where !namespace.hasSession(session) {
                lead?.files.end(session)
            }
        case .confirm, .snapshot, .operate: break
        }
        if case .client = command.purpose { return }
        lead?.isDirty = true
    }

    private func reply(for outcome: Outcome) -> MetadataReply {
        func resolve(_ layout: Layout) -> Layout { namespace.resolve(layout, isUp: isUp) }
        return switch outcome {
        case .failed(let error): .failed(error)
        case .retry, .conflict: .retry
        case .sessionDead: .sessionDead
        case .forgotten: .forgotten
        case .refused(let refusal): .refused(refusal)
        case .done, .set: .done
        case .entry(let attributes): .entry(attributes)
        case .created(let attributes, let layout): .created(attributes, resolve(layout))
        case .opened(let attributes, let layout): .opened(attributes, resolve(layout))
        case .layout(let layout): .layout(resolve(layout))
        case .extended(let outcomes): .extended(outcomes)
        case .session(let session, let time): .session(session, time: time)
        case .orphans(let inodes, let time): .orphans(inodes, time: time)
        }
    }

    /// Queues a command of the leader's own.
    mutating func submit(_ action: Command.Action, for purpose: Purpose) {
        lead?.commands.append((action, purpose))
    }
}
