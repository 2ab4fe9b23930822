internal import BlyanJSON
package import BlyanKernel
internal import BlyanModel
internal import Foundation

/// Judging a version that stands again, on text that it never met.
extension Judge {
    /// What a review came to.
    package struct Review: Sendable {
        /// The version that was judged, and the one that it had replaced.
        package let version: Block, parent: Block
        /// The router that came with it and is still current: judged, and reverted, with it.
        package let router: Block?
        /// Whether it stays.
        ///
        /// Accept: it was not shown to be worse. Reject: it is worse, and reverted. Defer: nothing is known.
        package let outcome: Judgement.Outcome
        /// "gate/code", ``noFreshText``, or "" with accept.
        package let reason: String
        package let gates: [VerdictDocument.Gate]
        /// The verdict block; nil with defer.
        package let verdict: Block?
        /// The version block by which the parent is current again; nil unless it was rejected.
        package let reverted: Block?
        /// The block that takes back what had not vested, if anything had not.
        package let clawback: Block?

        /// The reason of a review that was deferred since there is no text left that the version never met.
        package static let noFreshText = "no-fresh-text"
    }

    /// Judges the current version of a part again, in the model as it stands, against the version that it replaced.
    ///
    /// The text is drawn from the first shard that is not used up and by which the version was never judged. If it is
    /// shown to be worse, verdict, the version block that reverts it and the clawback are one record. With defer nothing
    /// is written.
    ///
    /// - Throws: ``KernelError`` with code `rule` if it is not current, or was imported; `plugin` if the policy's last gate
    ///   does not judge versions again, or fails; `cancelled` on request; what reading model and text or appending throws.
    package func review(_ version: Block) throws -> Review {
        try takeTurn()
        defer { judging.unlock() }
        while true {
            let (policyBlock, policy) = try policyForJudging()
            guard let first = version.header.dependsOn.first,
                let meta = try host.store.block(first),
                meta.header.blockType == "meta"
            else {
                throw KernelError(
                    .rule, "block \(version.hash) depends on no model of this home")
            }
            let model = try ModelCatalog(host.store).model(meta)
            let router = try companion(of: version, in: model)
            let changes = try reverted(version, router, in: model)
            if let (reason, gates) = try deferral(of: version.hash, isReview: true) {
                return Review(
                    version: version, parent: changes[changes.count - 1].parent, router: router,
                    outcome: .defer, reason: reason, gates: gates, verdict: nil, reverted: nil,
                    clawback: nil)
            }
            let known = lock.withLock { index.shards[version.hash] ?? [] }
            let draw = try draw(version, model, policy, but: known)
            let received = host.clock()
            let history = try history(before: nil)
            var gates: [VerdictDocument.Gate] = []
            if let draw {
                gates = try run(
                    changes, model, policy, draw.draw, draw.shard, received: received,
                    history: history, isReview: true
                ).gates
            }
            var (outcome, reason) = Judgement.outcome(of: gates)
            if draw == nil { (outcome, reason) = (.defer, Review.noFreshText) }
            func deferred(_ reason: String) -> Review {
                Review(
                    version: version, parent: changes[changes.count - 1].parent, router: router,
                    outcome: .defer, reason: reason, gates: gates, verdict: nil, reverted: nil,
                    clawback: nil)
            }
            guard outcome != .defer, let draw, let base = model.version else {
                return deferred(reason)
            }
            var document = VerdictDocument(
                model: meta.hash, version: base.hash, policy: policyBlock.hash, block: version,
                router: router, received: received, draw: draw.draw, gates: gates,
                outcome: outcome.rawValue, reason: reason)
            document.isReview = true
            if let what = Self.difference(inReview: document) {
                throw KernelError(
                    .plugin, "nothing was written: \(what)",
                    hint: "let a gate that measures improvement be the last one of the policy")
            }
            let basis = Basis(readsText: true, parts: history.parts.count)
            if let reason = try sign(&document, basis) { return deferred(reason) }
            // Nil: what it was judged by is another by now, so that it is judged again if it is current still.
            if let made = try conclude(review: document, basis) { return made }
        }
    }

