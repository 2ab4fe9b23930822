internal import BlyanJSON
internal import Foundation

/// Reads a canonical header line in one pass: each field where its canonical order puts it.
///
/// What it takes is canonical by construction; the hash is that of the line without its signature.
struct HeaderReader {
    private let line: [UInt8]
    private var at = 0

    /// The header, its hash and its signature.
    ///
    /// - Throws: ``KernelError`` naming the field: `malformed` for text that is not canonical JSON, a missing,
    ///   unknown or misspelt field; `limit` for what exceeds ``BlockHeader/Limit``.
    static func read(_ line: [UInt8]) throws(KernelError) -> (BlockHeader, Digest, [UInt8]) {
        var reader = HeaderReader(line: line)
        return try reader.header()
    }

    private init(line: [UInt8]) { self.line = line }

    private mutating func header() throws(KernelError) -> (BlockHeader, Digest, [UInt8]) {
        var header = BlockHeader(chainID: "", blockType: "", index: 0, previous: nil, timestamp: 0)
        header.blockType = try name("block_type")
        header.chainID = try name("chain_id")
        header.dependsOn = try digests("depends_on")
        header.difficulty = try natural("difficulty")
        header.expertName = try name("expert_name")
        header.index = try natural("index")
        header.layerID = try natural("layer_id")
        header.merkleRoot = try digest("merkle_root")
        header.metadata = try object("metadata")
        header.miner = String(decoding: try hex("miner_pub", bytes: 33).digits, as: UTF8.self)
        header.nonce = try decimal("nonce")
        header.payloadHash = try digest("payload_hash")
        let start = at
        let signature = try hex("payload_sig", bytes: 64).bytes
        let end = at
        header.payloadSize = try natural("payload_size")
        header.payloadType = try name("payload_type")
        header.previous = try digest("prev_hash")
        header.timestamp = try natural("timestamp")
        header.version = try name("version")
        guard take("}"), at == line.count else { throw misplaced(nil) }
        var hasher = SHA256()
        unsafe line.withUnsafeBytes { bytes in
            unsafe hasher.update(UnsafeRawBufferPointer(rebasing: bytes[..<start]))
            unsafe hasher.update(UnsafeRawBufferPointer(rebasing: bytes[end...]))
        }
        return (header, hasher.finalize(), signature)
    }

    private func wrong(_ key: StaticString, _ expected: String) -> KernelError {
        KernelError(.malformed, "header field \"\(key)\" is not \(expected)")
    }

    /// What to say when neither the field nor the end that must come next is there.
    private func misplaced(_ key: StaticString?) -> KernelError {
        do throws(JSONError) {
            guard case .object(let fields) = try JSONValue(canonical: line) else {
                return KernelError(.malformed, "a header is not a JSON object")
            }
            guard let key, fields[key.description] == nil else {
                return KernelError(.malformed, "a header has an unknown field at byte \(at)")
            }
            return KernelError(.malformed, "a header lacks the field \"\(key)\"")
        } catch {
            return KernelError(error.isLimit ? .limit : .malformed, error.message)
        }
    }

    private mutating func take(_ text: StaticString) -> Bool {
        let count = text.utf8CodeUnitCount
        guard count <= line.count - at else { return false }
        let (start, here) = unsafe (text.utf8Start, at)
        let isThere = unsafe line.withUnsafeBytes { bytes in
            unsafe bytes.baseAddress.map { unsafe memcmp($0 + here, start, count) == 0 } ?? false
        }
        if isThere { at += count }
        return isThere
    }

    private mutating func key(_ key: StaticString) throws(KernelError) {
        let start = at
        guard take(at == 0 ? "{\"" : ",\""), take(key), take("\":") else {
            at = start
            throw misplaced(key)
        }
    }

    /// Any value, which must be canonical.
    private mutating func value() throws(KernelError) -> JSONValue {
        try KernelError.parsing { () throws(JSONError) in
            try JSONValue(canonicalIn: line, at: &at, depth: 1)
        }
    }

