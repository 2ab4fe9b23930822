internal import ArgumentParser
internal import BlyanJSON
internal import BlyanKernel
internal import BlyanLearning
internal import BlyanModel
internal import BlyanServer
internal import Foundation

struct Mine: NodeCommand {
    static let configuration = CommandConfiguration(
        abstract:
            "Train an expert on your text, or one after the other; submit, and see the verdict.",
        discussion: """
            Documents in FILE stand between empty lines; every twentieth is held back to compare before and after. \
            A training that was stopped goes on where it was when the same command is run again. \
            What is submitted is judged on text that nobody could know before: only a version that is measurably \
            better is accepted. With --with-router the router of the expert's layer is trained along with it, and the pair \
            is judged, and accepted, together.

            With --order instead of --expert one expert after the other is trained and judged, until the command is \
            stopped or a whole round makes none better; a later one goes on where it was. Training yields to chats.
            """)

    @OptionGroup var home: HomeOptions
    @OptionGroup var model: ModelOptions
    @OptionGroup var author: AuthorOptions

    @Option(help: ArgumentHelp("The part to train, e.g. layer2.expert5.", valueName: "name"))
    var expert: String?

    @Option(help: WorkOrder.help) var order: WorkOrder?

    @Flag(help: "Train the router of the expert's layer along with it, and submit the pair.")
    var withRouter = false

    @Option(help: ArgumentHelp("The text to train on; - is standard input.", valueName: "file"))
    var data: String

    @Option(parsing: .unconditional, help: ArgumentHelp("Optimiser steps.", valueName: "n"))
    var steps = MiningDefaults.steps

    @Option(parsing: .unconditional, help: ArgumentHelp("Sequences a step.", valueName: "n"))
    var batch = MiningDefaults.batch

    @Option(parsing: .unconditional, help: ArgumentHelp("Tokens a sequence.", valueName: "n"))
    var sequence = MiningDefaults.sequence

    @Option(
        parsing: .unconditional, help: ArgumentHelp("The highest learning rate.", valueName: "x"))
    var rate = MiningDefaults.rate

    @Option(
        parsing: .unconditional, help: ArgumentHelp("What batches are drawn by.", valueName: "n"))
    var seed: UInt64 = 1

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp(
            "Tokens that the model makes first, for half of each batch, so that it keeps what it knew; 0 = none.",
            valueName: "n"))
    var rehearse = MiningDefaults.rehearsal

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Threads that train; otherwise the node's.", valueName: "n"))
    var threads: Int?

    @Flag(help: "Begin anew, even if an interrupted training could go on.")
    var restart = false

    @Flag(help: "Train and compare, but submit nothing.")
    var dryRun = false

    @Flag(help: "Submit even if the text that was held back got no better.")
    var force = false

    @Flag(help: "Print one JSON object.")
    var json = false

    var walletPassphraseFile: String? { author.walletPassphraseFile }

    func validate() throws {
        if let threads, !(1...1024).contains(threads) {
            throw ValidationError("--threads must be 1 to 1024")
        }
        try MiningDefaults.validate(options)
        guard (expert == nil) != (order == nil) else {
            throw ValidationError("give either --expert or --order")
        }
        if order != nil, restart || dryRun || force || json {
            throw ValidationError("--order goes with none of --restart, --dry-run, --force, --json")
        }
    }

    var endsCleanly: Bool { true }

    var afterHolderEnds: String? { AuthorOptions.afterHolderEnds }

    /// As they were given; a model's context may be shorter.
    private var options: TrainingOptions {
        var options = TrainingOptions(steps: steps)
        options.batch = batch
        options.sequence = sequence
        options.rate = rate
        options.seed = seed
        options.rehearsal = rehearse
        return options
    }

    func run(_ node: Node, _ console: Console) throws {
        let bytes = try console.read(data)
        let loaded = try node.model(model.model)
        let text = try TrainingText(bytes, name: data, tokenizer: loaded.tokenizer)
        var options = options
        options.sequence = min(sequence, loaded.model.document.config.maximumPositions)
        let training = Node.Training(
            options, threads: threads ?? node.threads, isFresh: restart, isWithRouter: withRouter)
        // Before minutes of work: whoever cannot sign or has no upload left learns it now.
        let key = dryRun ? nil : try author.key(node, console, of: self)
        if let order, let key {
            let plan = ContinuousMiner.Plan(
                model: loaded.model.name, text: bytes, textName: data, order: order,
                training: training)
            return try mine(plan, key, node, console)
        }
        guard let expert else { return }
        if let key { try node.admit(author: key.publicKey) }
        let trained = try train(expert, loaded, text, training, node, console)
        let result = trained.result
        let isBetter = result.before.flatMap { b in result.after.map { $0 < b } } ?? true
        if !json { try print(expert, result, console) }
        guard let key, isBetter || force else {
            if json { try console.printJSON(.object(report(expert, result))) }
            if !isBetter, !dryRun { throw noGain(expert, result) }
            return
        }
        let made = try node.submit(
            expert, trained, to: loaded, key: key, passphrase: console.nodePassphrase)
        if json {
            guard case .object(let members) = console.json(made) else { return }
            try console.printJSON(
                .object(members.merging(report(expert, result)) { own, _ in own }))
        } else {
            try console.print(made)
        }
        if made.outcome != .accept { throw ExitCode(2) }
    }

    private func train(
        _ expert: String, _ loaded: LoadedModel, _ text: TrainingText, _ training: Node.Training,
        _ node: Node, _ console: Console
    ) throws -> (miner: Miner, result: Miner.Result) {
        let bar = ProgressBar(console)
        defer { bar.end() }
        let rehearsal = training.options.rehearsal
        do {
            return try node.train(expert, of: loaded, on: text, training) { news in
                switch news {
                case .rehearsal(let made):
                    bar.update(min(made, rehearsal), of: rehearsal, "tokens of rehearsal")
                case .resumed(let step): console.note("blyan: going on after step \(step)")
                case .step(let progress):
                    bar.update(
                        progress.step, of: progress.steps,
                        "loss \(progress.loss.formatted(4))  \(Int(progress.tokensPerSecond)) tokens/s  \(Int(progress.secondsLeft.rounded())) s left"
                    )
                }
            }
        } catch let nothing as ServesNothing {
            throw nothing.error
        }
    }

    private func mine(
        _ plan: ContinuousMiner.Plan, _ key: SigningKey, _ node: Node, _ console: Console
    ) throws {
        let log = MinerLog(
            bar: console.isTerminal ? ProgressBar(console) : nil, rehearsal: rehearse
        ) { try console.print($0) }
        try ContinuousMiner(node, plan, key: key, passphrase: console.nodePassphrase)
            .run { try log.add($0) }
    }

    /// Why what was trained is not submitted.
    private func noGain(_ expert: String, _ result: Miner.Result) -> ModelError {
        ModelError(
            "the loss on the text that was held back did not fall (\(perplexities(result, digits: 4) ?? "")), and \(expert) serves \(share(result)) of the text's tokens: nothing was submitted",
            hint:
                "train with more text, other --steps or a lower --rate, or an expert that serves more of it; or submit it with --force"
        )
    }

    private func perplexities(_ result: Miner.Result, digits: Int) -> String? {
        guard let before = result.before, let after = result.after else { return nil }
        return
            "perplexity \(exp(before).formatted(digits)) before, \(exp(after).formatted(digits)) after"
    }

    /// The share of the text's tokens that the part served; some are never told as none.
    private func share(_ result: Miner.Result) -> String {
        result.served < 0.0005 ? "less than 0.1 %" : "\((100 * result.served).formatted(1)) %"
    }

    private func print(_ expert: String, _ result: Miner.Result, _ console: Console) throws {
        let rate = Double(result.tokens) / max(result.seconds, 1e-9)
        let router = result.router == nil ? "" : " and \(expert.prefix { $0 != "." }).router"
        try console.print(
            "trained   \(expert)\(router), \(steps) steps, \(result.tokens) tokens in \(result.seconds.formatted(1)) s, \(Int(rate)) a second"
        )
        try console.print("serves    \(share(result)) of the text's tokens")
        guard let perplexities = perplexities(result, digits: 2) else { return }
        try console.print("held back \(perplexities)")
    }

    private func report(_ expert: String, _ result: Miner.Result) -> [String: JSONValue] {
        func unat(_ loss: Double?) -> JSONValue {
            loss.map { .int(Int64(($0 * 1e6).rounded())) } ?? .null
        }
        return [
            "expert": .string(expert),
            "router": .string(result.router == nil ? "" : "\(expert.prefix { $0 != "." }).router"),
            "steps": .int(Int64(steps)),
            "tokens": .int(Int64(result.tokens)),
            "served_ppm": .int(Int64(result.served * 1e6)),
            "milliseconds": .int(Int64(result.seconds * 1000)),
            "held_back_before_unat": unat(result.before),
            "held_back_after_unat": unat(result.after),
        ]
    }
}

