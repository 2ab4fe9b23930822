public import BlyanJSON

/// What a block says and signs: eighteen fields, every one present in every header.
///
/// Absent is "", [], {} or 0 by the field's type. The block's hash is SHA-256 of ``canonical()``.
public struct BlockHeader: Sendable, Equatable {
    /// The chain: "A", "B", ...
    public var chainID: String
    /// Position: in a linear chain the number of blocks before; in a DAG 1 + the highest among dependencies.
    public var index: Int64
    /// `genesis`, `meta`, `policy`, `version`, `parameters`, ...
    public var blockType: String
    /// Linear.
    ///
    /// The previous block. DAG: the version that this block replaces, or the genesis block.
    public var previous: Digest?
    /// Blocks that must exist before this one, without repeats.
    public var dependsOn: [Digest] = []
    /// `layer4.expert7`, or "".
    public var expertName: String = ""
    /// The layer, or 0.
    public var layerID: Int64 = 0
    /// SemVer of what the block holds, or "".
    public var version: String = ""
    /// The payload's format: `json`, or the name that a format plugin serves.
    public var payloadType: String = ""
    /// SHA-256 of the whole payload, or nil without one.
    public var payloadHash: Digest?
    /// Bytes of the payload.
    public var payloadSize: Int64 = 0
    /// RFC 6962 root over the payload's leaves, or nil without one.
    public var merkleRoot: Digest?
    /// Further signed facts, an object.
    public var metadata: [String: JSONValue] = [:]
    /// UTC milliseconds.
    public var timestamp: Int64
    /// Leading zero bits that the block's hash must have.
    public var difficulty: Int64 = 0
    /// A decimal string that the stamp varies.
    public var nonce: String = ""
    /// The signer's compressed public key in hex.
    public var miner: String = ""

    /// Limits that a header keeps.
    public enum Limit {
        /// Bytes of a canonical header, signature included.
        public static let bytes = 1 << 20
        /// Entries of ``BlockHeader/dependsOn``.
        public static let dependencies = 8192
        /// Bytes of a name or version.
        public static let name = 255
    }

    /// Makes a header without dependencies or payload; set the rest.
    public init(
        chainID: String, blockType: String, index: Int64, previous: Digest?, timestamp: Int64
    ) {
        self.chainID = chainID
        self.blockType = blockType
        self.index = index
        self.previous = previous
        self.timestamp = timestamp
    }

    /// The canonical form (RFC 8785) that is hashed and signed: every field but the signature.
    public func canonical() -> [UInt8] { canonical(signature: nil) }

    /// SHA-256 of ``canonical()``: the block's name.
    public var hash: Digest { SHA256.hash(canonical()) }

    /// The canonical form, with `payload_sig` if one is given.
    ///
    /// Keys stand in canonical order here.
    func canonical(signature: String?) -> [UInt8] {
        var out: [UInt8] = []
        out.reserveCapacity(640 + 67 * dependsOn.count)
        func key(_ name: StaticString) {
            out.append(out.isEmpty ? UInt8(ascii: "{") : UInt8(ascii: ","))
            out.append(UInt8(ascii: "\""))
            unsafe out.append(
                contentsOf: UnsafeBufferPointer(
                    start: name.utf8Start, count: name.utf8CodeUnitCount))
            out.append(contentsOf: [UInt8(ascii: "\""), UInt8(ascii: ":")])
        }
        func text(_ name: StaticString, _ value: String) {
            key(name)
            Canonical.write(value, to: &out)
        }
        func number(_ name: StaticString, _ value: Int64) {
            key(name)
            Canonical.write(value, to: &out)
        }
        func digest(_ value: Digest?) {
            out.append(UInt8(ascii: "\""))
            value?.appendHex(to: &out)
            out.append(UInt8(ascii: "\""))
        }
        text("block_type", blockType)
        text("chain_id", chainID)
        key("depends_on")
        out.append(UInt8(ascii: "["))
        for (i, dependency) in dependsOn.enumerated() {
            if i > 0 { out.append(UInt8(ascii: ",")) }
            digest(dependency)
        }
        out.append(UInt8(ascii: "]"))
        number("difficulty", difficulty)
        text("expert_name", expertName)
        number("index", index)
        number("layer_id", layerID)
        key("merkle_root")
        digest(merkleRoot)
        key("metadata")
        Canonical.write(.object(metadata), to: &out)
        text("miner_pub", miner)
        text("nonce", nonce)
        key("payload_hash")
        digest(payloadHash)
        if let signature { text("payload_sig", signature) }
        number("payload_size", payloadSize)
        text("payload_type", payloadType)
        key("prev_hash")
        digest(previous)
        number("timestamp", timestamp)
        text("version", version)
        out.append(UInt8(ascii: "}"))
        return out
    }
}
