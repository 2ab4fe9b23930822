internal import BlyanJSON
package import BlyanKernel
internal import BlyanModel
internal import Foundation

/// Taking candidates: all that costs little is checked before one is queued.
extension Judge {
    /// Takes a candidate: checks all that costs little, and makes it durable.
    ///
    /// - Parameter block: signed and stamped by its author; its payload is among the home's payloads.
    /// - Throws: ``KernelError`` or ``ModelError`` saying what is wrong with it, and what to do.
    package func submit(_ block: Block) throws {
        let hash = block.hash
        if let known = verdict(of: hash) {
            throw KernelError(
                .rule,
                "candidate \(hash) was judged already: \(known.header.metadata["outcome"]?.string ?? ""), verdict block \(known.hash)"
            )
        }
        guard !candidates.queue.contains(where: { $0.block.hash == hash }) else {
            throw KernelError(.rule, "candidate \(hash) waits for its verdict already")
        }
        let policy = try currentPolicy()
        guard block.isSignatureValid else {
            throw KernelError(
                .integrity,
                "candidate \(hash) is not signed by the key that it claims, \(block.header.miner)")
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
        guard block.header.timestamp <= now + 600_000 else {
            throw KernelError(.rule, "candidate \(hash) is of a time that is yet to come")
        }
        _ = try place(block)
        try checkPayload(block)
        try host.admit(block.header.miner)
        try candidates.add(block, received: now)
    }

    /// Where a candidate would stand: its model, and the block that it replaces.
    func place(_ block: Block) throws -> (model: CatalogModel, parent: Block) {
        let header = block.header
        func broken(_ what: String) -> KernelError {
            KernelError(.rule, "candidate \(block.hash) \(what)")
        }
        guard header.chainID == "B", header.blockType == "parameters" else {
            throw broken("is no parameters block of chain B")
        }
        guard let first = header.dependsOn.first, let meta = try host.store.block(first),
            meta.header.blockType == "meta"
        else { throw broken("depends on no model of this home") }
        let model = try ModelCatalog(host.store).model(meta)
        guard model.isComplete, let current = model.parts[header.expertName] else {
            throw broken(
                "is for \(header.expertName), which the model \(model.name) \(model.isComplete ? "has not" : "lacks: it is incomplete")"
            )
        }
        guard
            header.expertName.contains(".expert") || header.expertName.hasSuffix(".router")
                || header.expertName.hasSuffix(".shared")
        else { throw broken("is for \(header.expertName): experts and routers can be replaced") }
        guard header.previous == current, let parent = try host.store.block(current) else {
            throw KernelError(
                .rule,
                "candidate \(block.hash) replaces \(header.previous?.description.prefix(12) ?? "nothing") of \(header.expertName), and the current version is \(current.description.prefix(12)): somebody was faster",
                hint:
                    "train from the current version: export it again with `blyan expert export \(header.expertName)`, or run `blyan mine` anew"
            )
        }
        guard header.dependsOn == [meta.hash, current], header.index == parent.header.index + 1
        else {
            throw broken(
                "does not stand where it claims: it depends on its model and the version that it replaces, and has the index \(parent.header.index + 1)"
            )
        }
        guard let old = SemanticVersion(parent.header.version),
            let new = SemanticVersion(header.version), old < new
        else {
            throw broken(
                "has the version \(header.version), expected one above \(parent.header.version)")
        }
        return (model, parent)
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