extension WorkOrder: ExpressibleByArgument {
    static let help = ArgumentHelp(
        "Which expert is next: round-robin, as the model has them, or hot-path, the most used first.",
        valueName: "order")
}

/// Who makes and signs a candidate.
struct AuthorOptions: ParsableArguments {
    @Option(help: ArgumentHelp("The wallet that signs and is paid.", valueName: "name"))
    var wallet = Wallets.node

    @OptionGroup var options: WalletOptions

    static let afterHolderEnds =
        "see `blyan candidate list` and `blyan candidate list --judged 5` before you run the command again: the candidate may wait, or be judged, already"

    var walletPassphraseFile: String? { options.walletPassphraseFile }

    /// The wallet's key.
    func key(_ node: Node, _ console: Console, of command: some NodeCommand) throws -> SigningKey {
        try command.authorKey(wallet, node, console)
    }
}

extension NodeCommand {
    /// The key of the wallet that signs candidates.
    func authorKey(_ wallet: String, _ node: Node, _ console: Console) throws -> SigningKey {
        let own = try node.signingKey(passphrase: console.nodePassphrase)
        guard wallet != Wallets.node else { return own }
        return try Wallets(home: node.home).unlock(wallet) {
            try passphrase(.wallet(wallet), node, console)
        }
    }
}

/// How an expert is mined unless somebody says otherwise.
enum MiningDefaults {
    static let steps = 40
    static let batch = 16
    static let sequence = 128
    static let rate: Float = 2e-4
    static let rehearsal = 32768

    /// Options for a model, whose context may be short.
    static func options(_ steps: Int, _ model: LoadedModel) -> TrainingOptions {
        var options = TrainingOptions(steps: steps)
        options.batch = batch
        options.sequence = min(sequence, model.model.document.config.maximumPositions)
        options.rate = rate
        options.rehearsal = rehearsal
        return options
    }

    /// That the options make sense, before anything is opened.
    static func validate(_ options: TrainingOptions) throws {
        do throws(ModelError) { try options.validate() } catch {
            throw ValidationError(error.message)
        }
    }
}
