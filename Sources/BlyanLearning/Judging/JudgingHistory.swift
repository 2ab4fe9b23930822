package import BlyanJSON
package import BlyanKernel

/// What stood on the chain before a judgement: what gates may look back on.
///
/// It follows from chain A alone, so that whoever judges again sees the same, and a later judgement's history begins
/// with an earlier one's.
package struct JudgingHistory: Sendable {
    /// How many verdicts there are.
    package let verdictCount: Int
    /// Parts of all models and versions, in the order in which version blocks named them first, then by name.
    package let parts: [VerdictIndex.Part]
    /// A verdict, oldest first, as gates are told of it: what it says, and the evidence of some gates.
    let verdict: @Sendable (_ number: Int, _ gates: Set<String>) throws(KernelError) -> JSONValue
    /// The block of a part.
    let block: @Sendable (Digest) throws(KernelError) -> Block

    /// A history; closures may be called from any thread.
    package init(
        verdictCount: Int, parts: [VerdictIndex.Part],
        verdict:
            @escaping @Sendable (_ number: Int, _ gates: Set<String>) throws(KernelError) ->
            JSONValue,
        block: @escaping @Sendable (Digest) throws(KernelError) -> Block
    ) {
        self.verdictCount = verdictCount
        self.parts = parts
        self.verdict = verdict
        self.block = block
    }

    /// The history that a chain tells.
    init(_ store: ChainStore, verdicts: [Digest], parts: [VerdictIndex.Part]) {
        self.init(
            verdictCount: verdicts.count, parts: parts,
            verdict: { number, gates throws(KernelError) in
                let block = try Self.block(verdicts[number], store)
                return try VerdictDocument(parsing: store.document(block)).summary(of: gates)
            },
            block: { hash throws(KernelError) in try Self.block(hash, store) })
    }

    private static func block(_ hash: Digest, _ store: ChainStore) throws(KernelError) -> Block {
        guard let block = try store.block(hash) else {
            throw KernelError(.notFound, "block \(hash) is not here")
        }
        return block
    }
}

extension VerdictDocument {
    /// What a later gate is told of it.
    package func summary(of gates: Set<String>) -> JSONValue {
        .object([
            "block": .string(String(decoding: block.line, as: UTF8.self)),
            "candidate": .string(block.hash.description),
            "outcome": .string(outcome), "reason": .string(reason), "received": .int(received),
            "evidence": .array(
                self.gates.filter { gates.contains($0.name) }.map {
                    .object([
                        "gate": .string($0.name), "part": .string($0.part),
                        "evidence": $0.evidence,
                    ])
                }),
        ])
    }
}
