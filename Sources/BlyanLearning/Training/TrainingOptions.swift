package import BlyanModel
internal import Foundation

/// How parts are trained.
public struct TrainingOptions: Codable, Sendable, Equatable {
    /// Optimiser steps.
    public var steps: Int
    /// Sequences a step.
    public var batch = 16
    /// Targets a sequence.
    public var sequence = 128
    /// The highest learning rate.
    public var rate: Float = 1e-3
    /// Steps over which the rate rises from 0.
    public var warmup = 20
    /// What the rate falls to along a cosine, as a share of the highest.
    public var floor: Float = 0.1
    /// AdamW's averaging of gradients and of their squares.
    public var beta1: Float = 0.9
    /// AdamW's averaging of squares.
    public var beta2: Float = 0.95
    /// Added to the root of the mean square.
    public var epsilon: Float = 1e-8
    /// Share of the rate by which weights shrink in a step.
    public var weightDecay: Float = 0
    /// The largest norm of all derivatives together; longer ones are shortened to it.
    public var clip: Float = 1
    /// What batches are drawn by.
    public var seed: UInt64 = 1
    /// Tokens that the model itself makes before it is trained, which half of each batch then comes from: what it
    /// knew it keeps (pseudo-rehearsal, A.
    ///
    /// Robins, Connection Science 7, 1995).
    ///
    /// 0 = none.
    public var rehearsal = 0

    /// Options for a number of steps, the rest as usual.
    public init(steps: Int) {
        self.steps = steps
        warmup = max(1, min(20, steps / 5))
    }

    /// The learning rate of a step, counted from 0.
    package func rate(at step: Int) -> Float {
        if step < warmup { return rate * Float(step + 1) / Float(warmup) }
        let progress = Double(step - warmup) / Double(max(1, steps - warmup))
        let cosine = Float(0.5 * (1 + cos(Double.pi * min(1, progress))))
        return rate * (floor + (1 - floor) * cosine)
    }

    /// - Throws: ``ModelError`` naming the option that makes no sense.
    package func validate() throws(ModelError) {
        func require(_ holds: Bool, _ what: String) throws(ModelError) {
            guard holds else { throw ModelError("the training option \(what)") }
        }
        try require((1...10_000_000).contains(steps), "steps is \(steps), expected 1 to 10000000")
        try require((1...65_536).contains(batch), "batch is \(batch), expected 1 to 65536")
        try require(
            (1...1_048_576).contains(sequence), "sequence is \(sequence), expected 1 to 1048576")
        try require(rate > 0 && rate <= 1, "rate is \(rate), expected more than 0, at most 1")
        try require(
            (1...10_000_000).contains(warmup), "warmup is \(warmup), expected 1 to 10000000")
        try require((0...1).contains(floor), "floor is \(floor), expected 0 to 1")
        try require(
            beta1 >= 0 && beta1 < 1 && beta2 >= 0 && beta2 < 1,
            "beta is \(beta1) and \(beta2), expected 0 to less than 1")
        try require(epsilon > 0 && epsilon < 1, "epsilon is \(epsilon), expected more than 0")
        try require(
            (0...1).contains(weightDecay), "weight decay is \(weightDecay), expected 0 to 1")
        try require(
            (0...100_000_000).contains(rehearsal),
            "rehearsal is \(rehearsal), expected 0 to 100000000")
        try require(clip > 0 && clip.isFinite, "clip is \(clip), expected more than 0")
    }
}
