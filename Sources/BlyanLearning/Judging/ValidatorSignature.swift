package import BlyanJSON
package import BlyanKernel

/// A validator's signature of a verdict, as it travels from its home to the one that writes the verdict.
package struct ValidatorSignature: Sendable, Equatable {
    /// The block that was judged.
    package let candidate: Digest
    /// The validator's public key.
    package let key: String
    /// r‖s in hex, over what ``VerdictDocument/body`` says.
    package let signature: String

    private static let format = "blyan-signature/1"

    package init(candidate: Digest, key: String, signature: String) {
        self.candidate = candidate
        self.key = key
        self.signature = signature
    }

    /// Reads one.
    ///
    /// - Throws: ``KernelError`` with code `malformed`.
    package init(parsing bytes: [UInt8]) throws(KernelError) {
        guard let value = try? JSONValue(parsing: bytes), value["format"]?.string == Self.format,
            let candidate = value["candidate"]?.string.flatMap({ Digest(hex: $0) }),
            let key = value["key"]?.string, let signature = value["signature"]?.string
        else {
            throw KernelError(
                .malformed, "this is no \(Self.format)",
                hint: "give the file that `blyan candidate cosign` wrote")
        }
        self.init(candidate: candidate, key: key, signature: signature)
    }

    package var json: JSONValue {
        .object([
            "format": .string(Self.format), "candidate": .string(candidate.description),
            "key": .string(key), "signature": .string(signature),
        ])
    }
}
