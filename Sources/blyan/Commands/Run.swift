internal import ArgumentParser
internal import BlyanJSON
internal import BlyanKernel
internal import BlyanLedger
internal import BlyanLearning
internal import BlyanModel
internal import BlyanServer
internal import Dispatch
internal import Foundation
internal import Synchronization

struct Run: NodeCommand {
    static let configuration = CommandConfiguration(
        abstract:
            "Hold a home and serve all other commands by its control socket, until interrupted.",
        discussion: """
            SIGHUP does what `blyan plugin reload` does. The key \
            stays locked until a command signs, and then takes that command's passphrase; with --passphrase-file or \
            BLYAN_PASSPHRASE it is unlocked at the start.

            With --mine the node trains one expert after the other on a text of yours where nothing else wants the \
            processor, has each that got better judged, and goes on from what was accepted; chats go first. It goes on \
            where it was when the node was stopped.
            """)

    @OptionGroup var home: HomeOptions

    @Option(
        help: ArgumentHelp("Mine on this text as long as the node runs.", valueName: "file"))
    var mine: String?

    @Option(
        help: ArgumentHelp(
            "\(WorkOrder.help.abstract) (default: \(WorkOrder.roundRobin.rawValue))",
            valueName: "order"))
    var mineOrder: WorkOrder?

    @Option(help: ArgumentHelp("The model that is mined for.", valueName: "name"))
    var mineModel: String?

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp(
            "Optimiser steps of each expert. (default: \(MiningDefaults.steps))", valueName: "n"))
    var mineSteps: Int?

    @Option(
        help: ArgumentHelp(
            "The wallet that signs what is mined and is paid. (default: \(Wallets.node))",
            valueName: "name"))
    var mineWallet: String?

    @OptionGroup var wallet: WalletOptions

    var walletPassphraseFile: String? { wallet.walletPassphraseFile }

    var mustHold: Bool { true }

    func validate() throws {
        let given = [
            "--mine-order": mineOrder != nil, "--mine-model": mineModel != nil,
            "--mine-steps": mineSteps != nil, "--mine-wallet": mineWallet != nil,
        ].filter(\.value).keys.sorted()
        guard mine != nil || given.isEmpty else {
            throw ValidationError(
                "\(given.joined(separator: ", ")) without --mine: give the text with --mine FILE")
        }
        try MiningDefaults.validate(TrainingOptions(steps: mineSteps ?? MiningDefaults.steps))
    }

    func run(_ node: Node, _ console: Console) throws {
        // Where nobody has to be asked for it.
        if try Passphrase(home, console: console).isGiven
            || KeyFile(home: node.home).passphrase != nil
        {
            _ = try node.signingKey()
        }
        let miner = try mine.map { try makeMiner($0, node, console) }
        let log: @Sendable (String) -> Void = { console.note("\(timestamp()) \($0)") }
        // Before anybody is told that it runs, and may send it signals.
        let interruption = Interruption()
        let hangup = DispatchSource.makeSignalSource(signal: SIGHUP, queue: .global())
        hangup.setEventHandler { [cancellation = interruption.cancellation] in
            do {
                try Cancellation.$current.withValue(cancellation) {
                    _ = try node.reloadPlugins()
                    if let policy = try node.adoptPolicy() { log("policy    \(policy.hash)") }
                }
            } catch {
                log("not reloaded: \(error)")
            }
        }
        hangup.resumeAndWait()
        try console.print("holding   \(node.home.path) as process \(getpid()); stop with Ctrl-C")
        node.messages.subscribe(to: .blockStored, capacity: 1024, whenFull: .dropOldest) {
            message in
            let header = message.block.header
            let name =
                header.expertName.isEmpty
                ? header.metadata["model"]?.string ?? "" : header.expertName
            log("stored    \(header.blockType) \(name) \(message.block.hash)")
        }
        node.messages.subscribe(to: .expertLoaded, capacity: 1024, whenFull: .dropOldest) {
            message in
            log("mapped    \(message.model) \(message.expert), \(message.bytes.asBytes)")
        }
        node.messages.subscribe(to: .pluginsReloaded, capacity: 64, whenFull: .dropOldest) {
            message in
            log(
                "reloaded  generation \(message.generation): \(message.plugins.joined(separator: ", "))"
            )
        }
        let waiting = WaitingCandidates(node, log)
        let judging = Cancellation.$current.withValue(interruption.cancellation) {
            Background { waiting.run() }
        }
        // By age they go without a judgement too.
        let pruning = DispatchSource.makeTimerSource(queue: .global())
        pruning.schedule(deadline: .now() + 3600, repeating: 3600)
        pruning.setEventHandler {
            do { try node.prunePayloads() } catch {
                log("payloads of rejected candidates stay: \(error)")
            }
        }
        pruning.resume()
        let isOver = Mutex(false)
        let scrubbed = DispatchSemaphore(value: 0)
        Thread.detachNewThread {
            do {
                try node.ledger.rememberAccounts(until: { isOver.withLock { $0 } })
            } catch {
                log("accounts are not kept in memory: \(error)")
            }
            node.scrub(until: { isOver.withLock { $0 } }) { log($0) }
            scrubbed.signal()
        }
        let mining = miner.map { miner in
            Cancellation.$current.withValue(interruption.cancellation) {
                Background { mine(miner, log) }
            }
        }
        interruption.wait()
        isOver.withLock { $0 = true }
        scrubbed.wait()
        try mining?.value()
        try judging.value()
        withExtendedLifetime((hangup, pruning)) {}
        log("stopping; commands under way are ended")
    }

    /// A miner that has all it needs: what is missing is told before the node serves.
    private func makeMiner(_ file: String, _ node: Node, _ console: Console) throws
        -> ContinuousMiner
    {
        let text = try console.read(file)
        let model = try node.model(mineModel)
        _ = try TrainingText(text, name: file, tokenizer: model.tokenizer)
        let plan = ContinuousMiner.Plan(
            model: model.model.name, text: text, textName: file,
            order: mineOrder ?? .roundRobin,
            training: Node.Training(
                MiningDefaults.options(mineSteps ?? MiningDefaults.steps, model),
                threads: node.threads))
        return ContinuousMiner(
            node, plan, key: try authorKey(mineWallet ?? Wallets.node, node, console))
    }

    /// Mines until the node ends; a fault ends the mining and not the node.
    private func mine(_ miner: ContinuousMiner, _ log: @escaping @Sendable (String) -> Void) {
        let lines = MinerLog(bar: nil, rehearsal: 0) { log($0) }
        do { try miner.run { try lines.add($0) } } catch let error as KernelError
            where error.code == .cancelled
        {
            log("mining is stopped; it goes on there when the node runs again")
        } catch {
            log("mining has ended: \(error)")
        }
    }
}
