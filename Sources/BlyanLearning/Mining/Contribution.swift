internal import BlyanJSON
package import BlyanKernel
package import BlyanModel
internal import CBlyanMath
internal import CBlyanPlugin

/// Makes the signed block of a new version of a part, with its payload durable: what is submitted.
package struct Contribution: Sendable {
    private let model: LoadedModel
    private let store: ChainStore
    private let plugins: PluginSet

    package init(to model: LoadedModel, store: ChainStore, plugins: PluginSet) {
        self.model = model
        self.store = store
        self.plugins = plugins
    }

    /// Rounds tensors to what the current version is stored as, writes the payload, and signs and stamps the block.
    ///
    /// - Parameters:
    ///   - router: the new version of the layer's router that goes with it, which it then depends on.
    ///   - bits: zero bits that the block's hash is to begin with.
    ///   - now: UTC milliseconds.
    /// - Throws: ``ModelError`` for tensors that are not the part's; ``KernelError`` if the payload cannot be written.
    package func block(
        _ part: String, _ tensors: [ExpertFile.Tensor], with router: Block? = nil, key: SigningKey,
        bits: Int64, now: Int64
    ) throws -> Block {
        guard let current = model.model.parts[part], let parent = try store.block(current) else {
            throw ModelError("the model \(model.model.name) has no part \(part)")
        }
        let stored = try model.open(parent).tensors
        let format = try encoder(for: parent)
        guard Set(stored.map(\.name)) == Set(tensors.map(\.name)) else {
            throw ModelError(
                "the new version of \(part) has the tensors \(tensors.map(\.name).sorted()), expected \(stored.map(\.name).sorted())"
            )
        }
        let isQuantised = stored.contains { $0.dtype == UInt32(BLYAN_DTYPE_I8) }
        var sources: [CheckpointTensor] = []
        for old in stored {
            guard let new = tensors.first(where: { $0.name == old.name }) else { continue }
            guard new.rows == old.rows, new.columns == old.columns,
                new.values.count == new.rows * new.columns
            else {
                throw ModelError(
                    "tensor \(old.name) of \(part) has shape [\(new.rows), \(new.columns)], expected [\(old.rows), \(old.columns)]"
                )
            }
            let dtype = old.dtype == UInt32(BLYAN_DTYPE_I8) ? UInt32(BLYAN_DTYPE_F32) : old.dtype
            let bytes = try round(new, to: dtype, part)
            sources.append(
                unsafe CheckpointTensor(
                    name: old.name, rows: old.rows, columns: old.columns, dtype: dtype,
                    withBytes: { body in try unsafe bytes.withUnsafeBytes { try unsafe body($0) } })
            )
        }
        let payload = try PartWriter(store: store, format: format).write(
            sources, options: isQuantised ? PartWriter.int8 : "{}")
        var header = BlockHeader(
            chainID: "B", blockType: "parameters",
            index: max(parent.header.index, router?.header.index ?? 0) + 1, previous: current,
            timestamp: now)
        header.dependsOn = [model.model.meta.hash, current] + (router.map { [$0.hash] } ?? [])
        header.expertName = part
        header.layerID = parent.header.layerID
        header.version =
            SemanticVersion(parent.header.version)?.nextMinor.description ?? "1.0.0"
        payload.describe(in: &header, type: format.plugin.manifest.payloadTypes.first ?? "")
        header.difficulty = bits
        header.miner = key.publicKey
        let cancellation = Cancellation.current
        return try Block(
            signing: Stamp.search(header) { cancellation.isRequested() }, with: key)
    }

    /// The format of the current version, or the first one that writes.
    private func encoder(for parent: Block) throws -> FormatPlugin {
        let own = try plugins.format(for: parent.header.payloadType)
        if own.canEncode { return own }
        for name in plugins.node.formats {
            let format = try FormatPlugin(plugins.plugin(name))
            if format.canEncode { return format }
        }
        throw KernelError(.plugin, "no format that is enabled on this node writes payloads")
    }

    private func round(_ tensor: ExpertFile.Tensor, to dtype: UInt32, _ part: String)
        throws(ModelError)
        -> [UInt8]
    {
        var bytes: [UInt8] = []
        switch Int(dtype) {
        case BLYAN_DTYPE_F32:
            bytes.reserveCapacity(4 * tensor.values.count)
            for value in tensor.values {
                unsafe withUnsafeBytes(of: value.bitPattern.littleEndian) {
                    unsafe bytes.append(contentsOf: $0)
                }
            }
        case BLYAN_DTYPE_F16:
            var halves = [UInt16](repeating: 0, count: tensor.values.count)
            let lost = unsafe blyan_math_to_f16(tensor.values, UInt64(halves.count), &halves)
            guard lost == 0 else {
                throw ModelError(
                    "\(lost) numbers of \(part)/\(tensor.name) are too large for f16, in which it is stored"
                )
            }
            for half in halves {
                unsafe withUnsafeBytes(of: half.littleEndian) {
                    unsafe bytes.append(contentsOf: $0)
                }
            }
        case BLYAN_DTYPE_BF16:
            for value in tensor.values {
                // To nearest, ties to even; what is no number stays none.
                let bits = value.bitPattern
                let half =
                    value.isNaN
                    ? UInt16(truncatingIfNeeded: bits >> 16) | 0x40
                    : UInt16(truncatingIfNeeded: (bits &+ 0x7fff &+ ((bits >> 16) & 1)) >> 16)
                unsafe withUnsafeBytes(of: half.littleEndian) {
                    unsafe bytes.append(contentsOf: $0)
                }
            }
        default:
            throw ModelError(
                "\(part)/\(tensor.name) is stored as dtype \(dtype), which cannot be written")
        }
        return bytes
    }
}
