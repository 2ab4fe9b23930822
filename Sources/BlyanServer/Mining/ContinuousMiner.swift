package import BlyanKernel
package import BlyanLearning
internal import BlyanLedger
internal import BlyanModel
internal import Foundation

/// Trains one expert after the other on a text, and has each that got better judged, until it is told to stop.
///
/// Each begins from the version that is current then. One thread calls ``run(_:)``; the work itself yields to chats.
package struct ContinuousMiner {
    /// What a miner does.
    package struct Plan: Sendable {
        /// The model's name; nil = the only one.
        package var model: String?
        /// The text, and what errors call it.
        package var text: [UInt8]
        package var textName: String
        package var order: WorkOrder
        package var training: Node.Training

        package init(
            model: String?, text: [UInt8], textName: String, order: WorkOrder,
            training: Node.Training
        ) {
            self.model = model
            self.text = text
            self.textName = textName
            self.order = order
            self.training = training
        }
    }

    /// What is told of the work.
    package enum News: Sendable {
        case begins(_ expert: String)
        case training(_ expert: String, Node.TrainingNews)
        case trained(_ expert: String, Miner.Result)
        /// The expert's turn is over without a candidate, and why.
        case skipped(_ expert: String, String)
        case judged(Judge.Judgement)
        /// Nothing is trained for now, and why.
        case waits(KernelError)
        /// There is nothing left to do, and why.
        case ends(String)
    }

    private let node: Node
    private let plan: Plan
    private let key: SigningKey
    private let passphrase: (@Sendable () throws -> [UInt8])?

    /// A miner.
    ///
    /// - Parameters:
    ///   - key: signs the candidates, and is paid.
    ///   - passphrase: asked if the key that signs verdicts is locked; nil = what the node was made with.
    package init(
        _ node: Node, _ plan: Plan, key: SigningKey,
        passphrase: (@Sendable () throws -> [UInt8])? = nil
    ) {
        self.node = node
        self.plan = plan
        self.key = key
        self.passphrase = passphrase
    }

    /// Works until no expert gets better on the text any more.
    ///
    /// - Parameter onNews: called from any thread; throws to stop.
    /// - Throws: ``KernelError`` with code `cancelled` on request, after saving how far the training was; what training or
    ///   judging throws; what `onNews` throws.
    package func run(_ onNews: @escaping @Sendable (News) throws -> Void) throws {
        try judgeWaiting(onNews)
        var known = Known()
        var withoutCandidate = 0
        while true {
            try waitForQuota(onNews)
            let model = try node.model(plan.model)
            let experts = model.model.document.config.parts.map(\.name)
                .filter { $0.contains(".expert") }
            let file = roundFile(model.model.meta.hash)
            var round = MiningRound(file: file)
            guard
                let expert = try round.next(
                    plan.order, experts, uses: uses(of: model.model.name))
            else { return }
            try round.save(to: file)
            try onNews(.begins(expert))
            var training = plan.training
            // Another round meets other batches: the same ones would make the same candidate.
            training.options.seed &+= UInt64(round.number)
            let news: News
            do {
                news = try turn(expert, model, training, &known, onNews)
            } catch let error as KernelError where error.code == .rule {
                guard try node.model(plan.model).model.version != model.model.version else {
                    throw error
                }
                // Somebody was faster: the same expert again, from its new version.
                try onNews(.skipped(expert, error.message))
                continue
            }
            // Before it is told: who stops now has had this turn.
            round.endTurn()
            try round.save(to: file)
            try onNews(news)
            if case .skipped = news { withoutCandidate += 1 } else { withoutCandidate = 0 }
            guard withoutCandidate < experts.count else {
                return try onNews(
                    .ends(
                        "a whole round over the experts made none better: give it other text, more steps or another rate"
                    ))
            }
        }
    }

    /// What the model made of itself last: the same for all experts of a round, as long as none is accepted.
    private struct Known {
        var version: Digest?
        var seed: UInt64?
        var rehearsal: TokenStream?
    }

    /// Trains one expert, and has it judged if it got better.
    private func turn(
        _ expert: String, _ model: LoadedModel, _ training: Node.Training, _ known: inout Known,
        _ onNews: @escaping @Sendable (News) throws -> Void
    ) throws -> News {
        let text = try TrainingText(plan.text, name: plan.textName, tokenizer: model.tokenizer)
        let (version, seed) = (model.model.version?.hash, training.options.seed)
        if known.version != version || known.seed != seed { known.rehearsal = nil }
        let trained: (miner: Miner, result: Miner.Result)
        do {
            trained = try node.train(
                expert, of: model, on: text, training, rehearsal: known.rehearsal
            ) { try onNews(.training(expert, $0)) }
        } catch let nothing as ServesNothing {
            return .skipped(nothing.part, "the router sends it no token of this text")
        }
        known = Known(version: version, seed: seed, rehearsal: trained.miner.rehearsal)
        try onNews(.trained(expert, trained.result))
        if let before = trained.result.before, let after = trained.result.after, after >= before {
            trained.miner.end()
            return .skipped(expert, "the loss on the text that was held back did not fall")
        }
        return .judged(
            try node.submit(expert, trained, to: model, key: key, passphrase: passphrase))
    }

    private func roundFile(_ model: Digest) -> URL {
        node.trainingFolder.appendingPathComponent("\(model).round")
    }

    /// What all versions of each expert did, by the counts that `expert top` shows.
    private func uses(of model: String) throws -> [String: WorkOrder.Use] {
        var uses: [String: WorkOrder.Use] = [:]
        for use in try node.versionUses(model: model) {
            let known = uses[use.expert]
            uses[use.expert] = WorkOrder.Use(
                calls: (known?.calls ?? 0) + use.counts.calls,
                tokens: (known?.tokens ?? 0) + use.counts.tokens)
        }
        return uses
    }

    /// Judges what this author has submitted before, and was not judged since the node was stopped.
    private func judgeWaiting(_ onNews: @Sendable (News) throws -> Void) throws {
        let judge = try node.judge(passphrase: passphrase)
        for entry in judge.due where entry.block.header.miner == key.publicKey {
            let made: Judge.Judgement
            do {
                made = try Background(yields: true) { try judge.judge(entry.block.hash) }.value()
            } catch let error as KernelError where error.code == .notFound {
                // Somebody else has had it judged meanwhile.
                guard judge.verdict(of: entry.block.hash) != nil else { throw error }
                continue
            }
            if let model = entry.block.header.dependsOn.first {
                var round = MiningRound(file: roundFile(model))
                if round.current == entry.block.header.expertName {
                    round.endTurn()
                    try round.save(to: roundFile(model))
                }
            }
            try onNews(.judged(made))
        }
    }

    /// Returns once the author may upload: nobody trains for what would be refused.
    private func waitForQuota(_ onNews: @Sendable (News) throws -> Void) throws {
        var isTold = false
        while true {
            do throws(KernelError) { return try node.admit(author: key.publicKey) } catch {
                guard error.code == .limit else { throw error }
                if !isTold { try onNews(.waits(error)) }
                isTold = true
            }
            for _ in 0..<50 {
                try Cancellation.check()
                Thread.sleep(forTimeInterval: 0.2)
            }
        }
    }
}
