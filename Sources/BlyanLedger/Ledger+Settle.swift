public import BlyanJSON
public import BlyanKernel
internal import Foundation

extension Ledger {
    /// Runs `body` while nobody else writes on chain C; it may write through this ledger.
    ///
    /// - Parameter body: gets the index of the next block of chain C.
    public func holding<R>(_ body: (_ next: Int64) throws -> R) rethrows -> R {
        writing.lock()
        defer { writing.unlock() }
        return try body(store.next(on: "C").index)
    }

    /// Appends a usage block and the rewards that follow from it, as one record: both stand, or neither.
    ///
    /// - Parameters:
    ///   - document: the payload of the usage block.
    ///   - dependencies: blocks that it depends on.
    ///   - key: the key of a validator of the Genesis Pact.
    ///   - time: UTC milliseconds.
    ///   - rewards: the transactions that follow, with reasons that name the usage block; none = it stands alone.
    /// - Returns: The usage block, and the reward block if there is one.
    /// - Throws: As ``append(_:key:time:with:)``.
    public func settle(
        _ document: JSONValue, dependsOn dependencies: [Digest], key: SigningKey, time: Int64,
        rewards: (Block) throws(KernelError) -> [Transaction]
    ) throws(KernelError) -> (usage: Block, reward: Block?) {
        writing.lock()
        defer { writing.unlock() }
        let (state, mark) = try ready()
        let usage = try sign(
            "usage", document.canonical(), dependencies, key, time,
            BlockEffect(supply: mark.supply), after: mark)
        let transactions = try rewards(usage.block)
        guard !transactions.isEmpty else {
            try commit(usage, after: [])
            return (usage.block, nil)
        }
        let reward: LedgerDraft
        do throws(KernelError) {
            reward = try make(transactions, key, time, state, usage.mark)
        } catch {
            guard isDamaged(error) else { throw error }
            try rebuild("the balances are made again from chain C: \(error.message)")
            reward = try make(transactions, key, time, current().state, usage.mark)
        }
        try commit(reward, after: [usage.block])
        return (usage.block, reward.block)
    }
}
