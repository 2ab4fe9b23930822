internal import BlyanJSON
package import BlyanKernel

/// A shard of held-out text: one document a line, `{"slice":"...","text":"..."}`, in JSON.
///
/// Its hash is committed on chain A before any candidate is judged on it.
package struct PoolShard: Sendable {
    /// One text and what it is of.
    package struct Document: Sendable, Equatable {
        /// Its domain or language.
        package let slice: String
        package let text: String

        package init(slice: String, text: String) {
            self.slice = slice
            self.text = text
        }
    }

    /// SHA-256 of the whole shard.
    package let hash: Digest
    package let documents: [Document]

    /// The payload type of shards.
    package static let payloadType = "text-pool"
    private static let documentLimit = 1_000_000
    private static let textLimit = 1 << 20

    /// Reads a shard.
    ///
    /// - Throws: ``KernelError`` with code `malformed` or `limit`, naming the line.
    package init(parsing bytes: [UInt8]) throws(KernelError) {
        var documents: [Document] = []
        for (number, line) in bytes.split(separator: 10).enumerated() {
            func bad(_ what: String) -> KernelError {
                KernelError(.malformed, "line \(number + 1) of the held-out text \(what)")
            }
            guard number < Self.documentLimit, line.count <= Self.textLimit else {
                throw KernelError(
                    .limit,
                    "line \(number + 1) of the held-out text: at most \(Self.documentLimit) lines of \(Self.textLimit) bytes are read"
                )
            }
            let value: JSONValue
            do throws(JSONError) { value = try JSONValue(parsing: Array(line)) } catch {
                throw bad("is no JSON: \(error)")
            }
            guard case .object(let members) = value, Set(members.keys) == ["slice", "text"],
                let slice = value["slice"]?.string, let text = value["text"]?.string
            else { throw bad("is not {\"slice\": ..., \"text\": ...}") }
            let isName = slice.utf8.allSatisfy {
                (97...122).contains($0) || (48...57).contains($0) || $0 == UInt8(ascii: "-")
            }
            guard isName, (1...63).contains(slice.utf8.count) else {
                throw bad("has a slice that is not 1 to 63 of a-z, 0-9 and -")
            }
            guard !text.isEmpty else { throw bad("has no text") }
            documents.append(Document(slice: slice, text: text))
        }
        guard !documents.isEmpty else {
            throw KernelError(.malformed, "the held-out text has no documents")
        }
        hash = SHA256.hash(bytes)
        self.documents = documents
    }

    /// How many documents each slice has.
    package var slices: [String: Int] {
        documents.reduce(into: [:]) { $0[$1.slice, default: 0] += 1 }
    }

    /// All lines in an order that nobody knew before the seed: ascending by SHA-256(seed ‖ line as 8 bytes, big-endian).
    package func order(_ seed: Digest) -> [Int] {
        let keys = documents.indices.map { line in
            let number = unsafe withUnsafeBytes(of: UInt64(line).bigEndian) { unsafe Array($0) }
            return SHA256.hash(seed.bytes + number).bytes
        }
        return documents.indices.sorted { keys[$0].lexicographicallyPrecedes(keys[$1]) }
    }
}
