internal import BlyanKernel
package import BlyanModel
package import Foundation

/// An expert that serves no token of a text, and would learn nothing from it.
package struct ServesNothing: Error {
    /// The expert.
    package let part: String
    /// Those of its layer that serve most of the text's tokens.
    package let others: [String]

    /// The error as whoever asked for this very expert reads it.
    package var error: ModelError {
        ModelError(
            "the router sends no token of this text to \(part): it would learn nothing",
            hint: "of this layer \(others.joined(separator: ", ")) serve most of its tokens")
    }
}

// Unchecked: used by one thread at a time.
/// Trains one part of a model on somebody's text, alone or along with its layer's router, and can be interrupted.
package final class Miner: @unchecked Sendable {
    /// How far the training is.
    package struct Progress: Sendable {
        /// Steps made, those of an earlier run included.
        package let step: Int
        package let steps: Int
        /// Loss in nats a token, averaged over the last steps.
        package let loss: Double
        package let tokensPerSecond: Double
        package let secondsLeft: Double
    }

    /// What the training came to.
    package struct Result: Sendable {
        /// Mean loss on text that was held back, before and after, in nats a token; nil if the text was too short to hold any back.
        package let before: Double?
        package let after: Double?
        /// The share of the text's tokens that the part served before it was trained; 1 for parts that serve all.
        package let served: Double
        /// The part's tensors as f32.
        package let tensors: [ExpertFile.Tensor]
        /// Those of the router that was trained along with it; nil if it was trained alone.
        package let router: [ExpertFile.Tensor]?
        /// Tokens that were predicted in this run, and the seconds that it took.
        package let tokens: Int
        package let seconds: Double
    }

    private let trainer: Trainer
    private let text: TrainingText
    private let part: String
    private let router: String?
    private let state: TrainingState
    private let before: Double?
    private let served: Double
    /// What the model made of itself; nil if no rehearsal is asked for.
    package let rehearsal: TokenStream?
    /// Steps that an earlier run had made.
    package let resumedAt: Int

    /// Seconds between two savings.
    private static let savingInterval = 30.0

    /// A miner of one part.
    ///
    /// - Parameters:
    ///   - isWithRouter: the router of the part's layer is trained along with it.
    ///   - folder: where an interrupted training is kept.
    ///   - rehearsal: of the same model by the same options, which is then not made again.
    ///   - onRehearsal: told how many tokens of the rehearsal are made; throws to stop.
    ///   - isFresh: begins anew even if there is something to go on with.
    /// - Throws: ``ModelError`` for a part that is not there or options that make no sense; ``ServesNothing``; what decoding
    ///   the model throws.
    package init(
        model: LoadedModel, part: String, isWithRouter: Bool = false, text: TrainingText,
        options: TrainingOptions, pool: WorkerPool, folder: URL, isFresh: Bool,
        rehearsal: TokenStream? = nil,
        onRehearsal: @escaping @Sendable (_ made: Int) throws -> Void = { _ in }
    ) throws {
        try options.validate()
        guard let library = GemmLibrary.openBLAS() else {
            throw KernelError(
                .notFound,
                "training needs OpenBLAS, and \(GemmLibrary.openBLASFile) cannot be loaded",
                hint: "install the package libopenblas0-pthread")
        }
        let config = model.model.document.config
        guard config.parts.contains(where: { $0.name == part }) else {
            throw ModelError(
                "the model \(model.model.name) has no part \"\(part)\"",
                hint: "`blyan expert list --model \(model.model.name)` lists them")
        }
        guard VerdictIndex.isReplaceable(part) else {
            throw ModelError(
                "\(part) cannot be replaced, and so is not trained",
                hint: "name an expert, a router or a shared expert")
        }
        router = isWithRouter ? try Self.router(of: part, in: model.model) : nil
        let network = try Network(
            Weights(config) { try model.decode($0) },
            multiplier: Multiplier(pool: pool, library: library)
        ) { try model.makeRouter() }
        self.text = text
        self.part = part
        served = try Self.served(network, by: part, text)
        before = try Self.loss(network, text)
        self.rehearsal =
            options.rehearsal > 0
            ? try rehearsal
                ?? Rehearsal.make(
                    options.rehearsal, by: model, seed: options.seed, threads: pool.threads,
                    onRehearsal)
            : nil
        trainer = try Trainer(network, parts: Set([part] + (router.map { [$0] } ?? [])), options)
        let encoder = JSONEncoder()
        encoder.outputFormatting = .sortedKeys
        var identity = try [
            "version": model.model.version?.hash.description ?? "", "part": part,
            "text": text.hash.description,
            "options": String(decoding: encoder.encode(options), as: UTF8.self),
        ]
        identity["router"] = router
        state = TrainingState(
            file: folder.appendingPathComponent(
                "\(model.model.meta.hash)-\(part)\(router == nil ? "" : "+router").training"),
            identity: identity)
        resumedAt = !isFresh && state.restore(trainer.optimizer) ? trainer.optimizer.steps : 0
    }

    /// Trains to the last step.
    ///
    /// - Parameter onProgress: called after each step; throws to stop.
    /// - Throws: ``KernelError`` with code `cancelled` on request, after saving how far it was; what `onProgress` throws.
    package func run(_ onProgress: (Progress) throws -> Void) throws -> Result {
        let clock = ContinuousClock()
        let start = clock.now
        var saved = start
        var (tokens, average): (Int, Double?) = (0, nil)
        let options = trainer.options
        while trainer.optimizer.steps < options.steps {
            do {
                try Cancellation.check()
                let step = try trainer.step(
                    text.stream.batch(
                        step: trainer.optimizer.steps, options, mixing: rehearsal))
                tokens += step.tokens
                average = average.map { 0.9 * $0 + 0.1 * step.loss } ?? step.loss
                let seconds = (clock.now - start).seconds
                let left = Double(options.steps - trainer.optimizer.steps)
                let made = Double(trainer.optimizer.steps - resumedAt)
                try onProgress(
                    Progress(
                        step: trainer.optimizer.steps, steps: options.steps, loss: average ?? 0,
                        tokensPerSecond: Double(tokens) / max(seconds, 1e-9),
                        secondsLeft: seconds / made * left))
            } catch {
                if trainer.optimizer.steps > resumedAt { try state.save(trainer.optimizer) }
                throw error
            }
            if (clock.now - saved).seconds > Self.savingInterval {
                try state.save(trainer.optimizer)
                saved = clock.now
            }
        }
        return try Result(
            before: before, after: Self.loss(trainer.network, text), served: served,
            tensors: tensors(of: part), router: router.map { try tensors(of: $0) }, tokens: tokens,
            seconds: (clock.now - start).seconds)
    }

    private func tensors(of part: String) throws -> [ExpertFile.Tensor] {
        try trainer.network.weights.ordered(part).map { name, matrix in
            ExpertFile.Tensor(
                name: name, rows: matrix.rows, columns: matrix.columns, values: matrix.values)
        }
    }

    /// The router of a part's layer.
    ///
    /// - Throws: ``ModelError`` if there is none, or the part is it.
    package static func router(of part: String, in model: CatalogModel) throws(ModelError) -> String
    {
        let router = "\(part.prefix { $0 != "." }).router"
        guard router != part else {
            throw ModelError("\(part) is a router itself", hint: "leave --with-router out")
        }
        guard model.document.config.parts.contains(where: { $0.name == router }) else {
            throw ModelError(
                "the model \(model.name) has no router \(router) that could be trained along with \(part)",
                hint: "leave --with-router out")
        }
        return router
    }

    /// Forgets what an interrupted training would go on with.
    package func end() { state.remove() }

    /// The share of the text's tokens that a part serves.
    ///
    /// - Throws: ``ServesNothing`` if it is none.
    private static func served(_ network: Network, by part: String, _ text: TrainingText) throws
        -> Double
    {
        guard part.contains(".expert") else { return 1 }
        let sample = Array(text.stream.tokens.prefix(4096))
        let before = network.served
        _ = try network.losses(
            TokenBatch(
                stride(from: 0, to: sample.count, by: 256).map { Array(sample[$0...].prefix(257)) })
        )
        let counts = network.served.merging(before) { $0 - $1 }
        let count = counts[part] ?? 0
        guard count == 0 else { return Double(count) / Double(sample.count) }
        let layer = part.prefix { $0 != "." } + "."
        let used = counts.filter { $0.key.hasPrefix(layer) }
            .sorted { ($1.value, $0.key) < ($0.value, $1.key) }.map(\.key)
        throw ServesNothing(part: part, others: Array(used.prefix(3)))
    }

    private static func loss(_ network: Network, _ text: TrainingText) throws -> Double? {
        guard !text.heldBack.isEmpty else { return nil }
        var (sum, count) = (0.0, 0)
        for start in stride(from: 0, to: min(text.heldBack.count, 256), by: 16) {
            try Cancellation.check()
            let losses = try network.losses(TokenBatch(Array(text.heldBack[start...].prefix(16))))
            sum += losses.reduce(0) { $0 + Double($1) }
            count += losses.count
        }
        return count > 0 ? sum / Double(count) : nil
    }
}
