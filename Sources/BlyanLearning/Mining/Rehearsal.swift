internal import BlyanKernel
package import BlyanModel
internal import Synchronization

/// Text that a model makes of itself: a stand-in for what it was trained on, which nobody need have.
package enum Rehearsal {
    /// Tokens of one text.
    private static let length = 256

    /// Samples about `count` tokens at temperature 1, each text from its beginning; the same for the same seed.
    ///
    /// Runs with a decoder of its own: a chat does not wait for it.
    ///
    /// - Parameters:
    ///   - yields: its threads yield to all else.
    ///   - onMade: told how many tokens there are, from any thread; throws to stop.
    /// - Throws: What generating throws; ``KernelError`` with code `cancelled` on request.
    package static func make(
        _ count: Int, by model: LoadedModel, seed: UInt64, threads: Int,
        yields: Bool = true, _ onMade: @escaping @Sendable (Int) throws -> Void
    ) throws -> TokenStream {
        let first = model.tokenizer.document.endTokens.first ?? 0
        let length = min(length, model.model.document.config.maximumPositions)
        var random = SplitMix64(seed: seed)
        let seeds = (0..<(count + length - 1) / length).map { _ in random.next() }
        let counter = Counter()
        let shares = (0..<min(threads, seeds.count)).map { thread in
            Background<[Int: [Int]]>(yields: yields) {
                let runner = try model.variant([], threads: 1)
                var texts: [Int: [Int]] = [:]
                for i in stride(from: thread, to: seeds.count, by: threads) {
                    try Cancellation.check()
                    texts[i] = try text(runner, first, length, seeds[i])
                    try onMade(counter.add(length))
                }
                return texts
            }
        }
        var texts: [Int: [Int]] = [:]
        // Whoever failed first is told last: none is left running.
        let results = shares.map { share in Result { try share.value() } }
        for result in results { texts.merge(try result.get()) { own, _ in own } }
        return TokenStream(tokens: seeds.indices.flatMap { texts[$0] ?? [] })
    }

    private static func text(_ runner: ModelRunner, _ first: Int, _ length: Int, _ seed: UInt64)
        throws -> [Int]
    {
        var tokens = [first]
        var sampler = try Sampler(temperature: 1, topK: 0, topP: 1, seed: seed)
        _ = try runner.generate(
            runner.makeSession(capacity: length), prompt: [first], sampler: &sampler,
            limit: length - 1, ends: []
        ) { token in
            tokens.append(token)
            return true
        }
        return tokens
    }
}

/// Counts from several threads.
private final class Counter: Sendable {
    private let made = Atomic<Int>(0)

    func add(_ count: Int) -> Int { made.add(count, ordering: .relaxed).newValue }
}
