internal import BlyanJSON
internal import BlyanKernel
internal import BlyanModel
internal import Foundation

/// Writing what a judgement came to.
extension Judge {
    /// What a judgement rests on and its document does not say.
    struct Basis: Sendable, Equatable {
        /// Whether a gate was told anything of the text: only then the judgement counts on its shard.
        let readsText: Bool
        /// Parts of all models that gates could look back on.
        let parts: Int
    }

    /// A verdict that is about to be written.
    struct Receipt {
        /// With all signatures that the pact asks for.
        let document: VerdictDocument
        /// The model as ``VerdictDocument/version`` has it.
        let model: CatalogModel
        let basis: Basis
        /// Blocks that stand before the verdict is written, or in its record.
        var dependsOn: [Digest] = []
        /// Parts of the version that rests on the verdict, by name; nil = the model stays as it is.
        var parts: [String: Digest]?
        /// What the version's header says beside the model's name.
        var versionFacts: [String: JSONValue] = [:]
    }

    /// Blocks that follow one another on chain A.
    struct Written {
        let verdict: Block
        let version: Block?
        /// UTC milliseconds.
        let time: Int64
    }

    /// Makes blocks of a receipt and the version that rests on it, and has both appended as one record.
    ///
    /// - Parameter append: appends both, and whatever else belongs into the record.
    /// - Returns: Nil if it does not stand any more: what was judged is to be judged again.
    /// - Throws: What signing and `append` throw.
    func write(_ receipt: Receipt, append: (Written) throws -> Void) throws -> Written? {
        let store = host.store
        let key = try host.key()
        let document = receipt.document
        guard let policy = try currentPolicy()?.policy else { return nil }
        let payload = try DocumentBlock(
            "verdict", document.encoded, dependsOn: Self.basis(of: document),
            metadata: facts(of: receipt, secretNumber: policy.secretNumber), in: store)
        while true {
            let place = store.next(on: "A")
            // Whatever moves any of that takes the place on chain A, so that the record is refused there.
            guard try stands(document, receipt.basis) else { return nil }
            let now = host.clock()
            let verdict = try payload.block(
                at: place, dependsOn: receipt.dependsOn, with: key, now: now)
            var version: Block?
            if let parts = receipt.parts {
                let list = VersionDocument(
                    model: document.model, parts: parts, parent: document.version,
                    verdict: verdict.hash)
                version = try DocumentBlock(
                    "version", list.encoded(), dependsOn: [document.model],
                    metadata: receipt.versionFacts.merging(
                        ["model": .string(receipt.model.name)]) { own, _ in own }, in: store
                ).block(at: (place.index + 1, verdict.hash), with: key, now: now)
            }
            let written = Written(verdict: verdict, version: version, time: now)
            do { try append(written) } catch let error as KernelError where error.code == .rule {
                if store.next(on: "A").index > place.index { continue }
                // That the record is refused says nothing about what was judged.
                throw KernelError(.integrity, error.message, hint: error.hint)
            }
            lock.withLock { index.add(verdict) }
            forgetDraft()
            return written
        }
    }

    /// Whether whoever judges now would judge by the same: version, policy, text and what gates look back on.
    func stands(_ document: VerdictDocument, _ basis: Basis) throws -> Bool {
        guard let meta = try host.store.block(document.model),
            try ModelCatalog(host.store).model(meta).version?.hash == document.version,
            let (policyBlock, policy) = try currentPolicy(), policyBlock.hash == document.policy,
            try history(before: nil).parts.count == basis.parts
        else { return false }
        // Nothing was drawn for what could not stand.
        guard document.gates.first?.name != "intake" else { return true }
        let (known, revealed) = lock.withLock {
            (index.shards[document.block.hash], index.revealed[policy.secretNumber])
        }
        let shard = try activeShard(
            policy, but: document.isReview ? known ?? [] : [], used: judgements(on:))
        return shard?.header.payloadHash == document.draw?.shard
            && document.draw.map { $0.count == (revealed ?? 0) + 1 } ?? true
    }

    /// The blocks that every verdict rests on.
    static func basis(of document: VerdictDocument) -> [Digest] {
        [document.model, document.version, document.policy]
    }

    /// The block that a draft would be if it were written now, signed by this node: what an audit of it looks at.
    func block(of draft: DraftVerdict) throws -> Block {
        let document = draft.document
        guard let meta = try host.store.block(document.model),
            let policyBlock = try host.store.block(document.policy)
        else {
            throw KernelError(
                .notFound, "what verdict on \(document.block.hash) rests on is not here")
        }
        let policy = try policy(of: policyBlock)
        let receipt = Receipt(
            document: document, model: try ModelCatalog(host.store).model(meta),
            basis: draft.basis)
        let place = host.store.next(on: "A")
        var header = BlockHeader(
            chainID: "A", blockType: "verdict", index: place.index, previous: place.previous,
            timestamp: host.clock())
        header.dependsOn = Self.basis(of: document)
        header.metadata = facts(of: receipt, secretNumber: policy.secretNumber)
        return try Block(signing: header, with: host.key())
    }

    func facts(of receipt: Receipt, secretNumber: Int64) -> [String: JSONValue] {
        let document = receipt.document
        var facts: [String: JSONValue] = [
            "candidate": .string(document.block.hash.description),
            "outcome": .string(document.outcome), "reason": .string(document.reason),
            "author": .string(document.block.header.miner),
            "expert": .string(document.block.header.expertName),
            "model": .string(receipt.model.name),
        ]
        if document.isReview { facts["review"] = .bool(true) }
        if let router = document.router { facts["router"] = .string(router.hash.description) }
        if let draw = document.draw {
            if receipt.basis.readsText { facts["shard"] = .string(draw.shard.description) }
            facts["secret_number"] = .int(secretNumber)
            facts["secret_count"] = .int(Int64(draw.count))
        }
        return facts
    }
}
