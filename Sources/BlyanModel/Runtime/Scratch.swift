internal import Foundation

/// Buffers that a step works in; they grow to the largest step seen and are reused.
final class Scratch {
    /// Residual stream: tokens × hidden.
    let x = AlignedBuffer<Float>(count: 0)
    /// Normalised input of a part, then the attention's output: tokens × hidden.
    let normed = AlignedBuffer<Float>(count: 0)
    /// Queries and attended values: tokens × heads × head size.
    let query = AlignedBuffer<Float>(count: 0)
    let attended = AlignedBuffer<Float>(count: 0)
    /// Rotation of each row: tokens × half a head.
    let cosines = AlignedBuffer<Float>(count: 0)
    let sines = AlignedBuffer<Float>(count: 0)
    /// Attention scores, a stretch for each task.
    let scores = AlignedBuffer<Float>(count: 0)
    /// Router: tokens × experts logits; tokens × slots ids and weights.
    let routerLogits = AlignedBuffer<Float>(count: 0)
    let ids = AlignedBuffer<UInt32>(count: 0)
    let shares = AlignedBuffer<Float>(count: 0)
    /// Experts: gathered rows × hidden, rows × width twice, and each task's output.
    let gathered = AlignedBuffer<Float>(count: 0)
    let gate = AlignedBuffer<Float>(count: 0)
    let up = AlignedBuffer<Float>(count: 0)
    let output = AlignedBuffer<Float>(count: 0)
    /// Activations prepared for the kernels.
    let prepared = AlignedBuffer<UInt8>(count: 0)
    let preparedToo = [AlignedBuffer<UInt8>(count: 0), AlignedBuffer<UInt8>(count: 0)]
    /// Rows of a matrix as f32, for the library.
    let converted = AlignedBuffer<Float>(count: 0)
    var groupInputs: [AlignedBuffer<UInt8>] = []

    func reserve(_ config: ModelConfig, tokens: Int) {
        let queryWidth = config.headCount * config.headSize
        let experts = config.layers.map(\.expertCount).max() ?? 0
        x.reserve(tokens * config.hiddenSize)
        normed.reserve(tokens * config.hiddenSize)
        query.reserve(tokens * queryWidth)
        attended.reserve(tokens * queryWidth)
        cosines.reserve(tokens * config.headSize / 2)
        sines.reserve(tokens * config.headSize / 2)
        routerLogits.reserve(tokens * experts)
        ids.reserve(tokens * config.expertsPerToken)
        shares.reserve(tokens * config.expertsPerToken)
    }
}

// Unchecked: the lock guards the error.
/// The first error of work that is spread over threads.
final class FirstFailure: @unchecked Sendable {
    private let lock = NSLock()
    private var error: (any Error)?

    /// Runs `body` and keeps its error if it is the first.
    func record(_ body: () throws -> Void) {
        do {
            try body()
        } catch {
            lock.withLock { self.error = self.error ?? error }
        }
    }

    /// Throws what was kept.
    func rethrow() throws {
        if let error { throw error }
    }
}
