package import BlyanKernel

/// The rules of the books: one block's transactions applied in order, each in full or not at all.
///
/// Pure but for the look-ups. Signatures and keys are checked apart, by ``Transaction/check(_:genesis:)``, on all cores.
package struct Books {
    /// One side of a transaction; those of each transaction sum to zero.
    package struct Posting: Equatable {
        /// Whose books it stands in.
        package enum Book: Equatable {
            /// An account.
            case account(Account)
            /// Mirrors the total supply: its balance is the supply's negative.
            case issuance
            /// Holds fees between a block's transfers and its last transaction; zero after each block.
            case fees
        }
        package let book: Book
        package let amount: Int64
    }

    /// The index on chain C of the block.
    package let index: Int64
    private let clock: Int64
    private let signer: Account
    private let time: Int64
    private let source: any AccountSource
    /// Micro-BLY in existence.
    package private(set) var supply: Int64
    /// Micro-BLY of fees that nobody has got yet.
    package private(set) var fees: Int64 = 0
    /// Accounts that the block changed.
    package private(set) var changes: [Account: AccountState] = [:]
    /// Lines of the histories.
    package private(set) var history: [(account: Account, entry: HistoryEntry)] = []
    private var isClosed = false

    /// The books of the block after `mark`.
    package init(
        after mark: LedgerState.Mark, signer: Account, time: Int64, source: any AccountSource
    ) {
        (index, clock, supply) = (mark.count, mark.clock, mark.supply)
        (self.signer, self.time, self.source) = (signer, time, source)
    }

    /// The state of an account now; empty for one that is not in the books.
    package func state(of account: Account) throws(KernelError) -> AccountState {
        if let state = changes[account] { return state }
        return try source.account(account) ?? AccountState()
    }

    /// The two or three sides of a transaction.
    package static func postings(_ transaction: Transaction) throws(KernelError) -> [Posting] {
        switch transaction {
        case .transfer(let transfer):
            let (cost, overflow) = transfer.amount.addingReportingOverflow(transfer.fee)
            guard !overflow else {
                throw KernelError(
                    .limit,
                    "amount \(transfer.amount) and fee \(transfer.fee) together exceed \(Int64.max) micro-BLY"
                )
            }
            return [
                Posting(book: .account(transfer.from), amount: -cost),
                Posting(book: .account(transfer.to), amount: transfer.amount),
                Posting(book: .fees, amount: transfer.fee),
            ]
        case .reward(let reward):
            return [
                Posting(book: .issuance, amount: -reward.amount),
                Posting(book: .account(reward.to), amount: reward.amount),
            ]
        case .clawback(let clawback):
            return [
                Posting(book: .account(clawback.from), amount: -clawback.amount),
                Posting(book: .issuance, amount: clawback.amount),
            ]
        case .fee(let fee):
            return [
                Posting(book: .fees, amount: -fee.amount),
                Posting(book: .account(fee.to), amount: fee.amount),
            ]
        }
    }

    /// Applies a transaction; on an error nothing has changed.
    ///
    /// - Throws: ``KernelError`` with code `rule` or `limit` saying what was found and expected.
    package mutating func apply(_ transaction: Transaction, at position: Int64) throws(KernelError)
    {
        guard !isClosed else {
            throw KernelError(.rule, "a transaction follows the fees, which come last")
        }
        var owner: (Account, AccountState)?
        switch transaction {
        case .transfer(let transfer): owner = (transfer.from, try checked(transfer))
        case .reward(let reward): owner = (reward.to, try checked(reward, at: position))
        case .clawback(let clawback): owner = (clawback.from, try checked(clawback))
        case .fee(let fee): try check(fee)
        }
        var (supply, fees) = (supply, fees)
        var touched: [(Account, AccountState)] = []
        for posting in try Self.postings(transaction) {
            let overflow: Bool
            switch posting.book {
            case .issuance: (supply, overflow) = supply.subtractingReportingOverflow(posting.amount)
            case .fees: (fees, overflow) = fees.addingReportingOverflow(posting.amount)
            case .account(let account):
                var state: AccountState
                if let owner, owner.0 == account {
                    state = owner.1
                } else {
                    state = try self.state(of: account)
                }
                (state.total, overflow) = state.total.addingReportingOverflow(posting.amount)
                let spendable = state.spendable(at: clock)
                guard overflow || spendable >= 0 else {
                    throw shortage(account, state.total - posting.amount, posting.amount)
                }
                // What has vested needs no line of its own any more.
                state.grants.removeAll { $0.unvested(at: clock) == 0 }
                touched.append((account, state))
            }
            guard !overflow else {
                throw KernelError(
                    .limit, "it takes the supply or an account beyond \(Int64.max) micro-BLY")
            }
        }
        (self.supply, self.fees) = (supply, fees)
        for (account, state) in touched { changes[account] = state }
        record(transaction, at: position)
        if case .fee = transaction { isClosed = true }
    }

    /// The fees that the block's signer gets at its end, or nil.
    package var fee: Transaction? { fees == 0 ? nil : .fee(Fee(to: signer, amount: fees)) }

    /// That no fees are left over.
    package func checkClosed() throws(KernelError) {
        guard fees == 0 else {
            throw KernelError(
                .rule,
                "transfers paid fees of \(fees) micro-BLY, and no last transaction gives them to the signer"
            )
        }
    }

    private func shortage(_ account: Account, _ total: Int64, _ change: Int64) -> KernelError {
        guard let state = try? state(of: account), state.total > 0 else {
            return KernelError(
                .rule, "account \(account) has nothing, and \(Amount.text(-change)) are asked of it"
            )
        }
        let spendable = state.spendable(at: clock)
        let locked = state.total - spendable
        return KernelError(
            .rule,
            "account \(account) can spend \(Amount.text(spendable)), and \(Amount.text(-change)) are asked of it\(locked > 0 ? "; \(Amount.text(locked)) more have not vested" : "")",
            hint: locked > 0 ? "wait until more has vested, or send less" : "send less")
    }

    private func checked(_ transfer: Transfer) throws(KernelError) -> AccountState {
        guard transfer.amount > 0, transfer.fee >= 0 else {
            throw KernelError(
                .rule,
                "amount \(transfer.amount) and fee \(transfer.fee): expected above 0, and 0 or more",
                hint: "send a positive amount")
        }
        guard transfer.from != transfer.to else {
            throw KernelError(.rule, "account \(transfer.from) pays itself")
        }
        var state = try state(of: transfer.from)
        guard transfer.nonce == state.nonce else {
            let what =
                transfer.nonce < state.nonce
                ? "was used already: the transfer is stale, repeated, or a double spend"
                : "is ahead: transfers between are missing"
            throw KernelError(
                .rule,
                "nonce \(transfer.nonce) of account \(transfer.from) \(what); expected \(state.nonce)",
                hint: "look up the account's nonce and sign the transfer again with \(state.nonce)")
        }
        state.nonce += 1
        return state
    }

    private func checked(_ reward: Reward, at position: Int64) throws(KernelError) -> AccountState {
        guard reward.amount > 0, (0...LedgerDocument.vestingLimit).contains(reward.vesting) else {
            throw KernelError(
                .rule,
                "a reward of \(reward.amount) micro-BLY over \(reward.vesting) blocks: expected above 0, and 0 to \(LedgerDocument.vestingLimit)"
            )
        }
        var state = try state(of: reward.to)
        guard reward.vesting > 0 else { return state }
        state.grants.removeAll { $0.unvested(at: clock) == 0 }
        guard state.grants.count < AccountState.grantLimit else {
            throw KernelError(
                .limit,
                "account \(reward.to) has \(state.grants.count) rewards that have not vested, the most there may be",
                hint: "pay less often, or let rewards vest sooner")
        }
        state.grants.append(
            Grant(
                block: index, transaction: position, since: clock, amount: reward.amount,
                vesting: reward.vesting)
        )
        return state
    }

    private func checked(_ clawback: Clawback) throws(KernelError) -> AccountState {
        var state = try state(of: clawback.from)
        let rest = rest(of: clawback, in: state)
        guard let grant = rest.grant, rest.amount > 0 else {
            throw KernelError(
                .rule,
                "account \(clawback.from) has no reward of transaction \(clawback.transaction) in block \(clawback.block) that has not vested",
                hint: "only what has not vested can be taken back, once")
        }
        guard rest.amount == clawback.amount else {
            throw KernelError(
                .rule,
                "it takes \(clawback.amount) micro-BLY back, and \(rest.amount) have not vested in block \(index)"
            )
        }
        state.grants.remove(at: grant)
        return state
    }

    private func rest(of clawback: Clawback, in state: AccountState) -> (
        grant: Int?, amount: Int64
    ) {
        let grant = state.grants.firstIndex {
            $0.block == clawback.block && $0.transaction == clawback.transaction
        }
        // A reward of the same block would make its own number before it stands.
        guard let grant, clawback.block < index else { return (nil, 0) }
        return (grant, state.grants[grant].unvested(at: clock))
    }

    /// The transaction with what the ledger fills in.
    package func completed(_ transaction: Transaction) throws(KernelError) -> Transaction {
        guard case .clawback(let clawback) = transaction, clawback.amount == 0 else {
            return transaction
        }
        let amount = rest(of: clawback, in: try state(of: clawback.from)).amount
        return .clawback(
            Clawback(
                from: clawback.from, amount: amount, block: clawback.block,
                transaction: clawback.transaction, reason: clawback.reason))
    }

    private func check(_ fee: Fee) throws(KernelError) {
        guard fee.to == signer else {
            throw KernelError(
                .rule, "the fees go to \(fee.to), expected the block's signer \(signer)")
        }
        guard fee.amount == fees, fees > 0 else {
            throw KernelError(
                .rule, "the fees are \(fee.amount) micro-BLY, the block's transfers paid \(fees)")
        }
    }

    private mutating func record(_ transaction: Transaction, at position: Int64) {
        func note(_ account: Account, _ change: Int64, fee: Int64 = 0, _ other: Account? = nil) {
            history.append(
                (
                    account,
                    HistoryEntry(
                        block: index, transaction: position, kind: transaction.kind, change: change,
                        fee: fee, counterparty: other, time: time)
                ))
        }
        switch transaction {
        case .transfer(let it):
            note(it.from, -it.amount - it.fee, fee: it.fee, it.to)
            note(it.to, it.amount, it.from)
        case .reward(let it): note(it.to, it.amount)
        case .clawback(let it): note(it.from, -it.amount)
        case .fee(let it): note(it.to, it.amount)
        }
    }
}
