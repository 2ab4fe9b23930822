internal import BlyanJSON
internal import COpenSSL
public import Foundation

/// A signing key in a file: encrypted by a passphrase, mode 0600.
///
/// scrypt (RFC 7914) with N = 2^17, r = 8, p = 1 (128 MiB) makes the key for AES-256-GCM, which covers the public key
/// as associated data. The file is JSON and never holds the private key in the clear.
public struct Keystore: Sendable {
    /// Where the file lies.
    public let path: String
    private static let cost = (n: 17, r: UInt64(8), p: UInt64(1), memory: UInt64(256 << 20))

    /// The keystore `HOME/key.json`.
    public init(home: URL) { path = home.appendingPathComponent("key.json").path }

    /// A keystore of another key, at a path.
    public init(_ path: String) { self.path = path }

    /// Whether the file is there.
    public var exists: Bool { unsafe access(path, F_OK) == 0 }

    /// Makes the file with a new key, synced; refuses to replace one.
    ///
    /// - Throws: ``KernelError`` with code `io` or `key`.
    public func create(passphrase: [UInt8]) throws(KernelError) -> SigningKey {
        let key = try SigningKey()
        let salt = try Self.random(32)
        let nonce = try Self.random(12)
        let sealed = try unsafe key.withSecret { secret throws(KernelError) in
            try unsafe Self.seal(secret, passphrase, salt, nonce, Array(key.publicKey.utf8))
        }
        let members: [String: JSONValue] = [
            "format": .string("blyan-key/1"), "kdf": .string("scrypt-17-8-1"),
            "cipher": .string("aes-256-gcm"),
            "public_key": .string(key.publicKey), "salt": .string(Hex.encode(salt)),
            "nonce": .string(Hex.encode(nonce)), "sealed": .string(Hex.encode(sealed)),
        ]
        let disk = Disk.real
        let descriptor = try disk.open(path, O_WRONLY | O_CREAT | O_EXCL, mode: 0o600)
        defer { close(descriptor) }
        do throws(KernelError) {
            try unsafe (JSONValue.object(members).canonical() + [10]).withRawBytes {
                (bytes) throws(KernelError) in
                try unsafe disk.write(bytes, to: descriptor, path: path)
            }
            try disk.sync(descriptor, path: path)
        } catch {
            // Half a file would stand in the way of the next try.
            _ = unsafe unlink(path)
            throw error
        }
        try disk.sync(folder: URL(fileURLWithPath: path).deletingLastPathComponent().path)
        return key
    }

    /// Opens the file.
    ///
    /// - Throws: ``KernelError`` with code `key` for a wrong passphrase, a damaged file, or one that others may read.
    public func unlock(passphrase: [UInt8]) throws(KernelError) -> SigningKey {
        var info = stat()
        guard unsafe stat(path, &info) == 0 else {
            throw KernelError(.key, "there is no keystore at \(path)", hint: "run `blyan init`")
        }
        guard info.st_mode & 0o077 == 0 else {
            throw KernelError(
                .key, "the keystore \(path) may be read by others", hint: "run `chmod 600 \(path)`")
        }
        let damaged = KernelError(
            .key, "the keystore \(path) is damaged", hint: "restore it from a copy")
        guard info.st_size < 65_536, let data = FileManager.default.contents(atPath: path),
            let fields = try? JSONValue(parsing: Array(data)),
            fields["format"]?.string == "blyan-key/1",
            fields["kdf"]?.string == "scrypt-17-8-1", fields["cipher"]?.string == "aes-256-gcm",
            let publicKey = fields["public_key"]?.string,
            let salt = fields["salt"]?.string.flatMap({ Hex.decode($0, count: 32) }),
            let nonce = fields["nonce"]?.string.flatMap({ Hex.decode($0, count: 12) }),
            let sealed = fields["sealed"]?.string.flatMap({ Hex.decode($0, count: 48) })
        else { throw damaged }
        var secret = try Self.open(sealed, passphrase, salt, nonce, Array(publicKey.utf8))
        defer {
            unsafe secret.withUnsafeMutableBytes {
                unsafe OPENSSL_cleanse($0.baseAddress, $0.count)
            }
        }
        guard !secret.isEmpty else {
            throw KernelError(.key, "the passphrase does not open \(path), or the file was changed")
        }
        let key = try SigningKey(secret)
        guard key.publicKey == publicKey else { throw damaged }
        return key
    }

