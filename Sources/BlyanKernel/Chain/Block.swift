/// A header, its hash and its signature: what the chain keeps of a block beside the payload.
///
/// An object, because chains are walked and indexed by the million and a header has many parts that a copy would retain.
public final class Block: Sendable, Equatable {
    /// What the block says.
    public let header: BlockHeader
    /// The block's name: SHA-256 of the canonical header.
    public let hash: Digest
    /// ECDSA over exactly ``hash``, r‖s, 64 bytes; not verified by this type.
    public let signature: [UInt8]

    /// Signs a header; `miner` is set to the signer's key.
    ///
    /// - Throws: ``KernelError`` with code `limit` or `malformed` if the header breaks a limit.
    public init(signing header: BlockHeader, with key: SigningKey) throws(KernelError) {
        var header = header
        header.miner = key.publicKey
        self.header = header
        hash = header.hash
        signature = try key.sign(hash)
        _ = try Block(parsing: line)
    }

    /// The canonical header with `payload_sig`: one line of a log or export, without line feed.
    public var line: [UInt8] { header.canonical(signature: Hex.encode(signature)) }

    /// Whether the signature is that of ``BlockHeader/miner`` over ``hash``, with low S.
    public var isSignatureValid: Bool {
        Signature.isValid(signature, over: hash, publicKey: header.miner)
    }

    /// What to say if it is not.
    var signatureError: KernelError {
        KernelError(
            .integrity, "block \(hash) on chain \(header.chainID) is not signed by its miner_pub")
    }

    /// Reads a ``line``.
    ///
    /// - Throws: ``KernelError`` naming the field: `malformed` for text that is not canonical JSON, a missing,
    ///   unknown or misspelt field; `limit` for what exceeds ``BlockHeader/Limit``.
    public init(parsing line: [UInt8]) throws(KernelError) {
        guard line.count <= BlockHeader.Limit.bytes else {
            throw KernelError(
                .limit, "a header of \(line.count) bytes exceeds \(BlockHeader.Limit.bytes)")
        }
        (header, hash, signature) = try HeaderReader.read(line)
    }

    /// Whether header and signature are the same.
    public static func == (a: Block, b: Block) -> Bool {
        a === b || a.header == b.header && a.signature == b.signature
    }
}
