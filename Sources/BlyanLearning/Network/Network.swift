package import BlyanModel
internal import CBlyanMath
internal import Foundation

/// A decoder's loss and its derivatives: forward and backward pass over batches of sequences, in f32.
///
/// The arithmetic is that of ``ModelConfig``, as `Decoder` computes it token by token; products are a library's, so
/// that results agree with the decoder's within rounding. They do not depend on the number of threads. Experts are
/// picked by a router plugin, and the derivative by its logits is that of the checkpoint's own rule: a softmax whose
/// picked weights are divided by their sum if the configuration says so. Not thread-safe.
package final class Network {
    package private(set) var weights: Weights
    package let multiplier: Multiplier
    let config: ModelConfig
    let rotary: RotaryEmbedding
    private let openRouter: () throws -> (any RequestRouter)?
    /// Tokens that each expert has served since the network was made.
    package private(set) var served: [String: Int] = [:]
    private var capacity = 0
    // One a layer that the backward pass passes, then one for all others.
    private var tapes: [Tape] = []
    private var firstTaped = 0
    /// The residual stream, and its normalised last state.
    private(set) var x = Matrix(rows: 0, columns: 0)
    private(set) var normed = Matrix(rows: 0, columns: 0)
    /// Cosine and sine of each row's rotation.
    private(set) var cosines = Matrix(rows: 0, columns: 0)
    private(set) var sines = Matrix(rows: 0, columns: 0)
    /// Derivatives by the residual stream, and by what comes out of and goes into a layer's parts.
    private(set) var dx = Matrix(rows: 0, columns: 0)
    private(set) var dnormed = Matrix(rows: 0, columns: 0)
    private var logits = Matrix(rows: 0, columns: 0)
    private(set) var dquery = Matrix(rows: 0, columns: 0)
    private(set) var dkey = Matrix(rows: 0, columns: 0)
    private(set) var dvalue = Matrix(rows: 0, columns: 0)
    private(set) var dattended = Matrix(rows: 0, columns: 0)

    /// Floats of logits that are held at once: 32 MiB.
    private static let logitLimit = 8 << 20

    /// A network on weights.
    ///
    /// - Parameter openRouter: a router for one sequence; it may answer nil if no layer has experts to pick.
    package init(
        _ weights: Weights, multiplier: Multiplier,
        openRouter: @escaping () throws -> (any RequestRouter)?
    ) {
        self.weights = weights
        self.multiplier = multiplier
        self.openRouter = openRouter
        config = weights.config
        rotary = RotaryEmbedding(config.rope, headSize: config.headSize)
    }

    /// Each target's negative log likelihood in nats; 0 where there is none.
    ///
    /// - Throws: ``ModelError`` for a token that is unknown or logits that are not finite; what the router throws.
    package func losses(_ batch: TokenBatch) throws -> [Float] {
        try run(batch, gradients: nil, scale: 0)
    }

    /// Runs `body` with other tensors in the place of some parts'.
    ///
    /// - Parameter parts: names with tensors of the parts' shapes.
    /// - Throws: ``ModelError`` for a part or shape that the model has not; what `body` throws.
    package func replacing<R>(
        _ parts: [(part: String, tensors: [String: AlignedBuffer<Float>])], _ body: () throws -> R
    ) throws -> R {
        let own = weights
        weights = try own.replacing(parts)
        defer { weights = own }
        return try body()
    }

    /// Adds the derivatives of the mean loss over the batch's targets to `gradients`.
    ///
    /// - Returns: Each target's loss in nats.
    /// - Throws: As ``losses(_:)``.
    package func backward(_ batch: TokenBatch, into gradients: Gradients) throws -> [Float] {
        try run(batch, gradients: gradients, scale: 1 / Float(max(1, batch.targetCount)))
    }

    private func run(_ batch: TokenBatch, gradients: Gradients?, scale: Float) throws -> [Float] {
        let n = batch.tokens.count
        guard n > 0 else { return [] }
        let vocabulary = config.vocabularySize
        let bad =
            batch.tokens.first { $0 < 0 || $0 >= vocabulary }
            ?? batch.targets.first { $0 < -1 || $0 >= vocabulary }
        if let bad { throw ModelError("token id \(bad) is not below \(vocabulary)") }
        let depth = Depth(gradients?.parts ?? [], config)
        reserve(n, firstTaped: depth.lowestLayer)
        let embedding = weights.matrix("embedding", "weight")
        for (row, token) in batch.tokens.enumerated() { x.copyRow(row, from: embedding, token) }
        for sequence in batch.sequences {
            for row in sequence {
                unsafe rotary.angles(
                    at: row - sequence.lowerBound, cosines: cosines.row(row), sines: sines.row(row))
            }
        }
        let routed = config.layers.contains { $0.expertCount > 0 }
        let routers = try batch.sequences.map { _ in routed ? try openRouter() : nil }
        for layer in config.layers.indices {
            let tape = tapes[max(0, layer - firstTaped)]
            try attend(layer, tape, batch.sequences, n)
            try feedForward(layer, tape, batch.sequences, routers, n)
            for group in tape.groups { served[group.part, default: 0] += group.rows.count }
            if layer >= depth.lowestLayer { try checkShares(layer, tape, n) }
        }
        let losses = try finish(batch, gradients, scale)
        guard let gradients else { return losses }
        for layer in config.layers.indices.reversed() where layer >= depth.lowestLayer {
            let tape = tapes[layer - firstTaped]
            feedForwardBack(layer, tape, gradients, depth, n)
            if depth.needsAttention(layer) {
                attendBack(layer, tape, gradients, depth, batch.sequences, n)
            }
        }
        if let derivative = gradients.matrix("embedding", "weight") {
            for (row, token) in batch.tokens.enumerated() { derivative.addRow(token, dx, row) }
        }
        return losses
    }

    /// Norm, head and loss, a stretch of rows at a time; leaves the derivative by the residual stream in ``dx``.
    private func finish(_ batch: TokenBatch, _ gradients: Gradients?, _ scale: Float) throws
        -> [Float]
    {
        let n = batch.tokens.count
        let headPart = config.tiedEmbeddings ? "embedding" : "head"
        let head = weights.matrix(headPart, "weight")
        normalise(x, weights.matrix("norm", "weight"), into: normed, n)
        let atOnce = max(1, min(n, Self.logitLimit / config.vocabularySize))
        if logits.rows < atOnce { logits = Matrix(rows: atOnce, columns: config.vocabularySize) }
        var losses = [Float](repeating: 0, count: n)
        for start in stride(from: 0, to: n, by: atOnce) {
            let rows = start..<min(n, start + atOnce)
            let part = logits.rows(0..<rows.count)
            multiplier.run([.init(part, normed.rows(rows), head, .secondTransposed)])
            unsafe losses.withUnsafeMutableBufferPointer { losses in
                let losses = unsafe Shared(losses)
                multiplier.byRows(rows.count) { range in
                    for i in range {
                        losses[start + i] = self.loss(
                            part, i, batch.targets[start + i], scale, gradients != nil)
                    }
                }
            }
            guard let gradients else { continue }
            multiplier.run([.init(dnormed.rows(rows), part, head)])
            if let derivative = gradients.matrix(headPart, "weight") {
                multiplier.run([
                    .init(derivative, part, normed.rows(rows), .firstTransposed, adds: true)
                ])
            }
        }
        if let bad = losses.firstIndex(where: { !$0.isFinite }) {
            throw ModelError("the model's logits are not finite after token \(bad) of the batch")
        }
        if let gradients {
            dx.rows(0..<n).clear()
            normaliseBack(
                x, weights.matrix("norm", "weight"), gradients.matrix("norm", "weight"), n)
        }
        return losses
    }

    private func loss(_ logits: Matrix, _ row: Int, _ target: Int, _ scale: Float, _ back: Bool)
        -> Float
    {
        let count = UInt64(config.vocabularySize)
        guard target >= 0 else {
            if back { logits.rows(row..<row + 1).clear() }
            return 0
        }
        return back
            ? unsafe blyan_math_loss_back(logits.row(row), count, UInt64(target), scale)
            : unsafe blyan_math_loss(logits.row(row), count, UInt64(target))
    }

    /// y = rms_norm(x), row by row.
    func normalise(_ x: Matrix, _ weight: Matrix, into y: Matrix, _ n: Int) {
        multiplier.byRows(n) { rows in
            for row in rows {
                unsafe blyan_math_rms_norm(
                    x.row(row), weight.row(0), UInt64(weight.columns), config.normEpsilon,
                    y.row(row))
            }
        }
    }

    /// dx += derivative of the norm of x, from ``dnormed``; the weight's is added to `derivative`.
    func normaliseBack(_ x: Matrix, _ weight: Matrix, _ derivative: Matrix?, _ n: Int) {
        func back(_ rows: Range<Int>) {
            for row in rows {
                unsafe blyan_math_rms_norm_back(
                    x.row(row), weight.row(0), dnormed.row(row), UInt64(weight.columns),
                    config.normEpsilon, dx.row(row), derivative?.row(0))
            }
        }
        // All rows add to one derivative.
        if derivative != nil { back(0..<n) } else { multiplier.byRows(n, back) }
    }

    /// Memory for `n` rows, and tapes from layer `first` on.
    private func reserve(_ n: Int, firstTaped first: Int) {
        let layers = config.layers.count
        // Layers below the first one that is taped share its tape, whose contents it overwrites.
        let first = min(first, layers - 1)
        guard n > capacity || first < firstTaped || tapes.isEmpty else { return }
        capacity = max(n, capacity)
        firstTaped = tapes.isEmpty ? first : min(first, firstTaped)
        tapes = (firstTaped..<layers).map { _ in Tape(config, rows: capacity) }
        let (hidden, head) = (config.hiddenSize, config.headSize)
        (x, normed) = (
            Matrix(rows: capacity, columns: hidden), Matrix(rows: capacity, columns: hidden)
        )
        (dx, dnormed) = (
            Matrix(rows: capacity, columns: hidden), Matrix(rows: capacity, columns: hidden)
        )
        cosines = Matrix(rows: capacity, columns: head / 2)
        sines = Matrix(rows: capacity, columns: head / 2)
        let (query, width) = (config.headCount * head, config.keyValueHeadCount * head)
        dquery = Matrix(rows: capacity, columns: query)
        dattended = Matrix(rows: capacity, columns: query)
        dkey = Matrix(rows: capacity, columns: width)
        dvalue = Matrix(rows: capacity, columns: width)
    }
}

