public import BlyanKernel
internal import BlyanModel
internal import Foundation
internal import Synchronization

/// How far the scrub is.
public struct ScrubState: Encodable, Sendable {
    /// Passes over all payloads that came to their end since the process began.
    public internal(set) var passes = 0
    /// Payloads read in the pass under way.
    public internal(set) var payloads = 0
    /// Payloads of a pass.
    public internal(set) var allPayloads = 0
    /// Payloads that were found damaged since the process began, once a pass each.
    public internal(set) var damaged = 0
}

/// Reads all payloads again and again in the background, a share of one core at most, so that rot is found while a
/// copy may still exist elsewhere.
///
/// Bytes that the system keeps in memory are read from there: damage below them shows once they have left it.
final class Scrub: Sendable {
    /// Bytes that are hashed between two pauses.
    private static let step: UInt64 = 1 << 20

    private let store: ChainStore
    private let cursor: URL
    private let share: Double
    private let onDamage: @Sendable (String) -> Void
    let state = Mutex(ScrubState())

    /// - Parameters:
    ///   - cursor: file that holds the block to go on from.
    ///   - percent: share of one core, 1 to 100.
    ///   - onDamage: gets a sentence a damaged payload.
    init(
        _ store: ChainStore, cursor: URL, percent: Int,
        onDamage: @escaping @Sendable (String) -> Void
    ) {
        self.store = store
        self.cursor = cursor
        share = Double(min(100, max(1, percent))) / 100
        self.onDamage = onDamage
    }

    /// Goes once through the payloads from where the last pass stopped, wrapping around.
    ///
    /// - Parameter pause: waits so many seconds, and answers whether to go on.
    /// - Returns: Payloads read to their end.
    func pass(pause: (Double) -> Bool) throws(KernelError) -> Int {
        let blocks = try store.blocksWithPayloads()
        let text = try? String(contentsOf: cursor, encoding: .utf8)
        let start = blocks.firstIndex { $0.description == text } ?? 0
        state.withLock { ($0.payloads, $0.allPayloads) = (0, blocks.count) }
        var done = 0
        for hash in blocks[start...] + blocks[..<start] {
            try? Data(hash.description.utf8).write(to: cursor, options: .atomic)
            do throws(KernelError) {
                guard let block = try store.block(hash) else { continue }
                guard try read(block, pause) else { return done }
            } catch {
                onDamage(error.description)
                state.withLock { $0.damaged += 1 }
            }
            done += 1
            state.withLock { $0.payloads = done }
        }
        try? Data().write(to: cursor, options: .atomic)
        state.withLock { $0.passes += 1 }
        return done
    }

    /// Compares all leaves with the signed root and all bytes with the payload's hash; whether it came to the end.
    private func read(_ block: Block, _ pause: (Double) -> Bool) throws(KernelError) -> Bool {
        let payload = try store.map(block, mode: .touch)
        var hasher = SHA256()
        var offset: UInt64 = 0
        while offset < payload.size {
            let length = min(Self.step, payload.size - offset)
            var failure: KernelError?
            let taken = ContinuousClock().measure {
                do throws(KernelError) {
                    let start = try unsafe payload.read(offset: offset, length: length)
                    unsafe hasher.update(
                        UnsafeRawBufferPointer(start: start, count: Int(length)))
                } catch {
                    failure = error
                }
            }
            if let failure { throw failure }
            offset += length
            guard pause((taken / .seconds(1)) * (1 / share - 1)) else { return false }
        }
        try payload.checkFault()
        guard hasher.finalize() == block.header.payloadHash else {
            throw KernelError(
                .integrity,
                "the payload of \(payload.label) does not have the hash that was signed",
                hint:
                    "put a copy of its file back; the weights of an imported model can also be imported again, once the file is deleted"
            )
        }
        return true
    }
}

extension Node {
    /// Re-reads all payloads in the background, a pass an hour, at the manifest's share of a core, until told to stop.
    ///
    /// Returns then, or at once if the share is 0. Damage is published to ``Topic/payloadDamaged`` and logged.
    ///
    /// - Parameters:
    ///   - isOver: asked several times a second.
    ///   - log: gets a line for each damaged payload.
    public func scrub(
        until isOver: @Sendable () -> Bool, log: @escaping @Sendable (String) -> Void
    ) {
        guard manifest.scrubPercent > 0 else { return }
        let messages = messages
        let scrub = Scrub(
            store, cursor: home.appendingPathComponent("scrub"), percent: manifest.scrubPercent
        ) { [self] damage in
            forgetPayloads()
            messages.publish(damage, to: .payloadDamaged)
            log(damage)
        }
        // Whoever asks knows the topic and not the scrub.
        let questions = messages.subscribe(to: .scrubState, capacity: 64, whenFull: .dropNewest) {
            $0.reply(.success(scrub.state.withLock { $0 }))
        }
        defer { questions.close() }
        func pause(_ seconds: Double) -> Bool {
            var rest = seconds
            while rest > 0, !isOver() {
                Thread.sleep(forTimeInterval: min(rest, 0.2))
                rest -= 0.2
            }
            return !isOver()
        }
        repeat {
            do throws(KernelError) { _ = try scrub.pass(pause: pause) } catch { log(error.message) }
        } while pause(3600)
    }
}

extension Node {
    /// How far the scrub of this process is; nil if there is none, or none that answers within a second.
    public func scrubState() -> ScrubState? {
        guard manifest.scrubPercent > 0 else { return nil }
        let answer = Mutex<ScrubState?>(nil)
        let isThere = DispatchSemaphore(value: 0)
        Task { [messages] in
            let state = try? await messages.ask((), on: .scrubState, within: .seconds(1))
            answer.withLock { $0 = state }
            isThere.signal()
        }
        isThere.wait()
        return answer.withLock { $0 }
    }
}

extension Topic<Question<Void, ScrubState>> {
    /// Asks how far the scrub is.
    static var scrubState: Self { Topic("scrub.state") }
}

extension Topic<String> {
    /// The scrub found a payload that is not what was signed; the message says which and what to do.
    public static var payloadDamaged: Self { Topic("payload.damaged") }
}
