public import BlyanKernel
public import Foundation

// Unchecked: `writing` and `lock` guard the mutable state, as their comments say.
/// The accounts of a home: balances, histories, and the one way to write on chain C.
///
/// Any thread. Balances are a copy of what chain C says: carried forward when the home is opened, made again when they
/// are absent, damaged or of another chain. LEDGER.md has the rules.
public final class Ledger: @unchecked Sendable {
    /// What an account has.
    public struct Balance: Sendable, Equatable {
        /// Micro-BLY, vested or not.
        public let total: Int64
        /// Micro-BLY that a transfer in the next block may spend.
        public let spendable: Int64
        /// The nonce of the account's next transfer.
        public let nonce: Int64
        /// Blocks of chain C that this is true for.
        public let height: Int64
    }

    let store: ChainStore
    let path: String
    /// Held from before a block of chain C is made until its balances are written: nobody else appends to C meanwhile.
    ///
    /// Recursive, since who gives the other blocks of a record may look up balances, which may have to be mended.
    let writing = NSRecursiveLock()
    /// Held while `state`, `head` or `failure` change, and while balances are read; taken after `writing`, if both are.
    private let lock = NSLock()
    private var state: LedgerState?
    private var head: LedgerState.Mark?
    private var failure: KernelError?
    // Transfers that wait for the next block; guarded by `lock`.
    private var waiting: [Submission] = []
    /// What opening had to mend, for the log.
    public private(set) var repairs: [String] = []

    /// Opens the books of a home whose chains are open; the caller holds the home.
    ///
    /// It opens always: ``fault`` says why they cannot be used, so that a home whose chain C is broken can be looked at.
    /// - Parameters:
    ///   - store: the chains, ``ChainSpec/c`` among them.
    ///   - home: balances lie in its folder `ledger`.
    public init(store: ChainStore, home: URL) {
        self.store = store
        path = home.appendingPathComponent("ledger").path
        writing.lock()
        defer { writing.unlock() }
        do throws(KernelError) {
            try open()
        } catch {
            keep(error)
        }
    }

    /// Why the books cannot be used, or nil.
    public var fault: KernelError? { lock.withLock { failure } }

    /// Blocks of chain C that the balances are true for, and micro-BLY in existence after them.
    public var position: (height: Int64, supply: Int64) {
        lock.withLock { (head?.count ?? 0, head?.supply ?? 0) }
    }

    /// Gives LevelDB's files back.
    ///
    /// No call may follow.
    public func close() {
        writing.lock()
        lock.lock()
        state = nil
        failure = KernelError(.io, "the ledger is closed")
        lock.unlock()
        writing.unlock()
    }
}

// MARK: - Waiting transfers

extension Ledger {
    func enqueue(_ submission: Submission) { lock.withLock { waiting.append(submission) } }

    func isDone(_ submission: Submission) -> Bool { lock.withLock { submission.isDone } }

    func finish(_ submission: Submission, _ results: [Result<Receipt, KernelError>]) {
        lock.withLock { (submission.results, submission.isDone) = (results, true) }
    }

    /// All that wait; with `writing`.
    func takeWaiting() -> [Submission] {
        lock.withLock {
            defer { waiting.removeAll() }
            return waiting
        }
    }
}

// MARK: - Opening

extension Ledger {
    func keep(_ error: KernelError) {
        lock.withLock { failure = failure ?? error }
    }

    /// With `writing`.
    private func open() throws(KernelError) {
        var damage: KernelError?
        do throws(KernelError) {
            let state = try LedgerState(path: path)
            install(state, try state.mark())
            if let reason = try mismatch() {
                damage = KernelError(.integrity, reason)
            } else {
                try carryForward()
            }
        } catch {
            guard isDamaged(error) else { throw error }
            damage = error
        }
        guard let damage else { return }
        try rebuild("the balances are made again from chain C: \(damage.message)")
    }

    /// Whether an error tells of damaged balances, and not of a damaged chain.
    func isDamaged(_ error: KernelError) -> Bool {
        lock.withLock { state?.isDamaged ?? (error.code == .integrity) }
    }

    private func install(_ state: LedgerState?, _ mark: LedgerState.Mark?) {
        lock.withLock { (self.state, head) = (state, mark) }
    }

    /// Why the balances are not those of a beginning of this chain, or nil.
    private func mismatch() throws(KernelError) -> String? {
        guard let mark = lock.withLock({ head }) else { return nil }
        guard mark.genesis == store.genesis else { return "they are those of another network" }
        guard mark.count > 0 else { return nil }
        let last = try store.blocks(.chain("C", from: mark.count - 1), limit: 1).first
        guard let last, last.header.index == mark.count - 1, last.hash == mark.hash else {
            return "they are true for block \(mark.hash), which is not number \(mark.count - 1)"
        }
        return nil
    }

    /// Makes the balances from nothing; with `writing`.
    func rebuild(_ note: String) throws(KernelError) {
        install(nil, nil)
        // A kill leaves a part of the files, or balances up to some block: either is mended at the next start.
        do { try FileManager.default.removeItem(atPath: path) } catch {
            guard unsafe access(path, F_OK) != 0 else {
                throw KernelError(
                    .io, "the damaged balances in \(path) cannot be removed",
                    hint: "remove that folder: it is made again from chain C")
            }
        }
        install(try LedgerState(path: path), nil)
        try carryForward()
        repairs.append(note)
    }

