public import BlyanJSON
public import BlyanKernel
internal import Foundation

/// A block of chain C that is signed and not durable yet.
struct LedgerDraft {
    let block: Block
    let effect: BlockEffect
    let mark: LedgerState.Mark
}

extension Ledger {
    /// Appends a block with transactions, in one record with blocks of other chains, and applies it.
    ///
    /// Nobody else appends to chain C between the making of the block and its record. On an error nothing has changed:
    /// neither the chains nor the balances. A transaction is refused alone by naming its position; none of the others then
    /// stands either. Fees of transfers are given to the signer by a last transaction that this adds.
    /// - Parameters:
    ///   - transactions: at least one; a clawback may leave its amount to the ledger.
    ///   - key: the key of a validator of the Genesis Pact.
    ///   - time: UTC milliseconds.
    ///   - others: gives the blocks of the same record, which come before the ledger's block; it must not call this
    ///     ledger, except for balances.
    /// - Returns: The block.
    /// - Throws: ``KernelError`` with code `rule`, `limit` or `integrity` for what is refused; what `others` and
    ///   ``ChainStore/append(_:)`` throw.
    @discardableResult
    public func append(
        _ transactions: [Transaction], key: SigningKey, time: Int64,
        with others: (Block) throws(KernelError) -> [Block] = { _ in [] }
    ) throws(KernelError) -> Block {
        writing.lock()
        defer { writing.unlock() }
        let draft = try make(transactions, key, time)
        try commit(draft, after: others(draft.block))
        return draft.block
    }

    /// Appends a block of type `usage`, whose payload belongs to whoever counts: the books do not change by it, and
    /// rewards vest by one block.
    ///
    /// - Parameters:
    ///   - document: the payload.
    ///   - dependencies: blocks that it names.
    ///   - key: the key of a validator of the Genesis Pact.
    ///   - time: UTC milliseconds.
    ///   - others: as for ``append(_:key:time:with:)``.
    /// - Throws: As ``append(_:key:time:with:)``.
    @discardableResult
    public func appendUsage(
        _ document: JSONValue, dependsOn dependencies: [Digest] = [], key: SigningKey, time: Int64,
        with others: (Block) throws(KernelError) -> [Block] = { _ in [] }
    ) throws(KernelError) -> Block {
        writing.lock()
        defer { writing.unlock() }
        let (_, mark) = try ready()
        let draft = try sign(
            "usage", document.canonical(), dependencies, key, time,
            BlockEffect(supply: mark.supply),
            after: mark)
        try commit(draft, after: others(draft.block))
        return draft.block
    }

    /// Makes and signs a block with transactions without appending it, for a record that somebody else writes.
    ///
    /// Its payload is stored. Nothing is held: if another block of chain C comes first, the record is refused as a whole
    /// by the store, and this is called again. After the record is durable, ``apply()`` brings the balances up to it.
    /// - Throws: As ``append(_:key:time:with:)``.
    public func prepare(_ transactions: [Transaction], key: SigningKey, time: Int64)
        throws(KernelError) -> Block
    {
        writing.lock()
        defer { writing.unlock() }
        return try make(transactions, key, time).block
    }

    /// Applies what stands on chain C and the balances do not know yet.
    ///
    /// - Throws: ``KernelError`` if a block breaks the rules, which no block of ``prepare(_:key:time:)`` does.
    public func apply() throws(KernelError) {
        writing.lock()
        defer { writing.unlock() }
        _ = try ready()
    }

    /// The books as they are after the last block of chain C; with `writing`.
    func ready() throws(KernelError) -> (state: LedgerState, mark: LedgerState.Mark) {
        do throws(KernelError) {
            if try store.next(on: "C").index != current().mark.count { try carryForward() }
        } catch {
            guard isDamaged(error) else {
                // A block that breaks the rules stays there.
                if error.code != .io { keep(error) }
                throw error
            }
            try rebuild("the balances are made again from chain C: \(error.message)")
        }
        return try current()
    }

