internal import BlyanJSON
package import BlyanKernel
package import BlyanModel
internal import Foundation

// Unchecked: `lock` guards the mutable state, `judging` is held for a judgement.
/// Takes candidates for better experts, has the gates judge them, and writes what came of it.
///
/// A candidate is a signed block of chain B that stands nowhere yet: its hash is committed before any text is drawn, and
/// if it is accepted it is appended as it is, together with the verdict and the version that makes it current: one
/// record, so that after a crash all of it is there or nothing. Any thread; judgements are made one at a time.
package final class Judge: @unchecked Sendable {
    /// What the judge needs of the node.
    package struct Host: Sendable {
        package let store: ChainStore
        /// Signs verdicts.
        package let key: @Sendable () throws -> SigningKey
        /// The plugins of now.
        package let plugins: @Sendable () -> PluginSet
        /// A model as a version block has it.
        package let model: @Sendable (CatalogModel) throws -> LoadedModel
        package let threads: Int
        /// UTC milliseconds.
        package let clock: @Sendable () -> Int64
        /// Told of each block that is durable.
        package let onStored: @Sendable (Block) -> Void
        /// Appends the record of an acceptance, with what is paid for it.
        package let append: @Sendable ([Block], AcceptedCandidate) throws -> Void
        /// Throws if an author may not upload now.
        package let admit: @Sendable (_ author: String) throws -> Void

        package init(
            store: ChainStore, key: @escaping @Sendable () throws -> SigningKey,
            plugins: @escaping @Sendable () -> PluginSet,
            model: @escaping @Sendable (CatalogModel) throws -> LoadedModel, threads: Int,
            clock: @escaping @Sendable () -> Int64, onStored: @escaping @Sendable (Block) -> Void,
            append: (@Sendable ([Block], AcceptedCandidate) throws -> Void)? = nil,
            admit: @escaping @Sendable (_ author: String) throws -> Void = { _ in }
        ) {
            self.store = store
            self.key = key
            self.plugins = plugins
            self.model = model
            self.threads = threads
            self.clock = clock
            self.onStored = onStored
            self.append = append ?? { record, _ in try store.append(record) }
            self.admit = admit
        }
    }

    /// What a judgement came to.
    package struct Judgement: Sendable {
        package enum Outcome: String, Sendable { case accept, reject, `defer` }
        package let candidate: Block
        package let outcome: Outcome
        /// "gate/code", or "" with accept.
        package let reason: String
        package let gates: [VerdictDocument.Gate]
        /// The verdict block; nil with defer.
        package let verdict: Block?
        /// The version block that made the candidate current; nil unless it was accepted.
        package let version: Block?
    }

    let host: Host
    package let candidates: CandidateStore
    let cache = LossCache()
    private let lock = NSLock()
    private let judging = NSLock()
    private var index: VerdictIndex
    private var shards: [Digest: PoolShard] = [:]

    /// A judge of a home's candidates; those whose verdict is durable already end their wait.
    ///
    /// - Throws: ``KernelError`` if log or index are damaged.
    package init(_ host: Host, candidates: CandidateStore) throws(KernelError) {
        self.host = host
        self.candidates = candidates
        index = try VerdictIndex(host.store)
        for entry in candidates.queue {
            guard let verdict = index.verdicts[entry.block.hash] else { continue }
            candidates.end(
                entry.block.hash,
                isRejected: verdict.header.metadata["outcome"]?.string == "reject",
                now: host.clock())
        }
    }

    /// The verdict block of a candidate, or nil while it was not judged.
    package func verdict(of candidate: Digest) -> Block? {
        lock.withLock { index.verdicts[candidate] }
    }

    // MARK: Taking candidates

    /// Takes a candidate: checks all that costs little, and makes it durable.
    ///
    /// - Parameter block: signed and stamped by its author; its payload is among the home's payloads.
    /// - Throws: ``KernelError`` or ``ModelError`` saying what is wrong with it, and what to do.
    package func submit(_ block: Block) throws {
        let hash = block.hash
        if let known = verdict(of: hash) {
            throw KernelError(
                .rule,
                "candidate \(hash) was judged already: \(known.header.metadata["outcome"]?.string ?? ""), verdict block \(known.hash)"
            )
        }
        guard !candidates.queue.contains(where: { $0.block.hash == hash }) else {
            throw KernelError(.rule, "candidate \(hash) waits for its verdict already")
        }
        let policy = try currentPolicy()
        guard block.isSignatureValid else {
            throw KernelError(
                .integrity,
                "candidate \(hash) is not signed by the key that it claims, \(block.header.miner)")
        }
        let bits = policy?.policy.stampBits ?? 0
        guard block.header.difficulty >= bits,
            Stamp.isValid(hash, difficulty: block.header.difficulty)
        else {
            throw KernelError(
                .rule,
                "candidate \(hash) has a stamp of \(block.header.difficulty) bits, or claims one that it has not; this network asks for \(bits)"
            )
        }
        let now = host.clock()
        guard block.header.timestamp <= now + 600_000 else {
            throw KernelError(.rule, "candidate \(hash) is of a time that is yet to come")
        }
        _ = try place(block)
        try checkPayload(block)
        try host.admit(block.header.miner)
        try candidates.add(block, received: now)
    }

    /// Where a candidate would stand: its model, and the block that it replaces.
    private func place(_ block: Block) throws -> (model: CatalogModel, parent: Block) {
        let header = block.header
        func broken(_ what: String) -> KernelError {
            KernelError(.rule, "candidate \(block.hash) \(what)")
        }
        guard header.chainID == "B", header.blockType == "parameters" else {
            throw broken("is no parameters block of chain B")
        }
        guard let first = header.dependsOn.first, let meta = try host.store.block(first),
            meta.header.blockType == "meta"
        else { throw broken("depends on no model of this home") }
        let model = try ModelCatalog(host.store).model(meta)
        guard model.isComplete, let current = model.parts[header.expertName] else {
            throw broken(
                "is for \(header.expertName), which the model \(model.name) \(model.isComplete ? "has not" : "lacks: it is incomplete")"
            )
        }
        guard
            header.expertName.contains(".expert") || header.expertName.hasSuffix(".router")
                || header.expertName.hasSuffix(".shared")
        else { throw broken("is for \(header.expertName): experts and routers can be replaced") }
        guard header.previous == current, let parent = try host.store.block(current) else {
            throw KernelError(
                .rule,
                "candidate \(block.hash) replaces \(header.previous?.description.prefix(12) ?? "nothing") of \(header.expertName), and the current version is \(current.description.prefix(12)): somebody was faster",
                hint:
                    "train from the current version: export it again with `blyan expert export \(header.expertName)`, or run `blyan mine` anew"
            )
        }
        guard header.dependsOn == [meta.hash, current], header.index == parent.header.index + 1
        else {
            throw broken(
                "does not stand where it claims: it depends on its model and the version that it replaces, and has the index \(parent.header.index + 1)"
            )
        }
        guard let old = SemanticVersion(parent.header.version),
            let new = SemanticVersion(header.version), old < new
        else {
            throw broken(
                "has the version \(header.version), expected one above \(parent.header.version)")
        }
        return (model, parent)
    }

    private func checkPayload(_ block: Block) throws {
        let header = block.header
        guard let hash = header.payloadHash,
            host.store.payloads.contains(hash, size: UInt64(clamping: header.payloadSize)),
            try host.store.payloads.fileHash(host.store.payloads.path(of: hash)) == hash
        else {
            throw KernelError(
                .integrity, "the payload of candidate \(block.hash) is not here, or damaged")
        }
        let payload = try host.store.map(block, mode: .always)
        try payload.verifyAll(threads: 1)
        _ = try host.plugins().format(for: header.payloadType)
    }

    // MARK: Policy and text

    /// The newest policy on chain A, or nil before the first.
    package func currentPolicy() throws(KernelError) -> (block: Block, policy: JudgingPolicy)? {
        for block in try host.store.blocks(.type(chain: "A", "policy"), reverse: true)
        where block.header.metadata["kind"]?.string == "judging" {
            let bytes = try host.store.document(block)
            guard let document = try? JSONValue(canonical: bytes) else {
                throw KernelError(.malformed, "policy block \(block.hash) holds no JSON")
            }
            return (block, try JudgingPolicy(document))
        }
        return nil
    }

    /// Writes a policy with the gates that are enabled now, unless the newest has the same.
    ///
    /// - Returns: The policy block that governs from here on.
    /// - Throws: What loading the gates, signing or appending throws.
    @discardableResult
    package func adoptPolicy() throws -> Block {
        let gates = try host.plugins().gates().map(JudgingPolicy.gate)
        let old = try currentPolicy()
        if let old, old.policy.hasSameGates(as: gates) { return old.block }
        return try write(gates, after: old?.policy, secretNumber: old?.policy.secretNumber ?? 0)
    }

    /// The policy that judges now: the first one if there was none, with fresh commitments if the last are used up.
    private func policyForJudging() throws -> (block: Block, policy: JudgingPolicy) {
        if let current = try currentPolicy() {
            let number = current.policy.secretNumber
            let revealed = lock.withLock { index.revealed[number] ?? 0 }
            guard revealed >= SecretChain.length else { return current }
            _ = try write(current.policy.gates, after: current.policy, secretNumber: number + 1)
        } else {
            try adoptPolicy()
        }
        guard let current = try currentPolicy() else {
            throw KernelError(.notFound, "the policy that was just written is gone")
        }
        return current
    }

    private func write(
        _ gates: [JudgingPolicy.Gate], after old: JudgingPolicy?, secretNumber: Int64
    ) throws -> Block {
        let key = try host.key()
        let secrets = try SecretChain(
            key: key, genesis: host.store.genesis ?? .zero, number: secretNumber)
        var policy = JudgingPolicy(
            gates: gates, commitments: [key.publicKey: secrets.commitment],
            secretNumber: secretNumber)
        if let old {
            policy.judgementsPerShard = old.judgementsPerShard
            policy.stampBits = old.stampBits
        }
        return try append("policy", policy.document.canonical(), ["kind": .string("judging")])
    }

    /// Commits a shard of held-out text to chain A; candidates that come later may be judged on it.
    ///
    /// - Throws: ``KernelError`` if it is no shard, or here already.
    package func addShard(_ bytes: [UInt8]) throws -> Block {
        let shard = try PoolShard(parsing: bytes)
        guard try !shardBlocks().contains(where: { $0.header.payloadHash == shard.hash }) else {
            throw KernelError(.rule, "this held-out text is committed already")
        }
        return try append(
            "policy", bytes,
            [
                "kind": .string("pool-shard"),
                "documents": .int(Int64(shard.documents.count)),
                "slices": .object(shard.slices.mapValues { .int(Int64($0)) }),
            ], payloadType: PoolShard.payloadType)
    }

    /// All shards that were committed, in order.
    package func shardBlocks() throws(KernelError) -> [Block] {
        try host.store.blocks(.type(chain: "A", "policy")).filter {
            $0.header.metadata["kind"]?.string == "pool-shard"
        }
    }

    /// Judgements that a shard has served.
    package func judgements(on shard: Digest) -> Int64 {
        lock.withLock { index.byShard[shard] ?? 0 }
    }

    /// The shard that judgements use now: the first that is not used up; nil if there is none.
    private func activeShard(_ policy: JudgingPolicy) throws -> PoolShard? {
        for block in try shardBlocks() {
            guard let hash = block.header.payloadHash,
                judgements(on: hash) < policy.judgementsPerShard
            else { continue }
            return try shard(block)
        }
        return nil
    }

    /// A shard's text, read once.
    func shard(_ block: Block) throws -> PoolShard {
        if let hash = block.header.payloadHash, let known = lock.withLock({ shards[hash] }) {
            return known
        }
        let shard = try PoolShard(parsing: host.store.document(block))
        lock.withLock { shards[shard.hash] = shard }
        return shard
    }

    // MARK: Judging

    /// Judges the candidate that has waited longest.
    ///
    /// - Returns: What came of it, or nil if none waits.
    /// - Throws: As ``judge(_:)``.
    package func judgeNext() throws -> Judgement? {
        guard let first = candidates.queue.first else { return nil }
        return try judge(first.block.hash)
    }

    /// Judges a candidate that waits, and writes the outcome; with defer it waits on.
    ///
    /// - Throws: ``KernelError`` naming the gate that failed: a fault, after which the candidate waits on; what reading
    ///   model and text or appending throws.
    package func judge(_ candidate: Digest) throws -> Judgement {
        judging.lock()
        defer { judging.unlock() }
        guard let entry = candidates.queue.first(where: { $0.block.hash == candidate }) else {
            throw KernelError(.notFound, "no candidate \(candidate) waits for a verdict")
        }
        while true {
            let (policyBlock, policy) = try policyForJudging()
            guard !policy.gates.isEmpty else {
                throw KernelError(
                    .config, "no gate is enabled on this node: nothing can be judged",
                    hint: "list gates in \(host.plugins().node.path) and run `blyan plugin reload`")
            }
            let made: Judgement?
            do {
                let (model, parent) = try place(entry.block)
                let draw = try draw(entry.block, model, policy)
                let gates = try run(entry.block, parent, model, policy, draw?.draw, draw?.shard)
                made = try finish(entry, model, policyBlock, policy, draw?.draw, gates)
            } catch let error as KernelError where error.code == .rule {
                // While it waited another one was accepted in its place.
                made = try finish(
                    entry, nil, policyBlock, policy, nil,
                    [
                        VerdictDocument.Gate(
                            name: "intake", version: "1", outcome: "reject",
                            reason: "parent-replaced",
                            evidence: .object(["error": .string(error.message)]))
                    ])
            }
            // Nil: the model changed while it was judged, so that it is judged again.
            if let made { return made }
        }
    }

    /// The text that a candidate meets, decided by secrets that are revealed now.
    private func draw(_ block: Block, _ model: CatalogModel, _ policy: JudgingPolicy) throws -> (
        draw: VerdictDocument.Draw, shard: PoolShard
    )? {
        guard let shard = try activeShard(policy), let root = model.version?.header.payloadHash
        else {
            return nil
        }
        let key = try host.key()
        let chain = try SecretChain(
            key: key, genesis: host.store.genesis ?? .zero, number: policy.secretNumber)
        guard policy.commitments[key.publicKey] == chain.commitment else {
            throw KernelError(
                .key, "this node's key has made no commitment in the current policy",
                hint: "judge with the key of a validator that the policy lists")
        }
        let count = (lock.withLock { index.revealed[policy.secretNumber] } ?? 0) + 1
        guard let secret = chain.secret(count) else { return nil }
        let seed = SecretChain.seed(secrets: [secret], candidate: block.hash, root: root)
        return (
            VerdictDocument.Draw(
                shard: shard.hash, secrets: [key.publicKey: secret], count: count, seed: seed),
            shard
        )
    }

    /// Asks the gates in order until one does not accept.
    func run(
        _ block: Block, _ parent: Block, _ model: CatalogModel, _ policy: JudgingPolicy,
        _ draw: VerdictDocument.Draw?, _ shard: PoolShard?
    ) throws -> [VerdictDocument.Gate] {
        let loaded = try host.model(model)
        let evaluator = shard.flatMap { shard in
            draw.map { draw in
                Evaluator(
                    model: loaded, blocks: [block], shard: shard, seed: draw.seed,
                    threads: host.threads, cache: cache, library: GemmLibrary.openBLAS())
            }
        }
        let subject = try JudgedSubject(
            candidate: .init(loaded.open(block)), parent: .init(loaded.open(parent)),
            evaluator: evaluator)
        guard
            let header = try? JSONValue(parsing: block.header.canonical())
        else { throw KernelError(.malformed, "the header of candidate \(block.hash) is no JSON") }
        let context: JSONValue = .object([
            "author": .string(block.header.miner), "candidate": .string(block.hash.description),
            "expert": .string(block.header.expertName),
            "model": .string(model.meta.hash.description),
            "parent": .string(parent.hash.description),
            "seed": .string(draw?.seed.description ?? ""),
        ])
        var answers: [VerdictDocument.Gate] = []
        for plugin in try gates(policy) {
            try Cancellation.check()
            let answer: GatePlugin.Answer
            do throws(KernelError) {
                answer = try GatePlugin(plugin).judge(subject, header: header, context: context)
            } catch {
                throw KernelError(
                    error.code,
                    "the gate \(plugin.manifest.name) failed, which is no verdict; the candidate waits: \(error.message)",
                    hint: error.hint)
            }
            answers.append(
                VerdictDocument.Gate(
                    name: plugin.manifest.name, version: plugin.manifest.version,
                    outcome: answer.outcome.rawValue, reason: answer.reason,
                    evidence: answer.evidence))
            guard answer.outcome == .accept else { break }
        }
        return answers
    }

    /// The gates that a policy names, as they are loaded here.
    private func gates(_ policy: JudgingPolicy) throws -> [LoadedPlugin] {
        let loaded = try host.plugins().gates()
        return try policy.gates.map { wanted in
            let found = try loaded.first { plugin in
                let own = try JudgingPolicy.gate(plugin)
                return own.name == wanted.name && own.version == wanted.version
                    && own.config == wanted.config
            }
            guard let found else {
                throw KernelError(
                    .config,
                    "the policy judges by \(wanted.name) \(wanted.version) with a configuration that this node has not",
                    hint:
                        "configure it as the policy block says, or make the manifest's gates the policy with `blyan plugin reload`"
                )
            }
            return found
        }
    }

    /// Writes verdict, and with accept the candidate and the version that it makes, as one record.
    ///
    /// - Parameter judged: the model that it was compared with; nil if it was not compared with any.
    /// - Returns: Nil if the model is another one by now.
    private func finish(
        _ entry: CandidateStore.Entry, _ judged: CatalogModel?, _ policyBlock: Block,
        _ policy: JudgingPolicy, _ draw: VerdictDocument.Draw?, _ gates: [VerdictDocument.Gate]
    ) throws -> Judgement? {
        let block = entry.block
        let outcome = gates.last.flatMap { Judgement.Outcome(rawValue: $0.outcome) } ?? .accept
        let reason =
            outcome == .accept ? "" : "\(gates.last?.name ?? "")/\(gates.last?.reason ?? "")"
        guard outcome != .defer else {
            return Judgement(
                candidate: block, outcome: outcome, reason: reason, gates: gates, verdict: nil,
                version: nil)
        }
        let store = host.store
        guard let metaHash = block.header.dependsOn.first, let meta = try store.block(metaHash)
        else {
            throw KernelError(.notFound, "the model of candidate \(block.hash) is gone")
        }
        let model = try ModelCatalog(store).model(meta)
        guard let base = model.version else {
            throw KernelError(.integrity, "the model \(model.name) is incomplete")
        }
        if let judged, judged.version?.hash != base.hash { return nil }
        let key = try host.key()
        let genesis = store.genesis ?? .zero
        var document = VerdictDocument(
            model: meta.hash, version: base.hash, policy: policyBlock.hash, block: block,
            received: entry.received, draw: draw, gates: gates, outcome: outcome.rawValue,
            reason: reason)
        try document.sign(key, genesis: genesis)
        var facts: [String: JSONValue] = [
            "candidate": .string(block.hash.description), "outcome": .string(outcome.rawValue),
            "reason": .string(reason), "author": .string(block.header.miner),
            "expert": .string(block.header.expertName), "model": .string(model.name),
        ]
        if let draw {
            facts["shard"] = .string(draw.shard.description)
            facts["secret_number"] = .int(policy.secretNumber)
            facts["secret_count"] = .int(Int64(draw.count))
        }
        let isAccepted = outcome == .accept
        let verdictPayload = try DocumentBlock(
            "verdict", document.encoded,
            dependsOn: [meta.hash, base.hash, policyBlock.hash], metadata: facts, in: store)
        while true {
            let place = store.next(on: "A")
            let now = host.clock()
            let verdict = try verdictPayload.block(
                at: place, dependsOn: isAccepted ? [block.hash] : [], with: key, now: now)
            var record = [verdict]
            var version: Block?
            if isAccepted {
                var parts = model.parts
                parts[block.header.expertName] = block.hash
                let list = VersionDocument(
                    model: meta.hash, parts: parts, parent: base.hash, verdict: verdict.hash)
                let made = try DocumentBlock(
                    "version", list.encoded(), dependsOn: [meta.hash],
                    metadata: ["model": .string(model.name)], in: store
                ).block(at: (place.index + 1, verdict.hash), with: key, now: now)
                version = made
                record = [block, verdict, made]
            }
            do {
                if isAccepted {
                    let accepted = AcceptedCandidate(
                        block: block, verdict: verdict, document: document, time: now)
                    try host.append(record, accepted)
                } else {
                    try store.append(record)
                }
            } catch let error as KernelError where error.code == .rule {
                if store.next(on: "A").index > place.index { continue }
                // That the record is refused says nothing about the candidate.
                throw KernelError(.integrity, error.message, hint: error.hint)
            }
            lock.withLock { index.add(verdict) }
            candidates.end(block.hash, isRejected: !isAccepted, now: now)
            for block in record { host.onStored(block) }
            return Judgement(
                candidate: block, outcome: outcome, reason: reason, gates: gates, verdict: verdict,
                version: version)
        }
    }

    private func append(
        _ type: String, _ bytes: [UInt8], _ facts: [String: JSONValue],
        payloadType: String = "json"
    ) throws -> Block {
        let document = try DocumentBlock(
            type, bytes, dependsOn: [], metadata: facts, payloadType: payloadType, in: host.store)
        let key = try host.key()
        while true {
            let place = host.store.next(on: "A")
            let block = try document.block(at: place, with: key, now: host.clock())
            do throws(KernelError) {
                try host.store.append([block])
            } catch {
                guard error.code == .rule, host.store.next(on: "A").index > place.index else {
                    throw error
                }
                continue
            }
            host.onStored(block)
            return block
        }
    }
}

/// MAJOR.MINOR.PATCH, compared by number (https://semver.org, without pre-releases).
package struct SemanticVersion: Comparable, CustomStringConvertible {
    private let numbers: [Int]

    /// - Returns: nil for what is not three numbers.
    package init?(_ text: String) {
        numbers = text.split(separator: ".", omittingEmptySubsequences: false).compactMap {
            Int($0)
        }
        guard numbers.count == 3, text.split(separator: ".").count == 3,
            numbers.allSatisfy({ $0 >= 0 && $0 < 1 << 31 })
        else { return nil }
    }

    /// The next version that changes weights and nothing else.
    package var nextMinor: SemanticVersion { SemanticVersion([numbers[0], numbers[1] + 1, 0]) }
    private init(_ numbers: [Int]) { self.numbers = numbers }

    package var description: String { numbers.map(String.init).joined(separator: ".") }

    package static func < (a: Self, b: Self) -> Bool {
        a.numbers.lexicographicallyPrecedes(b.numbers)
    }
}
