internal import BlyanJSON
public import BlyanKernel
internal import BlyanLearning
public import BlyanLedger
internal import BlyanModel

/// Computing the amounts of a reward block again, from signed blocks alone.
extension Node {
    /// What an audit found.
    public struct RewardAudit: Sendable {
        /// The reward block.
        public let block: Block
        /// The policy by which it says that it pays, as the policy block has it; nil if there is none.
        public let terms: RewardTerms?
        /// The library that computed then, and the one that computed now.
        public let library: Digest?, libraryHere: Digest?
        /// Rewards and clawbacks that were looked at.
        public let transactions: Int
        /// Those of them that take back: of such a one only the verdict is looked at, not the amount, which is what had not
        /// vested and follows when chain C is played again.
        public let clawbacks: Int
        /// All in which the block and this node differ; empty = they agree.
        public let differences: [String]
    }

    /// The reward blocks that pay for a verdict or for a usage block, or take back because of it; of a reward block, itself.
    ///
    /// - Throws: ``KernelError`` with code `rule` for another block of chain C.
    public func rewardBlocks(of block: Block) throws(KernelError) -> [Block] {
        guard block.header.blockType != "reward" else { return [block] }
        guard block.header.chainID != "C" || block.header.blockType == "usage" else {
            throw KernelError(
                .rule, "block \(block.hash) holds transfers: there is nothing to compute again",
                hint: "`blyan chain verify` plays them again")
        }
        return try store.blocks(.dependents(block.hash)).filter {
            $0.header.chainID == "C" && $0.header.blockType == "reward"
        }
    }

    /// The verdict block by which a reward block pays or takes back; nil for what rests on use.
    ///
    /// - Throws: ``KernelError`` if the block's document cannot be read, or the verdict is not here.
    public func verdict(behind block: Block) throws(KernelError) -> Block? {
        guard block.header.blockType == "reward" else { return nil }
        for transaction in try LedgerDocument(store.document(block)).transactions {
            let reason: Reason
            switch transaction {
            case .reward(let reward): reason = reward.reason
            case .clawback(let clawback): reason = clawback.reason
            case .transfer, .fee: continue
            }
            guard let hash = reason.verdict else { continue }
            guard let verdict = try store.block(hash) else {
                throw KernelError(.notFound, "the verdict \(hash) that it rests on is not here")
            }
            return verdict
        }
        return nil
    }

    /// Recomputes the rewards of a block of chain C from the blocks that its reasons name.
    ///
    /// - Throws: ``KernelError`` with code `rule` if it is no reward block; if something that is needed is not here, or the
    ///   plugin that computes by its policy cannot be run.
    public func auditRewards(of block: Block) throws -> RewardAudit {
        guard block.header.chainID == "C", block.header.blockType == "reward" else {
            throw KernelError(.rule, "block \(block.hash) is no reward block of chain C")
        }
        let document = try LedgerDocument(store.document(block))
        var rewards: [Reward] = []
        var differences: [String] = []
        var clawbacks = 0
        for transaction in document.transactions {
            switch transaction {
            case .reward(let reward): rewards.append(reward)
            case .clawback(let clawback):
                clawbacks += 1
                differences += try self.differences(clawback)
            case .transfer, .fee: break
            }
        }
        guard let first = rewards.first else {
            return RewardAudit(
                block: block, terms: nil, library: nil, libraryHere: nil, transactions: clawbacks,
                clawbacks: clawbacks, differences: differences)
        }
        let named = try first.reason.blocks.compactMap { try store.block($0) }
        guard
            let policyBlock = named.first(where: {
                $0.header.blockType == "policy"
                    && $0.header.metadata["kind"]?.string == RewardTerms.kind
            })
        else {
            return RewardAudit(
                block: block, terms: nil, library: first.reason.policy.library, libraryHere: nil,
                transactions: rewards.count + clawbacks, clawbacks: clawbacks,
                differences: differences + ["its reasons name no reward policy on chain"])
        }
        let terms = try RewardTerms.terms(of: policyBlock, store)
        differences += try governing(policyBlock, terms, block)
        let plugin = try plugin(for: terms)
        let policy = Policy(block: policyBlock, terms: terms, plugin: plugin)
        let wanted: [Reward]
        let cause: Digest
        if let hash = first.reason.verdict {
            cause = first.reason.blocks.first { $0 != policyBlock.hash } ?? hash
            wanted = try self.rewards(forVerdict: hash, policy)
        } else if let usage = named.first(where: { $0.header.blockType == "usage" }) {
            cause = usage.hash
            wanted = try self.rewards(forUsage: usage, policy, &differences)
        } else {
            throw KernelError(
                .malformed, "block \(block.hash) names neither a verdict nor a usage block")
        }
        differences += try paidBefore(cause, block)
        if rewards.count != wanted.count {
            differences.append(
                "it has \(rewards.count) rewards, the policy gives \(wanted.count)")
        }
        for (i, (said, found)) in zip(rewards, wanted).enumerated() where !same(said, found) {
            differences.append(
                "reward \(i) is \(said.amount) micro-BLY to \(said.to) over \(said.vesting) blocks, the policy gives \(found.amount) to \(found.to) over \(found.vesting), or for another reason"
            )
        }
        return RewardAudit(
            block: block, terms: terms, library: first.reason.policy.library,
            libraryHere: plugin.plugin.sha256, transactions: rewards.count + clawbacks,
            clawbacks: clawbacks, differences: differences)
    }