// Safe and Sendable: workers write elements of their own.
/// An array's elements, for the length of a call.
@safe private struct Shared: @unchecked Sendable {
    private let elements: UnsafeMutableBufferPointer<Float>

    init(_ elements: UnsafeMutableBufferPointer<Float>) { unsafe self.elements = elements }

    subscript(_ i: Int) -> Float {
        get { unsafe elements[i] }
        nonmutating set { unsafe elements[i] = newValue }
    }
}

/// How far down the backward pass goes for the parts that are trained.
struct Depth {
    private let trained: [Set<String>]
    /// The lowest layer with a trained part, 0 if the embedding is trained; the number of layers if none is.
    let lowestLayer: Int
    private let hasEmbedding: Bool

    init(_ parts: Set<String>, _ config: ModelConfig) {
        hasEmbedding = parts.contains("embedding")
        trained = config.layers.indices.map { layer in
            parts.filter { $0.hasPrefix("layer\(layer).") }
        }
        lowestLayer =
            hasEmbedding
            ? 0 : trained.firstIndex { !$0.isEmpty } ?? config.layers.count
    }

    /// Whether something below the layer is trained.
    func goesBelow(_ layer: Int) -> Bool { layer > lowestLayer || hasEmbedding }
    /// Whether the layer's attention is passed.
    func needsAttention(_ layer: Int) -> Bool {
        goesBelow(layer) || trained[layer].contains("layer\(layer).attention")
    }
    /// Whether derivatives by the feed-forward's input and shares are wanted, beside those of experts.
    func needsFeedInput(_ layer: Int, _ config: ModelConfig) -> Bool {
        needsAttention(layer) || config.layers[layer].expertCount == 0
            || trained[layer].contains { $0.hasSuffix(".router") || $0.hasSuffix(".shared") }
    }
}