    /// Applies the blocks of chain C that the balances do not know yet; with `writing`.
    ///
    /// - Throws: ``KernelError`` naming a block that breaks the rules; balances stay those before it.
    func carryForward() throws(KernelError) {
        guard let genesis = store.genesis, let state = lock.withLock({ state }) else { return }
        var mark = lock.withLock { head } ?? LedgerState.Mark(genesis: genesis)
        guard store.next(on: "C").index > mark.count else { return }
        try store.scan(.chain("C", from: mark.count)) { (block) throws(KernelError) in
            guard block.header.index == mark.count else {
                throw KernelError(
                    .integrity, "block \(mark.count) of chain C is missing",
                    hint: "run `blyan chain verify`")
            }
            let effect = try BlockReader.read(
                block, after: mark, source: state
            ) { () throws(KernelError) in
                try LedgerDocument(store.document(block))
            }
            mark.advance(over: block, supply: effect.supply)
            try write(effect, mark)
            return true
        }
    }

    /// Writes what a durable block did; with `writing`.
    func write(_ effect: BlockEffect, _ mark: LedgerState.Mark) throws(KernelError) {
        lock.lock()
        defer { lock.unlock() }
        guard let state else { throw KernelError(.io, "the ledger is closed") }
        try state.write(effect.changes, effect.history, mark: mark)
        head = mark
    }

    /// What a new block builds on; with `writing`.
    func current() throws(KernelError) -> (state: LedgerState, mark: LedgerState.Mark) {
        guard let genesis = store.genesis else {
            throw KernelError(.notFound, "this home has no genesis block, and so no accounts")
        }
        lock.lock()
        let (open, mark, failure) = (state, head, failure)
        lock.unlock()
        if let failure { throw unusable(failure) }
        guard let open else { throw KernelError(.io, "the ledger is closed") }
        return (open, mark ?? LedgerState.Mark(genesis: genesis))
    }

    private func unusable(_ failure: KernelError) -> KernelError {
        KernelError(
            failure.code, "the ledger cannot be used: \(failure.message)",
            hint: failure.hint ?? "run `blyan chain verify`")
    }
}

// MARK: - Reading

extension Ledger {
    /// Reads the balances, which are made again once if they turn out to be damaged.
    private func reading<R>(
        _ body: (LedgerState?, LedgerState.Mark?) throws(KernelError) -> R
    ) throws(KernelError) -> R {
        do throws(KernelError) { return try locked(body) } catch {
            guard lock.withLock({ state?.isDamaged == true }) else { throw error }
            try mend(error)
        }
        return try locked(body)
    }

    private func locked<R>(
        _ body: (LedgerState?, LedgerState.Mark?) throws(KernelError) -> R
    ) throws(KernelError) -> R {
        lock.lock()
        defer { lock.unlock() }
        if let failure { throw unusable(failure) }
        return try body(state, head)
    }

    private func mend(_ error: KernelError) throws(KernelError) {
        writing.lock()
        defer { writing.unlock() }
        // Somebody else may have done it meanwhile.
        guard lock.withLock({ state?.isDamaged == true }) else { return }
        do throws(KernelError) {
            try rebuild("the balances are made again from chain C: \(error.message)")
        } catch {
            keep(error)
            throw error
        }
    }

    /// Takes accounts into memory, as many as there is room for: a look-up costs the same then, whichever account it is of.
    ///
    /// For a process that holds the home long, on a thread of its own; look-ups and blocks go on meanwhile.
    ///
    /// - Parameter isOver: asked after each thousand; true ends it.
    /// - Throws: ``KernelError`` if the books cannot be used.
    public func rememberAccounts(until isOver: () -> Bool = { false }) throws(KernelError) {
        var last: Account?
        repeat {
            last = try reading { (state, _) throws(KernelError) in
                try state?.remember(after: last)
            }
        } while last != nil && !isOver()
    }

    /// What an account has; zeros for one that is not in the books.
    ///
    /// One look-up, in memory or in LevelDB, and the account's rewards that have not vested.
    ///
    /// - Throws: ``KernelError`` if the books cannot be used.
    public func balance(of account: Account) throws(KernelError) -> Balance {
        try reading { (state, mark) throws(KernelError) in
            let found = try state?.account(account) ?? AccountState()
            return Balance(
                total: found.total, spendable: found.spendable(at: mark?.clock ?? 0),
                nonce: found.nonce, height: mark?.count ?? 0)
        }
    }

    /// Rewards of an account that have not vested when the next block stands, oldest first.
    ///
    /// - Throws: ``KernelError`` if the books cannot be used.
    public func grants(of account: Account) throws(KernelError) -> [Grant] {
        try reading { (state, mark) throws(KernelError) in
            let clock = mark?.clock ?? 0
            return (try state?.account(account)?.grants ?? []).filter {
                $0.unvested(at: clock) > 0
            }
        }
    }

    /// What an account paid and was paid, newest first.
    ///
    /// - Throws: ``KernelError`` if the books cannot be used.
    public func history(of account: Account, limit: Int) throws(KernelError) -> [HistoryEntry] {
        try reading { (state, _) throws(KernelError) in
            try state?.history(of: account, limit: limit) ?? []
        }
    }

    /// All that is stored, for comparing; nothing if closed.
    package func dump() throws(KernelError) -> [[UInt8]] {
        try locked { (state, _) throws(KernelError) in try state?.dump() ?? [] }
    }
}
