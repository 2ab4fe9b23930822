internal import ArgumentParser
internal import BlyanJSON
internal import BlyanKernel
internal import BlyanLedger
internal import BlyanModel
internal import BlyanServer
internal import Foundation

struct Chain: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Verify, list and mend the chains.",
        subcommands: [ChainVerify.self, ChainLog.self, ChainReindex.self, ChainCheck.self])
}

extension Console {
    /// Tells the first of what was found: all that follows a damaged record fails with it.
    fileprivate func note(failures: [String]) {
        let limit = 20
        for failure in failures.prefix(limit) { note("blyan: \(failure)") }
        guard failures.count > limit else { return }
        note("blyan: \(failures.count - limit) more failures; --json lists all of them")
    }
}

struct ChainVerify: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify",
        abstract: "Check every header: canonical form, hash, signature, links and rules.",
        discussion: """
            Chain C is played from its first block, and its balances are compared with those that are stored. Payload \
            bytes of other chains are read by `chain check --read-data`.
            """)

    @OptionGroup var home: HomeOptions

    @Flag(help: "Print one JSON object.")
    var json = false

    func run(_ node: Node, _ console: Console) throws {
        try verify(node.store, console) { node.ledger.verify() }
    }

    /// The log can be reported on although the home does not open: it is damaged, its manifest is wrong, or it lies where
    /// nothing can be written.
    func run(unopened home: URL, _ reason: KernelError, _ console: Console) throws {
        let isReadOnly = unsafe reason.code == .io && access(home.path, W_OK) != 0
        guard isReadOnly || [.integrity, .malformed, .limit, .config].contains(reason.code) else {
            throw reason
        }
        let lock = try isReadOnly ? nil : HomeLock(home: home)
        defer { withExtendedLifetime(lock) {} }
        let report = KernelError(
            reason.code,
            "the home does not open, its log alone is read\(isReadOnly ? ", and what it may have lost from its end is not known" : ""): \(reason.message)",
            hint: reason.hint)
        console.note(Failure(report, arguments: ["--home", self.home.home]).text)
        // The ledger's rules stand among those of its chain: no index, and no balances, are needed.
        let store = try ChainStore(reading: home, specs: [.rewarded, .b, LedgerAudit().spec])
        try verify(store, console, damage: isReadOnly ? nil : report.message)
    }

    private func verify(
        _ store: ChainStore, _ console: Console, damage: String? = nil,
        _ replay: () -> LedgerReport? = { nil }
    ) throws {
        let clock = ContinuousClock()
        let start = clock.now
        let report = try store.verify()
        let ledger = replay()
        var failures = report.failures.map { (block: $0.block, reason: $0.reason) }
        failures += ledger?.failures ?? []
        if let damage, failures.isEmpty { failures.append(("?", damage)) }
        if report.blocks == 0, failures.isEmpty {
            failures.append(("?", "the log holds no block, not even a genesis block"))
        }
        let seconds = (clock.now - start).seconds
        if json {
            struct Failure: Encodable { let block, reason: String }
            struct Report: Encodable {
                let blocks: Int
                let chains: [String: Int]
                let ok: Bool
                let failures: [Failure]
                let seconds: Double
                let ledger: Books?
            }
            struct Books: Encodable {
                let blocks: Int64, accounts: Int
                let supplyMicroBly: String
            }
            try console.printJSON(
                Report(
                    blocks: report.blocks, chains: report.chains, ok: failures.isEmpty,
                    failures: failures.map { Failure(block: $0.block, reason: $0.reason) },
                    seconds: seconds,
                    ledger: ledger.map {
                        Books(
                            blocks: $0.blocks, accounts: $0.accounts,
                            supplyMicroBly: String($0.supply))
                    }))
        } else {
            for (chain, count) in report.chains.sorted(by: { $0.key < $1.key }) {
                try console.print("chain \(chain)   \(count.of("block"))")
            }
            console.note(failures: failures.map(\.reason))
            if failures.isEmpty {
                if let ledger, ledger.blocks > 0 {
                    try console.print(
                        "ledger    \(ledger.accounts.of("account")), \(Amount.text(ledger.supply)) in all: as chain C gives them"
                    )
                }
                try console.print(
                    "verified  \(report.blocks.of("block")) in \((seconds * 1000).formatted(1)) ms: hashes, signatures, links"
                )
            }
        }
        if !failures.isEmpty { throw ExitCode(1) }
    }
}

