package import BlyanJSON
package import BlyanKernel

/// A block on chain A whose payload is a JSON document, durable already; its place is taken last.
package struct DocumentBlock: Sendable {
    private var header: BlockHeader

    /// Makes the document's payload durable.
    ///
    /// - Throws: ``KernelError`` with code `io`.
    package init(
        _ type: String, _ bytes: [UInt8], dependsOn: [Digest], metadata: [String: JSONValue],
        payloadType: String = "json", in store: ChainStore
    ) throws(KernelError) {
        let writer = try store.payloads.makeWriter()
        try writer.write(bytes)
        let payload = try writer.finish()
        header = BlockHeader(
            chainID: "A", blockType: type, index: 0, previous: nil, timestamp: 0)
        header.dependsOn = dependsOn
        header.metadata = metadata
        payload.describe(in: &header, type: payloadType)
    }

    /// The signed block at a place on the chain.
    ///
    /// - Parameters:
    ///   - further: more blocks that it depends on.
    ///   - now: UTC milliseconds.
    package func block(
        at place: (index: Int64, previous: Digest?), dependsOn further: [Digest] = [],
        with key: SigningKey, now: Int64
    ) throws(KernelError) -> Block {
        var header = header
        header.index = place.index
        header.previous = place.previous
        header.dependsOn += further
        header.timestamp = now
        return try Block(signing: header, with: key)
    }
}
