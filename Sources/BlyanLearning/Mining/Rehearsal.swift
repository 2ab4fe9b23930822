internal import BlyanKernel
internal import BlyanModel

/// Text that a model makes of itself: a stand-in for what it was trained on, which nobody need have.
enum Rehearsal {
    /// Tokens of one text.
    private static let length = 256

    /// Samples about `count` tokens at temperature 1, each text from its beginning.
    ///
    /// - Throws: What generating throws; ``KernelError`` with code `cancelled` on request.
    static func make(
        _ count: Int, by model: LoadedModel, seed: UInt64, _ onMade: (Int) throws -> Void
    ) throws -> TokenStream {
        let first = model.tokenizer.document.endTokens.first ?? 0
        let length = min(length, model.model.document.config.maximumPositions)
        var random = SplitMix64(seed: seed)
        var tokens: [Int] = []
        while tokens.count < count {
            try Cancellation.check()
            var sampler = try Sampler(temperature: 1, topK: 0, topP: 1, seed: random.next())
            let session = try model.runner.makeSession(capacity: length)
            tokens.append(first)
            _ = try model.runner.generate(
                session, prompt: [first], sampler: &sampler, limit: length - 1, ends: []
            ) { token in
                tokens.append(token)
                return true
            }
            try onMade(tokens.count)
        }
        return TokenStream(tokens: tokens)
    }
}
