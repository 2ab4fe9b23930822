internal import BlyanJSON
package import BlyanKernel

/// What a block of chain C does to the books.
package struct BlockEffect {
    /// Accounts that it changed.
    package var changes: [Account: AccountState] = [:]
    /// Lines of the histories.
    package var history: [(account: Account, entry: HistoryEntry)] = []
    /// Micro-BLY in existence after it.
    package var supply: Int64
}

/// Judging a block of chain C from its payload and the books before it: the same for opening, replay and audit.
package enum BlockReader {
    /// Checks a block and applies it.
    ///
    /// - Parameters:
    ///   - document: the payload; asked for blocks that hold transactions.
    ///   - mark: how far the books are before the block, which is the next one.
    ///   - source: the accounts before the block.
    /// - Throws: ``KernelError`` naming the block; what `document` and `source` throw.
    package static func read(
        _ block: Block, after mark: LedgerState.Mark, source: any AccountSource,
        document: () throws(KernelError) -> LedgerDocument
    ) throws(KernelError) -> BlockEffect {
        let header = block.header
        guard header.blockType != "usage" else { return BlockEffect(supply: mark.supply) }
        func broken(_ error: KernelError, _ position: Int? = nil) -> KernelError {
            KernelError(
                error.code,
                "block \(block.hash), number \(header.index) of chain C, breaks the rules of the ledger: \(position.map { "transaction \($0): " } ?? "")\(error.message)",
                hint: error.hint)
        }
        func rule(_ what: String) -> KernelError { broken(KernelError(.rule, what)) }
        guard header.payloadType == "json", let signer = Account(header.miner) else {
            throw rule("its payload has type \"\(header.payloadType)\", expected json")
        }
        let found: LedgerDocument
        do throws(KernelError) { found = try document() } catch {
            // What the disk refuses says nothing about the block.
            throw error.code == .io ? error : broken(error)
        }
        guard found.blockType == header.blockType else {
            throw rule(
                "it is a \(header.blockType) block, its transactions make it a \(found.blockType) block"
            )
        }
        guard found.dependencies == header.dependsOn else {
            throw rule(
                "its header depends on \(header.dependsOn.count) blocks, and its reasons name \(found.dependencies.count): they must be the same, in byte order"
            )
        }
        if let fault = Transaction.check(found.transactions, genesis: mark.genesis).first {
            throw broken(fault.error, fault.position)
        }
        var books = Books(
            after: mark, signer: signer, time: header.timestamp, source: source)
        for (i, transaction) in found.transactions.enumerated() {
            do throws(KernelError) { try books.apply(transaction, at: Int64(i)) } catch {
                throw error.code == .io ? error : broken(error, i)
            }
        }
        do throws(KernelError) { try books.checkClosed() } catch { throw broken(error) }
        guard found.supply == books.supply else {
            throw rule(
                "it states a total supply of \(found.supply) micro-BLY, its transactions give \(books.supply)"
            )
        }
        return BlockEffect(
            changes: books.changes, history: books.history, supply: books.supply)
    }
}
