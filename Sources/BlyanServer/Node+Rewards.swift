internal import BlyanJSON
public import BlyanKernel
package import BlyanLearning
public import BlyanLedger
package import BlyanModel
internal import Synchronization

/// Which reward policy governs, and what it pays for accepted candidates.
extension Node {
    /// A policy on chain, and the plugin that computes by it.
    package struct Policy {
        /// The policy block.
        package let block: Block
        package let terms: RewardTerms
        package let plugin: RewardPlugin

        /// What a payment rests on.
        func reason(_ blocks: [Digest], verdict: Digest?) -> Reason {
            Reason(
                blocks: (blocks + [block.hash]).sorted(), verdict: verdict,
                policy: Reason.Policy(
                    name: terms.name, version: terms.version, vectors: terms.vectors,
                    library: plugin.plugin.sha256))
        }
    }

    /// The reward policy that governs now; nil where nobody is paid.
    ///
    /// Before the first is on chain, the manifest's is written there.
    /// - Throws: ``KernelError`` if no plugin here computes by it; what signing and appending throw.
    package func rewardPolicy(
        passphrase: (@Sendable () throws -> [UInt8])? = nil
    ) throws -> Policy? {
        if try RewardTerms.governing(store) == nil {
            try adoptRewards(of: plugins, passphrase: passphrase)
        }
        guard let (block, terms) = try RewardTerms.governing(store), !terms.name.isEmpty else {
            return nil
        }
        let plugin = try plugin(for: terms)
        try keepLibrary(of: plugin.plugin, passphrase: passphrase)
        return Policy(block: block, terms: terms, plugin: plugin)
    }

    /// The payload type of a reward policy's library.
    package static let libraryType = "library"

    /// Keeps the bytes of a policy's library as a payload, once, so that what it pays can be computed again when nobody has it any more.
    private func keepLibrary(of plugin: LoadedPlugin, passphrase: (@Sendable () throws -> [UInt8])?)
        throws
    {
        guard !keptLibraries.withLock({ $0.contains(plugin.sha256) }) else { return }
        var isKept = false
        try store.scan(.payloadType(Self.libraryType)) { block throws(KernelError) in
            isKept = block.header.payloadHash == plugin.sha256
            return !isKept
        }
        if !isKept {
            let bytes = try TextFile.bytes(
                PluginHost.libraryPath(of: plugin.manifest, in: plugins.node.libraryFolders))
            // Replaced since it was loaded: whoever pays must not wait for a reload.
            guard SHA256.hash(bytes) == plugin.sha256 else { return }
            _ = try append(
                "policy", bytes,
                [
                    "kind": .string("library"), "name": .string(plugin.manifest.name),
                    "version": .string(plugin.manifest.version),
                ], signingKey(passphrase: passphrase), payloadType: Self.libraryType)
        }
        keptLibraries.withLock { _ = $0.insert(plugin.sha256) }
    }

    /// The plugin that computes by terms: same name, version and test vectors, whatever its library.
    package func plugin(for terms: RewardTerms) throws(KernelError) -> RewardPlugin {
        let found: RewardPlugin
        do throws(KernelError) { found = try plugins.rewards(named: terms.name) } catch {
            throw KernelError(
                error.code,
                "the reward policy on chain is \(terms.summary), which this node cannot run: \(error.message)",
                hint: error.hint
                    ?? "install it, or make the manifest's policy govern with `blyan plugin reload`"
            )
        }
        guard found.plugin.manifest.version == terms.version, found.vectors == terms.vectors else {
            throw KernelError(
                .plugin,
                "the reward policy on chain is \(terms.summary), and this node has \(found.plugin.manifest.version) (vectors \(found.vectors.description.prefix(12)))",
                hint:
                    "install that version, or make the manifest's policy govern with `blyan plugin reload`"
            )
        }
        return found
    }

    /// What the manifest of a generation would write on chain.
    private func terms(of plugins: PluginSet, first: Int64) throws(KernelError) -> RewardTerms {
        guard let policy = try plugins.rewards() else { return .none(first: first) }
        return RewardTerms(
            name: policy.plugin.manifest.name, version: policy.plugin.manifest.version,
            config: policy.config, vectors: policy.vectors, library: policy.plugin.sha256,
            first: first)
    }

