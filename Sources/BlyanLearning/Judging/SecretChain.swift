internal import BlyanJSON
package import BlyanKernel

/// A validator's secrets, committed to before anything is judged and revealed one a judgement.
///
/// The last of `length` hashes in a row over a secret is published first; each judgement publishes the one before it,
/// which anybody can hash to compare, and nobody could know. A seed made of it cannot be chosen by who submits, and not
/// by the validator either once the candidate's hash is known, unless the candidate is its own.
package struct SecretChain: Sendable {
    private let links: [Digest]

    /// Judgements that a commitment lasts for.
    package static let length = 4096

    /// The chain over a secret.
    package init(secret: Digest, length: Int = Self.length) {
        var links = [secret]
        for _ in 0..<length { links.append(SHA256.hash(links[links.count - 1].bytes)) }
        self.links = links
    }

    /// The chain that a key holds as its number `number`: it follows from the key, and needs no file.
    ///
    /// - Throws: ``KernelError`` with code `key`.
    package init(key: SigningKey, genesis: Digest, number: Int64) throws(KernelError) {
        // A signature by RFC 6979 is the same each time, and this statement's is never shown to anybody.
        let statement = try Statement("draw-secret", genesis: genesis, body: .int(number))
        self.init(secret: SHA256.hash(try key.sign(statement.digest)))
    }

    /// What is published first.
    package var commitment: Digest { links[links.count - 1] }

    /// What judgement number `count`, counted from 1, reveals; nil if the chain is used up.
    package func secret(_ count: Int) -> Digest? {
        (1..<links.count).contains(count) ? links[links.count - 1 - count] : nil
    }

    /// Whether a secret is the one that judgement number `count` had to reveal.
    package static func isValid(_ secret: Digest, count: Int, commitment: Digest) -> Bool {
        guard (1...length).contains(count) else { return false }
        var hash = secret
        for _ in 0..<count { hash = SHA256.hash(hash.bytes) }
        return hash == commitment
    }

    /// What decides which text a candidate meets: SHA-256("blyan/draw/1\n" ‖ secrets ‖ candidate ‖ model root).
    package static func seed(secrets: [Digest], candidate: Digest, root: Digest) -> Digest {
        SHA256.hash(
            Array("blyan/draw/1\n".utf8) + secrets.flatMap(\.bytes) + candidate.bytes + root.bytes)
    }
}
