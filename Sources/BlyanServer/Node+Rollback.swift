internal import BlyanJSON
public import BlyanKernel
internal import BlyanLearning
package import BlyanLedger
internal import BlyanModel

/// Going back to an older version of an expert, and taking back what was paid for one that turned out to be worse.
extension Node {
    /// A rollback that is durable.
    public struct Rollback: Sendable {
        /// The version block that makes the older block current.
        public let version: Block
        /// The block that was current, and the one that is now.
        public let from: Block, to: Block
        /// The same of each part that moved in the same step, since it was accepted together with this one.
        public let others: [(from: Block, to: Block)]
        /// The verdict that shows the regression, if there is one.
        public let verdict: Digest?
        /// The block that takes back what had not vested, if anything had not.
        public let clawback: Block?
    }

    /// Makes an older version of a part current again by one signed step.
    ///
    /// An expert and the router that it was accepted with move together, while both are current. If a later verdict shows that
    /// a version which is left is worse than its parent, what was paid for it and has not vested is taken back in the same record.
    /// - Parameters:
    ///   - target: a version of the part; nil = the parent of the current one.
    ///   - passphrase: asked if the key that signs is locked; nil = what the node was made with.
    /// - Throws: ``ModelError`` or ``KernelError`` if there is no such version; what signing and appending throw.
    public func rollback(
        _ part: String, model name: String?, to target: Digest? = nil,
        passphrase: (@Sendable () throws -> [UInt8])? = nil
    ) throws -> Rollback {
        let key = try signingKey(passphrase: passphrase)
        return try ledger.holding { _ in
            while true {
                let model = try catalog.model(named: name)
                guard let base = model.version, let hash = model.parts[part],
                    let current = try store.block(hash)
                else {
                    throw ModelError(
                        "the model \(model.name) has no part \"\(part)\"",
                        hint: "`blyan expert list --model \(model.name)` lists them")
                }
                let older = try older(part, current, target, model)
                var parts = model.parts
                parts[part] = older.hash
                try moveHalves(&parts, from: current, to: older)
                let others = try changes(from: model.parts, to: parts, but: part)
                var worse = current
                var regression = try regression(of: current)
                for (left, _) in others where regression == nil {
                    (worse, regression) = (left, try self.regression(of: left))
                }
                let list = try VersionDocument(
                    model: model.meta.hash, parts: parts, parent: base.hash,
                    verdict: regression?.hash ?? acceptance(of: older.hash)?.block.hash)
                let place = store.next(on: "A")
                let version = try DocumentBlock(
                    "version", list.encoded(), dependsOn: [model.meta.hash],
                    metadata: [
                        "model": .string(model.name), "rollback": .string(part),
                        "from": .string(current.hash.description),
                    ], in: store
                ).block(at: place, with: key, now: Node.now())
                let taken = try regression.map { try clawbacks(of: worse, because: $0) } ?? []
                var clawback: Block?
                do throws(KernelError) {
                    if taken.isEmpty {
                        try store.append([version])
                    } else {
                        clawback = try ledger.append(taken, key: key, time: Node.now()) { _ in
                            [version]
                        }
                    }
                } catch {
                    guard error.code == .rule, store.next(on: "A").index > place.index else {
                        throw error
                    }
                    continue
                }
                for block in [version] + (clawback.map { [$0] } ?? []) {
                    messages.publish(BlockStored(block), to: .blockStored)
                }
                return Rollback(
                    version: version, from: current, to: older, others: others,
                    verdict: regression?.hash, clawback: clawback)
            }
        }
    }

    /// The version that is to be current again.
    private func older(
        _ part: String, _ current: Block, _ target: Digest?, _ model: CatalogModel
    ) throws -> Block {
        let wanted = target ?? current.header.previous
        guard let wanted, wanted != store.genesis else {
            throw KernelError(
                .rule, "block \(current.hash) is the first version of \(part): nothing came before",
                hint:
                    "`blyan expert show \(part)` lists the versions; --to HASH goes to any of them")
        }
        guard wanted != current.hash else {
            throw KernelError(.rule, "block \(wanted) is the current version of \(part)")
        }
        guard let block = try store.block(wanted), block.header.chainID == "B",
            block.header.expertName == part, block.header.dependsOn.contains(model.meta.hash)
        else {
            throw KernelError(
                .notFound, "block \(wanted) is no version of \(part) of the model \(model.name)",
                hint: "`blyan expert show \(part)` lists the versions")
        }
        return block
    }

