extension ModelConfig {
    /// Layers of a model at most.
    package static let layerLimit = 10_000
    /// Experts of a model at most.
    package static let expertLimit = 100_000

    /// Checks everything that the arithmetic takes for granted: an importer's result, and what was read from a chain.
    ///
    /// Sizes are such that no product of two of them overflows and no list of parts fills the memory.
    /// - Parameter source: what errors name.
    /// - Throws: ``ModelError`` naming the value, its limit and the source.
    package func validate(of source: String) throws(ModelError) {
        func bad(_ what: String) -> ModelError { ModelError("\(source): \(what)") }
        func check(_ name: String, _ value: Int, _ limits: ClosedRange<Int>) throws(ModelError) {
            guard limits.contains(value) else {
                throw bad(
                    "the \(name) is \(value), expected \(limits.lowerBound) to \(limits.upperBound)"
                )
            }
        }
        try check("vocabulary", vocabularySize, 1...1 << 24)
        try check("hidden size", hiddenSize, 1...1 << 20)
        try check("number of heads", headCount, 1...1 << 14)
        try check("number of key/value heads", keyValueHeadCount, 1...headCount)
        try check("head size", headSize, 1...1 << 10)
        try check("number of positions", maximumPositions, 1...1 << 31)
        try check("number of layers", layers.count, 1...Self.layerLimit)
        guard headCount % keyValueHeadCount == 0, headSize % 2 == 0 else {
            throw bad(
                "\(headCount) heads of \(headSize) on \(keyValueHeadCount) key/value heads cannot be"
            )
        }
        var experts = 0
        var perLayer: Set<Int> = []
        for layer in layers {
            try check("feed-forward size", layer.intermediateSize, 1...1 << 24)
            try check("shared expert size", layer.sharedIntermediateSize, 0...1 << 24)
            try check("number of experts of a layer", layer.expertCount, 0...1 << 16)
            try check("sliding window", layer.slidingWindow ?? 1, 1...1 << 31)
            experts += layer.expertCount
            if layer.expertCount > 0 { perLayer.insert(layer.expertCount) }
        }
        try check("number of experts", experts, 0...Self.expertLimit)
        guard perLayer.count <= 1 else {
            throw bad("layers have \(perLayer.sorted()) experts, this build computes equal numbers")
        }
        // Of a model without experts the number says nothing.
        try check("number of experts per token", expertsPerToken, 1...(perLayer.first ?? 1 << 16))
        try checkNumbers(bad)
    }

    private func checkNumbers(_ bad: (String) -> ModelError) throws(ModelError) {
        func check(_ name: String, above0 value: Float) throws(ModelError) {
            guard value > 0, value.isFinite else {
                throw bad("the \(name) is \(value), expected a number above 0")
            }
        }
        guard normEpsilon >= 0, normEpsilon.isFinite else {
            throw bad("the epsilon of norms is \(normEpsilon), expected 0 or above")
        }
        if let clip = queryKeyValueClip {
            try check("clip of queries, keys and values", above0: clip)
        }
        try check("rope's theta", above0: rope.theta)
        switch rope.scaling {
        case .none: break
        case .linear(let factor): try check("rope's factor", above0: factor)
        case .factors(let factors):
            guard factors.count == headSize / 2 else {
                throw bad("rope has \(factors.count) factors, expected \(headSize / 2)")
            }
            for factor in factors { try check("a factor of rope", above0: factor) }
        case .llama3(let factor, let low, let high, let original):
            try check("rope's factor", above0: factor)
            try check("rope's low frequency factor", above0: low)
            try check("rope's high frequency factor", above0: high)
            try check("rope's original number of positions", above0: Float(original))
        case .yarn(let factor, let original, let fast, let slow, let attention, _):
            try check("rope's factor", above0: factor)
            try check("rope's original number of positions", above0: Float(original))
            try check("rope's beta_fast", above0: fast)
            try check("rope's beta_slow", above0: slow)
            try check("rope's attention factor", above0: attention)
        }
    }
}
