internal import CBlyanMath

/// Picks the next token from logits.
public struct Sampler: Sendable {
    /// 0 = greedy; otherwise logits are divided by it.
    public var temperature: Float
    /// Only the most likely `topK` tokens; 0 = all.
    public var topK: Int
    /// Only the smallest set of tokens whose probability reaches this, in (0, 1].
    public var topP: Float
    private var state: UInt64

    /// Makes a sampler; the same seed picks the same tokens from the same logits.
    ///
    /// - Throws: ``ModelError`` for a temperature below 0 or not finite, a negative `topK`, or `topP` outside (0, 1].
    public init(temperature: Float = 0, topK: Int = 0, topP: Float = 1, seed: UInt64 = 0) throws {
        guard temperature.isFinite, temperature >= 0 else {
            throw ModelError(
                "temperature is \(temperature), expected a finite number that is not negative")
        }
        guard topK >= 0 else { throw ModelError("top-k is \(topK), expected 0 (all) or more") }
        guard topP > 0, topP <= 1 else {
            throw ModelError("top-p is \(topP), expected above 0, at most 1")
        }
        self.temperature = temperature
        self.topK = topK
        self.topP = topP
        state = seed
    }

    /// The index of the largest logit; the lowest index where several are equal.
    public static func greedy(_ logits: [Float]) -> Int {
        var best = 0
        for (i, logit) in logits.enumerated() where logit > logits[best] { best = i }
        return best
    }

    /// The next token.
    public mutating func next(_ logits: [Float]) -> Int {
        guard temperature > 0 else { return Self.greedy(logits) }
        var order = Array(logits.indices)
        order.sort { (logits[$0], $1) > (logits[$1], $0) }
        if topK > 0, topK < order.count { order.removeSubrange(topK...) }
        let largest = logits[order[0]]
        var weights = order.map { blyan_math_exp(Double((logits[$0] - largest) / temperature)) }
        let total = weights.reduce(0, +)
        if topP < 1 {
            var reached = 0.0
            let kept = weights.firstIndex { weight in
                reached += weight
                return reached >= Double(topP) * total
            }
            if let kept { weights.removeSubrange((kept + 1)...) }
        }
        var point = uniform() * weights.reduce(0, +)
        for (i, weight) in weights.enumerated() {
            point -= weight
            if point < 0 { return order[i] }
        }
        return order[weights.count - 1]
    }

    /// SplitMix64 (Steele, Lea, Flood 2014), as a number in [0, 1).
    private mutating func uniform() -> Double {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return Double((z ^ (z >> 31)) >> 11) * 0x1p-53
    }
}
