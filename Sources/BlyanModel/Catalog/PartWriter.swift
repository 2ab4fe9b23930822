package import BlyanKernel
internal import CBlyanPlugin

/// Writes the payload of a part by a format plugin.
package struct PartWriter: Sendable {
    private let store: ChainStore
    private let format: FormatPlugin

    /// Options of a format for int8 with a scale a row.
    package static let int8 = #"{"quantise":"int8"}"#

    package init(store: ChainStore, format: FormatPlugin) {
        self.store = store
        self.format = format
    }

    /// Makes the payload of tensors durable.
    ///
    /// - Throws: What the plugin throws; ``KernelError`` with code `io`, or `plugin` if it counts other leaves than the host.
    package func write(_ tensors: [CheckpointTensor], options: String) throws -> StoredPayload {
        let sink = try WriterSink(store.payloads.makeWriter())
        let encoded = try encode(tensors, options: options, into: sink)
        let payload = try sink.writer.finish(
            leafHashesAt: encoded.leaf_hashes_offset == 0 ? nil : encoded.leaf_hashes_offset)
        guard payload.layout.covered == encoded.covered,
            payload.layout.leafSize == encoded.leaf_size
        else {
            throw KernelError(
                .plugin,
                "plugin \(format.plugin.manifest.name) says that leaves of \(encoded.leaf_size) bytes cover \(encoded.covered), this node hashed \(payload.layout.covered) in leaves of \(payload.layout.leafSize)"
            )
        }
        return payload
    }

    /// Hands all tensors to the plugin at once: their bytes are borrowed one inside the other's closure.
    private func encode(
        _ tensors: [CheckpointTensor], options: String, into sink: WriterSink
    ) throws -> blyan_encoded {
        var result: blyan_encoded?
        func lend(_ index: Int, _ sources: [FormatPlugin.Source]) throws {
            guard index < tensors.count else {
                result = try format.encode(sources, options: options, into: sink)
                return
            }
            let tensor = tensors[index]
            try unsafe tensor.withBytes { bytes in
                let source = unsafe FormatPlugin.Source(
                    name: tensor.name, dtype: tensor.dtype, rows: tensor.rows,
                    columns: tensor.columns, data: bytes,
                    scales: UnsafeRawBufferPointer(start: nil, count: 0))
                try lend(index + 1, sources + [source])
            }
        }
        try lend(0, [])
        guard let result else { throw ModelError("the checkpoint did not lend its tensors") }
        return result
    }
}

/// A payload writer as the sink of a format plugin.
private final class WriterSink: PayloadSink {
    let writer: PayloadWriter

    init(_ writer: PayloadWriter) { self.writer = writer }

    func write(_ bytes: UnsafeRawBufferPointer) throws(KernelError) {
        try unsafe writer.write(bytes)
    }

    func closeLeaves(size: UInt64) throws(KernelError) -> (stored: [Digest], root: Digest) {
        guard size == UInt64(writer.leafSize) else {
            throw KernelError(
                .plugin,
                "leaves of \(size) bytes, this node hashes leaves of \(writer.leafSize)")
        }
        return writer.closeLeaves()
    }
}
