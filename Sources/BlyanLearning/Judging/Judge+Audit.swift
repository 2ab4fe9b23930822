internal import BlyanJSON
package import BlyanKernel
internal import BlyanModel

/// Judging again what was judged, from nothing but blocks and payloads.
extension Judge {
    /// What an audit found.
    package struct Audit: Sendable {
        /// The verdict block that was audited, and what it says.
        package let verdict: Block
        package let document: VerdictDocument
        /// What the gates say now, in order; empty if they could not be asked.
        package let gates: [VerdictDocument.Gate]
        /// All in which the receipt and this node differ; empty = they agree.
        package let differences: [String]
    }

    /// Audits a verdict, or that by which a version or an expert's block was accepted.
    ///
    /// - Throws: ``KernelError`` if the block rests on no verdict, or something that is needed to judge again is not here.
    package func audit(_ block: Block) throws -> Audit {
        let verdict = try self.verdict(behind: block)
        return try audit(
            verdict, VerdictDocument(parsing: host.store.document(verdict)), isDraft: false)
    }

    /// Audits a verdict that is not written yet, and lacks signatures.
    func audit(_ draft: DraftVerdict) throws -> Audit {
        try audit(block(of: draft), draft.document, isDraft: true)
    }

    private func audit(_ verdict: Block, _ document: VerdictDocument, isDraft: Bool) throws -> Audit
    {
        var differences = try headerDifferences(verdict, document, isDraft: isDraft)
        if !isDraft { differences += try signatureDifferences(document) }
        guard let meta = try host.store.block(document.model),
            let version = try host.store.block(document.version),
            let policyBlock = try host.store.block(document.policy)
        else {
            throw KernelError(
                .notFound,
                "the model, version or policy that verdict \(verdict.hash) rests on is not here")
        }
        differences += try orderDifferences(verdict, document, version, policyBlock)
        let policy = try policy(of: policyBlock)
        if !document.isReview { differences += stampDifferences(document.block, policy) }
        differences += timeDifferences(verdict, document)
        let model = try ModelCatalog(host.store).model(meta, version: version)
        let changes: [Change]
        do {
            changes =
                document.isReview
                ? try reverted(document.block, document.router, in: model)
                : try place(document.block, document.router, in: model)
        } catch let error as KernelError where error.code == .rule {
            // It could not stand, and no gate was asked; a review of such a thing there is not.
            let gates = [VerdictDocument.Gate.replaced(error)]
            differences += gateDifferences(document, gates)
            if document.draw != nil {
                differences.append("text was drawn for what could not stand")
            }
            differences += try factDifferences(verdict, document, meta, policy, readsText: false)
            if document.isReview {
                differences.append(
                    "what was judged again was no version to judge: \(error.message)")
            } else if document.gates.map(\.name) != gates.map(\.name) {
                differences.append(
                    "the candidate could not stand in the version that it was compared with: \(error.message)"
                )
            }
            return Audit(
                verdict: verdict, document: document, gates: gates, differences: differences)
        }
        differences += try drawDifferences(verdict, document, version, policy)
        let drawn = try document.draw.flatMap { draw in
            try shardBlocks().first { $0.header.payloadHash == draw.shard }.map(shard)
        }
        let (gates, readsText) = try run(
            changes, model, policy, document.draw, drawn, received: document.received,
            history: history(before: verdict), isReview: document.isReview, isAudit: true)
        differences += gateDifferences(document, gates)
        differences += try factDifferences(verdict, document, meta, policy, readsText: readsText)
        if !isDraft {
            let named = document.isReview || document.outcome == "accept"
            let expected = Self.basis(of: document) + (named ? changes.map(\.block.hash) : [])
            if verdict.header.dependsOn != expected {
                differences.append(
                    "the verdict depends on other blocks than those that it rests on")
            }
        }
        if readsText != (verdict.header.metadata["shard"] != nil) {
            differences.append(
                readsText
                    ? "gates were told of the text, and the verdict does not count as a judgement on its shard"
                    : "no gate was told of the text, and the verdict counts as a judgement on its shard"
            )
        }
        if document.isReview {
            differences += try reviewDifferences(verdict, document, model)
        }
        if !isDraft { differences += try versionDifferences(verdict, document, model, changes) }
        return Audit(verdict: verdict, document: document, gates: gates, differences: differences)
    }