    private mutating func text(_ key: StaticString) throws(KernelError) -> String {
        try self.key(key)
        // Most text is printable ASCII without escapes: canonical as it stands.
        if at < line.count, line[at] == UInt8(ascii: "\""),
            let end = line[(at + 1)...].firstIndex(where: { !Self.isPlain($0) }),
            line[end] == UInt8(ascii: "\"")
        {
            defer { at = end + 1 }
            return String(decoding: line[(at + 1)..<end], as: UTF8.self)
        }
        guard let text = try value().string else { throw wrong(key, "a string") }
        return text
    }

    private static func isPlain(_ byte: UInt8) -> Bool {
        byte >= 32 && byte < 127 && byte != UInt8(ascii: "\"") && byte != UInt8(ascii: "\\")
    }

    private mutating func name(_ key: StaticString) throws(KernelError) -> String {
        let text = try text(key)
        guard text.utf8.count <= BlockHeader.Limit.name else {
            throw KernelError(
                .limit, "header field \"\(key)\" exceeds \(BlockHeader.Limit.name) bytes")
        }
        return text
    }

    private mutating func natural(_ key: StaticString) throws(KernelError) -> Int64 {
        try self.key(key)
        let start = at
        var value: Int64 = 0
        while at < line.count, line[at] &- 48 < 10, value <= JSONValue.integers.upperBound {
            value = value * 10 + Int64(line[at] &- 48)
            at += 1
        }
        guard at > start, at == start + 1 || line[start] != 48,
            value <= JSONValue.integers.upperBound
        else { throw wrong(key, "an integer from 0 to 2^53 − 1") }
        return value
    }

    private mutating func decimal(_ key: StaticString) throws(KernelError) -> String {
        let text = try name(key)
        let digits = text.utf8.allSatisfy { $0 >= 48 && $0 <= 57 }
        guard digits, text == "0" || !text.hasPrefix("0"), text.utf8.count <= 20 else {
            throw wrong(key, "a decimal string of at most 20 digits, or \"\"")
        }
        return text
    }

    private mutating func hex(_ key: StaticString, bytes: Int) throws(KernelError) -> (
        digits: ArraySlice<UInt8>, bytes: [UInt8]
    ) {
        try self.key(key)
        let start = at + 1
        guard take("\""), line.count - at > 2 * bytes,
            let found = Hex.decode(line[start..<start + 2 * bytes], count: bytes)
        else { throw wrong(key, "\(2 * bytes) lower-case hex digits") }
        at += 2 * bytes
        guard take("\"") else { throw wrong(key, "\(2 * bytes) lower-case hex digits") }
        return (line[start..<start + 2 * bytes], found)
    }

    private mutating func digest(_ key: StaticString) throws(KernelError) -> Digest? {
        try self.key(key)
        if take("\"\"") { return nil }
        guard let digest = quotedDigest() else {
            throw wrong(key, "64 lower-case hex digits or \"\"")
        }
        return digest
    }

    private mutating func quotedDigest() -> Digest? {
        guard take("\""), line.count - at > 64,
            let digest = Hex.decode(line[at..<at + 64], count: 32).flatMap({ Digest($0) })
        else { return nil }
        at += 64
        return take("\"") ? digest : nil
    }

    private mutating func digests(_ key: StaticString) throws(KernelError) -> [Digest] {
        try self.key(key)
        guard take("[") else { throw wrong(key, "an array") }
        var digests: [Digest] = []
        while !take("]") {
            guard digests.isEmpty || take(","), let digest = quotedDigest() else {
                throw wrong(key, "an array of 64 lower-case hex digits each")
            }
            digests.append(digest)
        }
        guard digests.count <= BlockHeader.Limit.dependencies else {
            throw KernelError(
                .limit,
                "header field \"\(key)\" has \(digests.count) entries, at most \(BlockHeader.Limit.dependencies)"
            )
        }
        guard digests.count < 2 || Set(digests).count == digests.count else {
            throw wrong(key, "free of repeats")
        }
        return digests
    }

    private mutating func object(_ key: StaticString) throws(KernelError) -> [String: JSONValue] {
        try self.key(key)
        guard case .object(let members) = try value() else { throw wrong(key, "an object") }
        return members
    }
}
