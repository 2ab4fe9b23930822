public import BlyanJSON

/// Something other than a block that is signed: a submission, transfer, verdict or receipt.
///
/// The digest binds its kind and its network, so that a signature of one thing is never that of another.
public struct Statement: Sendable, Equatable {
    /// What it is: lower-case letters, digits and hyphens, at most 32.
    public let kind: String
    /// What it says.
    public let body: JSONValue
    /// SHA-256("blyan/KIND/1\n" ‖ genesis hash ‖ JCS(body)): what is signed.
    public let digest: Digest

    /// A statement on the network of a genesis block.
    ///
    /// - Throws: ``KernelError`` with code `malformed` for a kind with other characters, or a body that the chain's
    ///   JSON does not allow.
    public init(_ kind: String, genesis: Digest, body: JSONValue) throws(KernelError) {
        let isName = kind.utf8.allSatisfy {
            (97...122).contains($0) || (48...57).contains($0) || $0 == UInt8(ascii: "-")
        }
        guard isName, (1...32).contains(kind.utf8.count) else {
            throw KernelError(.malformed, "a statement's kind is not 1 to 32 of a-z, 0-9 and -")
        }
        let bytes = body.canonical()
        self.body = try KernelError.parsing { () throws(JSONError) in
            try JSONValue(canonical: bytes)
        }
        self.kind = kind
        digest = SHA256.hash(Array("blyan/\(kind)/1\n".utf8) + genesis.bytes + bytes)
    }
}
