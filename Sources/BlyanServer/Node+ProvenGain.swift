internal import BlyanJSON
internal import BlyanKernel
internal import BlyanLearning
internal import BlyanLedger

/// A gain is paid once: what a version had proven that was left is not paid again to whoever proves it anew.
extension Node {
    /// What a version gains beyond all that was proven of its expert before.
    ///
    /// Proven of a version is the sum of the lower bounds by which it and all that it stands on were accepted. An expert that
    /// only moved forward has its best version as the parent; one that was rolled back may not.
    /// - Parameter verdict: by which it was accepted; nil if that is not written yet.
    func unpaid(
        _ gain: RewardEvent.Gain?, of block: Block, before verdict: Block?
    ) throws(KernelError) -> RewardEvent.Gain? {
        guard let gain else { return nil }
        let end = verdict?.header.index ?? .max
        let parent = block.header.previous
        let known = try ancestors(of: parent)
        var proven: [Digest: Int64] = [:]
        var best: Int64 = 0
        for other in try left(block, known, before: end) {
            best = max(best, try self.proven(other.hash, before: end, &proven))
        }
        guard best > 0, let parent else { return gain }
        let paid = max(0, best - (try self.proven(parent, before: end, &proven)))
        return RewardEvent.Gain(
            improvement: max(0, gain.improvement - paid), lower: max(0, gain.lower - paid),
            delta: gain.delta)
    }

    private func ancestors(of block: Digest?) throws(KernelError) -> Set<Digest> {
        var found: Set<Digest> = []
        var next = block
        while let hash = next, found.insert(hash).inserted {
            next = try store.block(hash)?.header.previous
        }
        return found
    }

    /// Other versions of a block's expert, which it does not stand on.
    private func left(_ block: Block, _ ancestors: Set<Digest>, before end: Int64)
        throws(KernelError) -> [Block]
    {
        guard let model = block.header.dependsOn.first else { return [] }
        var found: [Block] = []
        try store.scan(.expert(block.header.expertName)) { other throws(KernelError) in
            if other.hash != block.hash, !ancestors.contains(other.hash),
                other.header.dependsOn.first == model
            {
                found.append(other)
            }
            return true
        }
        return found
    }

    /// The sum of what verdicts before an index of chain A have proven of a version and of those that it stands on; 0 for
    /// one that a review showed to be worse, and for an import.
    private func proven(
        _ hash: Digest, before end: Int64, _ known: inout [Digest: Int64]
    ) throws(KernelError) -> Int64 {
        var path: [(block: Digest, lower: Int64)] = []
        var next: Digest? = hash
        var sum: Int64 = 0
        while let hash = next {
            if let value = known[hash] {
                sum = value
                break
            }
            guard let block = try store.block(hash), block.header.chainID == "B" else { break }
            path.append((hash, try lower(of: block, before: end)))
            next = block.header.previous
        }
        for (block, lower) in path.reversed() {
            // At most 100 % each, and some thousand versions: far from overflow, whatever they claim.
            sum = min(sum + lower, 1 << 60)
            known[block] = sum
        }
        return sum
    }

    private func lower(of block: Block, before end: Int64) throws(KernelError) -> Int64 {
        guard let accepted = try acceptance(of: block.hash), accepted.block.header.index < end,
            try regression(of: block, before: end) == nil
        else { return 0 }
        return min(max(0, Self.gain(accepted.document)?.lower ?? 0), 1_000_000_000)
    }
}