    /// The verdict block that a block is, or rests on.
    private func verdict(behind block: Block) throws -> Block {
        if block.header.chainID == "A", block.header.blockType == "verdict" { return block }
        if block.header.chainID == "A", block.header.blockType == "version",
            let document = try? JSONValue(parsing: host.store.document(block)),
            let hash = document["verdict"]?.string.flatMap({ Digest(hex: $0) }),
            let verdict = try host.store.block(hash)
        {
            return verdict
        }
        if let verdict = verdict(of: block.hash) { return verdict }
        throw KernelError(
            .notFound,
            "block \(block.hash) rests on no verdict: it was imported, or is of a kind that is not judged"
        )
    }

    private func headerDifferences(
        _ verdict: Block, _ document: VerdictDocument, isDraft: Bool
    ) throws -> [String] {
        let facts = verdict.header.metadata
        var found: [String] = []
        func compare(_ key: String, _ said: String) {
            if facts[key]?.string ?? "" != said {
                found.append(
                    "the verdict's header says \(key) \"\(facts[key]?.string ?? "")\", its document \"\(said)\""
                )
            }
        }
        compare("candidate", document.block.hash.description)
        compare("outcome", document.outcome)
        compare("reason", document.reason)
        compare("author", document.block.header.miner)
        // Missing where no gate was told anything of the text, which is seen when they are asked again.
        if facts["shard"] != nil { compare("shard", document.draw?.shard.description ?? "") }
        if VerdictIndex.isReview(verdict) != document.isReview {
            found.append(
                "the verdict's header says that it is \(document.isReview ? "no review" : "a review"), its document that it is \(document.isReview ? "one" : "none")"
            )
        }
        if !document.block.isSignatureValid {
            found.append("the candidate is not signed by its author")
        }
        compare("router", document.router?.hash.description ?? "")
        for block in [document.block] + (document.router.map { [$0] } ?? []) {
            let stands = try host.store.block(block.hash) != nil
            if stands != (document.isReview || document.outcome == "accept" && !isDraft) {
                found.append(
                    "the candidate's block of \(block.header.expertName) \(stands ? "stands" : "does not stand") on chain B, and the \(document.isReview ? "review" : "verdict") is \(document.outcome)"
                )
            }
        }
        return found
    }

    /// That the header says what this node would write there, and nothing else.
    private func factDifferences(
        _ verdict: Block, _ document: VerdictDocument, _ meta: Block, _ policy: JudgingPolicy,
        readsText: Bool
    ) throws -> [String] {
        let receipt = Receipt(
            document: document, model: try ModelCatalog(host.store).model(meta),
            basis: Basis(readsText: readsText, parts: 0))
        let expected = facts(of: receipt, secretNumber: policy.secretNumber)
        let said = verdict.header.metadata
        func text(_ value: JSONValue?) -> String {
            value.map { String(decoding: $0.canonical().prefix(80), as: UTF8.self) } ?? "nothing"
        }
        // What it says of its payload the chain itself checks; the shard is compared apart.
        let apart = ["covered", "leaf_size", "leaf_hashes_at", "shard"]
        return Set(said.keys).union(expected.keys).subtracting(apart).sorted()
            .filter { said[$0] != expected[$0] }
            .map {
                "the verdict's header says \($0) \(text(said[$0])), expected \(text(expected[$0]))"
            }
    }

    /// Milliseconds by which an author's clock may be ahead.
    static let clockTolerance: Int64 = 600_000

    /// That the times which quotas are counted by, and gates are told, are possible.
    private func timeDifferences(_ verdict: Block, _ document: VerdictDocument) -> [String] {
        let made = document.block.header.timestamp - Self.clockTolerance
        guard document.received >= made, document.received <= verdict.header.timestamp else {
            return [
                "the candidate was received at \(document.received), made at \(document.block.header.timestamp) and judged at \(verdict.header.timestamp), in milliseconds: not in that order"
            ]
        }
        return []
    }

    /// Where the hash begins with as many zero bits as the header claims is seen by whoever reads the block on chain B; a
    /// rejected candidate stands nowhere.
    private func stampDifferences(_ candidate: Block, _ policy: JudgingPolicy) -> [String] {
        let bits = candidate.header.difficulty
        guard bits < policy.stampBits || !Stamp.isValid(candidate.hash, difficulty: bits) else {
            return []
        }
        return [
            "the candidate claims a stamp of \(bits) bits, or has not got it; the policy asks for \(policy.stampBits)"
        ]
    }

    private func signatureDifferences(_ document: VerdictDocument) throws -> [String] {
        let quorum = try Quorum(host.store)
        let signers = try quorum.signers(of: document)
        guard signers.count < quorum.threshold else { return [] }
        return [
            "\(signers.count) of \(quorum.validators.count) validators have signed the receipt, the pact asks for \(quorum.threshold)"
        ]
    }