    /// The library is evidence: any that reproduces the vectors may compute.
    private func same(_ a: Reward, _ b: Reward) -> Bool {
        a.to == b.to && a.amount == b.amount && a.vesting == b.vesting
            && a.reason.blocks == b.reason.blocks && a.reason.verdict == b.reason.verdict
            && a.reason.policy.name == b.reason.policy.name
            && a.reason.policy.version == b.reason.policy.version
            && a.reason.policy.vectors == b.reason.policy.vectors
    }

    /// Whether a policy governed a block of chain C.
    private func governing(_ policy: Block, _ terms: RewardTerms, _ block: Block) throws
        -> [String]
    {
        var newest: Digest?
        try store.scan(.type(chain: "A", "policy")) { other throws(KernelError) in
            guard other.header.metadata["kind"]?.string == RewardTerms.kind else { return true }
            guard try RewardTerms.terms(of: other, store).first <= block.header.index else {
                return false
            }
            newest = other.hash
            return true
        }
        return newest == policy.hash
            ? []
            : ["another reward policy governed, that of block \(newest?.description ?? "none")"]
    }

    func rewards(forVerdict hash: Digest, _ policy: Policy) throws -> [Reward] {
        guard let verdict = try store.block(hash), verdict.header.blockType == "verdict" else {
            throw KernelError(.notFound, "the verdict \(hash) that it rests on is not here")
        }
        let document = try VerdictDocument(parsing: store.document(verdict))
        // What was not accepted earns nothing, whatever the policy; nor does a review in which a version stays.
        guard document.outcome == "accept", !document.isReview,
            try acceptance(of: document.block.hash)?.block.hash == hash
        else { return [] }
        let event = try acceptance(document.block, document, by: verdict)
        let reason = policy.reason([document.block.hash], verdict: hash)
        return try compute([(reason, event)], policy, about: "verdict \(hash)")
    }

    func rewards(
        forUsage usage: Block, _ policy: Policy, _ differences: inout [String]
    ) throws -> [Reward] {
        let document = try UsageDocument(parsing: store.document(usage))
        for entry in document.entries where try quality(of: entry.block) != entry.quality {
            differences.append(
                "the usage block gives block \(entry.block) the quality \(entry.quality), its verdict \(try quality(of: entry.block))"
            )
        }
        let events = try usageEvents(document)
        return try compute(
            events.map { (policy.reason([usage.hash, $0.block], verdict: nil), $0.event) }, policy,
            about: "usage block \(usage.hash)")
    }

    private func compute(
        _ events: [(reason: Reason, event: RewardEvent)], _ policy: Policy, about subject: String
    ) throws -> [Reward] {
        try policy.plugin.settle(
            events.map(\.event.document), config: policy.terms.config,
            about: subject
        ).map { payment in
            guard
                case .reward(let reward) = try transaction(payment, events[payment.event].reason)
            else { throw KernelError(.plugin, "a payment is no reward") }
            return reward
        }
    }

    /// Whether an earlier block paid for the same acceptance or use.
    ///
    /// - Parameter cause: the accepted block, or the usage block.
    private func paidBefore(_ cause: Digest, _ block: Block) throws -> [String] {
        let isVersion = try store.block(cause)?.header.chainID == "B"
        var found: [String] = []
        try store.scan(.dependents(cause)) { other throws(KernelError) in
            guard other.header.chainID == "C", other.header.blockType == "reward",
                other.header.index < block.header.index
            else { return true }
            let document = try LedgerDocument(store.document(other))
            let pays = document.transactions.contains { transaction in
                guard case .reward(let reward) = transaction else { return false }
                return isVersion
                    ? transaction.isReward(forAcceptanceOf: cause)
                    : reward.reason.blocks.contains(cause)
            }
            if pays { found.append("block \(other.hash) paid for \(cause) before") }
            return true
        }
        return found
    }

    private func differences(_ clawback: Clawback) throws -> [String] {
        let verdict = try clawback.reason.verdict.flatMap { try store.block($0) }
        for hash in clawback.reason.blocks {
            guard let verdict, let version = try store.block(hash), version.header.chainID == "B",
                try showsRegression(verdict, of: version)
            else { continue }
            if try isPaid(clawback, for: version) { return [] }
            return [
                "the clawback from \(clawback.from) takes back what was not paid for version \(version.hash): transaction \(clawback.transaction) of block \(clawback.block)"
            ]
        }
        return [
            "the clawback from \(clawback.from) rests on no verdict that shows a regression"
        ]
    }

    /// Whether what a clawback takes back was paid for the acceptance of a version.
    private func isPaid(_ clawback: Clawback, for version: Block) throws -> Bool {
        let paid = try store.blocks(.chain("C", from: clawback.block), limit: 1).first
        guard let paid, paid.header.index == clawback.block, paid.header.blockType == "reward",
            let position = Int(exactly: clawback.transaction)
        else { return false }
        let transactions = try LedgerDocument(store.document(paid)).transactions
        guard transactions.indices.contains(position) else { return false }
        return transactions[position].isReward(forAcceptanceOf: version.hash)
    }
}
