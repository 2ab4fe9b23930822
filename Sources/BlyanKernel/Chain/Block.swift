/// A header, its hash and its signature: what the chain keeps of a block beside the payload.
public struct Block: Sendable, Equatable {
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
        if let scanned = HeaderScanner.scan(line) {
            (header, hash, signature) = scanned
            return
        }
        guard case .object(var fields) = try JSONValue(canonical: line) else {
            throw KernelError(.malformed, "a header is not a JSON object")
        }
        var reader = FieldReader(fields: fields)
        var header = BlockHeader(
            chainID: try reader.name("chain_id"), blockType: try reader.name("block_type"),
            index: try reader.natural("index"), previous: try reader.digest("prev_hash"),
            timestamp: try reader.natural("timestamp"))
        header.dependsOn = try reader.digests("depends_on")
        header.expertName = try reader.name("expert_name")
        header.layerID = try reader.natural("layer_id")
        header.version = try reader.name("version")
        header.payloadType = try reader.name("payload_type")
        header.payloadHash = try reader.digest("payload_hash")
        header.payloadSize = try reader.natural("payload_size")
        header.merkleRoot = try reader.digest("merkle_root")
        header.metadata = try reader.object("metadata")
        header.difficulty = try reader.natural("difficulty")
        header.nonce = try reader.decimal("nonce")
        header.miner = try reader.hex("miner_pub", bytes: 33)
        let signature = try reader.hex("payload_sig", bytes: 64)
        fields = reader.fields
        if let unknown = fields.keys.min() {
            throw KernelError(.malformed, "a header has the unknown field \"\(unknown)\"")
        }
        self.header = header
        hash = header.hash
        self.signature = Hex.decode(signature, count: 64) ?? []
    }
}

/// Takes typed fields out of a parsed header; what is left over at the end is unknown.
private struct FieldReader {
    var fields: [String: JSONValue]

    private mutating func take(_ key: String) throws(KernelError) -> JSONValue {
        guard let value = fields.removeValue(forKey: key) else {
            throw KernelError(.malformed, "a header lacks the field \"\(key)\"")
        }
        return value
    }

    private func wrong(_ key: String, _ expected: String) -> KernelError {
        KernelError(.malformed, "header field \"\(key)\" is not \(expected)")
    }

    private mutating func text(_ key: String) throws(KernelError) -> String {
        guard let text = try take(key).string else { throw wrong(key, "a string") }
        return text
    }

    mutating func name(_ key: String) throws(KernelError) -> String {
        let text = try text(key)
        guard text.utf8.count <= BlockHeader.Limit.name else {
            throw KernelError(
                .limit, "header field \"\(key)\" exceeds \(BlockHeader.Limit.name) bytes")
        }
        return text
    }

    mutating func natural(_ key: String) throws(KernelError) -> Int64 {
        guard let value = try take(key).int, value >= 0 else {
            throw wrong(key, "an integer from 0 to 2^53 − 1")
        }
        return value
    }

    mutating func decimal(_ key: String) throws(KernelError) -> String {
        let text = try name(key)
        let digits = text.utf8.allSatisfy { $0 >= 48 && $0 <= 57 }
        guard digits, text == "0" || !text.hasPrefix("0"), text.utf8.count <= 20 else {
            throw wrong(key, "a decimal string of at most 20 digits, or \"\"")
        }
        return text
    }

    mutating func hex(_ key: String, bytes: Int) throws(KernelError) -> String {
        let text = try text(key)
        guard Hex.decode(text, count: bytes) != nil else {
            throw wrong(key, "\(2 * bytes) lower-case hex digits")
        }
        return text
    }

    mutating func digest(_ key: String) throws(KernelError) -> Digest? {
        let text = try text(key)
        guard !text.isEmpty else { return nil }
        guard let digest = Digest(hex: text) else {
            throw wrong(key, "64 lower-case hex digits or \"\"")
        }
        return digest
    }

    mutating func digests(_ key: String) throws(KernelError) -> [Digest] {
        guard case .array(let items) = try take(key) else { throw wrong(key, "an array") }
        guard items.count <= BlockHeader.Limit.dependencies else {
            throw KernelError(
                .limit,
                "header field \"\(key)\" has \(items.count) entries, at most \(BlockHeader.Limit.dependencies)"
            )
        }
        var digests: [Digest] = []
        for item in items {
            guard let digest = item.string.flatMap({ Digest(hex: $0) }) else {
                throw wrong(key, "an array of 64 lower-case hex digits each")
            }
            digests.append(digest)
        }
        guard Set(digests).count == digests.count else { throw wrong(key, "free of repeats") }
        return digests
    }

    mutating func object(_ key: String) throws(KernelError) -> [String: JSONValue] {
        guard case .object(let members) = try take(key) else { throw wrong(key, "an object") }
        return members
    }
}
