internal import BlyanJSON
public import BlyanKernel
internal import BlyanLearning
internal import BlyanLedger
internal import BlyanModel

/// What ought to stand on chain C beside a block, and does not: nothing that stands there tells.
extension Node {
    /// What is missing of rewards for an acceptance or for use, and of clawbacks that a review asks for; empty = nothing.
    ///
    /// - Parameter block: a verdict or a usage block.
    /// - Throws: ``KernelError`` if something that is needed is not here, or the policy that governed cannot be run.
    public func missingRewards(of block: Block) throws -> [String] {
        let rewards = try rewardBlocks(of: block)
        if block.header.blockType == "usage" {
            return try rewards.isEmpty ? unpaid(forUsage: block) : []
        }
        guard block.header.blockType == "verdict" else { return [] }
        let document = try VerdictDocument(parsing: store.document(block))
        if document.isReview { return try missingClawbacks(document, block, rewards) }
        return try rewards.isEmpty ? unpaid(for: block) : []
    }

    private func unpaid(for verdict: Block) throws -> [String] {
        let policy = try policy { $0.header.index < verdict.header.index }
        guard let policy else { return [] }
        return unpaid(try rewards(forVerdict: verdict.hash, policy).count, policy)
    }

    private func unpaid(forUsage usage: Block) throws -> [String] {
        let policy = try policy { block in
            try RewardTerms.terms(of: block, store).first <= usage.header.index
        }
        guard let policy else { return [] }
        var differences: [String] = []
        let count = try rewards(forUsage: usage, policy, &differences).count
        return differences + unpaid(count, policy)
    }

    private func unpaid(_ count: Int, _ policy: Policy) -> [String] {
        count == 0
            ? []
            : [
                "nobody was paid for it, and the policy that governed, \(policy.terms.summary), gives \(count) rewards"
            ]
    }

    /// The last of the reward policies on chain A that are as asked; nil if nobody was paid by it, or there was none.
    private func policy(_ isAsked: (Block) throws -> Bool) throws -> Policy? {
        let blocks = try store.blocks(.type(chain: "A", "policy")).filter {
            $0.header.metadata["kind"]?.string == RewardTerms.kind
        }
        guard let block = try blocks.last(where: isAsked) else { return nil }
        let terms = try RewardTerms.terms(of: block, store)
        return try terms.name.isEmpty
            ? nil : Policy(block: block, terms: terms, plugin: plugin(for: terms))
    }

    /// That what had not vested of the rewards of a version was taken back, when a review showed it to be worse.
    private func missingClawbacks(
        _ document: VerdictDocument, _ review: Block, _ rewards: [Block]
    ) throws -> [String] {
        guard try showsRegression(review, of: document.block) else { return [] }
        var taken: Set<GrantPlace> = []
        for block in rewards { taken.formUnion(try clawbacks(in: block)) }
        return try unvested(of: document.block, before: review).subtracting(taken).sorted().map {
            "transaction \($0.transaction) of block \($0.block) paid for the version and had not all vested, and was not taken back"
        }
    }

    /// Where a reward stands on chain C.
    private struct GrantPlace: Hashable, Comparable {
        let block: Int64, transaction: Int64

        static func < (a: Self, b: Self) -> Bool {
            (a.block, a.transaction) < (b.block, b.transaction)
        }
    }

    private func clawbacks(in block: Block) throws(KernelError) -> Set<GrantPlace> {
        var found: Set<GrantPlace> = []
        for transaction in try LedgerDocument(store.document(block)).transactions {
            guard case .clawback(let clawback) = transaction else { continue }
            found.insert(GrantPlace(block: clawback.block, transaction: clawback.transaction))
        }
        return found
    }

    /// Rewards for the acceptance of a version that had not vested when a block of chain A came.
    private func unvested(of version: Block, before review: Block) throws -> Set<GrantPlace> {
        var found: [GrantPlace: Grant] = [:]
        var clock: Int64 = 0
        var isOver = false
        try store.scan(.arrival) { block throws(KernelError) in
            isOver = block.hash == review.hash
            guard !isOver, block.header.chainID == "C", block.header.blockType != "transfer" else {
                return !isOver
            }
            defer { clock += 1 }
            guard block.header.blockType == "reward" else { return true }
            let transactions = try LedgerDocument(store.document(block)).transactions
            for (i, transaction) in transactions.enumerated()
            where transaction.isReward(forAcceptanceOf: version.hash) {
                guard case .reward(let reward) = transaction, reward.vesting > 0 else { continue }
                found[GrantPlace(block: block.header.index, transaction: Int64(i))] = Grant(
                    block: block.header.index, transaction: Int64(i), since: clock,
                    amount: reward.amount, vesting: reward.vesting)
            }
            for place in try clawbacks(in: block) { found[place] = nil }
            return true
        }
        return Set(found.filter { $0.value.unvested(at: clock) > 0 }.keys)
    }
}
