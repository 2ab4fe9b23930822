internal import BlyanJSON
package import BlyanKernel

/// What stood on the chain before a judgement: what gates may look back on.
///
/// It follows from chain A alone, so that whoever judges again sees the same, and a later judgement's history begins
/// with an earlier one's.
package struct JudgingHistory: Sendable {
    private let store: ChainStore
    /// Verdict blocks, oldest first.
    package let verdicts: [Digest]
    /// Parts of all models and versions, in the order in which version blocks named them first, then by name.
    package let parts: [VerdictIndex.Part]

    init(store: ChainStore, verdicts: [Digest], parts: [VerdictIndex.Part]) {
        self.store = store
        self.verdicts = verdicts
        self.parts = parts
    }

    /// What gates are told of a verdict: what it says, and the evidence of some gates.
    ///
    /// - Throws: ``KernelError`` if it is damaged.
    func summary(_ number: Int, of gates: Set<String>) throws(KernelError) -> JSONValue {
        let hash = verdicts[number]
        guard let block = try store.block(hash) else {
            throw KernelError(.notFound, "the verdict block \(hash) is gone")
        }
        let document = try VerdictDocument(parsing: store.document(block))
        return .object([
            "block": .string(String(decoding: document.block.line, as: UTF8.self)),
            "outcome": .string(document.outcome), "reason": .string(document.reason),
            "received": .int(document.received),
            "evidence": .array(
                document.gates.filter { gates.contains($0.name) }.map {
                    .object([
                        "gate": .string($0.name), "part": .string($0.part), "evidence": $0.evidence,
                    ])
                }),
        ])
    }

    /// The block of a part.
    func block(_ part: Int) throws(KernelError) -> Block {
        guard let block = try store.block(parts[part].block) else {
            throw KernelError(
                .notFound, "the block \(parts[part].block) of \(parts[part].name) is not here")
        }
        return block
    }
}
