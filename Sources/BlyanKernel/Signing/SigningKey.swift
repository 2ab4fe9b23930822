internal import COpenSSL
internal import CSecp256k1
internal import Synchronization

// Unchecked: immutable after init; the bytes are wiped in deinit.
// Safe: the buffer is owned by this object and has 32 bytes.
/// A secp256k1 private key that signs 32-byte digests.
@safe public final class SigningKey: @unchecked Sendable, CustomStringConvertible {
    private let secret: UnsafeMutablePointer<UInt8>
    /// The compressed public key, 66 lower-case hex digits.
    public let publicKey: String

    /// A new key from OpenSSL's random generator.
    ///
    /// - Throws: ``KernelError`` with code `key` if no random bytes can be had.
    public convenience init() throws(KernelError) {
        var bytes = [UInt8](repeating: 0, count: 32)
        defer { unsafe bytes.withUnsafeMutableBytes { unsafe OPENSSL_cleanse($0.baseAddress, 32) } }
        repeat {
            guard unsafe RAND_priv_bytes(&bytes, 32) == 1 else {
                throw KernelError(.key, "the system has no random bytes for a key")
            }
        } while unsafe secp256k1_ec_seckey_verify(Signature.context, bytes) != 1
        try self.init(bytes)
    }

    /// The key with these 32 bytes.
    ///
    /// - Throws: ``KernelError`` with code `key` if they are no key of the curve.
    public init(_ bytes: [UInt8]) throws(KernelError) {
        var key = secp256k1_pubkey()
        guard bytes.count == 32,
            unsafe secp256k1_ec_pubkey_create(Signature.context, &key, bytes) == 1
        else { throw KernelError(.key, "these bytes are no private key of secp256k1") }
        var compressed = [UInt8](repeating: 0, count: 33)
        var length = 33
        unsafe secp256k1_ec_pubkey_serialize(
            Signature.context, &compressed, &length, &key, UInt32(SECP256K1_EC_COMPRESSED))
        publicKey = Hex.encode(compressed)
        unsafe secret = .allocate(capacity: 32)
        unsafe secret.update(from: bytes, count: 32)
    }

    deinit {
        unsafe OPENSSL_cleanse(secret, 32)
        unsafe secret.deallocate()
    }

    /// Never the secret.
    public var description: String { "SigningKey(\(publicKey))" }

    /// ECDSA over exactly these 32 bytes, nonce by RFC 6979, low S; r‖s, 64 bytes.
    ///
    /// - Throws: ``KernelError`` with code `key` if the library refuses.
    public func sign(_ digest: Digest) throws(KernelError) -> [UInt8] {
        var signature = secp256k1_ecdsa_signature()
        var out = [UInt8](repeating: 0, count: 64)
        guard
            unsafe secp256k1_ecdsa_sign(
                Signature.context, &signature, digest.bytes, secret,
                secp256k1_nonce_function_rfc6979, nil) == 1,
            unsafe secp256k1_ecdsa_signature_serialize_compact(Signature.context, &out, &signature)
                == 1
        else { throw KernelError(.key, "the signature could not be made") }
        return out
    }

    /// Copies the secret for the keystore; the caller wipes it.
    func withSecret<R>(_ body: (UnsafeRawBufferPointer) throws(KernelError) -> R)
        throws(KernelError) -> R
    {
        try unsafe body(UnsafeRawBufferPointer(start: secret, count: 32))
    }
}

/// Verifying signatures.
public enum Signature {
    // Unchecked: libsecp256k1 contexts may be shared by threads once made.
    nonisolated(unsafe) static let context = unsafe makeContext()

    private static func makeContext() -> OpaquePointer {
        guard let context = unsafe secp256k1_context_create(UInt32(SECP256K1_CONTEXT_NONE)) else {
            preconditionFailure("libsecp256k1 has no memory for its context")
        }
        var seed = [UInt8](repeating: 0, count: 32)
        // Blinding guards against side channels; without random bytes signing is correct all the same.
        if unsafe RAND_bytes(&seed, 32) == 1 {
            _ = unsafe secp256k1_context_randomize(context, seed)
        }
        return unsafe context
    }

    /// Whether `signature` (r‖s) is that of a compressed public key in hex over these 32 bytes, with low S.
    public static func isValid(_ signature: [UInt8], over digest: Digest, publicKey: String) -> Bool
    {
        guard signature.count == 64, var key = key(publicKey) else { return false }
        var parsed = secp256k1_ecdsa_signature()
        // The library's verify refuses high S by itself.
        return unsafe secp256k1_ecdsa_signature_parse_compact(context, &parsed, signature) == 1
            && secp256k1_ecdsa_verify(context, &parsed, digest.bytes, &key) == 1
    }

    /// Whether text is the compressed public key of a point of the curve, in hex.
    public static func isKey(_ hex: String) -> Bool { key(hex) != nil }

    // Chains have few signers, and parsing a compressed key takes a square root: a sixth of a verification.
    private static let keys = Mutex<[String: secp256k1_pubkey]>([:])
    private static let keyLimit = 4096

    private static func key(_ hex: String) -> secp256k1_pubkey? {
        if let known = keys.withLock({ $0[hex] }) { return known }
        var key = secp256k1_pubkey()
        guard let bytes = Hex.decode(hex, count: 33),
            unsafe secp256k1_ec_pubkey_parse(context, &key, bytes, 33) == 1
        else { return nil }
        let parsed = key
        keys.withLock { keys in
            if keys.count >= keyLimit { keys.removeAll() }
            keys[hex] = parsed
        }
        return parsed
    }
}
