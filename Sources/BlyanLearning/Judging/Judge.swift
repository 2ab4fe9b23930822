internal import BlyanJSON
package import BlyanKernel
internal import BlyanModel
internal import Foundation

// Unchecked: `lock` guards the mutable state, `judging` is held for a judgement, `adding` while a shard is committed,
// `taking` while a candidate is taken: of these `lock` alone is taken inside it.
/// Takes candidates for better experts, has the gates judge them, and writes what came of it.
///
/// A candidate is a signed block of chain B that stands nowhere yet: its hash is committed before any text is drawn, and
/// if it is accepted it is appended as it is, together with the verdict and the version that makes it current: one
/// record, so that after a crash all of it is there or nothing. Any thread; judgements are made one at a time.
package final class Judge: @unchecked Sendable {
    let host: Host
    package let candidates: CandidateStore
    let lock = NSLock()
    let judging = NSLock()
    let adding = NSLock()
    let taking = NSLock()
    var index: VerdictIndex
    var shards: [Digest: PoolShard] = [:]
    /// Losses by the router that was used last.
    var losses: (router: LoadedPlugin?, known: LossCache) = (nil, LossCache())
    /// By candidate, what a gate, the reward policy or writing the verdict failed with last.
    var faults: [Digest: String] = [:]

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
                isRejected: verdict.header.metadata["outcome"]?.string == "reject")
        }
    }

    /// The verdict block of a candidate, or nil while it was not judged.
    package func verdict(of candidate: Digest) -> Block? {
        lock.withLock { index.verdicts[candidate] }
    }

    /// Deletes payloads of rejected candidates beyond the budget of bytes and age.
    package func prune() {
        candidates.prune(host.clock()) { payload in try? host.store.remove(payload: payload) }
    }

    // MARK: Judging

    /// Candidates that are judged although nobody asks for it, in their order.
    package var due: [CandidateStore.Entry] { candidates.queue.filter(isDue) }

    /// Whether a candidate that waits is judged although nobody asks for it: not if a library that would be asked about it
    /// now has ended the node again and again when it was.
    package func isDue(_ entry: CandidateStore.Entry) -> Bool {
        let last = entry.deaths.filter(\.isFinal)
        // Gates that cannot be loaded are told to whoever judges.
        guard !last.isEmpty, let gates = try? host.plugins().gates() else { return true }
        let libraries = gates.map(\.sha256) + (host.payer().map { [$0.library] } ?? [])
        return !last.contains { libraries.contains($0.plugin.library) }
    }

    /// Why a candidate that waits has no verdict yet: what failed last in this process, or which plugin ended the one
    /// before; nil if nothing is known.
    package func fault(of entry: CandidateStore.Entry) -> String? {
        let candidate = entry.block.hash
        return lock.withLock { faults[candidate] }
            ?? entry.deaths.last.map { $0.message(candidate) }
    }

    /// Judges the candidate that is due first.
    ///
    /// - Returns: What came of it, or nil if none is due.
    /// - Throws: As ``judge(_:)``.
    package func judgeNext() throws -> Judgement? {
        guard let first = due.first else { return nil }
        return try judge(first.block.hash)
    }

    /// Judges a candidate that waits, due or not, and writes the outcome; with defer it waits on.
    ///
    /// One that was judged meanwhile keeps its verdict.
    /// - Parameter isAnew: also if its verdict, or another one, awaits other validators' signatures: that draft is
    ///   forgotten, and whom it was about waits again.
    /// - Throws: ``KernelError`` naming the gate, or the reward policy, that failed: a fault, after which the candidate waits
    ///   on; with code `cancelled` on request; what reading model and text or appending throws.
    package func judge(_ candidate: Digest, isAnew: Bool = false) throws -> Judgement {
        try takeTurn()
        defer { judging.unlock() }
        guard let entry = candidates.queue.first(where: { $0.block.hash == candidate }) else {
            // Somebody else had it judged while this call waited for its turn.
            if let made = try judgement(of: candidate) { return made }
            throw KernelError(.notFound, "no candidate \(candidate) waits for a verdict")
        }
        if isAnew { forgetDraft() }
        if let (reason, gates) = try deferral(of: candidate, isReview: false) {
            return Judgement(
                candidate: entry.block, outcome: .defer, reason: reason, gates: gates,
                verdict: nil, version: nil)
        }
        let result = Result { try judge(entry) }
        host.onJudged(entry.block, result)
        return try result.get()
    }

    private func judge(_ entry: CandidateStore.Entry) throws -> Judgement {
        while true {
            let (policyBlock, policy) = try policyForJudging()
            let history = try history(before: nil)
            let made: Judgement?
            do {
                let (model, changes) = try place(entry.block, entry.router)
                let draw = try draw(entry.block, model, policy)
                let (gates, readsText) = try run(
                    changes, model, policy, draw?.draw, draw?.shard, received: entry.received,
                    history: history)
                made = try finish(
                    entry, model, policyBlock, draw?.draw, gates,
                    Basis(readsText: readsText, parts: history.parts.count))
            } catch let error as KernelError where error.code == .rule {
                // While it waited another one was accepted in its place.
                made = try finish(
                    entry, nil, policyBlock, nil, [.replaced(error)],
                    Basis(readsText: false, parts: history.parts.count))
            }
            // Nil: what it was judged by is another by now, so that it is judged again.
            if let made { return made }
        }
    }

    /// What a verdict that is on chain came to; nil if there is none.
    private func judgement(of candidate: Digest) throws -> Judgement? {
        guard let verdict = verdict(of: candidate) else { return nil }
        let document = try VerdictDocument(parsing: host.store.document(verdict))
        let version = try host.store.blocks(.chain("A", from: verdict.header.index + 1), limit: 1)
        return Judgement(
            candidate: document.block, outcome: document.outcome == "accept" ? .accept : .reject,
            reason: document.reason, gates: document.gates, verdict: verdict,
            version: document.outcome == "accept" ? version.first : nil)
    }

    /// Whether a judgement is under way, which whoever asks for another one waits for.
    package var isBusy: Bool {
        guard judging.try() else { return true }
        judging.unlock()
        return false
    }

    /// Takes `judging`, which whoever returns from a judgement gives back.
    ///
    /// Another judgement may take an hour: whoever waits for it can be told to stop.
    func takeTurn() throws { try judging.lockUnlessStopped() }

    /// Asks the gates in order until one does not accept; each about the router first, where one goes with the candidate.
    ///
    /// In a review the last gate alone is asked, which decides: others would meet what the version itself left behind.
    /// - Parameters:
    ///   - isReview: the model has the blocks of the changes already.
    ///   - isAudit: nothing waits for the answers, and every loss is one of the reference path, also where a gate asks for
    ///     the fast one.
    /// - Returns: What they said, and whether one of them was told anything of the text.
    func run(
        _ changes: [Change], _ model: CatalogModel, _ policy: JudgingPolicy,
        _ draw: VerdictDocument.Draw?, _ shard: PoolShard?, received: Int64,
        history: JudgingHistory, isReview: Bool = false, isAudit: Bool = false
    ) throws -> (gates: [VerdictDocument.Gate], readsText: Bool) {
        let router = try router(policy)
        let loaded = try host.model(model, router)
        let evaluator = shard.flatMap { shard in
            draw.map { draw in
                Evaluator(
                    model: loaded, blocks: changes.map(\.block),
                    parents: isReview ? changes.map(\.parent) : nil, shard: shard,
                    seed: draw.seed, threads: host.threads, cache: losses(by: router),
                    library: isAudit ? nil : GemmLibrary.openBLAS())
            }
        }
        let subjects = try changes.map { change in
            try JudgedSubject(
                candidate: .init(loaded.open(change.block)),
                parent: .init(loaded.open(change.parent)), evaluator: evaluator, history: history,
                open: { try .init(loaded.open($0)) })
        }
        let candidate = changes[changes.count - 1].block
        var answers: [VerdictDocument.Gate] = []
        for plugin in try gates(policy).suffix(isReview ? 1 : .max) {
            for (change, subject) in zip(changes, subjects) {
                try Cancellation.check()
                let isCandidate = change.block.hash == candidate.hash
                var context: [String: JSONValue] = [
                    "author": .string(candidate.header.miner),
                    "candidate": .string(candidate.hash.description),
                    "expert": .string(change.block.header.expertName),
                    "model": .string(model.meta.hash.description),
                    "parent": .string(change.parent.hash.description),
                    "received": .int(received), "seed": .string(draw?.seed.description ?? ""),
                ]
                if !isCandidate { context["with"] = .string(candidate.header.expertName) }
                if isReview { context["review"] = .bool(true) }
                let answer = try ask(
                    plugin, subject, change.block, .object(context),
                    waiting: isAudit || isReview ? nil : candidate.hash)
                answers.append(
                    VerdictDocument.Gate(
                        part: isCandidate ? "" : change.block.header.expertName,
                        name: plugin.manifest.name, version: plugin.manifest.version,
                        outcome: answer.outcome.rawValue, reason: answer.reason,
                        evidence: answer.evidence))
                guard answer.outcome == .accept else {
                    return (answers, evaluator?.isAsked == true)
                }
            }
        }
        return (answers, evaluator?.isAsked == true)
    }

    /// Asks a gate.
    ///
    /// - Parameter candidate: the one that waits for the answer.
    private func ask(
        _ plugin: LoadedPlugin, _ subject: JudgedSubject, _ block: Block, _ context: JSONValue,
        waiting candidate: Digest?
    ) throws -> GatePlugin.Answer {
        guard let header = try? JSONValue(parsing: block.header.canonical()) else {
            throw KernelError(.malformed, "the header of candidate \(block.hash) is no JSON")
        }
        func answer() throws(KernelError) -> GatePlugin.Answer {
            try GatePlugin(plugin).judge(subject, header: header, context: context)
        }
        if let candidate { return try asking(plugin, about: candidate, answer) }
        do throws(KernelError) { return try answer() } catch {
            try Cancellation.check()
            throw Self.fault(error, of: plugin, "nothing was written")
        }
    }

    /// What stood on the chain before a verdict; before the next one, with nil.
    func history(before verdict: Block?) throws(KernelError) -> JudgingHistory {
        lock.lock()
        defer { lock.unlock() }
        try index.catchUp(host.store)
        return index.history(before: verdict?.header.index ?? .max, host.store)
    }

    /// The gates that a policy names, as they are loaded here.
    private func gates(_ policy: JudgingPolicy) throws -> [LoadedPlugin] {
        let loaded = try host.plugins().gates().map { ($0, try JudgingPolicy.plugin($0)) }
        return try policy.gates.map { wanted in
            let named = loaded.filter { $0.1.name == wanted.name }
            if let found = named.first(where: { $0.1.isSame(as: wanted) }) { return found.0 }
            let manifest = host.plugins().node.path
            guard let (_, other) = named.first else {
                throw KernelError(
                    .config,
                    "the policy judges by \(wanted.name) \(wanted.version), which \(manifest) does not list as a gate",
                    hint:
                        "list it there, or in another manifest that `--manifest` names, with its own manifest and library in this home's plugins; or make the gates that are listed the policy with `blyan plugin reload`"
                )
            }
            throw KernelError(
                .config,
                "the policy judges by \(wanted.name) \(wanted.version)\(other.version == wanted.version ? " with another configuration than this node's" : ", and this node has \(other.version)")",
                hint:
                    "configure it as the policy block says: \(String(decoding: wanted.config.canonical(), as: UTF8.self)); or make the gates of \(manifest) the policy with `blyan plugin reload`"
            )
        }
    }

    /// Makes and signs the verdict, and writes it if that signature is enough.
    ///
    /// - Parameter judged: the model that it was compared with; nil if it was not compared with any.
    /// - Returns: Nil if the model is another one by now.
    private func finish(
        _ entry: CandidateStore.Entry, _ judged: CatalogModel?, _ policyBlock: Block,
        _ draw: VerdictDocument.Draw?, _ gates: [VerdictDocument.Gate], _ basis: Basis
    ) throws -> Judgement? {
        let block = entry.block
        func deferred(_ reason: String) -> Judgement {
            Judgement(
                candidate: block, outcome: .defer, reason: reason, gates: gates, verdict: nil,
                version: nil)
        }
        let (outcome, reason) = Judgement.outcome(of: gates)
        guard outcome != .defer else { return deferred(reason) }
        let model = try model(of: block)
        guard let base = model.version else {
            throw KernelError(.integrity, "the model \(model.name) is incomplete")
        }
        if let judged, judged.version?.hash != base.hash { return nil }
        var document = VerdictDocument(
            model: model.meta.hash, version: base.hash, policy: policyBlock.hash, block: block,
            router: entry.router, received: entry.received, draw: draw, gates: gates,
            outcome: outcome.rawValue, reason: reason)
        if let reason = try sign(&document, basis) { return deferred(reason) }
        return try conclude(document, basis)
    }

    /// The parts of a model that takes blocks in.
    static func parts(of model: CatalogModel, with blocks: [Block]) -> [String: Digest] {
        blocks.reduce(into: model.parts) { $0[$1.header.expertName] = $1.hash }
    }

    private func model(of block: Block) throws -> CatalogModel {
        guard let hash = block.header.dependsOn.first, let meta = try host.store.block(hash) else {
            throw KernelError(.notFound, "the model of candidate \(block.hash) is gone")
        }
        return try ModelCatalog(host.store).model(meta)
    }

    /// Writes verdict, and with accept the candidate and the version that it makes, as one record.
    ///
    /// - Parameter document: with all signatures.
    /// - Returns: Nil if what it was judged by is another by now.
    func conclude(_ document: VerdictDocument, _ basis: Basis) throws -> Judgement? {
        try writing(document.block.hash) { try record(document, basis) }
    }

    private func record(_ document: VerdictDocument, _ basis: Basis) throws -> Judgement? {
        let block = document.block
        // What was signed, and not what lies in a file.
        let blocks = (document.router.map { [$0] } ?? []) + [block]
        let isAccepted = document.outcome == "accept"
        // Whatever is written on chain A first is written before this record takes its place there.
        if isAccepted { try host.prepare(block.hash) }
        let model = try model(of: block)
        var receipt = Receipt(document: document, model: model, basis: basis)
        if isAccepted {
            receipt.dependsOn = blocks.map(\.hash)
            receipt.parts = Self.parts(of: model, with: blocks)
        }
        let written = try write(receipt) { written in
            guard let version = written.version else {
                return try host.store.append([written.verdict])
            }
            try host.append(
                blocks + [written.verdict, version],
                AcceptedCandidate(
                    block: block, verdict: written.verdict, document: document,
                    time: written.time))
        }
        guard let written else { return nil }
        candidates.end(block.hash, isRejected: !isAccepted)
        prune()
        lock.withLock { faults[block.hash] = nil }
        for block in isAccepted ? blocks : [] { host.onStored(block) }
        for block in [written.verdict] + (written.version.map { [$0] } ?? []) {
            host.onStored(block)
        }
        return Judgement(
            candidate: block, outcome: isAccepted ? .accept : .reject, reason: document.reason,
            gates: document.gates, verdict: written.verdict, version: written.version)
    }
}