    /// That version and policy were the newest when the verdict was written.
    private func orderDifferences(
        _ verdict: Block, _ document: VerdictDocument, _ version: Block, _ policy: Block
    ) throws -> [String] {
        var found: [String] = []
        var newestVersion: Digest?, newestPolicy: Digest?
        try host.store.scan(.chain("A", from: 0)) { block throws(KernelError) in
            guard block.header.index < verdict.header.index else { return false }
            if block.header.blockType == "version",
                block.header.dependsOn.contains(document.model)
            {
                newestVersion = block.hash
            }
            if block.header.blockType == "policy",
                block.header.metadata["kind"]?.string == "judging"
            {
                newestPolicy = block.hash
            }
            return true
        }
        if newestVersion != version.hash {
            found.append("another version of the model was current")
        }
        if newestPolicy != policy.hash { found.append("another policy governed") }
        return found
    }

    /// That the text is what nobody could choose: secret, count, shard and seed.
    private func drawDifferences(
        _ verdict: Block, _ document: VerdictDocument, _ version: Block, _ policy: JudgingPolicy
    ) throws -> [String] {
        var found: [String] = []
        var (count, used): (Int, [Digest: Int64]) = (1, [:])
        // A review needs text that the version never met.
        var known: Set<Digest> = []
        try host.store.scan(.type(chain: "A", "verdict")) { block throws(KernelError) in
            guard block.header.index < verdict.header.index else { return false }
            let facts = block.header.metadata
            if let shard = facts["shard"]?.string.flatMap({ Digest(hex: $0) }) {
                used[shard, default: 0] += 1
                if document.isReview,
                    facts["candidate"]?.string == document.block.hash.description
                {
                    known.insert(shard)
                }
            }
            if facts["secret_number"]?.int == policy.secretNumber {
                count = max(count, Int(clamping: facts["secret_count"]?.int ?? 0) + 1)
            }
            return true
        }
        let active = try activeShard(policy, but: known, before: verdict.header.index) {
            used[$0] ?? 0
        }
        guard let draw = document.draw else {
            if active != nil { found.append("nothing was drawn, though there was held-out text") }
            return found
        }
        let facts = verdict.header.metadata
        if facts["secret_count"]?.int != Int64(draw.count)
            || facts["secret_number"]?.int != policy.secretNumber
        {
            found.append("the verdict's header says another secret than its document")
        }
        if draw.count != count {
            found.append("the judgement has the number \(draw.count), expected \(count)")
        }
        if draw.secrets.keys.sorted() != policy.commitments.keys.sorted() {
            found.append("the secrets are not those of the policy's validators")
        }
        for (key, secret) in draw.secrets {
            guard let commitment = policy.commitments[key] else { continue }
            if !SecretChain.isValid(secret, count: draw.count, commitment: commitment) {
                found.append("the secret of \(key) is not the one that it committed to")
            }
        }
        let secrets = draw.secrets.keys.sorted().compactMap { draw.secrets[$0] }
        let seed = version.header.payloadHash.map {
            SecretChain.seed(secrets: secrets, candidate: document.block.hash, root: $0)
        }
        if seed != draw.seed {
            found.append("the seed does not follow from secrets, candidate and model")
        }
        if active?.header.payloadHash != draw.shard {
            found.append(
                document.isReview
                    ? "the text was not drawn from the first shard that the version had never met"
                    : "the text was drawn from a shard that was not the active one")
        }
        return found
    }

    /// That gates say the same again, and that the outcome follows from it.
    private func gateDifferences(
        _ document: VerdictDocument, _ found: [VerdictDocument.Gate]
    ) -> [String] {
        let said = document.gates
        guard said.map(\.name) == found.map(\.name), said.map(\.part) == found.map(\.part) else {
            return [
                "the receipt has the gates \(said.map(\.name)), judging again asked \(found.map(\.name))"
            ]
        }
        let (outcome, reason) = Judgement.outcome(of: found)
        let follows =
            outcome.rawValue == document.outcome && reason == document.reason
            ? []
            : [
                "the verdict is \(document.outcome) \(document.reason), and what follows from the gates is \(outcome.rawValue) \(reason)"
            ]
        return follows
            + zip(said, found).flatMap { said, found -> [String] in
                var differences: [String] = []
                if said.version != found.version {
                    differences.append(
                        "\(said.name) had version \(said.version), and has \(found.version)")
                }
                if said.outcome != found.outcome || said.reason != found.reason {
                    differences.append(
                        "\(said.name) said \(said.outcome) \(said.reason), and says \(found.outcome) \(found.reason)"
                    )
                }
                let evidence = EvidenceComparison(said: said.evidence, found: found.evidence)
                if let what = evidence.difference { differences.append("\(said.name): \(what)") }
                return differences
            }
    }
}
