internal import BlyanJSON
public import BlyanKernel
internal import Foundation
internal import Synchronization

/// Accounts in memory.
private final class MemoryAccounts: AccountSource {
    var accounts: [Account: AccountState] = [:]

    func account(_ account: Account) throws(KernelError) -> AccountState? { accounts[account] }
}

// Unchecked: `lock` guards the books.
/// Chain C played from its first block in memory, knowing nothing of the stored balances.
///
/// Any thread; blocks come in order.
public final class LedgerAudit: @unchecked Sendable {
    private let lock = Mutex(())
    private let source = MemoryAccounts()
    private(set) var mark: LedgerState.Mark?
    private var isBroken = false

    /// Empty books.
    public init() {}

    /// Chain C with a rule that plays it: for ``ChainStore/verify()`` of a store that was opened for reading its log alone.
    public var spec: ChainSpec {
        let rule: ChainSpec.Rule = { [self] (block, view) throws(KernelError) in
            try check(block, view)
        }
        return .ledger([rule])
    }

    private func check(_ block: Block, _ view: any ChainView) throws(KernelError) {
        guard let genesis = view.genesis else { return }
        try add(block, genesis: genesis) { () throws(KernelError) in
            let value = try view.document(block)
            guard SHA256.hash(value.canonical()) == block.header.payloadHash else {
                throw KernelError(
                    .malformed, "the ledger document is not canonical JSON (RFC 8785)")
            }
            return try LedgerDocument(value)
        }
    }

    var accounts: [Account: AccountState] { source.accounts }

    /// Plays the next block; after a broken one nothing is judged any more.
    ///
    /// - Throws: ``KernelError`` naming the block and the rule that it breaks.
    func add(
        _ block: Block, genesis: Digest, document: () throws(KernelError) -> LedgerDocument
    ) throws(KernelError) {
        var failure: KernelError?
        lock.withLock { _ in
            guard !isBroken else { return }
            var mark = mark ?? LedgerState.Mark(genesis: genesis)
            do throws(KernelError) {
                guard block.header.index == mark.count else {
                    throw KernelError(
                        .rule,
                        "block \(block.hash) cannot be judged: block \(mark.count) of chain C is missing"
                    )
                }
                let effect = try BlockReader.read(
                    block, after: mark, source: source, document: document)
                source.accounts.merge(effect.changes) { $1 }
                mark.advance(over: block, supply: effect.supply)
                self.mark = mark
            } catch {
                isBroken = true
                failure = error
            }
        }
        if let failure { throw failure }
    }
}

/// What a replay of chain C found.
public struct LedgerReport: Sendable {
    /// Blocks that were played.
    public var blocks: Int64 = 0
    /// Accounts in the books.
    public var accounts = 0
    /// Micro-BLY in existence.
    public var supply: Int64 = 0
    /// The block that breaks the rules, or "?" where the stored balances differ, and why; blocks after a broken one are
    /// not judged.
    public var failures: [(block: String, reason: String)] = []
}

extension Ledger {
    /// Plays chain C from its first block and compares the result with the stored balances.
    ///
    /// Appends wait only while the last blocks are played and balances compared.
    public func verify() -> LedgerReport {
        let audit = LedgerAudit()
        var report = LedgerReport()
        play(audit, &report)
        writing.lock()
        defer { writing.unlock() }
        if report.failures.isEmpty { play(audit, &report) }
        report.blocks = audit.mark?.count ?? 0
        report.supply = audit.mark?.supply ?? 0
        report.accounts = audit.accounts.count
        guard report.failures.isEmpty else { return report }
        do throws(KernelError) {
            try compare(audit, &report)
        } catch {
            report.failures.append(("?", error.message))
        }
        return report
    }

    private func play(_ audit: LedgerAudit, _ report: inout LedgerReport) {
        guard let genesis = store.genesis else { return }
        var current: Block?
        do throws(KernelError) {
            try store.scan(.chain("C", from: audit.mark?.count ?? 0)) {
                (block) throws(KernelError) in
                current = block
                try audit.add(block, genesis: genesis) { () throws(KernelError) in
                    try LedgerDocument(store.document(block))
                }
                return true
            }
        } catch {
            report.failures.append((current?.hash.description ?? "?", error.message))
        }
    }

    private func compare(_ audit: LedgerAudit, _ report: inout LedgerReport) throws(KernelError) {
        guard store.genesis != nil else { return }
        let (state, mark) = try current()
        let hint = "remove \(path) while nobody holds the home: it is made again from chain C"
        var wrong: [String] = []
        if let played = audit.mark, played != mark {
            wrong.append("they are true for block \(mark.hash) with supply \(mark.supply)")
        }
        var found = 0
        try state.scan { (account, stored) throws(KernelError) in
            found += 1
            if audit.accounts[account] != stored {
                wrong.append(
                    "account \(account) has \(stored.total) micro-BLY and nonce \(stored.nonce), expected \(audit.accounts[account]?.total ?? 0) and \(audit.accounts[account]?.nonce ?? 0)"
                )
            }
            // What is told comes from memory where that has the account.
            if let told = state.remembered(account), told != stored {
                wrong.append("account \(account) is kept in memory with \(told.total) micro-BLY")
            }
            return wrong.count < 10
        }
        if wrong.isEmpty, found != audit.accounts.count {
            wrong.append("there are \(found) accounts, expected \(audit.accounts.count)")
        }
        for reason in wrong {
            report.failures.append(
                ("?", "the stored balances are not those of chain C: \(reason); \(hint)"))
        }
    }
}
