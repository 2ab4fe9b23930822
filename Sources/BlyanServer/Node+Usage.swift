internal import BlyanJSON
public import BlyanKernel
internal import BlyanLearning
public import BlyanLedger
internal import BlyanModel
internal import Foundation

/// Counting the use of versions, and paying for it.
extension Node {
    /// The use of one version since the home was made.
    public struct VersionUse: Sendable {
        /// The model's name.
        public let model: String
        /// `layer4.expert7`.
        public let expert: String
        /// The version's block.
        public let block: Digest
        /// Its version, SemVer.
        public let version: String
        /// Whether it is the current version.
        public let isCurrent: Bool
        /// All that it did.
        public let counts: UsageCounts
        /// The part of it that other accounts than its author's paid for.
        public let paidCalls: Int64
        /// Its proven improvement in millionths; 0 for an import.
        public let quality: Int64
    }

    /// The use of all versions that were ever used, of one model or of all.
    ///
    /// - Throws: ``KernelError`` if counts, log or index are damaged; ``ModelError``.
    public func versionUses(model name: String? = nil) throws -> [VersionUse] {
        let models = try name.map { [try catalog.model(named: $0)] } ?? catalog.models()
        var found: [VersionUse] = []
        var lines = try uses.lines()[...]
        while let first = lines.first {
            let own = lines.prefix { $0.block == first.block }
            lines = lines.dropFirst(own.count)
            guard let block = try store.block(first.block),
                let model = models.first(where: { block.header.dependsOn.contains($0.meta.hash) })
            else { continue }
            let author = Account(block.header.miner)
            found.append(
                VersionUse(
                    model: model.name, expert: block.header.expertName, block: block.hash,
                    version: block.header.version,
                    isCurrent: model.parts[block.header.expertName] == block.hash,
                    counts: own.reduce(UsageCounts()) { $0 + $1.counts },
                    paidCalls: own.filter { $0.payer != nil && $0.payer != author }
                        .reduce(0) { $0 + $1.counts.calls },
                    quality: try quality(of: block.hash)))
        }
        return found
    }

    /// A version's quality: the lower bound of the improvement by which it was accepted, in millionths; 0 for an import.
    ///
    /// - Throws: ``KernelError`` if log or index are damaged.
    public func quality(of block: Digest) throws(KernelError) -> Int64 {
        guard let verdict = try acceptance(of: block) else { return 0 }
        return Self.gain(verdict.document)?.quality ?? 0
    }

    /// A settlement that is durable.
    public struct Settlement: Sendable {
        /// The usage block.
        public let usage: Block
        /// The reward block, if the policy pays anything.
        public let reward: Block?
        /// What the usage block says.
        public let document: UsageDocument
        /// Rewards in micro-BLY, by account.
        public let rewards: [Account: Int64]
    }

    /// Writes what was used since the last settlement on chain C, with the rewards that the policy gives for it: one record.
    ///
    /// A settlement that a crash interrupted is ended first, exactly once.
    /// - Parameter passphrase: asked if the key that signs is locked; nil = what the node was made with.
    /// - Returns: The settlements, none if nothing was used.
    /// - Throws: ``KernelError`` if the policy fails, after which the next call settles the same, or if counts, log or
    ///   index are damaged; with code `cancelled` on request; what signing throws.
    public func settleUsage(
        passphrase: (@Sendable () throws -> [UInt8])? = nil
    ) throws -> [Settlement] {
        try settling.lockUnlessStopped()
        defer { settling.unlock() }
        var settled: [Settlement] = []
        while let document = try uses.beginSettlement(
            time: Node.now(),
            quality: { hash throws(KernelError) in try quality(of: hash) })
        {
            if try !stands(document) {
                settled.append(try settle(document, passphrase))
            }
            try uses.endSettlement()
        }
        return settled
    }

    /// Whether a usage block has this document already.
    private func stands(_ document: UsageDocument) throws(KernelError) -> Bool {
        let hash = SHA256.hash(document.document.canonical())
        var isThere = false
        try store.scan(.type(chain: "C", "usage"), reverse: true) { block throws(KernelError) in
            isThere = block.header.payloadHash == hash
            return !isThere && block.header.timestamp >= document.time
        }
        return isThere
    }

    private func settle(
        _ document: UsageDocument, _ passphrase: (@Sendable () throws -> [UInt8])?
    ) throws -> Settlement {
        let key = try signingKey(passphrase: passphrase)
        let events = try usageEvents(document)
        while true {
            let policy = try rewardPolicy(passphrase: passphrase)
            let payments =
                try policy?.plugin.settle(
                    events.map(\.event.document), config: policy?.terms.config ?? .object([:]),
                    about: "the use that is settled")
                ?? []
            let settled = try ledger.holding { _ in
                try governs(policy)
                    ? settle(document, events.map(\.block), key, policy, payments) : nil
            }
            // Nil: another policy governs by now.
            if let settled { return settled }
        }
    }

    /// Appends a usage document with its payments; with chain C held.
    private func settle(
        _ document: UsageDocument, _ blocks: [Digest], _ key: SigningKey, _ policy: Policy?,
        _ payments: [RewardPlugin.Payment]
    ) throws(KernelError) -> Settlement {
        let (usage, reward) = try ledger.settle(
            document.document, dependsOn: Array(Set(blocks)).sorted(), key: key,
            time: max(Node.now(), document.time)
        ) { usage throws(KernelError) in
            guard let policy else { return [] }
            var transactions: [Transaction] = []
            for payment in payments {
                let reason = policy.reason([usage.hash, blocks[payment.event]], verdict: nil)
                transactions.append(try transaction(payment, reason))
            }
            return transactions
        }
        for block in [usage] + (reward.map { [$0] } ?? []) {
            messages.publish(BlockStored(block), to: .blockStored)
        }
        var rewards: [Account: Int64] = [:]
        for payment in payments {
            guard let account = Account(payment.account) else { continue }
            rewards[account, default: 0] += payment.amount
        }
        return Settlement(usage: usage, reward: reward, document: document, rewards: rewards)
    }

    /// What a policy is told of a usage document, with the version that each event is of.
    func usageEvents(_ document: UsageDocument) throws(KernelError) -> [(
        block: Digest, event: RewardEvent
    )] {
        var events: [(block: Digest, event: RewardEvent)] = []
        for entry in document.entries where !entry.paid.isEmpty {
            guard let block = try store.block(entry.block), block.header.chainID == "B",
                let author = Account(block.header.miner),
                let event = entry.event(author: author, time: document.time)
            else { continue }
            events.append((entry.block, event))
        }
        return events
    }
}
