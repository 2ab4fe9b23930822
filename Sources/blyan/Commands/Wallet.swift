internal import ArgumentParser
internal import BlyanKernel
internal import BlyanLedger
internal import BlyanServer
internal import Foundation

struct Wallet: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Make wallets, look up balances and histories, send BLY.",
        discussion: """
            A wallet is a key; its account is the public key. The wallet "node" is the node's own key, which the \
            fees of this home's blocks go to. Amounts are in BLY with at most 6 decimals, such as 1.25; with --json they \
            are whole micro-BLY, a millionth of a BLY, as the chain has them.
            """,
        subcommands: [
            WalletNew.self, WalletList.self, WalletBalance.self, WalletSend.self,
            WalletHistory.self, WalletTrust.self,
        ])
}

/// Where a wallet's passphrase comes from.
struct WalletOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Read the wallet's passphrase from the first line of a file.", valueName: "file"))
    var walletPassphraseFile: String?

    func validate() throws {
        if walletPassphraseFile?.isEmpty == true {
            throw ValidationError("--wallet-passphrase-file is empty: give a path")
        }
    }
}

extension NodeCommand {
    /// Asks for a wallet's passphrase where the person is: here, or at the client's end.
    func passphrase(_ request: KeyRequest, _ node: Node, _ console: Console) throws
        -> [UInt8]
    {
        if let ask = console.passphrase { return try ask(request) }
        return try Passphrase(home, walletFile: walletPassphraseFile, console: console)
            .answering(request, node.home)
    }
}

/// The account that a command asks about.
private func meant(_ text: String?, _ node: Node) throws -> Account {
    let wallets = Wallets(home: node.home)
    return try text.map { try wallets.account(meant: $0) } ?? wallets.account(of: Wallets.node)
}

struct WalletNew: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "new", abstract: "Make a wallet: a new key, encrypted by a passphrase.",
        discussion: """
            The passphrase comes from --wallet-passphrase-file, BLYAN_WALLET_PASSPHRASE or a prompt; without any of \
            them a random one is kept in a file beside the key. Whoever loses key or passphrase loses the money.
            """)

    @OptionGroup var home: HomeOptions
    @OptionGroup var wallet: WalletOptions

    @Argument(
        help: ArgumentHelp(
            "Its name: letters, digits, -, _ and . (it stays in this home).", valueName: "name"))
    var name: String

    @Flag(help: "Print one JSON object.")
    var json = false

    var walletPassphraseFile: String? { wallet.walletPassphraseFile }

    func run(_ node: Node, _ console: Console) throws {
        let made = try Wallets(home: node.home).create(name) {
            try passphrase(.newWallet(name), node, console)
        }
        if let file = made.keyFile {
            console.note(
                "blyan: no passphrase was given: the wallet is opened by a random one in \(file) (mode 0600); whoever reads that file and the key can spend"
            )
        }
        if json {
            return try console.printJSON(["name": name, "account": made.account.description])
        }
        try console.print("wallet    \(name)")
        try console.print("account   \(made.account)")
    }
}

struct WalletList: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "list", abstract: "List the wallets of this home and what they have.")

    @OptionGroup var home: HomeOptions

    @Flag(help: "Print one JSON array.")
    var json = false

    func run(_ node: Node, _ console: Console) throws {
        struct Entry: Encodable { let name, account, totalMicroBly, spendableMicroBly: String }
        var entries: [Entry] = []
        var rows = [["wallet", "balance", "spendable", "account"]]
        for wallet in try Wallets(home: node.home).list() {
            let balance = try node.ledger.balance(of: wallet.account)
            entries.append(
                Entry(
                    name: wallet.name, account: wallet.account.description,
                    totalMicroBly: String(balance.total),
                    spendableMicroBly: String(balance.spendable)))
            rows.append([
                wallet.name, Amount.text(balance.total), Amount.text(balance.spendable),
                wallet.account.description,
            ])
        }
        if json { return try console.printJSON(entries) }
        try console.printTable(rows)
    }
}

struct WalletBalance: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "balance", abstract: "Show what an account has, and what of it can be spent.")

    @OptionGroup var home: HomeOptions

    @Argument(
        help: ArgumentHelp(
            "A wallet's name, or an account's public key (default: node).", valueName: "wallet"))
    var account: String?

    @Flag(help: "Print one JSON object.")
    var json = false

    func run(_ node: Node, _ console: Console) throws {
        let account = try meant(account, node)
        let balance = try node.ledger.balance(of: account)
        let rewards = try node.ledger.grants(of: account).count
        if json {
            struct Report: Encodable {
                let account, totalMicroBly, spendableMicroBly, nonce: String
                let vestingRewards: Int
                let height: Int64
            }
            return try console.printJSON(
                Report(
                    account: account.description, totalMicroBly: String(balance.total),
                    spendableMicroBly: String(balance.spendable), nonce: String(balance.nonce),
                    vestingRewards: rewards, height: balance.height))
        }
        try console.print("account   \(account)")
        try console.print("balance   \(Amount.text(balance.total))")
        try console.print("spendable \(Amount.text(balance.spendable))")
        if rewards > 0 {
            try console.print(
                "vesting   \(Amount.text(balance.total - balance.spendable)) of \(rewards.of("reward"))"
            )
        }
        try console.print("nonce     \(balance.nonce)")
        try console.print("height    \(Int(balance.height).of("block")) of chain C")
    }
}

