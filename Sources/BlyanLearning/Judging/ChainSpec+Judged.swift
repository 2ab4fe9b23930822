internal import BlyanJSON
package import BlyanKernel

extension ChainSpec {
    /// Chain A where the parts of a model become others by verdicts alone, and by going back.
    ///
    /// What a verdict says is not judged again here: that is what an audit does.
    package static let judged = ChainSpec(
        id: a.id, shape: a.shape, blockTypes: a.blockTypes,
        rules: a.rules + [VersionRule.partsWereAccepted])
}

/// How a version block may differ from the one before it.
private enum VersionRule {
    /// It follows the newest version of its model, and what it changes is either what an accepting verdict on that version
    /// names, signed as the pact asks, or a block that was current before.
    static let partsWereAccepted: ChainSpec.Rule = { (block, view) throws(KernelError) in
        guard block.header.blockType == "version" else { return }
        let document = try view.document(block)
        guard let model = digest(document["model"]), case .object(let parts)? = document["parts"]
        else { throw broken(block, "lists no parts of a model") }
        let parent = try newest(of: model, before: block, view)
        guard digest(document["parent"]) == parent?.hash else {
            throw broken(
                block,
                "follows version \(document["parent"]?.string ?? ""), the newest of its model is \(parent?.hash.description ?? "none")"
            )
        }
        guard let parent else { return }
        let before = try view.document(parent)["parts"]
        var changed = parts.filter { before?[$0.key] != $0.value }
        guard !changed.isEmpty else { return }
        let accepted = try accepted(by: digest(document["verdict"]), on: parent.hash, view)
        changed = changed.filter { part in
            !accepted.contains { $0.description == part.value.string }
        }
        var older: Block? = parent
        while !changed.isEmpty, let version = older {
            let list = try view.document(version)
            changed = changed.filter { list["parts"]?[$0.key] != $0.value }
            older = try digest(list["parent"]).flatMap { hash throws(KernelError) in
                try view.block(hash)
            }
        }
        if let part = changed.keys.min() {
            throw broken(
                block,
                "makes block \(changed[part]?.string ?? "") current for \(part), which its verdict does not accept and which was not current before"
            )
        }
    }

    private static func broken(_ block: Block, _ what: String) -> KernelError {
        KernelError(.rule, "version block \(block.hash) \(what)")
    }

    private static func digest(_ value: JSONValue?) -> Digest? {
        value?.string.flatMap { Digest(hex: $0) }
    }

    /// The last version block of a model that comes before a block of chain A.
    private static func newest(of model: Digest, before block: Block, _ view: any ChainView)
        throws(KernelError) -> Block?
    {
        var previous = block.header.previous
        while let hash = previous, hash != model, let other = try view.block(hash) {
            if other.header.blockType == "version", other.header.dependsOn.contains(model) {
                return other
            }
            previous = other.header.previous
        }
        return nil
    }

    /// What a verdict makes current: nothing, if it does not accept, or was not given on this version.
    private static func accepted(by verdict: Digest?, on parent: Digest, _ view: any ChainView)
        throws(KernelError) -> [Digest]
    {
        guard let verdict, let block = try view.block(verdict),
            block.header.metadata["outcome"]?.string == "accept", !VerdictIndex.isReview(block)
        else { return [] }
        let document = try VerdictDocument(parsing: view.document(block).canonical())
        guard document.outcome == "accept", !document.isReview, document.version == parent,
            try Quorum(view).isReached(by: document)
        else { return [] }
        return [document.block.hash] + (document.router.map { [$0.hash] } ?? [])
    }
}
