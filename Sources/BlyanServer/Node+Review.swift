internal import BlyanJSON
package import BlyanKernel
package import BlyanLearning
package import BlyanLedger
internal import BlyanModel

/// Judging a version that stands again, and taking back what was paid for one that turns out to be worse.
extension Node {
    /// Judges the current version of a part again on fresh text, and reverts it if it is shown to be worse than its parent.
    ///
    /// It yields to a chat.
    /// - Parameter passphrase: asked if the key that signs is locked; nil = what the node was made with.
    /// - Throws: ``ModelError`` if there is no such part; as ``Judge/review(_:)``.
    package func review(
        _ part: String, model name: String?, passphrase: (@Sendable () throws -> [UInt8])? = nil
    ) throws -> Judge.Review {
        let model = try catalog.model(named: name)
        guard let hash = model.parts[part], let current = try store.block(hash) else {
            throw ModelError(
                "the model \(model.name) has no part \"\(part)\"",
                hint: "`blyan expert list --model \(model.name)` lists them")
        }
        let judge = try judge(passphrase: passphrase)
        return try Background(yields: true) { try judge.review(current) }.value()
    }

    /// Appends the record of a review that reverts a version and, in the same record, what is taken back for it.
    ///
    /// - Returns: The block that takes back; nil if nothing was paid, or all of it has vested.
    func append(_ record: [Block], takingBack reverted: RevertedVersion) throws -> Block? {
        try ledger.holding { _ in
            let taken = try clawbacks(of: reverted.block, because: reverted.verdict)
            guard !taken.isEmpty else {
                try store.append(record)
                return nil
            }
            return try ledger.append(
                taken, key: signingKey(), time: reverted.time, with: { _ in record })
        }
    }

    /// What a block takes back, by account, in micro-BLY.
    ///
    /// - Throws: ``KernelError`` if it is no block of transactions.
    package func takenBack(by block: Block) throws(KernelError) -> [Account: Int64] {
        var amounts: [Account: Int64] = [:]
        for transaction in try LedgerDocument(store.document(block)).transactions {
            guard case .clawback(let clawback) = transaction else { continue }
            amounts[clawback.from, default: 0] += clawback.amount
        }
        return amounts
    }
}
