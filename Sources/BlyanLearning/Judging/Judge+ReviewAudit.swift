internal import BlyanJSON
internal import BlyanKernel
internal import BlyanModel
internal import Foundation

/// What is compared of a review beside what is of every verdict.
extension Judge {
    /// That it judged a version that had been accepted, with the router that had to be judged with it, and that what
    /// follows on chain A is what had to follow.
    func reviewDifferences(
        _ verdict: Block, _ document: VerdictDocument, _ model: CatalogModel, _ changes: [Change],
        isDraft: Bool
    ) throws -> [String] {
        var found: [String] = []
        let version = document.block
        if let accepted = self.verdict(of: version.hash),
            accepted.header.index >= verdict.header.index
        {
            found.append("the version was judged again before it was accepted")
        }
        if document.draw == nil { found.append("the version was judged again without text") }
        let router = try companion(of: version, in: model)
        if router?.hash != document.router?.hash {
            found.append(
                "the review has the router \(document.router?.hash.description ?? "none"), judged with the version is \(router?.hash.description ?? "none")"
            )
        }
        if let what = Self.difference(inReview: document) { found.append(what) }
        guard document.outcome == "reject", !isDraft else { return found }
        var next: Block?
        try host.store.scan(.chain("A", from: verdict.header.index + 1)) {
            block throws(KernelError) in
            next = block
            return false
        }
        let wanted = VersionDocument(
            model: document.model, parts: Self.parts(of: model, reverting: changes),
            parent: document.version, verdict: verdict.hash)
        if try next.flatMap({ try list(of: $0) }) != wanted {
            found.append("the version is worse, and no version block reverts it and nothing else")
        }
        return found
    }

    /// What a version block lists; nil for another block.
    private func list(of version: Block) throws(KernelError) -> VersionDocument? {
        guard version.header.blockType == "version" else { return nil }
        let bytes = try host.store.document(version)
        return try? JSONDecoder().decode(VersionDocument.self, from: Data(bytes))
    }
}
