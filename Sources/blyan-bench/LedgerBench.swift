internal import ArgumentParser
internal import BlyanJSON
internal import BlyanKernel
internal import BlyanLedger
internal import Foundation

struct LedgerBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ledger",
        abstract: "Signed transfers verified and applied in durable blocks; balance look-ups.")

    @Option(help: "Transfers in all.")
    var transfers = 100_000

    @Option(help: "Accounts that pay.")
    var people = 2_000

    @Option(help: "Accounts of the largest book of the look-ups.")
    var accounts = 1_000_000

    @Option(help: "Folder for the temporary home: on the disk that is to be measured.")
    var folder: String?

    func run() throws {
        var figures: [String: Double] = [
            "cores": Double(ProcessInfo.processInfo.activeProcessorCount)
        ]
        try throughput(&figures)
        try lookUps(&figures)
        try report(figures)
    }

    private func open(_ folder: URL, key: SigningKey) throws -> (ChainStore, Ledger, Digest) {
        let store = try ChainStore(home: folder, specs: [.a, .b, .c])
        let genesis = try Block(
            signing: BlockHeader(
                chainID: "A", blockType: "genesis", index: 0, previous: nil, timestamp: 1),
            with: key)
        try store.append([genesis])
        return (store, Ledger(store: store, home: folder), genesis.hash)
    }

    /// Transfers a second through ``Ledger/submit(_:key:time:)``, and through a replay of the same blocks from the
    /// first one; both verify every signature.
    private func throughput(_ figures: inout [String: Double]) throws {
        let folder = try TemporaryFolder(in: folder)
        let key = try SigningKey()
        let (store, ledger, genesis) = try open(folder.url, key: key)
        let keys = try (0..<people).map { _ in try SigningKey() }
        let reason = Reason(
            blocks: [genesis], verdict: nil,
            policy: Reason.Policy(name: "bench", version: "1.0.0", vectors: .zero, library: .zero))
        try ledger.append(
            keys.map {
                .reward(
                    Reward(to: Account($0), amount: 1_000_000_000, vesting: 0, reason: reason))
            }, key: key, time: 1)
        var all: [Transfer] = []
        for i in 0..<transfers {
            // Every account pays in turn, and each time another one.
            let (payer, round) = (i % people, i / people)
            let receiver = (payer + 1 + round % (people - 1)) % people
            all.append(
                try Transfer(
                    signedBy: keys[payer], to: Account(keys[receiver]), amount: 5, fee: 1,
                    nonce: Int64(round), genesis: genesis))
        }
        var rates: [Double] = []
        for start in stride(from: 0, to: transfers, by: Ledger.batch) {
            let part = Array(all[start..<min(transfers, start + Ledger.batch)])
            var refused = 0
            let taken = seconds {
                refused = ledger.submit(part, key: key, time: 1).count { (try? $0.get()) == nil }
            }
            guard refused == 0 else {
                throw KernelError(.rule, "\(refused) of the benchmark's transfers were refused")
            }
            rates.append(Double(part.count) / taken)
        }
        figures["transfers"] = Double(transfers)
        figures["transfers_a_block"] = Double(Ledger.batch)
        figures["transfers_per_s_median"] = median(rates)
        figures["transfers_per_s_slowest_block"] = rates.min() ?? 0
        var failures = 0
        let taken = seconds { failures = ledger.verify().failures.count }
        guard failures == 0 else {
            throw KernelError(.integrity, "the benchmark's own ledger does not verify")
        }
        figures["replayed_per_s"] = Double(transfers) / taken
        ledger.close()
        store.close()
    }

    /// Microseconds that a balance of an account that is there takes, any of them with equal chance: of a ledger that was
    /// just opened, and once it has its accounts in memory, as the holder of a home has.
    private func lookUps(_ figures: inout [String: Double]) throws {
        var medians: [Double] = []
        for count in [1_000, 100_000, accounts] {
            let folder = try TemporaryFolder(in: folder)
            let key = try SigningKey()
            let store = try ChainStore(home: folder.url, specs: [.a, .b, .c])
            let genesis = try Block(
                signing: BlockHeader(
                    chainID: "A", blockType: "genesis", index: 0, previous: nil, timestamp: 1),
                with: key)
            try store.append([genesis])
            try fill(folder.url.appendingPathComponent("ledger").path, count, genesis.hash)
            let ledger = Ledger(store: store, home: folder.url)
            figures["balance_first_1000_us_at_\(count)"] = try median(
                times(1_000, of: count, ledger))
            figures["remember_s_at_\(count)"] = try seconds { try ledger.rememberAccounts() }
            // Once more than what is measured: the caches of the processor are those of a process at work.
            let steady = try median(Array(times(200_000, of: count, ledger)[100_000...]))
            figures["balance_us_at_\(count)"] = steady
            medians.append(steady)
            ledger.close()
            store.close()
        }
        figures["balance_growth_1000_to_\(accounts)"] = (medians.last ?? 0) / (medians.first ?? 1)
    }

    private func times(_ looks: Int, of count: Int, _ ledger: Ledger) throws -> [Double] {
        let asked = try (0..<looks).map { _ in try account(Int.random(in: 0..<count)) }
        return try asked.map { name in
            var total: Int64 = 0
            let taken = try seconds { total = try ledger.balance(of: name).total }
            guard total > 0 else {
                throw KernelError(.notFound, "an account of the benchmark is gone")
            }
            return taken * 1e6
        }
    }

    private func account(_ i: Int) throws -> Account {
        let digest = SHA256.hash(Array("account \(i)".utf8))
        guard let account = Account([2] + digest.bytes) else {
            throw KernelError(.malformed, "33 bytes are an account")
        }
        return account
    }

    /// Balances as blocks would leave them; making the signatures of so many would measure something else.
    private func fill(_ path: String, _ count: Int, _ genesis: Digest) throws {
        let state = try LedgerState(path: path)
        for start in stride(from: 0, to: count, by: 10_000) {
            var changes: [Account: AccountState] = [:]
            for i in start..<min(count, start + 10_000) {
                var one = AccountState()
                one.total = Int64(i) + 1
                changes[try account(i)] = one
            }
            try state.write(changes, [], mark: .init(genesis: genesis))
        }
    }
}
