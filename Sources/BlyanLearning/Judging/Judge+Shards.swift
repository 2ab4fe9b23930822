internal import BlyanJSON
package import BlyanKernel
internal import BlyanModel
internal import Foundation

/// The held-out text that candidates are judged on: committed, used up, or retired.
extension Judge {
    /// Commits a shard of held-out text to chain A; candidates that come later may be judged on it.
    ///
    /// Each document counts once, whatever its case and white space: of one that is there twice an interval would be too
    /// narrow, and of one that another shard has a later judgement would not be on fresh text.
    ///
    /// - Throws: ``KernelError`` if it is no shard, has documents twice or that are committed already, or too few for a gate.
    package func addShard(_ bytes: [UInt8]) throws -> Block {
        let shard = try PoolShard(parsing: bytes)
        // One at a time: what another call commits meanwhile is compared with too.
        adding.lock()
        defer { adding.unlock() }
        guard try !shardBlocks().contains(where: { $0.header.payloadHash == shard.hash }) else {
            throw KernelError(.rule, "this held-out text is committed already")
        }
        try checkNew(shard)
        let count = shard.documents.count
        if let (gate, least) = try leastDocuments(), count < least {
            throw KernelError(
                .rule,
                "this held-out text has \(count) documents, and the gate \(gate) decides on no fewer than \(least): every candidate would wait for as long as the shard is the first in use",
                hint: "commit at least \(least) documents in one shard")
        }
        return try append(
            "policy", bytes,
            [
                "kind": .string(Self.shardKind), "documents": .int(Int64(count)),
                "slices": .object(shard.slices.mapValues { .int(Int64($0)) }),
            ], payloadType: PoolShard.payloadType)
    }

    private func checkNew(_ shard: PoolShard) throws {
        func key(_ document: PoolShard.Document) -> String {
            document.text.lowercased().split(whereSeparator: \.isWhitespace).joined(separator: " ")
        }
        var known: [String: String] = [:]
        for block in try shardBlocks() {
            // One whose text is gone cannot be compared with.
            guard let other = try? self.shard(block) else { continue }
            for document in other.documents {
                known[key(document)] = "one of shard \(other.hash.description.prefix(12))"
            }
        }
        for (i, document) in shard.documents.enumerated() {
            let text = key(document)
            guard text.utf8.count >= Self.leastBytes else {
                throw KernelError(
                    .rule,
                    "document \(i + 1) of the held-out text has \(text.utf8.count) bytes: of fewer than \(Self.leastBytes) nothing can be learnt",
                    hint: "take it out")
            }
            if let other = known.updateValue("document \(i + 1)", forKey: text) {
                throw KernelError(
                    .rule,
                    "document \(i + 1) of the held-out text is \(other) again, at most but for case and white space",
                    hint: "leave each document in one place: what is there twice counts twice")
            }
        }
    }

    private static let leastBytes = 16

    /// Says on chain A that a shard serves no judgement from here on: it became known, or is too small.
    ///
    /// - Parameter shard: the block that committed it.
    /// - Throws: ``KernelError`` with code `rule` if it is retired already.
    package func retireShard(_ shard: Block) throws -> Block {
        guard let hash = shard.header.payloadHash, try !retiredShards().contains(hash) else {
            throw KernelError(.rule, "the held-out text of block \(shard.hash) is retired already")
        }
        let document = JSONValue.object([
            "format": .string("blyan-pool-retired/1"), "shard": .string(hash.description),
        ])
        return try append(
            "policy", document.canonical(),
            ["kind": .string(Self.retiredKind), "shard": .string(hash.description)])
    }

    /// All shards that were committed, in order.
    package func shardBlocks() throws(KernelError) -> [Block] {
        try policyBlocks(Self.shardKind)
    }

    /// Shards that serve no judgement any more, whatever they have served.
    package func retiredShards() throws(KernelError) -> Set<Digest> {
        try retiredShards(before: .max)
    }

    /// Judgements that a shard has served.
    package func judgements(on shard: Digest) -> Int64 {
        lock.withLock { index.byShard[shard] ?? 0 }
    }

    /// The shard that a judgement uses: the first that is not used up, nor retired, and not among `known`; nil if there is none.
    ///
    /// - Parameters:
    ///   - height: the judgement's index on chain A.
    ///   - used: judgements that each had served by then.
    func activeShard(
        _ policy: JudgingPolicy, but known: Set<Digest>, before height: Int64 = .max,
        used: (Digest) -> Int64
    ) throws(KernelError) -> Block? {
        let retired = try retiredShards(before: height)
        return try shardBlocks().first { block in
            guard let hash = block.header.payloadHash, block.header.index < height else {
                return false
            }
            return !known.contains(hash) && !retired.contains(hash)
                && used(hash) < policy.judgementsPerShard
        }
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

    private static let shardKind = "pool-shard", retiredKind = "pool-retired"

    private func retiredShards(before height: Int64) throws(KernelError) -> Set<Digest> {
        Set(
            try policyBlocks(Self.retiredKind).filter { $0.header.index < height }.compactMap {
                $0.header.metadata["shard"]?.string.flatMap { Digest(hex: $0) }
            })
    }

    private func policyBlocks(_ kind: String) throws(KernelError) -> [Block] {
        try host.store.blocks(.type(chain: "A", "policy")).filter {
            $0.header.metadata["kind"]?.string == kind
        }
    }

    /// The enabled gate that asks for the most documents, and how many: what its setting `least_documents` says.
    private func leastDocuments() throws -> (gate: String, least: Int64)? {
        try JudgingPolicy.gates(of: host.plugins()).compactMap { gate in
            gate.config["least_documents"]?.int.map { (gate.name, $0) }
        }.max { $0.1 < $1.1 }
    }
}