struct ChainLog: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "log", abstract: "List blocks, newest first.")

    @OptionGroup var home: HomeOptions

    @Option(help: ArgumentHelp("Only this chain.", valueName: "id"))
    var chain: String?

    @Option(
        name: [.customShort("n"), .long], parsing: .unconditional,
        help: ArgumentHelp("Blocks at most.", valueName: "n"))
    var limit = 20

    @Flag(help: "Print a JSON object a line.")
    var json = false

    func validate() throws {
        guard limit > 0 else { throw ValidationError("--limit must be above 0") }
    }

    func run(_ node: Node, _ console: Console) throws {
        if let chain { try checkChain(chain, in: node.store) }
        let query: ChainStore.Query = chain.map { .chain($0, from: 0) } ?? .arrival
        let blocks = try node.store.blocks(query, limit: limit, reverse: true)
        if json {
            for block in blocks { try console.print(block.described) }
            return
        }
        var rows = [["block", "chain", "index", "type", "name", "payload", "time"]]
        for block in blocks {
            let header = block.header
            let name =
                header.expertName.isEmpty
                ? header.metadata["model"]?.string ?? "" : header.expertName
            let time = Date(timeIntervalSince1970: Double(header.timestamp) / 1000)
            rows.append([
                String(block.hash.description.prefix(12)), header.chainID, "\(header.index)",
                header.blockType, name,
                header.payloadType.isEmpty
                    ? "" : "\(header.payloadType) \(Int(header.payloadSize).asBytes)",
                ISO8601DateFormatter().string(from: time),
            ])
        }
        try console.printTable(rows)
    }
}

extension Block {
    /// One line of JSON: the header's fields, the signature and, what no header says of itself, the hash.
    fileprivate var described: String {
        #"{"hash":"\#(hash)","# + String(decoding: line, as: UTF8.self).dropFirst()
    }
}

struct ChainReindex: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "reindex",
        abstract: "Build the index again from the log; also when its folder is gone or damaged.",
        discussion:
            "The old index is replaced when the new one is whole, and not if the log is damaged.")

    @OptionGroup var home: HomeOptions

    @Flag(help: "Print one JSON object.")
    var json = false

    var rebuildsIndex: Bool { true }

    func run(_ node: Node, _ console: Console) throws {
        // A home that this command opened has just been indexed; a holder's is indexed beside its service.
        let count = node.hasRebuiltIndex ? node.store.blockCount : try node.store.reindex()
        if json { return try console.printJSON(["blocks": count]) }
        try console.print("indexed   \(count.of("block")) from the log")
    }
}

struct ChainCheck: NodeCommand {
    static let configuration = CommandConfiguration(
        commandName: "check",
        abstract:
            "Check that every payload is there; with --read-data, that every byte is what was signed."
    )

    @OptionGroup var home: HomeOptions

    @Flag(help: "Read every payload and compare both its hash and its Merkle root.")
    var readData = false

    @Flag(help: "Print one JSON object.")
    var json = false

    func run(_ node: Node, _ console: Console) throws {
        let bar = ProgressBar(console)
        let report = try node.store.check(readData: readData) { done, all, bytes in
            bar.update(done, of: all, bytes: bytes, label: "payloads")
        }
        bar.end()
        if !report.failures.isEmpty { node.forgetPayloads() }
        // What ledger blocks say is in their payloads.
        let failures = report.failures + node.ledger.verify().failures.map(\.reason)
        if json {
            struct Report: Encodable {
                let payloads, bytes: Int; let ok: Bool; let failures: [String]
            }
            try console.printJSON(
                Report(
                    payloads: report.payloads, bytes: report.bytes, ok: failures.isEmpty,
                    failures: failures))
        } else {
            console.note(failures: failures)
            let what = readData ? "read and compared" : "present with their signed size"
            try console.print(
                "\(report.payloads - report.failures.count) of \(report.payloads) payloads \(what), \(report.bytes.asBytes)"
            )
        }
        if !failures.isEmpty { throw ExitCode(1) }
    }
}
