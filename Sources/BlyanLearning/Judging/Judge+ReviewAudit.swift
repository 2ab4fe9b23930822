internal import BlyanJSON
internal import BlyanKernel
internal import BlyanModel
internal import Foundation

/// What is compared of a review beside what is of every verdict.
extension Judge {
    /// That it judged a version that had been accepted, with the router that had to be judged with it.
    func reviewDifferences(
        _ verdict: Block, _ document: VerdictDocument, _ model: CatalogModel
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
        return found
    }

    /// That the version block which follows a verdict has what was judged, or reverts what is worse, and nothing else.
    func versionDifferences(
        _ verdict: Block, _ document: VerdictDocument, _ model: CatalogModel, _ changes: [Change]
    ) throws -> [String] {
        // An acceptance, or a review that rejects.
        guard document.isReview != (document.outcome == "accept") else { return [] }
        let next = try host.store.blocks(.chain("A", from: verdict.header.index + 1), limit: 1)
        let wanted = VersionDocument(
            model: document.model,
            parts: document.isReview
                ? Self.parts(of: model, reverting: changes)
                : Self.parts(of: model, with: changes.map(\.block)),
            parent: document.version, verdict: verdict.hash)
        guard try next.first.flatMap({ try list(of: $0) }) != wanted else { return [] }
        return [
            document.isReview
                ? "the version is worse, and no version block reverts it and nothing else"
                : "no version block with what was accepted, and nothing else, follows the verdict"
        ]
    }

    /// What a version block lists; nil for another block.
    private func list(of version: Block) throws(KernelError) -> VersionDocument? {
        guard version.header.blockType == "version" else { return nil }
        let bytes = try host.store.document(version)
        return try? JSONDecoder().decode(VersionDocument.self, from: Data(bytes))
    }
}
