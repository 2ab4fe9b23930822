internal import ArgumentParser
internal import BlyanJSON
internal import BlyanKernel
internal import BlyanLearning
internal import BlyanModel
internal import BlyanServer
internal import Foundation

struct Mine: NodeCommand {
    static let configuration = CommandConfiguration(
        abstract: "Train one expert on your text, submit it, and see the verdict.",
        discussion: """
            Documents in FILE stand between empty lines; every twentieth is held back to compare before and after. \
            A training that was stopped goes on where it was when the same command is run again. \
            What is submitted is judged on text that nobody could know before: only a version that is measurably \
            better is accepted.
            """)

    @OptionGroup var home: HomeOptions
    @OptionGroup var model: ModelOptions
    @OptionGroup var author: AuthorOptions

    @Option(help: ArgumentHelp("The part to train, e.g. layer2.expert5.", valueName: "name"))
    var expert: String

    @Option(help: ArgumentHelp("The text to train on; - is standard input.", valueName: "file"))
    var data: String

    @Option(help: ArgumentHelp("Optimiser steps.", valueName: "n"))
    var steps = 60

    @Option(help: ArgumentHelp("Sequences a step.", valueName: "n"))
    var batch = 16

    @Option(help: ArgumentHelp("Tokens a sequence.", valueName: "n"))
    var sequence = 128

    @Option(help: ArgumentHelp("The highest learning rate.", valueName: "x"))
    var rate: Float = 2e-4

    @Option(help: ArgumentHelp("What batches are drawn by.", valueName: "n"))
    var seed: UInt64 = 1

    @Option(
        help: ArgumentHelp(
            "Tokens that the model makes first, for half of each batch, so that it keeps what it knew; 0 = none.",
            valueName: "n"))
    var rehearse = 32768

    @Option(help: ArgumentHelp("Threads that train; otherwise the node's.", valueName: "n"))
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
    }

    func run(_ node: Node, _ console: Console) throws {
        let bytes = try console.read(data)
        let loaded = try node.model(model.model)
        let text = try TrainingText(bytes, name: data, tokenizer: loaded.tokenizer)
        var options = TrainingOptions(steps: steps)
        options.batch = batch
        options.sequence = min(sequence, loaded.model.document.config.maximumPositions)
        options.rate = rate
        options.seed = seed
        options.rehearsal = rehearse
        // Before minutes of work: whoever cannot sign learns it now.
        let key = dryRun ? nil : try author.key(node, console, of: self)
        let (miner, result) = try train(loaded, text, options, node, console)
        let isBetter = result.before.flatMap { b in result.after.map { $0 < b } } ?? true
        if !json { try print(result, console) }
        guard let key, isBetter || force else {
            if !isBetter, !dryRun {
                throw ModelError(
                    "the loss on the text that was held back did not fall: nothing was submitted",
                    hint:
                        "train with more text, other --steps or a lower --rate, or submit it with --force"
                )
            }
            if json { try console.printJSON(.object(report(result))) }
            return
        }
        let judge = try node.judge(passphrase: console.nodePassphrase)
        let bits = try judge.currentPolicy()?.policy.stampBits ?? JudgingPolicy.usualStampBits
        let block = try Contribution(to: loaded, store: node.store, plugins: node.plugins).block(
            expert, result.tensors, key: key, bits: bits, now: now())
        try judge.submit(block)
        miner.end()
        let made = try judge.judge(block.hash)
        if json {
            guard case .object(let members) = console.json(made) else { return }
            try console.printJSON(.object(members.merging(report(result)) { own, _ in own }))
        } else {
            try console.print(made)
        }
        if made.outcome != .accept { throw ExitCode(2) }
    }

    /// Trains where nothing else wants the processor: a chat beside it goes first.
    private func train(
        _ loaded: LoadedModel, _ text: TrainingText, _ options: TrainingOptions, _ node: Node,
        _ console: Console
    ) throws -> (Miner, Miner.Result) {
        let folder = node.home.appendingPathComponent("training")
        let (threads, expert, restart) = (threads ?? node.threads, expert, restart)
        return try Background(yields: true) {
            let bar = ProgressBar(console)
            defer { bar.end() }
            let miner = try Miner(
                model: loaded, part: expert, text: text, options: options,
                pool: WorkerPool(threads: threads, isBackground: true), folder: folder,
                isFresh: restart
            ) { made in
                bar.update(
                    min(made, options.rehearsal), of: options.rehearsal, "tokens of rehearsal")
            }
            if miner.resumedAt > 0 { console.note("blyan: going on after step \(miner.resumedAt)") }
            let result = try miner.run { progress in
                bar.update(
                    progress.step, of: progress.steps,
                    "loss \(progress.loss.formatted(4))  \(Int(progress.tokensPerSecond)) tokens/s  \(Int(progress.secondsLeft.rounded())) s left"
                )
            }
            return (miner, result)
        }.value()
    }

    private func print(_ result: Miner.Result, _ console: Console) throws {
        let rate = Double(result.tokens) / max(result.seconds, 1e-9)
        try console.print(
            "trained   \(expert), \(steps) steps, \(result.tokens) tokens in \(result.seconds.formatted(1)) s, \(Int(rate)) a second"
        )
        try console.print("serves    \((100 * result.served).formatted(1)) % of the text's tokens")
        guard let before = result.before, let after = result.after else { return }
        try console.print(
            "held back perplexity \(exp(before).formatted(2)) before, \(exp(after).formatted(2)) after"
        )
    }

    private func report(_ result: Miner.Result) -> [String: JSONValue] {
        func unat(_ loss: Double?) -> JSONValue {
            loss.map { .int(Int64(($0 * 1e6).rounded())) } ?? .null
        }
        return [
            "expert": .string(expert), "steps": .int(Int64(steps)),
            "tokens": .int(Int64(result.tokens)),
            "served_ppm": .int(Int64(result.served * 1e6)),
            "milliseconds": .int(Int64(result.seconds * 1000)),
            "held_back_before_unat": unat(result.before),
            "held_back_after_unat": unat(result.after),
        ]
    }
}

/// Who makes and signs a candidate.
struct AuthorOptions: ParsableArguments {
    @Option(help: ArgumentHelp("The wallet that signs and is paid.", valueName: "name"))
    var wallet = Wallets.node

    @OptionGroup var options: WalletOptions

    var walletPassphraseFile: String? { options.walletPassphraseFile }

    /// The wallet's key.
    func key(_ node: Node, _ console: Console, of command: some NodeCommand) throws -> SigningKey {
        let own = try node.signingKey(passphrase: console.nodePassphrase)
        guard wallet != Wallets.node else { return own }
        return try Wallets(home: node.home).unlock(wallet) {
            try command.passphrase(.wallet(wallet), node, console)
        }
    }
}
