public import BlyanKernel
internal import Foundation

/// Transfers of one caller that wait for a block; guarded by the ledger's lock.
final class Submission {
    let transfers: [Transfer]
    var results: [Result<Ledger.Receipt, KernelError>] = []
    var isDone = false

    init(_ transfers: [Transfer]) { self.transfers = transfers }
}

extension Ledger {
    /// Where a transaction stands.
    public struct Receipt: Sendable, Equatable {
        /// The block.
        public let block: Digest
        /// Its index on chain C.
        public let index: Int64
        /// The position among the block's transactions.
        public let transaction: Int64
    }

    /// Transfers of a block that ``submit(_:key:time:)`` makes.
    public static let batch = 10_000

    /// Verifies and applies transfers in blocks: callers that wait at the same time share one.
    ///
    /// Each transfer stands or is refused by itself.
    /// - Parameters:
    ///   - transfers: in the order in which they apply.
    ///   - key: the key of a validator of the Genesis Pact; the fees go to its account.
    ///   - time: UTC milliseconds.
    /// - Returns: For each transfer where it stands, durably, or a ``KernelError``: `rule` for one that the books
    ///   refuse, `integrity` for one that is not signed by its account.
    public func submit(_ transfers: [Transfer], key: SigningKey, time: Int64) -> [Result<
        Receipt, KernelError
    >] {
        let mine = Submission(transfers)
        enqueue(mine)
        writing.lock()
        defer { writing.unlock() }
        // Whoever held the ledger before may have taken these along.
        guard !isDone(mine) else { return mine.results }
        let all = takeWaiting()
        var results = post(all.flatMap(\.transfers), key, time)[...]
        for submission in all {
            finish(submission, Array(results.prefix(submission.transfers.count)))
            results = results.dropFirst(submission.transfers.count)
        }
        return mine.results
    }

    /// With `writing`.
    private func post(_ transfers: [Transfer], _ key: SigningKey, _ time: Int64) -> [Result<
        Receipt, KernelError
    >] {
        var results: [Result<Receipt, KernelError>] = []
        for start in stride(from: 0, to: transfers.count, by: Self.batch) {
            let part = Array(transfers[start..<min(transfers.count, start + Self.batch)])
            do throws(KernelError) {
                results += try postBlock(part, key, time)
            } catch {
                guard isDamaged(error) else {
                    results += part.map { _ in .failure(error) }
                    continue
                }
                results += again(part, key, time, error)
            }
        }
        return results
    }

    /// A second try, on balances that are made again.
    private func again(
        _ part: [Transfer], _ key: SigningKey, _ time: Int64, _ error: KernelError
    ) -> [Result<Receipt, KernelError>] {
        do throws(KernelError) {
            try rebuild("the balances are made again from chain C: \(error.message)")
            return try postBlock(part, key, time)
        } catch {
            return part.map { _ in .failure(error) }
        }
    }

    private func postBlock(_ transfers: [Transfer], _ key: SigningKey, _ time: Int64)
        throws(KernelError) -> [Result<Receipt, KernelError>]
    {
        let (state, mark) = try ready()
        var errors: [Int: KernelError] = [:]
        let transactions = transfers.map { Transaction.transfer($0) }
        for fault in Transaction.check(transactions, genesis: mark.genesis) {
            errors[fault.position] = fault.error
        }
        var books = Books(
            after: mark, signer: Account(key), time: time, source: state)
        var taken: [Transaction] = []
        var positions = [Int64](repeating: 0, count: transfers.count)
        taken.reserveCapacity(transfers.count + 1)
        for (i, transaction) in transactions.enumerated() where errors[i] == nil {
            do throws(KernelError) {
                try books.apply(transaction, at: Int64(taken.count))
                positions[i] = Int64(taken.count)
                taken.append(transaction)
            } catch {
                // Damaged balances are no reason to refuse a transfer.
                guard error.code == .rule || error.code == .limit else { throw error }
                errors[i] = error
            }
        }
        var hash = Digest.zero
        if !taken.isEmpty {
            let draft = try seal(taken, books, key, time, mark)
            try commit(draft, after: [])
            hash = draft.block.hash
        }
        return transfers.indices.map { i in
            if let error = errors[i] { return .failure(error) }
            return .success(
                Receipt(block: hash, index: mark.count, transaction: positions[i]))
        }
    }
}
