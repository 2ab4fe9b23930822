package import BlyanKernel
package import BlyanLearning
package import BlyanModel
internal import Foundation

/// Training a part of a model in a home, and having the result judged.
extension Node {
    /// How a part is trained.
    package struct Training: Sendable {
        package var options: TrainingOptions
        package var threads: Int
        /// Begins anew even if an interrupted training could go on.
        package var isFresh = false
        /// Trains the router of the part's layer along with it.
        package var isWithRouter = false

        package init(
            _ options: TrainingOptions, threads: Int, isFresh: Bool = false,
            isWithRouter: Bool = false
        ) {
            self.options = options
            self.threads = threads
            self.isFresh = isFresh
            self.isWithRouter = isWithRouter
        }
    }

    /// What is told of a training.
    package enum TrainingNews: Sendable {
        /// Tokens that the model has made for its rehearsal.
        case rehearsal(Int)
        /// It goes on after a step of an earlier run.
        case resumed(Int)
        case step(Miner.Progress)
    }

    /// Where interrupted trainings are kept.
    var trainingFolder: URL { home.appendingPathComponent("training") }

    /// Trains a part where nothing else wants the processor: a chat beside it goes first.
    ///
    /// - Parameters:
    ///   - rehearsal: of the same model by the same options, if there is one already.
    ///   - onNews: called from any thread; throws to stop.
    /// - Throws: ``ServesNothing``; ``KernelError`` with code `cancelled` on request, after saving how far it was; what
    ///   training throws.
    package func train(
        _ part: String, of model: LoadedModel, on text: TrainingText, _ training: Training,
        rehearsal: TokenStream? = nil, onNews: @escaping @Sendable (TrainingNews) throws -> Void
    ) throws -> (miner: Miner, result: Miner.Result) {
        let folder = trainingFolder
        return try Background(yields: true) {
            let miner = try Miner(
                model: model, part: part, isWithRouter: training.isWithRouter, text: text,
                options: training.options,
                pool: WorkerPool(threads: training.threads, isBackground: true), folder: folder,
                isFresh: training.isFresh, rehearsal: rehearsal
            ) { try onNews(.rehearsal($0)) }
            if miner.resumedAt > 0 { try onNews(.resumed(miner.resumedAt)) }
            return (miner, try miner.run { try onNews(.step($0)) })
        }.value()
    }

    /// Signs, stamps and submits what was trained, a router along with its expert as a pair, and has it judged; both yield
    /// to a chat.
    ///
    /// - Parameters:
    ///   - miner: forgets its interrupted training once the candidate is durable.
    ///   - passphrase: asked if the key that signs verdicts is locked; nil = what the node was made with.
    /// - Throws: What submitting or judging throws.
    package func submit(
        _ part: String, _ trained: (miner: Miner, result: Miner.Result), to model: LoadedModel,
        key: SigningKey, passphrase: (@Sendable () throws -> [UInt8])?
    ) throws -> Judge.Judgement {
        let judge = try judge(passphrase: passphrase)
        return try Background(yields: true) { [self] in
            let block = try submit(
                part, trained.result.tensors, router: trained.result.router, to: model, key: key,
                judge: judge)
            trained.miner.end()
            return try judge.judge(block.hash)
        }.value()
    }

    /// Makes, signs, stamps and submits a candidate, a new version of its layer's router along with it as a pair.
    ///
    /// - Parameter router: the tensors of that version.
    /// - Returns: The candidate, which waits for its verdict.
    /// - Throws: What making or submitting throws. Nothing is written for an author who has no upload left; what was written
    ///   of one that is refused goes again, unless other payloads are being written: then when the home is opened next.
    package func submit(
        _ part: String, _ tensors: [ExpertFile.Tensor], router: [ExpertFile.Tensor]?,
        to model: LoadedModel, key: SigningKey, judge: Judge
    ) throws -> Block {
        try admit(author: key.publicKey)
        let bits = try judge.currentPolicy()?.policy.stampBits ?? JudgingPolicy.usualStampBits
        let contribution = Contribution(to: model, store: store, plugins: plugins)
        var made: [Block] = []
        do {
            return try holdingPayloads {
                // The stamp is the expert's, whose hash commits to the router.
                let changed = try router.map {
                    try contribution.block(
                        Miner.router(of: part, in: model.model), $0, key: key, bits: 0,
                        now: Node.now())
                }
                if let changed { made.append(changed) }
                let block = try contribution.block(
                    part, tensors, with: changed, key: key, bits: bits, now: Node.now())
                made.append(block)
                try judge.submit(block, router: changed)
                return block
            }
        } catch {
            judge.discard(made)
            throw error
        }
    }
}
