internal import BlyanPluginKit
internal import CBlyanPlugin

extension TensorBlock {
    /// Writes the blocks in the order of the sources, then directory and index.
    func encode(
        _ sources: [blyan_source], options: String, into sink: Sink
    ) throws(PluginError) -> Encoded {
        let options = try EncodeOptions(options)
        guard unsafe !sources.isEmpty, unsafe sources.count <= Layout.blockLimit else {
            throw PluginError(
                BLYAN_E_LIMIT, "\(unsafe sources.count) tensors, expected 1 to \(Layout.blockLimit)"
            )
        }
        var plans: [BlockPlan] = []
        var names: Set<String> = []
        var end: UInt64 = 0
        for i in unsafe sources.indices {
            let plan = try unsafe BlockPlan(sources[i], options, offset: end)
            guard names.insert(plan.name).inserted else {
                throw PluginError(BLYAN_E_ARGUMENT, "two tensors are named \(plan.name)")
            }
            let (next, overflow) = end.addingReportingOverflow(plan.header.blockLength)
            guard !overflow, next <= Layout.dataLimit else {
                throw PluginError(
                    BLYAN_E_LIMIT,
                    "tensor \(plan.name) takes the payload over \(Layout.dataLimit) bytes")
            }
            plans.append(plan)
            end = next
        }
        for name in options.only ?? [] where !names.contains(name) {
            throw EncodeOptions.refuse("option \"only\" names \(name), which is no tensor")
        }
        let directory = Directory.encoded(
            plans.map { ($0.name, $0.offset, $0.header.blockLength) })
        guard directory.count <= Layout.directoryLimit else {
            throw PluginError(
                BLYAN_E_LIMIT,
                "a directory of \(directory.count) bytes exceeds \(Layout.directoryLimit)")
        }
        let covered = end + UInt64(directory.count)
        for plan in plans { try plan.write(to: sink, covered: covered, host: host) }
        try sink.write(directory)
        let (hashes, root) = try unsafe sink.leaves(ofSize: Layout.leafSize)
        let count = Index.leaves(covering: covered)
        guard UInt64(hashes.count) == Index.hashes(of: count) * Layout.hashSize else {
            throw PluginError(
                BLYAN_E_IO, "the sink answered \(hashes.count) bytes of hashes for \(count) leaves")
        }
        try sink.write(
            Index.head(root: root, leaves: count, covered: covered, directoryOffset: end))
        try unsafe sink.write(hashes)
        return Encoded(
            covered: covered, leafSize: Layout.leafSize,
            leafHashesOffset: covered + Layout.indexHeadSize)
    }
}
