extension ModelConfig {
    /// Layers of a model at most.
    package static let layerLimit = 10_000
    /// Experts of a model at most.
    package static let expertLimit = 2_000_000

    /// Checks that sizes are such that no product of two of them overflows and no list of parts fills the memory.
    ///
    /// - Parameter source: what errors name.
    /// - Throws: ``ModelError`` naming the size, its limit and the source.
    package func checkLimits(of source: String) throws(ModelError) {
        let widest = layers.map(\.intermediateSize).max() ?? 1
        let shared = layers.map(\.sharedIntermediateSize).max() ?? 0
        let experts = layers.reduce(0) { $0 + $1.expertCount }
        let sizes: [(String, Int, ClosedRange<Int>)] = [
            ("vocabulary", vocabularySize, 1...1 << 24), ("hidden size", hiddenSize, 1...1 << 20),
            ("number of heads", headCount, 1...1 << 14), ("head size", headSize, 1...1 << 10),
            ("number of layers", layers.count, 1...Self.layerLimit),
            ("number of positions", maximumPositions, 1...1 << 31),
            ("feed-forward size", widest, 1...1 << 24), ("shared expert size", shared, 0...1 << 24),
            ("number of experts", experts, 0...Self.expertLimit),
        ]
        for (name, value, limits) in sizes where !limits.contains(value) {
            throw ModelError(
                "\(source): the \(name) is \(value), expected \(limits.lowerBound) to \(limits.upperBound)"
            )
        }
    }
}