    /// Writes the reward policy of a generation on chain A, durably, unless the same one governs already.
    ///
    /// - Returns: The policy block, if one was written.
    @discardableResult
    func adoptRewards(
        of plugins: PluginSet, passphrase: (@Sendable () throws -> [UInt8])?
    ) throws -> Block? {
        let governing = try RewardTerms.governing(store)
        let wanted = try terms(of: plugins, first: 0)
        guard !wanted.isSame(as: governing?.terms ?? .none(first: 0)) else { return nil }
        let key = try signingKey(passphrase: passphrase)
        // Nobody writes on chain C meanwhile, so that the first block that it governs is the next one.
        return try ledger.holding { next in
            var terms = wanted
            terms.first = next
            return try append(
                "policy", terms.document.canonical(),
                ["kind": .string(RewardTerms.kind), "name": .string(terms.name)], key)
        }
    }

    /// Appends a document to chain A, at whatever place is next.
    private func append(
        _ type: String, _ bytes: [UInt8], _ facts: [String: JSONValue], _ key: SigningKey,
        payloadType: String = "json"
    ) throws -> Block {
        let document = try DocumentBlock(
            type, bytes, dependsOn: [], metadata: facts, payloadType: payloadType, in: store)
        while true {
            let place = store.next(on: "A")
            let block = try document.block(at: place, with: key, now: Node.now())
            do throws(KernelError) { try store.append([block]) } catch {
                guard error.code == .rule, store.next(on: "A").index > place.index else {
                    throw error
                }
                continue
            }
            messages.publish(BlockStored(block), to: .blockStored)
            return block
        }
    }

    /// How the manifest's reward policy differs from that on chain, which governs; nil if it does not.
    func rewardsDifference() -> String? {
        do throws(KernelError) {
            guard let (_, governing) = try RewardTerms.governing(store) else { return nil }
            let said = plugins.node.rewards ?? ""
            guard said == governing.name else {
                return
                    "the reward policy on chain is \(governing.summary), and it governs; \(plugins.node.path) says \(said.isEmpty ? "none" : said): `blyan plugin reload` makes that the policy"
            }
            guard !said.isEmpty else { return nil }
            // Only the manifest is read: libraries are loaded when they are needed.
            let manifest = try PluginManifest(path: plugins.node.manifestPath(of: said))
            guard manifest.version == governing.version,
                manifest.canonicalConfig == governing.config
            else {
                return
                    "the reward policy on chain is \(governing.summary), and it governs; \(manifest.path) has another version or configuration: `blyan plugin reload` makes that the policy"
            }
            return nil
        } catch {
            return "the reward policy cannot be compared with that on chain: \(error.message)"
        }
    }

    /// Whether the policy that was asked governs still; nil: nobody is paid.
    ///
    /// With chain C held, which nobody should be kept from while a policy computes: it may take long.
    func governs(_ policy: Policy?) throws(KernelError) -> Bool {
        guard let (block, terms) = try RewardTerms.governing(store) else { return policy == nil }
        return terms.name.isEmpty ? policy == nil : block.hash == policy?.block.hash
    }

    // MARK: Paying for accepted candidates

    /// The reward policy that is asked about an accepted candidate now; nil if none is, or its manifest cannot be read.
    ///
    /// No code of it runs.
    func payer() -> AskedPlugin? {
        guard let governing = try? RewardTerms.governing(store)?.terms.name ?? plugins.node.rewards,
            !governing.isEmpty, let manifest = try? plugins.manifest(ofPolicy: governing)
        else { return nil }
        return AskedPlugin(manifest)
    }

    /// The reward policy that governs, about to be asked about a candidate.
    func rewardPolicy(for candidate: Digest) throws -> Policy? {
        guard let payer = payer() else { return try rewardPolicy() }
        return try judge().loading(payer, for: candidate) { try rewardPolicy() }
    }

    /// Appends the record of an acceptance and, in the same record, what the policy pays for it.
    func append(_ record: [Block], paying accepted: AcceptedCandidate) throws {
        let candidate = accepted.block.hash
        let policy = try rewardPolicy(for: candidate)
        var transactions: [Transaction] = []
        if let policy {
            let event = try acceptance(accepted.block, accepted.document)
            let reason = policy.reason([candidate], verdict: accepted.verdict.hash)
            let payments = try judge().asking(policy.plugin.plugin, about: candidate) {
                () throws(KernelError) in
                try policy.plugin.settle(
                    [event.document], config: policy.terms.config, about: "candidate \(candidate)")
            }
            transactions = try payments.map { try transaction($0, reason) }
        }
        try ledger.holding { _ in
            // Its block has taken the place on chain A that the record is made for: the judge makes it again.
            guard try governs(policy) else {
                throw KernelError(.rule, "another reward policy governs by now")
            }
            guard !transactions.isEmpty else { return try store.append(record) }
            let reward = try ledger.append(
                transactions, key: signingKey(), time: accepted.time,
                with: { _ in record })
            messages.publish(BlockStored(reward), to: .blockStored)
        }
    }

