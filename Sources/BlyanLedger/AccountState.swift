package import BlyanKernel

/// A reward that has not vested yet, or not all of it.
public struct Grant: Sendable, Equatable {
    /// The index on chain C of the block that has the reward.
    public let block: Int64
    /// The reward's position among that block's transactions.
    public let transaction: Int64
    /// The time of that block: see ``LedgerState/Mark/clock``.
    public let since: Int64
    /// Micro-BLY of the whole reward.
    public let amount: Int64
    /// Usage and reward blocks over which it vests, above 0.
    public let vesting: Int64

    /// Makes one.
    package init(
        block: Int64, transaction: Int64, since: Int64, amount: Int64, vesting: Int64
    ) {
        (self.block, self.transaction, self.since) = (block, transaction, since)
        (self.amount, self.vesting) = (amount, vesting)
    }

    /// Micro-BLY of it that a transaction cannot spend when usage and reward blocks number `clock`: the amount less
    /// ⌊amount × min(blocks since, vesting) / vesting⌋.
    public func unvested(at clock: Int64) -> Int64 {
        let elapsed = min(max(0, clock - since), vesting)
        let (high, low) = amount.multipliedFullWidth(by: elapsed)
        // elapsed ≤ vesting, so that the quotient is at most the amount.
        return amount - vesting.dividingFullWidth((high, low)).quotient
    }
}

/// What the books hold of one account.
package struct AccountState: Sendable, Equatable {
    /// Micro-BLY, vested or not.
    package var total: Int64 = 0
    /// Transfers that the account has made: the next one's nonce.
    package var nonce: Int64 = 0
    /// Rewards that had not vested when the account last changed, in the order in which they came.
    package var grants: [Grant] = []

    package init() {}

    /// Micro-BLY that a transaction may spend when usage and reward blocks number `clock`.
    package func spendable(at clock: Int64) -> Int64 {
        grants.reduce(total) { $0 - $1.unvested(at: clock) }
    }

    /// Grants of one account that are open at a time.
    package static let grantLimit = 16_384
}

/// One line of an account's history.
public struct HistoryEntry: Sendable, Equatable {
    /// The index of its block on chain C.
    public let block: Int64
    /// The position among the block's transactions.
    public let transaction: Int64
    /// `transfer`, `reward`, `clawback` or `fee`.
    public let kind: String
    /// Micro-BLY by which the account's total changed, the fee that it paid included.
    public let change: Int64
    /// Micro-BLY of the fee that it paid.
    public let fee: Int64
    /// Who paid or was paid; nil for the issuance and for fees.
    public let counterparty: Account?
    /// The block's time, UTC milliseconds.
    public let time: Int64
}

/// Where the books look up accounts that a block has not touched yet.
package protocol AccountSource {
    /// The state after the block before, or nil for an account that is not in the books.
    func account(_ account: Account) throws(KernelError) -> AccountState?
}
