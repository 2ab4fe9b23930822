internal import BlyanJSON
package import BlyanKernel
internal import BlyanModel
internal import Foundation

/// Taking candidates: all that costs little is checked before one is queued.
extension Judge {
    /// Takes a candidate: checks all that costs little, and makes it durable.
    ///
    /// - Parameters:
    ///   - block: signed and stamped by its author; its payload is among the home's payloads.
    ///   - router: the new version of its layer's router that goes with it, by the same author; `block` depends on it.
    /// - Throws: ``KernelError`` or ``ModelError`` saying what is wrong with it, and what to do.
    package func submit(_ block: Block, router: Block? = nil) throws {
        let hash = block.hash
        try checkIsNew(block, router)
        let policy = try currentPolicy()
        for block in [block] + (router.map { [$0] } ?? []) where !block.isSignatureValid {
            throw KernelError(
                .integrity,
                "candidate \(block.hash) is not signed by the key that it claims, \(block.header.miner)"
            )
        }
        let bits = policy?.policy.stampBits ?? 0
        guard block.header.difficulty >= bits,
            Stamp.isValid(hash, difficulty: block.header.difficulty)
        else {
            throw KernelError(
                .rule,
                "candidate \(hash) has a stamp of \(block.header.difficulty) bits, or claims one that it has not; this network asks for \(bits)"
            )
        }
        let now = host.clock()
        guard block.header.timestamp <= now + Self.clockTolerance else {
            throw KernelError(.rule, "candidate \(hash) is of a time that is yet to come")
        }
        try candidates.holdingPayloads {
            for change in try place(block, router).changes { try checkPayload(change.block) }
            // One at a time: of two that ask before either waits, both would have the author's last upload.
            try taking.withLock {
                try checkIsNew(block, router)
                try host.admit(block.header.miner)
                try candidates.add(block, router: router, received: now)
            }
        }
    }

    /// Deletes the payloads of blocks that were refused, unless a block or a candidate has them.
    package func discard(_ blocks: [Block]) {
        candidates.discard(blocks) { payload in try? host.store.remove(payload: payload) }
    }

    /// That neither a candidate nor the same work waits, and that it was not judged.
    private func checkIsNew(_ block: Block, _ router: Block?) throws {
        let hash = block.hash
        let work = Self.work(block, router)
        if let waiting = candidates.queue.first(where: {
            Self.work($0.block, $0.router) == work
        }) {
            throw KernelError(
                .rule,
                waiting.block.hash == hash
                    ? "candidate \(hash) waits for its verdict already"
                    : "the same work waits for its verdict already, as candidate \(waiting.block.hash)",
                hint:
                    "`blyan candidate list` shows it, `blyan candidate judge \(waiting.block.hash.description.prefix(16))` has it judged"
            )
        }
        // Its verdict is known before its wait ends, so that it is found here if it is there no more.
        if let known = verdict(of: hash) {
            throw KernelError(
                .rule,
                "candidate \(hash) was judged already: \(known.header.metadata["outcome"]?.string ?? ""), verdict block \(known.hash)"
            )
        }
    }

    /// What a candidate would do, whoever signed it and when: the versions that it replaces and the bytes that it brings, its own
    /// and its router's.
    private static func work(_ block: Block, _ router: Block?) -> [Digest?] {
        [
            block.header.previous, block.header.payloadHash, router?.header.previous,
            router?.header.payloadHash,
        ]
    }

    /// A block, and the one that it replaces.
    struct Change {
        let block: Block
        let parent: Block
    }

    /// What a candidate would change, a router before the expert that it goes with.
    func place(_ block: Block, _ router: Block?) throws -> (
        model: CatalogModel, changes: [Change]
    ) {
        let header = block.header
        guard header.chainID == "B", header.blockType == "parameters",
            let first = header.dependsOn.first, let meta = try host.store.block(first),
            meta.header.blockType == "meta"
        else {
            throw KernelError(
                .rule,
                "candidate \(block.hash) is no parameters block of chain B, or depends on no model of this home"
            )
        }
        let model = try ModelCatalog(host.store).model(meta)
        return (model, try place(block, router, in: model))
    }

    /// As ``place(_:_:)``, in a version of the model that may not be current any more.
    func place(_ block: Block, _ router: Block?, in model: CatalogModel) throws -> [Change] {
        let header = block.header
        guard let router else { return [try change(block, of: model, after: nil)] }
        let layer = header.expertName.prefix { $0 != "." }
        guard router.header.expertName == "\(layer).router", router.header.miner == header.miner
        else {
            throw KernelError(
                .rule,
                "candidate \(block.hash) brings \(router.header.expertName) by \(router.header.miner.prefix(12)): what may go with \(header.expertName) is \(layer).router by the same author"
            )
        }
        return [
            try change(router, of: model, after: nil), try change(block, of: model, after: router),
        ]
    }

    /// That a block stands where it claims: what it replaces is current.
    private func change(_ block: Block, of model: CatalogModel, after other: Block?) throws
        -> Change
    {
        let header = block.header
        func broken(_ what: String) -> KernelError {
            KernelError(.rule, "candidate \(block.hash) \(what)")
        }
        guard header.chainID == "B", header.blockType == "parameters" else {
            throw broken("is no parameters block of chain B")
        }
        guard model.isComplete, let current = model.parts[header.expertName] else {
            throw broken(
                "is for \(header.expertName), which the model \(model.name) \(model.isComplete ? "has not" : "lacks: it is incomplete")"
            )
        }
        guard VerdictIndex.isReplaceable(header.expertName) else {
            throw broken("is for \(header.expertName): experts and routers can be replaced")
        }
        guard header.previous == current, let parent = try host.store.block(current) else {
            throw KernelError(
                .rule,
                "candidate \(block.hash) replaces \(header.previous?.description.prefix(12) ?? "nothing") of \(header.expertName), and the current version is \(current.description.prefix(12)): somebody was faster",
                hint: Self.rebasing(header.expertName))
        }
        let others = other.map { [$0] } ?? []
        let index = max(parent.header.index, other?.header.index ?? 0) + 1
        guard header.dependsOn == [model.meta.hash, current] + others.map(\.hash),
            header.index == index
        else {
            throw broken(
                "does not stand where it claims: it depends on its model, the version that it replaces and the router that goes with it, and has the index \(index)"
            )
        }
        guard let old = SemanticVersion(parent.header.version),
            let new = SemanticVersion(header.version), old < new
        else {
            throw broken(
                "has the version \(header.version), expected one above \(parent.header.version)")
        }
        return Change(block: block, parent: parent)
    }

    /// How the author of a version goes on whose parent was replaced.
    static func rebasing(_ part: String) -> String {
        "train from the current version: export it again with `blyan expert export \(part)`, or mine again: it begins from the current version"
    }

    private func checkPayload(_ block: Block) throws {
        let header = block.header
        guard let hash = header.payloadHash,
            host.store.payloads.contains(hash, size: UInt64(clamping: header.payloadSize)),
            try host.store.payloads.fileHash(host.store.payloads.path(of: hash)) == hash
        else {
            throw KernelError(
                .integrity, "the payload of candidate \(block.hash) is not here, or damaged")
        }
        let payload = try host.store.map(block, mode: .always)
        try payload.verifyAll(threads: 1)
        _ = try host.plugins().format(for: header.payloadType)
    }
}
