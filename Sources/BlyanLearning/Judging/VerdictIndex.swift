internal import BlyanJSON
package import BlyanKernel

/// What verdict blocks say in their headers: which candidates are judged, and what the judgements used up.
package struct VerdictIndex: Sendable {
    /// The verdict block of each candidate.
    package private(set) var verdicts: [Digest: Block] = [:]
    /// Judgements on each shard of held-out text.
    package private(set) var byShard: [Digest: Int64] = [:]
    /// Secrets revealed since each policy's commitments, by the number of their chain.
    package private(set) var revealed: [Int64: Int] = [:]

    /// Reads all of a home's.
    ///
    /// - Throws: ``KernelError`` if log or index are damaged.
    package init(_ store: ChainStore) throws(KernelError) {
        try store.scan(.type(chain: "A", "verdict")) { block throws(KernelError) in
            add(block)
            return true
        }
    }

    /// Counts one more.
    package mutating func add(_ block: Block) {
        let facts = block.header.metadata
        if let candidate = facts["candidate"]?.string.flatMap({ Digest(hex: $0) }) {
            verdicts[candidate] = block
        }
        if let shard = facts["shard"]?.string.flatMap({ Digest(hex: $0) }) {
            byShard[shard, default: 0] += 1
        }
        if let number = facts["secret_number"]?.int, let count = facts["secret_count"]?.int {
            revealed[number] = max(revealed[number] ?? 0, Int(clamping: count))
        }
    }
}
