internal import BlyanJSON
package import BlyanKernel
internal import BlyanModel
internal import Foundation

/// By what candidates are judged, and on what text.
extension Judge {
    /// The newest policy on chain A, or nil before the first.
    package func currentPolicy() throws(KernelError) -> (block: Block, policy: JudgingPolicy)? {
        for block in try host.store.blocks(.type(chain: "A", "policy"), reverse: true)
        where block.header.metadata["kind"]?.string == "judging" {
            return (block, try policy(of: block))
        }
        return nil
    }

    /// What a policy block says.
    func policy(of block: Block) throws(KernelError) -> JudgingPolicy {
        guard let document = try? JSONValue(canonical: host.store.document(block)) else {
            throw KernelError(.malformed, "policy block \(block.hash) holds no JSON")
        }
        return try JudgingPolicy(document)
    }

    /// Writes a policy with the gates and the router that are enabled now, unless the newest has the same.
    ///
    /// - Returns: The policy block that governs from here on.
    /// - Throws: What loading these plugins, signing or appending throws.
    @discardableResult
    package func adoptPolicy() throws -> Block {
        let plugins = host.plugins()
        let old = try currentPolicy()
        if let old, try old.policy.isOf(plugins) { return old.block }
        return try write(
            JudgingPolicy.gates(of: plugins), JudgingPolicy.router(of: plugins),
            after: old?.policy, secretNumber: old?.policy.secretNumber ?? 0)
    }

    /// The policy that judges now: the first one if there was none, with fresh commitments if the last are used up, and with
    /// this node's router if it is from before policies named one.
    ///
    /// - Throws: ``KernelError/Code/config`` if it has no gates.
    func policyForJudging() throws -> (block: Block, policy: JudgingPolicy) {
        if let current = try currentPolicy() {
            let number = current.policy.secretNumber
            let revealed = lock.withLock { index.revealed[number] ?? 0 }
            let isUsedUp = revealed >= SecretChain.length
            // What judges from here on is on chain: nobody chooses it candidate by candidate.
            let router = try current.policy.router ?? JudgingPolicy.router(of: host.plugins())
            guard isUsedUp || router != current.policy.router else { return try withGates(current) }
            _ = try write(
                current.policy.gates, router, after: current.policy,
                secretNumber: isUsedUp ? number + 1 : number)
        } else {
            try adoptPolicy()
        }
        guard let current = try currentPolicy() else {
            throw KernelError(.notFound, "the policy that was just written is gone")
        }
        return try withGates(current)
    }

    private func withGates(_ current: (block: Block, policy: JudgingPolicy)) throws(KernelError)
        -> (block: Block, policy: JudgingPolicy)
    {
        guard current.policy.gates.isEmpty else { return current }
        throw KernelError(
            .config, "no gate is enabled on this node: nothing can be judged",
            hint: "list gates in \(host.plugins().node.path) and run `blyan plugin reload`")
    }

    private func write(
        _ gates: [JudgingPolicy.Plugin], _ router: JudgingPolicy.Plugin?,
        after old: JudgingPolicy?, secretNumber: Int64
    ) throws -> Block {
        let key = try host.key()
        let secrets = try SecretChain(
            key: key, genesis: host.store.genesis ?? .zero, number: secretNumber)
        var policy = JudgingPolicy(
            gates: gates, router: router, commitments: [key.publicKey: secrets.commitment],
            secretNumber: secretNumber)
        if let old {
            policy.judgementsPerShard = old.judgementsPerShard
            policy.stampBits = old.stampBits
        }
        return try append("policy", policy.document.canonical(), ["kind": .string("judging")])
    }

    /// The text that a candidate meets, decided by secrets that are revealed now.
    ///
    /// - Parameter known: shards that are no fresh text for it.
    /// - Returns: Nil if there is no text left.
    func draw(
        _ block: Block, _ model: CatalogModel, _ policy: JudgingPolicy, but known: Set<Digest> = []
    ) throws -> (draw: VerdictDocument.Draw, shard: PoolShard)? {
        guard
            let shard = try activeShard(policy, but: known, used: judgements(on:)).map(shard),
            let root = model.version?.header.payloadHash
        else { return nil }
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

    /// Appends a document to chain A, at whatever place is free.
    func append(
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