    /// Moves the other halves of pairs that a part leaves, or comes to: back if they are current, forward if what they replaced is.
    private func moveHalves(
        _ parts: inout [String: Digest], from current: Block, to target: Block
    ) throws {
        if let left = try versions(from: current, backTo: target) {
            for half in try left.compactMap(otherHalf)
            where parts[half.header.expertName] == half.hash {
                parts[half.header.expertName] = half.header.previous
            }
        } else if let joined = try versions(from: target, backTo: current) {
            for half in try joined.reversed().compactMap(otherHalf)
            where parts[half.header.expertName] == half.header.previous {
                parts[half.header.expertName] = half.hash
            }
        }
    }

    /// A version and those that it replaced, newest first, without the last; nil if that is none of them.
    private func versions(from newest: Block, backTo last: Block) throws -> [Block]? {
        var found: [Block] = []
        var next: Block? = newest
        while let block = next, block.hash != last.hash {
            found.append(block)
            next = try block.header.previous.flatMap { try store.block($0) }
        }
        return next == nil ? nil : found
    }

    /// What was accepted together with a version: the router of an expert, the expert of a router; nil if nothing was.
    private func otherHalf(of version: Block) throws -> Block? {
        var half: Digest?
        try store.scan(.dependents(version.hash)) { block throws(KernelError) in
            let facts = block.header.metadata
            guard block.header.chainID == "A", block.header.blockType == "verdict",
                !VerdictIndex.isReview(block), facts["outcome"] == .string("accept"),
                let expert = facts["candidate"]?.string, let router = facts["router"]?.string,
                [expert, router].contains(version.hash.description)
            else { return true }
            half = Digest(hex: expert == version.hash.description ? router : expert)
            return false
        }
        return try half.flatMap { try store.block($0) }
    }

    /// Blocks that are current before and after, of all parts but one that differ, by name.
    private func changes(
        from old: [String: Digest], to new: [String: Digest], but part: String
    ) throws -> [(from: Block, to: Block)] {
        try new.keys.sorted().compactMap { name in
            guard name != part, old[name] != new[name],
                let before = try old[name].flatMap({ try store.block($0) }),
                let after = try new[name].flatMap({ try store.block($0) })
            else { return nil }
            return (before, after)
        }
    }

    /// The newest review that shows a version to be worse than its parent, or nil.
    ///
    /// - Parameter end: an index of chain A; reviews from there on do not count.
    /// - Throws: ``KernelError`` if log or index are damaged.
    package func regression(of version: Block, before end: Int64 = .max) throws(KernelError)
        -> Block?
    {
        var found: Block?
        try store.scan(.dependents(version.hash)) { block throws(KernelError) in
            if block.header.index < end, try showsRegression(block, of: version) { found = block }
            return true
        }
        return found
    }

    /// Whether a block is a review that shows a version to be worse than its parent.
    ///
    /// It judges the version's own block again, after it was accepted, is signed as the pact asks, rejects, and the upper bound of
    /// the improvement that its last measuring gate gives is below 0.
    func showsRegression(_ verdict: Block, of version: Block) throws(KernelError) -> Bool {
        let header = verdict.header
        guard header.chainID == "A", header.blockType == "verdict", VerdictIndex.isReview(verdict),
            header.metadata["candidate"]?.string == version.hash.description,
            let accepted = try acceptance(of: version.hash)?.block,
            header.index > accepted.header.index,
            let document = try? VerdictDocument(parsing: store.document(verdict)),
            document.block.hash == version.hash, document.showsRegression
        else { return false }
        return try Quorum(store).isReached(by: document)
    }

    /// What takes back all that was paid for the acceptance of a version and has not vested.
    package func clawbacks(of version: Block, because verdict: Block) throws(KernelError)
        -> [Transaction]
    {
        var found: [Transaction] = []
        try store.scan(.dependents(version.hash)) { block throws(KernelError) in
            guard block.header.chainID == "C", block.header.blockType == "reward" else {
                return true
            }
            let document = try LedgerDocument(store.document(block))
            for (i, transaction) in document.transactions.enumerated() {
                guard case .reward(let reward) = transaction,
                    transaction.isReward(forAcceptanceOf: version.hash),
                    try ledger.grants(of: reward.to).contains(where: {
                        $0.block == block.header.index && $0.transaction == Int64(i)
                    })
                else { continue }
                found.append(
                    .clawback(
                        Clawback(
                            from: reward.to, block: block.header.index, transaction: Int64(i),
                            reason: Reason(
                                blocks: [version.hash], verdict: verdict.hash,
                                policy: reward.reason.policy))))
            }
            return true
        }
        return found
    }
}

extension Transaction {
    /// Whether it pays for the acceptance of a version, not for its use.
    func isReward(forAcceptanceOf version: Digest) -> Bool {
        guard case .reward(let reward) = self else { return false }
        return reward.reason.verdict != nil && reward.reason.blocks.contains(version)
    }
}
