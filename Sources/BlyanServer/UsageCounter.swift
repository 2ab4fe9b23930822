internal import BlyanKernel
internal import BlyanLedger
internal import BlyanModel
internal import Synchronization

/// How often experts were loaded and used since the process began, from the messages of the models.
public final class UsageCounter: Sendable {
    /// An expert's figures.
    public struct Figures: Codable, Sendable, Equatable {
        /// Times that it was mapped.
        public var loads = 0
        /// Tokens that it served.
        public var tokens = 0

        /// No use yet.
        public init() {}
    }

    private let counts = Mutex<[String: Figures]>([:])

    /// Figures by "model/expert".
    public var figures: [String: Figures] { counts.withLock { $0 } }

    func subscribe(to messages: MessageRouter) {
        messages.subscribe(to: .expertLoaded, capacity: 4096, whenFull: .dropOldest) {
            [self] message in
            counts.withLock {
                $0["\(message.model)/\(message.expert)", default: Figures()].loads += 1
            }
        }
        messages.subscribe(to: .expertsUsed, capacity: 4096, whenFull: .dropOldest) {
            [self] message in
            counts.withLock { counts in
                for (expert, use) in message.use.experts {
                    counts["\(message.model)/\(expert)", default: Figures()].tokens += use.tokens
                }
            }
        }
    }
}

extension UsageStore {
    /// Counts what is published as a message: where it is published, so that a mailbox that is full or a process that
    /// ends loses nothing.
    func count(_ message: LoadedModel.ExpertLoaded) {
        // Shared parts serve every token: only experts are counted.
        if message.expert.contains(".expert") { loaded(message.block) }
    }

    /// As ``count(_:)-(LoadedModel.ExpertLoaded)``.
    func count(_ message: LoadedModel.ExpertsUsed) {
        used(
            message.use.experts.compactMap { expert, use in
                message.blocks[expert].map { block in
                    Step(
                        block: block, isFirst: use.isFirst, tokens: use.tokens, steps: use.steps,
                        nanoseconds: use.nanoseconds)
                }
            }, payer: Account(message.use.payer), time: Node.now())
    }
}
