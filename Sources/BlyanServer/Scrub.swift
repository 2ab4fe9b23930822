public import BlyanKernel
internal import BlyanModel
internal import Foundation

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
        var done = 0
        for hash in blocks[start...] + blocks[..<start] {
            try? Data(hash.description.utf8).write(to: cursor, options: .atomic)
            do throws(KernelError) {
                guard let block = try store.block(hash) else { continue }
                guard try read(block, pause) else { return done }
            } catch {
                onDamage(error.description)
            }
            done += 1
        }
        try? Data().write(to: cursor, options: .atomic)
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
                hint: "restore the payload from a copy, or delete it and import the model again")
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
        ) { damage in
            messages.publish(damage, to: .payloadDamaged)
            log(damage)
        }
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

extension Topic<String> {
    /// The scrub found a payload that is not what was signed; the message says which and what to do.
    public static var payloadDamaged: Self { Topic("payload.damaged") }
}