    private func make(_ transactions: [Transaction], _ key: SigningKey, _ time: Int64)
        throws(KernelError) -> LedgerDraft
    {
        do throws(KernelError) {
            let (state, mark) = try ready()
            return try make(transactions, key, time, state, mark)
        } catch {
            guard isDamaged(error) else { throw error }
            try rebuild("the balances are made again from chain C: \(error.message)")
            let (state, mark) = try current()
            return try make(transactions, key, time, state, mark)
        }
    }

    /// The block of transactions after `mark`; with `writing`.
    func make(
        _ transactions: [Transaction], _ key: SigningKey, _ time: Int64, _ state: LedgerState,
        _ mark: LedgerState.Mark
    ) throws(KernelError) -> LedgerDraft {
        func refused(_ error: KernelError, _ position: Int) -> KernelError {
            KernelError(
                error.code, "transaction \(position) is refused: \(error.message)",
                hint: error.hint)
        }
        if let fault = Transaction.check(transactions, genesis: mark.genesis).first {
            throw refused(fault.error, fault.position)
        }
        var books = Books(
            after: mark, signer: Account(key), time: time, source: state)
        var completed: [Transaction] = []
        completed.reserveCapacity(transactions.count + 1)
        for (i, transaction) in transactions.enumerated() {
            do throws(KernelError) {
                let transaction = try books.completed(transaction)
                try books.apply(transaction, at: Int64(i))
                completed.append(transaction)
            } catch {
                throw refused(error, i)
            }
        }
        return try seal(completed, books, key, time, mark)
    }

    /// The block of transactions that `books` took.
    func seal(
        _ transactions: [Transaction], _ books: Books, _ key: SigningKey, _ time: Int64,
        _ mark: LedgerState.Mark
    ) throws(KernelError) -> LedgerDraft {
        var (transactions, books) = (transactions, books)
        if let fee = books.fee {
            try books.apply(fee, at: Int64(transactions.count))
            transactions.append(fee)
        }
        guard !transactions.isEmpty else {
            throw KernelError(.rule, "a ledger block without transactions is none")
        }
        guard transactions.count <= LedgerDocument.limit else {
            throw KernelError(
                .limit,
                "\(transactions.count) transactions exceed a block's \(LedgerDocument.limit)",
                hint: "append them in several blocks")
        }
        let document = LedgerDocument(transactions: transactions, supply: books.supply)
        let effect = BlockEffect(
            changes: books.changes, history: books.history, supply: books.supply)
        return try sign(
            document.blockType, document.bytes, document.dependencies, key, time, effect,
            after: mark)
    }

    func sign(
        _ type: String, _ payload: [UInt8], _ dependencies: [Digest], _ key: SigningKey,
        _ time: Int64, _ effect: BlockEffect, after mark: LedgerState.Mark
    ) throws(KernelError) -> LedgerDraft {
        let writer = try store.payloads.makeWriter()
        try writer.write(payload)
        var header = BlockHeader(
            chainID: "C", blockType: type, index: mark.count,
            previous: mark.count == 0 ? mark.genesis : mark.hash, timestamp: time)
        header.dependsOn = dependencies
        try writer.finish().describe(in: &header, type: "json")
        let block = try Block(signing: header, with: key)
        var next = mark
        next.advance(over: block, supply: effect.supply)
        return LedgerDraft(block: block, effect: effect, mark: next)
    }

    /// Makes a block durable and applies it; with `writing`.
    func commit(_ draft: LedgerDraft, after others: [Block]) throws(KernelError) {
        try store.append(others + [draft.block])
        do throws(KernelError) { try write(draft.effect, draft.mark) } catch {
            let failure = KernelError(
                error.code,
                "block \(draft.block.hash) is durable, and the balances could not be written: \(error.message)",
                hint: "start the process that holds the home again: they are carried forward then")
            keep(failure)
            throw failure
        }
    }
}