struct WalletSend: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "send", abstract: "Pay BLY from a wallet to an account.",
        discussion: """
            The transfer is signed by the wallet's key and stands in a block that this node signs: it returns when \
            that block is durable. The fee goes to the signer of the block.
            """)

    @OptionGroup var home: HomeOptions
    @OptionGroup var wallet: WalletOptions

    @Argument(help: ArgumentHelp("A wallet's name, or an account's public key.", valueName: "to"))
    var to: String

    @Argument(help: ArgumentHelp("BLY, such as 1.25.", valueName: "amount"))
    var amount: String

    @Option(help: ArgumentHelp("The wallet that pays.", valueName: "name"))
    var from = Wallets.node

    @Option(help: ArgumentHelp("BLY for the block's signer.", valueName: "amount"))
    var fee = "0"

    @Flag(help: "Print one JSON object.")
    var json = false

    var walletPassphraseFile: String? { wallet.walletPassphraseFile }

    func run(_ node: Node, _ console: Console) throws {
        let wallets = Wallets(home: node.home)
        let (micro, fee) = (try Amount.parse(amount), try Amount.parse(fee))
        let receiver = try wallets.account(meant: to)
        // Before anybody is asked for a passphrase.
        let payer = try wallets.account(of: from)
        guard let genesis = node.store.genesis else {
            throw KernelError(.notFound, "this home has no genesis block, and so no accounts")
        }
        let validator = try node.signingKey(passphrase: console.nodePassphrase)
        let key =
            from == Wallets.node
            ? validator
            : try wallets.unlock(from) { try passphrase(.wallet(from), node, console) }
        while true {
            try Cancellation.check()
            let nonce = try node.ledger.balance(of: payer).nonce
            let transfer = try Transfer(
                signedBy: key, to: receiver, amount: micro, fee: fee, nonce: nonce,
                genesis: genesis)
            let result = node.ledger.submit([transfer], key: validator, time: now()).first
            do {
                guard let receipt = try result?.get() else { return }
                return try finish(receipt, payer, receiver, micro, fee, node, console)
            } catch let error as KernelError where error.code == .rule {
                // Another command of this wallet was faster: its next nonce, then.
                guard try node.ledger.balance(of: payer).nonce > nonce else { throw error }
            }
        }
    }

    private func finish(
        _ receipt: Ledger.Receipt, _ payer: Account, _ receiver: Account, _ micro: Int64,
        _ fee: Int64, _ node: Node, _ console: Console
    ) throws {
        if let block = try node.store.block(receipt.block) {
            node.messages.publish(BlockStored(block), to: .blockStored)
        }
        if json {
            struct Report: Encodable {
                let from, to, amountMicroBly, feeMicroBly, block: String
                let index, transaction: Int64
            }
            return try console.printJSON(
                Report(
                    from: payer.description, to: receiver.description,
                    amountMicroBly: String(micro), feeMicroBly: String(fee),
                    block: receipt.block.description, index: receipt.index,
                    transaction: receipt.transaction))
        }
        try console.print(
            "sent      \(Amount.text(micro)) to \(receiver)\(fee > 0 ? ", fee \(Amount.text(fee))" : "")"
        )
        try console.print("block     \(receipt.block), number \(receipt.index) of chain C")
        let rest = try node.ledger.balance(of: payer)
        try console.print("left      \(Amount.text(rest.total))")
    }
}

struct WalletHistory: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "history", abstract: "List what an account paid and was paid, newest first.")

    @OptionGroup var home: HomeOptions

    @Argument(
        help: ArgumentHelp(
            "A wallet's name, or an account's public key (default: node).", valueName: "wallet"))
    var account: String?

    @Option(
        name: [.customShort("n"), .long], parsing: .unconditional,
        help: ArgumentHelp("Lines at most.", valueName: "n"))
    var limit = 20

    @Flag(help: "Print one JSON array.")
    var json = false

    func validate() throws {
        guard limit > 0 else { throw ValidationError("--limit must be above 0") }
    }

    func run(_ node: Node, _ console: Console) throws {
        let account = try meant(account, node)
        let entries = try node.ledger.history(of: account, limit: limit)
        if json {
            struct Line: Encodable {
                let block, transaction, timestamp: Int64
                let kind, changeMicroBly, feeMicroBly, counterparty: String
            }
            return try console.printJSON(
                entries.map {
                    Line(
                        block: $0.block, transaction: $0.transaction, timestamp: $0.time,
                        kind: $0.kind, changeMicroBly: String($0.change),
                        feeMicroBly: String($0.fee),
                        counterparty: $0.counterparty?.description ?? "")
                })
        }
        let names = Dictionary(
            try Wallets(home: node.home).list().map { ($0.account, $0.name) },
            uniquingKeysWith: { first, _ in first })
        var rows = [["block", "kind", "change", "fee", "time", "with"]]
        for entry in entries {
            let time = Date(timeIntervalSince1970: Double(entry.time) / 1000)
            let other = entry.counterparty.map { names[$0] ?? $0.description } ?? ""
            rows.append([
                "\(entry.block)", entry.kind,
                (entry.change > 0 ? "+" : "") + Amount.text(entry.change),
                entry.fee > 0 ? Amount.text(entry.fee) : "",
                ISO8601DateFormatter().string(from: time), other,
            ])
        }
        try console.printTable(rows)
    }
}
