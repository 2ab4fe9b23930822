package import BlyanModel

/// Trains parts of a model on batches of tokens.
///
/// Not thread-safe.
package final class Trainer {
    package let options: TrainingOptions
    package let network: Network
    package let optimizer: Optimizer
    private let gradients: Gradients

    /// What a step came to.
    package struct Step: Sendable {
        /// Mean loss of the batch before the step, in nats a token.
        package let loss: Double
        /// Norm of the derivatives before clipping.
        package let norm: Float
        /// Tokens that were predicted.
        package let tokens: Int
    }

    /// A trainer of `parts`.
    ///
    /// - Throws: ``ModelError`` for a part that the model has not, or options that make no sense.
    package init(_ network: Network, parts: Set<String>, _ options: TrainingOptions)
        throws(ModelError)
    {
        try options.validate()
        guard !parts.isEmpty else { throw ModelError("there is no part to train") }
        self.options = options
        self.network = network
        gradients = try Gradients(of: parts, in: network.weights)
        optimizer = try Optimizer(network.weights, gradients, pool: network.multiplier.pool)
    }

    /// One step on a batch.
    ///
    /// - Throws: As ``Network/backward(_:into:)``, ``ModelError`` if derivatives are not finite; then no weight has changed.
    package func step(_ batch: TokenBatch) throws -> Step {
        gradients.clear()
        let losses = try network.backward(batch, into: gradients)
        let norm = try optimizer.step(rate: options.rate(at: optimizer.steps), options)
        let count = max(1, batch.targetCount)
        return Step(
            loss: losses.reduce(0) { $0 + Double($1) } / Double(count), norm: norm, tokens: count)
    }
}