    /// Writes the verdict of a review, and if the version is worse the one that reverts it and what is taken back.
    ///
    /// - Parameter document: with all signatures.
    /// - Returns: Nil if what it was judged by is another by now.
    func conclude(review document: VerdictDocument, _ basis: Basis) throws -> Review? {
        let version = document.block
        guard let meta = try host.store.block(document.model) else { return nil }
        let model = try ModelCatalog(host.store).model(meta)
        guard model.version?.hash == document.version else { return nil }
        let changes = try reverted(version, document.router, in: model)
        var receipt = Receipt(
            document: document, model: model, basis: basis,
            dependsOn: changes.map(\.block.hash))
        if document.outcome == "reject" {
            receipt.parts = Self.parts(of: model, reverting: changes)
            receipt.versionFacts = [
                "rollback": .string(version.header.expertName),
                "from": .string(version.hash.description),
            ]
        }
        var clawback: Block?
        let written = try write(receipt) { written in
            guard let older = written.version else {
                return try host.store.append([written.verdict])
            }
            clawback = try host.revert(
                [written.verdict, older],
                RevertedVersion(block: version, verdict: written.verdict, time: written.time))
        }
        guard let written else { return nil }
        for block in [written.verdict, written.version, clawback] {
            if let block { host.onStored(block) }
        }
        return Review(
            version: version, parent: changes[changes.count - 1].parent,
            router: document.router, outcome: document.outcome == "accept" ? .accept : .reject,
            reason: document.reason, gates: document.gates, verdict: written.verdict,
            reverted: written.version, clawback: clawback)
    }

    /// The router that a version brought, if it is current still: what one review judges and reverts together.
    func companion(of version: Block, in model: CatalogModel) throws -> Block? {
        guard let verdict = verdict(of: version.hash) else { return nil }
        let router = try VerdictDocument(parsing: host.store.document(verdict)).router
        guard let router, router.hash != version.hash,
            model.parts[router.header.expertName] == router.hash
        else { return nil }
        return router
    }

    /// What a review compares, and takes back if it is worse: a router before the version that brought it.
    ///
    /// - Parameter model: the model as it was judged, which has the version.
    func reverted(_ version: Block, _ router: Block?, in model: CatalogModel) throws -> [Change] {
        let name = version.header.expertName
        guard model.parts[name] == version.hash else {
            throw KernelError(
                .rule,
                "block \(version.hash) is not the current version of \(name), which is \(model.parts[name]?.description.prefix(12) ?? "none"): only the current one is judged again",
                hint: "`blyan expert show \(name)` lists the versions")
        }
        let accepted = verdict(of: version.hash)?.header.metadata
        guard let accepted, accepted["outcome"] == .string("accept") else {
            throw KernelError(
                .rule,
                "block \(version.hash) is the first version of \(name): there is none that it could be worse than"
            )
        }
        guard accepted["candidate"] == .string(version.hash.description) else {
            let expert = accepted["expert"]?.string ?? ""
            throw KernelError(
                .rule,
                "block \(version.hash) of \(name) came with \(expert), and is judged with it",
                hint: "`blyan expert review \(expert)`")
        }
        return try [router, version].compactMap { block in
            guard let block else { return nil }
            guard let previous = block.header.previous, let parent = try host.store.block(previous)
            else {
                throw KernelError(
                    .notFound, "the version that block \(block.hash) replaced is not here")
            }
            return Change(block: block, parent: parent)
        }
    }

    /// The parts of a model that goes back.
    static func parts(of model: CatalogModel, reverting changes: [Change]) -> [String: Digest] {
        changes.reduce(into: model.parts) { $0[$1.block.header.expertName] = $1.parent.hash }
    }

    /// Where a review's outcome does not follow from what its gate measured, or nil.
    static func difference(inReview document: VerdictDocument) -> String? {
        let gate = document.gates.last
        let answer = [gate?.outcome ?? "nothing", gate?.reason ?? ""].filter { !$0.isEmpty }
            .joined(separator: " ")
        guard let upper = gate?.evidence["upper_ppb"]?.int else {
            return
                "the gate \(gate?.name ?? "") says \(answer) of a version that was judged again, and gives no upper bound of what it gains"
        }
        guard (document.outcome == "reject") != (upper < 0) else { return nil }
        return
            "the gate \(gate?.name ?? "") says \(answer) of a version that was judged again, whose gain has the upper bound \(upper) billionths: it is worse if that is below 0"
    }
}
