/// Text as one stream of tokens, from which windows are drawn by a seed.
package struct TokenStream: Sendable {
    /// All documents' tokens, one after the other.
    package let tokens: [Int]

    package init(tokens: [Int]) { self.tokens = tokens }

    /// The windows of a step: the same for the same seed, whatever was drawn before.
    ///
    /// - Parameter others: half of the windows come from it.
    package func batch(step: Int, _ options: TrainingOptions, mixing others: TokenStream? = nil)
        -> TokenBatch
    {
        var random = SplitMix64(
            seed: options.seed &+ UInt64(truncatingIfNeeded: step) &* 0x9E37_79B9)
        var batch = TokenBatch()
        for i in 0..<options.batch {
            let tokens = i % 2 == 1 ? others?.tokens ?? tokens : tokens
            let length = min(options.sequence + 1, tokens.count)
            let start = Int(random.next(below: UInt64(tokens.count - length + 1)))
            batch.append(tokens[start..<start + length])
        }
        return batch
    }
}

/// Random numbers that repeat (Steele, Lea, Flood, OOPSLA 2014).
package struct SplitMix64: RandomNumberGenerator, Sendable {
    private var state: UInt64

    package init(seed: UInt64) { state = seed }

    package mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    /// A number below `limit`, which is above 0, all equally likely.
    package mutating func next(below limit: UInt64) -> UInt64 {
        // Lemire, arXiv 1805.10941.
        var (high, low) = next().multipliedFullWidth(by: limit)
        if low < limit {
            let threshold = (0 &- limit) % limit
            while low < threshold { (high, low) = next().multipliedFullWidth(by: limit) }
        }
        return high
    }
}
