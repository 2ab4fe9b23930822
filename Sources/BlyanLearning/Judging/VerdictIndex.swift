internal import BlyanJSON
package import BlyanKernel

/// What verdict and version blocks say in their headers: which candidates are judged, what the judgements used up, and
/// which parts stand in some model.
package struct VerdictIndex: Sendable {
    /// A part that a version block names.
    package struct Part: Sendable, Equatable {
        package let name: String
        package let block: Digest
        /// Where on chain A it was named first.
        package let height: Int64

        package init(name: String, block: Digest, height: Int64) {
            self.name = name
            self.block = block
            self.height = height
        }
    }

    /// The verdict block of each candidate, and of the router that was submitted with one: no review.
    package private(set) var verdicts: [Digest: Block] = [:]
    /// Judgements on each shard of held-out text, reviews included.
    package private(set) var byShard: [Digest: Int64] = [:]
    /// Shards on which a block was judged, as a candidate or in a review.
    package private(set) var shards: [Digest: Set<Digest>] = [:]
    /// Secrets revealed since each policy's commitments, by the number of their chain.
    package private(set) var revealed: [Int64: Int] = [:]
    private var order: [(height: Int64, block: Digest)] = []
    private var parts: [Part] = []
    private var named: Set<Digest> = []
    private var versions: Int64 = -1

    /// Reads all of a home's.
    ///
    /// - Throws: ``KernelError`` if log or index are damaged.
    package init(_ store: ChainStore) throws(KernelError) {
        try store.scan(.type(chain: "A", "verdict")) { block throws(KernelError) in
            add(block)
            return true
        }
        try catchUp(store)
    }

    /// Counts one more.
    package mutating func add(_ block: Block) {
        let facts = block.header.metadata
        func hash(_ key: String) -> Digest? { facts[key]?.string.flatMap { Digest(hex: $0) } }
        if let shard = hash("shard") {
            byShard[shard, default: 0] += 1
            if let candidate = hash("candidate") {
                shards[candidate, default: []].insert(shard)
            }
        }
        if let number = facts["secret_number"]?.int, let count = facts["secret_count"]?.int {
            revealed[number] = max(revealed[number] ?? 0, Int(clamping: count))
        }
        // A review judges no new candidate: gates that learn or compare would meet the same one twice.
        guard !Self.isReview(block) else { return }
        for hash in [hash("candidate"), hash("router")] {
            if let hash { verdicts[hash] = block }
        }
        order.append((block.header.index, block.hash))
    }

    /// Whether a verdict block judges a version again, by its header.
    package static func isReview(_ verdict: Block) -> Bool {
        verdict.header.metadata["review"] == .bool(true)
    }

    /// Reads the version blocks that have come since, whoever wrote them.
    mutating func catchUp(_ store: ChainStore) throws(KernelError) {
        var new: [Block] = []
        try store.scan(.type(chain: "A", "version"), reverse: true) { block throws(KernelError) in
            guard block.header.index > versions else { return false }
            new.append(block)
            return true
        }
        for block in new.reversed() {
            versions = block.header.index
            // One that names no parts is no version: the catalog says so to whoever asks for its model.
            guard let document = try? JSONValue(parsing: store.document(block)),
                case .object(let list)? = document["parts"]
            else { continue }
            for (name, value) in list.sorted(by: { $0.key < $1.key }) {
                guard Self.isReplaceable(name),
                    let hash = value.string.flatMap({ Digest(hex: $0) }),
                    named.insert(hash).inserted
                else { continue }
                parts.append(Part(name: name, block: hash, height: versions))
            }
        }
    }

    /// Whether candidates may bring new versions of a part.
    static func isReplaceable(_ name: String) -> Bool {
        name.contains(".expert") || name.hasSuffix(".router") || name.hasSuffix(".shared")
    }

    /// What stood there before an index on chain A.
    func history(before height: Int64, _ store: ChainStore) -> JudgingHistory {
        JudgingHistory(
            store, verdicts: order.prefix { $0.height < height }.map(\.block),
            parts: Array(parts.prefix { $0.height < height }))
    }
}
