package import BlyanKernel
package import BlyanModel

/// A contributor's text as tokens: documents stand between empty lines, some of them are held back to compare with.
package struct TrainingText: Sendable {
    /// What is trained on.
    package let stream: TokenStream
    /// Every twentieth document, never trained on: each a sequence of its own.
    package let heldBack: [[Int]]
    /// SHA-256 of the text.
    package let hash: Digest

    private static let heldBackEvery = 20
    /// Tokens of a document that is held back, at most.
    private static let sequenceLimit = 256

    /// Reads text.
    ///
    /// - Parameter name: what errors call it.
    /// - Throws: ``ModelError`` if it is empty, no text, or too short to train on.
    package init(_ bytes: [UInt8], name: String, tokenizer: Tokenizer) throws {
        guard !bytes.contains(0), let text = String(validating: bytes, as: UTF8.self) else {
            throw ModelError(
                "\(name) is not UTF-8 text", hint: "convert it, for instance with iconv -t UTF-8")
        }
        let documents = Self.documents(text)
        guard !documents.isEmpty else {
            throw ModelError(
                "\(name) has no text", hint: "give a text file with at least some dozen sentences")
        }
        var (tokens, held): ([Int], [[Int]]) = ([], [])
        for (number, document) in documents.enumerated() {
            let encoded = DocumentTokens.encode(document, tokenizer)
            guard encoded.count > 1 else { continue }
            if number % Self.heldBackEvery == Self.heldBackEvery - 1 {
                held.append(Array(encoded.prefix(Self.sequenceLimit)))
            } else {
                tokens += encoded
            }
        }
        guard tokens.count >= 64 else {
            throw ModelError(
                "\(name) has \(tokens.count) tokens, too few to train on",
                hint: "give a text file with at least some dozen sentences")
        }
        stream = TokenStream(tokens: tokens)
        heldBack = held
        hash = SHA256.hash(bytes)
    }

    /// Paragraphs; where there are no empty lines, lines.
    private static func documents(_ text: String) -> [String] {
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        var documents: [String] = [], current: [Substring] = []
        for line in lines + [""] {
            if line.allSatisfy(\.isWhitespace) {
                if !current.isEmpty { documents.append(current.joined(separator: "\n")) }
                current = []
            } else {
                current.append(line)
            }
        }
        guard documents.count == 1 else { return documents }
        return lines.filter { !$0.allSatisfy(\.isWhitespace) }.map(String.init)
    }
}