    /// Bytes from OpenSSL's random generator.
    ///
    /// - Throws: ``KernelError`` with code `key` if it has none.
    public static func random(_ count: Int) throws(KernelError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        guard unsafe RAND_bytes(&bytes, Int32(count)) == 1 else {
            throw KernelError(.key, "the system has no random bytes")
        }
        return bytes
    }

    private static func derive(_ passphrase: [UInt8], _ salt: [UInt8]) throws(KernelError)
        -> [UInt8]
    {
        var key = [UInt8](repeating: 0, count: 32)
        let made = unsafe passphrase.withUnsafeBytes { phrase in
            unsafe EVP_PBE_scrypt(
                phrase.baseAddress?.assumingMemoryBound(to: CChar.self), phrase.count, salt,
                salt.count,
                1 << UInt64(cost.n), cost.r, cost.p, cost.memory, &key, 32)
        }
        guard made == 1 else {
            throw KernelError(.key, "scrypt needs 128 MiB of memory and could not run")
        }
        return key
    }

    private static func seal(
        _ secret: UnsafeRawBufferPointer, _ passphrase: [UInt8], _ salt: [UInt8], _ nonce: [UInt8],
        _ associated: [UInt8]
    ) throws(KernelError) -> [UInt8] {
        var key = try derive(passphrase, salt)
        let context = unsafe EVP_CIPHER_CTX_new()
        // The secret is read where it lies: a copy would have to be wiped too.
        let plain = unsafe secret.baseAddress?.assumingMemoryBound(to: UInt8.self)
        defer {
            unsafe EVP_CIPHER_CTX_free(context)
            unsafe key.withUnsafeMutableBytes { unsafe OPENSSL_cleanse($0.baseAddress, $0.count) }
        }
        var out = [UInt8](repeating: 0, count: 32)
        var tag = [UInt8](repeating: 0, count: 16)
        var length: Int32 = 0
        let done =
            unsafe EVP_EncryptInit_ex(context, EVP_aes_256_gcm(), nil, key, nonce) == 1
            && EVP_EncryptUpdate(context, nil, &length, associated, Int32(associated.count)) == 1
            && EVP_EncryptUpdate(context, &out, &length, plain, 32) == 1
            && EVP_EncryptFinal_ex(context, &tag, &length) == 1
            && EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, 16, &tag) == 1
        guard done else { throw KernelError(.key, "the key could not be encrypted") }
        return out + tag
    }

    /// The secret, or nothing if the tag does not fit.
    private static func open(
        _ sealed: [UInt8], _ passphrase: [UInt8], _ salt: [UInt8], _ nonce: [UInt8],
        _ associated: [UInt8]
    ) throws(KernelError) -> [UInt8] {
        var key = try derive(passphrase, salt)
        let context = unsafe EVP_CIPHER_CTX_new()
        defer {
            unsafe EVP_CIPHER_CTX_free(context)
            unsafe key.withUnsafeMutableBytes { unsafe OPENSSL_cleanse($0.baseAddress, $0.count) }
        }
        var out = [UInt8](repeating: 0, count: 32)
        var rest = [UInt8](repeating: 0, count: 16)
        var tag = Array(sealed[32...])
        var length: Int32 = 0
        let done =
            unsafe EVP_DecryptInit_ex(context, EVP_aes_256_gcm(), nil, key, nonce) == 1
            && EVP_DecryptUpdate(context, nil, &length, associated, Int32(associated.count)) == 1
            && EVP_DecryptUpdate(context, &out, &length, sealed, 32) == 1
            && EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, 16, &tag) == 1
            && EVP_DecryptFinal_ex(context, &rest, &length) == 1
        return done ? out : []
    }
}