    /// A payment as the ledger takes it.
    func transaction(_ payment: RewardPlugin.Payment, _ reason: Reason) throws(KernelError)
        -> Transaction
    {
        guard let account = Account(payment.account) else {
            throw KernelError(.plugin, "\(payment.account) is no account")
        }
        return .reward(
            Reward(
                to: account, amount: payment.amount, vesting: payment.vesting, reason: reason))
    }

    /// What a policy is told of an accepted candidate.
    ///
    /// - Parameter written: the verdict's block; nil if it is not written yet.
    /// - Throws: ``KernelError`` if log or index are damaged.
    package func acceptance(
        _ block: Block, _ verdict: VerdictDocument, by written: Block? = nil
    ) throws(KernelError) -> RewardEvent {
        guard let author = Account(block.header.miner) else {
            throw KernelError(.integrity, "block \(block.hash) is signed by no account")
        }
        return .accepted(
            RewardEvent.Acceptance(
                author: author, lineage: try lineage(of: block),
                gain: try unpaid(Self.gain(verdict), of: block, before: written)))
    }

    /// Versions that a lineage names at most.
    private static let lineageLimit = 64

    /// Who made the versions that a block stands on, nearest first; the import, which improves nothing, left out.
    private func lineage(of block: Block) throws(KernelError) -> [Account] {
        var authors: [Account] = []
        var previous = block.header.previous
        while authors.count < Self.lineageLimit, let hash = previous, hash != store.genesis,
            let parent = try store.block(hash), parent.header.previous != store.genesis,
            let author = Account(parent.header.miner)
        {
            authors.append(author)
            previous = parent.header.previous
        }
        return authors
    }

    /// What the last gate that measured an improvement found.
    package static func gain(_ verdict: VerdictDocument) -> RewardEvent.Gain? {
        for gate in verdict.gates.reversed() {
            guard let improvement = gate.evidence["improvement_ppb"]?.int,
                let lower = gate.evidence["lower_ppb"]?.int,
                let delta = gate.evidence["delta_ppb"]?.int,
                // More than the whole loss cannot go: whoever claims that has not measured.
                max(improvement, lower) <= 1_000_000_000
            else { continue }
            return RewardEvent.Gain(improvement: improvement, lower: lower, delta: delta)
        }
        return nil
    }

    /// The verdict by which a block of chain B was accepted; nil for an import.
    package func acceptance(of block: Digest) throws(KernelError) -> (
        block: Block, document: VerdictDocument
    )? {
        var found: Block?
        try store.scan(.dependents(block)) { other throws(KernelError) in
            let facts = other.header.metadata
            guard other.header.chainID == "A", other.header.blockType == "verdict",
                facts["outcome"]?.string == "accept", !VerdictIndex.isReview(other),
                facts["candidate"]?.string == block.description
            else { return true }
            found = other
            return false
        }
        return try found.map { verdict throws(KernelError) in
            (verdict, try VerdictDocument(parsing: store.document(verdict)))
        }
    }

    // MARK: Trust

    /// How far an author is trusted, and the author's candidates that wait for their verdict.
    ///
    /// - Throws: ``KernelError`` if log or index are damaged.
    public func trust(of author: Account) throws(KernelError) -> (trust: Trust, waiting: Int64) {
        let waiting = candidates.queue.count { $0.block.header.miner == author.description }
        let result = trustBook.withLock { book in
            Result { () throws(KernelError) in
                try store.scan(.chain("A", from: book.next)) { block throws(KernelError) in
                    book.add(block)
                    return true
                }
                return book.trust(author.description)
            }
        }
        return (try result.get(), Int64(waiting))
    }

    /// That an author may upload one more candidate now.
    package func admit(author: String) throws(KernelError) {
        guard let account = Account(author) else {
            throw KernelError(.malformed, "\"\(author.prefix(80))\" is no account")
        }
        let (trust, waiting) = try trust(of: account)
        try trust.admit(author: author, now: Node.now(), waiting: waiting)
    }
}
