internal import BlyanJSON
internal import BlyanKernel
internal import BlyanModel
internal import Foundation

/// Verdicts that more than one validator has to sign.
///
/// The node that judges keeps the verdict as a draft. Other validators judge again in copies of its home and sign if they
/// agree; once there are as many signatures as the pact asks for, the record is written. Meanwhile nothing else is judged:
/// whoever signs learns which secret the draft reveals.
extension Judge {
    /// What signatures came to.
    package enum Endorsement: Sendable {
        /// There are not enough.
        case awaits(reason: String)
        case judged(Judgement)
        case reviewed(Review)
    }

    /// The verdict that awaits signatures; nil if there is none that can be written still.
    package func draft() throws -> VerdictDocument? { try currentDraft()?.document }

    /// The reason of a deferral while another verdict awaits signatures.
    static let awaitsAnother = "signatures/another-verdict"

    var draftPath: String { candidates.draftPath }

    /// The draft, unless the chain has moved on since: then what it was about is judged again.
    func currentDraft() throws -> DraftVerdict? {
        guard let draft = DraftVerdict(path: draftPath) else { return nil }
        let document = draft.document
        let waits = candidates.queue.contains {
            $0.block.hash == document.block.hash && $0.router?.hash == document.router?.hash
        }
        guard waits || document.isReview, try stands(document, draft.basis) else { return nil }
        return draft
    }

    func forgetDraft() { unsafe unlink(draftPath) }

    /// Signs a verdict, and keeps it as a draft if that is not enough.
    ///
    /// - Returns: The reason of the deferral; nil if it can be written.
    func sign(_ document: inout VerdictDocument, _ basis: Basis) throws -> String? {
        try document.sign(host.key(), genesis: host.store.genesis ?? .zero)
        return try hold(DraftVerdict(document: document, basis: basis))
    }

    /// Keeps a draft as long as it lacks signatures; says how many there are.
    private func hold(_ draft: DraftVerdict) throws -> String? {
        guard let reason = try shortage(of: draft.document) else { return nil }
        try candidates.makeFolder()
        try draft.write(to: draftPath)
        return reason
    }

    /// How many signatures there are, of how many; nil if that is enough.
    private func shortage(of document: VerdictDocument) throws(KernelError) -> String? {
        let quorum = try Quorum(host.store)
        let found = try quorum.signers(of: document).count
        return found < quorum.threshold ? "signatures/\(found)-of-\(quorum.threshold)" : nil
    }

    /// What the draft comes to for whoever asks about a block: nil if there is none, else a reason to wait.
    func deferral(of block: Digest, isReview: Bool) throws -> (
        reason: String, gates: [VerdictDocument.Gate]
    )? {
        guard let draft = try currentDraft() else { return nil }
        let document = draft.document
        guard document.block.hash == block, document.isReview == isReview else {
            return (Self.awaitsAnother, [])
        }
        return try shortage(of: document).map { ($0, document.gates) }
    }

    /// Judges the draft again in a copy of the home that made it, and signs it with this node's key if everything agrees.
    ///
    /// - Returns: The audit, and the signature if it agrees.
    /// - Throws: ``KernelError`` with code `notFound` if there is no draft, `key` if this key is no validator's; what judging
    ///   throws.
    package func cosign() throws -> (audit: Audit, signature: ValidatorSignature?) {
        try takeTurn()
        defer { judging.unlock() }
        guard let draft = try currentDraft() else { throw Self.noDraft }
        let quorum = try Quorum(host.store)
        let key = try host.key()
        guard quorum.validators.contains(key.publicKey) else {
            throw KernelError(
                .key, "this node's key \(key.publicKey) is none of the pact's validators")
        }
        var document = draft.document
        let audit = try audit(draft)
        guard audit.differences.isEmpty else { return (audit, nil) }
        try document.sign(key, genesis: host.store.genesis ?? .zero)
        return (
            audit,
            ValidatorSignature(
                candidate: document.block.hash, key: key.publicKey,
                signature: document.signatures[key.publicKey] ?? "")
        )
    }

    /// Adds validators' signatures to the draft, and writes its record once there are enough.
    ///
    /// - Throws: ``KernelError`` with code `notFound` if there is no draft, `integrity` naming a signature that is not valid;
    ///   what appending throws.
    package func endorse(_ signatures: [ValidatorSignature]) throws -> Endorsement {
        try takeTurn()
        defer { judging.unlock() }
        guard var draft = try currentDraft() else { throw Self.noDraft }
        let quorum = try Quorum(host.store)
        for signature in signatures {
            draft.document.signatures[signature.key] = signature.signature
            guard signature.candidate == draft.document.block.hash,
                try quorum.signers(of: draft.document).contains(signature.key)
            else {
                throw KernelError(
                    .integrity,
                    "the signature by \(signature.key) is no validator's signature of the verdict that awaits some, on \(draft.document.block.hash)",
                    hint:
                        "let that validator sign once more, in a copy of this home as it is now"
                )
            }
        }
        if let reason = try hold(draft) { return .awaits(reason: reason) }
        let document = draft.document
        if document.isReview {
            if let review = try conclude(review: document, draft.basis) {
                return .reviewed(review)
            }
        } else if let made = try conclude(document, draft.basis) {
            host.onJudged(made.candidate, .success(made))
            return .judged(made)
        }
        throw Self.noDraft
    }

    private static let noDraft = KernelError(
        .notFound, "no verdict awaits signatures",
        hint:
            "`blyan candidate judge` makes one where the pact asks for more than one signature; it is void once the model, the policy, the text or what else it was judged by is another"
    )
}
